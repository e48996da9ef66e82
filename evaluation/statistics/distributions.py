"""Distances between the distributions of two sets of frames, and their intervals.

`Moments` are the sums that fit a Gaussian; sums of parts of the data, of shards or of interrupted runs add
up. `frechet` is the Frechet distance between two Gaussians (Dowson and Landau, 1982). `kernel_sums` are the
terms of an unbiased kernel distance (Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012). Everything
is float64 and gives the same bits for the same frames in the same order on one thread.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from baselines.lazy import Lazy

if TYPE_CHECKING:
    import torch
    from scipy import stats
else:  # their import takes seconds, and runs without an embedding need neither
    torch, stats = Lazy("torch"), Lazy("scipy.stats")

#: Groups of recordings that the jackknife leaves out, one at a time.
NUM_GROUPS = 20
#: Evenly spaced reference frames whose median distance is the bandwidth of the kernel.
BANDWIDTH_FRAMES = 2000

_TILE = 2048


def jackknife_groups(recordings: Sequence[str], num_groups: int = NUM_GROUPS) -> dict[str, int]:
    """Recording -> group. Groups have similar sizes and do not depend on the order of the recordings."""
    names = sorted(set(recordings), key=lambda name: (hashlib.sha256(name.encode()).digest(), name))
    return {name: index % num_groups for index, name in enumerate(names)}


# Frechet distance


@dataclass(frozen=True)
class Moments:
    """Number of frames, their sum (dim,) and the sum of their outer products (dim, dim), float64."""

    count: int
    total: torch.Tensor
    outer: torch.Tensor

    @classmethod
    def of(cls, frames: torch.Tensor | np.ndarray) -> Moments:
        """Moments of (frames, dim), at least one frame."""
        values = torch.as_tensor(frames).double()
        dim = values.shape[1]
        outer = torch.empty(dim, dim, dtype=torch.float64)
        step = max(64, dim // 8)
        for start in range(0, dim, step):  # the part below the diagonal is mirrored
            stop = start + step
            outer[start:stop, start:] = values[:, start:stop].T @ values[:, start:]
            outer[stop:, start:stop] = outer[start:stop, stop:].T
        return cls(len(values), values.sum(0), outer)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    @property
    def mean(self) -> torch.Tensor:
        return self.total / self.count

    @property
    def covariance(self) -> torch.Tensor:
        """(dim, dim), divided by count - 1; needs two frames."""
        return torch.addr(self.outer, self.total, self.mean, alpha=-1).div_(self.count - 1)


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance, with the factor that distances to other Gaussians share."""

    mean: torch.Tensor
    covariance: torch.Tensor

    @classmethod
    def of(cls, moments: Moments) -> Gaussian:
        return cls(moments.mean, moments.covariance)

    @cached_property
    def factor(self) -> torch.Tensor:
        """F with F F' = covariance: Cholesky's factor, or from the eigenvectors if it is singular."""
        factor, failed = torch.linalg.cholesky_ex(self.covariance)
        if not failed:
            return factor
        values, vectors = torch.linalg.eigh(self.covariance)
        return vectors * values.clamp(min=0).sqrt()


