// @ts-check
/**
 * Following a pointer on a control: the one place where gestures become input.
 *
 * Nothing is stored before the pointer is lifted. What begins on a control can turn out to be a swipe that
 * scrolls, a pinch or a long press; the browser says so too late to take back what was stored on the way.
 */

/** Pixels that a finger may move while it is held still. */
const STILL_PX = 10;
/** Milliseconds after which a finger that is held still presses long; browsers then click nothing either. */
const LONG_MS = 500;

/**
 * @param {HTMLElement} target
 * @param {Object} control
 * @param {(at: PointerEvent|null) => void} control.show what it would be set to; null: what it is set to
 * @param {(at: PointerEvent) => void} control.store sets it: called once, where the pointer was lifted
 * @param {() => boolean} [control.allowed] whether it may be set now: when it is touched, and when it is let go
 * @param {() => void} [control.blocked] told that it was tried when it was not allowed
 */
export function drag(target, { show, store, allowed = () => true, blocked = () => {} }) {
  target.addEventListener("pointerdown", (/** @type {PointerEvent} */ down) => {
    if (down.button !== 0 || !down.isPrimary) return; // not the first finger
    down.preventDefault(); // no text is selected while dragging
    down.stopPropagation(); // a loop's handle lies on the waveform
    target.setPointerCapture(down.pointerId);
    const may = allowed();
    let still = down.pointerType === "touch";
    const stop = new AbortController();
    const { signal } = stop;
    const end = (/** @type {PointerEvent|null} */ lifted) => {
      stop.abort();
      // Asked again: meanwhile another item may play.
      if (lifted && may && allowed()) {
        target.focus({ preventScroll: true });
        store(lifted);
      } else if (lifted) blocked();
      show(null);
    };
    const follow = (/** @type {PointerEvent} */ at) => show(may && allowed() ? at : null);
    const move = (/** @type {PointerEvent} */ at) => {
      // Lifted while another button is held, or where the browser did not see it.
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
    // A second finger makes it a pinch, or nothing that we know.
    addEventListener("pointerdown", () => end(null), { signal, capture: true });
  });
}
