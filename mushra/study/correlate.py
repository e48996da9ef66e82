"""Correlations of objective metrics with listeners' scores.

Pearson's r, Spearman's rho and Kendall's tau-b of a metric with the mean score are given at two levels: over
the (item, condition) cells, and over the conditions, each averaged over its items. The hidden reference is
left out, because a metric of the reference against itself is constant or infinite. Anchors are far from
everything else and increase coefficients, so every result is given with anchors and without. Intervals come
from a bootstrap that draws listeners and items with replacement (`mushra.study.coefficients`). Conditions are
not drawn, so the intervals hold for these conditions. All coefficients, and the differences between metrics,
use the same draws. The error of a metric's prediction is also given (`mushra.study.prediction`).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.records import MetricInfo, number_to_json
from evaluation.report.cells import heading
from evaluation.report.drawing import COLOURS, MARKERS, NEUTRAL, new_figure
from mushra.analysis.figures import WIDTHS, save, style_context
from mushra.analysis.layout import codec_and_kbps, display_name
from mushra.analysis.ratings import Ratings
from mushra.store.php_csv import neutral_cell
from mushra.study.coefficients import (
    COEFFICIENTS,
    coefficient_interval,
    coefficients,
    difference_interval,
)
from mushra.study.prediction import NUM_COEFFICIENTS, predict, reach
from qincodec.core.console import Progress
from qincodec.core.errors import UserError, count
from qincodec.core.files import write_atomic

LEVELS = ("item", "condition")
#: Share of the resamples that must have a coefficient for an interval.
MIN_DEFINED = 0.9
TABLE_COLUMNS = ["metric", "level", "anchors", "n", "n_left_out"] + [
    f"{name}{end}" for name in COEFFICIENTS for end in ("", "_ci_low", "_ci_high")
]
TABLE_COLUMNS += ["reason", "ci_reason", "rmse", "outlier_ratio"]
TABLE_COLUMNS += [*(f"mapping_{power}" for power in range(NUM_COEFFICIENTS)), "mapping_reason"]
DIFFERENCE_COLUMNS = ["level", "anchors", "coefficient", "metric_a", "metric_b", "difference"]
DIFFERENCE_COLUMNS += ["ci_low", "ci_high", "better"]

# Rounding makes sums of the same scores equal in any order.
_DIGITS = 9


@dataclass(frozen=True)
class Correlations:
    """Results of `correlate`.

    Attributes:
        cells: ``item, condition, anchor, n_listeners, score`` (mean of listeners) and a column per metric.
        table: `TABLE_COLUMNS`; ``anchors`` is "with" or "without"; NaN has a reason. ``n`` points are used;
            ``n_left_out`` cells have no finite metric. ``mapping_0`` to ``mapping_3`` are the coefficients of
            the polynomial of the metric that predicts scores, lowest first.
        differences: `DIFFERENCE_COLUMNS`: differences of two metrics' coefficients, each with the sign that
            makes "predicts listeners" positive; ``better`` is a metric's name, "" if the interval has 0.
        metrics: metrics in the requested order.
        notes: notes on the settings, and what was left out.
        seed, num_resamples: of the bootstrap.
    """

    cells: pd.DataFrame
    table: pd.DataFrame
    differences: pd.DataFrame
    metrics: tuple[MetricInfo, ...]
    notes: tuple[str, ...]
    seed: int
    num_resamples: int


def correlate(
    ratings: Ratings,
    scores: pd.DataFrame,
    metrics: Sequence[MetricInfo],
    *,
    seed: int = 0,
    num_resamples: int = 2000,
    progress: Progress = lambda *_: None,
) -> Correlations:
    """Correlate metrics with ratings.

    Args:
        ratings: ratings of any number of listeners and items; some may be missing.
        scores: ``item, condition`` and a column per metric (`mushra.study.heard.score_trials`).
        metrics: their columns in ``scores``.

    Raises:
        UserError: no cell has both ratings and metrics.
    """
    notes = []
    frame = ratings.frame[ratings.frame["condition"] != ratings.reference]
    if ratings.reference in ratings.conditions:
        notes.append(f"the hidden reference ('{ratings.reference}') is left out")
    merged = frame.merge(scores[["item", "condition"]].drop_duplicates(), on=["item", "condition"])
    for column in ("item", "condition"):
        lost = sorted(set(frame[column]) - set(merged[column]))
        if lost:
            notes.append(f"{column} without audio in the test, left out: {', '.join(lost)}")
    if merged.empty:
        raise UserError(
            "the test folder has no item and condition of the ratings; give the folder of their test"
        )
    scorable = merged.pivot(index="listener", columns=["item", "condition"], values="score")
    items = [name for name in ratings.items if name in set(merged["item"])]
    conditions = [name for name in ratings.conditions if name in set(merged["condition"])]
    pairs = pd.MultiIndex.from_product([items, conditions])
    table = scorable.reindex(index=sorted(scorable.index), columns=pairs).to_numpy(dtype=float)
    given = table.reshape(len(table), len(items), len(conditions))
    by_cell = scores.set_index(["item", "condition"]).reindex(pairs)
    values = {
        metric.name: by_cell[metric.name].to_numpy(dtype=float).reshape(len(items), len(conditions))
        for metric in metrics
    }
    rows, differences = _all_coefficients(
        given, values, conditions, ratings.anchors, metrics, seed, num_resamples, progress
    )
    return Correlations(
        _cells(given, values, items, conditions, ratings.anchors),
        pd.DataFrame(rows, columns=TABLE_COLUMNS),
        pd.DataFrame(differences, columns=DIFFERENCE_COLUMNS),
        tuple(metrics),
        tuple(notes),
        seed,
        num_resamples,
    )


def _cells(
    given: np.ndarray,
    values: dict[str, np.ndarray],
    items: Sequence[str],
    conditions: Sequence[str],
    anchors: Sequence[str],
) -> pd.DataFrame:
    counts, means = _means(given, np.ones((1, len(given))))
    cells = pd.DataFrame(
        {
            "item": np.repeat(items, len(conditions)),
            "condition": np.tile(conditions, len(items)),
            "anchor": np.tile([name in anchors for name in conditions], len(items)),
            "n_listeners": counts[0].astype(int).ravel(),
            "score": means[0].ravel(),
            **{name: value.ravel() for name, value in values.items()},
        }
    )
    return cells[cells["n_listeners"] > 0].reset_index(drop=True)


def _means(given: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of weights and weighted mean of each cell, (resamples, items, conditions); NaN if nobody rated it.

    Args:
        given: (listeners, items, conditions), NaN for missing ratings.
        weights: (resamples, listeners).
    """
    rated = np.isfinite(given)
    # The last bit of sums by BLAS depends on the number of threads, so this uses einsum.
    counts = np.einsum("bl,lic->bic", weights, rated.astype(float))
    sums = np.einsum("bl,lic->bic", weights, np.where(rated, given, 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return counts, np.round(sums / counts, _DIGITS)


def _all_coefficients(
    given: np.ndarray,
    values: dict[str, np.ndarray],
    conditions: Sequence[str],
    anchors: Sequence[str],
    metrics: Sequence[MetricInfo],
    seed: int,
    num_resamples: int,
    progress: Progress,
) -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
    """Rows of both tables."""
    listeners, items = given.shape[:2]
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(listeners, np.full(listeners, 1 / listeners), size=num_resamples)
    drawn_items = np.sort(generator.integers(items, size=(num_resamples, items)), axis=1)
    resampled = _means(given, drawn.astype(float))[1]
    means = _means(given, np.ones((1, listeners)))[1][0]
    is_anchor = np.array([name in anchors for name in conditions])
    subsets = {"with": np.ones(len(conditions), dtype=bool)} if is_anchor.any() else {}
    subsets["without"] = ~is_anchor
    rows: list[dict[str, Any]] = []
    differences: list[tuple[Any, ...]] = []
    total, done = len(subsets) * len(metrics), 0
    for subset, chosen in subsets.items():
        samples: dict[tuple[str, str], np.ndarray] = {}
        points: dict[tuple[str, str], np.ndarray] = {}
        for metric in metrics:
            progress("bootstrap", done, total)
            done += 1
            x = np.where(np.isfinite(means), values[metric.name], math.nan)[:, chosen]
            fewer = min(listeners, items)
            sample = np.empty((num_resamples, len(LEVELS), len(COEFFICIENTS)))
            for index in range(num_resamples):
                order = drawn_items[index]
                y = resampled[index][order][:, chosen]
                sample[index] = [coefficients(*_points(x[order], y, level))[0] for level in LEVELS]
            for position, level in enumerate(LEVELS):
                row, point, defined = _row(
                    metric, level, subset, x, means[:, chosen], sample[:, position], fewer
                )
                row |= _prediction(metric, level, x, means[:, chosen], given[:, :, chosen])
                if fewer < 2 and not row["reason"]:
                    defined = np.full_like(defined, math.nan)
                    there = f"{count(listeners, 'listener')} and {count(items, 'item')}"
                    row["ci_reason"] = f"{there}: an interval needs 2 of each"
                    for name in COEFFICIENTS:
                        row[f"{name}_ci_low"] = row[f"{name}_ci_high"] = math.nan
                rows.append(row)
                points[metric.name, level], samples[metric.name, level] = point, defined
        differences += _differences(points, samples, metrics, subset, fewer)
    return rows, differences


def _points(x: np.ndarray, y: np.ndarray, level: str) -> tuple[np.ndarray, np.ndarray]:
    """Points to correlate, from (items, conditions) of metric and score; cells without both are left out."""
    both = np.isfinite(x) & np.isfinite(y)
    if level == "item":
        return x[both], y[both]
    count = both.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = (np.where(both, v, 0.0).sum(axis=0) / count for v in (x, y))
    present = count > 0
    return np.round(mean_x[present], 12), np.round(mean_y[present], _DIGITS)


def _prediction(
    metric: MetricInfo, level: str, x: np.ndarray, y: np.ndarray, given: np.ndarray
) -> dict[str, Any]:
    """Columns of the table about the mapped metric."""
    both = np.isfinite(x) & np.isfinite(y)
    if level == "item":
        half = reach(given)[both]
    else:  # each listener counts once
        rated = np.isfinite(given) & both
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(rated, given, 0.0).sum(axis=1) / rated.sum(axis=1)
        half = reach(means)[both.any(axis=0)]
    found = predict(*_points(x, y, level), half, rising=metric.higher_is_better)
    row = {f"mapping_{power}": value for power, value in enumerate(found.coefficients)}
    return {"rmse": found.rmse, "outlier_ratio": found.outlier_ratio, **row, "mapping_reason": found.reason}


def _row(
    metric: MetricInfo, level: str, subset: str, x: np.ndarray, y: np.ndarray, sample: np.ndarray, units: int
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """A row of the table, its coefficients, and those of the resamples."""
    in_x, in_y = _points(x, y, level)
    point, reason = coefficients(in_x, in_y)
    row: dict[str, Any] = {"metric": metric.name, "level": level, "anchors": subset, "n": len(in_x)}
    row["n_left_out"] = int(np.count_nonzero(np.isfinite(y) & ~np.isfinite(x)))
    row["reason"], row["ci_reason"] = reason, "there is no coefficient" if reason else ""
    for index, name in enumerate(COEFFICIENTS):
        row[name] = point[index]
        defined = sample[np.isfinite(sample[:, index]), index]
        low = high = math.nan
        if not reason and len(defined) < MIN_DEFINED * len(sample):
            row["ci_reason"] = f"only {len(defined)} of {len(sample)} resamples have a coefficient"
        elif not reason:
            low, high = coefficient_interval(point[index], defined, units)
        row[f"{name}_ci_low"], row[f"{name}_ci_high"] = low, high
    if row["ci_reason"]:
        sample = np.full_like(sample, math.nan)
    return row, np.array(point), sample


def _differences(
    points: dict[tuple[str, str], np.ndarray],
    samples: dict[tuple[str, str], np.ndarray],
    metrics: Sequence[MetricInfo],
    subset: str,
    units: int,
) -> list[tuple[Any, ...]]:
    """Rows of `Correlations.differences` for one choice of conditions."""
    rows: list[tuple[Any, ...]] = []
    for level, (a, b) in itertools.product(LEVELS, itertools.combinations(metrics, 2)):
        sign_a, sign_b = (1 if metric.higher_is_better else -1 for metric in (a, b))
        point = sign_a * points[a.name, level] - sign_b * points[b.name, level]
        sample = sign_a * samples[a.name, level] - sign_b * samples[b.name, level]
        for index, name in enumerate(COEFFICIENTS):
            defined = sample[np.isfinite(sample[:, index]), index]
            low, high, better = math.nan, math.nan, ""
            if len(defined):
                low, high = difference_interval(float(point[index]), defined, units)
                better = a.name if low > 0 else b.name if high < 0 else ""
            rows.append((level, subset, name, a.name, b.name, float(point[index]), low, high, better))
    return rows


# Report


def format_correlations(result: Correlations) -> str:
    """The table as text, and sentences on which metric predicted listeners better."""
    lines = []
    width = max(len(metric.label) for metric in result.metrics)
    labels = {metric.name: metric.label for metric in result.metrics}
    for subset, of_subset in result.table.groupby("anchors", sort=False):
        for level, rows in of_subset.groupby("level", sort=False):
            n = int(rows["n"].max())
            what = (
                ("item x condition", "items x conditions") if level == "item" else ("condition", "conditions")
            )
            anchors = f", {subset} anchors" if result.cells["anchor"].any() else ""
            lines.append(f"Over {n} {what[n != 1]}{anchors}")
            titles = "".join(f"  {name:<20}" for name in COEFFICIENTS) + f"  {'RMSE':<6}  outliers"
            lines.append(f"  {'':<{width}}{titles}")
            for _, row in rows.iterrows():
                cells = "".join(f"  {_coefficient_text(row, name):<20}" for name in COEFFICIENTS)
                cells += (
                    f"  {_number_text(row['rmse'], '.1f'):<6}  {_number_text(row['outlier_ratio'], '.0%')}"
                )
                why = row["reason"] or row["ci_reason"]
                lines.append(
                    f"  {labels[row['metric']]:<{width}}{cells.rstrip()}" + (f"  ({why})" if why else "")
                )
            lines.append("")
    lines.append(
        f"Brackets: 95% intervals, {result.num_resamples} resamples of listeners and items, "
        f"seed {result.seed}; these conditions."
    )
    lines.append(
        "RMSE: error of the scores from a monotone third-order polynomial of the metric, n - 4 degrees of"
        " freedom. Outliers: points further off than the 95% interval of their mean score (ITU-T P.1401)."
    )
    lines += _who_predicted(result, labels)
    lost = result.table[result.table["level"] == "item"].groupby("metric", sort=False)["n_left_out"].max()
    lines += [
        f"{labels[str(name)]}: {count} cells without a finite value are left out."
        for name, count in lost.items()
        if count
    ]
    lines += [f"Note: {note}." for note in result.notes]
    return "\n".join(lines) + "\n"


def _who_predicted(result: Correlations, labels: dict[str, str]) -> list[str]:
    """One sentence per pair of metrics that differ over items x conditions, without anchors (Spearman)."""
    if len(result.metrics) < 2:
        return []
    pairs = result.differences[
        (result.differences["coefficient"] == "spearman")
        & (result.differences["level"] == "item")
        & (result.differences["anchors"] == "without")
    ]
    what = "items x conditions" + (", without anchors" if result.cells["anchor"].any() else "")
    lines = []
    for _, row in pairs[pairs["better"] != ""].iterrows():
        other = row["metric_b"] if row["better"] == row["metric_a"] else row["metric_a"]
        ends = sorted(abs(row[end]) for end in ("ci_low", "ci_high"))
        lines.append(
            f"{labels[row['better']]} predicted listeners better than {labels[other]}: Spearman's rho "
            f"in the metric's direction, over {what}, is higher by {abs(row['difference']):.2f} "
            f"[{ends[0]:.2f}, {ends[1]:.2f}]."
        )
    return lines or [f"No metric was found to predict listeners better than another (Spearman, {what})."]


def _number_text(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def _coefficient_text(row: pd.Series[Any], name: str) -> str:
    if math.isnan(row[name]):
        return "–"
    low, high = row[f"{name}_ci_low"], row[f"{name}_ci_high"]
    return f"{row[name]:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def write_correlations(
    result: Correlations, ratings: Ratings, folder: Path, *, style: str | Path | None = None
) -> list[Path]:
    """Write ``correlations.csv``, ``metric_differences.csv``, ``cells.csv``, ``correlations.json`` and
    ``scatter_METRIC.png``, ``.svg``, ``.pdf``; the same result gives the same bytes."""
    paths = []
    tables = {
        "correlations": result.table,
        "metric_differences": result.differences,
        "cells": result.cells,
    }
    for name, table in tables.items():
        paths.append(folder / f"{name}.csv")
        write_atomic(paths[-1], table.map(neutral_cell).to_csv(index=False, lineterminator="\n"))
    content = {
        "seed": result.seed,
        "num_resamples": result.num_resamples,
        "metrics": [vars(metric) for metric in result.metrics],
        "notes": list(result.notes),
        **{name: _records(table) for name, table in tables.items()},
    }
    paths.append(folder / "correlations.json")
    write_atomic(paths[-1], json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    with style_context(style):
        for metric in result.metrics:
            paths += save(draw_scatter(result, metric, ratings), folder, f"scatter_{metric.name}")
    return paths


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            str(key): number_to_json(value) if isinstance(value, float) else value
            for key, value in record.items()
        }
        for record in table.to_dict("records")
    ]


def draw_scatter(result: Correlations, metric: MetricInfo, ratings: Ratings) -> Figure:
    """Mean score over ``metric``: left per item and condition, right per condition."""
    cells = result.cells[np.isfinite(result.cells[metric.name])]
    looks = _looks(list(dict.fromkeys(result.cells["condition"])), ratings)
    rows = math.ceil(len(looks) / 5)
    figure = new_figure(WIDTHS["two_columns"], 2.7 + 0.15 * rows)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    averaged = cells.groupby("condition", sort=False)[[metric.name, "score"]].mean().reset_index()
    for axes, points, level in zip(panels, (cells, averaged), LEVELS, strict=True):
        for condition, (colour, marker) in looks.items():
            of_condition = points[points["condition"] == condition]
            axes.plot(
                of_condition[metric.name],
                of_condition["score"],
                marker,
                color=colour,
                markersize=3 if level == "item" else 5,
                markeredgewidth=0,
                alpha=0.8 if level == "item" else 1.0,
                clip_on=False,
                label=display_name(condition, ratings.reference, ratings.anchors) if level == "item" else "",
            )
        _describe_panel(axes, result, metric, level)
    panels[0].set_ylabel("mean score")
    if len(cells):
        figure.legend(loc="outside upper center", ncols=min(5, len(looks)), frameon=False, columnspacing=1.2)
    return figure


def _describe_panel(axes: Axes, result: Correlations, metric: MetricInfo, level: str) -> None:
    axes.set_ylim(0, 100)
    axes.grid(True)
    axes.set_xlabel(heading(metric))
    rows = result.table[(result.table["metric"] == metric.name) & (result.table["level"] == level)]
    texts = ["per item and condition" if level == "item" else "per condition"]
    for _, row in rows.iterrows():
        anchors = f" {row['anchors']} anchors" if len(rows) > 1 else ""
        why = f" ({row['reason']})" if row["reason"] else ""
        texts.append(f"Spearman{anchors}: {_coefficient_text(row, 'spearman')}{why}")
    axes.set_title("\n".join(texts), fontsize="x-small", color=NEUTRAL)


def _looks(conditions: Sequence[str], ratings: Ratings) -> dict[str, tuple[str, str]]:
    """Condition -> colour and marker: those of codec and rate for ``codec@kbps``, else its own."""
    systems = [name for name in conditions if name not in ratings.anchors]
    rated = {name: parts for name in systems if (parts := codec_and_kbps(name))}
    codecs = list(dict.fromkeys(rated[name][0] if name in rated else name for name in systems))
    rates = sorted({kbps for _, kbps in rated.values()})
    looks = {}
    for name in systems:
        index = codecs.index(rated[name][0] if name in rated else name)
        turn = rates.index(rated[name][1]) if name in rated else index
        looks[name] = (COLOURS[index % len(COLOURS)], MARKERS[turn % len(MARKERS)])
    for number, name in enumerate(name for name in conditions if name in ratings.anchors):
        looks[name] = (NEUTRAL, "v^<>"[number % 4])
    return looks
