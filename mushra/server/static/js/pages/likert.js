// @ts-check
/** Likert pages: stimuli rated in words or pictures on one or more scales, together or one by one. */

import { button, element, markup } from "../dom.js";
import { t } from "../texts.js";
import { Trial, endedSignals, itemOfKey, keyOfItem, missingSeconds, ruleSeconds } from "../trial.js";
import { ruleList } from "./graded.js";

/** @typedef {import("../trial.js").Item} Item */

/**
 * @param {any} page
 * @param {import("../trial.js").PageContext} context
 * @returns {import("../trial.js").PageView}
 */
export function likertPage(page, context) {
  const single = page.type === "likert_single_stimulus" && page.signals.length > 1;
  const names = page.signals.map((/** @type {any} */ _, /** @type {number} */ n) => t("item", { n: n + 1 }));
  const trial = new Trial(page, context, names, false);
  const several = Array.isArray(page.response[0]);
  /** @type {any[][]} */
  const scales = several ? page.response : [page.response];
  /** @param {Item} item @returns {any[]} its answers, one for each scale */
  const answers = (item) => (several ? (item.score ?? scales.map(() => null)) : [item.score]);
  const ended = endedSignals(context);

  const heard = (/** @type {Item} */ item) => {
    if (page.mustPlayback === "ended") return ended.has(item.id);
    return !page.mustPlayback || item.plays > 0;
  };
  const missingOf = (/** @type {Item} */ item) => [
    ...(heard(item) ? [] : [t(page.mustPlayback === "ended" ? "missingEnd" : "missingHear", { items: item.name })]),
    ...missingSeconds(context.session.rules, trial, [item]),
    ...(page.mustRate && answers(item).includes(null) ? [t("missingRate", { items: item.name })] : []),
  ];

  const rows = trial.items.map((item, index) => {
    const groups = scales.map((response, which) => {
      const label = t("gradeOf", { item: item.name }) + (several ? ` (${which + 1})` : "");
      return scale(response, `likert-${item.id}-${which}`, label, answers(item)[which], (value) => {
        const given = answers(item).map((answer, n) => (n === which ? value : answer));
        trial.rate(item, several ? given : value);
      });
    });
    const play = trial.playButton(item.id, names[index], t("playItem", { item: item.name }), keyOfItem(index));
    return element("section", { class: "likert-row", "aria-label": item.name }, play, element("div", {}, ...groups));
  });
  let step = Math.max(0, trial.items.findIndex((item) => missingOf(item).length > 0 || answers(item).includes(null)));
  const place = element("p", { class: "round", role: "status" });
  const back = button(t("previousItem"), () => turn(-1));
  const forward = button(t("nextItem"), () => {
    const missing = missingOf(trial.items[step]);
    if (missing.length) context.hint(missing.join(" "));
    else turn(1);
  });
  const transport = trial.transport();
  const draw = () => {
    const id = single ? trial.items[step].id : (trial.player.current ?? trial.items[0].id);
    if (page.showWaveform) trial.wave?.draw(trial.player.track?.buffers.get(id) ?? null);
  };
  trial.onplay = draw;
  const turn = (/** @type {number} */ by) => {
    step += by;
    trial.player.pause();
    show();
    rows[step].querySelector("button")?.focus();
  };
  const show = () => {
    rows.forEach((row, index) => {
      row.hidden = single && index !== step;
    });
    place.textContent = t("itemOf", { n: step + 1, total: rows.length });
    draw();
    back.disabled = step === 0;
    forward.disabled = step === rows.length - 1;
  };
  show();
  const rules = [
    page.mustPlayback === "ended" && t("ruleEnd"),
    page.mustPlayback === "processUpdate" && t("ruleHear"),
    ruleSeconds(context.session.rules),
    page.mustRate && t("ruleRate"),
  ].filter(Boolean);
  return {
    rules,
    content: [
      markup(page.content),
      ruleList(rules, page, context),
      single ? place : null,
      transport,
      element("div", { class: "likert" }, ...rows),
      single ? element("div", { class: "choices" }, back, forward) : null,
    ],
    missing: () => trial.items.flatMap(missingOf),
    result: () => ({ ratings: trial.ratings() }),
    key: (event) => {
      if (single && itemOfKey(event.key) >= 0) return false;
      if (single && event.key === " " && trial.player.current !== trial.items[step].id) {
        trial.play(trial.items[step].id);
        return true;
      }
      return trial.key(event);
    },
  };
}

/**
 * The answers as radio buttons, with the pictures of the responses if they have any.
 *
 * @param {any[]} response
 * @param {string} name of the group
 * @param {string} label
 * @param {string|null} chosen
 * @param {(value: string) => void} onchoice
 */
function scale(response, name, label, chosen, onchoice) {
  /** @type {HTMLImageElement[]} */
  const pictures = [];
  let value = chosen;
  const draw = () => {
    const selected = response.findIndex((one) => one.value === value);
    response.forEach((one, index) => {
      if (!pictures[index]) return;
      // A chosen answer can also light the lower ones, as with stars.
      const higher = selected > index ? one.imgHigherResponseSelected : undefined;
      pictures[index].src = (index === selected ? one.imgSelected : higher) ?? one.img ?? one.imgSelected;
    });
  };
  const choices = response.map((one, index) => {
    const radio = element("input", { type: "radio", name, value: one.value, checked: value === one.value });
    radio.addEventListener("change", () => {
      value = one.value;
      onchoice(one.value);
      draw();
    });
    if (one.img || one.imgSelected) {
      pictures[index] = element("img", { alt: one.label ? "" : one.value, class: "likert-picture" });
    }
    const text = one.label ?? (pictures[index] ? null : one.value);
    return element("label", { class: "choice" }, radio, pictures[index], text && element("span", { text }));
  });
  draw();
  return element(
    "fieldset",
    { class: "likert-scale" },
    element("legend", { class: "hidden", text: label }),
    ...choices,
  );
}
