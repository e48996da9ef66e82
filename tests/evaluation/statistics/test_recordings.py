"""Intervals, tests, BD-rate and rate checks against other implementations, closed forms and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from synthetic_results import make_results

from evaluation.results import Results
from evaluation.statistics.recordings import (
    TIMING_COLUMNS,
    Sample,
    _wilcoxon,
    bd_rate,
    bootstrap_means,
    holm,
    paired_tests,
    rate_spread,
    summarize,
)
from qincodec.core.errors import UserError

FAST = 500


def sample(recordings: object, values: object) -> Sample:
    return Sample(np.asarray(recordings, dtype=str), np.asarray(values, dtype=float))


def summary_of(results: Results) -> pd.DataFrame:
    return summarize(results, seed=0, num_resamples=FAST)


def set_means(results: Results, codec: str, metric: str, function: object) -> None:
    """Give every clip of ``codec`` the same score, a function of its measured rate."""
    rows = results.clips["codec"] == codec
    results.clips.loc[rows, metric] = results.clips.loc[rows, "kbps_measured"].map(function)  # type: ignore[arg-type]


# Intervals


def tail(size: int) -> float:
    """Hesterberg's adjusted tail of a 95% percentile interval."""
    return float(stats.norm.cdf(-math.sqrt(size / (size - 1)) * stats.t.ppf(0.975, size - 1)))


def test_interval_agrees_with_scipy_on_independent_values() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=30)
    ours = bootstrap_means([sample([f"r{i}" for i in range(30)], values)], seed=3, num_resamples=20_000)[0]
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        confidence_level=1 - 2 * tail(30),
        rng=np.random.default_rng(8),
    ).confidence_interval
    assert ours.mean == pytest.approx(values.mean(), rel=1e-14)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * values.std())


def test_whole_recordings_are_resampled() -> None:
    """The same as scipy's bootstrap of recordings of unequal size, and wider than one that mixes clips."""
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 6, size=20)
    recordings = np.repeat([f"r{i}" for i in range(20)], sizes)
    values = np.repeat(rng.normal(size=20), sizes) + rng.normal(0, 0.1, size=sizes.sum())
    groups = [values[recordings == f"r{i}"] for i in range(20)]

    def mean_of(indices: np.ndarray) -> float:
        return float(np.concatenate([groups[i] for i in indices]).mean())

    theirs = stats.bootstrap(
        (np.arange(20),),
        mean_of,
        n_resamples=4000,
        method="percentile",
        vectorized=False,
        confidence_level=1 - 2 * tail(20),
        rng=np.random.default_rng(5),
    ).confidence_interval
    clustered, mixed = bootstrap_means(
        [sample(recordings, values), sample(np.arange(len(values)), values)], seed=0
    )
    assert (clustered.low, clustered.high) == pytest.approx((theirs.low, theirs.high), abs=0.05)
    assert clustered.n == sizes.sum() and clustered.n_recordings == 20
    assert clustered.high - clustered.low > 1.3 * (mixed.high - mixed.low)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.floats(-1e6, 1e6, allow_subnormal=False)), min_size=1, max_size=30
    ),
    st.randoms(use_true_random=False),
)
def test_interval_holds_the_mean_and_ignores_order(rows: list[tuple[int, float]], shuffle: object) -> None:
    shuffled = rows.copy()
    shuffle.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (
        bootstrap_means([sample(*zip(*part, strict=True))], seed=0, num_resamples=50)[0]
        for part in (rows, shuffled)
    )
    if len({recording for recording, _ in rows}) == 1:
        assert math.isnan(one.low) and math.isnan(one.high) and one.mean == other.mean
    else:
        assert one == other
        assert one.low <= one.mean <= one.high


def test_samples_of_the_same_recordings_share_their_draws() -> None:
    """So a shift of all values shifts the interval, whatever other samples are computed beside it."""
    recordings = [f"r{i}" for i in range(12)]
    values = np.random.default_rng(0).normal(size=12)
    alone = bootstrap_means([sample(recordings, values)], seed=4, num_resamples=FAST)[0]
    others = [sample(recordings, values + 7), sample(recordings[:5], values[:5]), sample(recordings, values)]
    shifted, _, again = bootstrap_means(others, seed=4, num_resamples=FAST)
    assert again == alone
    assert (shifted.low - 7, shifted.high - 7) == pytest.approx((alone.low, alone.high), abs=1e-12)
    assert bootstrap_means([sample(recordings, values)], seed=5, num_resamples=FAST)[0] != alone


