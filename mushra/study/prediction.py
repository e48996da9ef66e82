"""Error of scores that a metric predicts, after ITU-T P.1401 (01/2020).

A metric is mapped to the scale of the scores by the monotone polynomial of third order that fits best
(section 7.3.2). The error is given as the root mean square (7.5.1) and as the share of outliers: points that
are further off than the 95 % interval of their own mean score (7.5.2.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

#: Free coefficients of the mapping; the error has as many degrees of freedom less than points.
NUM_COEFFICIENTS = 4

# Grid of double roots of the slope; a finer one would change only the last digits.
_ROOTS = np.linspace(-1, 1, 401)


@dataclass(frozen=True)
class Prediction:
    """A mapped metric and its error.

    Attributes:
        coefficients: c0 + c1 x + c2 x^2 + c3 x^3 predicts the score of a point with metric x.
        rmse: sqrt(sum of squared errors / (n - 4)).
        outlier_ratio: share of the points with an interval; NaN if none has one.
        reason: why all values are NaN; "" otherwise.
    """

    coefficients: tuple[float, ...] = (math.nan,) * NUM_COEFFICIENTS
    rmse: float = math.nan
    outlier_ratio: float = math.nan
    reason: str = ""


def reach(scores: np.ndarray) -> np.ndarray:
    """Half the 95 % interval of each mean over listeners (Student's t), NaN with fewer than two scores.

    Args:
        scores: (listeners, ...), NaN if missing.
    """
    count = np.isfinite(scores).sum(axis=0)
    known = np.maximum(count, 2)
    mean = np.nansum(scores, axis=0) / np.maximum(count, 1)
    spread = np.sqrt(np.nansum((scores - mean) ** 2, axis=0) / (known - 1))
    return np.where(count > 1, stats.t.ppf(0.975, known - 1) * spread / np.sqrt(known), math.nan)


def mapping(x: np.ndarray, y: np.ndarray, *, rising: bool) -> np.ndarray:
    """Coefficients (4,), lowest first, of the cubic that fits y best and never falls over the range of x.

    A slope that is not negative on [-1, 1] is a sum of (t - r)^2, r in [-1, 1], and 1 - t^2 with weights that
    are not negative (Markov and Lukacs; Szego, "Orthogonal Polynomials", theorem 1.21.1). So the fit is one
    of non-negative least squares.

    Args:
        x: finite, not all equal.
        y: same shape.
        rising: False for a mapping that never rises.
    """
    middle, half = (x.max() + x.min()) / 2, (x.max() - x.min()) / 2
    t = (x - middle) / half
    powers = np.stack([t, t**2, t**3], axis=1)
    # Integrals of (t - r)^2 = r^2 - 2 r t + t^2 and of 1 - t^2, as coefficients of t, t^2, t^3.
    squares = np.stack([_ROOTS**2, -_ROOTS, np.full_like(_ROOTS, 1 / 3)])
    slopes = np.concatenate([squares, [[1.0], [0.0], [-1 / 3]]], axis=1)
    basis = powers @ slopes
    sign = 1 if rising else -1
    weights = optimize.nnls(basis - basis.mean(axis=0), sign * (y - y.mean()))[0]
    of_t = sign * (slopes @ weights)
    offset = y.mean() - (powers @ of_t).mean()
    found = np.polynomial.Polynomial([offset, *of_t])(np.polynomial.Polynomial([-middle / half, 1 / half]))
    return np.resize(np.append(found.coef, np.zeros(NUM_COEFFICIENTS)), NUM_COEFFICIENTS)


def predict(x: np.ndarray, y: np.ndarray, reach_of_y: np.ndarray, *, rising: bool) -> Prediction:
    """Map finite ``x`` to finite ``y``; ``reach_of_y`` is half the interval of each of ``y``."""
    if len(x) <= NUM_COEFFICIENTS:
        return Prediction(reason=f"{len(x)} points: the mapping needs more than {NUM_COEFFICIENTS}")
    if x.max() == x.min():
        return Prediction(reason="all values of the metric are equal")
    found = mapping(x, y, rising=rising)
    error = np.abs(y - np.polynomial.Polynomial(found)(x))
    known = np.isfinite(reach_of_y)
    return Prediction(
        tuple(float(value) for value in found),
        math.sqrt(float((error**2).sum()) / (len(x) - NUM_COEFFICIENTS)),
        float(np.mean(error[known] > reach_of_y[known])) if known.any() else math.nan,
    )
