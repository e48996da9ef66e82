"""Means and their intervals by resampling whole recordings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

# Resamples at once, and numbers of them: their memory must not grow with the data.
_RESAMPLES_AT_ONCE, _WEIGHTS_AT_ONCE = 500, 2**20


@dataclass(frozen=True)
class Estimate:
    """A mean over clips and its 95 % interval over recordings.

    ``mean`` is NaN without values; ``low`` and ``high`` are NaN with fewer than two recordings.
    """

    mean: float
    low: float
    high: float
    n: int
    n_recordings: int


@dataclass(frozen=True)
class Sample:
    """Finite values, one per clip, and the recording each belongs to (both 1-D, same length)."""

    recordings: np.ndarray
    values: np.ndarray


def bootstrap_means(samples: Sequence[Sample], *, seed: int, num_resamples: int = 10_000) -> list[Estimate]:
    """Mean and 95 % cluster-bootstrap interval of each sample.

    Recordings are drawn with replacement; the statistic is the mean over all values of the drawn
    recordings. Samples over the same recordings see the same draws. The result does not depend on the
    order of values. The quantiles are Hesterberg's expanded percentiles (2015, "What Teachers Should Know
    About the Bootstrap", section 4.2): the plain ones are too narrow by the factor
    sqrt((n - 1) / n) * z / t for n recordings, which matters below some thirty. The interval always
    contains the mean.
    """
    estimates: list[Estimate] = [Estimate(math.nan, math.nan, math.nan, 0, 0)] * len(samples)
    groups: dict[tuple[str, ...], list[tuple[int, np.ndarray, np.ndarray]]] = defaultdict(list)
    for index, sample in enumerate(samples):
        if len(sample.values) == 0:
            continue
        # Sorted first: floating-point sums depend on the order of their terms.
        order = np.lexsort((sample.values, sample.recordings))
        recordings, inverse = np.unique(sample.recordings[order], return_inverse=True)
        sums = np.bincount(inverse, weights=sample.values[order])
        counts = np.bincount(inverse).astype(float)
        groups[tuple(recordings)].append((index, sums, counts))
    for recordings_of_group, members in groups.items():
        sums = np.stack([member[1] for member in members], axis=1)  # (recordings, samples)
        counts = np.stack([member[2] for member in members], axis=1)
        means = sums.sum(axis=0) / counts.sum(axis=0)
        low = high = np.full(len(members), math.nan)
        size = len(recordings_of_group)
        if size > 1:
            resampled = _resampled_means(sums, counts, seed=seed, num_resamples=num_resamples)
            tail = expanded_tail(size)
            low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
            low, high = np.minimum(low, means), np.maximum(high, means)
        for column, (index, _, count) in enumerate(members):
            estimates[index] = Estimate(
                float(means[column]), float(low[column]), float(high[column]), int(count.sum()), size
            )
    return estimates


def expanded_tail(size: int) -> float:
    """Tail of Hesterberg's expanded 95 % percentile interval from ``size`` independent units, two or more."""
    return float(stats.norm.cdf(-math.sqrt(size / (size - 1)) * stats.t.ppf(0.975, size - 1)))


def _resampled_means(sums: np.ndarray, counts: np.ndarray, *, seed: int, num_resamples: int) -> np.ndarray:
    """(num_resamples, samples) means from (recordings, samples) sums and counts."""
    size = len(sums)
    generator = np.random.default_rng(seed)
    parts = []
    at_once = max(1, min(_RESAMPLES_AT_ONCE, _WEIGHTS_AT_ONCE // size))
    for start in range(0, num_resamples, at_once):
        rows = min(at_once, num_resamples - start)
        drawn = generator.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(float)
        # einsum, not BLAS, whose sums depend on the number of threads and of columns in the last bit.
        parts.append(np.einsum("br,rk->bk", weights, sums) / np.einsum("br,rk->bk", weights, counts))
    return np.concatenate(parts)
