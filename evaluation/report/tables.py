"""What every form of the table shares: its cells and how numbers are written, and the notes under it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from evaluation.records import MetricInfo
from evaluation.results import Results
from evaluation.statistics.recordings import (
    MAX_RATE_DEVIATION,
    MAX_RATE_SPREAD,
    asked_rates,
    condition_rows,
    rate_spread,
)

MISSING = "–"
BOLD = "Bold: the best mean at that rate, of codecs that keep to it"
#: Failure reasons shown under a table; the rest stand in clips.csv.
MAX_REASONS = 5
#: Seconds. A codec has one delay; it is doubtful if fewer than half of the clips find it to within this.
DELAY_AGREEMENT_S = 0.001


@dataclass(frozen=True)
class Cell:
    """One cell: its text, an interval that may stand beside or below it; the best value; a warning."""

    text: str
    interval: str = ""
    best: bool = False
    warn: bool = False


@dataclass(frozen=True)
class Group:
    """Rows under one heading ("16 kbps")."""

    heading: str
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Table:
    """Headings and cells as text. The first two columns (codec, measured kbps) identify a row."""

    headings: list[str]
    groups: list[Group]


def kbps_text(kbps: float) -> str:
    """A measured rate with two decimals, one from 100 kbit/s on."""
    return MISSING if math.isnan(kbps) else f"{kbps:.2f}" if kbps < 100 else f"{kbps:.1f}"


def percent(ratio: float) -> str:
    """ "5.4%", "20%"."""
    return f"{100 * ratio:.0f}%" if ratio >= 0.0995 else f"{100 * ratio:.1f}%".replace(".0%", "%")


def row_label(codec: str, kbps: float | None) -> str:
    """ "opus at 16 kbps"; the codec alone where no rate was asked for."""
    return codec if kbps is None or math.isnan(kbps) else f"{codec} at {kbps:g} kbps"


def heading(metric: MetricInfo) -> str:
    """ "SI-SDR (dB) ↑"."""
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.label}{unit} {'↑' if metric.higher_is_better else '↓'}"


def decimals(means: pd.Series, widths: pd.Series) -> int:
    """Decimals of a column: two significant digits of a typical interval, from two to five decimals.

    Without intervals: three significant digits of the largest mean.
    """
    wide = widths[np.isfinite(widths) & (widths > 0)]
    if len(wide):
        return int(np.clip(1 - math.floor(math.log10(wide.median())), 2, 5))
    sizes = means[np.isfinite(means) & (means != 0)].abs()
    return int(np.clip(2 - math.floor(math.log10(sizes.max())), 2, 5)) if len(sizes) else 2


def build_table(results: Results, summary: pd.DataFrame) -> Table:
    """The summary as text: controls, then asked rates in ascending order, then what has no rate.

    Without the metrics of embeddings (`evaluation.report.more_tables`). The best value of a metric is marked
    within each asked rate, where two codecs or more have one.
    """
    metrics = [metric for metric in results.metrics if not metric.embedding]
    optional = []
    asked, nominal = summary["kbps"], summary["kbps_nominal"]
    if (np.abs(nominal / asked - 1) > 0.005).any():
        optional.append(("nominal", "kbps_nominal"))
    if summary["kbps_entropy"].notna().any():
        optional.append(("entropy", "kbps_entropy"))
    speeds = [("enc ×RT", "encode_rt"), ("dec ×RT", "decode_rt")]
    codecs = summary[~summary["control"].astype(bool)]
    places = {
        m.name: decimals(codecs[m.name], codecs[f"{m.name}_ci_high"] - codecs[f"{m.name}_ci_low"])
        for m in metrics
    }
    groups = []
    for title, rows in grouped(results, summary):
        best = {m.name: best_rows(rows, m) for m in metrics}
        lines = []
        for index, row in rows.iterrows():
            cells = [Cell(row["codec"]), rate_cell(row)]
            cells += [metric_cell(results, row, m, places[m.name], index in best[m.name]) for m in metrics]
            cells += [Cell(str(row["n"])), Cell(str(row["n_failed"]), warn=row["n_failed"] > 0)]
            cells += [Cell(kbps_text(row[name])) for _, name in optional]
            cells += [Cell(_speed_text(row[name])) for _, name in speeds]
            lines.append(cells)
        groups.append(Group(title, lines))
    headings = ["codec", "kbps", *(heading(metric) for metric in metrics), "n", "failed"]
    return Table(headings + [title for title, _ in [*optional, *speeds]], groups)


def grouped(results: Results, summary: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows of the summary under their headings: controls, asked rates, what has no rate."""
    control = summary["control"].astype(bool)
    groups = [("controls", summary[control])]
    for kbps in asked_rates(results):
        if kbps is None:
            groups.append(("no rate asked", summary[~control & summary["kbps"].isna()]))
        else:
            groups.append((f"{kbps:g} kbps", summary[~control & (summary["kbps"] == kbps)]))
    return [(title, rows) for title, rows in groups if len(rows)]