def frechet(one: Gaussian, other: Gaussian) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)); real and 0 or more by construction.

    The trace of the root is the sum of the roots of the eigenvalues of F' S2 F, where F F' = S1. They are
    also those of S1^(1/2) S2 S1^(1/2), because F is S1^(1/2) times a rotation. The matrix is symmetric and
    positive semidefinite, so eigenvalues that are negative by rounding count as 0.
    """
    product = one.factor.T @ other.covariance @ one.factor
    roots = torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum()
    traces = one.covariance.trace() + other.covariance.trace()
    return max(0.0, float((one.mean - other.mean).square().sum() + traces - 2 * roots))


def frechet_of_few(x: torch.Tensor, y: torch.Tensor) -> float:
    """`frechet` of the Gaussians fitted to x (n, dim) and y (m, dim), for fewer frames than dimensions.

    With A = (x - mean) / sqrt(n - 1) and B likewise, S1 = A'A and S2 = B'B, so tr (S1 S2)^(1/2) is the sum of
    the singular values of A B', which is only (n, m).
    """
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    a, b = (x - mean_x) / math.sqrt(len(x) - 1), (y - mean_y) / math.sqrt(len(y) - 1)
    roots = torch.linalg.svdvals(a @ b.T).sum()
    return max(0.0, float((mean_x - mean_y).square().sum() + a.square().sum() + b.square().sum() - 2 * roots))


# Kernel distance


def evenly_spaced(count: int) -> np.ndarray:
    """Indices of `BANDWIDTH_FRAMES` of ``count`` frames, or of all if there are fewer."""
    if count <= BANDWIDTH_FRAMES:
        return np.arange(count)
    return torch.linspace(0, count - 1, BANDWIDTH_FRAMES).round().long().numpy()


def bandwidth(frames: np.ndarray | torch.Tensor) -> float:
    """Median distance between two of up to `BANDWIDTH_FRAMES` evenly spaced frames; NaN if it is 0."""
    values = torch.as_tensor(frames).double()
    values = values[evenly_spaced(len(values))]
    if len(values) < 2:
        return math.nan
    median = float(np.median(torch.nn.functional.pdist(values).numpy()))
    return median if median > 0 else math.nan


def kernel_sums(x: torch.Tensor, y: torch.Tensor, sigma: float, starts: Sequence[int]) -> torch.Tensor:
    """Sums of h(i, j), i != j, over blocks of frames, for an unbiased kernel distance of paired frames.

    h(i, j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j), where
    k(a, b) = exp(-|a - b|^2 / 2 sigma^2). Its mean over all i != j is the U-statistic of the squared maximum
    mean discrepancy (Gretton et al., eq. 4). It is 0 for equal frames, and it is unbiased even if x_i and y_i
    depend on each other, as a clip and its decoded copy do.

    Args:
        x: (frames, dim).
        y: same shape.
        sigma: bandwidth.
        starts: first frame of each block, ascending from 0.

    Returns:
        (blocks, blocks) float64, symmetric.
    """
    origin = x.double().mean(0)  # the shift keeps the distances and reduces their rounding
    x, y = (x.double() - origin) / sigma, (y.double() - origin) / sigma
    half_x, half_y = x.square().sum(1) / 2, y.square().sum(1) / 2
    ends = [*starts[1:], len(x)]
    member = torch.zeros(len(x), len(starts), dtype=torch.float64)
    for block, (start, end) in enumerate(zip(starts, ends, strict=True)):
        member[start:end, block] = 1
    sums = torch.zeros(len(starts), len(starts), dtype=torch.float64)
    tiles = [slice(start, min(start + _TILE, len(x))) for start in range(0, len(x), _TILE)]
    for number, rows in enumerate(tiles):
        for columns in tiles[number:]:
            h = _kernel(x, half_x, rows, x, half_x, columns)
            h += _kernel(y, half_y, rows, y, half_y, columns)
            h -= _kernel(x, half_x, rows, y, half_y, columns)
            h -= _kernel(y, half_y, rows, x, half_x, columns)
            if rows == columns:
                h.fill_diagonal_(0)
            part = member[rows].T @ h @ member[columns]
            sums += part if rows == columns else part + part.T
    return sums


def _kernel(
    a: torch.Tensor, half_a: torch.Tensor, rows: slice, b: torch.Tensor, half_b: torch.Tensor, columns: slice
) -> torch.Tensor:
    exponent = torch.addmm(-half_a[rows, None] - half_b[columns], a[rows], b[columns].T)
    return exponent.clamp_(max=0).exp_()


# Jackknife


@dataclass(frozen=True)
class Interval:
    """95 % interval and standard error; NaN with fewer than two groups."""

    low: float
    high: float
    error: float
    groups: int


def jackknife(value: float, left_out: Sequence[float], sizes: Sequence[int]) -> Interval:
    """Delete-group jackknife of a statistic: value -+ t(groups - 1) standard errors.

    For groups of unequal size, after Busing, Meijer and van der Leeden ("Delete-m jackknife for unequal m",
    Statistics and Computing 9, 1999). The value itself is not corrected for bias, so it lies in the middle.

    Args:
        value: statistic of all recordings.
        left_out: the statistic without each group in turn.
        sizes: number of recordings in each group.
    """
    count = len(left_out)
    if count < 2 or not np.isfinite([value, *left_out]).all():
        return Interval(math.nan, math.nan, math.nan, count)
    theta, size = np.asarray(left_out, float), np.asarray(sizes, float)
    ratio = size.sum() / size
    estimate = count * value - np.sum((1 - 1 / ratio) * theta)
    pseudo = ratio * value - (ratio - 1) * theta
    error = math.sqrt(np.mean((pseudo - estimate) ** 2 / (ratio - 1)))
    reach = float(stats.t.ppf(0.975, count - 1)) * error
    return Interval(value - reach, value + reach, error, count)
