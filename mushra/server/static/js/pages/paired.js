// @ts-check
/** Paired comparison: which of A and B is it? */

import { element, markup } from "../dom.js";
import { t } from "../texts.js";
import { Trial, keyOfItem } from "../trial.js";
import { ruleList } from "./graded.js";

/**
 * @param {any} page
 * @param {import("../trial.js").PageContext} context
 * @returns {import("../trial.js").PageView}
 */
export function pairedPage(page, context) {
  const hear = context.session.rules.must_hear_all;
  const trial = new Trial(page, context, ["A", "B"], false);
  /** @type {string|null} */
  let answer = context.draft.answer ?? null;
  const comment = element("textarea", { id: "page-comment", rows: 2, maxLength: 2000, value: context.draft.comment ?? "" });
  comment.addEventListener("input", () => context.changed());
  const options = trial.items.map((item) => ({ value: item.id, text: item.name }));
  if (page.unforced) options.push({ value: "undecided", text: page.unforced });
  const choices = options.map(({ value, text }) => {
    const radio = element("input", { type: "radio", name: "answer", value, checked: answer === value });
    radio.addEventListener("change", () => {
      answer = value;
      for (const item of trial.items) item.moves += 1; // the one answer grades both
      context.log("answer", value);
      context.changed();
    });
    return element("label", { class: "choice" }, radio, element("span", { text }));
  });
  const players = trial.items.map((item, index) =>
    trial.playButton(item.id, item.name, t("playItem", { item: item.name }), keyOfItem(index)),
  );
  const rules = hear ? [t("ruleHear")] : [];
  return {
    rules,
    content: [
      markup(page.content),
      ruleList(rules, page, context),
      trial.transport(),
      element("div", { class: "pair" }, ...players),
      element("fieldset", { class: "question" }, element("legend", { text: t("whichReference") }), ...choices),
      element(
        "div",
        { class: "question" },
        element("label", { htmlFor: "page-comment", text: t("commentOptional") }),
        comment,
      ),
    ],
    missing: () => {
      const unheard = hear ? trial.unheard() : [];
      return [
        ...(unheard.length ? [t("missingHear", { items: unheard.map((item) => item.name).join(", ") })] : []),
        ...(answer === null ? [t("missingAnswer")] : []),
      ];
    },
    result: () => ({ ratings: trial.ratings(), answer, comment: comment.value }),
    key: (event) => trial.key(event),
  };
}