def best_rows(rows: pd.DataFrame, metric: MetricInfo) -> set[object]:
    """Index of the rows with the best value, where two codecs or more have one.

    Controls do not compete, nor does a codec too far off the asked rate, the ones with ⚠: it has spent more
    bits than the others, or fewer.
    """
    competing = ~rows["control"].astype(bool) & ~rows["rate_off"].astype(bool)
    values = rows.loc[competing, metric.name].dropna()
    if len(values) < 2:
        return set()
    return set(values.index[values == (values.max() if metric.higher_is_better else values.min())])


def rate_cell(row: pd.Series) -> Cell:
    """The measured rate, marked where it is far off the asked one or only declared."""
    mark = ("⚠ " if row["rate_off"] else "") + ("† " if row["rate_is"] == "declared" else "")
    return Cell(mark + kbps_text(row["kbps_measured"]), warn=row["rate_off"])


def metric_cell(results: Results, row: pd.Series, metric: MetricInfo, places: int, best: bool) -> Cell:
    """A value with its interval; infinity where all values are infinite."""
    mean, low, high = (row[metric.name + end] for end in ("", "_ci_low", "_ci_high"))
    if math.isnan(mean):
        if not metric.per_clip:
            return Cell(MISSING)
        scored = condition_rows(results, row["codec"], row["kbps"])
        values = scored.loc[scored["error"].isna(), metric.name].astype(float)
        all_same = len(values) > 0 and np.isinf(values).all() and values.nunique() == 1
        return Cell(f"{values.iloc[0]:g}" if all_same else MISSING)
    if row["control"]:  # often near zero or far above the codecs
        places = max(places, decimals(pd.Series([mean]), pd.Series([high - low])))
    interval = "" if math.isnan(low) else f"[{low:.{places}f}, {high:.{places}f}]"
    return Cell(f"{mean:.{places}f}", interval, best)


def _speed_text(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.0f}" if value >= 10 else f"{value:.2g}"


# Notes


def disclaimer(results: Results) -> str:
    """The line that every table of this data set must carry; "" if there is none."""
    return str(results.dataset.get("disclaimer") or "")


def notes(results: Results, summary: pd.DataFrame) -> list[str]:
    """What a reader of the table must know, one line each."""
    lines = [_data_line(results, summary)]
    if disclaimer(results):
        lines.append(disclaimer(results))
    if results.n_pending:
        lines.append(
            f"Unfinished: {results.n_pending} results of clips are still missing; the same command goes on"
        )
    lines += [f"Left out, cannot run here: {label}: {why}" for label, why in results.skipped.items()]
    lines += _random_weights_lines(results)
    lines += [f"Data: {note}" for note in results.dataset.get("notes", [])]
    lines += _reference_lines(results)
    lines += _rate_lines(summary)
    lines += _delay_lines(results, summary)
    for metric in results.clip_metrics:
        lines += _value_lines(results, summary, metric)
    lines += _failure_lines(results)
    lines += [_definition_line(metric) for metric in results.metrics if not metric.embedding]
    return lines


def _data_line(results: Results, summary: pd.DataFrame) -> str:
    data = results.dataset
    line = f"Data: {data['name']}, {_count(data['n_clips'], 'clip')} of "
    line += _count(data["n_recordings"], "recording")
    if data.get("n_excluded"):
        line += f", {data['n_excluded']} excluded"
    recordings = summary.loc[summary["n"] > 0, "n_recordings"]
    if len(recordings) == 0:
        return f"{line}; nothing could be scored"
    if recordings.max() < 2:
        return f"{line}; no intervals: one recording only"
    low, high = recordings.min(), recordings.max()
    span = str(high) if low == high else f"{low} to {high}"
    line += f"; mean [95% interval over {span} recordings]"
    if summary.loc[~summary["control"].astype(bool), "n"].nunique() > 1:
        line += "; n differs: tests.csv compares codecs on the clips both have"
    return line


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _random_weights_lines(results: Results) -> list[str]:
    """Adapters say "untrained" in their version when their weights were never trained."""
    untrained = [
        condition.codec
        for condition in results.conditions
        if str(condition.identity.get("version", "")).endswith("untrained")
    ]
    if not untrained:
        return []
    return [f"RANDOM WEIGHTS, never trained: {', '.join(dict.fromkeys(untrained))}; scores mean nothing"]


def _reference_lines(results: Results) -> list[str]:
    data = results.dataset
    if not data.get("n_lossy"):
        return []
    formats = f" ({', '.join(data['lossy_formats'])})" if data.get("lossy_formats") else ""
    return [
        f"Lossy references: {data['n_lossy']} of {data['n_clips']} clips went through a lossy format{formats}"
        " before; scores say how close a codec is to that"
    ]


