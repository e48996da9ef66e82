"""The figure of each method: values with their intervals, in the look of MUSHRA's figures."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

from evaluation.report.drawing import NEUTRAL, interval_bar, new_figure
from mushra.analysis.figures import WIDTHS, save, style_context
from mushra.analysis.layout import arrange, label_axis
from mushra.analysis.methods.tables import Marks

_AXES_HEIGHT = 2.0
_MARGINS = 0.8


def draw(marks: Marks, folder: Path, stem: str, *, style: str | Path | None = None) -> list[Path]:
    """Draw as PNG, SVG and PDF, two columns of a journal wide and one (``..._one_column``)."""
    found = {name: (value, low, high) for name, value, low, high in marks.points}
    layout = arrange(list(found), None, ()) if found else None
    paths: list[Path] = []
    if layout is None:
        return paths
    with style_context(style):
        for kind, width in reversed(WIDTHS.items()):
            figure = new_figure(width, _AXES_HEIGHT)
            axes = figure.subplots()
            size = float(matplotlib.rcParams["font.size"]) - 1
            labels = label_axis(axes, layout, width - _MARGINS, font_size=size)
            codecs = {place.codec: place for place in layout.places if place.codec}
            figure.set_figheight(_AXES_HEIGHT + labels + 0.35 + 0.15 * bool(codecs))
            for place in layout.places:
                value, low, high = found[place.condition]
                if not math.isfinite(value):
                    continue
                interval_bar(axes, place.x, (value, low, high), marks.limits, colour=place.colour)
                axes.plot(place.x, value, place.marker, color=place.colour, clip_on=False)
            for codec, place in codecs.items():
                axes.plot([], [], place.marker, color=place.colour, label=codec)
            if codecs:
                figure.legend(loc="outside upper center", ncols=min(len(codecs), 6), frameon=False)
            if marks.line is not None:
                axes.axhline(marks.line, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0.5)
            if marks.limits is not None:
                low, high = marks.limits
                room = 0.02 * (high - low)  # for marks at an end of the scale
                axes.set_ylim(low - room, high + room)
            axes.grid(True, axis="y")
            axes.tick_params(axis="x", length=0)
            axes.set_ylabel(marks.label)
            paths += save(figure, folder, stem if kind == "two_columns" else f"{stem}_{kind}")
    return paths
