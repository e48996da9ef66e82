// @ts-check
/** Texts of the page, translated. The experimenter's texts are not translated. */

import de from "./texts/de.js";
import en from "./texts/en.js";
import es from "./texts/es.js";
import fr from "./texts/fr.js";

/** @type {Record<string, Record<string, string>>} */
export const LANGUAGES = { en, de, fr, es };

let current = en;

/** @param {string} language one of `LANGUAGES`; any other selects English */
export function setLanguage(language) {
  const code = language in LANGUAGES ? language : "en";
  current = LANGUAGES[code];
  document.documentElement.lang = code;
}

/**
 * @param {string} key
 * @param {Record<string, string|number>} [values] for the names in braces
 * @returns {string}
 */
export function t(key, values = {}) {
  const text = current[key] ?? en[key];
  if (text === undefined) throw new Error(`no text '${key}'`);
  return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}