def test_no_values() -> None:
    empty = bootstrap_means([sample([], [])], seed=0)[0]
    assert math.isnan(empty.mean) and empty.n == 0 and empty.n_recordings == 0


def coverage(size: int, *, skewed: bool, clips: int, repeats: int, num_resamples: int) -> float:
    rng = np.random.default_rng(size)
    recordings = np.repeat([f"r{i}" for i in range(size)], clips)
    samples = []
    for _ in range(repeats):
        centre = rng.exponential(size=size) if skewed else rng.normal(1, 1, size=size)
        samples.append(sample(recordings, np.repeat(centre, clips) + rng.normal(0, 0.5, size=size * clips)))
    estimates = [
        bootstrap_means([one], seed=i, num_resamples=num_resamples)[0] for i, one in enumerate(samples)
    ]
    return float(np.mean([estimate.low <= 1.0 <= estimate.high for estimate in estimates]))


def test_interval_covers_the_truth() -> None:
    """95% of 600 intervals, give or take 3 standard errors (0.9%); the plain percentiles cover 91%."""
    assert 0.92 < coverage(10, skewed=False, clips=2, repeats=600, num_resamples=400) < 0.98


@pytest.mark.long
@pytest.mark.parametrize(
    ("size", "skewed", "low"),
    [(6, False, 0.92), (10, False, 0.935), (25, False, 0.935), (100, False, 0.935), (25, True, 0.91)],
)
def test_interval_covers_the_truth_long(size: int, skewed: bool, low: float) -> None:
    assert low < coverage(size, skewed=skewed, clips=3, repeats=4000, num_resamples=2000) < 0.965


# Summary


def test_summary_against_hand_computed_values() -> None:
    results = make_results(troubles=True, control=True, declared=True, rate_factor={"opus": 1.2})
    summary = summary_of(results)
    assert list(zip(summary["codec"], summary["kbps"].fillna(-1), strict=True)) == [
        ("opus", 8),
        ("opus", 16),
        ("qincodec", 8),
        ("qincodec", 16),
        ("rendered", 8),
        ("reference", -1),
    ]
    opus = summary.iloc[0]
    clips = results.clips[(results.clips["codec"] == "opus") & (results.clips["kbps"] == 8)]
    good = clips[clips["clip"] != "rec000/take0"]
    assert (opus["n"], opus["n_failed"], opus["n_recordings"]) == (9, 1, 9)
    bits, seconds = 8 * sum(good["bytes"]), sum(good["duration_s"])
    assert opus["kbps_measured"] == pytest.approx(bits / seconds / 1000, rel=1e-12)
    assert opus["rate_deviation"] == pytest.approx(0.2) and opus["rate_off"]
    assert opus["encode_rt"] == pytest.approx(seconds / sum(good["encode_s"]))
    assert opus["decode_rt"] == pytest.approx(seconds / sum(good["decode_s"]))
    assert opus["delay_samples"] == 312 and opus["delay_applied"] == 312
    assert opus["gain_db"] == pytest.approx(np.median(good["gain_db"]))
    assert (opus["si_sdr_n"], opus["si_sdr_inf"], opus["ms_mel_n"]) == (8, 0, 9)
    assert opus["si_sdr"] == pytest.approx(np.nanmean(good["si_sdr"].astype(float)))
    assert math.isnan(opus["kbps_entropy"])

    qincodec = summary.iloc[3]
    assert (qincodec["si_sdr_n"], qincodec["si_sdr_inf"]) == (9, 1)
    assert math.isfinite(qincodec["si_sdr"]) and math.isfinite(qincodec["si_sdr_ci_high"])
    assert qincodec["kbps_entropy"] == pytest.approx(15.2)

    rendered = summary.iloc[4]
    assert rendered["rate_is"] == "declared" and rendered["kbps_measured"] == 8
    assert math.isnan(rendered["encode_rt"])

    reference = summary.iloc[5]
    assert math.isnan(reference["si_sdr"]) and reference["si_sdr_inf"] == 10
    assert reference["si_sdr_reason"] == "all 10 values are infinite"
    assert (reference["ms_mel"], reference["ms_mel_ci_low"], reference["ms_mel_ci_high"]) == (0, 0, 0)
    assert math.isnan(reference["kbps_measured"]) and not reference["rate_off"]


