"""Linear mixed model: conditions fixed, listeners and items random, with all their interactions.

    score = mean of the condition + listener + item + listener:item + listener:condition + item:condition
            + residual

With the random terms of the condition its test holds for other listeners and other items; without them
ratings would count as independent (Barr et al. 2013). In a full table the restricted-likelihood estimates
have a closed form in the mean squares. Otherwise the restricted likelihood is maximised, profiled as by Bates
et al. (2015, "Fitting Linear Mixed-Effects Models Using lme4", section 3), after eliminating each listener's
effects. So the time of one evaluation is linear in the number of listeners, and not cubic in the number of
all effects as in a general solver.

A variance cannot be negative, but its estimate from mean squares can. If such a component is used in the test
of conditions (listener:condition, item:condition), it is set to zero and the rest is estimated again; this is
restricted maximum likelihood on the boundary. The test of a full table does not use the other components. If
ratings are missing, it uses all components, and all are kept at zero or above.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy import optimize

from mushra.analysis.anova import balanced_table
from mushra.analysis.freedom import Estimate, Fit, FTest, balanced_fit, derived_fit, num_effects

COMPONENTS = ("listener", "item", "listener:item", "listener:condition", "item:condition", "residual")
CLOSED_FORM = "closed form"
RESTRICTED_LIKELIHOOD = "restricted maximum likelihood"
#: Limits of ratings, and of effects of items and of items by condition, for the search; more take minutes.
MAX_RATINGS = 50_000
MAX_ITEM_EFFECTS = 1000
#: Limit of effects for deriving the uncertainty of the variance components; more take minutes.
MAX_DERIVED_EFFECTS = 2000
#: Reliable digits after the search, and after a step of Newton's method.
_SEARCH_DIGITS, _REFINED_DIGITS = 5, 8
#: A variance up to this share of the residual one counts as zero.
SINGULAR = 1e-6
#: Strata of a full table, in the order of `COMPONENTS`.
_STRATA = ("l", "i", "li", "lc", "ic", "rest")


@dataclass(frozen=True)
class MixedModel:
    """A fitted model, or the reason why there is none.

    Attributes:
        method: `CLOSED_FORM` or `RESTRICTED_LIKELIHOOD`.
        components: variance (points squared) of each of `COMPONENTS`; empty if there is a ``reason``.
        statistic: F of the condition, with ``df1`` and ``df2`` degrees of freedom (Satterthwaite) and ``p``.
        n: listeners. n_ratings: rows used.
        reason: why values are missing: not converged, too few or too many effects.
        at_zero: components of the test that were estimated at zero.
        kenward_roger: the same test after Kenward and Roger; None if it was not derived.
        means: estimate of each condition's mean.
        contrasts: estimate of each pair's difference, the first minus the other.
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
    at_zero: tuple[str, ...] = ()
    kenward_roger: FTest | None = None
    means: dict[str, Estimate] = field(default_factory=dict)
    contrasts: dict[tuple[str, str], Estimate] = field(default_factory=dict)

    def with_test(
        self, fit: Fit, conditions: Sequence[str], kenward_roger: FTest | None, *, digits: int = 0
    ) -> MixedModel:
        """Model with the test of conditions, the means and their differences, to ``digits`` (0: all)."""

        def sure(value: float) -> float:
            return float(f"{value:.{digits}g}") if digits else value

        def estimate(weights: np.ndarray) -> Estimate:
            found = fit.estimate(weights)
            return Estimate(sure(found.value), sure(found.error), sure(found.df))

        test = fit.test()
        test = FTest(sure(test.statistic), test.df1, sure(test.df2))
        if kenward_roger is not None:
            kenward_roger = FTest(sure(kenward_roger.statistic), kenward_roger.df1, sure(kenward_roger.df2))
        own = dict(zip(conditions, np.eye(len(conditions)), strict=True))
        return replace(
            self,
            statistic=test.statistic,
            df1=test.df1,
            df2=test.df2,
            p=sure(test.p),
            kenward_roger=kenward_roger,
            means={name: estimate(weights) for name, weights in own.items()},
            contrasts={(a, b): estimate(own[a] - own[b]) for a, b in itertools.combinations(conditions, 2)},
        )


