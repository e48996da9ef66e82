"""Operating points found by measuring: codecs whose rate is known in closed form, and the real ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from known import RATE, register, register_codecs, tone_and_noise
from phases import Phases

import evaluation.datasets
from baselines.codec import ClipCodec, Encoded, Rate
from evaluation import evaluate, load
from evaluation.engine.coding import Coder
from evaluation.engine.matching import MAX_TRIED, PATIENCE, next_rate
from evaluation.metrics import METRICS
from evaluation.metrics.base import Metric, Score
from evaluation.report.html.write import write_html
from evaluation.run.merge import merge_runs
from evaluation.run.store import RunStore
from evaluation.statistics.matching import TOLERANCE
from evaluation.statistics.recordings import TIMING_COLUMNS
from qincodec.core.errors import UserError


class SizedCodec(ClipCodec):
    """Its payload is as long as `kbps` says; its amplitude is that rate in thousandths."""

    name = "sized"
    version = "1"
    sample_rate = RATE
    encoded = 0

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [Rate(float(kbps), {"step": kbps}) for kbps in (4, 8, 11, 16, 32)]

    @staticmethod
    def kbps(nominal: float) -> float:
        return 0.9 * nominal

    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        type(self).encoded += 1
        kbps = self.kbps(rate.kbps or 0)
        size = round(kbps * 125 * audio.shape[1] / RATE)
        return Encoded(bytes(size), RATE, *audio.shape, side_info={"audio": (audio * kbps / 1000).tolist()})

    def decode_clip(self, encoded: Encoded) -> np.ndarray:
        return np.array(encoded.side_info["audio"], np.float32)


class FreeCodec(SizedCodec):
    """Any bitrate; the measured one is far off, and bent."""

    name = "free"

    @staticmethod
    def kbps(nominal: float) -> float:
        return 0.5 * nominal**1.3

    def rate_at(self, kbps: float, channels: int = 1) -> Rate:
        kbps = min(max(kbps, 4.0), 32.0)
        return Rate(kbps, {"step": kbps})


class MoodyCodec(SizedCodec):
    """Takes another rate for every clip."""

    name = "moody"

    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        share = 0.7 + 0.6 * float(np.abs(audio).sum() * 10 % 1)
        return SizedCodec.encode_clip(self, audio, Rate(share * (rate.kbps or 0)))


class FreeMoodyCodec(FreeCodec):
    name = "free-moody"
    encode_clip = MoodyCodec.encode_clip


class SteppedCodec(FreeCodec):
    """Takes any bitrate, and gives the nearest power of 1.03."""

    name = "stepped"

    @staticmethod
    def kbps(nominal: float) -> float:
        return float(1.03 ** round(math.log(nominal, 1.03)))


class Amplitude(Metric):
    """Of the decoded signal beside the reference, times 1000."""

    name, label, version, unit, higher_is_better, definition = "amplitude", "A", "1", "", True, "amplitude"

    def score(self, prepared: torch.Tensor, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        sums = (prepared * decoded).sum((1, 2)) / (prepared * prepared).sum((1, 2))
        return [Score(1000 * float(value)) for value in sums]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    register_codecs(monkeypatch, SizedCodec, FreeCodec)
    register(monkeypatch, METRICS, "amplitude", Amplitude)
    monkeypatch.setattr("evaluation.report.files.write_plots", lambda *_: [])  # nothing here looks at figures


@pytest.fixture(scope="module")
def short_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("short")
    for seed in range(3):
        soundfile.write(folder / f"{seed}.wav", tone_and_noise(seed, 0.4), RATE, subtype="FLOAT")
    return folder


def search(codec: SizedCodec, curve: Callable[[float], float], asked: float, tolerance: float) -> list[float]:
    """Nominal rates that were tried."""
    tried: list[tuple[Rate, float]] = []
    while (rate := next_rate(codec, codec.rates(), 1, tried, asked, tolerance)) is not None:
        tried.append((rate, curve(rate.kbps or 0)))
    return [rate.kbps or 0 for rate, _ in tried]


@pytest.mark.parametrize("asked", [3.1, 8.0, 16.0, 45.0])
def test_a_free_codec_is_searched_to_the_rate_of_its_formula(asked: float) -> None:
    tried = search(FreeCodec(), FreeCodec.kbps, asked, 0.01)
    assert 0.5 * tried[-1] ** 1.3 == pytest.approx(asked, rel=0.01)
    assert len(tried) <= 6


def test_a_curve_with_a_jump_ends_the_search_beside_it() -> None:
    """As where an encoder changes its mode: no rate between 9 and 11."""
    tried = search(FreeCodec(), lambda kbps: kbps if kbps < 10 else kbps + 1.5, 10.5, 0.01)
    assert len(set(tried)) == len(tried)
    assert min(abs(kbps - 10) for kbps in tried) < 0.05 and len(tried) < 4 * MAX_TRIED


@pytest.mark.parametrize(
    ("asked", "last"),
    [(7.3, {8}), (8.5, {8, 11}), (20.0, {16, 32}), (30.0, {32}), (1.0, {4}), (9.8, {11})],
)
def test_of_steps_the_one_that_meets_a_rate_is_found_or_both_beside_it(asked: float, last: set[int]) -> None:
    tried = search(SizedCodec(), SizedCodec.kbps, asked, TOLERANCE)
    assert last <= set(tried) and len(tried) <= 3
    below = max((kbps for kbps in tried if 0.9 * kbps < asked), default=None)
    above = min((kbps for kbps in tried if 0.9 * kbps > asked), default=None)
    assert last <= {below, above}


def test_a_curve_that_goes_the_other_way_for_a_while_is_followed() -> None:
    """As of an encoder on one clip: at 7.4 it takes more than at 8."""

    def curve(nominal: float) -> float:
        return 8.7 if nominal > 7.9 else 9.0 if nominal > 6.6 else 1.3 * nominal

    tried = search(FreeCodec(), curve, 8.0, 0.01)
    assert curve(tried[1]) > curve(tried[0]) and curve(tried[-1]) == pytest.approx(8, rel=0.01)


@pytest.mark.parametrize("asked", [6.5, 9.0, 20.0])
def test_a_measured_rate_that_falls_as_the_nominal_one_rises_is_found(asked: float) -> None:
    tried = search(FreeCodec(), lambda kbps: 200 / kbps, asked, 0.01)
    assert 200 / tried[-1] == pytest.approx(asked, rel=0.01) and len(tried) <= 6
    steps = search(SizedCodec(), lambda kbps: 100 / kbps, asked, TOLERANCE)
    ladder = [100 / kbps for kbps in (32, 16, 11, 8, 4)]
    found = {100 / kbps for kbps in steps}
    near = {max(kbps for kbps in ladder if kbps < asked), min(kbps for kbps in ladder if kbps > asked)}
    assert near <= found or any(abs(kbps / asked - 1) <= TOLERANCE for kbps in found)
    assert len(steps) <= 4


def test_a_step_that_cannot_be_measured_is_stepped_over() -> None:
    tried = search(SizedCodec(), lambda kbps: math.nan if kbps == 11 else 0.9 * kbps, 8.5, TOLERANCE)
    assert tried == [8, 11, 16]


def test_rows_hold_for_the_asked_rates(known: None, short_clips: Path, tmp_path: Path) -> None:
    """The whole way, and again: what was found is not looked for again, nor is anything encoded."""
    wanted = {"kbps": [8, 1], "metrics": "amplitude,si_sdr", "out": tmp_path / "run", "workers": 1}
    results = evaluate(short_clips, "sized,free", **wanted)
    summary = results.summary.set_index(["codec", "kbps"])
    # Asked for 8: one codec is set to it, the other lies between 7.2 and 9.9; the metric is the rate itself.
    for codec in ("sized", "free"):
        row = summary.loc[(codec, 8.0)]
        assert row["kbps_measured"] == pytest.approx(8, rel=0.011) and not row["rate_off"]
        assert row["amplitude"] == pytest.approx(row["kbps_measured"], rel=2e-3)
    row = summary.loc[("sized", 8.0)]
    assert row["interpolated"] and (row["kbps_below"], row["kbps_above"]) == pytest.approx(
        (7.2, 9.9), rel=2e-3
    )
    assert row["kbps_measured"] == pytest.approx(8, rel=1e-9)
    # Out of reach: the nearest point, marked.
    row = summary.loc[("sized", 1.0)]
    assert (
        row["rate_off"] and not row["interpolated"] and row["kbps_measured"] == pytest.approx(3.6, rel=2e-3)
    )
    points = pd.read_csv(tmp_path / "run" / "points.csv")
    assert points["kbps_nominal"].tolist() == [8, 11]
    assert points["lower_of"].fillna(0).tolist() == [8, 0] and points["upper_of"].fillna(0).tolist() == [0, 8]
    table = (tmp_path / "run" / "table.md").read_text()
    assert "| sized | ~ 8.00 |" in table and "between the operating points around it: sized@8" in table
    # What can be heard are operating points, in a report both.
    page = write_html(tmp_path / "run", clips=1).page.read_text()
    assert all(f"sized, point {side} at 8 kbps" in page for side in ("below", "above"))
    assert "cannot be heard" not in page and "free at 8 kbps" in page
    heard = {c.label: c.point for c in results.heard}
    assert heard["sized@8"] == "sized@8" and heard["free@8"].startswith("free@8.")
    with RunStore(tmp_path / "run", write=False) as store:
        assert [asked.kbps for asked in store.read_run().asked] == [8, 1, 8, 1]

    count = SizedCodec.encoded, FreeCodec.encoded
    again = evaluate(short_clips, "sized,free", **wanted)
    assert (SizedCodec.encoded, FreeCodec.encoded) == count
    pd.testing.assert_frame_equal(again.summary, results.summary)
    fresh = evaluate(short_clips, "sized,free", **{**wanted, "out": tmp_path / "fresh", "workers": 2})
    columns = results.summary.columns.difference(TIMING_COLUMNS)
    pd.testing.assert_frame_equal(fresh.summary[columns], results.summary[columns])


def test_a_run_continues_if_a_point_has_the_name_of_an_asked_rate(
    known: None, short_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set to 10.08 the codec takes 10.08 (0.5 * 10.08 ** 1.3); of its `rates`, 11 is nearest to that."""
    wanted = {"metrics": "si_sdr", "out": tmp_path / "run"}
    for asked in ([10.08], [10.08], [10.08, 16]):
        results = evaluate(short_clips, "free", asked, **wanted)
        assert results.summary["kbps_measured"].tolist() == pytest.approx(asked, rel=0.011)
    assert results.heard[0].nominal == 10.08
    count = FreeCodec.encoded
    monkeypatch.setattr(FreeCodec, "version", "2")  # is refused before anything is measured
    with pytest.raises(UserError, match="identity of 'free' was"):
        evaluate(short_clips, "free", [24], **wanted)
    assert FreeCodec.encoded == count