def test_summary_does_not_depend_on_the_order_of_rows() -> None:
    results = make_results(troubles=True, control=True, clips_per_recording=3)
    expected = summary_of(results)
    results.clips = results.clips.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(summary_of(results), expected, check_exact=True)


def test_only_timing_columns_depend_on_timing() -> None:
    results = make_results(troubles=True)
    expected = summary_of(results)
    results.clips[["encode_s", "decode_s"]] *= 1.7
    other = summary_of(results)
    timing = [name for name in expected if name in TIMING_COLUMNS]
    assert timing == ["encode_rt", "decode_rt"]
    assert not expected[timing].equals(other[timing])
    pd.testing.assert_frame_equal(other.drop(columns=timing), expected.drop(columns=timing), check_exact=True)


def test_a_missing_mean_or_interval_has_a_reason() -> None:
    one = summary_of(make_results(num_recordings=1, clips_per_recording=4)).iloc[0]
    assert math.isfinite(one["si_sdr"]) and math.isnan(one["si_sdr_ci_low"])
    assert "one recording" in one["si_sdr_ci_reason"] and one["si_sdr_n"] == 4

    results = make_results()
    results.clips["error"] = "broken"
    results.clips[["si_sdr", "ms_mel"]] = math.nan
    failed = summary_of(results).iloc[0]
    assert failed["n"] == 0 and failed["si_sdr_reason"] == "all 10 clips failed"
    assert math.isnan(failed["kbps_measured"])

    results = make_results()
    results.clips["si_sdr"] = math.nan
    results.clips["si_sdr_reason"] = "the decoded signal is silent"
    silent = summary_of(results).iloc[0]
    assert silent["n"] == 10 and silent["si_sdr_n"] == 0
    assert silent["si_sdr_reason"] == "the decoded signal is silent (10 clips)"

    results = make_results()
    results.clips = results.clips[results.clips["codec"] != "opus"]
    assert summary_of(results).iloc[0]["si_sdr_reason"] == "no clip was evaluated"


# Rates


def test_rate_spread() -> None:
    results = make_results(
        codecs={"a": 0, "b": 0, "c": 0}, rate_factor={"a": 1.0, "b": 1.05, "c": 0.99}, control=True
    )
    spread = rate_spread(summary_of(results))
    assert spread["kbps"].tolist() == [8, 16] and spread["n_codecs"].tolist() == [3, 3]
    assert spread["spread"].tolist() == pytest.approx([1.05 / 0.99 - 1] * 2, rel=5e-3)
    assert spread["flagged"].all()


@pytest.mark.parametrize(
    ("factor", "flagged", "off"),
    [(1.0, False, False), (1.05, False, False), (1.06, True, False), (1.15, True, False), (0.84, True, True)],
)
def test_limits_of_rate_checks(factor: float, flagged: bool, off: bool) -> None:
    summary = summary_of(make_results(rates=(160.0,), rate_factor={"opus": factor}))
    assert rate_spread(summary)["flagged"].tolist() == [flagged]
    assert summary["rate_off"].tolist() == [off, False]


def test_rate_spread_of_one_codec_and_of_none() -> None:
    spread = rate_spread(summary_of(make_results(codecs={"opus": 0}, rate_factor={"opus": 2})))
    assert spread["spread"].tolist() == [0, 0] and not spread["flagged"].any()
    results = make_results(codecs={"opus": 0}, rates=(8,))
    results.clips["bytes"] = math.nan
    spread = rate_spread(summary_of(results))
    assert spread["n_codecs"].tolist() == [0] and math.isnan(spread["spread"][0])


# Paired tests


