// @ts-check
/** Begins or continues a session. The first click also allows the browser to play sound. */

import { ApiError, createSession, readSession } from "./api.js";
import { openContext, watchDevice, whenThere } from "./device.js";
import { announce, button, dialog, element } from "./dom.js";
import { Flow } from "./flow.js";
import { Frame } from "./frame.js";
import { Outbox } from "./outbox.js";
import { doneScreen } from "./pages/finish.js";
import { stepsOf } from "./steps.js";
import { Storage } from "./storage.js";
import { Tab } from "./tabs.js";
import { setLanguage, t } from "./texts.js";

/** Error codes of the server that have a text in the listener's language. */
const KNOWN_CODES = ["invitation_unknown", "invitation_used", "already_done", "closed", "prolific_needed", "panel_needed", "panel_unsigned", "elsewhere", "full", "unavailable"];
/** Seconds until a failed call is repeated. */
const RETRY_S = 5;

const query = new URLSearchParams(location.search);
const storage = new Storage();
/** Rate in Hz and channels of the test's sounds; 0: unknown. */
const wanted = {
  rate: Number(document.body.dataset.sampleRate ?? 0),
  channels: Number(document.body.dataset.channels ?? 0),
};
const frame = new Frame(document.body.dataset.testname ?? "", (document.body.dataset.languages ?? "").split(" "));
// The server's choice: the language in the address, or the test's own.
setLanguage(document.documentElement.lang);

/** Listener of the session that this browser remembers; several people may use one browser. */
const identity = (() => {
  const invitation = query.get("t");
  const pid = query.get("PROLIFIC_PID");
  const person = document.body.dataset.person;
  if (person) return `panel:${query.get(person) ?? ""}`;
  if (invitation) return `invitation:${invitation}`;
  return pid ? `prolific:${query.get("STUDY_ID") ?? ""}:${pid}` : "anonymous";
})();
const pointer = `listener:${identity}`;

/** Flow of the current session. @type {Flow|null} */
let flow = null;
/** Whether another browser has saved a page of this session, so that this one shows old answers. */
let old = false;

/** @typedef {{id: string, key: string, started: number}} Pointer */

async function begin() {
  if (!("AudioContext" in window)) {
    frame.message(t("notStarted"), [t("noAudio")], [], "bad");
    return;
  }
  frame.message(t("connecting"), []);
  /** @type {Pointer|undefined} */
  const known = await storage.read(pointer);
  let session = null;
  if (known) {
    try {
      session = await readSession(known.id, known.key);
    } catch (error) {
      if (!(error instanceof ApiError) || (error.status !== 401 && error.status !== 404)) {
        failed(error, begin);
        return;
      }
      storage.write(pointer, undefined); // erased, or on a server that no longer exists
    }
  }
  if (session && known) {
    if (!query.has("lang")) setLanguage(session.test.language); // the language of the session's start
    await welcomeBack(session, known);
  } else welcome();
}

/** The first screen of a new listener. */
function welcome() {
  const start = button(t("start"), () => {
    start.disabled = true;
    open(null, null);
  }, { class: "primary big" });
  frame.message(frameTitle(), [t("startText")], [start, frame.languageChoice(welcome)], "welcome");
}

/**
 * The first screen of a listener who has been here before.
 *
 * @param {any} session
 * @param {Pointer} known
 */
async function welcomeBack(session, known) {
  const outbox = outboxOf(known);
  await outbox.restore(session);
  if (old) return;
  const other = button(t("someoneElse"), () => {
    storage.write(pointer, undefined);
    welcome();
  });
  const others = identity === "anonymous" ? [other] : [];
  if (session.state === "finished") {
    frame.main.replaceChildren(doneScreen(session.completion ?? {}, []), ...others);
    return;
  }
  const steps = stepsOf(session);
  const done = steps.filter((step) => session.saved[step.id]).length;
  const go = button(t("resumeSession"), () => {
    go.disabled = true;
    open(session, { known, outbox });
  }, { class: "primary big" });
  const n = Math.min(steps.length, done + 1);
  frame.message(frameTitle(), [t("resumeText", { n, total: steps.length })], [go, ...others], "welcome");
}

/**
 * @param {Pointer} known
 * @returns {Outbox} of a session; if another browser saves a page first, it stops the session in this one
 */
function outboxOf(known) {
  const outbox = new Outbox(storage, known.id, known.key);
  outbox.addEventListener("elsewhere", () => {
    old = true;
    flow?.stop();
    const go = button(t("takeOver"), () => location.reload(), { class: "primary" });
    frame.message(t("savedElsewhere"), [t("savedElsewhereText")], [go]);
  });
  return outbox;
}

