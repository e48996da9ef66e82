"""Repeated-measures analysis of variance: condition and item within listeners, with sphericity corrected.

Scores are not averaged over material first (BS.1534-3). Each effect is tested against its interaction with
the listener, so the result holds for other listeners and the same items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

EFFECTS = ("condition", "item", "condition:item")
ANOVA_COLUMNS = ["effect", "statistic", "df1", "df2", "p", "epsilon_gg", "p_gg", "epsilon_hf", "p_hf"]
ANOVA_COLUMNS += ["partial_eta_squared", "generalized_eta_squared", "n", "reason"]


@dataclass(frozen=True)
class Balanced:
    """The part of the ratings that is a full table.

    ``scores`` is (listeners, conditions, items); ``left_out`` describes what is not in it, or is "".
    """

    scores: np.ndarray
    listeners: tuple[str, ...]
    items: tuple[str, ...]
    left_out: str


def balanced_table(frame: pd.DataFrame, conditions: Sequence[str]) -> Balanced:
    """The full table that is left without missing cells; scores are not imputed.

    Items that nobody rated under all of ``conditions`` are removed first, then listeners who lack any of the
    remaining scores.
    """
    wide = frame[frame["condition"].isin(conditions)]
    wide = wide.pivot(index=["listener", "item"], columns="condition", values="score")
    wide = wide.reindex(columns=list(conditions))
    full = wide.dropna()
    all_items = wide.index.get_level_values("item").unique()
    all_listeners = wide.index.get_level_values("listener").unique()
    items = tuple(sorted(full.index.get_level_values("item").unique()))
    pages = full.groupby(level="listener").size()
    listeners = tuple(sorted(pages[pages == len(items)].index))
    chosen = pd.MultiIndex.from_product([listeners, items], names=["listener", "item"])
    scores = full.reindex(chosen).to_numpy().reshape(len(listeners), len(items), len(conditions))
    lost = []
    if len(items) < len(all_items):
        lost.append(f"{len(all_items) - len(items)} of {len(all_items)} items")
    if len(listeners) < len(all_listeners):
        lost.append(f"{len(all_listeners) - len(listeners)} of {len(all_listeners)} listeners")
    left_out = f"left out for missing scores: {' and '.join(lost)}" if lost else ""
    return Balanced(scores.transpose(0, 2, 1), listeners, items, left_out)


def contrasts(levels: int) -> np.ndarray:
    """(levels - 1, levels): orthonormal rows, each with sum 0 (Helmert's)."""
    rows = np.arange(1, levels)
    matrix = np.tril(np.ones((levels, levels)), -1)[1:]
    matrix[np.arange(levels - 1), rows] = -rows
    return matrix / np.sqrt(rows * (rows + 1.0))[:, None]


def epsilons(covariance: np.ndarray, n: int) -> tuple[float, float]:
    """Epsilon of Greenhouse and Geisser (1959) and of Huynh and Feldt (1976), which is at most 1.

    Args:
        covariance: (d, d), of d orthonormal contrasts over ``n`` listeners.
    """
    d = len(covariance)
    greenhouse = float(np.trace(covariance) ** 2 / (d * (covariance**2).sum()))
    denominator = d * (n - 1 - d * greenhouse)
    # With d >= n - 1 contrasts the estimate of Greenhouse and Geisser cannot exceed (n - 1) / d.
    if denominator <= 0:
        return greenhouse, 1.0
    return greenhouse, min(max((n * d * greenhouse - 2) / denominator, greenhouse), 1.0)


def rm_anova(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Condition, item and condition x item within listeners: one row per effect, `ANOVA_COLUMNS`.

    ``p`` assumes sphericity, ``p_gg`` and ``p_hf`` multiply both degrees of freedom by the epsilons.
    ``partial_eta_squared`` is SS / (SS + SS error), ``generalized_eta_squared`` SS / (SS + all SS that
    involve the listener) (Olejnik and Algina 2003). ``n`` counts listeners. What is NaN has a ``reason``;
    it also names what the rule of `balanced_table` left out.
    """
    table = balanced_table(frame, conditions)
    n, c, i = table.scores.shape
    if n < 2 or c < 2:
        reason = f"needs 2 listeners with all scores and 2 conditions, there are {n} and {c}"
        reason = "; ".join(r for r in (reason, table.left_out) if r)
        return pd.DataFrame([_nothing(effect, n, reason) for effect in EFFECTS], columns=ANOVA_COLUMNS)
    average_c, average_i = np.full((1, c), c**-0.5), np.full((1, i), i**-0.5)
    matrices = {
        "condition": np.kron(contrasts(c), average_i),
        "item": np.kron(average_c, contrasts(i)),
        "condition:item": np.kron(contrasts(c), contrasts(i)),
    }
    # On orthonormal contrasts every sum of squares is a sum of squares of contrasts.
    flat = table.scores.reshape(n, c * i)
    between = float(((flat.mean(axis=1) - flat.mean()) ** 2).sum() * c * i)
    effects = {}
    for effect, matrix in matrices.items():
        projected = np.einsum("dk,nk->nd", matrix, flat)
        mean = projected.mean(axis=0)
        effects[effect] = (projected, float(n * (mean**2).sum()), float(((projected - mean) ** 2).sum()))
    involved = between + sum(error for _, _, error in effects.values())
    # If nothing varies, rounding leaves about 1e-16 of the scale.
    negligible = 1e-12 * max(float((flat**2).sum()), 1.0)
    rows = []
    for effect, (projected, squares, error) in effects.items():
        df1 = projected.shape[1]
        if df1 == 0:
            rows.append(_nothing(effect, n, "there is only one item"))
            continue
        if error <= negligible:
            rows.append(_nothing(effect, n, "the listeners do not differ in it: no error to test against"))
            continue
        df2 = df1 * (n - 1)
        statistic = squares / df1 / (error / df2)
        covariance = np.atleast_2d(np.cov(projected, rowvar=False))
        gg, hf = epsilons(covariance, n)
        rows.append(
            {
                "effect": effect,
                "statistic": statistic,
                "df1": df1,
                "df2": df2,
                "p": float(stats.f.sf(statistic, df1, df2)),
                "epsilon_gg": gg,
                "p_gg": float(stats.f.sf(statistic, gg * df1, gg * df2)),
                "epsilon_hf": hf,
                "p_hf": float(stats.f.sf(statistic, hf * df1, hf * df2)),
                "partial_eta_squared": squares / (squares + error),
                "generalized_eta_squared": squares / (squares + involved),
                "n": n,
                "reason": table.left_out,
            }
        )
    return pd.DataFrame(rows, columns=ANOVA_COLUMNS)


def _nothing(effect: str, n: int, reason: str) -> dict[str, float | str]:
    return {**dict.fromkeys(ANOVA_COLUMNS, math.nan), "effect": effect, "n": n, "reason": reason}