def by_hand(differences: np.ndarray) -> tuple[float, float]:
    """(two-sided exact p of the signed-rank test by enumeration, rank-biserial correlation)."""
    ranks = stats.rankdata(np.abs(differences))
    positive, negative = ranks[differences > 0].sum(), ranks[differences < 0].sum()
    sums = np.array([np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(ranks))])
    smaller = np.mean(sums <= min(positive, negative) + 1e-9)
    return min(1.0, 2 * float(smaller)), (positive - negative) / ranks.sum()


def test_paired_tests_against_enumeration() -> None:
    results = make_results(codecs={"a": 0, "b": 0.4, "c": 2}, troubles=True, control=True, num_recordings=12)
    tests = paired_tests(results, seed=0, num_resamples=FAST)
    assert len(tests) == 2 * 2 * 3 and set(tests["codec_a"]) | set(tests["codec_b"]) == {"a", "b", "c"}
    clips = results.clips.set_index(["codec", "kbps", "clip"])
    for _, row in tests.iterrows():
        first, second = (
            clips.loc[(row[name], row["kbps"]), row["metric"]].astype(float)
            for name in ("codec_a", "codec_b")
        )
        differences = (first - second).replace([math.inf, -math.inf], math.nan).dropna().to_numpy()
        p, effect = by_hand(differences)
        assert row["n_recordings"] == row["n_clips"] == len(differences)
        assert row["p"] == pytest.approx(p, rel=1e-9)
        assert row["rank_biserial"] == pytest.approx(effect, rel=1e-9)
        assert row["difference"] == pytest.approx(differences.mean())
        assert row["ci_low"] <= row["difference"] <= row["ci_high"]
    for _, family in tests.groupby("metric"):
        order = np.argsort(family["p"].to_numpy())
        steps = [min(1.0, (6 - i) * family["p"].to_numpy()[j]) for i, j in enumerate(order)]
        expected = np.maximum.accumulate(steps)
        assert family["p_holm"].to_numpy()[order] == pytest.approx(expected)
    best = tests[tests["codec_b"] == "c"]
    assert set(best["winner"]) == {"c"}  # higher SI-SDR, lower MS-Mel


def test_codecs_are_compared_on_their_common_clips() -> None:
    found = []
    for lacking in ({"a": ["rec000/take0", "rec003/take1"], "b": ["rec008/take0"]}, {}):
        results = make_results(codecs={"a": 0, "b": 0.2}, num_recordings=9, clips_per_recording=2)
        clips, gone = results.clips, ["rec000/take0", "rec003/take1", "rec008/take0"]
        for codec in ("a", "b"):
            lost = clips["clip"].isin(lacking.get(codec, gone)) & (clips["codec"] == codec)
            clips = clips[~lost]
        results.clips = clips.sample(frac=1, random_state=0) if lacking else clips
        found.append(paired_tests(results, seed=0, num_resamples=FAST))
    compared = [column for column in found[0] if not column.startswith("kbps_measured")]
    pd.testing.assert_frame_equal(found[0][compared], found[1][compared], check_exact=True)
    assert set(found[0]["n_clips"]) == {15}

    results.clips = pd.concat([results.clips, results.clips[:1]])
    with pytest.raises(ValueError, match="a condition has a clip twice"):
        paired_tests(results, seed=0, num_resamples=FAST)


def test_several_clips_count_as_one_recording() -> None:
    results = make_results(num_recordings=7, clips_per_recording=4)
    row = paired_tests(results, seed=0, num_resamples=FAST).iloc[0]
    assert row["n_clips"] == 28 and row["n_recordings"] == 7
    assert row["p"] >= 2 / 2**7 - 1e-12  # the smallest p that seven pairs can have


