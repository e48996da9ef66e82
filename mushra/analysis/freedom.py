"""Tests of condition means in a fitted mixed model: degrees of freedom after Satterthwaite and Kenward-Roger.

The covariance of the means is estimated, so a difference divided by its standard error has only approximately
Student's distribution. Both methods use the uncertainty of the variance components. Satterthwaite (1946), for
several contrasts after Fai and Cornelius (1996), gives the degrees of freedom of the estimated covariance, as
lmerTest does. Kenward and Roger (1997) also correct the covariance for few listeners and items, as pbkrtest
does. In a full table the two are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import linalg, sparse, stats

from mushra.analysis.anova import contrasts

CONFIDENCE = 0.95


@dataclass(frozen=True)
class FTest:
    """F with ``df1`` and ``df2`` degrees of freedom."""

    statistic: float
    df1: float
    df2: float

    @property
    def p(self) -> float:
        return float(stats.f.sf(self.statistic, self.df1, self.df2))


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of means, in points, with its standard error and degrees of freedom."""

    value: float
    error: float
    df: float

    @property
    def statistic(self) -> float:
        return self.value / self.error

    @property
    def p(self) -> float:
        """p of the two-sided t test against 0."""
        return float(2 * stats.t.sf(abs(self.statistic), self.df))

    def interval(self) -> tuple[float, float]:
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, self.df)) * self.error
        return self.value - half, self.value + half

    def p_equivalence(self, margin: float) -> float:
        """The larger p of the two one-sided tests (TOST, Schuirmann 1987) that it lies within +-margin."""
        return float(stats.t.sf((margin - abs(self.value)) / self.error, self.df))


@dataclass(frozen=True)
class Fit:
    """Parts of a fitted model that tests of the condition means use.

    Attributes:
        means: (c,). covariance: (c, c) of the means.
        slopes: (k, c, c), derivatives of the covariance by each variance component.
        uncertainty: (k, k), covariance of the estimated components.
    """

    means: np.ndarray
    covariance: np.ndarray
    slopes: np.ndarray
    uncertainty: np.ndarray

    def estimate(self, weights: np.ndarray) -> Estimate:
        """The sum of the means times ``weights`` (c,)."""
        variance = float(weights @ self.covariance @ weights)
        slope = np.einsum("a,kab,b->k", weights, self.slopes, weights)
        df = 2 * variance**2 / float(slope @ self.uncertainty @ slope)
        return Estimate(float(weights @ self.means), math.sqrt(variance), df)

    def test(self) -> FTest:
        """Test that all means are equal."""
        matrix = contrasts(len(self.means))
        _, vectors = np.linalg.eigh(matrix @ self.covariance @ matrix.T)
        parts = [self.estimate(row) for row in vectors.T @ matrix]
        statistic = sum(part.statistic**2 for part in parts) / len(parts)
        return FTest(statistic, float(len(parts)), _joint([part.df for part in parts]))


def _joint(df: Sequence[float]) -> float:
    """Degrees of freedom of an F with the mean of squared independent t variables with ``df``."""
    if max(df) - min(df) < 1e-6 * max(df):
        return float(np.mean(df))
    if min(df) <= 2:
        return 2.0
    expected = sum(one / (one - 2) for one in df)
    return 2 * expected / (expected - len(df))


def balanced_fit(
    means: np.ndarray,
    squares: np.ndarray,
    df: np.ndarray,
    components: np.ndarray,
    sizes: tuple[int, int, int],
) -> Fit:
    """The fit of a full table from its mean squares, which are independent.

    Args:
        squares: (m,) mean squares with ``df`` degrees of freedom each.
        components: (6, m), the variance components as sums of the mean squares, in the order of
            `mushra.analysis.mixed.COMPONENTS`.
        sizes: listeners, conditions, items.
    """
    n, c, i = sizes
    one, own = np.ones((c, c)), np.eye(c)
    slopes = np.stack([one / n, one / i, one / (n * i), own / n, own / i, own / (n * i)])
    covariance = np.tensordot(components @ squares, slopes, 1)
    return Fit(means, covariance, slopes, components @ np.diag(2 * squares**2 / df) @ components.T)


@dataclass(frozen=True)
class _Design:
    """Cross products of the random effects Z, each component's a block, the conditions X and the scores y."""

    blocks: tuple[slice, ...]
    zz: np.ndarray
    zx: np.ndarray
    zy: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: float
    n_ratings: int


