// @ts-check
/** Makes elements. Text always becomes a text node, so that the browser never reads it as markup. */

/**
 * A new element. Properties: `class`, `text`, `on` (event name -> listener), `dataset`; names of element
 * properties (`disabled`, `value`, `htmlFor`) are set as such, all others as attributes. `null`, `undefined`
 * and `false` leave an attribute out.
 *
 * @param {string} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node|string|null|undefined|false)} children
 * @returns {any} the element; `any`, because its kind follows from the tag
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name === "text") made.textContent = value;
    else if (name === "dataset") Object.assign(made.dataset, value);
    else if (name === "on") {
      for (const [event, listener] of Object.entries(value)) {
        made.addEventListener(event, /** @type {EventListener} */ (listener));
      }
    } else if (name in made && !name.startsWith("aria-") && name !== "role" && name !== "list") {
      /** @type {any} */ (made)[name] = value;
    } else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/**
 * The experimenter's own markup (`content`, `popupContent`), which the server has sanitised.
 *
 * @param {string|null|undefined} html
 * @param {string} [className]
 * @returns {HTMLElement|null} null if there is no markup
 */
export function markup(html, className = "content") {
  if (!html || !html.trim()) return null;
  const made = element("div", { class: className });
  made.innerHTML = html;
  return made;
}

/**
 * A button with an action.
 *
 * @param {string} text
 * @param {(event: MouseEvent) => void} action
 * @param {Record<string, any>} [properties]
 * @returns {HTMLButtonElement}
 */
export function button(text, action, properties = {}) {
  return element("button", { type: "button", text, ...properties, on: { click: action } });
}

/**
 * Shows a modal dialog until it is closed; the focus returns to where it was.
 *
 * @param {string} title
 * @param {Node[]} content
 * @param {string} close text of the button
 * @param {AbortSignal} [signal] also closes the dialog
 * @returns {Promise<void>}
 */
export function dialog(title, content, close, signal) {
  return new Promise((resolve) => {
    const before = /** @type {HTMLElement|null} */ (document.activeElement);
    const heading = element("h2", { text: title, id: "dialog-title" });
    const shown = element("dialog", { "aria-labelledby": "dialog-title" });
    shown.append(heading, ...content, button(close, () => shown.close(), { class: "primary", autofocus: true }));
    shown.addEventListener("close", () => {
      shown.remove();
      before?.focus?.();
      resolve();
    });
    signal?.addEventListener("abort", () => shown.close());
    document.body.append(shown);
    shown.showModal();
  });
}

/** @param {EventTarget|null} target @returns {boolean} whether it takes keys as text */
export function isTextField(target) {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement) return true;
  if (target instanceof HTMLInputElement) {
    return !["checkbox", "radio", "button", "range"].includes(target.type);
  }
  return target.isContentEditable;
}

let announcement = 0;

/**
 * Announces a text to screen readers only.
 *
 * @param {string} text
 */
export function announce(text) {
  const region = document.getElementById("announcements");
  if (!region) return;
  // Screen readers speak a repeated text only if the region changes in between.
  announcement += 1;
  region.textContent = announcement % 2 ? text : `${text}\u00a0`;
}
