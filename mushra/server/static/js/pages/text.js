// @ts-check
/** Pages to read: generic, and consent. */

import { element, markup } from "../dom.js";
import { t } from "../texts.js";

/** @typedef {import("../trial.js").PageContext} PageContext */
/** @typedef {import("../trial.js").PageView} PageView */

/** @param {any} page @returns {PageView} */
export function genericPage(page) {
  return { content: [markup(page.content)], missing: () => [], result: () => ({}) };
}

/** @param {any} page @param {PageContext} context @returns {PageView} */
export function consentPage(page, context) {
  const box = element("input", { type: "checkbox", id: "consent", checked: Boolean(context.draft.consent?.given) });
  box.addEventListener("change", () => context.changed());
  const label = element("label", { htmlFor: "consent", class: "check" }, box, t("consent"));
  return {
    content: [markup(page.content), label],
    missing: () => (page.mustConsent && !box.checked ? [t("consentMissing")] : []),
    // The server hashes the text that it sent: a hash from the browser would prove nothing.
    result: () => ({ consent: { given: box.checked } }),
  };
}