def mixed_model(frame: pd.DataFrame, conditions: Sequence[str]) -> MixedModel:
    """Fit the model of this module to the ratings of ``conditions``.

    Every rating is used; ratings may be missing.

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
    used = [name for name in conditions if (frame["condition"] == name).any()]
    if len(frame) == math.prod(sizes):
        return full_table_model(balanced_table(frame, used).scores, used)
    return _restricted_likelihood(frame, used)


def full_table_model(scores: np.ndarray, conditions: Sequence[str]) -> MixedModel:
    """The model of a full table from its mean squares.

    Args:
        scores: (listeners, conditions, items), two or more of each.
    """
    n, c, i = scores.shape
    nothing = MixedModel(CLOSED_FORM, n, scores.size)
    found = _mean_squares(scores)
    squares, df = np.array([found[name] for name in _STRATA]), _strata_df(n, c, i)
    merged = _merged(squares, df)
    pooled = merged @ (df * squares) / (merged @ df)
    if pooled[-1] <= 1e-12 * max(float((scores**2).mean()), 1.0):
        return replace(nothing, reason="no error to test against: the effects only add up")
    components = _components_of_squares(c * i, c * n, c, i, n) @ merged.T
    below = components @ pooled <= SINGULAR * pooled[-1]
    components[below] = 0.0
    fit = balanced_fit(scores.mean(axis=(0, 2)), pooled, merged @ df, components, (n, c, i))
    model = replace(
        nothing,
        components=dict(zip(COMPONENTS, map(float, components @ pooled), strict=True)),
        at_zero=tuple(
            name for name, zero in zip(COMPONENTS, below, strict=True) if zero and "condition" in name
        ),
    )
    return model.with_test(fit, conditions, fit.test())  # Kenward and Roger's is the same


def _strata_df(n: int, c: int, i: int) -> np.ndarray:
    sizes = [n - 1, i - 1, (n - 1) * (i - 1), (n - 1) * (c - 1), (i - 1) * (c - 1)]
    return np.array([*sizes, (n - 1) * (c - 1) * (i - 1)], dtype=float)


def _components_of_squares(
    per_listener: float, per_item: float, per_page: float, per_lc: float, per_ic: float
) -> np.ndarray:
    """(6, 6): `COMPONENTS` as sums of the mean squares of `_STRATA`, from ratings per level of an effect."""
    return np.array(
        [
            np.array([1, 0, -1, -1, 0, 1]) / per_listener,
            np.array([0, 1, -1, 0, -1, 1]) / per_item,
            np.array([0, 0, 1, 0, 0, -1]) / per_page,
            np.array([0, 0, 0, 1, 0, -1]) / per_lc,
            np.array([0, 0, 0, 0, 1, -1]) / per_ic,
            np.array([0.0, 0, 0, 0, 0, 1]),
        ]
    )


def _merged(squares: np.ndarray, df: np.ndarray) -> np.ndarray:
    """(m, 6) of 0 and 1: strata that are estimated together.

    If the mean square of listener:condition or item:condition is not above the residual one, the restricted
    likelihood is largest with both pooled, the lowest first (the pool-adjacent-violators algorithm).
    """
    rest = [5]
    for stratum in sorted((3, 4), key=lambda stratum: float(squares[stratum])):
        level = (df[rest] @ squares[rest]) / df[rest].sum()
        if squares[stratum] <= level * (1 + SINGULAR):
            rest.append(stratum)
    rows = [np.eye(6)[stratum] for stratum in range(5) if stratum not in rest]
    return np.array([*rows, np.isin(np.arange(6), rest).astype(float)])


def _mean_squares(scores: np.ndarray) -> dict[str, float]:
    """Mean squares of a full table, `_STRATA`."""
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
        "i": float((item**2).sum() * n * c / (i - 1)),
        "lc": float((lc**2).sum() * i / ((n - 1) * (c - 1))),
        "li": float((li**2).sum() * c / ((n - 1) * (i - 1))),
        "ic": float((ic**2).sum() * n / ((i - 1) * (c - 1))),
        "rest": float((rest**2).sum() / ((n - 1) * (c - 1) * (i - 1))),
    }


@dataclass(frozen=True)
class _Products:
    """Cross products of the design; effects of listeners are separate from items, conditions and scores.

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
    # Subtracting the mean does not change the model, and the squares lose fewer digits.
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
    """Log determinant of the listeners' part, and the Cholesky factor of the rest.

    Args:
        ratios: (5,) variances of all `COMPONENTS` but the last, divided by the last.
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
    """Restricted deviance up to a constant, with residual variance and condition means profiled out."""
    log_determinant, lower = _factor(ratios, products)
    diagonal = np.diagonal(lower)
    freedom = products.n_ratings - products.c
    return float(log_determinant + 2 * np.log(diagonal[:-1]).sum() + freedom * 2 * np.log(diagonal[-1]))


def _restricted_likelihood(frame: pd.DataFrame, conditions: Sequence[str]) -> MixedModel:
    n, i, c = (frame[name].nunique() for name in ("listener", "item", "condition"))
    nothing = MixedModel(RESTRICTED_LIKELIHOOD, n, len(frame))
    if len(frame) > MAX_RATINGS or i + i * c > MAX_ITEM_EFFECTS:
        reason = (
            f"some ratings are missing, and {len(frame)} ratings with {i + i * c} item effects exceed the "
        )
        reason += f"limits of the search ({MAX_RATINGS} and {MAX_ITEM_EFFECTS})"
        return replace(nothing, reason=f"{reason}; rely on the analysis of variance")
    products = _products(frame, conditions)
    try:
        ratios, failure = _search(products)
        if failure:
            return replace(nothing, reason=f"not converged: {failure}")
        _, lower = _factor(ratios, products)
    except np.linalg.LinAlgError as error:
        return replace(nothing, reason=f"not converged: {error}")
    residual = float(lower[-1, -1] ** 2 / (products.n_ratings - products.c))
    components = np.append(ratios, 1.0) * residual
    if num_effects(frame) <= MAX_DERIVED_EFFECTS:
        digits, components, fit, kenward_roger = _derived(frame, conditions, components)
    else:
        fit, kenward_roger, digits = _average_fit(frame, products, lower, components), None, _SEARCH_DIGITS
    # Further digits would depend on the processor and the number of threads.
    sure = {name: float(f"{value:.{digits}g}") for name, value in zip(COMPONENTS, components, strict=True)}
    zero = tuple(name for name, variance in sure.items() if variance == 0)
    model = replace(nothing, components=sure, at_zero=zero)
    return model.with_test(fit, conditions, kenward_roger, digits=digits)


def _derived(
    frame: pd.DataFrame, conditions: Sequence[str], components: np.ndarray
) -> tuple[int, np.ndarray, Fit, FTest]:
    """Digits, components, fit and Kenward and Roger's test, after up to three steps of Newton's method."""
    fit, test, gradient = derived_fit(frame, conditions, components)
    for _ in range(3):
        step = fit.uncertainty @ gradient
        if (np.abs(step) <= 1e-10 * components).all():
            return _REFINED_DIGITS, components, fit, test
        if (np.abs(step) > 0.01 * components).any():
            break
        components = components + step
        fit, test, gradient = derived_fit(frame, conditions, components)
    return _SEARCH_DIGITS, components, fit, test


def _search(products: _Products) -> tuple[np.ndarray, str]:
    """(5,) ratios of variances to the residual one that maximise the restricted likelihood; or an error."""
    free, ratios = np.ones(5, dtype=bool), np.full(5, 0.3)

    def deviance(some: np.ndarray) -> float:
        whole = np.zeros(5)
        whole[free] = some
        return _deviance(whole, products)

    for _ in range(5):
        bounds = [(0.0, 1e6)] * int(free.sum())
        # Rounding of the deviance can prevent a narrow tolerance, or any gradient.
        for narrow, gradient in ((True, True), (False, True), (False, False)):
            found = optimize.minimize(
                deviance,
                ratios[free],
                method="L-BFGS-B" if gradient else "Powell",
                bounds=bounds,
                options={"ftol": 1e-11, "gtol": 1e-5} if narrow else {},
            )
            ratios[free] = found.x
            if found.success and math.isfinite(found.fun):
                break
        else:
            return ratios, str(found.message)
        # A variance at zero is set to it, and the rest is fitted again.
        zero = free & (ratios <= SINGULAR)
        ratios[zero] = 0.0
        free &= ~zero
        if not zero.any() or not free.any():
            break
    return ratios, ""


def _average_fit(frame: pd.DataFrame, products: _Products, lower: np.ndarray, components: np.ndarray) -> Fit:
    """The fit of a large table; the uncertainty is that of a full table with the average numbers."""
    n, c, i, ratings = products.n, products.c, products.i, products.n_ratings
    pages = frame.groupby(["listener", "item"]).ngroups
    of_squares = _components_of_squares(
        ratings / n, ratings / i, ratings / pages, ratings / (n * c), ratings / (i * c)
    )
    squares = np.linalg.solve(of_squares, components)
    of_squares[components == 0] = 0.0
    part = lower[products.n_random : -1, products.n_random : -1]
    inverse = np.linalg.inv(part)
    covariance = inverse.T @ inverse * (lower[-1, -1] ** 2 / (ratings - c))
    means = np.linalg.solve(part.T, lower[-1, products.n_random : -1]) + float(frame["score"].mean())
    fit = balanced_fit(means, squares, _strata_df(n, c, i), of_squares, (n, c, i))
    return replace(fit, covariance=covariance)
