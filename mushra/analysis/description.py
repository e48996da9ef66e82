"""Location, spread and intervals of ratings, with the listener as the unit.

The ratings of one listener are not independent, so intervals are over listeners and not over ratings: each
listener counts with the mean of his or her ratings. A mean has three 95 % intervals:

- ``t``: Student's, over the listeners' means. It holds for other listeners and the same items.
- ``bootstrap``: listeners drawn with replacement, seeded, with percentiles expanded for few listeners
  (Hesterberg 2015). It holds for the same population and does not assume normality.
- ``crossed``: holds for other listeners and other items; from the two-way random-effects mean squares.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from evaluation.statistics.recordings import Sample, bootstrap_means
from mushra.analysis.ratings import Ratings

CONFIDENCE = 0.95
#: A larger bimodality coefficient counts as bimodal (BS.1534-3); that of a uniform distribution.
BIMODALITY_LIMIT = 5 / 9
#: A lower p of Shapiro-Wilk counts as not normal.
NORMALITY_ALPHA = 0.05
#: An interval that goes less than this share of the scale beyond its end looks as if it ended there.
_VISIBLE = 1e-3
#: Least number of values for Shapiro-Wilk and for the bimodality coefficient.
MIN_NORMALITY = 3
MIN_BIMODALITY = 4

CONDITION_COLUMNS = ["condition", "n_listeners", "n_ratings", "mean", "ci_low", "ci_high"]
CONDITION_COLUMNS += ["median", "q1", "q3"]
INTERVAL_COLUMNS = ["condition", "n_listeners", "n_items", "mean", "t_low", "t_high", "bootstrap_low"]
INTERVAL_COLUMNS += ["bootstrap_high", "n_complete", "crossed_mean", "crossed_low", "crossed_high"]
INTERVAL_COLUMNS += ["shapiro_p", "normal", "bimodality", "bimodal", "reason"]
ITEM_COLUMNS = ["item", "condition", "n_listeners", "mean", "ci_low", "ci_high", "median", "q1", "q3"]
ITEM_COLUMNS += ["shapiro_p", "normal", "bimodality", "bimodal", "reason"]
DIFFERENCE_COLUMNS = ["baseline", "condition", "item", "n_listeners", "mean", "ci_low", "ci_high"]
DIFFERENCE_COLUMNS += ["median", "q1", "q3", "reason"]


@dataclass(frozen=True)
class Interval:
    """A mean with its interval; NaN bounds have a reason."""

    mean: float
    low: float
    high: float
    reason: str = ""


def t_interval(values: np.ndarray) -> Interval:
    """Mean and Student's 95 % interval of one value per listener.

    Args:
        values: 1-D, finite.
    """
    mean = float(np.mean(values)) if len(values) else math.nan
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan, f"an interval needs 2 listeners, there are {len(values)}")
    half = (
        stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    )
    return Interval(mean, mean - float(half), mean + float(half))


def crossed_interval(scores: np.ndarray) -> Interval:
    """Mean and 95 % interval for other listeners and other items.

    The mean of a two-way table without replication has the variance
    s2_L / n_L + s2_I / n_I + s2_LI / (n_L n_I). Its components are estimated from the mean squares; negative
    estimates are set to 0. The degrees of freedom are after Satterthwaite (1946).

    Args:
        scores: (listeners, items), finite.
    """
    listeners, items = scores.shape
    mean = float(scores.mean()) if scores.size else math.nan
    if listeners < 2 or items < 2:
        reason = (
            f"the crossed interval needs 2 listeners who rated all items and 2 items, there are {listeners}"
        )
        return Interval(mean, math.nan, math.nan, f"{reason} and {items}")
    rows, columns = scores.mean(axis=1), scores.mean(axis=0)
    df = np.array([listeners - 1, items - 1, (listeners - 1) * (items - 1)], dtype=float)
    rest = scores - rows[:, None] - columns + mean
    squares = np.array([items * rows.var(ddof=1), listeners * columns.var(ddof=1), (rest**2).sum() / df[2]])
    # Mean squares of a component below 0 are left out: pooling them would need another test.
    kept = squares[:2] >= squares[2]
    signs = np.array([*kept, 1 - kept.sum()], dtype=float)
    total = float(signs @ squares)
    if total == 0:
        return Interval(mean, mean, mean)
    freedom = total**2 / float((signs**2 * squares**2 / df).sum())
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(total / scores.size)
    return Interval(mean, mean - float(half), mean + float(half))


def bounds(table: pd.DataFrame, *kinds: str) -> np.ndarray:
    """Intervals (number, 2): the columns ``KIND_low`` and ``KIND_high`` of a table."""
    return np.concatenate([table[[f"{kind}_low", f"{kind}_high"]].to_numpy(dtype=float) for kind in kinds])


def beyond(intervals: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """Which intervals reach below the first of ``ends`` and above the second; both (number, 2)."""
    slack = _VISIBLE * (ends[1] - ends[0])
    return np.stack([intervals[:, 0] < ends[0] - slack, intervals[:, 1] > ends[1] + slack], axis=1)


def beyond_scale(means: np.ndarray, differences: np.ndarray, ends: tuple[float, float]) -> list[str]:
    """A note on intervals that reach beyond all values that there can be; [] if there are none.

    A t distribution has no ends, so an interval from it does not know the ends of the scale.

    Args:
        means, differences: intervals, (number, 2).
        ends: lowest and highest possible mean.
    """
    width = ends[1] - ends[0]
    parts, covering = [], 0
    for kind, intervals, limits in (("means", means, ends), ("differences", differences, (-width, width))):
        found = beyond(intervals, limits)
        covering += int(found.all(axis=1).sum())
        if number := int(found.any(axis=1).sum()):
            parts.append(
                f"{number} of {len(intervals)} intervals of {kind} reach{'es' * (number == 1)} beyond "
                f"{limits[0]:g} to {limits[1]:g}"
            )
    if not parts:
        return []
    text = f"{' and '.join(parts)}, where no value can be."
    if covering:
        say = "covers all of it and says" if covering == 1 else "cover all of it and say"
        text += f" {covering} of these {say} nothing: listeners or items are too few."
    return [f"{text} Tables show intervals as computed; figures cut them, with an arrow."]


def caption_beyond(intervals: np.ndarray, ends: tuple[float, float]) -> str:
    """What the caption of a table of means says if an interval reaches beyond the ends; "" otherwise."""
    if not beyond(intervals, ends).any():
        return ""
    return f" No mean can be beyond {ends[0]:g} to {ends[1]:g}; intervals are given as computed."


def bimodality(values: np.ndarray) -> float:
    """Bimodality coefficient b = (g^2 + 1) / (k + 3 (n - 1)^2 / ((n - 2) (n - 3))) of BS.1534-3.

    g is the skewness and k the excess kurtosis of the sample, both corrected for bias. NaN for fewer than 4
    values, or if all are equal.
    """
    n = len(values)
    if n < MIN_BIMODALITY or np.ptp(values) == 0:
        return math.nan
    g = float(stats.skew(values, bias=False))
    k = float(stats.kurtosis(values, bias=False))
    return (g**2 + 1) / (k + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))


def shapiro_p(values: np.ndarray) -> float:
    """p of Shapiro and Wilk's test of normality; NaN for fewer than 3 values, or if all are equal."""
    if len(values) < MIN_NORMALITY or np.ptp(values) == 0:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # above 5,000 values its p is only approximate
        return float(stats.shapiro(values).pvalue)


