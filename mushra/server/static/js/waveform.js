// @ts-check
/** Position in the excerpt and the played region: a waveform (or a plain bar) with two handles. */

import { element } from "./dom.js";
import { drag } from "./drag.js";
import { t } from "./texts.js";

/** Seconds that an arrow key moves a handle; with shift ten times as far. */
const NUDGE_S = 0.05;

/** @param {number} seconds @returns {string} 0:03.2 */
export function clock(seconds) {
  const tenths = Math.round(Math.max(0, seconds) * 10);
  const rest = tenths % 600;
  return `${Math.floor(tenths / 600)}:${String(Math.floor(rest / 10)).padStart(2, "0")}.${rest % 10}`;
}

export class Waveform {
  /**
   * @param {import("./player.js").Player} player with its track loaded
   * @param {AudioBuffer|null} buffer sound to draw; null: a plain bar
   * @param {boolean} handles whether the region can be changed
   * @param {() => void} onregion called when the listener has changed it
   * @param {AbortSignal} signal of the page's end
   */
  constructor(player, buffer, handles, onregion, signal) {
    this._player = player;
    this._buffer = buffer;
    this._onregion = onregion;
    this._head = element("div", { class: "wave-head" });
    this._region = element("div", { class: "wave-region" });
    this._canvas = element("canvas", { class: "wave-canvas", "aria-hidden": "true" });
    this._box = element("div", { class: "wave-box" }, this._canvas, this._region, this._head);
    this._time = element("span", { class: "wave-time", "aria-hidden": "true" });
    /** @type {HTMLElement[]} */
    this._handles = handles ? [this._handle(0), this._handle(1)] : [];
    this._box.append(...this._handles);
    drag(this._box, { show: () => {}, store: (at) => player.seek(this._at(at)) });
    this.element = element(
      "div",
      { class: buffer ? "wave" : "wave plain", role: "group", "aria-label": t("waveform") },
      this._box,
      this._time,
    );
    player.addEventListener("change", () => this._show(), { signal });
    const observer = new ResizeObserver(() => this._draw());
    observer.observe(this._box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this._draw(), { signal });
    const frame = () => {
      if (signal.aborted) observer.disconnect();
      else {
        this._move();
        requestAnimationFrame(frame);
      }
    };
    requestAnimationFrame(frame);
    this._show();
  }

  /** @param {AudioBuffer|null} buffer sound to draw from now on */
  draw(buffer) {
    if (buffer === this._buffer) return;
    this._buffer = buffer;
    this.element.classList.toggle("plain", !buffer);
    this._draw();
  }

  get _length() {
    return this._player.track?.length ?? 1;
  }

  /** @param {0|1} which start or end */
  _handle(which) {
    const handle = element("div", {
      class: which ? "wave-handle end" : "wave-handle start",
      role: "slider",
      tabindex: "0",
      "aria-label": t(which ? "loopEnd" : "loopStart"),
      "aria-valuemin": "0",
    });
    handle.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      const by = NUDGE_S * this._player.rate * (event.shiftKey ? 10 : 1);
      /** @type {Record<string, number>} */
      const moves = { ArrowLeft: -by, ArrowDown: -by, ArrowRight: by, ArrowUp: by, Home: -Infinity, End: Infinity };
      if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation(); // the arrows of the page move a grade
      this._setEdge(which, this._player.region[which] + moves[event.key]);
    });
    drag(handle, {
      show: (at) => {
        const frame = at ? this._at(at) : this._player.region[which];
        handle.style.left = `${(100 * frame) / this._length}%`;
      },
      store: (at) => this._setEdge(which, this._at(at)),
    });
    return handle;
  }

  /** @param {0|1} which @param {number} frame */
  _setEdge(which, frame) {
    const [start, end] = this._player.region;
    if (which) this._player.setRegion(start, frame, "end");
    else this._player.setRegion(frame, end, "start");
    this._onregion();
  }

  /** @param {PointerEvent} event @returns {number} frame under the pointer */
  _at(event) {
    const box = this._box.getBoundingClientRect();
    const fraction = (event.clientX - box.left) / box.width;
    return Math.min(1, Math.max(0, fraction)) * this._length;
  }

  _show() {
    const { rate } = this._player;
    const [start, end] = this._player.region;
    this._region.style.left = `${(100 * start) / this._length}%`;
    this._region.style.width = `${(100 * (end - start)) / this._length}%`;
    this._handles.forEach((handle, which) => {
      const frame = this._player.region[/** @type {0|1} */ (which)];
      handle.style.left = `${(100 * frame) / this._length}%`;
      handle.setAttribute("aria-valuemax", (this._length / rate).toFixed(2));
      handle.setAttribute("aria-valuenow", (frame / rate).toFixed(2));
      handle.setAttribute("aria-valuetext", t("seconds", { s: (frame / rate).toFixed(2) }));
    });
    this._move();
  }

  _move() {
    const position = this._player.position();
    this._head.style.left = `${(100 * position) / this._length}%`;
    const { rate } = this._player;
    const text = `${clock(position / rate)} / ${clock(this._length / rate)}`;
    if (this._time.textContent !== text) this._time.textContent = text;
  }

  /** Draws the least and the greatest sample of every pixel column, over all channels. */
  _draw() {
    const buffer = this._buffer;
    if (!buffer) return;
    const scale = devicePixelRatio || 1;
    const width = Math.round(this._box.clientWidth * scale);
    const height = Math.round(this._box.clientHeight * scale);
    if (!width || !height) return;
    this._canvas.width = width;
    this._canvas.height = height;
    const context = this._canvas.getContext("2d");
    if (!context) return;
    context.fillStyle = getComputedStyle(this._canvas).color;
    const channels = Array.from({ length: buffer.numberOfChannels }, (_, n) => buffer.getChannelData(n));
    const peak = channels.reduce((most, data) => data.reduce((m, v) => Math.max(m, Math.abs(v)), most), 1e-4);
    for (let x = 0; x < width; x += 1) {
      const from = Math.floor((x * this._length) / width);
      const until = Math.max(from + 1, Math.floor(((x + 1) * this._length) / width));
      let [least, most] = [0, 0];
      for (const data of channels) {
        for (let n = from; n < until; n += 1) {
          if (data[n] < least) least = data[n];
          if (data[n] > most) most = data[n];
        }
      }
      const top = (0.5 - (0.48 * most) / peak) * height;
      context.fillRect(x, top, 1, Math.max(1, ((0.48 * (most - least)) / peak) * height));
    }
  }
}
