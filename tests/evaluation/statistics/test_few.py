"""Few recordings: the median by its definition, the rule, and the rates that a note prints."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from nominal import evaluate
from scipy import stats
from synthetic_results import make_results

from evaluation.report.notes import notes
from evaluation.report.tables import all_tables
from evaluation.statistics.few import FEW_RECORDINGS, MEASURED, median, needed, recording_means
from evaluation.statistics.recordings import Sample, bootstrap_means


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 8, 9, 17, 64, 200])
def test_the_interval_of_a_median_is_the_sign_tests(n: int) -> None:
    """It holds what a two-sided sign test at 5 % does not reject: scipy's binomial test, value by value."""
    values = np.sort(np.random.default_rng(n).normal(size=n))
    found = median(values[::-1])
    assert found.value == np.median(values)
    kept = [
        value
        for value in (values[:-1] + values[1:]) / 2
        if stats.binomtest(int((values < value).sum()), n, 0.5).pvalue > 0.05
    ]
    if n < 6:
        assert math.isnan(found.low) and math.isnan(found.high)
    else:
        assert (found.low, found.high) == (
            values[values < min(kept)].max(),
            values[values > max(kept)].min(),
        )
    assert math.isnan(median(np.empty(0)).value)


def test_means_of_recordings() -> None:
    recordings, values = np.array(["b", "a", "b", "b"]), np.array([1.0, 7.0, 2.0, 6.0])
    assert recording_means(recordings, values).tolist() == [7.0, 3.0]
    assert recording_means(np.empty(0, dtype=str), np.empty(0)).tolist() == []
    pieces = np.random.default_rng(0).normal(size=4)
    bits = {recording_means(np.array(["a"] * 4), np.array(p))[0] for p in itertools.permutations(pieces)}
    assert len(bits) == 1


def test_cochrans_rule() -> None:
    assert needed(np.arange(40.0)) == FEW_RECORDINGS == needed(np.ones(3)) == needed(np.empty(0))
    values = np.append(np.zeros(39), 1.0)
    assert needed(values) == math.floor(25 * stats.skew(values, bias=False) ** 2) + 1 > 900


SHAPES = ("normal", "long tail", "outliers")


def measure(shape: str, size: int, repeats: int, num_resamples: int) -> tuple[float, float]:
    """How often the intervals of mean and median held the truth."""
    rng = np.random.default_rng(size)
    drawn: dict[str, tuple[np.ndarray, float, float]] = {
        "normal": (rng.normal(10, 4, (repeats, size)), 10, 10),
        "long tail": (rng.lognormal(0, 1, (repeats, size)), math.exp(0.5), 1),
        "outliers": (
            np.where(rng.random((repeats, size)) < 0.05, -60, rng.normal(10, 4, (repeats, size))),
            0.95 * 10 - 0.05 * 60,
            10 + 4 * stats.norm.ppf((0.5 - 0.05) / 0.95),
        ),
    }
    values, mean, middle = drawn[shape]
    names = np.array([f"r{index:04d}" for index in range(size)])
    found = bootstrap_means([Sample(names, row) for row in values], seed=1, num_resamples=num_resamples)
    medians = [median(row) for row in values]
    return (
        float(np.mean([estimate.low <= mean <= estimate.high for estimate in found])),
        float(np.mean([estimate.low <= middle <= estimate.high for estimate in medians])),
    )


@pytest.mark.parametrize("column", range(3))
def test_measured_rates(column: int) -> None:
    """One line of the table, give or take 3 standard errors of 600 data sets."""
    size, *rates = MEASURED[3]
    of_mean, of_median = measure(SHAPES[column], size, 600, 400)
    assert of_mean == pytest.approx(rates[column], abs=3 * math.sqrt(0.25 / 600))
    assert of_median > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 600)


@pytest.mark.long
@pytest.mark.parametrize("column", range(3))
@pytest.mark.parametrize("size", [2, 4, 6, 8, 10, 15, 20, 30, 100])
def test_measured_rates_long(size: int, column: int) -> None:
    of_mean, of_median = measure(SHAPES[column], size, 2000, 1000)
    print(f"{SHAPES[column]}, {size} recordings: mean {of_mean:.3f}, median {of_median:.3f}")
    for entry in MEASURED:
        if entry[0] == size:
            assert of_mean == pytest.approx(entry[1 + column], abs=0.03)
    if size >= 6:
        assert of_median > 0.935


