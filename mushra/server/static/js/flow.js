// @ts-check
/** One listener's session: shows its steps, keeps drafts of the answers, gives finished pages to the outbox. */

import { ApiError, finishSession } from "./api.js";
import { openOutputs } from "./device.js";
import { button, dialog, element, isTextField } from "./dom.js";
import { keys } from "./frame.js";
import { Loader, SoundError, soundsOf } from "./loader.js";
import { doneScreen } from "./pages/finish.js";
import { MIN_LOOP_S, Player } from "./player.js";
import { HEADPHONES, stepsOf, trackOf, viewOf } from "./steps.js";
import { t } from "./texts.js";

/** Milliseconds for which a new page ignores Next: the second click of a double click is meant for the old page. */
const DEAF_MS = 250;
/** Loaded part of the reference from which on it can be played while the rest of the page is loading. */
const ENOUGH = 0.2;
/** Milliseconds after a change before the draft is written. */
const DRAFT_MS = 300;
/** Most events of a page that the server accepts. */
const MAX_EVENTS = 2000;

export class Flow {
  /**
   * @param {any} session
   * @param {Object} parts
   * @param {AudioContext} parts.context
   * @param {import("./storage.js").Storage} parts.storage
   * @param {import("./outbox.js").Outbox} parts.outbox
   * @param {import("./frame.js").Frame} parts.frame
   * @param {string} parts.key of the session
   * @param {number} parts.started when the session began, in milliseconds since 1970
   */
  constructor(session, { context, storage, outbox, frame, key, started }) {
    this.session = session;
    this.steps = stepsOf(session);
    this.player = new Player(context);
    this._context = context;
    this._storage = storage;
    this._outbox = outbox;
    this._frame = frame;
    this._sessionKey = key;
    this._started = started;
    this._loader = new Loader(context);
    this._index = 0;
    this._end = new AbortController();
    /** @type {import("./trial.js").PageView|null} */
    this._view = null;
    /** Answers on the current page, in the shape of a result. @type {any} */
    this._draft = {};
    this._shownAt = 0;
    this._draftTimer = 0;
    this._hintTimer = 0;
    this._deafUntil = 0;
    this._stopped = false;
  }

  /** Shows the step at which the listener stopped. */
  async start() {
    const storage = this._storage;
    this._headphones = await storage.read(`${this.session.id}:${HEADPHONES}`);
    const place = this.session.test.preview ? await storage.read(`${this.session.id}:place`) : undefined;
    const there = this.steps.findIndex((step) => step.id === place);
    const open = this.steps.findIndex((step) => !this._done(step));
    addEventListener("keydown", (event) => this._onkey(event));
    addEventListener("pagehide", () => this._keep());
    document.addEventListener("visibilitychange", () => document.hidden && this._keep());
    addEventListener("beforeunload", (event) => {
      if (this._outbox.size && this._outbox.state !== "gone") event.preventDefault();
    });
    this._outbox.addEventListener("change", () => this._showSaving());
    this._storage.onlost = () => this._showSaving();
    const volume = this.session.pages.map((/** @type {any} */ page) => this._stored(page.id)?.volume);
    this.player.setVolume(volume.filter((/** @type {any} */ one) => one !== undefined).at(-1) ?? 1);
    if (there >= 0) await this.show(there);
    else if (open >= 0) await this.show(open);
    else await this._submit();
  }

  /** Stops for good: another tab has the session. */
  stop() {
    this._keep(); // before the stop: afterwards the draft belongs to the other tab
    this._stopped = true;
    this._end.abort();
    this.player.close();
    this._loader.keep([]);
    this._frame.silent();
  }

  /** Number of the current step, from 1. */
  get number() {
    return Math.min(this._index, this.steps.length - 1) + 1;
  }

  /** Shows the current step again, in the language that is set now. */
  async again() {
    this._keep();
    await this.show(this._index);
  }

  /** @param {any} step @returns {boolean} whether it has a result */
  _done(step) {
    if (step.id !== HEADPHONES) return Boolean(this._stored(step.id));
    const answered = this.session.pages.some((/** @type {any} */ page) => this._stored(page.id)?.headphone_check);
    return answered || this._headphones?.left === true;
  }

  /** @param {string} id @returns {any} the last result of a page, confirmed or not */
  _stored(id) {
    return this._outbox.waiting(id) ?? this.session.saved[id]?.result;
  }

