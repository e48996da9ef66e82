// @ts-check
/** The end: the questionnaire, and the last screen when everything is stored. */

import { announce, button, dialog, element, markup } from "../dom.js";
import { t } from "../texts.js";

/** Seconds before the redirect, so that the listener can read the code. */
const REDIRECT_S = 10;
/** Types whose items are named A, B and X. */
const PAIRS = new Set(["bs1116", "paired_comparison", "ab", "abx"]);

/**
 * @typedef {Object} Field
 * @property {HTMLElement} element
 * @property {() => any} value "" if not answered
 * @property {() => string|null} problem
 */

/**
 * @param {any} page
 * @param {import("../trial.js").PageContext} context
 * @returns {import("../trial.js").PageView}
 */
export function finishPage(page, context) {
  const drafts = context.draft.responses ?? {};
  /** @type {any[]} */
  const questions = page.questionnaire ?? [];
  const fields = questions.map((question, index) =>
    field(question, `question-${index}`, drafts[question.name] ?? question.default ?? "", context),
  );
  return {
    content: [markup(page.content), ...fields.map((one) => one.element)],
    missing: () => fields.map((one) => one.problem()).filter((one) => one !== null),
    result: () => ({
      responses: Object.fromEntries(questions.map((question, index) => [question.name, fields[index].value()])),
    }),
  };
}

/**
 * @param {any} question
 * @param {string} id
 * @param {any} initial
 * @param {import("../trial.js").PageContext} context
 * @returns {Field}
 */
function field(question, id, initial, context) {
  const text = new DOMParser().parseFromString(question.label ?? question.name, "text/html").body.textContent;
  const label = markup(question.label ?? question.name, "label") ?? element("span", { text: question.name });
  const mark = question.optional ? element("span", { class: "optional", text: t("optional") }) : null;
  const needed = t("questionMissing", { question: text ?? question.name });
  if (question.type === "likert") return likertField(question, id, initial, label, mark, needed, context);
  const tag = question.type === "long_text" ? "textarea" : "input";
  const input = element(tag, { id, value: String(initial), maxLength: 10000, "aria-describedby": `${id}-range` });
  if (tag === "textarea") input.rows = 4;
  else Object.assign(input, { type: "text", inputMode: question.type === "number" ? "decimal" : "text" });
  if (!question.optional) input.setAttribute("aria-required", "true");
  const [low, high] = [question.min ?? null, question.max ?? null];
  const range = rangeText(low, high);
  const number = () => Number(input.value.trim().replace(",", "."));
  const problem = () => {
    const empty = input.value.trim() === "";
    let found = null;
    if (empty) found = question.optional ? null : needed;
    else if (question.type === "number") {
      const value = number();
      const outside = (low !== null && value < low) || (high !== null && value > high);
      if (!Number.isFinite(value)) found = t("questionNumber", { question: text });
      else if (outside) found = `${text}: ${range}`;
    }
    input.setAttribute("aria-invalid", String(found !== null));
    return found;
  };
  input.addEventListener("input", () => context.changed());
  return {
    element: element(
      "div",
      { class: "question" },
      element("label", { htmlFor: id }, label, " ", mark),
      input,
      question.type === "number" && range ? element("small", { id: `${id}-range`, text: range }) : null,
    ),
    value: () => (question.type === "number" && input.value.trim() !== "" ? number() : input.value.trim()),
    problem,
  };
}

/** @param {number|null} low @param {number|null} high */
function rangeText(low, high) {
  if (low !== null && high !== null) return t("rangeBoth", { low, high });
  if (low !== null) return t("rangeLow", { low });
  return high !== null ? t("rangeHigh", { high }) : "";
}

/**
 * @param {any} question
 * @param {string} id
 * @param {any} initial
 * @param {Node} label
 * @param {Node|null} mark
 * @param {string} needed
 * @param {import("../trial.js").PageContext} context
 * @returns {Field}
 */