def test_too_few_pairs_and_no_differences() -> None:
    few = paired_tests(make_results(num_recordings=5), seed=0, num_resamples=FAST)
    assert few[["p", "p_holm", "rank_biserial"]].isna().all().all() and set(few["winner"]) == {""}
    assert few["reason"].str.contains("5 recordings in both, a test needs 6").all()
    assert few["difference"].notna().all() and few["ci_low"].notna().all()

    same = make_results(codecs={"a": 0, "b": 0})
    for name in ("si_sdr", "ms_mel"):
        same.clips[name] = same.clips.groupby(["kbps", "clip"])[name].transform("first")
    tests = paired_tests(same, seed=0, num_resamples=FAST)
    assert (tests["p"] == 1).all() and (tests["difference"] == 0).all() and set(tests["winner"]) == {"n.s."}
    assert set(tests["reason"]) == {"all differences are zero"}
    # Recordings without a difference do not count in the ranks.
    names = np.array([f"r{k}" for k in range(8)])
    found = _wilcoxon(Sample(names, np.array([0.0] * 7 + [1])))
    assert found["p"] == 1 and found["reason"] == "1 of 8 recordings differs: p cannot be below 1"
    found = _wilcoxon(Sample(names, np.array([0.0, 0, 0, 0, 0, 1, 2, 3])))
    assert found["p"] == 2 / 2**3 and found["reason"] == "3 of 8 recordings differ: p cannot be below 0.25"


def test_no_winner_where_mean_and_ranks_disagree() -> None:
    results = make_results(codecs={"a": 0, "b": 0}, rates=(8,), num_recordings=20)
    first = results.clips["codec"] == "a"
    results.clips.loc[first, "si_sdr"] = [1.0 + i / 100 for i in range(19)] + [-100.0]
    results.clips.loc[~first, "si_sdr"] = 0.0
    row = paired_tests(results, seed=0, num_resamples=FAST).iloc[0]
    assert row["p_holm"] < 0.05 and row["difference"] < 0 < row["rank_biserial"]
    assert row["winner"] == "n.s." and "opposite" in row["reason"]


def false_winners(recordings: int, skewed: bool, repeats: int) -> tuple[float, float]:
    """How often any of six pairs of four equal codecs is told apart, and how often the interval of the
    difference of the first two holds 0: recordings of two clips, values with a long tail or normal."""
    rng = np.random.default_rng(recordings)
    names = np.repeat([f"r{i}" for i in range(recordings)], 2)
    found = held = 0
    for seed in range(repeats):
        draw = rng.lognormal if skewed else rng.normal
        values = draw(0, 1, (4, recordings)).repeat(2, axis=1) + rng.normal(0, 0.5, (4, 2 * recordings))
        pairs = [sample(names, a - b) for a, b in itertools.combinations(values, 2)]
        found += any(p < 0.05 for p in holm([_wilcoxon(pair)["p"] for pair in pairs]))
        interval = bootstrap_means(pairs[:1], seed=seed, num_resamples=1000)[0]
        held += interval.low <= 0 <= interval.high
    return found / repeats, held / repeats


def test_equal_codecs_have_no_winner() -> None:
    found, held = false_winners(12, True, 150)
    assert found < 0.05 + 3 * 0.018 and held > 0.95 - 3 * 0.018


@pytest.mark.long
@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("recordings", [8, 15, 30, 100])
def test_equal_codecs_have_no_winner_long(recordings: int, skewed: bool) -> None:
    found, held = false_winners(recordings, skewed, 1000)
    print(f"{recordings} recordings, skewed {skewed}: winners {found:.3f}, difference {held:.3f}")
    assert found < 0.05 + 3 * 0.007 and held > 0.95 - 3 * 0.007 - 0.01


def test_conditions_without_a_rate_are_compared_with_each_other() -> None:
    results = make_results(codecs={"a": 0, "b": 3}, rates=(8,))
    results.conditions = [type(c)(c.codec, None, None, rate_is="none") for c in results.conditions]
    results.clips["kbps"] = math.nan
    tests = paired_tests(results, seed=0, num_resamples=FAST)
    assert len(tests) == 2 and tests["kbps"].isna().all() and set(tests["winner"]) == {"b"}


def test_one_codec_has_no_tests() -> None:
    tests = paired_tests(make_results(codecs={"a": 0}), seed=0)
    assert len(tests) == 0 and "p_holm" in tests


def test_holm_leaves_out_what_was_not_tested() -> None:
    """Worked example: 0.01, 0.04, 0.03 with three tests -> 0.03, 0.06, 0.06."""
    assert holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


# BD-rate

