// @ts-check
/** A grading scale: a slider that is unset until its first move, vertical or horizontal by the layout. */

import { element } from "./dom.js";
import { drag } from "./drag.js";

/**
 * @typedef {Object} ScaleOptions
 * @property {number} min
 * @property {number} max
 * @property {number} step
 * @property {string} label name of the graded item, for screen readers
 * @property {number|null} value
 * @property {(value: number) => string} describe the value in words
 * @property {(value: number) => string} word the label nearest to the value
 * @property {string} unset the words for "not graded yet"
 * @property {() => boolean} allowed whether it may be moved now
 * @property {() => void} onblocked called after an attempt to move it when it may not be moved
 * @property {(value: number) => void} onset called at the end of every move
 */

export class Scale {
  /** @param {ScaleOptions} options */
  constructor(options) {
    this._options = options;
    /** @type {number|null} */
    this.value = options.value;
    this._fill = element("div", { class: "scale-fill" });
    this._thumb = element("div", { class: "scale-thumb" });
    this.element = element(
      "div",
      { class: "scale", role: "slider", tabindex: "-1", "aria-label": options.label },
      element("div", { class: "scale-track" }, this._fill, this._thumb),
    );
    this.element.setAttribute("aria-valuemin", String(options.min));
    this.element.setAttribute("aria-valuemax", String(options.max));
    this.output = element("output", { class: "value", "aria-hidden": "true" });
    this.word = element("span", { class: "word", "aria-hidden": "true" });
    // The shown value is stored, although the page may have moved under a still pointer.
    /** @type {{at: PointerEvent, value: number}|null} */
    let last = null;
    drag(this.element, {
      show: (at) => {
        last = at && { at, value: this._rounded(this._at(at)) };
        this._show(last ? last.value : this.value);
      },
      store: (at) => {
        const stood = last && last.at.clientX === at.clientX && last.at.clientY === at.clientY;
        this._set(stood ? last.value : this._at(at));
      },
      allowed: options.allowed,
      blocked: options.onblocked,
    });
    this.element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (this.key(event)) event.preventDefault();
    });
    this._show(this.value);
  }

  /** Shows whether it may be moved, and whether Tab reaches it. @param {boolean} allowed */
  enable(allowed) {
    this.element.setAttribute("aria-disabled", String(!allowed));
    this.element.tabIndex = allowed ? 0 : -1;
    const upright = this.element.offsetHeight > this.element.offsetWidth;
    this.element.setAttribute("aria-orientation", upright ? "vertical" : "horizontal");
  }

  /**
   * Handles a key; the first move of an unset scale goes to the middle.
   *
   * @param {KeyboardEvent} event
   * @returns {boolean} whether it has used the key
   */
  key(event) {
    const { min, max, step } = this._options;
    const large = 10 * step;
    const small = event.shiftKey ? large : step;
    /** @type {Record<string, number>} */
    const moves = { ArrowUp: small, ArrowRight: small, ArrowDown: -small, ArrowLeft: -small };
    /** @type {Record<string, number>} */
    const pages = { PageUp: large, PageDown: -large };
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const by = moves[event.key] ?? pages[event.key];
    const to = event.key === "Home" ? min : event.key === "End" ? max : null;
    if (by === undefined && to === null) return false;
    if (!this._options.allowed()) this._options.onblocked();
    else if (to !== null) this._set(to);
    else this._set(this.value === null ? (min + max) / 2 : this.value + by);
    return true;
  }

  /** @param {number} wanted */
  _set(wanted) {
    this.value = this._rounded(wanted);
    this._show(this.value);
    this._options.onset(this.value);
  }

  /** @param {number} wanted @returns {number} the nearest value of the scale */
  _rounded(wanted) {
    const { min, max, step } = this._options;
    const steps = Math.round((Math.min(Math.max(wanted, min), max) - min) / step);
    return Number((min + steps * step).toFixed(6));
  }

  /** @param {number|null} value */
  _show(value) {
    const { min, max, describe, unset } = this._options;
    this.element.classList.toggle("unset", value === null);
    this.element.setAttribute("aria-valuenow", String(value ?? min));
    this.element.setAttribute("aria-valuetext", value === null ? unset : describe(value));
    this.element.style.setProperty("--fraction", String(value === null ? 0 : (value - min) / (max - min)));
    this.output.textContent = value === null ? "–" : value.toFixed(Number.isInteger(this._options.step) ? 0 : 1);
    this.word.textContent = value === null ? "" : this._options.word(value);
  }

  /** @param {PointerEvent} event @returns {number} value under the pointer */
  _at(event) {
    const { min, max } = this._options;
    const box = /** @type {HTMLElement} */ (this.element.firstElementChild).getBoundingClientRect();
    const upright = box.height > box.width;
    const fraction = upright
      ? (box.bottom - event.clientY) / box.height
      : (event.clientX - box.left) / box.width;
    return min + fraction * (max - min);
  }
}