def describe_conditions(ratings: Ratings) -> pd.DataFrame:
    """One row per condition: `CONDITION_COLUMNS`.

    ``mean``, ``ci_low`` and ``ci_high`` are of the listeners' means (Student's 95 %, NaN with one
    listener); ``median``, ``q1`` and ``q3`` are of the ratings.
    """
    means = ratings.matrix()
    rows = []
    for condition, scores in _scores(ratings).items():
        interval = t_interval(means[condition].dropna().to_numpy())
        n_listeners = int(means[condition].notna().sum())
        q1, median, q3 = np.quantile(scores, [0.25, 0.5, 0.75])
        rows.append(
            (condition, n_listeners, len(scores), interval.mean, interval.low, interval.high, median, q1, q3)
        )
    return pd.DataFrame(rows, columns=CONDITION_COLUMNS)


def _scores(ratings: Ratings) -> dict[str, np.ndarray]:
    groups = {name: rows.to_numpy() for name, rows in ratings.frame.groupby("condition", sort=False)["score"]}
    return {name: groups[name] for name in ratings.conditions}


def describe_intervals(ratings: Ratings, *, seed: int, num_resamples: int = 10_000) -> pd.DataFrame:
    """All intervals of each condition's mean, and the shape of its distribution: `INTERVAL_COLUMNS`.

    ``crossed_*`` are over the ``n_complete`` listeners who rated every item of the condition.
    ``shapiro_p`` and ``normal`` are of the listeners' means, which the t interval assumes to be normal;
    ``bimodality`` and ``bimodal`` are of the ratings. ``reason`` explains NaN.
    """
    means = ratings.matrix()
    samples = []
    for condition in ratings.conditions:
        values = means[condition].dropna()
        samples.append(Sample(values.index.to_numpy(dtype=str), values.to_numpy()))
    rows = []
    bootstraps = bootstrap_means(samples, seed=seed, num_resamples=num_resamples)
    scores = _scores(ratings)
    for condition, sample, bootstrap in zip(ratings.conditions, samples, bootstraps, strict=True):
        interval = t_interval(sample.values)
        table = _table(ratings.frame, condition)
        complete = table.dropna().to_numpy()
        crossed = crossed_interval(complete)
        shape = _shape(sample.values, scores[condition])
        reasons = [r for r in (interval.reason, crossed.reason, str(shape.pop("reason"))) if r]
        rows.append(
            {
                "condition": condition,
                "n_listeners": len(sample.values),
                "n_items": table.shape[1],
                "mean": interval.mean,
                "t_low": interval.low,
                "t_high": interval.high,
                "bootstrap_low": bootstrap.low,
                "bootstrap_high": bootstrap.high,
                "n_complete": len(complete),
                "crossed_mean": crossed.mean,
                "crossed_low": crossed.low,
                "crossed_high": crossed.high,
                **shape,
                "reason": "; ".join(reasons),
            }
        )
    return pd.DataFrame(rows, columns=INTERVAL_COLUMNS)


