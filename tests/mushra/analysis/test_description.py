"""Intervals and shapes against scipy, statsmodels, hand-made tables and simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_ratings import simulate, tidy

from mushra.analysis.description import (
    beyond,
    beyond_scale,
    bimodality,
    caption_beyond,
    crossed_interval,
    describe_conditions,
    describe_intervals,
    describe_items,
    difference_grades,
    shapiro_p,
    t_interval,
)
from mushra.analysis.load import load
from mushra.analysis.ratings import Ratings, with_roles

Shared = Callable[[str], Path]


def test_intervals_of_the_real_test_are_over_listeners(shared: Shared) -> None:
    """FOA: +-4.35 over the 22 listeners, where the naive interval over 286 ratings would be +-2.56."""
    ratings = load([shared("mushra/AES2023_webmushra_results.csv")])
    table = describe_conditions(ratings).set_index("condition")
    foa = table.loc["FOA"]
    assert (foa["ci_high"] - foa["ci_low"]) / 2 == pytest.approx(4.35, abs=0.005)
    assert foa[["n_listeners", "n_ratings"]].tolist() == [22, 286]
    assert foa["mean"] == pytest.approx(78.441, abs=0.0005)
    means = ratings.frame[ratings.frame["condition"] == "FOA"].groupby("listener")["score"].mean()
    expected = stats.t.interval(0.95, 21, means.mean(), stats.sem(means))
    assert foa[["ci_low", "ci_high"]].tolist() == pytest.approx(expected)
    scores = ratings.frame.loc[ratings.frame["condition"] == "Param1", "score"]
    assert (
        table.loc["Param1", ["q1", "median", "q3"]].tolist() == np.percentile(scores, [25, 50, 75]).tolist()
    )
    assert table.loc["Param1", "median"] == 82


def test_t_interval_by_hand() -> None:
    """1, 2, 3: mean 2, s = 1, t(0.975; 2) = 4.302653."""
    interval = t_interval(np.array([1.0, 2.0, 3.0]))
    assert interval.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    one = t_interval(np.array([5.0]))
    assert one.mean == 5
    assert math.isnan(one.low)
    assert one.reason == "an interval needs 2 listeners, there are 1"


def test_crossed_interval_by_hand() -> None:
    """Two listeners, two items: 1 2 / 4 9. MS_L = 25, MS_I = 9, MS_LI = 4.

    Variance (25 + 9 - 4) / 4 = 7.5, degrees of freedom 30^2 / (25^2 + 9^2 + 4^2) = 900 / 722.
    """
    interval = crossed_interval(np.array([[1.0, 2.0], [4.0, 9.0]]))
    half = stats.t.ppf(0.975, 900 / 722) * math.sqrt(7.5)
    assert interval.mean == 4
    assert interval.high - 4 == pytest.approx(half)


def test_crossed_interval_without_item_variance_is_the_t_interval() -> None:
    """With a variance of items estimated below zero only the listeners' mean squares are left."""
    scores = np.array([[10.0, 12.0, 11.0], [20.0, 19.0, 21.0], [31.0, 30.0, 29.0]])
    crossed, plain = crossed_interval(scores), t_interval(scores.mean(axis=1))
    assert (crossed.low, crossed.high) == pytest.approx((plain.low, plain.high))
    transposed = crossed_interval(scores.T)
    assert transposed.high == pytest.approx(crossed.high)
    assert crossed_interval(np.full((3, 3), 7.0)).low == 7
    assert "there are 1 and 3" in crossed_interval(scores[:1]).reason


