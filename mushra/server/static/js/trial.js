// @ts-check
/** Common parts of all pages with sound: play buttons, transport, keys, and counts per signal. */

import { announce, button, element } from "./dom.js";
import { t } from "./texts.js";
import { Waveform } from "./waveform.js";

/** Milliseconds of playing after which a signal counts as heard; all of a shorter signal. */
export const HEARD_MS = 500;

/** Keys that play the items, in order: a page of BS.1534 has up to 12. */
const ITEM_KEYS = "123456789xyz";

/** @param {string} key @returns {number} index of the item that a key plays; -1: none */
export const itemOfKey = (key) => (key.length === 1 ? ITEM_KEYS.indexOf(key.toLowerCase()) : -1);

/** @param {number} index of an item @returns {string|undefined} the key that plays it */
export const keyOfItem = (index) => ITEM_KEYS[index];

/**
 * @typedef {Object} PageContext input of a page besides its description
 * @property {any} session
 * @property {import("./player.js").Player} player with the page's sounds, for pages that have them
 * @property {any} draft earlier answers, in the shape of a result; {} at first
 * @property {AbortSignal} signal of the page's end
 * @property {() => void} changed must be called after every change
 * @property {(event: string, signal: string) => void} log
 * @property {() => number} elapsed milliseconds that the page has been shown
 * @property {(text: string) => void} hint shows and announces a short text
 */

/**
 * @typedef {Object} PageView output of a page
 * @property {(Node|null)[]} content
 * @property {() => string[]} missing tasks that are not done yet, in words
 * @property {() => any} result the type's own part of the result
 * @property {(event: KeyboardEvent) => boolean} [key] handles a key; whether the page has used it
 * @property {boolean} [wide] whether it uses the full width of the window
 * @property {string[]} [rules] of the page, in words
 * @property {HTMLElement} [control] shown beside Next
 */

/**
 * @typedef {Object} Item
 * @property {string} id of the signal
 * @property {string} name for the listener
 * @property {number|string|(string|null)[]|null} score
 * @property {string} comment
 * @property {number} plays
 * @property {number} moves
 * @property {number|null} first milliseconds until the first play
 * @property {number} before milliseconds heard on earlier visits of the page
 */

export class Trial {
  /**
   * @param {any} page
   * @param {PageContext} context
   * @param {string[]} names of its signals, in their order
   * @param {boolean} onlyPlaying whether only the signal that plays can be graded
   */
  constructor(page, context, names, onlyPlaying) {
    this.page = page;
    this.context = context;
    this.player = context.player;
    /** Called when playing has changed. */
    this.onplay = () => {};
    this._onlyPlaying = onlyPlaying;
    this._ended = false;
    /** @type {Map<string, HTMLButtonElement[]>} */
    this._buttons = new Map();
    const drafts = new Map((context.draft.ratings ?? []).map((/** @type {any} */ one) => [one.signal, one]));
    /** @type {Item[]} */
    this.items = page.signals.map((/** @type {any} */ signal, /** @type {number} */ index) => {
      const draft = drafts.get(signal.id) ?? {};
      return {
        id: signal.id,
        name: signal.label ? `${names[index]} (${signal.label})` : names[index],
        // A score without a move is not a grade: older pages stored scores from gestures that only scrolled.
        score: draft.moves ? (draft.score ?? null) : null,
        comment: draft.comment ?? "",
        plays: draft.plays ?? 0,
        moves: draft.moves ?? 0,
        first: draft.first_ms ?? null,
        before: draft.heard_ms ?? 0,
      };
    });
    const { player } = this;
    player.addEventListener("change", () => this._changed(), { signal: context.signal });
    player.addEventListener("ended", () => this._atEnd(), { signal: context.signal });
  }

  /** @param {string|null} id @returns {Item|undefined} */
  item(id) {
    return this.items.find((item) => item.id === id);
  }

  /** @param {Item} item @returns {number} milliseconds heard, earlier visits included */
  heard(item) {
    return item.before + this.player.heard(item.id);
  }

  /** @returns {Item[]} */
  unheard() {
    const length = (/** @type {Item} */ item) => this.player.track?.buffers.get(item.id)?.duration ?? 0;
    return this.items.filter((item) => this.heard(item) < Math.min(HEARD_MS, 900 * length(item)));
  }

  /** @param {number} seconds @returns {Item[]} items that were played for less, repeats included */
  short(seconds) {
    return this.items.filter((item) => Math.round(this.heard(item)) < 1000 * seconds);
  }

