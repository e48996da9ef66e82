"""What a run says while it goes on, and what it says beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from known import RATE, StepCodec, register_codecs, tone_and_noise
from phases import Phases

from baselines.codec import Encoded, Rate
from evaluation import evaluate
from evaluation.engine.estimate import Estimate, estimate
from evaluation.engine.matching import PATIENCE
from evaluation.engine.request import Request, parse_request
from evaluation.engine.speeds import Speeds
from evaluation.records import Settings
from evaluation.rows import CodedRow
from evaluation.session import execute, prepare


class ShiftingCodec(StepCodec):
    """Quiet clips come out late, so that a batch does not show the delay of all."""

    name = "shifting"

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        decoded = super().decode(encoded)
        for item in decoded:
            if item.abs().max() < 0.1:
                item.copy_(item.roll(37, -1))
        return decoded


class Clock:
    """Stands still unless it is told to go on."""

    now = 0.0

    def __call__(self) -> float:
        return Clock.now


class SlowCodec(StepCodec):
    """By that clock, a second of audio takes 2 s to encode and half a second to decode."""

    name = "slow"

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        Clock.now += 2 * audio.shape[0] * audio.shape[2] / RATE
        return super().encode(audio, rate)

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        Clock.now += 0.5 * sum(clip.duration_s for clip in encoded)
        return super().decode(encoded)


class FreeSlowCodec(SlowCodec):
    name = "free-slow"

    def rate_at(self, kbps: float, channels: int = 1) -> Rate:
        return Rate(kbps, {"bits": 8})


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five, of two seconds in all; the first is quiet."""
    register_codecs(monkeypatch, ShiftingCodec, SlowCodec, FreeSlowCodec)
    folder = tmp_path / "clips"
    folder.mkdir()
    for seed in range(5):
        samples = tone_and_noise(seed, 0.4) * (0.1 if seed == 0 else 1)
        soundfile.write(folder / f"{seed}.wav", samples, RATE, subtype="FLOAT")
    return folder


def test_phases_have_totals_that_stay_and_end_at_their_end(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.report.files.write_plots", lambda *_: [])
    for first in (True, False):
        phases = Phases()
        wanted: dict[str, Any] = {"metrics": "si_sdr", "match": "nominal", "batch_size": 1}
        evaluate(clips, "shifting", [4, 8], out=tmp_path / "run", progress=phases, **wanted)
        phases.check()
        assert ("scoring at each codec's delay" in phases.names) == first
        assert ("coding and scoring", 10, 10) in phases.calls
    assert ("scoring at each codec's delay", 2, 2) not in phases.calls
    # A run that goes on begins at what is there.
    phases = Phases()
    evaluate(clips, "shifting", [4, 8, 12], out=tmp_path / "run", progress=phases, **wanted)
    assert next(call for call in phases.calls if call[0] == "coding and scoring") == (
        "coding and scoring",
        10,
        15,
    )
    assert phases.names[0] == "loading models"


def test_speeds_are_of_the_rows_of_the_tables(clips: Path, tmp_path: Path) -> None:
    """The points between which a row lies have nominal rates that nobody asked for."""
    options = Settings(match="measured")
    request = Request(str(clips), ["mp3,opus"], [13, 90], metrics="si_sdr", settings=options)
    shown: list[str] = []
    results, _ = execute(prepare(parse_request(request)), tmp_path / "run", speeds=shown.append)
    assert results.points is not None  # or the test would not show what it says
    names = [part.partition("=")[0] for part in shown[-2].partition(": ")[2].split(", ")]
    assert sorted(names) == ["mp3@13", "mp3@90", "opus@13", "opus@90"]


def test_speeds_are_audio_over_time() -> None:
    speeds = Speeds()
    assert str(speeds) == ""
    row: dict[str, Any] = {"codec": "opus", "rate": "8", "clip": "a", "key": "k", "delay": 0, "error": None}
    speeds.add([CodedRow(**row, duration_s=4.0, encode_s=0.5, decode_s=0.01)])
    speeds.add(
        [CodedRow(**row, duration_s=2.0, encode_s=2.0, decode_s=0.01), CodedRow(**row, duration_s=2.0)]
    )
    assert str(speeds) == "× real time, encoding/decoding: opus@8=2.4/300"


def guess(clips: Path, codecs: str, match: Any, monkeypatch: pytest.MonkeyPatch) -> Estimate:
    request = Request(
        str(clips),
        [codecs],
        [4, 8],
        metrics="si_sdr",
        batch_size=2,
        workers=2,
        settings=Settings(match=match),
    )
    run = prepare(parse_request(request))
    with monkeypatch.context() as patch:
        patch.setattr("time.perf_counter", Clock())
        return estimate(run)


def test_an_estimate_counts_what_a_run_does(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 s of audio, two bitrates, two workers; only the codec takes time."""
    found = guess(clips, "slow", "nominal", monkeypatch)
    assert (found.n_clips, found.n_conditions) == (5, 2)
    assert found.time_s == pytest.approx(2 * 2 * 2.5 / 2)
    assert found.disk_bytes > 2 * 2 * RATE * 4  # 4 bytes a sample
    # All of the data is less than a pilot: it is encoded so often before it is coded.
    found = guess(clips, "free-slow", "measured", monkeypatch)
    assert found.time_s == pytest.approx((2 * 2 * 2.5 + 2 * 2 * PATIENCE * 2 * 2.0) / 2)