def test_intervals_beyond_the_scale_are_named() -> None:
    """Two listeners: Student's t with one degree of freedom is 12.7 standard errors, tan(0.475 pi)."""
    wide, edge = (t_interval(np.array(values)) for values in ([40.0, 60.0], [99.9, 99.9, 100.0]))
    assert (wide.low, wide.high) == pytest.approx((50 - 10 * np.tan(0.475 * np.pi), 50 + 127.062), abs=1e-3)
    assert edge.high > 100  # by less than a table or a figure shows
    means = np.array([(wide.low, wide.high), (edge.low, edge.high), (90, 101), (np.nan, np.nan)])
    none = np.empty((0, 2))
    assert beyond(means, (0, 100)).tolist() == [[True, True], [False, False], [False, True], [False, False]]
    (note,) = beyond_scale(means, np.array([(-120.0, 20), (-100, 100)]), (0, 100))
    assert note.startswith(
        "2 of 4 intervals of means reach beyond 0 to 100 and 1 of 2 intervals of differences reaches beyond "
        "-100 to 100, where no value can be. 1 of these covers all of it and says nothing"
    )
    assert caption_beyond(means, (0, 100)).startswith(" No mean can be beyond 0 to 100")
    assert beyond_scale(means[1:2], none, (0, 100)) == [] and caption_beyond(none, (0, 100)) == ""


def test_bimodality_coefficient() -> None:
    """Two equal points n/2 each: skewness 0, so b = 1 / (G2 + 3 (n-1)^2 / ((n-2)(n-3))), near 1; a uniform
    sample is near 5/9; a normal one near 1/3."""
    two = np.tile([0.0, 100.0], 5000)
    assert bimodality(two) == pytest.approx(1, abs=1e-3)
    assert bimodality(np.linspace(0, 100, 10_001)) == pytest.approx(5 / 9, abs=1e-3)
    normal = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    assert bimodality(normal) == pytest.approx(1 / 3, abs=1e-3)
    # By hand: 1, 2, 3, 10: G1 = 1.763633, G2 = 3.23; b = (G1^2 + 1) / (G2 + 3 * 9 / 2).
    values = np.array([1.0, 2.0, 3.0, 10.0])
    skewness = pd.Series(values).skew()
    expected = (skewness**2 + 1) / (pd.Series(values).kurt() + 13.5)
    assert bimodality(values) == pytest.approx(expected)
    assert math.isnan(bimodality(np.array([1.0, 2.0, 3.0])))
    assert math.isnan(bimodality(np.full(9, 4.0)))
    assert math.isnan(shapiro_p(np.full(9, 4.0)))


def test_all_intervals_of_conditions() -> None:
    ratings = Ratings(tidy(simulate(3, means=(40, 70), sd_item=5)))
    table = describe_intervals(ratings, seed=1).set_index("condition")
    means = ratings.matrix()
    for name in ("A", "B"):
        row = table.loc[name]
        assert row["mean"] == pytest.approx(means[name].mean())
        assert row["t_low"] < row["bootstrap_low"] + 1.5
        assert abs((row["bootstrap_high"] - row["bootstrap_low"]) / (row["t_high"] - row["t_low"]) - 1) < 0.15
        assert row["crossed_high"] - row["crossed_low"] > row["t_high"] - row["t_low"]
        assert row["shapiro_p"] == pytest.approx(stats.shapiro(means[name]).pvalue)
    pd.testing.assert_frame_equal(table, describe_intervals(ratings, seed=1).set_index("condition"))
    assert (table["reason"] == "").all()


def test_missing_ratings_do_not_weigh_listeners() -> None:
    """A listener with one item counts as much as one with all; crossed is over the complete ones."""
    scores = np.full((3, 1, 4), 50.0)
    scores[0] = 80
    scores[0, 0, 1:] = np.nan
    ratings = Ratings(tidy(scores))
    row = describe_conditions(ratings).iloc[0]
    assert row["mean"] == pytest.approx(60)
    assert row["n_ratings"] == 9
    wide = describe_intervals(ratings, seed=0).iloc[0]
    assert (wide["n_complete"], wide["crossed_mean"]) == (2, 50)