def test_notes_on_few_and_on_skewed_recordings() -> None:
    for number, simulated in ((3, "2 (the nearest number below the 3 here), "), (6, "6, "), (8, "8, ")):
        few = make_results(num_recordings=number)
        [text] = [note.text for note in notes(few, few.summary) if note.kind == "intervals"]
        assert f"in simulations with {simulated}" in text
        # It sends a reader to the median's interval only where the table has one.
        assert ("have medians with intervals" in text) == few.summary["si_sdr_median_ci_low"].notna().all()
    assert text.split("; ")[0].endswith("59% with rare outliers")
    many = make_results(num_recordings=40, control=True)
    assert not [note for note in notes(many, many.summary) if note.kind == "intervals"]
    one = make_results(num_recordings=40)
    one.clips.loc[one.clips["recording"] != "rec003", "ms_mel"] = math.nan
    texts = [note.text for note in notes(one, one.summary) if note.kind == "intervals"]
    assert texts == ["No interval: MS-Mel, where only one recording has a score"]
    assert one.summary["ms_mel_ci_low"].isna().all() and one.summary["ms_mel"].notna().all()
    alone = make_results(num_recordings=1)  # which the note of the data says of all metrics
    assert not [note for note in notes(alone, alone.summary) if note.kind == "intervals"]
    chosen = (many.clips["codec"] == "opus") & (many.clips["clip"] == "rec003/take0")
    many.clips.loc[chosen & (many.clips["kbps"] == 8), "si_sdr"] = -60.0
    texts = [note.text for note in notes(many, many.summary) if note.kind == "intervals"]
    assert len(texts) == 1
    assert texts[0].startswith("Skewed: SI-SDR of opus@8 (")


def test_medians_are_in_the_summary_and_beside_the_means() -> None:
    results = make_results(num_recordings=9, clips_per_recording=2, troubles=True)
    row = results.summary.iloc[1]
    rows = results.clips[(results.clips["codec"] == row["codec"]) & (results.clips["kbps"] == row["kbps"])]
    rows = rows[np.isfinite(rows["si_sdr"])]
    # One recording failed on one clip and has no value of the other: eight are left.
    means = np.sort(rows.groupby("recording")["si_sdr"].mean().to_numpy())
    ends = ("median", "median_ci_low", "median_ci_high")
    assert [row[f"si_sdr_{end}"] for end in ends] == pytest.approx([np.median(means), means[0], means[-1]])
    assert list(results.summary.columns[-6:]) == [f"{m}_{end}" for m in ("si_sdr", "ms_mel") for end in ends]
    plain, wide = (all_tables(results, results.summary, medians=medians)[0] for medians in (False, True))
    assert [title for title in wide.headings if title not in plain.headings] == [
        "median SI-SDR",
        "median MS-Mel",
    ]
    place = wide.headings.index("median SI-SDR")
    assert wide.sections[-1].rows[0][place].text == f"{row['si_sdr_median']:.2f}"


def test_empty_references_are_counted_and_named() -> None:
    results = make_results()
    results.quiet = {f"clip{index:02d}": -200.0 + index for index in range(12)}
    text = next(note.text for note in notes(results, results.summary) if note.kind == "references")
    assert "12 of 10 clips are below -80 dBFS" in text
    assert "clip00 -200, clip01 -199" in text and "clip09 -191 and 2 more" in text


def test_a_run_finds_references_that_the_mix_or_dc_leaves_empty(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).normal(size=22050)
    clips = {"noise": noise, "antiphase": np.stack([noise, -noise], axis=1), "dc": np.full(22050, 0.5)}
    for name, samples in clips.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 44100)
    results = evaluate(tmp_path, "opus", [16], metrics="si_sdr", out=tmp_path / "run")
    assert {*results.quiet} == {"antiphase", "dc"} and results.quiet["dc"] == -200
    assert "2 of 3 clips" in (tmp_path / "run" / "table.md").read_text()
