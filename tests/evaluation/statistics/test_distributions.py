"""Distances between distributions, held against closed forms, SciPy and simulation."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np
import pytest
import scipy.linalg
import torch
from known import frechet_distance
from scipy.spatial.distance import cdist

from evaluation.statistics.distances import KERNEL_SCALE, _summarise
from evaluation.statistics.distributions import (
    NUM_GROUPS,
    Gaussian,
    Moments,
    bandwidth,
    frechet,
    frechet_of_few,
    jackknife,
    jackknife_groups,
    kernel_sums,
)


def frames(seed: int, count: int, dim: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((dim, dim)) / math.sqrt(dim)
    return (random.standard_normal((count, dim)) @ mixing + 1).astype(np.float32)


def by_sqrtm(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(float), y.astype(float)
    s1, s2 = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(s1 @ s2).real
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s1 + s2 - 2 * root))


def test_closed_form_of_diagonal_covariances() -> None:
    # Of Gaussians with diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2.
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    one, other = (torch.tensor(values, dtype=torch.float64) for values in ([1.0, 4.0, 0.0], [9.0, 0.25, 1.0]))
    expected = 1 + 4 + 0.25 + (1 - 3) ** 2 + (2 - 0.5) ** 2 + 1
    assert frechet(Gaussian(mean * 0, one.diag()), Gaussian(mean, other.diag())) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("dim", [3, 60])
def test_agrees_with_sqrtm(dim: int) -> None:
    x, y = frames(0, 500, dim), frames(1, 400, dim) * 1.1
    assert frechet_distance(x, y) == pytest.approx(by_sqrtm(x, y), rel=1e-7)


def test_few_frames_agree_with_the_form_for_many() -> None:
    x, y = frames(0, 30, 50), frames(1, 25, 50)
    assert frechet_distance(x, y) == frechet_of_few(torch.from_numpy(x), torch.from_numpy(y))
    by_moments = frechet(Gaussian.of(Moments.of(x)), Gaussian.of(Moments.of(y)))
    assert frechet_distance(x, y) == pytest.approx(by_moments, rel=1e-5)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((5, 3), np.float32), np.zeros((5, 3), np.float32)),
        (np.ones((2, 40), np.float32), np.zeros((2, 40), np.float32)),
        (frames(0, 10, 8), frames(0, 10, 8)),
        (frames(0, 300, 8), frames(0, 300, 8)),
        (np.tile(frames(0, 300, 4), (1, 2)), np.tile(frames(1, 300, 4), (1, 2))),  # singular covariances
    ],
)
def test_never_negative_never_complex(x: np.ndarray, y: np.ndarray) -> None:
    value = frechet_distance(x, y)
    assert isinstance(value, float) and math.isfinite(value) and value >= 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of singular matrices
        assert value == pytest.approx(by_sqrtm(x, y), abs=1e-4)


def test_moments_of_parts_add_up() -> None:
    x = frames(0, 1000, 16)
    whole = Moments.of(x)
    parts = Moments.of(x[:1]) + Moments.of(x[1:400]) + Moments.of(x[400:])
    assert parts.count == whole.count
    torch.testing.assert_close(parts.outer, whole.outer, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        whole.covariance, torch.from_numpy(np.cov(x.T.astype(float))), rtol=1e-9, atol=0
    )


def test_bias_falls_with_the_number_of_frames_and_extrapolates() -> None:
    # Two samples of one distribution: the true distance is 0, the estimate falls like 1 / n.
    small = np.mean([frechet_distance(frames(s, 250, 20), frames(100 + s, 250, 20)) for s in range(8)])
    large = np.mean([frechet_distance(frames(s, 500, 20), frames(100 + s, 500, 20)) for s in range(8)])
    assert small > large > 0
    assert abs(2 * large - small) < 0.2 * large


def by_definition(x: np.ndarray, y: np.ndarray, sigma: float) -> np.ndarray:
    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-cdist(a, b, "sqeuclidean") / (2 * sigma**2))

    h = kernel(x, x) + kernel(y, y) - kernel(x, y) - kernel(y, x)
    np.fill_diagonal(h, 0)
    return h


def test_kernel_sums_by_definition() -> None:
    x, y = frames(0, 70, 6).astype(float), frames(1, 70, 6).astype(float)
    h = by_definition(x, y, 1.7)
    sums = kernel_sums(torch.from_numpy(x), torch.from_numpy(y), 1.7, [0, 20, 21]).numpy()
    edges = [0, 20, 21, 70]
    expected = [
        [h[a:b, c:d].sum() for c, d in itertools.pairwise(edges)] for a, b in itertools.pairwise(edges)
    ]
    np.testing.assert_allclose(sums, expected, rtol=1e-9, atol=1e-9)
    assert kernel_sums(torch.from_numpy(x), torch.from_numpy(x), 1.7, [0]).item() == 0


def test_kernel_sums_over_several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (torch.from_numpy(frames(seed, 50, 4)) for seed in (0, 1))
    whole = kernel_sums(x, y, 2.0, [0, 9])
    monkeypatch.setattr("evaluation.statistics.distributions._TILE", 7)
    torch.testing.assert_close(kernel_sums(x, y, 2.0, [0, 9]), whole, rtol=1e-10, atol=1e-10)


def test_kernel_distance_is_unbiased() -> None:
    # Independent samples of one distribution: 0 on average, at any number of frames.
    values = []
    for seed in range(60):
        x, y = (torch.from_numpy(frames(which * 1000 + seed, 20, 4)) for which in (0, 1))
        values.append(float(kernel_sums(x, y, 3.0, [0])) / (20 * 19))
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(60)


def test_bandwidth_is_the_median_distance() -> None:
    x = frames(0, 101, 5)
    assert bandwidth(x) == pytest.approx(np.median(cdist(x, x)[np.triu_indices(101, 1)]), rel=1e-6)
    assert math.isnan(bandwidth(np.zeros((9, 3)))) and math.isnan(bandwidth(x[:1]))


def test_jackknife_of_a_mean_is_the_students_interval() -> None:
    values = np.random.default_rng(0).normal(3, 2, 12)
    left_out = [np.delete(values, index).mean() for index in range(12)]
    interval = jackknife(values.mean(), left_out, [1] * 12)
    assert interval.error == pytest.approx(values.std(ddof=1) / math.sqrt(12), rel=1e-9)
    assert (interval.low + interval.high) / 2 == pytest.approx(values.mean())


def test_jackknife_of_unequal_groups() -> None:
    # Means of 55 values in groups of 1 to 10: the intervals hold the truth about as often as they say.
    random = np.random.default_rng(1)
    sizes = list(range(1, 11))
    edges = np.cumsum([0, *sizes])
    held = 0
    for _ in range(400):
        values = random.standard_normal(55)
        rests = [np.delete(values, range(a, b)).mean() for a, b in itertools.pairwise(edges)]
        interval = jackknife(values.mean(), rests, sizes)
        held += interval.low <= 0 <= interval.high
    assert 0.9 <= held / 400 <= 0.98


@pytest.mark.parametrize("left_out", [[], [1.0], [1.0, math.nan]])
def test_no_interval_without_two_groups(left_out: list[float]) -> None:
    interval = jackknife(1.0, left_out, [1] * len(left_out))
    assert math.isnan(interval.low) and math.isnan(interval.high)


def test_the_interval_of_a_frechet_distance_holds_the_point_and_is_paired() -> None:
    # Ten recordings of 30 frames; the second "codec" is the first with a little more noise.
    x = frames(0, 300, 10)
    noise = np.random.default_rng(5).standard_normal(x.shape).astype(np.float32)
    groups = np.repeat(np.arange(10), 30)
    found = []
    for level in (0.5, 0.55):
        y = x + level * noise
        value = frechet_distance(x, y)
        rests = [frechet_distance(x[groups != g], y[groups != g]) for g in range(10)]
        interval = jackknife(value, rests, [1] * 10)
        assert interval.low < value < interval.high
        found.append((value, rests, interval))
    difference = found[1][0] - found[0][0]
    paired = jackknife(difference, np.subtract(found[1][1], found[0][1]).tolist(), [1] * 10)
    assert 0 < paired.low < difference < paired.high
    assert paired.error < 0.5 * math.hypot(found[0][2].error, found[1][2].error)


def test_groups_are_even_and_do_not_depend_on_the_order() -> None:
    names = [f"recording {index}" for index in range(103)]
    groups = jackknife_groups(names, 20)
    assert groups == jackknife_groups(names[::-1] * 2, 20)
    assert sorted(np.bincount(list(groups.values())).tolist()) == [5] * 17 + [6] * 3
    assert set(jackknife_groups(names[:3]).values()) == {0, 1, 2}


@pytest.mark.alone
@pytest.mark.long
def test_ten_thousand_frames_in_half_a_second() -> None:
    x = frames(0, 10_000, 512)
    y = x + frames(1, 10_000, 512) / 10
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        frechet_distance(x, y)
        best = min(best, time.perf_counter() - start)
    assert best < 0.5


# Extrapolation


def covered(
    dim: int, recordings: int, frames: int, clustered: float, repeats: int
) -> tuple[float, float, float]:
    """How often the interval of FD held its mean and the FD of infinitely many frames, and that of the limit
    the latter; frames of a recording share a part of their variance."""
    rng = np.random.default_rng(dim)
    root = rng.normal(size=(dim, dim)) / math.sqrt(dim)
    covariance = root @ root.T + 0.3 * np.eye(dim)
    factor, shift = np.linalg.cholesky(covariance), np.full(dim, 0.3 / math.sqrt(dim))
    truth = frechet(
        Gaussian(torch.zeros(dim, dtype=torch.float64), torch.from_numpy(covariance)),
        Gaussian(torch.from_numpy(shift), torch.from_numpy(0.81 * covariance + 0.35**2 * np.eye(dim))),
    )
    num_groups = min(NUM_GROUPS, recordings)
    sizes = [len(range(group, recordings, num_groups)) for group in range(num_groups)]
    found = []
    for _ in range(repeats):
        own = rng.normal(size=(recordings, 1, dim)) * math.sqrt(clustered)
        x = (own + math.sqrt(1 - clustered) * rng.normal(size=(recordings, frames, dim))) @ factor.T
        y = 0.9 * x + shift + 0.35 * rng.normal(size=x.shape)
        moments = [
            [Moments.of(part[group::num_groups].reshape(-1, dim)) for group in range(num_groups)]
            for part in (x, y)
        ]

        def distance(groups: Sequence[int], moments: list[list[Moments]] = moments) -> float:
            sums = (reduce(add, (part[group] for group in groups)) for part in moments)
            return frechet(*map(Gaussian.of, sums))

        counts = [frames * size for size in sizes]
        found.append(_summarise(distance, sizes, counts, intervals=True, halves=True, least=0.0))
    mean = float(np.mean([one.value for one in found]))
    return (
        float(np.mean([one.low <= mean <= one.high for one in found])),
        float(np.mean([one.low <= truth <= one.high for one in found])),
        float(np.mean([one.limit_low <= truth <= one.limit_high for one in found])),
    )


def test_the_limit_covers_where_the_distance_does_not() -> None:
    of_n, of_all, limit = covered(16, 40, 10, 0.3, 100)
    assert of_n > 0.95 - 3 * 0.022 and limit > 0.95 - 3 * 0.022 > of_all


@pytest.mark.long
@pytest.mark.parametrize("clustered", [0.0, 0.3])
@pytest.mark.parametrize(
    ("dim", "recordings", "frames", "least"),
    [
        (8, 20, 10, 0.91),
        (8, 40, 10, 0.91),
        (16, 40, 20, 0.91),
        (32, 60, 20, 0.91),
        (64, 60, 20, 0.91),
        (64, 20, 40, 0.75),  # too few frames for a bias that is linear
    ],
)
def test_the_limit_covers_long(
    dim: int, recordings: int, frames: int, least: float, clustered: float
) -> None:
    of_n, of_all, limit = covered(dim, recordings, frames, clustered, 200)
    print(
        f"{dim}, {recordings} x {frames}, {clustered}: FD {of_n:.3f}, of all {of_all:.3f}, limit {limit:.3f}"
    )
    assert of_n > 0.91 and limit > least and limit > of_all


def kernel_covered(dim: int, recordings: int, frames: int, clustered: float, repeats: int) -> float:
    """How often KAD's interval held its value of infinitely many frames.

    For a, b normal with covariance v I each, E exp(-|a - b|^2 / 2 s^2) = (1 + 2 v / s^2)^(-dim / 2), times
    exp(-|mean|^2 / (2 s^2 + 4 v)) for means that differ.
    """
    rng = np.random.default_rng(dim)
    sigma, shift, scale = math.sqrt(dim), np.full(dim, 0.5 / math.sqrt(dim)), 0.8
    far = float(shift @ shift)

    def expected(variance: float, distance: float) -> float:
        spread = sigma**2 + variance
        return (sigma**2 / spread) ** (dim / 2) * math.exp(-distance / (2 * spread))

    truth = KERNEL_SCALE * (expected(2, 0) + expected(2 * scale**2, 0) - 2 * expected(1 + scale**2, far))
    num_groups = min(NUM_GROUPS, recordings)
    sizes = [len(range(group, recordings, num_groups)) for group in range(num_groups)]
    counts = np.array(sizes) * frames
    starts = [0, *np.cumsum(counts)[:-1].tolist()]
    pairs = np.outer(counts, counts) - np.diag(counts)
    held = 0
    for _ in range(repeats):
        own = rng.normal(size=(recordings, 1, dim)) * math.sqrt(clustered)
        x = own + math.sqrt(1 - clustered) * rng.normal(size=(recordings, frames, dim))
        x = np.concatenate([x[group::num_groups].reshape(-1, dim) for group in range(num_groups)])
        sums = kernel_sums(torch.from_numpy(x), torch.from_numpy(scale * x + shift), sigma, starts).numpy()

        def distance(groups: Sequence[int], sums: np.ndarray = sums) -> float:
            chosen = np.ix_(groups, groups)
            return float(KERNEL_SCALE * sums[chosen].sum() / pairs[chosen].sum())

        found = _summarise(distance, sizes, counts.tolist(), intervals=True, halves=False)
        held += found.low <= truth <= found.high
    return held / repeats


def test_the_kernel_distance_covers() -> None:
    assert kernel_covered(8, 20, 10, 0.0, 100) > 0.95 - 3 * 0.022


@pytest.mark.long
@pytest.mark.parametrize("clustered", [0.0, 0.3])
@pytest.mark.parametrize(("dim", "recordings", "frames"), [(8, 20, 10), (16, 40, 20), (64, 60, 20)])
def test_the_kernel_distance_covers_long(dim: int, recordings: int, frames: int, clustered: float) -> None:
    held = kernel_covered(dim, recordings, frames, clustered, 200)
    print(f"{dim}, {recordings} x {frames}, {clustered}: KAD {held:.3f}")
    assert held > 0.9


def equal_codecs_kept_equal(dim: int, recordings: int, frames: int, clustered: float, repeats: int) -> float:
    """How often the paired jackknife's interval of FD - FD held 0, of two codecs with equal noise."""
    rng = np.random.default_rng(dim)
    num_groups = min(NUM_GROUPS, recordings)
    sizes = [len(range(group, recordings, num_groups)) for group in range(num_groups)]
    held = 0
    for _ in range(repeats):
        own = rng.normal(size=(recordings, 1, dim)) * math.sqrt(clustered)
        x = own + math.sqrt(1 - clustered) * rng.normal(size=(recordings, frames, dim))
        signals = [x, *(0.9 * x + 0.35 * rng.normal(size=x.shape) for _ in range(2))]
        groups = [
            [Moments.of(part[group::num_groups].reshape(-1, dim)) for group in range(num_groups)]
            for part in signals
        ]

        def difference(without: int, groups: list[list[Moments]] = groups) -> float:
            reference, one, other = (
                Gaussian.of(reduce(add, (m for group, m in enumerate(part) if group != without)))
                for part in groups
            )
            return frechet(reference, one) - frechet(reference, other)

        interval = jackknife(difference(-1), [difference(group) for group in range(num_groups)], sizes)
        held += interval.low <= 0 <= interval.high
    return held / repeats


def test_equal_codecs_are_seldom_told_apart_by_fd() -> None:
    assert equal_codecs_kept_equal(8, 20, 10, 0.3, 100) > 0.95 - 3 * 0.022


@pytest.mark.long
@pytest.mark.parametrize(("dim", "recordings", "frames"), [(8, 12, 10), (8, 40, 10), (32, 60, 20)])
def test_equal_codecs_are_seldom_told_apart_by_fd_long(dim: int, recordings: int, frames: int) -> None:
    rates = [equal_codecs_kept_equal(dim, recordings, frames, clustered, 300) for clustered in (0.0, 0.3)]
    print(f"difference of FD, {dim}, {recordings} x {frames}: {rates}")
    assert min(rates) > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 300) - 0.01
