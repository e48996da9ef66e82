"""How often intervals of correlations hold the truth, in simulated tests with items drawn or fixed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from mushra.study.coefficients import coefficient_interval, coefficients, difference_interval

LEVEL = np.array([20.0, 35, 48, 60, 70, 85])
# What either metric has wrong about a whole condition.
BIAS = np.array([[5.0, -8, 6, 9, -7, -4], [-4, -7, 9, 6, -8, 5]])


@dataclass(frozen=True)
class Design:
    listeners: int
    items: int
    clipped: bool
    good: bool
    drawn: bool


def material(generator: np.random.Generator, items: int, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Expected score before clipping (items, conditions), and metrics (2, items, conditions)."""
    shape = (items, len(LEVEL))
    score = LEVEL + generator.normal(0, 6, (items, 1)) + generator.normal(0, 8, shape)
    own = generator.normal(0, 5 if design.good else 12, (2, *shape))
    said = score if design.good else 0.4 * LEVEL
    return score, said + own + (1 if design.good else 2) * BIAS[:, None]


def scores(generator: np.random.Generator, expected: np.ndarray, listeners: int, clipped: bool) -> np.ndarray:
    given = expected + generator.normal(0, 12, (listeners, *expected.shape))
    given += generator.normal(0, 8, (listeners, 1, 1))
    given += generator.normal(0, 6, (listeners, 1, expected.shape[1]))
    return np.clip(given, 0, 100) if clipped else given


def all_coefficients(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(..., levels, coefficients) of (..., items, conditions): what `correlate` computes one by one."""
    flat = [v.reshape(*v.shape[:-2], -1) for v in (x, y)]
    return np.stack([_coefficients(*flat), _coefficients(x.mean(-2), y.mean(-2))], axis=-2)


def _coefficients(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = (v - v.mean(-1, keepdims=True) for v in (a, b))
        product = (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
        return np.asarray(np.clip(product, -1, 1))

    signs = [np.sign(v[..., :, None] - v[..., None, :]).astype(np.int8) for v in (x, y)]
    untied = [(sign != 0).sum((-1, -2), dtype=float) for sign in signs]
    kendall = (signs[0] * signs[1]).sum((-1, -2), dtype=float) / np.sqrt(untied[0] * untied[1])
    ranks = [stats.rankdata(v, axis=-1) for v in (x, y)]
    return np.stack([pearson(x, y), pearson(*ranks), kendall], axis=-1)


def coverage(design: Design, repeats: int, num_resamples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often intervals held the truth, each (levels, coefficients).

    Of a coefficient: the one of infinitely many listeners (and items, if drawn); the mean of all such
    tests. Of the difference of two metrics: the first of these.
    """
    generator = np.random.default_rng(design.listeners)
    expected, metrics = material(generator, 200 if design.drawn else design.items, design)
    scored = scores(generator, expected, 300 if design.drawn else 4000, design.clipped).mean(0)
    of_all = all_coefficients(metrics, np.stack([scored] * 2))
    units = min(design.listeners, design.items)
    points, intervals, gaps = [], [], []
    for _ in range(repeats):
        if design.drawn:
            expected, metrics = material(generator, design.items, design)
        given = scores(generator, expected, design.listeners, design.clipped)
        points.append(all_coefficients(metrics, np.stack([given.mean(0)] * 2)))
        share = np.full(design.listeners, 1 / design.listeners)
        weights = generator.multinomial(design.listeners, share, size=num_resamples) * share
        items = generator.integers(design.items, size=(num_resamples, design.items))
        drawn = np.take_along_axis(np.einsum("bl,lic->bic", weights, given), items[:, :, None], axis=1)
        samples = np.stack([all_coefficients(metric[items], drawn) for metric in metrics], axis=-1)
        cells = list(np.ndindex(points[-1].shape[1:]))
        both = [(points[-1][(slice(None), *cell)], samples[(slice(None), *cell)]) for cell in cells]
        intervals.append([coefficient_interval(point[0], sample[:, 0], units) for point, sample in both])
        gaps.append(
            [
                difference_interval(point[0] - point[1], sample[:, 0] - sample[:, 1], units)
                for point, sample in both
            ]
        )
    point = np.array(points)
    low, high = np.moveaxis(np.array(intervals), -1, 0).reshape(2, *point[:, 0].shape)
    assert ((low <= point[:, 0]) & (point[:, 0] <= high)).all()
    gap = np.moveaxis(np.array(gaps), -1, 0).reshape(2, *point[:, 0].shape)

    def held(of: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return np.asarray(((low <= of + 1e-9) & (of - 1e-9 <= high)).mean(0))

    return (
        held(of_all[0], low, high),
        held(point[:, 0].mean(0), low, high),
        held(of_all[0] - of_all[1], *gap),
    )


def test_coefficients_of_the_simulation_are_those_of_the_command() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 7, 5)).round(1)
    expected = [coefficients(x.ravel(), y.ravel())[0], coefficients(x.mean(0), y.mean(0))[0]]
    assert all_coefficients(x, y) == pytest.approx(np.array(expected))


def test_intervals_of_correlations_cover() -> None:
    """95 % of 60 tests, less 3 standard errors."""
    of_all, of_tests, gaps = coverage(Design(8, 6, clipped=False, good=True, drawn=True), 60, 200)
    least = 0.95 - 3 * math.sqrt(0.95 * 0.05 / 60)
    assert min(of_all.min(), of_tests.min(), gaps.min()) > least


@pytest.mark.long
@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize(
    ("listeners", "items", "clipped"), [(8, 6, False), (15, 10, True), (30, 8, True), (20, 16, False)]
)
def test_intervals_of_correlations_cover_long(
    listeners: int, items: int, clipped: bool, drawn: bool, good: bool
) -> None:
    design = Design(listeners, items, clipped, good, drawn)
    found = coverage(design, 300, 300)
    for what, rates in zip(("all", "such tests", "difference"), found, strict=True):
        print(design, what, *(" ".join(f"{rate:.2f}" for rate in row) for row in rates), sep=" | ")
    assert min(rates.min() for rates in found) > 0.88
