"""Comparison of two runs: known differences, symmetry, and runs that cannot be compared."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import pandas as pd
import pytest
from synthetic_results import SI_SDR, make_results

from evaluation.records import Condition
from evaluation.report.compare import compare_runs, print_comparison
from evaluation.results import Results
from qincodec.core.errors import UserError

FAST = 500


def compared(a: Results, b: Results) -> pd.DataFrame:
    return compare_runs(a, b, num_resamples=FAST).table


def printed(a: Results, b: Results) -> str:
    file = io.StringIO()
    print_comparison(compare_runs(a, b, num_resamples=FAST), file)
    return file.getvalue()


def test_known_shift() -> None:
    a, b = make_results(seed=1), make_results(seed=1)
    rows = (b.clips["codec"] == "opus") & (b.clips["kbps"] == 16)
    b.clips.loc[rows, "si_sdr"] += 0.5
    b.clips.loc[rows, "ms_mel"] += 0.1
    table = compared(a, b).set_index(["metric", "codec_a", "kbps"])
    for metric, shift, better in (("si_sdr", 0.5, "b"), ("ms_mel", 0.1, "a")):
        row = table.loc[(metric, "opus", 16)]
        assert [row["difference"], row["ci_low"], row["ci_high"]] == pytest.approx([shift] * 3)
        assert row["mean_b"] - row["mean_a"] == pytest.approx(shift)
        assert (row["better"], row["n_clips"], row["n_recordings"]) == (better, 10, 10)
        others = table.loc[metric].drop(index=("opus", 16))
        assert (others[["difference", "ci_low", "ci_high"]] == 0).all().all()
        assert set(others["better"]) == {"n.s."}


def test_interval_is_of_the_differences_and_changes_sign_with_the_order() -> None:
    """Noise of 0.5 dB per score beside 2 dB between recordings: pairing removes the latter."""
    a = make_results(seed=1, num_recordings=40)
    b = make_results(seed=1, num_recordings=40)
    noise = make_results(seed=2, num_recordings=40).clips["gain_db"]
    b.clips["si_sdr"] += 0.3 + noise
    forth, back = compared(a, b), compared(b, a)
    forth, back = (table[table["metric"] == "si_sdr"] for table in (forth, back))
    for one, other in (("difference", "difference"), ("ci_low", "ci_high"), ("ci_high", "ci_low")):
        assert forth[one].tolist() == pytest.approx((-back[other]).tolist(), abs=0.02)
    width = (forth["ci_high"] - forth["ci_low"]).max()
    assert width < 0.2 < (a.summary["si_sdr_ci_high"] - a.summary["si_sdr_ci_low"]).min()
    assert set(forth["better"]) == {"b"} and set(back["better"]) == {"a"}


def test_only_clips_that_both_have_scored_count() -> None:
    a, b = make_results(seed=1), make_results(seed=1, troubles=True)
    assert [a.clips["si_sdr"].notna().sum(), b.clips["si_sdr"].notna().sum()] == [40, 36]
    table = compared(a, b).set_index(["metric", "codec_a", "kbps"])["n_clips"]
    assert table["si_sdr", "opus", 8] == 8, "one failed, one is not a number"
    assert table["ms_mel", "opus", 8] == 9
    assert table["si_sdr", "qincodec", 16] == 9, "one is infinite"
    assert table["si_sdr", "qincodec", 8] == 10


def test_order_of_rows_does_not_matter() -> None:
    a, b = make_results(seed=1), make_results(seed=2)
    expected = compared(a, b)
    b.clips = b.clips.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(compared(a, b), expected, check_exact=True)


def test_several_takes_of_a_recording_are_one() -> None:
    a, b = (make_results(seed=seed, num_recordings=1, clips_per_recording=6) for seed in (1, 2))
    table = compared(a, b)
    assert (table["n_clips"] == 6).all() and table["ci_low"].isna().all() and set(table["better"]) == {""}
    assert "one recording only" in printed(a, b)


# What is compared with what


def test_the_one_codec_that_has_another_name_is_compared() -> None:
    a = make_results(codecs={"opus": 0, "mine_v1": 1}, control=True)
    b = make_results(codecs={"opus": 0, "mine_v2": 2}, control=True)
    table = compared(a, b)
    pairs = set(zip(table["codec_a"], table["codec_b"], strict=True))
    assert pairs == {("opus", "opus"), ("mine_v1", "mine_v2"), ("reference", "reference")}
    text = printed(a, b)
    assert text.count("mine_v1 of the first run is compared with mine_v2 of the second") == 1
    assert "differs" not in text


def test_two_codecs_of_other_names_are_not_guessed() -> None:
    a = make_results(codecs={"opus": 0, "x": 1, "y": 1})
    b = make_results(codecs={"opus": 0, "z": 2, "w": 1})
    assert set(compared(a, b)["codec_a"]) == {"opus"}
    text = printed(a, b)
    assert "Only in the first run: x@8, x@16, y@8, y@16" in text
    assert "Only in the second run: z@8" in text


def test_every_difference_has_a_note() -> None:
    a, b = make_results(), make_results(rates=(8.0,), dataset={"disclaimer": "Only a demo."})
    b.settings = dataclasses.replace(b.settings, seed=7, chunks="all")
    b.conditions[0] = Condition(
        "opus", 8.0, 9.0, {"points": 2}, {"name": "opus", "version": "2", "weights": "ab"}
    )
    b.metrics = [SI_SDR]
    b.n_pending = 2
    lines = printed(a, b).splitlines()
    for line in (
        "Only a demo.",
        "The second run is unfinished: 2 results of clips are missing",
        "Settings differ: chunks first | all",
        "Settings differ: seed 0 | 7",
        "Codec differs, opus: version 1 | 2",
        "Codec differs, opus: weights – | ab",
        "Operating point differs, opus@8: points 1 | 2",
        "Operating point differs, opus@8: nominal kbps 8.0 | 9.0",
        "Only in the first run: opus@16, qincodec@16",
        "Metrics only in the first run: ms_mel",
    ):
        assert line in lines


def test_a_run_is_the_same_as_itself() -> None:
    run = make_results(control=True)
    comparison = compare_runs(run, run, num_resamples=FAST)
    assert (comparison.table["difference"].dropna() == 0).all()
    assert [note.text for note in comparison.remarks] == [
        "SI-SDR has no difference or interval, reference: no clip has a finite value in both"
    ]


# Other data


def with_hashes(results: Results, change: dict[str, str]) -> Results:
    results.clips["content_hash"] = [change.get(clip, f"hash of {clip}") for clip in results.clips["clip"]]
    return results


def test_clips_of_other_data_count_where_their_content_is_the_same() -> None:
    a = with_hashes(make_results(num_recordings=10), {})
    b = with_hashes(make_results(num_recordings=8), {"rec003/take0": "another file"})
    assert a.dataset.hash != b.dataset.hash
    comparison = compare_runs(a, b, num_resamples=FAST)
    assert (comparison.table["n_clips"] == 7).all()
    assert any(note.text.startswith("Data differ") for note in comparison.remarks)


def test_excerpts_of_other_length_are_other_clips() -> None:
    a, b = with_hashes(make_results(), {}), with_hashes(make_results(dataset={"hash": "other"}), {})
    b.clips.loc[b.clips["clip"].isin(["rec001/take0", "rec002/take0"]), "duration_s"] = 3.0
    assert (compared(a, b)["n_clips"] == 8).all()


# What cannot be compared


def change_setting(results: Results, name: str, value: Any) -> None:
    results.settings = dataclasses.replace(results.settings, **{name: value})


def change_version(results: Results) -> None:
    results.metrics[1] = dataclasses.replace(results.metrics[1], version="2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: change_setting(r, "sample_rate", 48000), "sample_rate is 44100 in the first and 48000"),
        (lambda r: change_setting(r, "channels", 2), "channels is 1 in the first and 2"),
        (lambda r: change_setting(r, "align", False), "align is True in the first and False"),
        (change_version, "ms_mel has version 1 in the first and 2 in the second"),
        (lambda r: r.metrics.clear(), "no metric in common"),
        (lambda r: r.conditions.clear(), "no condition in common"),
        (lambda r: r.clips.__setitem__("si_sdr", math.nan) or r.metrics.pop(), "no clip has a finite score"),
    ],
)
def test_refused_in_one_line(change: Any, message: str) -> None:
    other = make_results()
    change(other)
    with pytest.raises(UserError, match=message) as raised:
        compare_runs(make_results(), other)
    assert "\n" not in str(raised.value)
