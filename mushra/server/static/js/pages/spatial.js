// @ts-check
/**
 * Localisation: the direction of a sound on a circle around the listener, seen from above.
 *
 * Azimuth in whole degrees, 0 in front, positive to the left (counter-clockwise, as in the AES69 convention),
 * from -179 to 180. This covers the part of webMUSHRA's spatial page that a plane can show; `views`, `objects` and
 * `roomMeasurements` are not drawn.
 */

import { element, markup } from "../dom.js";
import { drag } from "../drag.js";
import { t } from "../texts.js";
import { Trial, keyOfItem } from "../trial.js";

/** @typedef {import("../trial.js").Item} Item */

/** @param {number} degrees @returns {number} the same direction from -179 to 180 */
const wrapped = (degrees) => 180 - ((((180 - Math.round(degrees)) % 360) + 360) % 360);

/** @param {number} azimuth @returns {string} in words */
function inWords(azimuth) {
  if (azimuth === 0) return t("inFront");
  if (azimuth === 180) return t("behind");
  return t(azimuth > 0 ? "degreesLeft" : "degreesRight", { n: Math.abs(azimuth) });
}

/**
 * @param {any} page
 * @param {import("../trial.js").PageContext} context
 * @returns {import("../trial.js").PageView}
 */
export function spatialPage(page, context) {
  const names = page.signals.map((/** @type {any} */ _, /** @type {number} */ n) => t("item", { n: n + 1 }));
  const trial = new Trial(page, context, names, false);
  const objects = page.numberofLocObj ?? 1;
  const saved = context.draft.responses ?? {};
  /** Directions of each signal's objects. @type {Map<string, (number|null)[]>} */
  const answers = new Map(
    trial.items.map((item) => {
      const given = saved[item.id]?.azimuths ?? [saved[item.id]?.azimuth];
      return [item.id, Array.from({ length: objects }, (_, n) => (typeof given[n] === "number" ? given[n] : null))];
    }),
  );
  const directions = (/** @type {Item} */ item) => answers.get(item.id) ?? [];
  const dials = trial.items.map((item, index) => {
    const play = trial.playButton(item.id, names[index], t("playItem", { item: item.name }), keyOfItem(index));
    const circles = directions(item).flatMap((azimuth, n) => {
      const dial = circle(objects > 1 ? `${item.name} (${n + 1})` : item.name, azimuth, (chosen) => {
        directions(item)[n] = chosen;
        item.moves += 1;
        context.log("rate", item.id);
        context.changed();
      });
      return [dial.element, dial.output];
    });
    return element("section", { class: "spatial-item", "aria-label": item.name }, play, ...circles);
  });
  return {
    wide: true,
    content: [
      markup(page.content),
      element("p", { class: "note", text: t("spatialText") }),
      trial.transport(),
      element("div", { class: "dials" }, ...dials),
    ],
    missing: () => {
      const unheard = trial.unheard();
      const open = trial.items.filter((item) => directions(item).includes(null));
      return [
        ...(unheard.length ? [t("missingHear", { items: unheard.map((item) => item.name).join(", ") })] : []),
        ...(open.length ? [t("missingDirection", { items: open.map((item) => item.name).join(", ") })] : []),
      ];
    },
    result: () => ({
      ratings: trial.ratings(),
      responses: Object.fromEntries(
        [...answers]
          .filter(([, azimuths]) => azimuths.some((azimuth) => azimuth !== null))
          .map(([id, azimuths]) => [id, objects > 1 ? { azimuths } : { azimuth: azimuths[0] }]),
      ),
    }),
    key: (event) => trial.key(event),
  };
}

/**
 * @param {string} name
 * @param {number|null} initial
 * @param {(azimuth: number) => void} onchange
 */
function circle(name, initial, onchange) {
  let azimuth = initial;
  const needle = element("div", { class: "dial-needle" });
  const dial = element(
    "div",
    {
      class: "dial",
      role: "slider",
      tabindex: "0",
      "aria-label": t("directionOf", { item: name }),
      "aria-valuemin": "-179",
      "aria-valuemax": "180",
    },
    element("span", { class: "dial-front", text: t("front"), "aria-hidden": "true" }),
    element("div", { class: "dial-head", "aria-hidden": "true" }),
    needle,
  );
  const output = element("output", { class: "value", "aria-hidden": "true" });
  const show = (/** @type {number|null} */ shown) => {
    dial.classList.toggle("unset", shown === null);
    needle.style.transform = `rotate(${-(shown ?? 0)}deg)`;
    dial.setAttribute("aria-valuenow", String(shown ?? 0));
    dial.setAttribute("aria-valuetext", shown === null ? t("unset") : inWords(shown));
    output.textContent = shown === null ? "–" : inWords(shown);
  };
  const set = (/** @type {number} */ degrees) => {
    azimuth = wrapped(degrees);
    show(azimuth);
    onchange(azimuth);
  };
  const at = (/** @type {PointerEvent} */ event) => {
    const box = dial.getBoundingClientRect();
    const right = event.clientX - (box.left + box.width / 2);
    const down = event.clientY - (box.top + box.height / 2);
    return wrapped((Math.atan2(-right, -down) * 180) / Math.PI);
  };
  drag(dial, { show: (event) => show(event ? at(event) : azimuth), store: (event) => set(at(event)) });
  dial.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 10 : 1;
    /** @type {Record<string, number>} */
    const moves = { ArrowLeft: step, ArrowUp: step, ArrowRight: -step, ArrowDown: -step, PageUp: 10, PageDown: -10 };
    if (event.key === "Home") set(0);
    else if (event.key === "End") set(180);
    else if (event.key in moves) set(azimuth === null ? 0 : azimuth + moves[event.key]);
    else return;
    event.preventDefault();
  });
  show(azimuth);
  return { element: dial, output };
}
