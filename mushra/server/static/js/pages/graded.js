// @ts-check
/** Pages on which every signal has a scale: MUSHRA (BS.1534, 0 to 100) and BS.1116 (1.0 to 5.0). */

import { element, markup } from "../dom.js";
import { Scale } from "../scale.js";
import { t } from "../texts.js";
import { Trial, commentFields, itemOfKey, keyOfItem, missingSeconds, ruleSeconds } from "../trial.js";

/** @typedef {import("../trial.js").PageContext} PageContext */
/** @typedef {import("../trial.js").PageView} PageView */
/** @typedef {import("../trial.js").Item} Item */

/**
 * @typedef {Object} Grading
 * @property {number} min
 * @property {number} max
 * @property {number} step
 * @property {string[]} labels from the best to the worst
 * @property {"bands"|"points"} kind whether a label names a band of the scale or a point on it
 * @property {string[]} ticks numbers beside the scale, from the top
 * @property {(value: number) => string} word label of a value
 * @property {(value: number) => string} describe
 * @property {string[]} names of the signals
 * @property {string[]} rules in words
 * @property {boolean} onlyPlaying
 * @property {(trial: Trial) => string[]} missing
 */

/** @param {any} page @param {PageContext} context @returns {PageView} */
export function mushraPage(page, context) {
  const rules = page.rules ?? context.session.rules;
  const labels = [t("excellent"), t("good"), t("fair"), t("poor"), t("bad")];
  const word = (/** @type {number} */ value) => labels[4 - Math.min(4, Math.floor(value / 20))];
  return gradedPage(page, context, {
    min: 0,
    max: 100,
    step: 1,
    labels,
    kind: "bands",
    ticks: ["100", "80", "60", "40", "20", "0"],
    word,
    describe: (value) => t("valueInBand", { value, band: word(value) }),
    names: page.signals.map((/** @type {any} */ _, /** @type {number} */ n) => t("item", { n: n + 1 })),
    rules: ruleTexts(rules, t("rule100")),
    onlyPlaying: rules.only_playing_rated,
    missing: (trial) => [
      ...asked(rules, trial),
      ...(rules.one_at_100 && !trial.items.some((item) => item.score === 100) ? [t("missing100")] : []),
    ],
  });
}

/** @param {any} page @param {PageContext} context @returns {PageView} */
export function bs1116Page(page, context) {
  const { rules } = context.session;
  const labels = ["imperceptible", "perceptible", "slightlyAnnoying", "annoying", "veryAnnoying"].map((key) => t(key));
  const word = (/** @type {number} */ value) => labels[5 - Math.round(value)];
  return gradedPage(page, context, {
    min: 1,
    max: 5,
    step: 0.1,
    labels,
    kind: "points",
    ticks: ["5.0", "4.0", "3.0", "2.0", "1.0"],
    word,
    describe: (value) => t("valueNear", { value: value.toFixed(1), label: word(value) }),
    names: ["A", "B"],
    rules: ruleTexts({ ...rules, must_rate_all: true }, t("rule5")),
    onlyPlaying: rules.only_playing_rated,
    missing: (trial) => [
      ...asked({ ...rules, must_rate_all: true }, trial),
      ...(rules.one_at_100 && !trial.items.some((item) => item.score === 5) ? [t("missing5")] : []),
    ],
  });
}

/** @param {any} rules @param {string} best text of the rule about the best grade */
function ruleTexts(rules, best) {
  return [
    rules.must_hear_all && t("ruleHear"),
    ruleSeconds(rules),
    rules.must_rate_all && t("ruleRate"),
    rules.one_at_100 && best,
    rules.only_playing_rated && t("rulePlaying"),
  ].filter(Boolean);
}

/** @param {any} rules @param {Trial} trial @returns {string[]} rules that are not met yet, in words */
function asked(rules, trial) {
  const list = (/** @type {Item[]} */ items) => items.map((item) => item.name).join(", ");
  const unheard = rules.must_hear_all ? trial.unheard() : [];
  const unrated = rules.must_rate_all ? trial.items.filter((item) => item.score === null) : [];
  return [
    ...(unheard.length ? [t("missingHear", { items: list(unheard) })] : []),
    ...missingSeconds(rules, trial),
    ...(unrated.length ? [t("missingRate", { items: list(unrated) })] : []),
  ];
}

/**
 * @param {any} page
 * @param {PageContext} context
 * @param {Grading} grading
 * @returns {PageView}
 */
