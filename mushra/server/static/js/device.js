// @ts-check
/**
 * The device that is played on: its rate, its channels, and whether there is one.
 *
 * Is there a device to play on? Without one Firefox has no channels, or keeps a context waiting for good. If the
 * device goes later, a context runs on in silence; only a new one tells, by waiting.
 */

/** Milliseconds for a context to begin: a device that sleeps takes a second or two. */
const PATIENCE_MS = 4000;
const LOOK_MS = 250;

/**
 * @typedef {Object} Opened
 * @property {AudioContext} context
 * @property {number} deviceRate in Hz, at which the device itself plays, as far as the browser tells
 */

/**
 * A context at the rate of a test's files, where the browser grants it: it then decodes without resampling.
 *
 * @param {number} rate in Hz; 0: the device's own
 * @returns {Opened}
 */
export function openContext(rate) {
  const latencyHint = "interactive";
  const own = new AudioContext({ latencyHint });
  const deviceRate = own.sampleRate;
  if (!rate || rate === deviceRate) return { context: own, deviceRate };
  try {
    const context = new AudioContext({ latencyHint, sampleRate: rate });
    own.close();
    return { context, deviceRate };
  } catch (error) {
    if (/** @type {DOMException} */ (error).name !== "NotSupportedError") throw error;
    return { context: own, deviceRate };
  }
}

/**
 * Opens as many outputs as sounds need. Beyond stereo all of the device's are opened and channel k of a file goes
 * to output k: with fewer, the system would spread them over the loudspeakers that it knows.
 *
 * @param {AudioDestinationNode} destination
 * @param {number} channels of the sounds
 */
export function openOutputs(destination, channels) {
  const { maxChannelCount } = destination;
  if (maxChannelCount === 0) return; // the device has gone
  const count = channels > 2 ? maxChannelCount : Math.min(2, maxChannelCount);
  if (destination.channelCount !== count) destination.channelCount = count; // starts the output anew
  destination.channelInterpretation = channels > 2 ? "discrete" : "speakers";
}

const pause = () => new Promise((resolve) => setTimeout(resolve, LOOK_MS));

/** @param {AudioContext} context @returns {Promise<boolean>} whether it runs, soon */
async function begins(context) {
  const late = performance.now() + PATIENCE_MS;
  while (context.state !== "running" && performance.now() < late) await pause();
  return context.state === "running";
}

/** @returns {Promise<boolean>} whether sound that begins now would be heard */
async function present() {
  const probe = new AudioContext();
  try {
    return await begins(probe);
  } finally {
    probe.close();
  }
}

/**
 * Waits for a device where the browser says that there is none. A context that was made without one stays silent
 * even then: the page has to be loaded anew.
 *
 * @param {AudioContext} context
 */
export async function whenThere(context) {
  while (context.destination.maxChannelCount === 0) await pause();
}

/**
 * Watches the device of a context that was made by a click. Only secure pages are told of a change.
 *
 * @param {AudioContext} context
 * @param {(there: boolean) => void} tell called when the device has gone, and when there is one again
 */
export async function watchDevice(context, tell) {
  let changes = 0;
  const changed = async () => {
    changes += 1;
    const mine = changes;
    for (let there = null; !there && mine === changes; await pause()) {
      there = await present();
      if (mine === changes) tell(there);
    }
  };
  const begun = begins(context);
  navigator.mediaDevices?.addEventListener("devicechange", changed);
  if (await begun) return;
  const before = changes;
  tell(false);
  while (context.state !== "running" && changes === before) await pause();
  if (context.state === "running") tell(true);
  else location.reload();
}
