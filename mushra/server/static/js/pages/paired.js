// @ts-check
/** Choices between A and B: which is the reference (paired comparison), which is preferred (AB), which is X (ABX)? */

import { element, markup } from "../dom.js";
import { t } from "../texts.js";
import { Trial, commentField, keyOfItem, missingSeconds, ruleSeconds } from "../trial.js";
import { ruleList } from "./graded.js";

/**
 * @param {any} page
 * @param {import("../trial.js").PageContext} context
 * @returns {import("../trial.js").PageView}
 */
export function pairedPage(page, context) {
  const hear = page.type !== "paired_comparison" || context.session.rules.must_hear_all;
  const trial = new Trial(page, context, [..."ABX"].slice(0, page.signals.length), false);
  /** @type {string|null} */
  let answer = context.draft.answer ?? null;
  const comment = commentField(context);
  const options = trial.items.slice(0, 2).map((item) => ({ value: item.id, text: item.name }));
  if (page.unforced) options.push({ value: "undecided", text: page.unforced });
  const choices = options.map(({ value, text }) => {
    const radio = element("input", { type: "radio", name: "answer", value, checked: answer === value });
    radio.addEventListener("change", () => {
      answer = value;
      for (const item of trial.items) item.moves += 1; // the answer grades all items
      context.log("answer", value);
      context.changed();
    });
    return element("label", { class: "choice" }, radio, element("span", { text }));
  });
  const players = trial.items.map((item, index) =>
    trial.playButton(item.id, item.name, t("playItem", { item: item.name }), keyOfItem(index)),
  );
  const rules = [hear && t("ruleHear"), ruleSeconds(context.session.rules)].filter(Boolean);
  return {
    rules,
    content: [
      markup(page.content),
      ruleList(rules, page, context),
      trial.transport(),
      element("div", { class: "pair" }, ...players),
      element("fieldset", { class: "question row" }, element("legend", { text: t(question(page)) }), ...choices),
      comment.element,
    ],
    missing: () => {
      const unheard = hear ? trial.unheard() : [];
      return [
        ...(unheard.length ? [t("missingHear", { items: unheard.map((item) => item.name).join(", ") })] : []),
        ...missingSeconds(context.session.rules, trial),
        ...(answer === null ? [t("missingAnswer")] : []),
      ];
    },
    result: () => ({ ratings: trial.ratings(), answer, comment: comment.area.value }),
    key: (event) => trial.key(event),
  };
}

/** @param {any} page @returns {string} key of the text that asks */
function question(page) {
  if (page.type === "abx") return "whichX";
  if (page.type === "ab") return page.reference ? "whichCloser" : "whichPreferred";
  return "whichReference";
}
