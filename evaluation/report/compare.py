"""Two runs side by side: differences in their settings, and in the scores of their common clips."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np
import pandas as pd

from evaluation.records import Condition, MetricInfo
from evaluation.report.cells import MISSING, Cell, Section, Table, decimals, heading, row_label
from evaluation.report.notes import Note
from evaluation.report.tables import disclaimer
from evaluation.report.terminal import Report, print_wide
from evaluation.results import Results
from evaluation.statistics.distances import find_score, paired_difference
from evaluation.statistics.recordings import (
    PAIR_COLUMNS,
    Sample,
    asked_rate,
    bootstrap_means,
    common_places,
    condition_places,
    name_numbers,
    row_numbers,
)
from qincodec.core.errors import UserError

#: Settings that must be equal, because a clip's score depends on them.
_SETTINGS_OF_SCORES = ("sample_rate", "channels", "align")
_COLUMNS = [*PAIR_COLUMNS, "n_clips", "n_recordings", "mean_a", "mean_b", "difference"]
_COLUMNS += ["ci_low", "ci_high", "better", "reason"]


@dataclass(frozen=True)
class Comparison:
    """Run B minus run A.

    Attributes:
        table: a row per metric and condition that both runs have, ``metric, kbps, codec_a, codec_b,
            kbps_measured_a, kbps_measured_b, n_clips, n_recordings, mean_a, mean_b, difference, ci_low,
            ci_high, better, reason``. Means and ``difference`` (b - a) are over the ``n_clips`` clips with
            a finite value in both, the interval is over their recordings; a distance between distributions
            has a difference only where both runs have it for the same clips. ``better`` is "a", "b", "n.s."
            if the interval contains 0, or "" without an interval; then ``reason`` says why.
        remarks: disclaimers, then a note for each difference between the runs.
        metrics: metrics that both runs have.
    """

    table: pd.DataFrame
    remarks: list[Note]
    metrics: list[MetricInfo]


def compare_runs(a: Results, b: Results, *, num_resamples: int = 10_000) -> Comparison:
    """Compare two runs on the clips that both have scored.

    Clips are the same if id, recording, duration and ``content_hash`` are. Conditions are the same if codec
    and asked rate are. If exactly one codec of each run has no namesake in the other, these two are compared
    with each other. The seed is that of run A.

    Raises:
        UserError: a metric's version or a setting that decides scores differs, or the runs have no
            metric, condition or clip in common.
    """
    _refuse_other_settings(a, b)
    metrics = _common_metrics(a, b)
    pairs = _pair_conditions(a, b)
    common = _common_rows(a, b, pairs)
    recordings = name_numbers(a.clips["recording"])
    measured = [
        {(row["codec"], asked_rate(row["kbps"])): row["kbps_measured"] for _, row in run.summary.iterrows()}
        for run in (a, b)
    ]
    rows: list[dict[str, Any]] = []
    sampled = []
    samples = []
    for metric in metrics:
        for (one, other), (here, there) in zip(pairs, common, strict=True):
            rates = measured[0][one.codec, one.kbps], measured[1][other.codec, other.kbps]
            asked = math.nan if one.kbps is None else one.kbps
            pair = (metric.name, asked, one.codec, other.codec, *rates)
            row: dict[str, Any] = dict(zip(PAIR_COLUMNS, pair, strict=True))
            rows.append(row)
            if not metric.per_clip:
                first = find_score(a, metric.name, one.codec, one.kbps)
                second = find_score(b, metric.name, other.codec, other.kbps)
                row.update(paired_difference(second, first), mean_a=first.value, mean_b=second.value)
                continue
            values_a, values_b = (
                run.clips[metric.name].iloc[places].to_numpy(dtype=float)
                for run, places in ((a, here), (b, there))
            )
            known = np.isfinite(values_a) & np.isfinite(values_b)
            values_a, values_b = values_a[known], values_b[known]
            samples.append(Sample(recordings[here][known], values_b - values_a))
            means = (float(values.mean()) if len(values) else math.nan for values in (values_a, values_b))
            row.update(zip(("mean_a", "mean_b"), means, strict=True), reason="")
            sampled.append(row)
    if samples and not any(len(sample.values) for sample in samples):
        raise UserError(
            f"no clip has a finite score in both runs: they hold {_data(a)} and {_data(b)}; compare runs on "
            "the same data"
        )
    seed = a.settings.seed
    estimates = bootstrap_means(samples, seed=seed, num_resamples=num_resamples)
    directions = {metric.name: metric.higher_is_better for metric in metrics}
    for row, estimate in zip(sampled, estimates, strict=True):
        row.update(n_clips=estimate.n, n_recordings=estimate.n_recordings, difference=estimate.mean)
        row.update(ci_low=estimate.low, ci_high=estimate.high)
    for row in rows:
        row["better"], row["reason"] = _better(row, directions[row["metric"]])
    remarks = list(dict.fromkeys(_remarks(a, b, pairs)))
    for metric in metrics:
        remarks += [
            Note(
                "values",
                f"{metric.label} has no difference or interval, "
                f"{row_label(row['codec_a'], row['kbps'])}: {row['reason']}",
            )
            for row in rows
            if row["metric"] == metric.name and row["reason"]
        ]
    return Comparison(pd.DataFrame(rows, columns=_COLUMNS), remarks, metrics)


def _refuse_other_settings(a: Results, b: Results) -> None:
    for name in _SETTINGS_OF_SCORES:
        first, second = getattr(a.settings, name), getattr(b.settings, name)
        if first != second:
            raise UserError(
                f"the runs cannot be compared: {name} is {first} in the first and {second} in the second; "
                "evaluate one of them again with the other's setting"
            )


def _common_metrics(a: Results, b: Results) -> list[MetricInfo]:
    others = {metric.name: metric for metric in b.metrics}
    common = [metric for metric in a.metrics if metric.name in others]
    if not common:
        names = [", ".join(metric.name for metric in run.metrics) for run in (a, b)]
        raise UserError(
            f"the runs have no metric in common: {names[0]} and {names[1]}; evaluate one of them again "
            "with a --metrics that the other has"
        )
    for metric in common:
        if others[metric.name].version != metric.version:
            raise UserError(
                f"the runs cannot be compared: {metric.name} has version {metric.version} in the first and "
                f"{others[metric.name].version} in the second, which define it differently; evaluate the "
                "older one again"
            )
    return common


def _pair_conditions(a: Results, b: Results) -> list[tuple[Condition, Condition]]:
    names_a, names_b = ({condition.codec for condition in run.conditions} for run in (a, b))
    only_a = {c.codec for c in a.conditions if not c.control} - names_b
    only_b = {c.codec for c in b.conditions if not c.control} - names_a
    renamed = {next(iter(only_a)): next(iter(only_b))} if len(only_a) == len(only_b) == 1 else {}
    others = {(condition.codec, condition.kbps): condition for condition in b.conditions}
    pairs = [
        (condition, others[key])
        for condition in a.conditions
        if (key := (renamed.get(condition.codec, condition.codec), condition.kbps)) in others
    ]
    if not pairs:
        had = [", ".join(row_label(c.codec, c.kbps) for c in run.conditions) for run in (a, b)]
        raise UserError(
            f"the runs have no condition in common: the first has {had[0]}, the second {had[1]}; compare "
            "runs of the same codecs and rates"
        )
    return pairs


def _common_rows(
    a: Results, b: Results, pairs: list[tuple[Condition, Condition]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of the two runs with the same clips, for each pair of conditions."""
    numbers = row_numbers([a.clips, b.clips], ["clip", "recording", "duration_s", "content_hash"])
    found = []
    for pair in pairs:
        places = [
            np.arange(len(run.clips))[condition_places(run.clips, condition.codec, condition.kbps)]
            for run, condition in zip((a, b), pair, strict=True)
        ]
        common = common_places(*(own[where] for own, where in zip(numbers, places, strict=True)))
        found.append((places[0][common[0]], places[1][common[1]]))
    return found


