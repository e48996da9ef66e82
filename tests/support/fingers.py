"""Fingers on a touch screen, through the browser's own input: it decides what scrolls or zooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Point = tuple[float, float]

#: What the page would keep if it were closed now, and what it shows: both without what only time changes.
_STATE = """
() => {
  dispatchEvent(new Event("pagehide")); // the draft is written
  const key = Object.keys(localStorage).find((name) => name.includes(":draft:"));
  const draft = key ? JSON.parse(localStorage[key]) : {};
  const ratings = (draft.ratings ?? []).map((one) => (
    { signal: one.signal, score: one.score, comment: one.comment, moves: one.moves }
  ));
  const { answer, comment, responses, volume } = draft;
  const all = (selector, read) => [...document.querySelectorAll(selector)].map(read);
  const shown = all("[role=slider]", (one) => one.getAttribute("aria-valuetext"));
  const filled = all("input, textarea", (one) => [one.value, Boolean(one.checked)]);
  const texts = all("output", (one) => one.textContent);
  return { ratings, answer, comment, responses, volume, shown, filled, texts };
}
"""
_WATCH = """
() => {
  if (window.taken === undefined) addEventListener("pointercancel", () => { window.taken = true; }, true);
  window.taken = false;
}
"""
_SETTLED = """
() => new Promise((done) => {
  requestAnimationFrame(() => requestAnimationFrame(() => done(window.taken)));
})
"""


def state(page: Any) -> Any:
    return page.evaluate(_STATE)


class Fingers:
    """Up to two fingers on ``page``; every gesture returns whether the browser took it from the page."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._session = page.context.new_cdp_session(page)

    def on(self, control: Any, across: float = 0.5, up: float = 0.5) -> Point:
        """A place on a control, brought to the middle of the window; fractions of its width and height."""
        control.evaluate("element => element.scrollIntoView({ block: 'center' })")
        box = control.bounding_box()
        return box["x"] + across * box["width"], box["y"] + (1 - up) * box["height"]

    def _touch(self, kind: str, *points: Point) -> None:
        touches = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)]
        self._session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    def _ended(self) -> bool:
        self._touch("touchEnd")
        return bool(self._page.evaluate(_SETTLED))

    def tap(self, at: Point, meanwhile: Callable[[], object] = lambda: None) -> bool:
        self._page.evaluate(_WATCH)
        self._touch("touchStart", at)
        meanwhile()
        return self._ended()

    def swipe(self, at: Point, dx: float, dy: float, steps: int = 5) -> bool:
        self._page.evaluate(_WATCH)
        self._touch("touchStart", at)
        for n in range(1, steps + 1):
            self._touch("touchMove", (at[0] + dx * n / steps, at[1] + dy * n / steps))
        return self._ended()

    def two(self, at: Point, dx: float, dy: float, apart: float = 0) -> bool:
        """Two fingers, 30 pixels beside each other, move together and ``apart`` from each other: a pinch."""
        self._page.evaluate(_WATCH)
        x, y = at
        self._touch("touchStart", (x - 15, y))
        self._touch("touchStart", (x - 15, y), (x + 15, y))
        for n in range(1, 6):
            mx, my, out = x + dx * n / 5, y + dy * n / 5, 15 + apart * n / 5
            self._touch("touchMove", (mx - out, my), (mx + out, my))
        taken = self._ended()
        self._session.send("Emulation.setPageScaleFactor", {"pageScaleFactor": 1})
        return taken

    def hold(self, at: Point, milliseconds: int = 700) -> bool:
        """A long press, with the browser's own recognition of it."""
        self._page.evaluate(_WATCH)
        gesture = {"x": at[0], "y": at[1], "duration": milliseconds, "gestureSourceType": "touch"}
        self._session.send("Input.synthesizeTapGesture", gesture)
        return bool(self._page.evaluate(_SETTLED))
