"""Tests between conditions with the listener as the unit.

All functions take the tidy table (listener, item, condition, score). Two conditions are compared on the pages
on which a listener rated both; a missing rating leaves out only its own page.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from evaluation.statistics.recordings import MIN_PAIRS
from mushra.analysis.description import t_interval
from qincodec.core.errors import count

ALPHA = 0.05
#: For at most this many listeners all 2^n exchanges are counted, so the permutation test is exact.
MAX_EXACT_LISTENERS = 13
#: For at most this many levels of scores medians are computed from counts; a slider has 101 levels.
_MAX_LEVELS = 1024
_PERMUTATIONS_AT_ONCE = 2000
#: Means of equal scores differ in the last bits.
_DIGITS = 9


@dataclass(frozen=True)
class Comparison:
    """A test of two or more conditions. ``reason`` explains NaN.

    ``estimate`` with ``ci_low`` and ``ci_high`` is in points of the scale, positive where a is higher;
    ``n`` counts listeners.
    """

    statistic: float
    p: float
    n: int
    estimate: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    effect: float = math.nan
    df: float = math.nan
    reason: str = ""


# Pairs


def paired_pages(frame: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Pages on which a listener rated both conditions: columns ``listener, item, a, b``."""
    scores = [
        frame.loc[frame["condition"] == name, ["listener", "item", "score"]].rename(columns={"score": column})
        for name, column in ((a, "a"), (b, "b"))
    ]
    return scores[0].merge(scores[1], on=["listener", "item"], validate="one_to_one")


def permutation_test(
    pages: pd.DataFrame, *, seed: int | Sequence[int], num_permutations: int = 10_000
) -> Comparison:
    """The permutation test of BS.1534-3 on the difference of medians, two-sided.

    The statistic is median(a) - median(b) over all ratings. Under the null hypothesis a listener's scores of
    a and b could be exchanged. All pages of a listener are exchanged together, because they are not
    independent. Up to `MAX_EXACT_LISTENERS` listeners all 2^n exchanges are counted and p is exact; for more,
    p is (1 + hits) / (1 + num_permutations).

    A median changes only if the middle of all ratings changes. If most ratings of both conditions are equal,
    or if the listeners hardly differ, this test has less power than Wilcoxon's.

    Args:
        pages: from `paired_pages`.
        seed: of the exchanges.
    """
    names, listener = np.unique(pages["listener"].to_numpy(dtype=str), return_inverse=True)
    n = len(names)
    if n < 2:
        return Comparison(math.nan, math.nan, n, reason=f"{count(n, 'listener')} rated both, a test needs 2")
    exact = n <= MAX_EXACT_LISTENERS
    if exact:
        exchanged = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        generator = np.random.default_rng(seed)
        exchanged = generator.integers(0, 2, size=(num_permutations, n), dtype=np.int8)
    observed = float(pages["a"].median() - pages["b"].median())
    a, b = pages["a"].to_numpy(dtype=float), pages["b"].to_numpy(dtype=float)
    levels = np.unique(np.concatenate([a, b]))
    medians = _exchanged_by_counting if len(levels) <= _MAX_LEVELS else _exchanged_by_sorting
    differences = np.concatenate(
        [
            medians(exchanged[start : start + _PERMUTATIONS_AT_ONCE], listener, a, b, levels)
            for start in range(0, len(exchanged), _PERMUTATIONS_AT_ONCE)
        ]
    )
    hits = int((np.abs(differences) >= abs(observed) - 10.0**-_DIGITS).sum())
    p = hits / len(exchanged) if exact else (1 + hits) / (1 + len(exchanged))
    reason = "" if n >= MIN_PAIRS else _too_few(n)
    return Comparison(observed, p, n, estimate=observed, reason=reason)


def _too_few(n: int, zero: int = 0) -> str:
    """Least p of n listeners, beside ``zero`` others whose differences are zero and do not count."""
    who = count(n, "listener")
    if zero:
        who = f"{n} of {n + zero} listeners {'has' if n == 1 else 'have'} a difference other than zero"
    return f"{who}: p cannot be below {2.0 ** (1 - n):.3g}"


def _exchanged_by_counting(
    exchanged: np.ndarray, listener: np.ndarray, a: np.ndarray, b: np.ndarray, levels: np.ndarray
) -> np.ndarray:
    """Differences of medians for each exchange, from counts per listener and level of score."""
    size = (exchanged.shape[1], len(levels))
    counts = []
    for scores in (a, b):
        cells = listener * len(levels) + np.searchsorted(levels, scores)
        counts.append(np.bincount(cells, minlength=size[0] * size[1]).reshape(size).cumsum(axis=1))
    # Whole numbers below 2^24 are exact in float32, whatever the order of the sum.
    change = exchanged.astype(np.float32) @ (counts[1] - counts[0]).astype(np.float32)
    below_a = counts[0].sum(axis=0) + change
    below_b = counts[1].sum(axis=0) - change
    total = len(a)
    return _median_of_counts(below_a, total, levels) - _median_of_counts(below_b, total, levels)