def _data(run: Results) -> str:
    data = run.dataset
    return f"{data.name} ({data.n_clips} clips, hash {data.hash})"


def _better(row: dict[str, Any], higher_is_better: bool) -> tuple[str, str]:
    if row["reason"] and math.isnan(row["ci_low"]):
        return "", row["reason"]
    if row["n_clips"] == 0:
        return "", "no clip has a finite value in both"
    if math.isnan(row["ci_low"]):
        return "", "one recording only: an interval needs two or more"
    if row["ci_low"] <= 0 <= row["ci_high"]:
        return "n.s.", ""
    return ("b" if (row["difference"] > 0) == higher_is_better else "a"), ""


# What differs


def _remarks(a: Results, b: Results, pairs: list[tuple[Condition, Condition]]) -> Iterator[Note]:
    yield from (Note("disclaimer", text, "warning") for run in (a, b) if (text := disclaimer(run)))
    if a.dataset.hash != b.dataset.hash:
        text = f"Data differ, only clips with the same content count: {_data(a)} | {_data(b)}"
        yield Note("data", text, "warning")
    for run, which in ((a, "first"), (b, "second")):
        if run.n_pending:
            text = f"The {which} run is unfinished: {run.n_pending} results of clips are missing"
            yield Note("unfinished", text, "warning")
    for text in _differences(asdict(a.settings), asdict(b.settings)):
        yield Note("settings", f"Settings differ: {text}")
    renamed = dict.fromkeys((one.codec, other.codec) for one, other in pairs if one.codec != other.codec)
    for first, second in renamed:  # their identities differ by intention, so those get no note
        yield Note("codec", f"{first} of the first run is compared with {second} of the second")
    for one, other in pairs:
        if one.codec != other.codec:
            continue
        for text in _differences(one.identity, other.identity):
            yield Note("codec", f"Codec differs, {one.codec}: {text}")
        points = [{**c.settings, "nominal kbps": c.nominal, "the rate is": c.rate_is} for c in (one, other)]
        name = row_label(one.codec, one.kbps)
        for text in _differences(*points):
            yield Note("rate", f"Operating point differs, {name}: {text}")
    compared = [{(pair[side].codec, pair[side].kbps) for pair in pairs} for side in (0, 1)]
    for run, matched, which in ((a, compared[0], "first"), (b, compared[1], "second")):
        alone = [row_label(c.codec, c.kbps) for c in run.conditions if (c.codec, c.kbps) not in matched]
        if alone:
            yield Note("left out", f"Only in the {which} run: {', '.join(alone)}")
    names = [{metric.name for metric in run.metrics} for run in (a, b)]
    for mine, theirs, which in ((names[0], names[1], "first"), (names[1], names[0], "second")):
        if mine - theirs:
            yield Note("left out", f"Metrics only in the {which} run: {', '.join(sorted(mine - theirs))}")


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """ "seed 0 | 1" for every entry that differs."""
    absent = object()
    return [
        f"{name} {_short(a[name]) if name in a else MISSING} | {_short(b[name]) if name in b else MISSING}"
        for name in dict.fromkeys([*a, *b])
        if a.get(name, absent) != b.get(name, absent)
    ]


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


