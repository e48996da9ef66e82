"""Rows at asked rates: the point that meets a rate, and the values between two points."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from evaluation.records import AskedRate, Condition, MetricInfo
from evaluation.rows import CodeStatistics, CorpusScore
from evaluation.statistics.distributions import jackknife
from evaluation.statistics.matching import ReadCondition, Reading, match, mixed, mixed_scores, read_rate
from evaluation.statistics.recordings import Sample, bootstrap_means

METRIC = MetricInfo("m", "M", "1", "", True, "made up")
SECONDS = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.5])


def point(nominal: float, rates: np.ndarray, values: np.ndarray, codec: str = "c") -> ReadCondition:
    """A codec's operating point with the rate and the value of each clip."""
    records = [
        {
            **{"codec": codec, "kbps": nominal, "kbps_nominal": nominal, "clip": f"{index}", "error": None},
            **{"duration_s": duration, "bytes": rate * duration * 125, "kbps_measured": rate},
            **{"delay_samples": 3.0, "delay_applied": 3.0, "gain_db": 0.0, "encode_s": 1.0, "decode_s": 1.0},
            **{"m": value, "m_reason": None, "recording": f"r{index // 2}"},
        }
        for index, (duration, rate, value) in enumerate(zip(SECONDS, rates, values, strict=True))
    ]
    clips = pd.DataFrame(records).astype({"error": object, "m_reason": object})
    return ReadCondition(Condition(codec, nominal, nominal), clips, CodeStatistics(codec, nominal))


def values_of(row: ReadCondition) -> np.ndarray:
    return row.clips["m"].to_numpy()


@pytest.mark.parametrize(
    ("rates", "asked", "found"),
    [
        ([7.0, 8.2, 9.0], 8.0, Reading(1, 1)),  # 2.5 % off
        ([7.0, 8.24, 9.0], 8.0, Reading(1, 1)),  # 3 %, to the last bit
        ([7.0, 9.0], 8.0, Reading(0, 1, 0.5)),
        ([12.0, 4.0, 6.0], 9.0, Reading(2, 0, 0.5)),  # in any order
        ([9.0, 16.0], 8.0, Reading(0, 0)),  # out of reach: nothing is extrapolated
        ([4.0, 7.0], 8.0, Reading(1, 1)),
        ([math.nan, 9.0], 8.0, Reading(1, 1)),  # not coded yet
        ([math.nan], 8.0, Reading(0, 0)),
    ],
)
def test_which_points_are_read(rates: list[float], asked: float, found: Reading) -> None:
    assert read_rate(rates, asked) == found


def test_between_two_points_it_is_numpys_interpolation() -> None:
    random = np.random.default_rng(0)
    for rates in np.sort(random.uniform(4, 40, (20, 6))):
        values = random.standard_normal(6)
        for asked in random.uniform(rates[0], rates[-1], 5):
            reading = read_rate(rates.tolist(), asked)
            if reading.low != reading.high:
                found = mixed(values[reading.low], values[reading.high], reading.weight)
                assert found == pytest.approx(np.interp(asked, rates, values), rel=1e-12)


def test_a_row_is_exact_for_scores_that_are_linear_in_rate() -> None:
    """Each clip has its own line, and its rates have their own factor."""
    random = np.random.default_rng(1)
    share, slope, base = random.uniform(0.5, 1.5, 6), random.uniform(0.1, 2, 6), random.uniform(-5, 5, 6)
    share /= (share * SECONDS).sum() / SECONDS.sum()
    points = [point(kbps, share * kbps, base + slope * share * kbps) for kbps in (8.0, 12.0, 20.0)]
    (row, exact), rest = match(points, [AskedRate("c", 15.5), AskedRate("c", 12.1)], [METRIC])
    assert row.condition.rate_is == "interpolated" and row.condition.label == "c@15.5"
    assert row.kbps == pytest.approx(15.5, rel=1e-12)
    assert values_of(row) == pytest.approx(base + slope * share * 15.5, rel=1e-12)
    assert row.clips["kbps_measured"].to_numpy() == pytest.approx(share * 15.5)
    assert row.between is not None and row.between.kbps == pytest.approx((12, 20))
    # The point that meets a rate is a row itself; the one that only others are read from is listed.
    assert exact.condition == replace(points[1].condition, kbps=12.1) and exact.between is None
    assert (values_of(exact) == values_of(points[1])).all()
    assert [other.condition.nominal for other in rest] == [8, 20]


