// @ts-check
/** Degradation category rating (P.800): the reference plays, then its version, which gets a grade from 5 to 1. */

import { element, markup } from "../dom.js";
import { t } from "../texts.js";
import { Trial, commentField, endedSignals, keyOfItem, missingSeconds, ruleSeconds } from "../trial.js";
import { ruleList } from "./graded.js";

/** Milliseconds of silence between the two. */
const GAP_MS = 500;
/** Words of the grades from 5 to 1. */
const GRADES = ["dcr5", "dcr4", "dcr3", "dcr2", "dcr1"];

/**
 * @param {any} page
 * @param {import("../trial.js").PageContext} context
 * @returns {import("../trial.js").PageView}
 */
export function degradationPage(page, context) {
  const { player, signal } = context;
  const trial = new Trial(page, context, [t("version")], false);
  const [item] = trial.items;
  const ended = endedSignals(context);
  let timer = 0;
  player.addEventListener("change", () => clearTimeout(timer), { signal });
  player.addEventListener("ended", () => {
    clearTimeout(timer);
    if (player.current === "reference") timer = setTimeout(() => trial.play(item.id), GAP_MS);
  }, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  const comment = commentField(context);
  const choices = GRADES.map((key, index) => {
    const grade = 5 - index;
    const radio = element("input", { type: "radio", name: "grade", value: String(grade), checked: item.score === grade });
    radio.addEventListener("change", () => trial.rate(item, grade));
    return element("label", { class: "choice" }, radio, element("b", { text: String(grade) }), element("span", { text: t(key) }));
  });
  const transport = trial.transport();
  const version = trial.playButton(item.id, item.name, t("playItem", { item: item.name }), keyOfItem(0));
  transport.querySelector(".reference")?.after(version);
  const rules = [t("ruleDegradation"), ruleSeconds(context.session.rules)].filter(Boolean);
  return {
    rules,
    content: [
      markup(page.content),
      ruleList(rules, page, context),
      transport,
      element("fieldset", { class: "question" }, element("legend", { text: t("howDegraded") }), ...choices),
      comment.element,
    ],
    missing: () => {
      const names = new Map([["reference", t("reference")], [item.id, item.name]]);
      const items = [...names.keys()].filter((id) => !ended.has(id)).map((id) => names.get(id));
      return [
        ...(items.length ? [t("missingEnd", { items: items.join(", ") })] : []),
        ...missingSeconds(context.session.rules, trial),
        ...(item.score === null ? [t("missingRate", { items: item.name })] : []),
      ];
    },
    result: () => ({ ratings: trial.ratings(), comment: comment.area.value }),
    key: (event) => trial.key(event),
  };
}
