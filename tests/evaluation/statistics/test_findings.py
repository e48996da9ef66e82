"""Claims of a report: only those that the paired tests support."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_results import make_results

from evaluation.report.findings import sentences, silence
from evaluation.results import Results
from evaluation.statistics.few import FEW_RECORDINGS

N = 24


def scored(values: dict[tuple[str, float], tuple[Sequence[float], Sequence[float]]]) -> Results:
    """A recording per score: (codec, kbps) -> its SI-SDR and its MS-Mel."""
    codecs = dict.fromkeys((codec for codec, _ in values), 0.0)
    rates = sorted({kbps for _, kbps in values})
    results = make_results(codecs=codecs, rates=rates, num_recordings=len(next(iter(values.values()))[0]))
    for (codec, kbps), (si_sdr, ms_mel) in values.items():
        rows = (results.clips["codec"] == codec) & (results.clips["kbps"] == kbps)
        results.clips.loc[rows, "si_sdr"], results.clips.loc[rows, "ms_mel"] = si_sdr, ms_mel
    return results


def around(mean: float, width: float = 0.01) -> np.ndarray:
    """Values of this mean, no two of the same size."""
    values = np.linspace(-1, 1, N) * np.where(np.arange(N) % 2, 1, -1)
    return mean + width * (values - values.mean())


def alternating(size: float) -> np.ndarray:
    """As many values above zero as below, of the same sizes: a signed-rank test has p = 1."""
    steps = np.repeat(np.linspace(0.1, size, N // 2), 2)
    return steps * np.where(np.arange(N) % 2, 1, -1)


def test_the_sentence_of_two_codecs() -> None:
    opus, aac = (alternating(2) + 0.001, around(1.0, 0.2)), (np.zeros(N), around(1.16, 0))
    results = scored({("opus", 16): opus, ("aac", 16): aac})
    tie, better = results.findings
    assert (tie.best, tie.ties, tie.worse, tie.nearest) == ("opus", ("aac",), (), "") and math.isnan(tie.lead)
    assert (better.best, better.worse, better.nearest, better.kbps) == ("opus", ("aac",), "aac", 16)
    assert better.lead == pytest.approx(0.16) and better.n_recordings == N
    row = results.tests[results.tests["metric"] == "ms_mel"].iloc[0]  # opus - aac, of which less is better
    assert (-better.ci_high, -better.ci_low) == (row["ci_low"], row["ci_high"])
    assert sentences(results) == [
        "At 16 kbps, opus and aac cannot be told apart by SI-SDR; opus is better by MS-Mel, by 0.16"
        f" [{better.ci_low:.2f}, {better.ci_high:.2f}]"
    ]


def test_the_nearest_codec_and_the_smallest_lead_are_named() -> None:
    scores = {}
    for kbps, gap in ((8.0, 3.0), (16.0, 2.0)):
        scores["a", kbps] = around(10), around(1)
        scores["b", kbps] = around(10 - gap), around(1)  # the same MS-Mel, bit by bit
        scores["c", kbps] = around(4), around(2)
    (sentence,) = sentences(scored(scores))
    tie, best = sentence.split("; ")
    assert tie == "At 8 and 16 kbps, a cannot be told apart from b by MS-Mel, and is better than c"
    assert best.startswith("a is the best of 3 by SI-SDR (least at 16 kbps: 2.0")
    assert best.endswith("ahead of b)")


def test_the_finding_for_most_rates_comes_first() -> None:
    scores = {}
    for kbps, first in ((4.0, 9.0), (8.0, 5.0), (16.0, 5.0)):
        scores["a", kbps] = around(first), around(1)
        scores["b", kbps] = around(7), around(2)
    two = sentences(scored(scores))
    assert [sentence.partition(",")[0] for sentence in two] == ["At 8 and 16 kbps", "At 4 kbps"]
    assert "b is better than a by SI-SDR" in two[0] and "a is better by MS-Mel" in two[0]
    assert two[1].startswith("At 4 kbps, a is better than b by SI-SDR, by 2.0")


def test_no_test_identifies_the_best_of_equals() -> None:
    same = {(codec, 8.0): (around(5), around(1)) for codec in "abc"}
    assert sentences(scored(same)) == [
        "At 8 kbps, by SI-SDR and MS-Mel, no test identifies the best of 3 codecs"
    ]


def test_codecs_without_a_difference_are_counted_at_each_rate() -> None:
    same = {(codec, 8.0): (around(5), around(1)) for codec in "abcd"}
    same |= {(codec, 16.0): (around(5), around(1)) for codec in "abcd"}
    results = scored(same)
    off = (results.clips["codec"] == "d") & (results.clips["kbps"] == 16)
    results.clips.loc[off, "bytes"] *= 3  # it misses the rate, and no claim is made of it
    assert sentences(results) == [
        f"At {rate} kbps, by SI-SDR and MS-Mel, no test identifies the best of {number} codecs"
        for rate, number in ((8, 4), (16, 3))
    ]


@pytest.mark.parametrize("outlier", [-15.0, -40.0])
def test_no_claim_where_ranks_differ_and_means_do_not(outlier: float) -> None:
    """a is better by most recordings and far worse by one: by the mean a little better, or worse."""
    a = around(1, 0.2)
    a[0] = outlier
    results = scored({("a", 8.0): (a, around(1)), ("b", 8.0): (np.zeros(N), around(1))})
    row = results.tests[results.tests["metric"] == "si_sdr"].iloc[0]
    assert row["p_holm"] < 0.05 and row["ci_low"] < 0 < row["ci_high"]
    assert row["winner"] == ("a" if outlier == -15 else "n.s.")
    assert {f.metric for f in results.findings} == {"ms_mel"}


def test_claims_keep_to_holms_correction() -> None:
    """A difference with p below 5 % alone is not significant among the tests of all pairs and rates."""
    random = np.random.default_rng(1)
    noise = random.normal(0, 1, (6, N))
    shift = next(
        shift
        for shift in np.arange(0.2, 2, 0.02)
        if 0.02 < stats.wilcoxon(noise[0] - noise[1] + shift).pvalue < 0.045
    )
    scores = {("a", 8.0): (noise[0] + shift, around(1)), ("b", 8.0): (noise[1], around(1))}
    alone = [f for f in scored(scores).findings if f.metric == "si_sdr"]
    assert [f.worse for f in alone] == [("b",)]
    for number, kbps in enumerate((16.0, 32.0), start=1):
        for codec, row in zip("ab", noise[2 * number : 2 * number + 2], strict=True):
            scores[codec, kbps] = (row, around(1))
    among = [f for f in scored(scores).findings if (f.metric, f.kbps) == ("si_sdr", 8.0)]
    assert [f.ties for f in among] == [("b",)]


def clear(recordings: int = N) -> Results:
    return make_results(codecs={"a": 0, "b": 3}, num_recordings=recordings)


def unfinished(results: Results) -> None:
    results.n_pending = 1


def off_the_rate(results: Results) -> None:
    results.clips.loc[results.clips["codec"] == "b", "bytes"] *= 1.3


def apart(results: Results) -> None:
    """Within the tolerance of nominal rates, and yet not at one rate."""
    results.clips.loc[results.clips["codec"] == "b", "bytes"] *= 1.08


def never_trained(results: Results) -> None:
    random = {"version": "1-untrained"}
    results.conditions = [dataclasses.replace(c, identity=random) for c in results.conditions]


def without_a_rate(results: Results) -> None:
    results.conditions = [dataclasses.replace(c, kbps=None, rate_is="none") for c in results.conditions][::2]
    results.clips = results.clips[results.clips["kbps"] == 8].assign(kbps=math.nan)


@pytest.mark.parametrize("spoil", [unfinished, off_the_rate, apart, never_trained, without_a_rate])
def test_no_claim_where_the_data_support_none(spoil: Callable[[Results], None]) -> None:
    assert len(clear().findings) == 4
    results = clear()
    spoil(results)
    assert results.findings == [] and sentences(results) == [] and silence(results) == ""


def test_no_claim_from_few_recordings() -> None:
    assert clear(FEW_RECORDINGS).findings and not silence(clear(FEW_RECORDINGS))
    few = clear(FEW_RECORDINGS - 1)
    assert few.tests["winner"].eq("b").all() and few.findings == []
    assert silence(few) == "No claim in words: it needs 20 recordings, and there are 19"


def test_no_claim_where_means_and_tests_disagree() -> None:
    """b has the better mean because it failed on the hardest recording; on common recordings it is worse."""
    hard, rest = -500.0, around(10)[1:]
    a, b = [hard, *rest], [math.nan, *(rest - 1)]
    results = scored({("a", 8.0): (a, around(1)), ("b", 8.0): (b, around(1))})
    tests = results.tests
    assert tests.loc[tests["metric"] == "si_sdr", "winner"].item() == "a"
    assert {f.metric for f in results.findings} == {"ms_mel"}


def test_findings_are_records_of_the_run() -> None:
    frame = pd.DataFrame([dataclasses.asdict(finding) for finding in clear().findings])
    assert set(frame["best"]) == {"b"} and (frame["ci_low"] > 0).all() and (frame["lead"] > 0).all()
