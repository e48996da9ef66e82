"""What can be said of few recordings, or of values with a long tail.

No resampling sees what was not drawn: where values are skewed or a few lie far off, intervals of means miss
the truth more often than they promise. `needed` says when, `MEASURED` how often; the median's interval from
order statistics keeps its promise whatever the distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.lazy import Lazy

if TYPE_CHECKING:
    from scipy import stats
else:  # not before a run, which it would hold up
    stats = Lazy("scipy.stats")

#: Below it, an interval of a mean is not to be trusted to cover 95 %.
FEW_RECORDINGS = 20
#: Below it, a median has no 95 % interval (`median`).
MEDIAN_RECORDINGS = 6
#: Cochran's rule of thumb ("Sampling Techniques", 3rd edition, 1977): n above 25 times the
#: squared skewness, or a 95 % interval of a mean fails in more than 6 % of all samples.
COCHRAN = 25
#: Recordings, and how often the printed 95 % interval of a mean held the truth: values that are normal, that
#: have a long tail (lognormal, sigma 1), of which 5 % are outliers (-60 dB, the others 10 dB, sigma 4 dB).
#: 2000 data sets each or more; `pytest -m long tests/evaluation/statistics/test_few.py` measures again.
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
    """The sum and the number of each recording's values, in the order of the recordings; the same bits in
    any order of the values."""
    if len(values) == 0:
        return np.empty(0), np.empty(0)
    # Sorted first: floating-point sums depend on the order of their terms.
    order = np.lexsort((values, recordings))
    names = recordings[order]
    group = np.concatenate([[0], np.cumsum(names[1:] != names[:-1])])
    return np.bincount(group, weights=values[order]), np.bincount(group).astype(float)


def recording_means(recordings: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean of each recording's values; the same bits in any order of them."""
    sums, counts = recording_sums(recordings, values)
    return sums / counts


def median(values: np.ndarray) -> Median:
    """Median of independent values with its interval from order statistics.

    The k-th smallest and k-th largest value hold the median of the population with probability
    1 - 2 P(B < k), B binomial(n, 1/2), whatever the distribution (David and Nagaraja, "Order Statistics",
    3rd edition, 2003, section 7.1); k is the largest that makes it 95 % or more. Below six values there is
    none.
    """
    ordered = np.sort(values)
    if len(ordered) == 0:
        return Median(math.nan, math.nan, math.nan)
    middle = float(np.median(ordered))
    # The smallest with P(B <= k) >= 2.5 %, so the largest with P(B < k) < 2.5 %.
    k = int(stats.binom.ppf(0.025, len(ordered), 0.5))
    if k == 0:
        return Median(middle, math.nan, math.nan)
    return Median(middle, float(ordered[k - 1]), float(ordered[-k]))


def needed(values: np.ndarray) -> int:
    """Recordings that the interval of a mean of such values needs, by `FEW_RECORDINGS` and `COCHRAN`.

    The skewness is the sample's, corrected for its size (G1, scipy's ``bias=False``); 0 for fewer than three
    values and where all are equal.
    """
    varied = len(values) > 2 and np.ptp(values) > 0
    skewness = float(stats.skew(values, bias=False)) if varied else 0.0
    return max(FEW_RECORDINGS, math.floor(COCHRAN * skewness**2) + 1)