def num_effects(frame: pd.DataFrame) -> int:
    """Random effects that `derived_fit` solves for."""
    return sum(frame.groupby(list(keys)).ngroups for keys in _FACTORS)


_FACTORS = (("listener",), ("item",), ("listener", "item"), ("listener", "condition"), ("item", "condition"))


def _design(frame: pd.DataFrame, conditions: Sequence[str], present: np.ndarray) -> _Design:
    rows = np.arange(len(frame))
    parts, blocks, start = [], [], 0
    for keys, there in zip(_FACTORS, present, strict=True):
        if there:
            codes = frame.groupby(list(keys), sort=True).ngroup().to_numpy()
            size = int(codes.max()) + 1
            parts.append(sparse.csr_matrix((np.ones(len(rows)), (rows, codes)), (len(rows), size)))
            blocks.append(slice(start, start + size))
            start += size
    z = sparse.hstack(parts, format="csr") if parts else sparse.csr_matrix((len(rows), 0))
    x = (frame["condition"].to_numpy()[:, None] == np.asarray(conditions)[None, :]).astype(float)
    y = frame["score"].to_numpy(dtype=float)
    y = y - y.mean()  # the squares lose fewer digits
    return _Design(
        tuple(blocks), (z.T @ z).toarray(), z.T @ x, z.T @ y, x.T @ x, x.T @ y, float(y @ y), len(rows)
    )


def derived_fit(
    frame: pd.DataFrame, conditions: Sequence[str], components: np.ndarray
) -> tuple[Fit, FTest, np.ndarray]:
    """The fit at given variance components, from the derivatives of the restricted likelihood.

    V is the covariance of the scores, G_r its derivative by component r, and P = V^-1 - V^-1 X (X'V^-1 X)^-1
    X'V^-1. The observed information of the components is y'P G_r P G_s P y - tr(P G_r P G_s) / 2; its inverse
    is Satterthwaite's uncertainty, as in lmerTest. The expected one is tr(P G_r P G_s) / 2; its inverse is
    Kenward and Roger's. Matrices with a row per rating are not needed: G_r = Z_r Z_r', so Z'PZ is enough, and
    the terms of the residual follow from PVP = P.

    Args:
        frame: ratings of ``conditions``; each has at least one.
        components: (6,) in the order of `mushra.analysis.mixed.COMPONENTS`; those at 0 have no uncertainty.

    Returns:
        The fit, Kenward and Roger's test that all means are equal, and the derivatives of the restricted
        log-likelihood by the components, 0 for those at 0.
    """
    present = components[:-1] > 0
    variances, residual = components[:-1][present], float(components[-1])
    design = _design(frame, conditions, present)
    scale = np.sqrt(np.repeat(variances, [block.stop - block.start for block in design.blocks]) / residual)
    # V^-1 = (1 - Z S (1 + S Z'Z S)^-1 S Z') / residual
    factor = linalg.cholesky(np.eye(len(scale)) + scale[:, None] * design.zz * scale, lower=True)
    sides = np.concatenate([design.zz, design.zx, design.zy[:, None]], axis=1)
    half = linalg.solve_triangular(factor, scale[:, None] * sides, lower=True)
    q, c = len(scale), len(conditions)
    z, x, y = half[:, :q], half[:, q : q + c], half[:, -1]
    zvz = (design.zz - z.T @ z) / residual
    zvx = (design.zx - z.T @ x) / residual
    zvy = (design.zy - z.T @ y) / residual
    xvx = (design.xx - x.T @ x) / residual
    xvy = (design.xy - x.T @ y) / residual
    covariance = np.linalg.inv(xvx)
    means = covariance @ xvy
    zpz = zvz - zvx @ covariance @ zvx.T
    zpy = zvy - zvx @ means
    ypy = (design.yy - float(y @ y)) / residual - float(xvy @ means)

    blocks = design.blocks
    pairs = [[(r, s) for s in blocks] for r in blocks]
    square = (len(blocks), len(blocks))  # of no components, too
    traces = np.array([[(zpz[r, s] ** 2).sum() for r, s in row] for row in pairs]).reshape(square)
    trace = np.array([np.trace(zpz[r, r]) for r in blocks])
    traces, trace = _with_residual(traces, trace, np.array(design.n_ratings - c), variances, residual)
    forms = np.array([[zpy[r] @ zpz[r, s] @ zpy[s] for r, s in row] for row in pairs]).reshape(square)
    form = np.array([zpy[r] @ zpy[r] for r in blocks])
    forms, form = _with_residual(forms, form, np.array(ypy), variances, residual)
    second = np.array([[zvx[r].T @ zvz[r, s] @ zvx[s] for r, s in row] for row in pairs])
    first = np.array([zvx[r].T @ zvx[r] for r in blocks])
    second, first = _with_residual(
        second.reshape(*square, c, c), first.reshape(-1, c, c), xvx, variances, residual
    )

    slopes = covariance @ first @ covariance
    kept = np.append(present, True)
    uncertainty = np.zeros((6, 6))
    uncertainty[np.ix_(kept, kept)] = _positive_inverse(forms - traces / 2)
    all_slopes = np.zeros((6, c, c))
    all_slopes[kept] = slopes
    fit = Fit(means + frame["score"].mean(), covariance, all_slopes, uncertainty)
    test = _kenward_roger(fit.means, covariance, first, second, _positive_inverse(traces / 2))
    gradient = np.zeros(6)
    gradient[kept] = (form - trace) / 2
    return fit, test, gradient