def _shape(normal: np.ndarray, modes: np.ndarray) -> dict[str, float | str]:
    """Normality of one set of values and bimodality of another; ``reason`` explains NaN."""
    p, b = shapiro_p(normal), bimodality(modes)
    reasons = []
    if math.isnan(p):
        why = "all values are equal" if len(normal) >= MIN_NORMALITY else f"{len(normal)} values"
        reasons.append(f"no test of normality: {why}")
    if math.isnan(b):
        why = "all values are equal" if len(modes) >= MIN_BIMODALITY else f"{len(modes)} values"
        reasons.append(f"no bimodality coefficient: {why}")
    return {
        "shapiro_p": p,
        "normal": "" if math.isnan(p) else "yes" if p >= NORMALITY_ALPHA else "no",
        "bimodality": b,
        "bimodal": "" if math.isnan(b) else "yes" if b > BIMODALITY_LIMIT else "no",
        "reason": "; ".join(reasons),
    }


def _table(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
    """(listeners, items) of one condition, NaN where unrated."""
    return frame[frame["condition"] == condition].pivot(index="listener", columns="item", values="score")


def describe_items(ratings: Ratings) -> pd.DataFrame:
    """One row per item and condition: `ITEM_COLUMNS`, all over the listeners' single ratings."""
    groups = {
        pair: rows["score"].to_numpy()
        for pair, rows in ratings.frame.groupby(["item", "condition"], sort=False)
    }
    rows = []
    for item in ratings.items:
        for condition in ratings.conditions:
            scores = groups.get((item, condition))
            if scores is None:
                continue
            interval = t_interval(scores)
            shape = _shape(scores, scores)
            q1, median, q3 = np.quantile(scores, [0.25, 0.5, 0.75])
            reason = "; ".join(r for r in (interval.reason, str(shape.pop("reason"))) if r)
            rows.append(
                {
                    "item": item,
                    "condition": condition,
                    "n_listeners": len(scores),
                    "mean": interval.mean,
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "median": median,
                    "q1": q1,
                    "q3": q3,
                    **shape,
                    "reason": reason,
                }
            )
    return pd.DataFrame(rows, columns=ITEM_COLUMNS)


def difference_grades(ratings: Ratings, baselines: Sequence[str]) -> pd.DataFrame:
    """Each condition's score minus that of a baseline on the same page: `DIFFERENCE_COLUMNS`.

    One row per baseline and other condition over all items (``item`` is empty; each listener counts with
    the mean of his or her differences; quartiles are of the single differences), then one per item.
    """
    wide = ratings.frame.pivot(index=["listener", "item"], columns="condition", values="score")
    rows = []
    for baseline in baselines:
        for condition in ratings.conditions:
            if condition == baseline:
                continue
            difference = (wide[condition] - wide[baseline]).dropna()
            by_listener = difference.groupby(level="listener").mean()
            rows.append(
                (baseline, condition, "", *_difference(by_listener.to_numpy(), difference.to_numpy()))
            )
            for item in ratings.items:
                if item not in difference.index.get_level_values("item"):
                    continue
                values = difference.xs(item, level="item").to_numpy()
                rows.append((baseline, condition, item, *_difference(values, values)))
    return pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS)


def _difference(by_listener: np.ndarray, differences: np.ndarray) -> tuple[float | str, ...]:
    interval = t_interval(by_listener)
    quartiles = np.quantile(differences, [0.5, 0.25, 0.75]) if len(differences) else [math.nan] * 3
    reason = interval.reason or ("" if len(differences) else "no page has both")
    return len(by_listener), interval.mean, interval.low, interval.high, *map(float, quartiles), reason
