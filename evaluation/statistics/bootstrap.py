"""Means and their intervals by resampling whole recordings."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.lazy import Lazy
from evaluation.statistics.few import recording_sums

if TYPE_CHECKING:
    from scipy import stats
else:  # lazy: its import would delay the start of a run
    stats = Lazy("scipy.stats")

# Limits of the resamples at once and of their weights, which then fit into a cache of the processor.
_RESAMPLES_AT_ONCE, _WEIGHTS_AT_ONCE = 500, 2**18


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
    """Finite values, one per clip, and their recordings (both 1-D, same length).

    Recordings are names, or whole numbers in the order of the names.
    """

    recordings: np.ndarray
    values: np.ndarray


def bootstrap_means(
    samples: Sequence[Sample],
    *,
    seed: int,
    num_resamples: int = 10_000,
    known: dict[bytes, Estimate] | None = None,
) -> list[Estimate]:
    """Mean and 95 % cluster-bootstrap interval of each sample.

    Recordings are drawn with replacement; the statistic is the mean over all values of the drawn
    recordings. Samples over the same recordings see the same draws. The result does not depend on the
    order of values. The quantiles are Hesterberg's expanded percentiles (2015, "What Teachers Should Know
    About the Bootstrap", section 4.2): the plain ones are too narrow by the factor
    sqrt((n - 1) / n) * z / t for n recordings, which matters below some thirty. The interval always
    contains the mean.

    Args:
        known: hash of a sample -> estimate of an earlier call; new estimates are added.
    """
    known = {} if known is None else known
    keys: list[bytes | None] = []
    # Samples with as many recordings share their draws, which depend only on that number and the seed and
    # take most of the time.
    wanted: dict[int, dict[bytes, tuple[np.ndarray, np.ndarray]]] = defaultdict(dict)
    for sample in samples:
        if len(sample.values) == 0:
            keys.append(None)
            continue
        sums, counts = recording_sums(sample.recordings, sample.values)
        content = sums.tobytes() + counts.tobytes()
        key = hashlib.sha256(b"%d %d " % (seed, num_resamples) + content).digest()
        keys.append(key)
        if key not in known:
            wanted[len(sums)][key] = sums, counts
    for size, members in wanted.items():
        sums, counts = (np.stack(columns) for columns in zip(*members.values(), strict=True))
        means = sums.sum(axis=1) / counts.sum(axis=1)  # sums and counts are (samples, recordings)
        low = high = np.full(len(members), math.nan)
        if size > 1:
            resampled = _resampled_means(sums, counts, seed=seed, num_resamples=num_resamples)
            tail = expanded_tail(size)
            low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
            low, high = np.minimum(low, means), np.maximum(high, means)
        for key, mean, *ends, n in zip(members, means, low, high, counts.sum(axis=1), strict=True):
            known[key] = Estimate(float(mean), float(ends[0]), float(ends[1]), int(n), size)
    nothing = Estimate(math.nan, math.nan, math.nan, 0, 0)
    return [nothing if key is None else known[key] for key in keys]


def expanded_tail(size: int) -> float:
    """Tail of Hesterberg's expanded 95 % percentile interval from ``size`` independent units, two or more."""
    return float(stats.norm.cdf(-math.sqrt(size / (size - 1)) * stats.t.ppf(0.975, size - 1)))


def _resampled_means(sums: np.ndarray, counts: np.ndarray, *, seed: int, num_resamples: int) -> np.ndarray:
    """(num_resamples, samples) means from (samples, recordings) sums and counts."""
    size = sums.shape[1]
    # Most samples are over the same clips, and most data sets have a clip per recording.
    different = {row.tobytes(): row for row in counts}
    column = [list(different).index(row.tobytes()) for row in counts]
    divisors = np.stack(list(different.values()))
    generator = np.random.default_rng(seed)
    parts = []
    at_once = max(1, min(_RESAMPLES_AT_ONCE, _WEIGHTS_AT_ONCE // size))
    for start in range(0, num_resamples, at_once):
        rows = min(at_once, num_resamples - start)
        drawn = generator.integers(size, size=(rows, size))
        drawn += size * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(float)
        # Not BLAS: the last bit of its sums depends on the number of threads and of columns.
        values = np.einsum("br,kr->bk", weights, sums)
        parts.append(values / np.einsum("br,kr->bk", weights, divisors)[:, column])
    return np.concatenate(parts)
