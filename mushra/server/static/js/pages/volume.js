// @ts-check
/** Setting the volume: a looped sound and a slider. The volume is that of all later pages. */

import { button, element, markup } from "../dom.js";
import { t } from "../texts.js";

/**
 * @param {any} page
 * @param {import("../trial.js").PageContext} context
 * @returns {import("../trial.js").PageView}
 */
export function volumePage(page, context) {
  const { player } = context;
  const id = page.signals[0].id;
  const set = context.draft.volume ?? page.defaultVolume ?? 0.5;
  let played = context.draft.volume !== undefined;
  player.setVolume(set);
  const slider = element("input", {
    type: "range",
    id: "volume",
    min: "0",
    max: "100",
    step: "1",
    value: String(Math.round(100 * set)),
  });
  const shown = element("output", { htmlFor: "volume", class: "value" });
  const show = () => {
    shown.textContent = `${slider.value} %`;
    slider.setAttribute("aria-valuetext", shown.textContent);
  };
  show();
  slider.addEventListener("input", () => {
    player.setVolume(Number(slider.value) / 100);
    show();
    context.changed();
  });
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
        slider,
        shown,
      ),
    ],
    missing: () => (played ? [] : [t("volumeMissing")]),
    result: () => ({ volume: Number(slider.value) / 100 }),
    key: (event) => {
      if (event.key !== " " && !/^[0r1]$/i.test(event.key)) return false;
      toggle();
      return true;
    },
  };
}
