// @ts-check
/** Setting the volume: a looped sound and a slider. All later pages use this volume. */

import { button, element, markup } from "../dom.js";
import { drag } from "../drag.js";
import { t } from "../texts.js";

/**
 * @param {any} page
 * @param {import("../trial.js").PageContext} context
 * @returns {import("../trial.js").PageView}
 */
export function volumePage(page, context) {
  const { player } = context;
  const id = page.signals[0].id;
  /** @type {number} */
  let volume = context.draft.volume ?? page.defaultVolume ?? 0.5;
  let played = context.draft.volume !== undefined;
  const slider = element("input", {
    type: "range",
    id: "volume",
    min: "0",
    max: "100",
    step: "1",
  });
  const shown = element("output", { htmlFor: "volume", class: "value" });
  /** Shows and applies a volume; it is stored when the slider is released. */
  const show = (/** @type {number} */ now) => {
    slider.value = String(Math.round(100 * now));
    player.setVolume(now);
    shown.textContent = `${slider.value} %`;
    slider.setAttribute("aria-valuetext", shown.textContent);
  };
  const store = (/** @type {number} */ now) => {
    volume = now;
    show(volume);
    context.changed();
  };
  show(volume);
  slider.addEventListener("input", () => store(Number(slider.value) / 100)); // from keys only: the box handles the pointer
  const at = (/** @type {PointerEvent} */ event) => {
    const { left, width } = slider.getBoundingClientRect();
    return Math.round(100 * Math.min(1, Math.max(0, (event.clientX - left) / width))) / 100;
  };
  const box = element("div", { class: "volume-box" }, slider);
  drag(box, { show: (event) => show(event ? at(event) : volume), store: (event) => {
    store(at(event));
    slider.focus();
  } });
  const toggle = () => {
    if (player.playing) player.pause();
    else player.play(id);
    played = true;
    context.log(player.playing ? "play" : "pause", id);
    context.changed();
  };
  const control = button(t("play"), toggle, { class: "play wide", "aria-keyshortcuts": "Space" });
  player.addEventListener("change", () => {
    control.textContent = player.playing ? t("pause") : t("play");
  }, { signal: context.signal });
  return {
    content: [
      markup(page.content) ?? element("p", { text: t("volumeText") }),
      element("p", { class: "note", text: t("volumeFixed") }),
      control,
      element(
        "div",
        { class: "volume-row" },
        element("label", { htmlFor: "volume", text: t("volume") }),
        box,
        shown,
      ),
    ],
    missing: () => (played ? [] : [t("volumeMissing")]),
    result: () => ({ volume }),
    key: (event) => {
      if (event.key !== " " && !/^[0r1]$/i.test(event.key)) return false;
      toggle();
      return true;
    },
  };
}
