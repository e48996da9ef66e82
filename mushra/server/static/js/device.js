// @ts-check
/**
 * The sound device: whether it exists, its rate and its channels.
 *
 * Without a device, Firefox reports 0 channels or never starts a context. If the device is removed later, a context
 * continues in silence; only a new context shows the loss, because it does not start.
 */

/** Milliseconds for a context to start: a sleeping device takes a second or two. */
const PATIENCE_MS = 4000;
const LOOK_MS = 250;

/**
 * @typedef {Object} Opened
 * @property {AudioContext} context
 * @property {number} deviceRate sample rate of the device in Hz, as the browser reports it
 */

/**
 * A context at the rate of a test's files, if the browser allows it: it then decodes without resampling.
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
  if (maxChannelCount === 0) return; // the device was removed
  const count = channels > 2 ? maxChannelCount : Math.min(2, maxChannelCount);
  if (destination.channelCount !== count) destination.channelCount = count; // restarts the output
  destination.channelInterpretation = channels > 2 ? "discrete" : "speakers";
}

const pause = () => new Promise((resolve) => setTimeout(resolve, LOOK_MS));

/** @param {AudioContext} context @returns {Promise<boolean>} whether it runs within `PATIENCE_MS` */
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
 * Waits for a device where the browser reports none. A context that was made without a device stays silent even
 * then: the page must be reloaded.
 *
 * @param {AudioContext} context
 */
export async function whenThere(context) {
  while (context.destination.maxChannelCount === 0) await pause();
}

/**
 * Watches the device of a context that was made by a click. Browsers report changes to secure pages only.
 *
 * @param {AudioContext} context
 * @param {(there: boolean) => void} tell called when the device is removed and when one is available again
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
