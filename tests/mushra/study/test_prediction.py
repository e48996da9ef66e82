"""What a mapped metric predicts: numpy and scipy's optimizer for the mapping, P.1401's formulas by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.polynomial import Polynomial
from scipy import optimize, stats

from mushra.study.prediction import mapping, predict, reach


def points(n: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A curve with saturation at both ends, as metrics have them."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(-3, 30, n)
    return x, 50 + 40 * np.tanh((x - 12) / 5) + generator.normal(0, noise, n)


@pytest.mark.parametrize("rising", [True, False])
def test_a_monotone_fit_is_least_squares(rising: bool) -> None:
    x = np.linspace(-2, 30, 50)
    y = (1 if rising else -1) * (2 * x + 0.001 * x**3) + np.random.default_rng(0).normal(0, 1, 50)
    assert mapping(x, y, rising=rising) == pytest.approx(np.polyfit(x, y, 3)[::-1], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("n", "noise"), [(6, 5), (12, 30), (60, 5), (200, 40)])
@pytest.mark.parametrize("rising", [True, False])
def test_a_fit_that_must_be_bent_is_the_optimizers(n: int, noise: float, rising: bool) -> None:
    x, y = points(n, noise, n)
    x = x if rising else -x
    found = Polynomial(mapping(x, y, rising=rising))
    grid = np.linspace(x.min(), x.max(), 1001)
    slope = found.deriv()(grid) * (1 if rising else -1)
    assert slope.min() > -1e-9
    centre, scale = x.mean(), x.std()

    def loss(b: np.ndarray) -> float:
        return float(((Polynomial(b)((x - centre) / scale) - y) ** 2).sum())

    def slopes(b: np.ndarray) -> np.ndarray:
        return np.asarray(Polynomial(b).deriv()((grid - centre) / scale) * (1 if rising else -1))

    theirs = optimize.minimize(
        loss, [y.mean(), 0, 0, 0], constraints=[{"type": "ineq", "fun": slopes}], method="SLSQP", tol=1e-10
    )
    assert ((found(x) - y) ** 2).sum() == pytest.approx(theirs.fun, rel=1e-4)


def test_rmse_and_outliers_by_hand() -> None:
    x = np.arange(7.0)
    y = 10 * x + np.array([1, -1, 2, -2, 0, 1, -1])
    error = y - Polynomial(np.polyfit(x, y, 3)[::-1])(x)
    half = np.array([0.5, 9, math.nan, 0.1, 9, 9, 9])
    found = predict(x, y, half, rising=True)
    assert found.rmse == pytest.approx(math.sqrt((error**2).sum() / 3))
    assert found.outlier_ratio == pytest.approx(sum(abs(error[[0, 3]]) > half[[0, 3]]) / 6)
    assert found.coefficients == pytest.approx(np.polyfit(x, y, 3)[::-1], abs=1e-6)
    assert math.isnan(predict(x, y, np.full(7, math.nan), rising=True).outlier_ratio)


def test_reach_is_students() -> None:
    scores = np.array([[50.0, 1, 7], [60, math.nan, math.nan], [40, 3, math.nan]])
    low, high = stats.ttest_1samp(scores[:, 0], 0).confidence_interval()
    assert reach(scores)[0] == pytest.approx((high - low) / 2)
    low, high = stats.ttest_1samp([1.0, 3.0], 0).confidence_interval()
    assert reach(scores)[1] == pytest.approx((high - low) / 2)
    assert math.isnan(reach(scores)[2])


def test_what_cannot_be_mapped_says_why() -> None:
    assert "4 points" in predict(np.arange(4.0), np.arange(4.0), np.ones(4), rising=True).reason
    assert "equal" in predict(np.ones(6), np.arange(6.0), np.ones(6), rising=True).reason