  /** @param {Item} item @returns {boolean} whether it may be graded now */
  rateable(item) {
    if (!this._onlyPlaying) return true;
    return this.player.current === item.id && (this.player.playing || this._ended);
  }

  /** @param {Item} item tells the listener why it may not be graded */
  blocked(item) {
    this.context.hint(t("playFirst", { item: item.name }));
  }

  /**
   * Plays a signal or the reference.
   *
   * @param {string} id
   */
  play(id) {
    const again = this.player.playing && this.player.current === id;
    const item = this.item(id);
    this.player.play(id);
    this.context.hint(""); // a hint to play another item first is now out of date
    if (again) return;
    if (item) {
      item.plays += 1;
      item.first ??= this.context.elapsed();
    }
    this.context.log("play", id);
    this.context.changed();
    announce(t("playing", { item: item ? item.name : t("reference") }));
  }

  toggle() {
    if (this.player.playing) {
      this.context.log("pause", this.player.current ?? "");
      this.player.pause();
      announce(t("paused"));
    } else if (this.player.current !== null) this.play(this.player.current);
    else this.play(this.page.reference ? "reference" : this.items[0].id);
    this.context.changed();
  }

  /** @param {Item} item @param {number|string|(string|null)[]} score */
  rate(item, score) {
    item.score = score;
    item.moves += 1;
    this.context.log("rate", item.id);
    this.context.changed();
  }

  /**
   * A button that plays a signal or the reference, or pauses it.
   *
   * @param {string} id
   * @param {string} text
   * @param {string} label for screen readers
   * @param {string} [key] key with the same effect
   */
  playButton(id, text, label, key) {
    const plays = () => this.player.playing && this.player.current === id;
    const made = button("", () => (plays() ? this.toggle() : this.play(id)), {
      class: "play",
      "aria-label": label,
      "aria-pressed": "false",
      "aria-keyshortcuts": key,
      dataset: { signal: id },
    });
    made.append(element("span", { class: "play-icon", "aria-hidden": "true" }), element("span", { text }));
    this._buttons.set(id, [...(this._buttons.get(id) ?? []), made]);
    return made;
  }

  /**
   * Reference, pause, waveform and loop: the part above the items, which stays in view.
   *
   * @param {HTMLElement} [legend] stays in view, too, if the scales are horizontal
   */
  transport(legend) {
    const { page, player, context } = this;
    this._pause = button(t("pause"), () => this.toggle(), { class: "pause", "aria-keyshortcuts": "Space" });
    const reference = page.reference
      ? this.playButton("reference", t("reference"), t("playReference"), "0")
      : null;
    reference?.classList.add("reference");
    const drawn = page.showWaveform && page.reference ? player.track?.buffers.get("reference") : null;
    const remember = () => {
      context.log("loop", player.current ?? "");
      context.changed();
      const [start, end] = player.region.map((frame) => (frame / player.rate).toFixed(1));
      announce(t("loopIs", { start, end }));
    };
    const wave = new Waveform(player, drawn ?? null, Boolean(page.enableLooping), remember, context.signal);
    this.wave = wave;
    this._remember = remember;
    const loop = page.enableLooping
      ? element(
          "div",
          { class: "loop", role: "group", "aria-label": t("loop") },
          element("span", { class: "note", "aria-hidden": "true", text: t("loop") }),
          button(t("loopFrom"), () => this._edge("a"), { "aria-label": t("setLoopStart"), "aria-keyshortcuts": "a" }),
          button(t("loopTo"), () => this._edge("b"), { "aria-label": t("setLoopEnd"), "aria-keyshortcuts": "b" }),
          button(t("loopWhole"), () => this._edge("all"), { "aria-label": t("loopAll") }),
        )
      : null;
    this._changed();
    return element("div", { class: "transport" }, reference, this._pause, wave.element, loop, legend);
  }

  /** @param {"a"|"A"|"b"|"B"|"all"} what sets an edge of the region to the position, or resets it */
  _edge(what) {
    const { player } = this;
    const [start, end] = player.region;
    const length = player.track?.length ?? 0;
    if (what === "a") player.setRegion(player.position(), end, "start");
    else if (what === "A") player.setRegion(0, end, "start");
    else if (what === "b") player.setRegion(start, player.position(), "end");
    else if (what === "B") player.setRegion(start, length, "end");
    else player.setRegion(0, length);
    this._remember?.();
  }