  /** @param {number} index */
  async show(index) {
    this._end.abort();
    this._end = new AbortController();
    const { signal } = this._end;
    this._view = null;
    // The old page stays visible until the next one has its draft and sounds: it must not look open.
    if (this._next) this._next.disabled = true;
    this._index = index;
    const step = this.steps[index];
    this._storage.write(`${this.session.id}:place`, step.id);
    this._frame.progress(index + 1, this.steps.length);
    this._showSaving();
    this.player.load(null);
    if (step.id === HEADPHONES) openOutputs(this._context.destination, 2);
    const heading = this._heading(step);
    const draft = await this._storage.read(`${this.session.id}:draft:${step.id}`);
    if (signal.aborted) return;
    this._draft = draft ?? (step.id === HEADPHONES ? this._headphones : this._stored(step.id)) ?? {};
    this._draft = { ...this._draft, events: [...(this._draft.events ?? [])] };
    const sounds = await this._sounds(step, heading, signal);
    if (!sounds || signal.aborted) return;
    this._build(step, heading, signal);
  }

  /** @param {any} step @returns {HTMLElement} */
  _heading(step) {
    const name = step.name || (step.type === HEADPHONES ? t("headphones") : step.type === "volume" ? t("volume") : "");
    const title = name || t("progress", { n: this._index + 1, total: this.steps.length });
    document.title = `${title} – ${this.session.test.name}`;
    const heading = element("h1", { text: title, tabindex: "-1" });
    return element("div", { class: "heading" }, heading, step.training ? element("p", { class: "badge", text: t("training") }) : null);
  }

  /**
   * Loads a step's sounds into the player and shows the progress.
   *
   * @param {any} step
   * @param {HTMLElement} heading
   * @param {AbortSignal} signal
   * @returns {Promise<boolean>} false if they cannot be loaded; the page then shows the error
   */
  async _sounds(step, heading, signal) {
    const next = this.steps.slice(this._index + 1).find((one) => soundsOf(one).size > 0);
    this._loader.keep(next ? [step, next] : [step]);
    if (soundsOf(step).size > 0) {
      const bar = element("progress", { max: 1, value: 0, "aria-label": t("loading") });
      const text = element("p", { class: "note" });
      const early = step.reference ? this._early(step, signal) : null;
      this._frame.main.replaceChildren(
        element("div", { class: "page" }, heading, element("p", { text: t("loading") }), bar, text, early),
      );
      const timer = setInterval(() => {
        bar.value = this._loader.progress(step);
        text.textContent = t("loadingPercent", { n: Math.round(100 * bar.value) });
        if (early) early.hidden = this._loader.part(step.reference.url) < ENOUGH;
      }, 100);
      try {
        const buffers = await this._loader.load(step);
        if (signal.aborted) return false;
        this.player.load(trackOf(step, buffers, this._context, this.session.test.stop_on_errors));
      } catch (error) {
        if (!signal.aborted) this._soundError(step, error);
        return false;
      } finally {
        clearInterval(timer);
      }
    }
    if (next) this._loader.load(next).catch(() => {}); // that page shows the error
    return true;
  }

  /**
   * A button that plays the loaded part of the reference and continues when more is loaded. Listeners cannot compare
   * yet: the page is shown, and signals can be switched, when all signals are loaded.
   *
   * @param {any} step
   * @param {AbortSignal} signal
   */
  _early(step, signal) {
    const { url } = step.reference;
    let turn = 0;
    const play = button(t("playReference"), async () => {
      turn += 1;
      const mine = turn;
      for (let from = 0, whole = false; !whole; ) {
        whole = this._loader.part(url) === 1;
        const buffer = await this._loader.beginning(url);
        if (signal.aborted || !play.isConnected || mine !== turn) return;
        if (buffer.length - from < MIN_LOOP_S * buffer.sampleRate) {
          if (whole) return;
          await new Promise((resolve) => setTimeout(resolve, 100));
          continue;
        }
        const buffers = new Map([["reference", buffer]]);
        this.player.load({ .../** @type {any} */ (trackOf(step, buffers, this._context, false)), looping: false });
        this.player.seek(from);
        this.player.play("reference");
        from = buffer.length;
        await new Promise((resolve) => this.player.addEventListener("ended", resolve, { once: true, signal }));
      }
    });
    play.hidden = true;
    return play;
  }

  /** @param {any} step @param {unknown} error */
  _soundError(step, error) {
    if (!(error instanceof SoundError)) throw error;
    const urls = [...soundsOf(step)];
    const at = urls.findIndex(([, url]) => url === error.url);
    const detail = t("soundErrorDetail", {
      page: step.id,
      signal: at >= 0 ? urls[at][0] : "",
      url: error.url,
      problem: t(error.kind === "refused" ? "refusedFile" : error.kind),
      detail: error.detail,
    });
    const again = button(t("tryAgain"), () => this.show(this._index), { class: "primary" });
    this._frame.message(t("soundError"), [t("soundErrorText"), detail], [again], "bad");
  }

