"""Limits of intervals for few recordings, or for values with a long tail.

Resampling knows only the values that were drawn. If values are skewed or a few are outliers, intervals of
means miss the true mean in more than 5 % of cases. `needed` says when, `MEASURED` how often. The median's
interval from order statistics covers 95 % for any distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.lazy import Lazy

if TYPE_CHECKING:
    from scipy import stats
else:  # lazy: its import would delay the start of a run
    stats = Lazy("scipy.stats")

#: With fewer recordings, the interval of a mean may cover less than 95 %.
FEW_RECORDINGS = 20
#: With fewer recordings, a median has no 95 % interval (`median`).
MEDIAN_RECORDINGS = 6
#: Cochran's rule of thumb ("Sampling Techniques", 3rd edition, 1977): n above 25 times the
#: squared skewness, or a 95 % interval of a mean fails in more than 6 % of all samples.
COCHRAN = 25
#: Number of recordings, and how often the printed 95 % interval of a mean held the true mean for three kinds
#: of values: normal; with a long tail (lognormal, sigma 1); with 5 % outliers (-60 dB, the others 10 dB,
#: sigma 4 dB). Each from 2000 data sets or more; `pytest -m long tests/evaluation/statistics/test_few.py`
#: repeats it.
MEASURED = (
    (2, 0.50, 0.41, 0.37),
    (4, 0.88, 0.78, 0.64),
    (6, 0.93, 0.83, 0.65),
    (8, 0.94, 0.84, 0.59),
    (10, 0.95, 0.85, 0.57),
    (15, 0.95, 0.87, 0.57),
)


@dataclass(frozen=True)
class Median:
    """Median over recordings and its 95 % interval; NaN without values, ends NaN with fewer than six."""

    value: float
    low: float
    high: float


def recording_sums(recordings: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of each recording's values, in the order of the recordings. The bits do not depend on
    the order of the values."""
    if len(values) == 0:
        return np.empty(0), np.empty(0)
    # Sorted first: floating-point sums depend on the order of their terms.
    order = np.lexsort((values, recordings))
    names = recordings[order]
    group = np.concatenate([[0], np.cumsum(names[1:] != names[:-1])])
    return np.bincount(group, weights=values[order]), np.bincount(group).astype(float)


def recording_means(recordings: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of each recording's values. The bits do not depend on the order of the values."""
    sums, counts = recording_sums(recordings, values)
    return sums / counts


def median(values: np.ndarray) -> Median:
    """Median of independent values with its interval from order statistics.

    The k-th smallest and k-th largest value enclose the median of the population with probability
    1 - 2 P(B < k), B binomial(n, 1/2), for any distribution (David and Nagaraja, "Order Statistics",
    3rd edition, 2003, section 7.1); k is the largest with 95 % or more. Fewer than six values have no
    interval.
    """
    ordered = np.sort(values)
    if len(ordered) == 0:
        return Median(math.nan, math.nan, math.nan)
    middle = float(np.median(ordered))
    # The smallest k with P(B <= k) >= 2.5 % is the largest with P(B < k) < 2.5 %.
    k = int(stats.binom.ppf(0.025, len(ordered), 0.5))
    if k == 0:
        return Median(middle, math.nan, math.nan)
    return Median(middle, float(ordered[k - 1]), float(ordered[-k]))


def needed(values: np.ndarray) -> int:
    """Number of recordings that the interval of a mean of such values needs (`FEW_RECORDINGS`, `COCHRAN`).

    The skewness is the sample's, corrected for its size (G1, scipy's ``bias=False``). It is 0 for fewer than
    three values, or if all are equal.
    """
    varied = len(values) > 2 and np.ptp(values) > 0
    skewness = float(stats.skew(values, bias=False)) if varied else 0.0
    return max(FEW_RECORDINGS, math.floor(COCHRAN * skewness**2) + 1)