RATES = (6.0, 12.0, 24.0, 48.0, 96.0)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.0, 1.3, 2.0])
def test_bd_rate_of_a_shifted_curve(factor: float) -> None:
    """A codec that needs r times the rate for the same score has a BD-rate of (r - 1) * 100%."""
    results = make_results(codecs={"a": 0, "b": 0}, rates=RATES, rate_factor={"b": factor})
    # Scores depend on the asked rate, so that b has at r times the rate what a has at the rate.
    for name, slope in (("si_sdr", 3.0), ("ms_mel", -0.2)):
        results.clips[name] = 2 + slope * np.log2(results.clips["kbps"]) ** 1.2
    table = bd_rate(results, summary_of(results))
    assert table[["metric", "anchor", "codec"]].values.tolist() == [
        ["si_sdr", "a", "b"],
        ["ms_mel", "a", "b"],
    ]
    assert table["bd_rate"].tolist() == pytest.approx([(factor - 1) * 100] * 2, abs=1e-2)
    assert table["overlap"].tolist() == pytest.approx([1, 1]) and set(table["reason"]) == {""}


def test_bd_rate_sign() -> None:
    """A codec that is better at every rate needs less: negative, for both directions of a metric."""
    results = make_results(codecs={"a": 0, "b": 2}, rates=RATES, num_recordings=20)
    table = bd_rate(results, summary_of(results))
    assert (table["bd_rate"] < -20).all()
    reverse = bd_rate(results, summary_of(results), anchor="b")
    assert ((1 + table["bd_rate"] / 100) * (1 + reverse["bd_rate"] / 100)).tolist() == pytest.approx([1, 1])


def test_bd_rate_says_why_there_is_none() -> None:
    results = make_results(codecs={"a": 0, "b": 0, "c": 0, "d": 0}, rates=RATES)
    results.conditions = [c for c in results.conditions if c.codec != "a" or c.kbps in (6, 12, 24)]
    set_means(results, "a", "si_sdr", math.log2)
    set_means(results, "b", "si_sdr", math.log2)
    set_means(results, "c", "si_sdr", lambda rate: rate + 100)
    set_means(results, "d", "si_sdr", lambda rate: -abs(rate - 24))
    table = bd_rate(results, summary_of(results))
    table = table[table["metric"] == "si_sdr"].set_index("codec")
    assert set(table["anchor"]) == {"b"}, "the first with enough rates"
    assert table["bd_rate"].isna().all()
    assert table.loc["a", "reason"] == "a has 3 usable rates, 4 are needed"
    assert table.loc["c", "reason"] == "the curves share 0% of their range, 50% needed"
    assert table.loc["d", "reason"] == "d does not get better with every step in rate"


def test_bd_rate_uses_only_points_over_all_clips() -> None:
    results = make_results(codecs={"a": 0, "b": 1}, rates=RATES, troubles=True, declared=True)
    table = bd_rate(results, summary_of(results))
    row = table[(table["metric"] == "si_sdr") & (table["codec"] == "b")].iloc[0]
    assert (row["n_points_anchor"], row["n_points"]) == (5, 4), "one point of b has an infinite score"
    rendered = table[table["codec"] == "rendered"]
    assert rendered["bd_rate"].isna().all() and (rendered["n_points"] == 0).all()


def test_bd_rate_of_one_operating_point_asked_for_twice() -> None:
    results = make_results(codecs={"a": 0, "b": 1}, rates=RATES)
    for name in ("bytes", "si_sdr", "ms_mel", "kbps_measured"):
        twice = results.clips[results.clips["kbps"] == 12].set_index(["codec", "clip"])[name]
        rows = results.clips["kbps"] == 6
        keys = results.clips.loc[rows, ["codec", "clip"]].itertuples(index=False, name=None)
        results.clips.loc[rows, name] = [twice[key] for key in keys]
    table = bd_rate(results, summary_of(results))
    assert (table["n_points"] == 4).all() and table["bd_rate"].notna().all()


def test_bd_rate_without_enough_rates_or_with_an_unknown_anchor() -> None:
    results = make_results()
    assert len(bd_rate(results, summary_of(results))) == 0
    with pytest.raises(UserError, match="'mp3' is not in this run; choose one of opus, qincodec"):
        bd_rate(results, summary_of(results), anchor="mp3")