  /**
   * @param {any} step
   * @param {HTMLElement} heading
   * @param {AbortSignal} signal
   */
  _build(step, heading, signal) {
    this._shownAt = performance.now();
    const hint = element("p", { class: "hint", role: "status" });
    this._missing = element("div", { class: "missing", role: "alert" });
    const view = viewOf(step, {
      session: this.session,
      player: this.player,
      draft: this._draft,
      signal,
      changed: () => this._changed(),
      log: (event, id) => this._log(event, id),
      elapsed: () => this._elapsed(),
      hint: (text) => {
        clearTimeout(this._hintTimer);
        hint.textContent = text;
        this._hintTimer = setTimeout(() => hint.replaceChildren(), 6000);
      },
    });
    this._view = view;
    const last = this._index === this.steps.length - 1;
    const next = button(t(last ? "finish" : "next"), (event) => event.detail < 2 && this.next(), { class: "next primary" });
    next.disabled = true;
    this._deafUntil = performance.now() + DEAF_MS;
    setTimeout(() => {
      next.disabled = false;
    }, DEAF_MS);
    const previous = this.session.test.preview && this._index > 0 ? button(t("previous"), () => this.previous()) : null;
    const box = element(
      "div",
      { class: view.wide ? "page wide" : "page", dataset: { type: step.type } },
      heading,
      ...view.content,
      element("div", { class: "footer" }, previous, view.control, element("div", { class: "told" }, hint, this._missing), next),
    );
    this._next = next;
    this._frame.main.replaceChildren(box);
    this._frame.keyRows = keyRows(step);
    this._frame.rules = view.rules ?? [];
    this._ready();
    // The heard time grows without an event.
    const timer = setInterval(() => this._ready(), 250);
    signal.addEventListener("abort", () => clearInterval(timer));
    scrollTo(0, 0);
    heading.querySelector("h1")?.focus({ preventScroll: true });
  }

  /** Leaves the page if nothing is missing; otherwise names what is missing. */
  next() {
    if (!this._view || this._stopped || performance.now() < this._deafUntil) return;
    const missing = this._view.missing();
    this._missing?.replaceChildren();
    if (missing.length) {
      const list = element("ul", {}, ...missing.map((text) => element("li", { text })));
      this._missing?.append(element("p", { text: t("stillMissing") }), list);
      this._missing?.scrollIntoView({ block: "nearest" });
      return;
    }
    this._leave();
    const following = this._index + 1 < this.steps.length ? this._index + 1 : -1;
    // In a test without a way back, a page is shown again only if the server refused it.
    const open = this.session.test.preview ? following : this.steps.findIndex((step) => !this._done(step));
    if (open >= 0) this.show(open);
    else this._submit();
  }

  /** Goes back if the test allows it; the answers stay a draft. */
  previous() {
    if (!this._view || this._index === 0) return;
    this._keep();
    this.show(this._index - 1);
  }

  /** Gives the current page's result to the outbox. */
  _leave() {
    const step = this.steps[this._index];
    const view = /** @type {import("./trial.js").PageView} */ (this._view);
    const filled = this._filled(view);
    this._view = null;
    this._end.abort();
    clearTimeout(this._draftTimer);
    if (step.id === HEADPHONES) {
      this._headphones = { ...filled, left: true };
      this._storage.write(`${this.session.id}:${HEADPHONES}`, this._headphones);
    } else {
      const known = this._outbox.waiting(step.id)?.revision ?? this.session.saved[step.id]?.revision ?? 0;
      const check = this.steps[this._index - 1]?.id === HEADPHONES && this._headphones?.headphone_check;
      const result = { ...filled, ...(check ? { headphone_check: check } : {}), revision: known + 1 };
      // The next visit of this page starts from it when the outbox has dropped the result.
      this.session.saved[step.id] = { revision: known + 1, result };
      this._outbox.add(step.id, result);
    }
    this._storage.write(`${this.session.id}:draft:${step.id}`, undefined);
  }

  /** @param {import("./trial.js").PageView} view @returns {any} the result so far, without a revision */
  _filled(view) {
    return {
      ...view.result(),
      time_ms: Math.round(this._elapsed()),
      shown_at_ms: this._draft.shown_at_ms ?? Math.max(0, Date.now() - this._started),
      events: this._draft.events,
    };
  }

  _elapsed() {
    return (this._draft.time_ms ?? 0) + performance.now() - this._shownAt;
  }

  /** @param {string} event @param {string} id */
  _log(event, id) {
    if (this._draft.events.length < MAX_EVENTS) this._draft.events.push([event, id, Math.round(this._elapsed())]);
  }

  _changed() {
    clearTimeout(this._draftTimer);
    this._draftTimer = setTimeout(() => this._keep(), DRAFT_MS);
    this._ready();
  }

