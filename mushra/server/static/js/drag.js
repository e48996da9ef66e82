// @ts-check
/**
 * Follows a pointer on a control: the only place where gestures become input.
 *
 * A value is stored only when the pointer is lifted. A gesture that begins on a control can become a swipe that
 * scrolls, a pinch or a long press; the browser reports this too late to take back a stored value.
 */

/** Pixels that a finger may move while it is held still. */
const STILL_PX = 10;
/** Milliseconds after which a still finger is a long press, for which browsers do not send a click either. */
const LONG_MS = 500;

/**
 * @param {HTMLElement} target
 * @param {Object} control
 * @param {(at: PointerEvent|null) => void} control.show shows the value under the pointer; null: the stored value
 * @param {(at: PointerEvent) => void} control.store stores the value: called once, where the pointer was lifted
 * @param {() => boolean} [control.allowed] whether it may be set now; asked at the touch and at the release
 * @param {() => void} [control.blocked] called after an attempt to set it when this was not allowed
 */
export function drag(target, { show, store, allowed = () => true, blocked = () => {} }) {
  target.addEventListener("pointerdown", (/** @type {PointerEvent} */ down) => {
    if (down.button !== 0 || !down.isPrimary) return; // not the first finger
    down.preventDefault(); // no text is selected while dragging
    down.stopPropagation(); // a loop's handle is on top of the waveform
    target.setPointerCapture(down.pointerId);
    const may = allowed();
    let still = down.pointerType === "touch";
    const stop = new AbortController();
    const { signal } = stop;
    const end = (/** @type {PointerEvent|null} */ lifted) => {
      stop.abort();
      // Asked again, because another item may play by now.
      if (lifted && may && allowed()) {
        target.focus({ preventScroll: true });
        store(lifted);
      } else if (lifted) blocked();
      show(null);
    };
    const follow = (/** @type {PointerEvent} */ at) => show(may && allowed() ? at : null);
    const move = (/** @type {PointerEvent} */ at) => {
      // Lifted while another button is held, or outside the browser.
      if (!(at.buttons & 1)) return end(at.button === 0 ? at : null);
      if (Math.hypot(at.clientX - down.clientX, at.clientY - down.clientY) > STILL_PX) still = false;
      follow(at);
    };
    if (down.pointerType !== "touch") follow(down);
    target.addEventListener("pointermove", move, { signal });
    target.addEventListener("pointerup", (up) => end(still && up.timeStamp - down.timeStamp > LONG_MS ? null : up), { signal });
    target.addEventListener("pointercancel", () => end(null), { signal });
    // No menu in the middle of a drag that began slowly.
    target.addEventListener("contextmenu", (menu) => menu.preventDefault(), { signal });
    // A second finger makes it a pinch or an unknown gesture.
    addEventListener("pointerdown", () => end(null), { signal, capture: true });
  });
}
