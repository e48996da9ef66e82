"""Linear mixed model: conditions fixed, listeners and items random, with all their interactions.

    score = mean of the condition + listener + item + listener:item + listener:condition + item:condition
            + residual

The random terms of the condition are what makes its test hold for other listeners and other items; without
them ratings would count as independent (Barr et al. 2013). In a full table the restricted-likelihood
estimates are known in closed form from the mean squares. Otherwise the restricted likelihood is maximised,
profiled as by Bates et al. (2015, "Fitting Linear Mixed-Effects Models Using lme4", section 3) and with each
listener's effects eliminated first: one evaluation is linear in the number of listeners, where a general
solver takes the cube of the number of all effects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy import optimize, stats

from mushra.analysis.anova import balanced_table, contrasts

COMPONENTS = ("listener", "item", "listener:item", "listener:condition", "item:condition", "residual")
CLOSED_FORM = "closed form"
RESTRICTED_LIKELIHOOD = "restricted maximum likelihood"
#: Ratings, and effects of items and of items by condition, that the search takes; more cost minutes.
MAX_RATINGS = 50_000
MAX_ITEM_EFFECTS = 1000
#: Significant digits that the search finds for certain.
_SEARCH_DIGITS = 5
#: A variance below this part of the residual one is zero.
_SINGULAR = 1e-6


@dataclass(frozen=True)
class MixedModel:
    """A fitted model, or why there is none.

    Attributes:
        method: `CLOSED_FORM` or `RESTRICTED_LIKELIHOOD`.
        components: variance (points squared) of each of `COMPONENTS`; empty if there is a ``reason``.
        statistic: F of the condition, with ``df1`` and ``df2`` degrees of freedom (Satterthwaite) and ``p``.
        n: listeners. n_ratings: rows used.
        reason: why there are no figures: singular, not converged, too few or too many effects.
    """

    method: str
    n: int
    n_ratings: int
    components: dict[str, float] = field(default_factory=dict)
    statistic: float = math.nan
    df1: float = math.nan
    df2: float = math.nan
    p: float = math.nan
    reason: str = ""


def mixed_model(frame: pd.DataFrame, conditions: Sequence[str]) -> MixedModel:
    """Fit the model of this module to the ratings of ``conditions``.

    Every rating is used; missing ones need no rule here. A variance at zero makes the model singular: it
    then claims more than the data can tell, so it gives a reason instead of figures.

    Args:
        frame: the tidy table.
        conditions: two or more.
    """
    frame = frame[frame["condition"].isin(conditions)]
    sizes = [frame[name].nunique() for name in ("listener", "item", "condition")]
    if min(sizes) < 2:
        reason = "needs 2 listeners, 2 items and 2 conditions, there are {}, {} and {}".format(*sizes)
        return MixedModel(RESTRICTED_LIKELIHOOD, sizes[0], len(frame), reason=reason)
    if np.ptp(frame["score"].to_numpy()) == 0:
        return MixedModel(CLOSED_FORM, sizes[0], len(frame), reason="all scores are equal")
    if len(frame) == math.prod(sizes):
        return _closed_form(balanced_table(frame, conditions).scores)
    return _restricted_likelihood(frame, conditions)


def _closed_form(scores: np.ndarray) -> MixedModel:
    """Variance components of a full table (listeners, conditions, items) from its mean squares."""
    n, c, i = scores.shape
    squares = _mean_squares(scores)
    rest = squares["rest"]
    components = {
        "listener": (squares["l"] - squares["li"] - squares["lc"] + rest) / (c * i),
        "item": (squares["i"] - squares["li"] - squares["ic"] + rest) / (c * n),
        "listener:item": (squares["li"] - rest) / c,
        "listener:condition": (squares["lc"] - rest) / i,
        "item:condition": (squares["ic"] - rest) / n,
        "residual": rest,
    }
    if reason := _singular(components):
        return MixedModel(CLOSED_FORM, n, scores.size, reason=reason)
    return _with_test(CLOSED_FORM, components, squares["c"], (n, c, i), scores.size)


def _mean_squares(scores: np.ndarray) -> dict[str, float]:
    """Mean squares of a full table: l, c, i and their interactions; ``rest`` is that of all three."""
    n, c, i = scores.shape
    total = scores.mean()
    listener, condition, item = (scores.mean(axis=axes) - total for axes in ((1, 2), (0, 2), (0, 1)))
    lc = scores.mean(axis=2) - total - listener[:, None] - condition
    li = scores.mean(axis=1) - total - listener[:, None] - item
    ic = scores.mean(axis=0).T - total - item[:, None] - condition
    rest = scores - total - listener[:, None, None] - condition[:, None] - item
    rest = rest - lc[:, :, None] - li[:, None, :] - ic.T
    return {
        "l": float((listener**2).sum() * c * i / (n - 1)),
        "c": float((condition**2).sum() * n * i / (c - 1)),
        "i": float((item**2).sum() * n * c / (i - 1)),
        "lc": float((lc**2).sum() * i / ((n - 1) * (c - 1))),
        "li": float((li**2).sum() * c / ((n - 1) * (i - 1))),
        "ic": float((ic**2).sum() * n / ((i - 1) * (c - 1))),
        "rest": float((rest**2).sum() / ((n - 1) * (c - 1) * (i - 1))),
    }


def _singular(components: dict[str, float]) -> str:
    limit = _SINGULAR * max(components["residual"], _SINGULAR)
    zero = [name for name, variance in components.items() if variance <= limit]
    if not zero:
        return ""
    return f"singular: no variance is left for {', '.join(zero)}; rely on the analysis of variance"


def _with_test(
    method: str, components: dict[str, float], square: float, sizes: tuple[int, int, int], n_ratings: int
) -> MixedModel:
    """The F test of the condition: its mean square over the combination that has the same expectation.

    ``sizes`` are listeners, conditions, items. Where ratings are missing, the average numbers of items per
    listener and of listeners per item stand for them in the degrees of freedom.
    """
    n, c, i = sizes
    per_listener, per_item = n_ratings / (n * c), n_ratings / (i * c)
    rest = components["residual"]
    squares = np.array(
        [
            rest + per_listener * components["listener:condition"],
            rest + per_item * components["item:condition"],
            -rest,
        ]
    )
    df = (c - 1.0) * np.array([n - 1.0, i - 1.0, (n - 1.0) * (i - 1.0)])
    error = float(squares.sum())
    df2 = error**2 / float((squares**2 / df).sum())
    statistic = square / error
    return MixedModel(
        method, n, n_ratings, components, statistic, c - 1.0, df2, float(stats.f.sf(statistic, c - 1, df2))
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{_SEARCH_DIGITS}g}")


@dataclass(frozen=True)
class _Products:
    """Cross products of the design, effects of listeners apart from those of items, conditions, scores.

    ``own`` (listeners, b, b) of each listener's b = 1 + items + conditions effects; ``cross``
    (listeners, b, m) of these with the m = items + items x conditions + conditions + 1 shared columns;
    ``shared`` (m, m).
    """

    own: np.ndarray
    cross: np.ndarray
    shared: np.ndarray
    n: int
    c: int
    i: int
    n_ratings: int

    @property
    def n_random(self) -> int:
        return self.i + self.i * self.c


def _products(frame: pd.DataFrame, conditions: Sequence[str]) -> _Products:
    listener, names = pd.factorize(frame["listener"], sort=True)
    item, items = pd.factorize(frame["item"], sort=True)
    used = [name for name in conditions if (frame["condition"] == name).any()]
    condition = pd.Categorical(frame["condition"], categories=used).codes.astype(int)
    n, i, c = len(names), len(items), len(used)
    there = np.zeros((n, i, c))
    there[listener, item, condition] = 1.0
    score = np.zeros((n, i, c))
    # The mean does not change the model and costs digits in the squares.
    score[listener, item, condition] = frame["score"].to_numpy(dtype=float)
    score -= there * (score.sum() / there.sum())
    # Each cell (i, c) of a listener has these effects and these shared columns.
    cells = [(j, k) for j in range(i) for k in range(c)]
    own = np.zeros((i * c, 1 + i + c))
    shared = np.zeros((i * c, i + i * c + c))
    for row, (j, k) in enumerate(cells):
        own[row, [0, 1 + j, 1 + i + k]] = 1.0
        shared[row, [j, i + row, i + i * c + k]] = 1.0
    weight = there.reshape(n, -1)
    value = score.reshape(n, -1)
    own_products = np.einsum("rb,nr,rd->nbd", own, weight, own, optimize=True)
    cross = np.einsum("rb,nr,rm->nbm", own, weight, shared, optimize=True)
    cross_score = np.einsum("rb,nr->nb", own, value)
    total = shared.T @ (weight.sum(axis=0)[:, None] * shared)
    total_score = shared.T @ value.sum(axis=0)
    everything = np.block(
        [[total, total_score[:, None]], [total_score[None, :], np.array([[(value**2).sum()]])]]
    )
    return _Products(
        own_products,
        np.concatenate([cross, cross_score[:, :, None]], axis=2),
        everything,
        n,
        c,
        i,
        len(frame),
    )


def _factor(ratios: np.ndarray, products: _Products) -> tuple[float, np.ndarray]:
    """Log determinant of the listeners' part, and the Cholesky factor of what is left after them.

    Args:
        ratios: (5,) variances of all `COMPONENTS` but the last over that one.
    """
    listener, item, listener_item, listener_condition, item_condition = np.sqrt(ratios)
    c, i = products.c, products.i
    own = np.concatenate([[listener], np.full(i, listener_item), np.full(c, listener_condition)])
    shared = np.concatenate([np.full(i, item), np.full(i * c, item_condition), np.ones(c + 1)])
    block = own[:, None] * products.own * own + np.eye(len(own))
    lower = np.linalg.cholesky(block)
    half = (np.linalg.inv(lower) * own) @ products.cross
    half = half.reshape(-1, half.shape[-1])
    left = shared[:, None] * (products.shared - half.T @ half) * shared
    left[np.diag_indices(products.n_random)] += 1.0
    log_determinant = 2 * float(np.log(np.diagonal(lower, axis1=1, axis2=2)).sum())
    return log_determinant, np.linalg.cholesky(left)


def _deviance(ratios: np.ndarray, products: _Products) -> float:
    """Restricted deviance, residual variance and condition means profiled out, up to a constant."""
    log_determinant, lower = _factor(ratios, products)
    diagonal = np.diagonal(lower)
    freedom = products.n_ratings - products.c
    return float(log_determinant + 2 * np.log(diagonal[:-1]).sum() + freedom * 2 * np.log(diagonal[-1]))


def _restricted_likelihood(frame: pd.DataFrame, conditions: Sequence[str]) -> MixedModel:
    n, i, c = (frame[name].nunique() for name in ("listener", "item", "condition"))
    nothing = MixedModel(RESTRICTED_LIKELIHOOD, n, len(frame))
    if len(frame) > MAX_RATINGS or i + i * c > MAX_ITEM_EFFECTS:
        reason = (
            f"some ratings are missing, and {len(frame)} ratings with {i + i * c} item effects exceed what "
        )
        reason += f"the search takes ({MAX_RATINGS} and {MAX_ITEM_EFFECTS})"
        return replace(nothing, reason=f"{reason}; rely on the analysis of variance")
    products = _products(frame, conditions)
    bounds = [(0.0, 1e6)] * 5
    try:
        found = optimize.minimize(
            _deviance,
            np.full(5, 0.3),
            args=(products,),
            method="L-BFGS-B",
            bounds=bounds,
            options={"ftol": 1e-11, "gtol": 1e-5},
        )
        if not found.success:
            # Differences of the deviance can be too coarse for so narrow a tolerance.
            found = optimize.minimize(_deviance, found.x, args=(products,), method="L-BFGS-B", bounds=bounds)
        _, lower = _factor(found.x, products)
    except np.linalg.LinAlgError as error:
        return replace(nothing, reason=f"not converged: {error}")
    if not found.success or not math.isfinite(found.fun):
        return replace(nothing, reason=f"not converged: {found.message}")
    residual = float(lower[-1, -1] ** 2 / (products.n_ratings - products.c))
    components = dict(zip(COMPONENTS, [*(float(r) * residual for r in found.x), residual], strict=True))
    if reason := _singular(components):
        return replace(nothing, reason=reason)
    # Wald's F of the condition means, then scaled to the mean square that `_with_test` divides.
    part = lower[products.n_random : -1, products.n_random : -1]
    means = np.linalg.solve(part.T, lower[-1, products.n_random : -1])
    inverse = np.linalg.inv(part)
    helmert = contrasts(products.c)
    difference = helmert @ means
    covariance = helmert @ (inverse.T @ inverse) @ helmert.T * residual
    wald = float(difference @ np.linalg.solve(covariance, difference)) / (products.c - 1)
    model = _with_test(RESTRICTED_LIKELIHOOD, components, 1.0, (n, c, i), len(frame))
    p = float(stats.f.sf(wald, model.df1, model.df2))
    # Further digits would depend on the processor and the number of threads.
    sure = {name: _rounded(variance) for name, variance in components.items()}
    return replace(model, components=sure, statistic=_rounded(wald), df2=_rounded(model.df2), p=_rounded(p))
