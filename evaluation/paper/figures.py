"""The paper's figures with numbers computed here: PNG, SVG, PDF. The same numbers give the same bytes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from evaluation.paper.printed import CURVE_RATES
from evaluation.paper.tables import PaperFigure, Point, Series
from evaluation.report.drawing import (
    CODEC_COLOURS,
    add_legend,
    codec_style,
    files_of,
    interval_bar,
    new_figure,
    rate_axis,
)


def draw(figure: PaperFigure, note: str) -> dict[str, bytes]:
    """Suffix -> file; {} for an empty figure.

    Args:
        note: the data of the figure, printed below the title because pictures are shared without their page.
    """
    if not figure.series:
        return {}
    panels = list(dict.fromkeys(series.panel for series in figure.series))
    width = max(5.6, 4.8 * len(panels))
    drawing = new_figure(width, 4.8)
    all_axes = drawing.subplots(1, len(panels), squeeze=False).ravel()
    labels = list(dict.fromkeys(series.label for series in figure.series))
    for axes, panel in zip(all_axes, panels, strict=True):
        members = [series for series in figure.series if series.panel == panel]
        _PANELS[figure.name](axes, panel, members, labels)
        axes.grid(True, color="0.9")
        axes.set_axisbelow(True)
    title = f"{figure.title}\n{textwrap.fill(note, width=int(width * 13))}"
    drawing.suptitle(title, fontsize="small", parse_math=False)
    if len(labels) > 1 or figure.name != "fig2":
        add_legend(drawing, all_axes, ncols=3, fontsize="small")
    return files_of(drawing, salt=figure.name)


def _bars(points: Sequence[Point]) -> list[list[float]]:
    """Lengths of the intervals below and above, 0 without an interval."""
    return [
        [0.0 if point.low is None else point.value - point.low for point in points],
        [0.0 if point.high is None else point.high - point.value for point in points],
    ]


def _scores(axes: Axes, panel: str, members: Sequence[Series], labels: Sequence[str]) -> None:
    """Fig. 2."""
    (series,) = members
    places = range(len(series.points))
    values = [point.value for point in series.points]
    axes.plot(places, values, "o", color=CODEC_COLOURS[0])
    counts = {point.n for point in series.points}
    for place, point in enumerate(series.points):
        if point.low is not None and point.high is not None:
            interval = point.value, point.low, point.high
            interval_bar(axes, place, interval, (0, 100), colour=CODEC_COLOURS[0], capsize=4)
        if len(counts) > 1:
            axes.annotate(f"n = {point.n}", (place, 1), fontsize="x-small", ha="center", color="0.35")
    axes.set_xticks(places, [str(point.x) for point in series.points], rotation=30, ha="right")
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_ylim(-2, 102)
    axes.set_ylabel(panel if len(counts) > 1 else f"{panel} (n = {series.points[0].n} listeners)")


def _codebooks(axes: Axes, panel: str, members: Sequence[Series], labels: Sequence[str]) -> None:
    """Fig. 3."""
    for series in members:
        style: dict[str, Any] = {**codec_style(labels.index(series.label))}
        x, y = zip(*((point.x, point.value) for point in series.points), strict=True)
        axes.plot(x, y, label=series.label, linewidth=1.2, markersize=4, **style)
    most = max(len(series.points) for series in members)
    axes.set_xticks(range(1, most + 1, max(1, most // 9)))
    axes.set_xlabel("codebook")
    axes.set_ylabel(f"perplexity at {panel} ↑")
    axes.set_ylim(bottom=0)


def _curves(axes: Axes, panel: str, members: Sequence[Series], labels: Sequence[str]) -> None:
    """Fig. 4."""
    for series in members:
        x = [point.x for point in series.points]
        y = [point.value for point in series.points]
        style: dict[str, Any] = {**codec_style(labels.index(series.label))}
        axes.errorbar(x, y, _bars(series.points), label=series.label, linewidth=1.4, capsize=3, **style)
    rate_axis(axes, CURVE_RATES)
    axes.set_ylabel(panel)


_PANELS = {"fig2": _scores, "fig3": _codebooks, "fig4": _curves}