/**
 * Opens the session. Called by a click, so that the browser allows sound.
 *
 * @param {any} session null: a new one is begun
 * @param {{known: Pointer, outbox: Outbox}|null} before of the session
 * @param {import("./device.js").Opened} [opened] by an earlier attempt
 */
async function open(session, before, opened = openContext(wanted.rate)) {
  const { context } = opened;
  context.resume();
  const reload = () => location.reload();
  const again = button(t("tryAgain"), reload, { class: "primary" });
  const { maxChannelCount } = context.destination;
  if (maxChannelCount === 0) {
    whenThere(context).then(reload);
    frame.message(t("noDevice"), [t("noDeviceText")], [again], "bad");
    return;
  }
  if (wanted.channels > Math.max(2, maxChannelCount)) {
    context.close();
    const text = t("fewChannelsText", { n: wanted.channels, device: maxChannelCount });
    frame.message(t("fewChannels"), [text], [again], "bad");
    return;
  }
  let current = session;
  let known = before?.known;
  if (!current || !known) {
    frame.message(t("connecting"), []);
    try {
      current = await createSession(arrival(opened));
    } catch (error) {
      failed(error, () => open(null, null, opened));
      return;
    }
    known = { id: current.id, key: current.key, started: Date.now() };
    storage.write(pointer, known);
  }
  const outbox = before?.outbox ?? outboxOf(known);
  if (!before) await outbox.restore(current);
  const tab = new Tab(current.id, () => {
    flow?.stop();
    const back = button(t("takeOver"), () => location.reload(), { class: "primary" });
    frame.message(t("lostTab"), [], [back]);
  });
  const go = async () => {
    if (session) {
      // Another tab may have saved pages since this page was loaded.
      try {
        current = await readSession(known.id, known.key);
      } catch (error) {
        failed(error, go);
        return;
      }
      await outbox.restore(current);
    }
    if (old) return;
    flow = new Flow(current, { context, storage, outbox, frame, key: known.key, started: known.started });
    const build = () =>
      frame.build(() => {
        build();
        flow?.again();
      });
    build();
    await flow.start();
  };
  /** Closes the dialog that reports a removed device. @type {AbortController|null} */
  let gone = null;
  watchDevice(context, (there) => {
    if (there === !gone) return;
    gone?.abort();
    gone = there ? null : new AbortController();
    if (there) {
      announce(t("deviceBack"));
      return;
    }
    flow?.player.pause();
    const content = [element("p", { text: t("noDeviceText") }), button(t("tryAgain"), reload)];
    dialog(t("noDevice"), content, t("close"), /** @type {AbortController} */ (gone).signal);
  });
  if (await tab.claim()) {
    await go();
    return;
  }
  const take = button(t("takeOver"), () => {
    tab.take();
    // The other tab needs this time to write its draft.
    setTimeout(go, 300);
  }, { class: "primary" });
  frame.message(t("otherTab"), [t("otherTabText")], [take]);
}

/** @param {import("./device.js").Opened} opened */
function arrival({ context, deviceRate }) {
  const pid = query.get("PROLIFIC_PID");
  const prolific = pid
    ? { pid, study: query.get("STUDY_ID") ?? "", session: query.get("SESSION_ID") ?? "" }
    : null;
  const client = {
    sample_rate: context.sampleRate,
    device_rate: deviceRate,
    channels: Math.min(Math.max(1, wanted.channels), context.destination.maxChannelCount),
    device_channels: context.destination.maxChannelCount,
    screen: `${screen.width}x${screen.height}`,
  };
  // The server knows which of the parameters identify the listener.
  const parameters = document.body.dataset.person ? Object.fromEntries(query) : undefined;
  return { invitation: query.get("t"), prolific, parameters, language: document.documentElement.lang, client };
}

/**
 * Shows the error; if it may be temporary, tries again after a while or when the listener asks for it.
 *
 * @param {unknown} error
 * @param {() => void} again
 */
function failed(error, again) {
  const known = error instanceof ApiError ? error : new ApiError(0, "", String(error));
  const text = KNOWN_CODES.includes(known.code) ? t(known.code) : known.status === 0 ? t("noServer") : known.message;
  if (!known.passing) {
    frame.message(t("notStarted"), [text], [], "bad");
    return;
  }
  const now = () => {
    clearTimeout(timer);
    again();
  };
  const timer = setTimeout(now, 1000 * Math.max(RETRY_S, known.retryAfter ?? 0));
  frame.message(t("notStarted"), [text, t("retries")], [button(t("tryAgain"), now, { class: "primary" })], "bad");
}

function frameTitle() {
  return document.body.dataset.testname ?? "";
}

begin();