def _with_residual(
    two: np.ndarray, one: np.ndarray, none: np.ndarray, variances: np.ndarray, residual: float
) -> tuple[np.ndarray, np.ndarray]:
    """Append the terms of the residual, whose derivative of V is the identity, to those of the components.

    ``two`` (k, k, ...) are sums with two derivatives of V, ``one`` (k, ...) with one, ``none`` (...) without.
    From sum of v_r G_r + residual = V each follows from the one before.
    """
    k = len(variances)
    one_more = (none - np.tensordot(variances, one, 1)) / residual
    ones = np.concatenate([one, one_more[None]])
    more = (one - np.tensordot(variances, two.swapaxes(0, 1), 1)) / residual
    last = (one_more - np.tensordot(variances, more, 1)) / residual
    twos = np.zeros((k + 1, k + 1, *none.shape))
    twos[:k, :k] = two
    twos[:k, k] = more
    twos[k, :k] = more.swapaxes(-1, -2) if none.ndim else more
    twos[k, k] = last
    return twos, ones


def _positive_inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse in the directions of positive curvature, as in lmerTest; others do not give an uncertainty."""
    scale = 1 / np.sqrt(np.maximum(np.abs(np.diagonal(matrix)), 1e-300))
    values, vectors = np.linalg.eigh(matrix * scale[:, None] * scale)
    good = values > 1e-10 * values.max()
    vectors = vectors[:, good] * scale[:, None]
    return (vectors / values[good]) @ vectors.T


def _kenward_roger(
    means: np.ndarray, covariance: np.ndarray, first: np.ndarray, second: np.ndarray, uncertainty: np.ndarray
) -> FTest:
    """The scaled F test of Kenward and Roger (1997) that all means are equal, V linear in the components.

    ``first`` (k, c, c) is X'V^-1 G_r V^-1 X, ``second`` (k, k, c, c) is X'V^-1 G_r V^-1 G_s V^-1 X.
    """
    matrix = contrasts(len(means))
    rank = len(matrix)
    curved = second - np.einsum("rab,bc,scd->rsad", first, covariance, first)
    correction = np.einsum("rs,rsab->ab", uncertainty, curved)
    adjusted = covariance + 2 * covariance @ (correction + correction.T) / 2 @ covariance
    theta = matrix.T @ np.linalg.solve(matrix @ covariance @ matrix.T, matrix)
    parts = theta @ covariance @ first @ covariance
    single = np.trace(parts, axis1=1, axis2=2)
    a1 = float(single @ uncertainty @ single)
    a2 = float(np.einsum("rs,rab,sba->", uncertainty, parts, parts))
    difference = matrix @ means
    f = float(difference @ np.linalg.solve(matrix @ adjusted @ matrix.T, difference)) / rank
    b = (a1 + 6 * a2) / (2 * rank)
    g = ((rank + 1) * a1 - (rank + 4) * a2) / ((rank + 2) * a2)
    c1, c2, c3 = np.array([g, rank - g, rank + 2 - g]) / (3 * rank + 2 * (1 - g))
    expected = 1 / (1 - a2 / rank)
    variance = 2 / rank * (1 + c1 * b) / ((1 - c2 * b) ** 2 * (1 - c3 * b))
    rho = variance / (2 * expected**2)
    df = 4 + (rank + 2) / (rank * rho - 1)
    return FTest(f * df / (expected * (df - 2)), float(rank), float(df))