  /** Shows on Next whether the page can be left. */
  _ready() {
    if (!this._view || !this._next) return;
    const missing = this._view.missing().length;
    this._next.classList.toggle("ready", missing === 0);
    if (!missing) this._missing?.replaceChildren();
  }

  /** Writes the draft. */
  _keep() {
    clearTimeout(this._draftTimer);
    if (!this._view || this._stopped) return;
    this._storage.write(`${this.session.id}:draft:${this.steps[this._index].id}`, this._filled(this._view));
  }

  _showSaving() {
    if (this._stopped) return;
    this._frame.saving(this._outbox, this._storage.lasting, () => {
      const refused = this.steps.findIndex((step) => this._outbox.waiting(step.id));
      if (refused >= 0) this.show(refused);
    });
  }

  /** Waits until everything is confirmed, and ends the session. */
  async _submit() {
    this._end.abort();
    this._end = new AbortController();
    const { signal } = this._end; // aborted if a page is shown again
    this.player.load(null);
    this._loader.keep([]);
    this._frame.message(t("sending"), []);
    let again = true;
    for (let wait = 1; ; wait = Math.min(30, 2 * wait)) {
      await this._outbox.empty();
      if (signal.aborted) return;
      const revisions = Object.fromEntries(
        Object.entries(this.session.saved).map(([id, one]) => [id, /** @type {any} */ (one).revision]),
      );
      try {
        this._finished(await finishSession(this.session.id, this._sessionKey, revisions));
        return;
      } catch (error) {
        if (signal.aborted) return;
        const missing = error instanceof ApiError ? (error.body?.missing ?? []) : [];
        if (missing.length && again) {
          again = false;
          if (this._sendAgain(missing)) continue;
          return;
        }
        if (!(error instanceof ApiError) || !error.passing) {
          this._frame.message(t("gone", { message: String(/** @type {any} */ (error).message) }), [], [], "bad");
          return;
        }
        this._frame.message(t("sending"), [t("waiting")]);
      }
      await new Promise((resolve) => {
        setTimeout(resolve, 1000 * wait);
        addEventListener("online", resolve, { once: true });
      });
    }
  }

  /**
   * Sends pages that the server confirmed but does not have (for example after its restore from a copy).
   *
   * @param {string[]} pages
   * @returns {boolean} false if this browser does not have one of them either; that page is then shown
   */
  _sendAgain(pages) {
    for (const id of pages) {
      const known = this.session.saved[id];
      if (known) this._outbox.add(id, { ...known.result, revision: known.revision });
    }
    const lost = this.steps.findIndex((step) => pages.includes(step.id) && !this.session.saved[step.id]);
    if (lost >= 0) this.show(lost);
    return lost < 0;
  }

  /** @param {any} completion */
  _finished(completion) {
    for (const what of ["place", HEADPHONES]) this._storage.write(`${this.session.id}:${what}`, undefined);
    this._frame.main.replaceChildren(doneScreen(completion, this.session.pages));
    document.title = `${t("done")} – ${this.session.test.name}`;
    this._frame.main.querySelector("h1")?.focus();
  }

  /** @param {KeyboardEvent} event */
  _onkey(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!this._view || !keys.on || isTextField(target) || document.querySelector("dialog[open]")) return;
    const isArrow = event.key.startsWith("Arrow") || event.key.startsWith("Page");
    if (event.repeat && !isArrow) return;
    if (isNative(target, event.key)) return;
    if (event.key === "?") this._frame.help();
    else if (event.key === "n" || event.key === "N" || event.key === "Enter") this.next();
    else if (!this._view.key?.(event)) return;
    event.preventDefault();
  }
}

/**
 * Whether the browser gives a key a meaning on a control.
 *
 * @param {HTMLElement} target
 * @param {string} key
 */
function isNative(target, key) {
  if (target instanceof HTMLInputElement && ["radio", "range", "checkbox"].includes(target.type)) {
    return key === " " || key.startsWith("Arrow") || key.startsWith("Page");
  }
  return (key === " " || key === "Enter") && target.closest("button, a") !== null;
}

/** @param {any} step @returns {string[][]} keys and what they do on this page */
function keyRows(step) {
  const sounds = soundsOf(step).size > 0;
  const graded = step.type === "mushra" || step.type === "bs1116";
  return [
    ...(step.reference ? [["0  R", t("keyReference")]] : []),
    ...(sounds && step.type !== "volume" ? [["1  …  9", t("keyItems")]] : []),
    ...(step.signals?.length > 9 ? [["X  Y  Z", t("keyMoreItems")]] : []),
    ...(sounds ? [["␣", t("keySpace")]] : []),
    ...(step.enableLooping ? [["a  b", t("keyLoop")], ["A  B", t("keyLoopBack")]] : []),
    ...(graded ? [["↑  ↓  ←  →", t("keyArrows")]] : []),
  ];
}
