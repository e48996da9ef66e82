"""Correlation coefficients of two vectors, and intervals of them from bootstrap resamples."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from evaluation.statistics.bootstrap import expanded_tail
from qincodec.core.errors import count

COEFFICIENTS = ("pearson", "spearman", "kendall")
#: Two points always lie on a line.
MIN_POINTS = 3

_MOST_PAIRWISE = 250


def coefficients(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, float, float], str]:
    """Pearson's r, Spearman's rho, Kendall's tau-b of two finite vectors, or NaN and the reason."""
    if len(x) < MIN_POINTS:
        return (math.nan,) * 3, f"{count(len(x), 'point')}: a correlation needs {MIN_POINTS}"
    for what, values in (("values of the metric", x), ("scores", y)):
        if values.max() == values.min():
            return (math.nan,) * 3, f"all {what} are equal"
    ranks = stats.rankdata(np.stack([x, y]), axis=1)
    return (_pearson(x, y), _pearson(ranks[0], ranks[1]), _kendall(x, y)), ""


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    # The squares of tiny deviations would vanish without scaling.
    x, y = (v - v.mean() for v in (x, y))
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    return float(np.clip((x * y).sum() / math.sqrt(float((x * x).sum()) * float((y * y).sum())), -1, 1))


def _kendall(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) > _MOST_PAIRWISE:  # O(n log n), but with ten times the overhead
        return float(stats.kendalltau(x, y, method="asymptotic").statistic)
    signs_x, signs_y = (np.sign(v[:, None] - v) for v in (x, y))
    untied = float((signs_x**2).sum()) * float((signs_y**2).sum())
    return float((signs_x * signs_y).sum()) / math.sqrt(untied)


def coefficient_interval(point: float, sample: np.ndarray, units: int) -> tuple[float, float]:
    """95 % interval of a correlation coefficient from its finite bootstrap resamples.

    It covers the percentiles, expanded for few units (`evaluation.statistics.bootstrap.expanded_tail`), and
    the point. Noise of a test pulls coefficients towards 0, and that of its resamples pulls again, so
    percentiles alone lie too near to 0. The end away from 0 is therefore at least as far from the point as
    the other one, on Fisher's z scale.

    Args:
        units: the smaller number of listeners and items drawn.
    """
    low, high = difference_interval(point, sample, units)
    if abs(point) >= 1:
        return low, high
    z = math.atanh(point)
    if point > 0 and low > -1:
        high = max(high, math.tanh(2 * z - math.atanh(low)))
    elif point < 0 and high < 1:
        low = min(low, math.tanh(2 * z - math.atanh(high)))
    return low, high


def difference_interval(point: float, sample: np.ndarray, units: int) -> tuple[float, float]:
    """95 % interval of a difference: it covers expanded percentiles and the point.

    Arguments are those of `coefficient_interval`.
    """
    tail = expanded_tail(max(units, 2))
    low, high = np.quantile(sample, [tail, 1 - tail])
    return min(float(low), point), max(float(high), point)
