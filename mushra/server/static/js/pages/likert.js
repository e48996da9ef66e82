// @ts-check
/** Likert pages: stimuli that are rated in words or pictures, all on one page or one after the other. */

import { button, element, markup } from "../dom.js";
import { t } from "../texts.js";
import { Trial } from "../trial.js";
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
  /** Signals that were played to the end, on earlier visits too. @type {Set<string>} */
  const ended = new Set((context.draft.events ?? []).filter((/** @type {any[]} */ e) => e[0] === "end").map((/** @type {any[]} */ e) => e[1]));
  context.player.addEventListener("ended", () => ended.add(String(trial.player.current)), { signal: context.signal });

  const heard = (/** @type {Item} */ item) => {
    if (page.mustPlayback === "ended") return ended.has(item.id);
    return !page.mustPlayback || item.plays > 0;
  };
  const missingOf = (/** @type {Item} */ item) => [
    ...(heard(item) ? [] : [t(page.mustPlayback === "ended" ? "missingEnd" : "missingHear", { items: item.name })]),
    ...(page.mustRate && item.score === null ? [t("missingRate", { items: item.name })] : []),
  ];

  const rows = trial.items.map((item, index) => {
    const group = scale(page, item, (value) => trial.rate(item, value, true));
    const play = trial.playButton(item.id, names[index], t("playItem", { item: item.name }), String(index + 1));
    return element("section", { class: "likert-row", "aria-label": item.name }, play, group);
  });
  let step = Math.max(0, trial.items.findIndex((item) => missingOf(item).length > 0 || item.score === null));
  const place = element("p", { class: "round", role: "status" });
  const back = button(t("previousItem"), () => turn(-1));
  const forward = button(t("nextItem"), () => {
    const missing = missingOf(trial.items[step]);
    if (missing.length) context.hint(missing.join(" "));
    else turn(1);
  });
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
    back.disabled = step === 0;
    forward.disabled = step === rows.length - 1;
  };
  show();
  const rules = [
    page.mustPlayback === "ended" && t("ruleEnd"),
    page.mustPlayback === "processUpdate" && t("ruleHear"),
    page.mustRate && t("ruleRate"),
  ].filter(Boolean);
  return {
    content: [
      markup(page.content),
      ruleList(rules),
      single ? place : null,
      trial.transport(),
      element("div", { class: "likert" }, ...rows),
      single ? element("div", { class: "choices" }, back, forward) : null,
    ],
    missing: () => trial.items.flatMap(missingOf),
    result: () => ({ ratings: trial.ratings() }),
    key: (event) => {
      if (single && /^[1-9]$/.test(event.key)) return false;
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
 * @param {any} page
 * @param {Item} item
 * @param {(value: string) => void} onchoice
 */
function scale(page, item, onchoice) {
  /** @type {HTMLImageElement[]} */
  const pictures = [];
  const name = `likert-${item.id}`;
  const draw = () => {
    const chosen = page.response.findIndex((/** @type {any} */ one) => one.value === item.score);
    page.response.forEach((/** @type {any} */ one, /** @type {number} */ index) => {
      if (!pictures[index]) return;
      // A higher answer can light the ones below it, as stars do.
      const higher = chosen > index ? one.imgHigherResponseSelected : undefined;
      pictures[index].src = (index === chosen ? one.imgSelected : higher) ?? one.img ?? one.imgSelected;
    });
  };
  const choices = page.response.map((/** @type {any} */ one, /** @type {number} */ index) => {
    const radio = element("input", { type: "radio", name, value: one.value, checked: item.score === one.value });
    radio.addEventListener("change", () => {
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
    element("legend", { class: "hidden", text: t("gradeOf", { item: item.name }) }),
    ...choices,
  );
}