def _rate_lines(summary: pd.DataFrame) -> list[str]:
    lines = []
    spread = rate_spread(summary)
    parts = [
        f"{row['kbps']:g} kbps {kbps_text(row['kbps_min'])} to {kbps_text(row['kbps_max'])} "
        f"({percent(row['spread'])})"
        for _, row in spread[spread["flagged"].astype(bool)].iterrows()
    ]
    if parts:
        lines.append(
            f"Unequal rates, a spread over {percent(MAX_RATE_SPREAD)}, so scores are not at one rate: "
            f"{', '.join(parts)}"
        )
    parts = [
        f"{row_label(row['codec'], row['kbps'])} {'+' if row['rate_deviation'] > 0 else '-'}"
        f"{percent(abs(row['rate_deviation']))}"
        for _, row in summary[summary["rate_off"].astype(bool)].iterrows()
    ]
    if parts:
        lines.append(f"⚠ more than {percent(MAX_RATE_DEVIATION)} off the asked rate: {', '.join(parts)}")
    if (summary["rate_is"] == "declared").any():
        lines.append("† rate as declared: decoded elsewhere, no bitstream to measure")
    if summary["kbps_entropy"].notna().any():
        lines.append("entropy: kbps that an ideal memoryless entropy coder of the codes would need")
    return lines


def _delay_lines(results: Results, summary: pd.DataFrame) -> list[str]:
    applied = summary[summary["delay_applied"].fillna(0) != 0]
    parts = [
        f"{row_label(row['codec'], row['kbps'])} {row['delay_applied']:+.0f}" for _, row in applied.iterrows()
    ]
    lines = [f"Delay taken out before scoring, samples: {', '.join(parts)}"] if parts else []
    near = round(DELAY_AGREEMENT_S * results.settings["sample_rate"])
    doubts = []
    for _, row in applied.iterrows():
        found = condition_rows(results, row["codec"], row["kbps"])["delay_samples"].dropna().astype(float)
        agreeing = int((abs(found - row["delay_applied"]) <= near).sum())
        if 2 * agreeing < len(found):
            doubts.append(
                f"{row_label(row['codec'], row['kbps'])} {agreeing} of {len(found)} clips"
                f" (they say {found.min():+.0f} to {found.max():+.0f})"
            )
    if doubts:
        lines.append(
            f"⚠ That delay is doubtful, clips do not agree within {near} samples: {', '.join(doubts)};"
            " --no-align scores without it"
        )
    return lines


def _value_lines(results: Results, summary: pd.DataFrame, metric: MetricInfo) -> list[str]:
    """Infinite values and values that are not a number."""
    lines = []
    infinite = summary[summary[f"{metric.name}_inf"] > 0]
    if len(infinite):
        parts = [
            f"{row_label(row['codec'], row['kbps'])} {row[f'{metric.name}_inf']} of {row['n']}"
            for _, row in infinite.iterrows()
        ]
        lines.append(f"{metric.label} infinite, left out of the mean: {', '.join(parts)}")
    scored = results.clips[results.clips["error"].isna()]
    unknown = scored[scored[metric.name].isna()]
    reasons = Counter(str(reason) for reason in unknown[f"{metric.name}_reason"])
    lines += [f"{metric.label} not a number: {part}" for part in _top(reasons, "clips.csv")]
    fewer = summary[summary[f"{metric.name}_n"] + summary[f"{metric.name}_inf"] < summary["n"]]
    if len(fewer):
        parts = [
            f"{row_label(row['codec'], row['kbps'])} {row[f'{metric.name}_n']} of {row['n']}"
            for _, row in fewer.iterrows()
        ]
        lines.append(f"{metric.label} is the mean of fewer clips than n: {', '.join(parts)}")
    return lines


def _failure_lines(results: Results) -> list[str]:
    failed = results.clips[results.clips["error"].notna()]
    reasons = Counter(
        f"{codec}: {error}" for codec, error in zip(failed["codec"], failed["error"], strict=True)
    )
    return [f"Failed: {part}" for part in _top(reasons, "clips.csv, column error")]


def _top(reasons: Counter[str], where: str) -> list[str]:
    """The most frequent reasons, and where the others are."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"{reason} ({count}×)" for reason, count in ordered[:MAX_REASONS]]
    if len(ordered) > MAX_REASONS:
        lines.append(f"{len(ordered) - MAX_REASONS} more reasons: see {where}")
    return lines


def _definition_line(metric: MetricInfo) -> str:
    better = "higher" if metric.higher_is_better else "lower"
    return f"{metric.label}, version {metric.version}, {better} is better: {metric.definition}"
