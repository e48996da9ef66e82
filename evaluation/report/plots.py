"""Rate-distortion curves: every metric over the measured rate, with its 95% intervals."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.records import MetricInfo
from evaluation.report.cells import heading, measured_heading, row_label
from evaluation.report.drawing import (
    CODEC_COLOURS,
    MARKERS,
    add_legend,
    codec_style,
    files_of,
    new_figure,
    rate_axis,
)
from evaluation.report.tables import CodedPoint, disclaimer, with_codebooks, with_noise_floor
from evaluation.results import Results
from qincodec.core.files import write_atomic

_LINES = ("-", "--", ":", "-.")
#: Two panels are as wide as the text of a page, so letters are printed in the size in which they are drawn.
_PANEL_INCHES = (3.5, 2.8)
_PANELS_PER_ROW = 2
#: This map goes from light to dark also in grey and for people with any kind of colour blindness.
_RATE_COLOURS = "viridis"


def write_plots(results: Results, summary: pd.DataFrame, folder: Path) -> list[Path]:
    """Write the figures as ``.png`` and ``.svg``; return their paths. The same results give the same bytes.

    ``rate_distortion``; ``embeddings``, the same for metrics of embeddings with their noise floor, and
    ``perplexity``, if the run has them. Figures that the run no longer has are removed.
    """
    figures: dict[str, Figure | None] = dict.fromkeys(("rate_distortion", "embeddings", "perplexity"))
    plain = [metric for metric in results.metrics if not metric.embedding]
    others = [metric for metric in results.metrics if metric.embedding]
    if plain:
        figures["rate_distortion"] = rate_distortion(results, summary, plain)
    if others:
        everything = with_noise_floor(results, summary)
        figures["embeddings"] = rate_distortion(results, everything, others)
    if with_codebooks(results):
        figures["perplexity"] = perplexity(results)
    paths = []
    kinds = ("png", "svg")
    for name, figure in figures.items():
        if figure is None:
            for kind in kinds:
                (folder / f"{name}.{kind}").unlink(missing_ok=True)
            continue
        for kind, content in files_of(figure, kinds, salt=name).items():
            paths.append(folder / f"{name}.{kind}")
            write_atomic(paths[-1], content)
    return paths


def rate_distortion(
    results: Results,
    summary: pd.DataFrame,
    metrics: Sequence[MetricInfo] | None = None,
) -> Figure:
    """One panel per metric, one curve per codec; bars are intervals, hollow points are declared rates or
    interpolated values.

    A condition without a rate (a control, a folder without a declared one) is a horizontal line if it is near
    the curves; otherwise the panel's corner names it.
    """
    metrics = results.metrics if metrics is None else metrics
    columns = min(len(metrics), _PANELS_PER_ROW)
    rows = math.ceil(len(metrics) / columns)
    width, height = _PANEL_INCHES
    figure = new_figure(max(columns * width, 5), rows * height + 1.0)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    styles = _styles(summary)
    for axes, metric in zip(panels, metrics, strict=False):
        _draw(axes, summary, metric, styles)
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    data = results.dataset
    per_condition = summary["n"]
    n = (
        f"{per_condition.min()}"
        if per_condition.nunique() == 1
        else f"{per_condition.min()}–{per_condition.max()}"
    )
    title = f"{data.name}: n = {n} clips of {data.n_recordings} recordings, bars: 95% intervals"
    note = textwrap.fill(disclaimer(results), width=int(figure.get_figwidth() * 12))
    figure.suptitle(f"{title}\n{note}".strip(), fontsize="medium", parse_math=False)
    add_legend(figure, panels, ncols=4)
    return figure


def perplexity(results: Results) -> Figure:
    """Perplexity of every codebook: a panel per codec, a line per rate; dotted lines: sizes of codebooks."""
    points = with_codebooks(results)
    codecs = list(dict.fromkeys(point.codes.codec for point in points))
    columns = min(len(codecs), _PANELS_PER_ROW)
    rows = math.ceil(len(codecs) / columns)
    width, height = _PANEL_INCHES
    figure = new_figure(max(columns * width, 4.5), rows * height + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, codec in zip(panels, codecs, strict=False):
        _draw_codebooks(axes, codec, [point for point in points if point.codes.codec == codec])
    for axes in panels[len(codecs) :]:
        axes.set_visible(False)
    books = [book for point in points for book in point.codes.codebooks]
    panels[0].set_ylim(0, 1.1 * max(max(book.size, book.perplexity) for book in books))
    note = textwrap.fill(disclaimer(results), width=int(figure.get_figwidth() * 12))
    title = f"{results.dataset.name}: perplexity 2^H of each codebook"
    figure.suptitle(f"{title}\n{note}".strip(), fontsize="medium", parse_math=False)
    return figure


def _draw_codebooks(axes: Axes, codec: str, points: Sequence[CodedPoint]) -> None:
    """Draw lines that darken with the measured rate. Lower rates are on top: they are often prefixes."""
    import matplotlib

    entries = [point.codes for point in points]
    colours = matplotlib.colormaps[_RATE_COLOURS](np.linspace(0.85, 0.0, len(points)))
    for index, (entry, kbps, _) in enumerate(points):
        values = [book.perplexity for book in entry.codebooks]
        size = 4 + 5 * index / max(1, len(points) - 1)
        style: dict[str, Any] = {"marker": MARKERS[index % len(MARKERS)], "markersize": size}
        style |= {"color": colours[index], "linewidth": 1 + size / 6, "zorder": 3 - index / len(points)}
        axes.plot(range(1, len(values) + 1), values, label=measured_heading([kbps]), **style)
    for size in sorted({book.size for entry in entries for book in entry.codebooks}):
        axes.axhline(size, color="0.45", linestyle=":", linewidth=1)
        axes.annotate(
            *(f"{size} entries", (0.02, size)),
            xycoords=("axes fraction", "data"),
            fontsize="x-small",
            color="0.35",
            va="bottom",
        )
    most = max(len(entry.codebooks) for entry in entries)
    axes.set_xticks(range(1, most + 1, max(1, most // 8)))
    axes.set_xlim(0.5, most + 0.5)
    frames = sorted({entry.frames for entry in entries})
    number = f"{frames[0]}" if len(frames) == 1 else f"{frames[0]} to {frames[-1]}"
    axes.set_title(f"{codec}, {number} frames", fontsize="small", parse_math=False)
    axes.set_xlabel("codebook")
    axes.set_ylabel("perplexity ↑")
    axes.grid(True, color="0.9")
    axes.set_axisbelow(True)
    axes.legend(fontsize="x-small", loc="best", framealpha=0.8)


def _styles(summary: pd.DataFrame) -> dict[str, dict[str, str]]:
    codecs = list(dict.fromkeys(summary.loc[~summary["control"].astype(bool), "codec"]))
    lines = [_LINES[index // len(CODEC_COLOURS) % len(_LINES)] for index in range(len(codecs))]
    return {codec: codec_style(i) | {"linestyle": lines[i]} for i, codec in enumerate(codecs)}


def _draw(axes: Axes, summary: pd.DataFrame, metric: MetricInfo, styles: dict[str, dict[str, str]]) -> None:
    remarks = []
    on_axis = ~summary["control"].astype(bool) & summary["kbps_measured"].notna()
    for codec, style in styles.items():
        rows = summary[on_axis & (summary["codec"] == codec)].sort_values("kbps_measured")
        missing = rows[rows[metric.name].isna()]
        remarks += [f"{row_label(codec, kbps)}: no finite mean" for kbps in missing["kbps"]]
        rows = rows.dropna(subset=[metric.name])
        if len(rows):
            _draw_curve(axes, rows, metric.name, codec, style)
    ticks = sorted(summary.loc[on_axis, "kbps"].dropna().unique())
    rate_axis(axes, ticks)
    if not ticks:
        axes.set_xlim(1, 2)
    remarks += _draw_levels(axes, summary[~on_axis], metric)
    axes.set_ylabel(heading(metric))
    axes.grid(True, color="0.9")
    axes.set_axisbelow(True)
    if remarks:
        axes.set_title("\n".join(remarks), fontsize="x-small", loc="left", color="0.35")


def _draw_curve(axes: Axes, rows: pd.DataFrame, name: str, codec: str, style: dict[str, str]) -> None:
    x, y = rows["kbps_measured"].to_numpy(), rows[name].to_numpy()
    low, high = rows[f"{name}_ci_low"].to_numpy(), rows[f"{name}_ci_high"].to_numpy()
    bars = np.nan_to_num(np.stack([y - low, high - y]))
    colour, marker = style["color"], style["marker"]
    line: dict[str, Any] = {"color": colour, "linestyle": style["linestyle"], "linewidth": 1.5}
    axes.errorbar(x, y, bars, capsize=3, elinewidth=1, **line)
    kinds = {
        "measured": codec,
        "declared": f"{codec} (declared rate)",
        "interpolated": f"{codec} (interpolated)",
    }
    for kind, label in kinds.items():
        chosen = (rows["rate_is"] == kind).to_numpy()
        if chosen.any():
            face = colour if kind == "measured" else "white"
            axes.plot(x[chosen], y[chosen], marker, color=colour, markerfacecolor=face)
            axes.plot([], [], marker=marker, markerfacecolor=face, label=label, **line)


def _draw_levels(axes: Axes, rows: pd.DataFrame, metric: MetricInfo) -> list[str]:
    """Draw horizontal lines for conditions without a rate; return remarks on those that do not fit."""
    remarks = []
    drawn = bool(axes.has_data())
    low, high = axes.get_ylim()
    room = (high - low) / 2
    for index, (_, row) in enumerate(rows.iterrows()):
        value = row[metric.name]
        if math.isnan(value):
            infinite = row["n"] > 0 and row[f"{metric.name}_inf"] == row["n"]
            remarks.append(f"{row['codec']}: {'infinite' if infinite else 'no finite mean'}")
        elif drawn and not low - room <= value <= high + room:
            remarks.append(f"{row['codec']}: {value:.4g}, off the scale")
        else:
            line = axes.axhline(value, color="0.45", linestyle=_LINES[1:][index % 3], linewidth=1)
            line.set_label(row["codec"])
    return remarks