  /**
   * Handles the keys of all pages with sound. Each page handles the arrow keys.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean}
   */
  key(event) {
    const { key } = event;
    if ((key === "0" || key === "r" || key === "R") && this.page.reference) this.play("reference");
    else if (this.items[itemOfKey(key)]) this.play(this.items[itemOfKey(key)].id);
    else if (key === " ") this.toggle();
    else if (/^[aAbB]$/.test(key) && this.page.enableLooping) this._edge(/** @type {"a"} */ (key));
    else return false;
    return true;
  }

  /** The ratings in a result, one per signal. */
  ratings() {
    return this.items.map((item) => ({
      signal: item.id,
      score: item.score,
      comment: item.comment,
      plays: item.plays,
      heard_ms: Math.round(this.heard(item)),
      moves: item.moves,
      first_ms: item.first === null ? null : Math.round(item.first),
    }));
  }

  _atEnd() {
    this._ended = true;
    this.context.log("end", this.player.current ?? "");
    this.context.changed();
    this.onplay();
  }

  _changed() {
    const { player } = this;
    if (player.playing) this._ended = false;
    for (const [id, buttons] of this._buttons) {
      for (const one of buttons) {
        const current = player.current === id;
        one.setAttribute("aria-pressed", String(current && player.playing));
        one.classList.toggle("current", current);
      }
    }
    if (this._pause) {
      this._pause.textContent = player.playing || player.current === null ? t("pause") : t("resume");
      this._pause.disabled = player.current === null;
    }
    this.onplay();
  }
}

/** @param {any} rules @returns {string|false} the rule about the listening time */
export const ruleSeconds = (rules) => rules.min_heard_s > 0 && t("ruleSeconds", { s: rules.min_heard_s });

/**
 * @param {any} rules
 * @param {Trial} trial
 * @param {Item[]} [items] of the trial, to be checked
 * @returns {string[]} items that were heard for less time than the rules require, in words
 */
export function missingSeconds(rules, trial, items = trial.items) {
  const found = rules.min_heard_s > 0 ? trial.short(rules.min_heard_s).filter((item) => items.includes(item)) : [];
  const names = found.map((item) => item.name).join(", ");
  return found.length ? [t("missingSeconds", { s: rules.min_heard_s, items: names })] : [];
}

/**
 * Signals, including the reference, that were played to the end on this or an earlier visit of the page.
 *
 * @param {PageContext} context
 * @returns {Set<string>} grows while the page is shown
 */
export function endedSignals(context) {
  const events = (context.draft.events ?? []).filter((/** @type {any[]} */ one) => one[0] === "end");
  /** @type {Set<string>} */
  const ended = new Set(events.map((/** @type {any[]} */ one) => one[1]));
  const { player, signal } = context;
  player.addEventListener("ended", () => ended.add(String(player.current)), { signal });
  return ended;
}

/**
 * A text field for a comment on the page.
 *
 * @param {PageContext} context
 * @returns {{element: HTMLElement, area: HTMLTextAreaElement}}
 */
export function commentField(context) {
  const { comment } = context.draft;
  const area = element("textarea", { id: "page-comment", rows: 2, maxLength: 2000, value: comment ?? "" });
  area.addEventListener("input", () => context.changed());
  const label = element("label", { htmlFor: "page-comment", text: t("commentOptional") });
  return { element: element("div", { class: "question" }, label, area), area };
}

/**
 * Text fields for comments on the signals, behind one button that shows their number.
 *
 * @param {Trial} trial
 * @returns {{toggle: HTMLButtonElement, fields: HTMLElement}}
 */
export function commentFields(trial) {
  const { items } = trial;
  const areas = items.map((item) => {
    const area = element("textarea", { id: `comment-${item.id}`, rows: 2, maxLength: 2000, value: item.comment });
    area.addEventListener("input", () => {
      item.comment = area.value;
      count();
      trial.context.changed();
    });
    return area;
  });
  const labelled = items.map((item, index) =>
    element("div", {}, element("label", { htmlFor: areas[index].id, text: t("commentOn", { item: item.name }) }), areas[index]),
  );
  const fields = element("div", { class: "comments", id: "comments", hidden: !items.some((item) => item.comment) }, ...labelled);
  const toggle = button("", () => {
    fields.hidden = !fields.hidden;
    show();
    const playing = items.findIndex((item) => item.id === trial.player.current);
    if (!fields.hidden) areas[Math.max(0, playing)].focus();
  }, { class: "comment", "aria-controls": "comments" });
  const show = () => toggle.setAttribute("aria-expanded", String(!fields.hidden));
  const count = () => {
    const written = items.filter((item) => item.comment).length;
    toggle.textContent = written ? `${t("comments")} (${written})` : t("comments");
  };
  show();
  count();
  return { toggle, fields };
}
