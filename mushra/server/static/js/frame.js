// @ts-check
/** The frame around the pages: title, progress, state of saving, language, keys; and full-window messages. */

import { announce, button, dialog, element } from "./dom.js";
import { LANGUAGES, setLanguage, t } from "./texts.js";

/** Whether single keys do something; a listener can turn that off (WCAG 2.1.4). */
export const keys = { on: true };

export class Frame {
  /**
   * @param {string} testname
   * @param {string[]} languages in which the test is offered
   */
  constructor(testname, languages) {
    this._testname = testname;
    this._languages = languages.filter((one) => one in LANGUAGES);
    this.header = /** @type {HTMLElement} */ (document.getElementById("header"));
    this.main = /** @type {HTMLElement} */ (document.getElementById("main"));
    /** Rows of the keys' help, without those of every page. @type {string[][]} */
    this.keyRows = [];
    /** Rules of the current page, for the help. @type {string[]} */
    this.rules = [];
  }

  /**
   * Select element of the language.
   *
   * @param {() => void} onlanguage called when another language has been chosen and set
   * @returns {HTMLSelectElement|null} null if there is only one language
   */
  languageChoice(onlanguage) {
    if (this._languages.length < 2) return null;
    const options = this._languages.map((code) => {
      const selected = code === document.documentElement.lang;
      return element("option", { value: code, text: LANGUAGES[code].language, selected, lang: code });
    });
    const choice = element("select", { "aria-label": t("chooseLanguage"), class: "language" }, ...options);
    choice.addEventListener("change", () => {
      setLanguage(choice.value);
      onlanguage();
      /** @type {HTMLElement|null} */ (document.querySelector(".language"))?.focus(); // the element was rebuilt
    });
    return choice;
  }

  /**
   * Rebuilds the header in the current language.
   *
   * @param {() => void} onlanguage called when another language has been chosen
   */
  build(onlanguage) {
    this._progress = element("progress", { class: "progress", max: 1, value: 0, "aria-label": t("progress", { n: 0, total: 0 }) });
    this._place = element("span", { class: "place" });
    this._state = element("p", { class: "state", role: "status" });
    this.header.replaceChildren(
      element("span", { class: "testname", text: this._testname }),
      element("div", { class: "progress-box" }, this._place, this._progress),
      element(
        "div",
        { class: "tools" },
        this.languageChoice(onlanguage),
        button("?", () => this.help(), { class: "help", "aria-label": t("help"), title: t("help"), "aria-keyshortcuts": "?" }),
      ),
      this._state,
    );
  }

  /** @param {number} n from 1 @param {number} total */
  progress(n, total) {
    const text = t("progress", { n, total });
    if (!this._place || !this._progress) return;
    this._place.textContent = text;
    this._progress.max = total;
    this._progress.value = n;
    this._progress.setAttribute("aria-label", text);
  }

  /**
   * Shows the state of saving.
   *
   * @param {import("./outbox.js").Outbox} outbox
   * @param {boolean} kept whether entries survive a reload of the page
   * @param {() => void} onshow shows the page that was refused
   */
  saving(outbox, kept, onshow) {
    if (!this._state) return;
    const { state, message } = outbox;
    const text = t(state, { message });
    const shown = kept || state === "refused" || state === "gone" ? text : t("notKept");
    if (this._state.dataset.text === shown) return;
    this._state.dataset.text = shown;
    const bad = state === "refused" || state === "gone";
    this._state.className = `state ${bad ? "bad" : kept ? state : "waiting"}`;
    this._state.replaceChildren(shown, state === "refused" ? button(t("showPage"), onshow) : "");
  }

  /** Removes the state of saving. */
  silent() {
    this._state?.replaceChildren();
  }

  /** Shows the rules of the current page and the keys. */
  help() {
    const box = element("input", { type: "checkbox", checked: keys.on });
    box.addEventListener("change", () => {
      keys.on = box.checked;
    });
    const rows = [...this.keyRows, ["N  Enter", t("keyNext")], ["?", t("keyHelp")]].map(([key, text]) =>
      element("tr", {}, element("th", { scope: "row" }, ...key.split("  ").map((one) => element("kbd", { text: one }))), element("td", { text })),
    );
    const rules = this.rules.map((text) => element("li", { text }));
    const content = [
      ...(rules.length ? [element("h3", { text: t("rules") }), element("ul", {}, ...rules)] : []),
      element("h3", { text: t("keysTitle") }),
      element("table", { class: "keys" }, ...rows),
      element("label", { class: "check" }, box, t("keysOn")),
    ];
    dialog(t("help"), content, t("close"));
  }

  /**
   * A message in place of a page.
   *
   * @param {string} title
   * @param {string[]} paragraphs
   * @param {(HTMLElement|null)[]} actions
   * @param {string} [kind]
   */
  message(title, paragraphs, actions = [], kind = "") {
    const heading = element("h1", { text: title, tabindex: "-1" });
    this.main.replaceChildren(
      element(
        "div",
        { class: `page message ${kind}` },
        heading,
        ...paragraphs.map((text) => element("p", { text })),
        actions.length ? element("div", { class: "choices" }, ...actions) : null,
      ),
    );
    document.title = `${title} – ${this._testname}`;
    heading.focus();
    announce(title);
  }
}
