"""Grades on a scale of five points (BS.1116, ACR, DCR): means, intervals, comparisons of systems.

Each mean has several 95 % intervals, which hold for different listeners and items:

- ``t`` and ``bootstrap``: other listeners, the same items; each listener counts with his or her mean.
- ``item``: the same listeners, other items; each item counts with its mean.
- ``both``: other listeners and other items. The variance is that of listeners' sums of deviations plus that
  of items' sums minus that of single ratings (two-way clusters: Cameron, Gelbach and Miller 2011). The
  degrees of freedom of Student's t are the smaller number of listeners and items less one. It does not need a
  full table.
- ``plain``: as if all ratings were independent. It is too narrow, but often printed for P.800 tests.

Systems are compared by the primary analysis of a MUSHRA test (`mushra.analysis.primary`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from mushra.analysis.description import (
    CONFIDENCE,
    Interval,
    beyond_scale,
    bounds,
    describe_intervals,
    t_interval,
)
from mushra.analysis.methods.tables import Column, Shown, fixed, span, text
from mushra.analysis.mixed import MixedModel, mixed_model
from mushra.analysis.primary import Primary, primary_analysis
from mushra.analysis.ratings import Ratings
from mushra.analysis.wording import p_value


@dataclass(frozen=True, eq=False)
class Grades:
    """Grades of one method.

    Attributes:
        ratings: the table, whose ``score`` is on the scale of the method.
        means: one row per condition: `describe_intervals`, then ``n_ratings``, ``sd`` (of the ratings),
            ``item_low``, ``item_high``, ``both_low``, ``both_high``, ``plain_low``, ``plain_high``.
        mixed, primary: comparisons of the systems.
    """

    ratings: Ratings
    means: pd.DataFrame
    mixed: MixedModel
    primary: Primary


def describe(ratings: Ratings, *, seed: int, margin: float | None, num_resamples: int = 10_000) -> Grades:
    """Means, intervals and comparisons.

    Args:
        ratings: `Ratings` without controls, on a scale of its own (`Ratings.ends`).
        seed: of the bootstrap.
        margin: points within which two systems count as equivalent; None: equivalence is not tested.
    """
    means = describe_intervals(ratings, seed=seed, num_resamples=num_resamples)
    rows = []
    for condition in means["condition"]:
        scores = ratings.frame[ratings.frame["condition"] == condition]
        item = t_interval(scores.groupby("item")["score"].mean().to_numpy())
        both, plain = both_interval(scores), t_interval(scores["score"].to_numpy())
        kinds = (("item", item), ("both", both), ("plain", plain))
        rows.append(
            {
                "n_ratings": len(scores),
                "sd": float(scores["score"].std(ddof=1)) if len(scores) > 1 else math.nan,
                "grand_mean": plain.mean,
                **{f"{name}_low": one.low for name, one in kinds},
                **{f"{name}_high": one.high for name, one in kinds},
            }
        )
    table = pd.concat([means, pd.DataFrame(rows)], axis=1)
    mixed = mixed_model(ratings.frame, ratings.systems)
    return Grades(ratings, table, mixed, primary_analysis(ratings, mixed, margin))


def both_interval(frame: pd.DataFrame) -> Interval:
    """Mean of all ratings and its 95 % interval for other listeners and other items.

    Args:
        frame: ratings of one condition: ``listener``, ``item``, ``score``.
    """
    scores = frame["score"].to_numpy(dtype=float)
    mean = float(scores.mean()) if len(scores) else math.nan
    listener, listeners = pd.factorize(frame["listener"])
    item, items = pd.factorize(frame["item"])
    if min(len(listeners), len(items)) < 2:
        reason = f"needs 2 listeners and 2 items, there are {len(listeners)} and {len(items)}"
        return Interval(mean, math.nan, math.nan, reason)
    rest = scores - mean

    def variance(codes: np.ndarray, groups: int) -> float:
        sums = np.bincount(codes, rest)
        return float(sums @ sums) * groups / (groups - 1)

    single = float(rest @ rest) * len(rest) / (len(rest) - 1)
    parts = (variance(listener, len(listeners)), variance(item, len(items)))
    # One factor must not make the mean more certain than the other factor alone allows.
    error = math.sqrt(max(sum(parts) - single, *parts)) / len(scores)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, min(len(listeners), len(items)) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def interval_notes(grades: Grades, ends: tuple[float, float]) -> list[str]:
    """Notes on intervals without width, and on those that reach beyond ``ends``, the limits of a mean."""
    width = grades.means["t_high"] - grades.means["t_low"]  # NaN with one listener
    found = grades.means.loc[width < 1e-9, "condition"]
    means = bounds(grades.means, "t", "item", "both", "plain")
    notes = beyond_scale(means, bounds(grades.primary.contrasts, "ci"), ends)
    if len(found):
        notes.append(
            f"All listeners gave the same mean to {', '.join(found)}: an interval without width does not hold"
            " for other listeners."
        )
    return notes


def contrast_table(grades: Grades) -> Shown:
    """All pairs of systems."""
    pairs = grades.primary.contrasts
    columns: list[Column] = [
        ("a", text("a")),
        ("b", text("b")),
        ("a − b", fixed("estimate", sign=True)),
        ("95 % interval", span("ci_low", "ci_high")),
        ("df", fixed("df", 1)),
        ("p", lambda row: p_value(row["p"])),
        ("Holm", lambda row: p_value(row["p_holm"])),
    ]
    if pairs["margin"].notna().any():
        columns.append(("equivalence, Holm", lambda row: p_value(row["p_equivalence_holm"])))
    columns.append(("remark", text("reason")))
    caption = f"Differences of the systems, for {grades.primary.population}; p corrected after Holm."
    return Shown("contrasts", caption, pairs, columns, num_names=2)


def primary_facts(grades: Grades) -> dict[str, object]:
    """Method and result of the comparison of systems, for `analysis.json`."""
    primary = grades.primary
    return {
        "primary": {"method": primary.method, "why": primary.why, "population": primary.population},
        "letters": primary.letters,
        "components": grades.mixed.components,
    }