function gradedPage(page, context, grading) {
  const trial = new Trial(page, context, grading.names, grading.onlyPlaying);
  /** @type {Map<string, Scale>} */
  const scales = new Map();
  const columns = trial.items.map((item, index) => {
    const scale = new Scale({
      min: grading.min,
      max: grading.max,
      step: grading.step,
      label: t("gradeOf", { item: item.name }),
      value: typeof item.score === "number" ? item.score : null,
      describe: grading.describe,
      word: grading.word,
      unset: t("unset"),
      allowed: () => trial.rateable(item),
      onblocked: () => trial.blocked(item),
      onset: (value) => trial.rate(item, value),
    });
    scales.set(item.id, scale);
    const short = grading.names[index].replace(/^\D+(?=\d)/, "");
    const play = trial.playButton(item.id, short, t("playItem", { item: item.name }), keyOfItem(index));
    const label = page.signals[index].label;
    return element(
      "li",
      { class: "item", dataset: { signal: item.id } },
      play,
      label ? element("span", { class: "condition", text: label }) : null,
      scale.element,
      scale.word,
      scale.output,
    );
  });
  // Beside vertical scales; above horizontal ones, where it stays in view with the reference.
  const [beside, above] = [legend(grading), legend(grading)];
  const transport = trial.transport(above);
  const lines = element("div", { class: "lines", "aria-hidden": "true" }, ...grading.ticks.map(() => element("span")));
  const comments = commentFields(trial);
  trial.onplay = () => {
    for (const item of trial.items) {
      const scale = /** @type {Scale} */ (scales.get(item.id));
      const allowed = trial.rateable(item);
      const hadFocus = document.activeElement === scale.element;
      scale.enable(allowed);
      scale.element.parentElement?.classList.toggle("current", trial.player.current === item.id);
      scale.element.parentElement?.classList.toggle("rateable", allowed);
      if (hadFocus && !allowed) moveFocus(trial, scales);
    }
  };
  queueMicrotask(() => trial.onplay());
  const many = trial.items.length > 8 ? " many" : "";
  const named = page.signals.some((/** @type {any} */ signal) => signal.label) ? " named" : "";
  return {
    wide: true,
    rules: grading.rules,
    control: comments.toggle,
    content: [
      markup(page.content),
      ruleList(grading.rules, page, context),
      transport,
      element(
        "div",
        { class: `board${named}` },
        beside,
        lines,
        element("ol", { class: `items${many}`, "aria-label": t("items") }, ...columns),
      ),
      comments.fields,
    ],
    missing: () => grading.missing(trial),
    result: () => ({ ratings: trial.ratings() }),
    key: (event) => {
      const item = trial.item(trial.player.current);
      const isArrow = /^(Arrow(Up|Down|Left|Right)|Page(Up|Down))$/.test(event.key);
      if (item && isArrow) return /** @type {Scale} */ (scales.get(item.id)).key(event);
      if (!trial.key(event)) return false;
      if (itemOfKey(event.key) >= 0) moveFocus(trial, scales);
      return true;
    },
  };
}

/**
 * Focuses the one scale that can be moved, so that a screen reader announces its value; the arrows work anyway.
 *
 * @param {Trial} trial
 * @param {Map<string, Scale>} scales
 */
function moveFocus(trial, scales) {
  const item = trial.item(trial.player.current);
  if (item && trial.rateable(item)) scales.get(item.id)?.element.focus({ preventScroll: false });
}

/** @param {Grading} grading @returns {HTMLElement} meaning of the scale's values */
function legend(grading) {
  return element(
    "div",
    { class: `legend ${grading.kind}`, "aria-hidden": "true" },
    element("div", { class: "legend-labels" }, ...grading.labels.map((text) => element("span", { text }))),
    element("div", { class: "legend-ticks" }, ...grading.ticks.map((text) => element("span", { text }))),
  );
}

/**
 * The rules in full, in training and on the first page of a type; on later pages they are behind "?".
 *
 * @param {string[]} rules
 * @param {any} page
 * @param {PageContext} context
 * @returns {HTMLElement|null}
 */
export function ruleList(rules, page, context) {
  const first = context.session.pages.find((/** @type {any} */ one) => one.type === page.type);
  if (!rules.length || !(page.training || first.id === page.id)) return null;
  return element("ul", { class: "rules", "aria-label": t("rules") }, ...rules.map((text) => element("li", { text })));
}
