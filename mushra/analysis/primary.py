"""The primary analysis: one comparison of the systems, by a rule that is fixed before the data are seen.

1. With two or more systems, listeners and items: the mixed model of `mushra.analysis.mixed`, whose
   differences hold for other listeners and other items. All pairs are corrected after Holm.
2. In a full table, each pair has the variances of its own two systems if a common variance fits badly:
   scores of a system crowd at an end of the scale (`CEILING`) and vary little, or a test finds that systems
   vary unequally (`uneven`).
3. With one item, or if the mixed model fails: Wilcoxon's test of the listeners' means, for other listeners
   and the same items.

All other tests are for sensitivity: they show whether another method gives the same result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from evaluation.statistics.recordings import MIN_PAIRS, holm
from mushra.analysis.anova import balanced_table
from mushra.analysis.description import crossed_interval, t_interval
from mushra.analysis.freedom import Estimate
from mushra.analysis.mixed import CLOSED_FORM, MixedModel, full_table_model
from mushra.analysis.ratings import Ratings
from mushra.analysis.significance import (
    ALPHA,
    compact_letters,
    least_listeners,
    paired_pages,
    wilcoxon_test,
)

MIXED, OWN_VARIANCES, LISTENERS, NOTHING = "mixed_model", "mixed_model_of_pairs", "wilcoxon", ""
#: Share of a system's scores at 0 or 100 from which they count as crowded.
CEILING = 0.25
NEW_ITEMS = "other listeners and other items"
SAME_ITEMS = "other listeners and the same items"

MEAN_COLUMNS = ["condition", "mean", "ci_low", "ci_high", "letters"]
CONTRAST_COLUMNS = [
    "a",
    "b",
    "n_listeners",
    "estimate",
    "ci_low",
    "ci_high",
    "statistic",
    "df",
    "p",
    "p_holm",
]
CONTRAST_COLUMNS += ["margin", "p_equivalence", "p_equivalence_holm", "reason"]


@dataclass(frozen=True, eq=False)
class Primary:
    """The primary analysis of a test.

    Attributes:
        method: `MIXED`, `OWN_VARIANCES`, `LISTENERS` or, without two systems and listeners, `NOTHING`.
        why: reason for the choice, half a sentence.
        population: listeners and items for which its differences, intervals and letters hold.
        means: one row per system, `MEAN_COLUMNS`.
        contrasts: one row per pair of systems, `CONTRAST_COLUMNS`; ``p_equivalence`` is that of the two
            one-sided tests (TOST) within the margin, NaN without one.
        letters: letters of each system; no difference was found between systems that share one. Empty if the
            tests could not find any.
    """

    method: str
    why: str
    population: str
    means: pd.DataFrame
    contrasts: pd.DataFrame
    letters: dict[str, str]


def primary_analysis(ratings: Ratings, mixed: MixedModel, margin: float | None = None) -> Primary:
    """Choose the method by the rule of this module, and compare all pairs of systems.

    Args:
        ratings: after screening.
        mixed: the mixed model of its systems.
        margin: points within which two systems count as equivalent.
    """
    method, why = _choice(ratings, mixed)
    pairs = list(itertools.combinations(ratings.systems, 2)) if method else []
    if method == OWN_VARIANCES:
        scores = balanced_table(ratings.frame, ratings.systems).scores
        rows = [_own_pair(scores, ratings.systems, a, b, margin) for a, b in pairs]
        intervals = [crossed_interval(scores[:, place]) for place in range(len(ratings.systems))]
        means = [(name, i.mean, i.low, i.high) for name, i in zip(ratings.systems, intervals, strict=True)]
    elif method == MIXED:
        rows = [_row(a, b, mixed.n, mixed.contrasts[a, b], margin) for a, b in pairs]
        means = [(name, mean.value, *mean.interval()) for name, mean in mixed.means.items()]
    else:
        rows = [_listeners_pair(ratings, a, b, margin) for a, b in pairs]
        values = ratings.matrix(ratings.systems) if method else pd.DataFrame()
        intervals = [t_interval(values[name].dropna().to_numpy()) for name in values]
        means = [(str(name), i.mean, i.low, i.high) for name, i in zip(values, intervals, strict=True)]
    contrasts = pd.DataFrame(rows, columns=CONTRAST_COLUMNS)
    for p in ("p", "p_equivalence"):
        contrasts[f"{p}_holm"] = holm(contrasts[p].astype(float).tolist())
    letters = _letters(method, contrasts, {name: mean for name, mean, *_ in means})
    table = pd.DataFrame([(*row, letters.get(row[0], "")) for row in means], columns=MEAN_COLUMNS)
    population = SAME_ITEMS if method == LISTENERS else NEW_ITEMS if method else ""
    return Primary(method, why, population, table, contrasts, letters)


def _choice(ratings: Ratings, mixed: MixedModel) -> tuple[str, str]:
    listeners, items, systems = len(ratings.listeners), len(ratings.items), len(ratings.systems)
    if systems < 2 or listeners < 2:
        return NOTHING, f"it needs 2 systems and 2 listeners, there are {systems} and {listeners}"
    if items < 2:
        return LISTENERS, "with one item the result cannot hold for others"
    if mixed.reason:
        return LISTENERS, f"the mixed model cannot be used: {mixed.reason}"
    if mixed.method != CLOSED_FORM:
        return (
            MIXED,
            f"some of the {listeners} x {items} x {systems} ratings are missing, and it uses all the others",
        )
    share = f"{100 * CEILING:g} %"
    if ends := crowded(ratings):
        names = " and ".join(ends) if len(ends) < 3 else f"{len(ends)} systems"
        return OWN_VARIANCES, (
            f"every listener rated everything, but {share} or more of the scores of {names} are at an end of "
            "the scale, so each pair has its own variances"
        )
    scores = balanced_table(ratings.frame, ratings.systems).scores
    if found := uneven(scores, ratings.systems):
        return OWN_VARIANCES, (
            f"every listener rated everything, but scores of {found[1]} vary more than those of {found[0]} "
            "(Pitman and Morgan's test, Holm), so each pair has its own variances"
        )
    return MIXED, (
        f"each of {listeners} listeners rated each of {items} items under all systems, under "
        f"{share} of any system's scores are at an end of the scale, and no test finds that they vary "
        "unequally"
    )


def crowded(ratings: Ratings) -> list[str]:
    """Systems with `CEILING` or more of their scores at an end of the scale."""
    ends = ratings.frame["score"].isin(ratings.ends).groupby(ratings.frame["condition"]).mean()
    return [name for name in ratings.systems if ends[name] >= CEILING]


def uneven(scores: np.ndarray, systems: Sequence[str]) -> tuple[str, str] | None:
    """Two systems of which the first varies less than the second over listeners or items, if a test finds so.

    Tested are deviations from the mean of all systems, over listeners and over items. Two variables have the
    same variance if their sum and their difference do not correlate (Pitman 1939, Morgan 1939). All pairs of
    systems, over both, are corrected after Holm. With only two systems the deviations vary equally.

    Args:
        scores: (listeners, systems, items).
    """
    pairs, p = [], []
    for means in (scores.mean(axis=2), scores.mean(axis=0).T) if len(systems) > 2 else ():
        apart = means - means.mean(axis=1, keepdims=True)
        for a, b in itertools.combinations(range(len(systems)), 2):
            both, between = apart[:, a] + apart[:, b], apart[:, a] - apart[:, b]
            if len(means) > 2 and min(np.ptp(both), np.ptp(between)) > 1e-9:
                r, value = stats.pearsonr(both, between)
                pairs.append((b, a) if r > 0 else (a, b))
                p.append(float(value))
    if not p or min(holm(p)) >= ALPHA:
        return None
    less, more = pairs[int(np.argmin(p))]
    return systems[less], systems[more]


def _row(
    a: str, b: str, n: int, difference: Estimate, margin: float | None, reason: str = ""
) -> dict[str, str | float]:
    low, high = difference.interval()
    return {
        "a": a,
        "b": b,
        "n_listeners": n,
        "estimate": difference.value,
        "ci_low": low,
        "ci_high": high,
        "statistic": difference.statistic,
        "df": difference.df,
        "p": difference.p,
        "margin": math.nan if margin is None else margin,
        "p_equivalence": math.nan if margin is None else difference.p_equivalence(margin),
        "reason": reason,
    }


def _without_test(a: str, b: str, n: int, estimate: float, reason: str) -> dict[str, str | float]:
    """Row of a pair without spread, which cannot be tested; p is 1 if the systems are equal."""
    p = 1.0 if estimate == 0 else math.nan
    return {"a": a, "b": b, "n_listeners": n, "estimate": estimate, "p": p, "reason": reason}


def _own_pair(
    scores: np.ndarray, systems: tuple[str, ...], a: str, b: str, margin: float | None
) -> dict[str, str | float]:
    both = scores[:, [systems.index(a), systems.index(b)]]
    model = full_table_model(both, [a, b])
    if model.reason:
        difference = round(float(both[:, 0].mean() - both[:, 1].mean()), 9)
        return _without_test(a, b, len(scores), difference, model.reason)
    zero = f"variance of {' and '.join(model.at_zero)} set to zero" if model.at_zero else ""
    return _row(a, b, model.n, model.contrasts[a, b], margin, zero)


def _listeners_pair(ratings: Ratings, a: str, b: str, margin: float | None) -> dict[str, str | float]:
    """Row of a pair: Wilcoxon's p; Student's interval and equivalence of the listeners' mean differences."""
    pages = paired_pages(ratings.frame, a, b)
    result = wilcoxon_test(pages)
    means = (pages["a"] - pages["b"]).groupby(pages["listener"]).mean().to_numpy()
    if len(means) < 2 or not np.ptp(means.round(9)):
        reason = result.reason or "all differences are equal"
        row = _without_test(a, b, len(means), float(means.mean()) if len(means) else math.nan, reason)
        return {**row, "statistic": result.statistic, "p": result.p}
    difference = Estimate(float(means.mean()), float(stats.sem(means)), len(means) - 1.0)
    row = _row(a, b, len(means), difference, margin, result.reason)
    return {**row, "statistic": result.statistic, "df": math.nan, "p": result.p}


def _letters(method: str, contrasts: pd.DataFrame, means: dict[str, float]) -> dict[str, str]:
    if contrasts.empty or contrasts["p"].isna().any():
        return {}
    if method == LISTENERS:
        least = max(MIN_PAIRS, least_listeners(len(contrasts)))
        if contrasts["n_listeners"].min() < least:
            return {}
    found = {frozenset((r["a"], r["b"])) for r in contrasts.to_dict("records") if r["p_holm"] < ALPHA}
    different: Callable[[str, str], bool] = lambda a, b: frozenset((a, b)) in found  # noqa: E731
    return compact_letters(sorted(means, key=lambda name: (-means[name], name)), different)