def _median_of_counts(below: np.ndarray, total: int, levels: np.ndarray) -> np.ndarray:
    """Median per row, from the number of values at or below each level."""
    low = levels[(below >= (total + 1) // 2).argmax(axis=1)]
    high = levels[(below >= total // 2 + 1).argmax(axis=1)]
    return (low + high) / 2


def _exchanged_by_sorting(
    exchanged: np.ndarray, listener: np.ndarray, a: np.ndarray, b: np.ndarray, _: np.ndarray
) -> np.ndarray:
    swap = exchanged.astype(bool)
    return np.array(
        [np.median(np.where(row[listener], b, a)) - np.median(np.where(row[listener], a, b)) for row in swap]
    )


def wilcoxon_test(pages: pd.DataFrame) -> Comparison:
    """Wilcoxon's signed-rank test of the listeners' mean differences, two-sided.

    ``estimate`` is the mean difference a - b with Student's 95 % interval; ``effect`` the matched-pairs
    rank-biserial correlation (W+ - W-) / (W+ + W-). Zero differences are left out of the ranks; p is exact
    up to 50 listeners without ties, else from the normal approximation.

    Args:
        pages: from `paired_pages`.
    """
    means = (pages["a"] - pages["b"]).groupby(pages["listener"]).mean().round(_DIGITS).to_numpy()
    n = len(means)
    interval = t_interval(means)
    points = {"estimate": interval.mean, "ci_low": interval.low, "ci_high": interval.high}
    if n < 2:
        reason = f"{count(n, 'listener')} rated both, a test needs 2"
        return Comparison(math.nan, math.nan, n, reason=reason, **points)
    nonzero = means[means != 0]
    if not len(nonzero):
        return Comparison(0.0, 1.0, n, effect=0.0, reason="all differences are zero", **points)
    ranks = stats.rankdata(np.abs(nonzero))
    effect = float((ranks * np.sign(nonzero)).sum() / ranks.sum())
    result = stats.wilcoxon(nonzero)
    reason = "" if len(nonzero) >= MIN_PAIRS else _too_few(len(nonzero), n - len(nonzero))
    return Comparison(
        float(result.statistic), float(result.pvalue), n, effect=effect, reason=reason, **points
    )


def cohens_dz(pages: pd.DataFrame) -> float:
    """Mean over standard deviation of the listeners' mean differences; NaN if they do not differ."""
    means = (pages["a"] - pages["b"]).groupby(pages["listener"]).mean().round(_DIGITS)
    spread = means.std(ddof=1) if len(means) > 1 else 0.0
    return float(means.mean() / spread) if spread > 0 else math.nan


# All conditions at once


def common_means(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """(listeners, conditions): means over the pages on which a listener rated all of ``conditions``."""
    wide = frame[frame["condition"].isin(conditions)]
    wide = wide.pivot(index=["listener", "item"], columns="condition", values="score")
    return wide.reindex(columns=list(conditions)).dropna().groupby(level="listener").mean()


def friedman_test(frame: pd.DataFrame, conditions: Sequence[str]) -> Comparison:
    """Friedman's test over the listeners' means, chi-square approximation corrected for ties.

    ``effect`` is Kendall's W. Only pages on which a listener rated all ``conditions`` count.
    """
    means = common_means(frame, conditions).round(_DIGITS)
    n, k = means.shape
    df = float(k - 1)
    if k < 2 or n < 2:
        reason = f"needs 2 listeners and 2 conditions, there are {n} and {k}"
        return Comparison(math.nan, math.nan, n, df=df, reason=reason)
    ranks = means.rank(axis=1).to_numpy()
    if (ranks == (k + 1) / 2).all():
        return Comparison(0.0, 1.0, n, effect=0.0, df=df, reason="all scores of each listener are equal")
    _, ties = np.unique(
        np.concatenate([row + number * (k + 1) for number, row in enumerate(ranks)]), return_counts=True
    )
    correction = 1 - float((ties**3 - ties).sum()) / (n * (k**3 - k))
    squares = float(((ranks.sum(axis=0) - n * (k + 1) / 2) ** 2).sum())
    statistic = 12 * squares / (n * k * (k + 1)) / correction
    p = float(stats.chi2.sf(statistic, df))
    return Comparison(statistic, p, n, effect=statistic / (n * df), df=df)


# Many tests


def least_listeners(pairs: int) -> int:
    """Least number of listeners for a pair to pass Holm's correction: Wilcoxon's least p is 2^(1 - n)."""
    return math.ceil(1 + math.log2(max(pairs, 1) / ALPHA))


def hochberg(p_values: Sequence[float]) -> list[float]:
    """Hochberg's step-up correction (1988); NaN stays NaN and does not count as a test."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), math.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(-p[tested], kind="stable")]
    adjusted[order] = np.minimum(np.minimum.accumulate(np.arange(1, len(order) + 1) * p[order]), 1.0)
    return [float(value) for value in adjusted]


def compact_letters(order: Sequence[str], different: Callable[[str, str], bool]) -> dict[str, str]:
    """Letters of conditions; two share a letter exactly if no difference between them was found.

    The insert-and-absorb algorithm of Piepho (2004, "An Algorithm for a Letter-Based Representation of
    All-Pairwise Comparisons").

    Args:
        order: conditions, the best first: it gets the first letter.
        different: whether two conditions differ significantly; symmetric.
    """
    groups = [set(order)]
    for a, b in itertools.combinations(order, 2):
        if not different(a, b):
            continue
        split = []
        for group in groups:
            split += [group - {a}, group - {b}] if {a, b} <= group else [group]
        unique = [group for i, group in enumerate(split) if group not in split[:i]]
        groups = [group for group in unique if not any(group < other for other in unique)]
    # A group is not needed if each of its pairs and members is in another one.
    for group in sorted(groups, key=len):
        others = [other for other in groups if other is not group]
        pairs = itertools.combinations(group, 2)
        if all(any({a, b} <= other for other in others) for a, b in pairs) and group <= set().union(*others):
            groups = others
    place = {condition: number for number, condition in enumerate(order)}
    groups.sort(key=lambda group: sorted(place[condition] for condition in group))
    return {c: "".join(_letter(i) for i, group in enumerate(groups) if c in group) for c in order}


def _letter(number: int) -> str:
    """a to z, then a' to z', and so on."""
    return chr(ord("a") + number % 26) + "'" * (number // 26)