# Rendering


def render_comparison(comparison: Comparison) -> Report:
    """The differences as something rich can print at any width, one group of rows per metric."""
    sections = []
    for metric in comparison.metrics:
        rows = comparison.table[comparison.table["metric"] == metric.name]
        places = decimals(rows["mean_a"], rows["ci_high"] - rows["ci_low"])
        cells = [_row_cells(row, f".{places}f") for _, row in rows.iterrows()]
        sections.append(Section(heading(metric), cells))
    headings = ["codec", "kbps", "n", "recordings", "first", "second", "second - first", "better"]
    lines = [
        "Means over the n clips that both runs have scored; differences with 95% intervals over recordings,"
        " not corrected for the number of rows",
        *(note.text for note in comparison.remarks),
    ]
    return Report([Table(headings, sections)], lines)


def _row_cells(row: pd.Series, form: str) -> list[Cell]:
    name = row["codec_a"] if row["codec_a"] == row["codec_b"] else f"{row['codec_a']} | {row['codec_b']}"
    return [
        Cell(name),
        Cell(row["kbps"], "g"),
        Cell(row["n_clips"]),
        Cell(row["n_recordings"]),
        Cell(row["mean_a"], form),
        Cell(row["mean_b"], form),
        Cell(row["difference"], f"+{form}", (row["ci_low"], row["ci_high"])),
        Cell({"a": "first", "b": "second", "": None}.get(row["better"], row["better"])),
    ]


def print_comparison(comparison: Comparison, file: IO[str] | None = None) -> None:
    """Print to ``file`` (stdout), as wide as the terminal or, piped, as needed."""
    print_wide(render_comparison(comparison), file)