def test_what_is_missing_has_a_reason() -> None:
    for scores in (simulate(1, listeners=1), simulate(1, items=1), np.full((4, 2, 3), 33.0)):
        ratings = Ratings(tidy(scores))
        for table in (describe_intervals(ratings, seed=0), describe_items(ratings)):
            numbers = table.select_dtypes("number").isna().any(axis=1)
            assert (table.loc[numbers, "reason"] != "").all()
    one = describe_intervals(Ratings(tidy(simulate(1, listeners=1))), seed=0)
    assert "an interval needs 2 listeners, there are 1" in one["reason"][0]


def test_items_against_scipy() -> None:
    ratings = Ratings(tidy(simulate(5)))
    table = describe_items(ratings).set_index(["item", "condition"])
    assert len(table) == 24
    values = ratings.frame.query("item == 'i03' and condition == 'B'")["score"].to_numpy()
    row = table.loc["i03", "B"]
    assert row[["ci_low", "ci_high"]].tolist() == pytest.approx(
        stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    )
    assert row["bimodality"] == pytest.approx(bimodality(values))


def test_difference_grades_are_paired() -> None:
    """Listeners' levels differ wildly and cancel: b is always 10 below a."""
    level = np.array([10.0, 40.0, 70.0])[:, None]
    a = level + np.array([0.0, 5.0])
    ratings = Ratings(tidy(np.stack([a, a - 10], axis=1), ["reference", "b"]))
    table = difference_grades(ratings, ["reference"])
    assert table["item"].tolist() == ["", "i00", "i01"]
    assert table[["mean", "ci_low", "ci_high", "median"]].to_numpy() == pytest.approx(-10)
    incomplete = ratings.frame[(ratings.frame["condition"] != "b") | (ratings.frame["item"] == "nope")]
    assert difference_grades(with_roles(incomplete), ["reference"]).empty


# Coverage


def coverage(num_tests: int, *, skewed: bool = False) -> dict[str, float]:
    """How often each interval of the mean of one condition holds the truth."""
    items, listeners = 8, 15
    fixed = 10 * np.random.default_rng(99).standard_normal((1, items))
    hits = dict.fromkeys(("t", "bootstrap", "crossed"), 0)
    for seed in range(num_tests):
        scores = simulate(
            seed,
            means=(60,),
            listeners=listeners,
            items=items,
            item_effects=fixed,
            sd_listener=0 if skewed else 6,
        )
        if skewed:
            scores = scores - 8 * (
                np.random.default_rng(10**6 + seed).exponential(size=(listeners, 1, 1)) - 1
            )
        row = describe_intervals(Ratings(tidy(scores)), seed=seed, num_resamples=1000).iloc[0]
        truth = 60 + fixed.mean()
        hits["t"] += row["t_low"] <= truth <= row["t_high"]
        hits["bootstrap"] += row["bootstrap_low"] <= truth <= row["bootstrap_high"]
        drawn = simulate(seed, means=(60,), listeners=listeners, items=items, sd_item=10)
        interval = crossed_interval(drawn[:, 0])
        hits["crossed"] += interval.low <= 60 <= interval.high
    return {name: count / num_tests for name, count in hits.items()}


def test_coverage_short() -> None:
    """95 % within three standard errors of 200 simulated tests (1.54 %)."""
    rates = coverage(200)
    assert 0.905 <= rates["t"] <= 0.99
    assert 0.88 <= rates["bootstrap"] <= 0.99
    assert 0.905 <= rates["crossed"] <= 1.0


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_coverage_with_items_fixed() -> None:
    """The t interval holds the truth in 93 to 97 % of 2,000 tests with the items fixed."""
    rates = coverage(2000)
    print(f"coverage over 2,000 tests: {rates}")
    assert 0.93 <= rates["t"] <= 0.97
    assert 0.92 <= rates["bootstrap"] <= 0.97
    assert 0.93 <= rates["crossed"] <= 0.98


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_coverage_with_skewed_listeners() -> None:
    rates = coverage(2000, skewed=True)
    print(f"coverage over 2,000 tests, listeners' levels exponential: {rates}")
    assert 0.92 <= rates["t"] <= 0.97
    assert 0.91 <= rates["bootstrap"] <= 0.97