def test_what_the_pilot_missed_is_corrected_on_all_clips(
    known: None, short_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_codecs(monkeypatch, MoodyCodec, FreeMoodyCodec)
    monkeypatch.setattr("evaluation.engine.matching.PILOT_CLIPS", 1)
    monkeypatch.setattr("evaluation.engine.matching.PILOT_S", 0.0)
    phases = Phases()
    wanted = {"metrics": "si_sdr", "out": tmp_path / "run", "progress": phases}
    results = evaluate(short_clips, "moody,free-moody", [9], **wanted)
    phases.check()
    assert "coding points that rates lack" in phases.names
    assert (results.summary["kbps_measured"] / 9 - 1).abs().max() <= TOLERANCE + 1e-9
    assert not results.summary["rate_off"].any()
    pilot = [asked.pilot[-1] for asked in results.asked]
    assert all(tried.clips == 1 for tried in pilot)
    # Or the test would not show what it says.
    by_clip = results.clips.groupby("codec")["kbps_measured"]
    assert ((by_clip.max() / by_clip.min()) > 1.1).all()


def test_one_point_is_taken_where_nearer_is_not_to_be_had(
    known: None, short_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 10.03 and 10.33 the first is 1.2 % off; and the pilot reads no clip twice."""
    register_codecs(monkeypatch, SteppedCodec)
    read: list[str] = []
    reference = Coder.reference
    monkeypatch.setattr(Coder, "reference", lambda self, clip: read.append(clip.id) or reference(self, clip))
    results = evaluate(short_clips, "stepped", [10.15], metrics="si_sdr", out=tmp_path / "run")
    (row,) = results.summary.itertuples()
    assert row.kbps_measured == pytest.approx(1.03**78, rel=2e-3) and results.points is None
    assert len(results.asked[0].pilot) == PATIENCE
    assert sorted(read) == ["0", "0", "1", "1", "2", "2"]  # by the pilot, by the run


@pytest.mark.parametrize("pilot", [8, 1])
def test_shards_agree_and_add_up_to_the_whole(
    known: None, short_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pilot: int
) -> None:
    """Of a pilot of one clip, which misses the rates of all clips, too: the whole adds points then."""
    register_codecs(monkeypatch, SizedCodec, MoodyCodec, FreeMoodyCodec)
    monkeypatch.setattr("evaluation.engine.matching.PILOT_CLIPS", pilot)
    monkeypatch.setattr("evaluation.engine.matching.PILOT_S", 0.0)
    monkeypatch.setattr("evaluation.session.PILOT_FILES", 2)
    codecs, wanted = "sized,moody,free-moody", {"kbps": [9], "metrics": "amplitude", "batch_size": 1}
    whole = evaluate(short_clips, codecs, **wanted, out=tmp_path / "whole")
    looked: list[Any] = []
    look_at = evaluation.datasets.look_at
    monkeypatch.setattr("evaluation.datasets.look_at", lambda *a: looked.append(look_at(*a)) or looked[-1])
    for part in "12":
        evaluate(short_clips, codecs, **wanted, shard=f"{part}/2", out=tmp_path / part)
    # Files opened for a part, and then for the pilot until it is full.
    assert [len(files) for files in looked] == ([2, 2, 1, 2] if pilot == 1 else [2, 2, 3, 1, 2, 3])
    merge_runs(tmp_path / "merged", [tmp_path / "1", tmp_path / "2"])
    merged = load(tmp_path / "merged")
    assert merged.n_pending == merged.n_unscored == 0 and merged.asked == whole.asked
    assert merged.summary["rate_off"].any() == (pilot == 1)
    merged = evaluate(short_clips, codecs, **wanted, out=tmp_path / "merged")
    for one, other in ((merged, whole), (merged.points, whole.points)):
        columns = other.summary.columns.difference(TIMING_COLUMNS)
        pd.testing.assert_frame_equal(one.summary[columns], other.summary[columns])


def test_nominal_rates_are_as_ever(known: None, short_clips: Path, tmp_path: Path) -> None:
    results = evaluate(short_clips, "sized", [8], metrics="si_sdr", match="nominal", out=tmp_path / "run")
    assert results.summary["kbps_measured"].tolist() == pytest.approx([7.2], rel=2e-3)
    assert "interpolated" not in results.summary and not results.asked and results.points is None
    run = (tmp_path / "run" / "run.json").read_text()
    assert "asked" not in run and '"match"' not in run
    assert load(tmp_path / "run").settings.match == "nominal"


def test_clips_that_take_nothing_and_two_rates_at_one_point(
    known: None, short_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an empty payload no rate can be met; 7.1 and 7.3 are both met by 7.2."""

    class EmptyCodec(SizedCodec):
        name = "empty"

        @staticmethod
        def kbps(nominal: float) -> float:
            return 0.0

    register_codecs(monkeypatch, EmptyCodec)
    results = evaluate(short_clips, "empty,sized", [7.1, 7.3], metrics="si_sdr", out=tmp_path / "run")
    summary = results.summary.set_index("codec")
    assert (summary.loc["empty", "kbps_measured"] == 0).all() and summary.loc["empty", "rate_off"].all()
    sized = summary.loc["sized"]
    assert sized["kbps_nominal"].tolist() == [8, 8] and not sized["rate_off"].any()
    assert sized["si_sdr"].nunique() == 1 and results.points is None


@pytest.mark.parametrize("match", ["measured", "nominal"])
def test_an_error_of_is_prefix_is_reported_in_the_same_words(
    known: None, short_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, match: Any
) -> None:
    monkeypatch.setattr(SizedCodec, "is_prefix", lambda self, rate, of: 1 / 0)
    words = r"codec 'sized': is_prefix\(\) raises ZeroDivisionError: division by zero; correct it or leave"
    with pytest.raises(UserError, match=words):
        evaluate(short_clips, "sized", [8, 16], metrics="si_sdr", match=match, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_real_codecs_meet_the_rate_or_say_so(short_clips: Path, tmp_path: Path) -> None:
    results = evaluate(short_clips, "opus,mp3,aac", [24], metrics="si_sdr", out=tmp_path / "run")
    for row in results.summary.itertuples():
        assert abs(row.kbps_measured / 24 - 1) <= TOLERANCE + 1e-9 or row.rate_off
        assert row.codec == "mp3" or not row.rate_off
