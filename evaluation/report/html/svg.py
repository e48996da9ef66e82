"""Axes of a chart as inline SVG. The page's style sheet colours it for light, dark and paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

#: In units of the drawing, which are about a CSS pixel on a desktop and on a phone.
WIDTH, HEIGHT = 380, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 26, 40
#: Classes ``c0`` ... of the style sheet.
NUM_COLOURS = 7

_SHAPES = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "M-3.6,-3.6h7.2v7.2h-7.2z",
    "M0,-4.6L4.4,3.4H-4.4z",
    "M0,-4.8L4.8,0L0,4.8L-4.8,0z",
    "M0,4.6L4.4,-3.4H-4.4z",
    "M-1.5,-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers within [low, high]."""
    span = high - low
    step = 10 ** math.floor(math.log10(span / count))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def number(value: float) -> str:
    """Label of a tick."""
    return f"{value:.6g}" if abs(value) < 1e5 else f"{value:.2g}"


def shape(index: int) -> str:
    """Path of the marker of the ``index``-th curve."""
    return _SHAPES[index % len(_SHAPES)]


class Panel:
    """One pair of axes. ``x`` and ``y`` are (lowest, highest); equal ends are widened.

    Args:
        title: text above the panel.
        x_label: text below it.
        x_ticks: (position, label) of each tick.
        x_log: whether the x axis is logarithmic.
    """

    def __init__(
        self,
        title: str,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        x_label: str,
        x_ticks: Sequence[tuple[float, str]] | None = None,
        x_log: bool = False,
    ) -> None:
        self._log = x_log
        left, right = (math.log(end) if x_log else end for end in x)
        self._x = self._widened(left, right, 0.04)
        self._y = self._widened(*y, 0.05)
        self.title = title
        self._parts: list[Markup] = []
        self._axes(x_label, x_ticks)

    @staticmethod
    def _widened(low: float, high: float, share: float) -> tuple[float, float]:
        margin = (high - low) * share or max(abs(low) * 0.1, 0.5)
        return low - margin, high + margin

    def x(self, value: float) -> float:
        low, high = self._x
        share = ((math.log(value) if self._log else value) - low) / (high - low)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self._y
        return round(HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1)

    def shows(self, value: float) -> bool:
        """Whether a value of y lies within the axes."""
        return self._y[0] <= value <= self._y[1]

    def _axes(self, x_label: str, x_ticks: Sequence[tuple[float, str]] | None) -> None:
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        for value in ticks(*self._y):
            y = self.y(value)
            self._add('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', _LEFT, right, y, y)
            self._text("tick", "end", _LEFT - 5, y + 4, number(value))
        if x_ticks is None:
            x_ticks = [(value, number(value)) for value in ticks(*self._x)]
        for position, label in x_ticks:
            x = self.x(position)
            self._add('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', x, x, _TOP, bottom)
            self._text("tick", "middle", x, bottom + 15, label)
        self._text("axis", "middle", (_LEFT + right) / 2, HEIGHT - 8, x_label)
        self._add('<text class="title" x="{}" y="{}">{}</text>', 6, 15, self.title)

    def _text(self, kind: str, anchor: str, x: float, y: float, text: str) -> None:
        self._add('<text class="{}" text-anchor="{}" x="{}" y="{}">{}</text>', kind, anchor, x, y, text)

    def _add(self, template: str, *values: object) -> None:
        # `Markup.format` escapes the values.
        self._parts.append(Markup(template).format(*values))

    def line(self, points: Sequence[tuple[float, float]], colour: int, *, title: str = "") -> None:
        """Draw a curve through points of the data; dashed from the eighth curve, where the colours repeat."""
        path = " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)
        dashed = " dashed" if colour // NUM_COLOURS % 2 else ""
        template = '<polyline class="curve c{}{}" points="{}"><title>{}</title></polyline>'
        self._add(template, colour % NUM_COLOURS, dashed, path, title)

    def bar(self, x: float, low: float, high: float, colour: int) -> None:
        """Draw an interval."""
        at, top, bottom = self.x(x), self.y(high), self.y(low)
        self._add(
            '<path class="bar c{}" d="M{},{}H{}M{},{}V{}M{},{}H{}"/>',
            *(colour % NUM_COLOURS, at - 3, top, at + 3, at, top, bottom, at - 3, bottom, at + 3),
        )

    def marker(self, x: float, y: float, colour: int, title: str, *, hollow: bool = False) -> None:
        self._add(
            '<path class="marker c{}{}" transform="translate({},{})" d="{}"><title>{}</title></path>',
            *(colour % NUM_COLOURS, " hollow" if hollow else "", self.x(x), self.y(y), shape(colour), title),
        )

    def level(self, y: float, title: str) -> None:
        """Draw a horizontal line across the panel."""
        at = self.y(y)
        self._add(
            '<line class="level" x1="{}" x2="{}" y1="{}" y2="{}"><title>{}</title></line>',
            *(_LEFT, WIDTH - _RIGHT, at, at, title),
        )

    def render(self, description: str) -> Markup:
        """The SVG element; ``description`` is for people who cannot see it."""
        head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            WIDTH, HEIGHT, description
        )
        return head + Markup("").join(self._parts) + Markup("</svg>")


def finite_range(values: Sequence[float]) -> tuple[float, float] | None:
    """Lowest and highest finite value; None without any."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    return (float(finite.min()), float(finite.max())) if len(finite) else None