function likertField(question, id, initial, label, mark, needed, context) {
  let chosen = String(initial);
  const choices = (question.response ?? []).map((/** @type {any} */ one) => {
    const radio = element("input", { type: "radio", name: id, value: one.value, checked: one.value === chosen });
    radio.addEventListener("change", () => {
      chosen = one.value;
      context.changed();
    });
    return element("label", { class: "choice" }, radio, element("span", { text: one.label ?? one.value }));
  });
  const known = () => (question.response ?? []).some((/** @type {any} */ one) => one.value === chosen);
  return {
    element: element("fieldset", { class: "question" }, element("legend", {}, label, " ", mark), ...choices),
    value: () => (known() ? chosen : ""),
    problem: () => (known() || question.optional ? null : needed),
  };
}

/**
 * The last screen, once the server has confirmed everything.
 *
 * @param {{code?: string|null, redirect?: string|null, results?: any[]|null}} completion
 * @param {any[]} pages of the session
 * @returns {HTMLElement}
 */
export function doneScreen(completion, pages) {
  const { code, redirect, results } = completion;
  const shown = element("div", { class: "page done" }, element("h1", { text: t("done"), tabindex: "-1" }));
  shown.append(element("p", { text: t("doneText") }));
  if (code) shown.append(codeBox(code));
  if (results?.length) shown.append(resultTable(results, pages));
  const popup = markup(pages.find((page) => page.type === "finish")?.popupContent);
  if (popup) dialog(t("thanks"), [popup], t("close"));
  const address = safeAddress(redirect);
  if (address) {
    const link = element("a", { href: address, class: "button primary", text: t("continueTo"), rel: "noreferrer" });
    const wait = element("p", { class: "note" });
    shown.append(wait, link);
    if (!popup && !results?.length) {
      wait.textContent = t("redirectSoon", { s: REDIRECT_S });
      const timer = setTimeout(() => location.assign(address), 1000 * REDIRECT_S);
      const stay = button(t("stay"), () => {
        clearTimeout(timer);
        wait.remove();
        stay.remove();
      });
      shown.append(stay);
    }
  }
  return shown;
}

/** @param {string|null|undefined} address @returns {string|null} null if it is not a web address */
function safeAddress(address) {
  return address && /^https?:\/\//.test(address) ? address : null;
}

/** @param {string} code */
function codeBox(code) {
  const text = element("code", { class: "code", text: code });
  const copied = element("span", { role: "status" });
  const copy = button(t("copy"), async () => {
    try {
      await navigator.clipboard.writeText(code);
    } catch {
      // Plain http has no clipboard: select the text and use the older way to copy.
      getSelection()?.selectAllChildren(text);
      if (!document.execCommand("copy")) {
        announce(t("copyYourself"));
        return;
      }
    }
    copied.textContent = t("copied");
  });
  return element("p", { class: "code-box" }, element("span", { text: t("code") }), text, copy, copied);
}

/**
 * Table of the ratings with the item names of the page: condition names only if the page showed them.
 *
 * @param {any[]} results name and ratings of each page
 * @param {any[]} pages of the session
 */
function resultTable(results, pages) {
  const heads = [t("resultPage"), t("resultItem"), t("resultScore")];
  const rows = results.flatMap((result) => {
    const at = pages.findIndex((page) => page.id === result.page);
    const { type, signals } = pages[at];
    const title = result.name || t("progress", { n: at + 1, total: pages.length });
    return result.ratings.map((/** @type {any} */ one) => {
      const index = signals.findIndex((/** @type {any} */ signal) => signal.id === one.signal);
      return [title, one.label ?? (PAIRS.has(type) ? "ABX"[index] : t("item", { n: index + 1 })), one.score];
    });
  });
  const cell = (/** @type {any} */ value) => element("td", { text: value === null ? "–" : String(value) });
  return element(
    "div",
    { class: "table", tabindex: "0", role: "region", "aria-label": t("results") },
    element(
      "table",
      {},
      element("caption", { text: t("results") }),
      element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { text, scope: "col" })))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell)))),
    ),
  );
}