def test_the_interval_is_that_of_the_same_draws_of_recordings() -> None:
    """It equals the interval of the means of both points, interpolated in every draw."""
    random = np.random.default_rng(2)
    low, high = (point(kbps, np.full(6, kbps), random.standard_normal(6)) for kbps in (8.0, 16.0))
    ((row,), _) = match([low, high], [AskedRate("c", 14.0)], [METRIC])
    names = row.clips["recording"].to_numpy(dtype=str)
    (found,) = bootstrap_means([Sample(names, values_of(row))], seed=7, num_resamples=500)
    mixed_values = 0.25 * values_of(low) + 0.75 * values_of(high)
    (expected,) = bootstrap_means([Sample(names, mixed_values)], seed=7, num_resamples=500)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_a_clip_that_failed_at_one_point_fails_between_them() -> None:
    low, high = (point(kbps, np.full(6, kbps), np.full(6, kbps)) for kbps in (8.0, 16.0))
    high.clips.loc[2, ["error", "bytes", "m"]] = ["too loud", math.nan, math.nan]
    low.clips.loc[4, "m"] = math.inf
    high = replace(high, clips=high.clips.drop(index=5))  # not coded yet
    ((row,), _) = match([low, high], [AskedRate("c", 12.0)], [METRIC])
    assert row.clips["error"].tolist() == [None, None, "too loud", None, None]
    assert values_of(row)[[0, 1, 3, 4]].tolist() == [12, 12, 12, math.inf]
    assert math.isnan(values_of(row)[2]) and math.isnan(row.clips["bytes"][2])


def test_a_row_between_points_holds_for_the_asked_rate_whatever_failed() -> None:
    """The longest clip takes a third of the others' rate, and failed at the higher point."""
    share = np.where(SECONDS == 3, 1 / 3, 1.0)
    low, high = (point(kbps, share * kbps, share * kbps) for kbps in (6.0, 12.0))
    high.clips.loc[4, ["error", "bytes", "m"]] = ["too long", math.nan, math.nan]
    ((row,), rest) = match([low, high], [AskedRate("c", 8.0)], [METRIC])
    assert row.kbps == pytest.approx(8, rel=1e-12) and row.between is not None and len(rest) == 2
    assert row.between.kbps == pytest.approx((6, 12)) and low.kbps == pytest.approx(14 / 3)
    assert np.delete(values_of(row), 4) == pytest.approx(8) and row.clips["error"][4] == "too long"
    # Over the clips that both have, no value between them holds for 5 kbps: the nearer one stands, as it is.
    ((row,), (other,)) = match([low, high], [AskedRate("c", 5.0)], [METRIC])
    assert row.between is None and row.clips.equals(low.clips.assign(kbps=5.0))
    assert other is high


def test_a_distance_between_distributions_is_interpolated_with_its_jackknife() -> None:
    sizes, weight = (2, 2, 1), 0.3
    low = CorpusScore("fd", "c", 8, 2.0, 1.0, 3.0, left_out=(2.1, 1.8, 2.2), sizes=sizes, half=2.4, limit=1.6)
    high = CorpusScore(
        "fd", "c", 8, 1.0, 0.5, 1.5, left_out=(1.1, 1.0, 0.8), sizes=sizes, half=1.2, limit=0.8
    )
    found = mixed_scores(low, high, weight)
    assert (found.value, found.half, found.limit) == pytest.approx((1.7, 2.04, 1.36))
    left_out = [0.7 * a + 0.3 * b for a, b in zip(low.left_out, high.left_out, strict=True)]
    expected = jackknife(1.7, left_out, sizes)
    assert (found.low, found.high) == pytest.approx((max(0, expected.low), expected.high))
    other = mixed_scores(low, replace(high, sizes=(2, 3), left_out=(1.0, 1.1)), weight)
    assert math.isnan(other.low) and "not scored on the same clips" in other.ci_reason
