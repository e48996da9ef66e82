"""The figures of the report as lists of panels: curves over bitrate, speed, perplexity, distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from markupsafe import Markup

from evaluation.records import MetricInfo
from evaluation.report.cells import heading, kbps_text, measured_heading, rate_heading, row_label
from evaluation.report.html.svg import NUM_COLOURS, Panel, finite_range, number, shape
from evaluation.report.tables import CodedPoint, with_codebooks
from evaluation.results import Results
from evaluation.statistics.recordings import asked_rates, condition_rows

#: Points of a distribution's curve; more would not be visible.
_MAX_POINTS = 200


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    label: str
    colour: int
    shape: str
    dashed: bool

    @classmethod
    def of(cls, label: str, index: int) -> Key:
        return cls(label, index % NUM_COLOURS, shape(index), bool(index // NUM_COLOURS % 2))


@dataclass(frozen=True)
class Figure:
    """A panel, remarks below it, and its legend if it differs from that of the report."""

    svg: Markup
    remarks: list[str]
    keys: list[Key] = field(default_factory=list)


def codec_colours(results: Results) -> dict[str, int]:
    """Codec under test -> number of its colour, the same in all figures."""
    tested = dict.fromkeys(c.codec for c in results.conditions if not c.control)
    return {codec: index for index, codec in enumerate(tested)}


def legend(results: Results) -> list[Key]:
    return [Key.of(codec, index) for codec, index in codec_colours(results).items()]


def value_text(row: pd.Series, metric: MetricInfo) -> str:
    """ "SI-SDR 7.31 dB [6.92, 7.70], n = 100, 1 failed"."""
    low, high = row[f"{metric.name}_ci_low"], row[f"{metric.name}_ci_high"]
    interval = "no interval" if math.isnan(low) else f"[{low:.4g}, {high:.4g}]"
    unit = f" {metric.unit}" if metric.unit else ""
    text = f"{metric.label} {row[metric.name]:.4g}{unit} {interval}, n = {row[f'{metric.name}_n']}"
    infinite = f", {row[f'{metric.name}_inf']} infinite" if row[f"{metric.name}_inf"] else ""
    return f"{text}{infinite}, {row['n_failed']} failed"


def rate_distortion(
    results: Results, everything: pd.DataFrame, metrics: Sequence[MetricInfo]
) -> list[Figure]:
    """A panel per metric of ``metrics`` over the measured rate.

    Args:
        everything: the summary, with the noise floor (`evaluation.report.tables.with_noise_floor`).
    """
    colours = codec_colours(results)
    on_axis = ~everything["control"].astype(bool) & everything["kbps_measured"].notna()
    curves, levels = everything[on_axis], everything[~on_axis]
    asked = sorted(curves["kbps"].dropna().unique())
    rates = finite_range([*curves["kbps_measured"], *asked]) or (1.0, 2.0)
    return [_rate_panel(metric, curves, levels, rates, asked, colours) for metric in metrics]


def _rate_panel(
    metric: MetricInfo,
    curves: pd.DataFrame,
    levels: pd.DataFrame,
    rates: tuple[float, float],
    asked: list[float],
    colours: dict[str, int],
) -> Figure:
    name = metric.name
    values = [*curves[name], *curves[f"{name}_ci_low"], *curves[f"{name}_ci_high"]]
    near = finite_range(values)
    if near is not None:  # a level near the curves widens the axis; one far off is in the remarks
        room = (near[1] - near[0]) / 2
        values += [v for v in levels[name] if near[0] - room <= v <= near[1] + room]
    span = finite_range(values) or finite_range(levels[name].to_list())
    remarks = [
        f"{row_label(row['codec'], row['kbps'])}: {row[f'{name}_reason'] or 'no finite mean'}"
        for _, row in curves.iterrows()
        if math.isnan(row[name])
    ]
    panel = Panel(
        heading(metric),
        rates,
        span or (0.0, 1.0),
        x_label="measured kbps",
        x_ticks=[(rate, f"{rate:g}") for rate in asked],
        x_log=True,
    )
    for codec, colour in colours.items():
        rows = curves[(curves["codec"] == codec) & curves[name].notna()].sort_values("kbps_measured")
        if len(rows):
            panel.line(list(zip(rows["kbps_measured"], rows[name], strict=True)), colour, title=codec)
        for _, row in rows.iterrows():
            if not math.isnan(row[f"{name}_ci_low"]):
                panel.bar(row["kbps_measured"], row[f"{name}_ci_low"], row[f"{name}_ci_high"], colour)
            kind = {"declared": "declared", "interpolated": "interpolated at"}.get(row["rate_is"], "measured")
            rate = f"{kind} {kbps_text(row['kbps_measured'])} kbps"
            title = f"{row_label(codec, row['kbps'])}, {rate}: {value_text(row, metric)}"
            panel.marker(row["kbps_measured"], row[name], colour, title, hollow=kind != "measured")
    for _, row in levels.iterrows():
        floor = row["rate_is"] == "noise floor"
        if floor and not metric.embedding:
            continue
        label = f"noise floor, {row['codec']}" if floor else row["codec"]
        if math.isnan(row[name]):
            remarks.append(f"{label}: {row[f'{name}_reason'] or 'no finite mean'}")
            continue
        shown = panel.shows(row[name])
        if shown:
            panel.level(row[name], f"{label}: {value_text(row, metric)}")
        remarks.append(
            f"{'– –' if shown else 'off the scale,'} {label}: {row[name]:.3g}, n = {row[f'{name}_n']}"
        )
    return Figure(panel.render(f"{metric.label} of every codec over its measured bitrate"), remarks)


def perplexity(results: Results) -> list[Figure]:
    """Perplexity of every codebook, a curve per codec; no panel without codes.

    There is a panel per asked rate and per further operating point. Measured rates order the panels and are
    their titles, because nobody asked for the nominal rate of an operating point.
    """
    colours = codec_colours(results)
    panels: dict[object, list[CodedPoint]] = {}
    for point in sorted(with_codebooks(results), key=lambda point: point.kbps):
        same = point.codes.kbps if point.is_row else (point.codes.codec, point.codes.kbps)
        panels.setdefault(same, []).append(point)
    return [_perplexity(points, colours) for points in panels.values()]


def _perplexity(points: list[CodedPoint], colours: dict[str, int]) -> Figure:
    entries = [point.codes for point in points]
    most = max(len(entry.codebooks) for entry in entries)
    sizes = sorted({book.size for entry in entries for book in entry.codebooks})
    highest = max(book.perplexity for entry in entries for book in entry.codebooks)
    panel = Panel(
        measured_heading([point.kbps for point in points]),
        (1, max(most, 2)),
        (0.0, float(max(highest, sizes[0]))),
        x_label="codebook",
        x_ticks=[(book, str(book)) for book in range(1, most + 1, max(1, most // 8))],
    )
    shown = [size for size in sizes if panel.shows(size)]
    for size in shown:
        panel.level(size, f"{size} entries: the highest perplexity of such a codebook")
    keys = []
    for entry, kbps, _ in points:
        rate = f"{kbps_text(kbps)} kbps"
        codec, values = entry.codec, [book.perplexity for book in entry.codebooks]
        colour = colours.get(codec, len(colours))
        panel.line(list(enumerate(values, 1)), colour, title=codec)
        for book, value in enumerate(values, 1):
            title = f"{codec}, {rate}, codebook {book}: {value:.1f}, {entry.frames} frames"
            panel.marker(book, value, colour, title)
        keys.append(Key.of(f"{codec}, {rate}: {len(values)} codebooks, {entry.frames} frames", colour))
    remarks = [f"– – {size} entries" for size in shown]
    return Figure(panel.render(f"Perplexity of each codebook, {panel.title}"), remarks, keys)


def distributions(results: Results) -> list[tuple[str, list[Figure]]]:
    """(heading, a panel per asked rate) of each metric: share of clips whose value is at most x, per codec.

    Infinite values count, so a curve with some ends below 1 or starts above 0.
    """
    colours = codec_colours(results)
    parts = []
    for metric in results.clip_metrics:
        values = results.clips.loc[results.clips["codec"].isin(colours), metric.name].astype(float)
        span = finite_range(values.to_list())
        if span is not None:
            figures = [_distribution(results, metric, kbps, span, colours) for kbps in asked_rates(results)]
            parts.append((heading(metric), figures))
    return parts


def _distribution(
    results: Results,
    metric: MetricInfo,
    kbps: float | None,
    span: tuple[float, float],
    colours: dict[str, int],
) -> Figure:
    rate = rate_heading(kbps)
    unit = f" ({metric.unit})" if metric.unit else ""
    panel = Panel(rate, span, (0.0, 1.0), x_label=f"{metric.label}{unit}")
    counts: dict[str, str] = {}
    for codec, colour in colours.items():
        rows = condition_rows(results, codec, kbps)
        if rows.empty:
            continue
        values = np.sort(rows.loc[rows["error"].isna(), metric.name].dropna().to_numpy(dtype=float))
        infinite = int(np.isinf(values).sum())
        failed = int(rows["error"].notna().sum())
        parts = [f"n = {len(values)}", f"{infinite} infinite" if infinite else "", f"{failed} failed"]
        counts[codec] = ", ".join(filter(None, parts))
        if len(values) and infinite < len(values):
            panel.line(_steps(values, span), colour, title=f"{codec}: {counts[codec]}")
    remarks = [f"{codec}: {text}" for codec, text in counts.items()]
    if len(counts) > 1 and len(set(counts.values())) == 1:
        remarks = [f"each codec: {next(iter(counts.values()))}"]
    return Figure(panel.render(f"Distribution of {metric.label} over clips, {rate}"), remarks)


def _steps(values: np.ndarray, span: tuple[float, float]) -> list[tuple[float, float]]:
    """The empirical distribution function of sorted values as steps; of many values, at quantiles."""
    shares = np.arange(1, len(values) + 1) / len(values)
    if len(values) > _MAX_POINTS:
        chosen = np.unique(np.linspace(0, len(values) - 1, _MAX_POINTS).round().astype(int))
        values, shares = values[chosen], shares[chosen]
    level = float((values == -math.inf).mean())
    points = [(span[0], level)]
    for value, share in zip(values, shares, strict=True):
        if math.isfinite(value):
            points += [(float(value), level), (float(value), float(share))]
            level = float(share)
    return [*points, (span[1], level)]


@dataclass(frozen=True)
class Bar:
    """Speed of one condition; ``width`` is in percent of the chart, on a logarithmic scale."""

    label: str
    text: str
    width: float
    colour: int


def speed(results: Results, summary: pd.DataFrame) -> list[tuple[str, list[Bar]]]:
    """(title, a bar per condition) of encoding and decoding, in seconds of audio per second of work."""
    colours = codec_colours(results)
    values = summary[["encode_rt", "decode_rt"]].to_numpy(dtype=float).ravel()
    span = finite_range(values[values > 0].tolist())
    if span is None:
        return []
    low, high = min(span[0], 1.0), max(span[1], 1.0)
    charts = []
    for title, column in (("Encoding", "encode_rt"), ("Decoding", "decode_rt")):
        bars = []
        for _, row in summary[summary[column] > 0].iterrows():
            share = math.log(row[column] / low) / math.log(high / low) if high > low else 1.0
            text = f"{number(float(f'{row[column]:.3g}'))} × real time, n = {row['n']}"
            label = row_label(row["codec"], row["kbps"])
            colour = colours[row["codec"]] % NUM_COLOURS if row["codec"] in colours else NUM_COLOURS
            bars.append(Bar(label, text, round(4 + 96 * share, 1), colour))
        charts.append((title, bars))
    return charts
