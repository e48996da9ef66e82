"""What fails fails alone: a changed file its clip, a metric its own scores, a plug-in its own name."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from known import RATE, StepCodec, register, tone_and_noise
from lab import Lab, Touchy, raising
from toy_embedding import Bands

from baselines.codec import Encoded, Rate
from baselines.registry import CODECS
from evaluation import open_results
from evaluation.embeddings import EMBEDDINGS
from evaluation.engine.alignment import Aligner, Alignment
from evaluation.engine.scoring import checked_scores
from evaluation.loading import load_results
from evaluation.metrics import METRICS
from evaluation.metrics.base import Metric, Score
from evaluation.report import write_all
from evaluation.run.merge import merge_runs
from evaluation.run.store import RunStore

# A metric that raises


def test_a_metric_that_fails_affects_nothing_else(lab: Lab, tmp_path: Path) -> None:
    alone = lab.evaluate("steps", "si_sdr,logmel", out=tmp_path / "alone")
    lab.metric(Touchy)
    both = lab.evaluate("steps", "si_sdr,touchy,logmel")
    assert both.clips["error"].isna().all()
    assert both.clips["si_sdr"].tolist() == alone.clips["si_sdr"].tolist()
    assert both.clips["fm_logmel"].tolist() == alone.clips["fm_logmel"].tolist()
    summary, before = both.summary.iloc[0], alone.summary.iloc[0]
    columns = [f"{m}{end}" for m in ("si_sdr", "fd_logmel") for end in ("", "_ci_low", "_ci_high", "_n")]
    assert summary[columns].tolist() == before[columns].tolist()
    assert summary["si_sdr_n"] == 3 and summary["touchy_n"] == 2 and summary["n_failed"] == 0
    reason = "touchy failed: ZeroDivisionError: this clip is not for me"
    assert both.clips.set_index("clip")["touchy_reason"].dropna().to_dict() == {"loud": reason}
    assert both.n_failed_scores == 1

    write_all(both, lab.out)
    table = (lab.out / "table.md").read_text().replace("\\", "")
    assert f"Touchy not a number: {reason} (1×)" in table
    assert "Touchy is the mean of fewer clips than n: steps@8 2 of 3" in table
    with (lab.out / "clips.csv").open() as file:
        rows = {row["clip"]: row for row in csv.DictReader(file)}
    assert rows["loud"]["touchy"] == "" and rows["loud"]["touchy_reason"] == reason
    assert rows["loud"]["si_sdr"] != "" and rows["loud"]["error"] == ""

    merge_runs(tmp_path / "merged", [lab.out])
    with RunStore(tmp_path / "merged", write=False) as store:
        merged = load_results(store)
    assert merged.clips["touchy_reason"].dropna().tolist() == [reason] and not merged.n_unscored


def test_failed_scores_are_computed_when_the_run_continues(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    class Counted(Touchy):
        def score(self, prepared: Any, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
            calls.append(len(decoded))
            return super().score(prepared, decoded, sample_rate)

    lab.metric(Counted)
    lab.evaluate("steps", "touchy")
    assert sorted(calls) == [1, 1, 1, 3]  # together, then one by one; not once more in the second pass
    monkeypatch.setattr(Touchy, "limit", 2.0)
    results = lab.evaluate("steps", "touchy")
    assert results.n_failed_scores == 0 and results.clips["touchy"].notna().all()
    assert lab.clips["touchy"].notna().all()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (0.5, "metric 'touchy' returned float; score() must return a list with a Score per item"),
        ([0.5, 0.5, 0.5], "metric 'touchy' returned float; score() must"),
        (np.zeros(3), "metric 'touchy' returned ndarray; score() must"),
        ([], "metric 'touchy' returned 0 scores for 1 clips; return one per item"),
        (None, "metric 'touchy' returned NoneType; score() must"),
        ([Score(1e200)], "metric 'touchy' returned Score(1e+200, None); the value must be"),
        ([Score(float("nan"), " ")], "metric 'touchy' returned Score(nan, ' '); the value must be"),
        ([Score(float("nan"), 5)], "metric 'touchy' returned Score(nan, 5); the value must be"),  # type: ignore[arg-type]
    ],
)
def test_invalid_scores_are_reported(found: object, reason: str, lab: Lab) -> None:
    lab.metric(type("Odd", (Touchy,), {"score": lambda *_: found}))
    clips = lab.evaluate("steps", "si_sdr,touchy").clips
    assert clips["si_sdr"].notna().all() and clips["error"].isna().all()
    assert all(f"touchy failed: {reason}" in text for text in clips["touchy_reason"])


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a\0b\n\ud800"), r"ValueError: a\x00b \ud800"),
        (ValueError("x" * 10**6), f"ValueError: {'x' * 1000}..."),
        (Speechless(), "Speechless: its message cannot be shown"),
    ],
)
def test_any_message_of_a_plug_in_fits_the_run_folder(error: Exception, said: str, lab: Lab) -> None:
    """A row with NUL could be written, and the run folder not be read again."""
    lab.metric(type("Odd", (Touchy,), {"score": raising(error)}))
    lab.codecs(type("Broken", (StepCodec,), {"name": "broken", "encode": raising(error)}))
    assert lab.run("steps,broken", "si_sdr,touchy") == 3
    clips = lab.clips.groupby("codec")
    assert set(clips.get_group("broken")["error"]) == {said}
    assert set(clips.get_group("steps")["touchy_reason"]) == {f"touchy failed: {said}"}
    assert clips.get_group("steps")["si_sdr"].notna().all()


class Tuples(StepCodec):
    """JSON makes other values of its identity and settings, which are the same all the same."""

    name = "tuples"

    def rates(self, channels: int = 1) -> list[Rate]:
        return [Rate(8.0, {"bits": 4, "sizes": (2, 3)})]  # type: ignore[dict-item]

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "widths": (1, 2), "gains": {1: 2}}


def test_a_run_of_a_codec_with_tuples_continues(lab: Lab) -> None:
    lab.codecs(Tuples)
    assert [lab.run("tuples", metrics) for metrics in ("si_sdr", "si_sdr,ms_mel")] == [0, 0]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"num_samples": -1}, "num_samples must be a whole number from 1"),
        ({"codes": np.array([[9]]), "codebook_sizes": (4,)}, "codes lie outside their codebooks"),
        ({"codes": np.array([[0.5]]), "codebook_sizes": (4,)}, "Cannot cast array data from dtype"),
        ({"codes": np.array([1]), "codebook_sizes": (4,)}, "codes have shape [1], not (codebooks, frames)"),
    ],
)
def test_what_could_not_be_decoded_again_fails_its_clip(
    changed: dict[str, Any], reason: str, lab: Lab
) -> None:
    class Careless(StepCodec):
        name = "careless"

        def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
            return [replace(item, **changed) for item in super().encode(audio, rate)]

        def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
            return torch.zeros(len(encoded), 1, RATE)

    lab.codecs(Careless)
    assert lab.run("careless") == 3
    errors = lab.clips["error"]
    assert len(errors) == 3 and all(reason in error for error in errors)


def test_audio_that_cannot_be_saved_fails_its_clip_and_not_the_run(lab: Lab) -> None:
    class Infinite(StepCodec):
        name = "infinite"

        def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
            decoded = super().decode(encoded)
            return torch.where(decoded.abs().amax(2, keepdim=True) > 0.44, torch.inf, decoded)

    lab.codecs(Infinite)
    assert lab.run("infinite,steps", "si_sdr", "--save-audio") == 3
    clips = lab.clips.set_index(["codec", "clip"])
    assert clips["si_sdr"].notna().sum() == 5
    assert clips.loc[("infinite", "loud"), "error"].startswith("the decoder returned NaN or infinity")


def test_a_reason_of_several_lines_is_one() -> None:
    (score,) = checked_scores("touchy", [Score(float("nan"), "too\nquiet")], 1)
    assert score.reason == "too quiet"


def test_a_score_is_a_number() -> None:
    assert [type(Score(value).value) for value in (np.float32(1), torch.tensor(2.0), 3)] == [float] * 3  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a reason"):
        Score(float("nan"))


# A file that changes during the run


class Rewriting(StepCodec):
    """Changes a file while the first clip is coded, and sets its time of change back."""

    name = "rewriting"
    victim: Path
    later: bytes

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        if self.victim.read_bytes() != self.later:
            times = self.victim.stat().st_atime_ns, self.victim.stat().st_mtime_ns
            self.victim.write_bytes(self.later)
            os.utime(self.victim, ns=times)
        return super().encode(audio, rate)


@pytest.mark.parametrize("decoded", [False, True])
def test_a_file_that_changes_is_not_scored_under_its_old_hash(
    decoded: bool, lab: Lab, tmp_path: Path
) -> None:
    """The three clips are as long as one another; "two" is coded last, when it has another content."""
    folder = Path(shutil.copytree(lab.recordings, tmp_path / "decoded")) if decoded else lab.recordings
    victim, other = folder / "two.wav", tmp_path / "other.wav"
    soundfile.write(other, tone_and_noise(9, 1.0) / 4, RATE, subtype="FLOAT")
    assert other.stat().st_size == victim.stat().st_size
    lab.codecs(type("Now", (Rewriting,), {"victim": victim, "later": other.read_bytes()}))
    more: Any = {"conditions": {"mine@8": folder}} if decoded else {}
    clips = lab.evaluate("rewriting", batch_size=1, workers=1, **more).clips
    clips = clips[clips["codec"] == ("mine" if decoded else "rewriting")].set_index("clip")
    assert clips["si_sdr"].notna().to_dict() == {"loud": True, "one": True, "two": False}
    assert (
        f"{folder.name}/two.wav' has changed since the run began: its SHA-256 is" in clips.loc["two", "error"]
    )


# What fails once it has been coded


class Uneven(StepCodec):
    """Late on the first recording alone: the delays of the clips differ, and the second pass has work."""

    name = "uneven"
    broken = False

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        if self.broken:
            raise ValueError("the decoder\nbroke")
        decoded = super().decode(encoded)
        loud = decoded.abs().amax(2, keepdim=True) > 0.44
        return torch.where(loud, decoded.roll(16, -1), decoded)


class Deleting(Metric):
    """Deletes a recording when the last clip of the first pass is scored."""

    name, label, version, unit, higher_is_better = "deleting", "Deleting", "1", "", False
    definition = "Made up."
    victim: Path
    calls = 0

    def score(self, prepared: Any, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        Deleting.calls += 1
        if Deleting.calls == 3:
            self.victim.unlink()
        return [Score(0.0) for _ in decoded]


def test_a_recording_that_vanishes_between_the_passes_fails_with_the_reason(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.codecs(Uneven)
    lab.metric(Deleting)
    monkeypatch.setattr(Deleting, "victim", lab.recordings / "loud.wav", raising=False)
    monkeypatch.setattr(Deleting, "calls", 0)
    assert lab.run("uneven", "si_sdr,deleting,logmel", "--batch-size", "1") == 3
    results = open_results(lab.out)
    clips = results.clips.set_index("clip")
    for column in ("si_sdr", "deleting", "fm_logmel", "cos_logmel"):
        assert clips[column].notna().to_dict() == {"loud": False, "one": True, "two": True}
        assert "loud.wav' cannot be read: No such file" in clips.loc["loud", f"{column}_reason"]
    assert results.n_failed_scores == 4 and "not scored yet" not in capsys.readouterr().out


def test_a_decoder_that_breaks_later_is_the_reason_until_it_works(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.codecs(Uneven)
    assert lab.run("uneven") == 0
    before = lab.clips["si_sdr"].tolist()
    monkeypatch.setattr(Uneven, "broken", True)
    assert lab.run("uneven", "si_sdr,ms_mel") == 3
    results = open_results(lab.out)
    assert results.clips["si_sdr"].tolist() == before and results.n_failed_scores == 3
    assert set(results.clips["ms_mel_reason"]) == {"ValueError: the decoder broke"}
    monkeypatch.setattr(Uneven, "broken", False)
    assert lab.run("uneven", "si_sdr,ms_mel") == 0
    assert lab.clips["ms_mel"].notna().all()


def test_delays_are_estimated_once_and_kept_by_the_second_pass(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.codecs(Uneven)
    estimate = Aligner.estimate
    estimated: list[torch.Tensor] = []

    def counted(aligner: Aligner, decoded: torch.Tensor) -> list[Alignment]:
        estimated.extend(decoded)
        return estimate(aligner, decoded)

    monkeypatch.setattr(Aligner, "estimate", counted)
    assert lab.run("uneven", "si_sdr", "--batch-size", "1") == 0
    clips = lab.clips.set_index("clip")
    assert clips["delay_samples"].to_dict() == {"loud": 16, "one": 0, "two": 0}
    # All three are scored at the condition's delay, "loud" in the second pass: late by 16 samples.
    assert clips["si_sdr"].notna().all() and clips["si_sdr"].idxmin() == "loud"
    assert len(estimated) == 3


# A part that writes into what it is given


class Writing(StepCodec):
    name = "writing"

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        encoded = super().encode(audio, rate)
        audio.zero_()
        return encoded


class WritingMetric(Touchy):
    limit = 2.0

    def score(self, prepared: Any, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        scores = super().score(prepared, decoded, sample_rate)
        decoded.zero_()
        prepared.mul_(0.5)
        return scores


class WritingBands(Bands):
    def embed(self, audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
        frames = super().embed(audio, sample_rate)
        audio.zero_()
        return frames


@pytest.mark.parametrize("align", [True, False])
def test_a_part_that_writes_into_its_input_changes_no_other(
    align: bool, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for registry, name, honest, writing in (
        (CODECS, "writing", StepCodec, Writing),
        (METRICS, "touchy", type("Quiet", (Touchy,), {"limit": 2.0}), WritingMetric),
        (EMBEDDINGS, "bands", Bands, WritingBands),
    ):
        register(monkeypatch, registry, name, honest)
        register(monkeypatch, registry, f"{name}-now", writing)
    runs = []
    for end in ("", "-now"):
        codecs, metrics = f"one=writing{end},steps", f"touchy{end},bands{end},si_sdr,logmel"
        runs.append(lab.evaluate(codecs, metrics, align=align, out=tmp_path / f"run{end}").clips)
    columns = ["codec", "clip", "bytes", "touchy", "si_sdr", "fm_bands", "fm_logmel"]
    assert runs[0][columns].to_dict() == runs[1][columns].to_dict() and runs[0]["si_sdr"].notna().all()


# A part that ends the program


class Panic(BaseException):
    """No Exception, as a panic of Rust code is none behind PyO3."""


@pytest.mark.parametrize("end", [SystemExit, Panic])
def test_a_part_that_ends_the_program_fails_and_does_not_end_the_run(
    end: type[BaseException], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = raising(end(0))
    lab.codecs(type("Ending", (StepCodec,), {"name": "ending", "encode": ends}))
    lab.metric(type("EndingMetric", (Touchy,), {"score": ends}))
    register(monkeypatch, EMBEDDINGS, "bands", type("EndingBands", (Bands,), {"embed": ends}))
    assert lab.run("steps,ending", "si_sdr,touchy,bands") == 3
    clips = lab.clips
    ended, rest = clips[clips["codec"] == "ending"], clips[clips["codec"] == "steps"]
    said = f"{end.__name__}: 0"
    assert set(ended["error"]) == {said} and len(ended) == len(rest) == 3
    assert rest["si_sdr"].notna().all() and set(rest["touchy_reason"]) == {f"touchy failed: {said}"}
    assert set(rest["fm_bands_reason"]) == {f"no embedding: {said}"}


class Large(Bands):
    def embed(self, audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
        return super().embed(audio, sample_rate).double() * 1e300


def test_frames_that_float32_cannot_hold_are_reported_and_not_kept(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, EMBEDDINGS, "bands", Large)
    assert lab.run("steps", "si_sdr,bands") == 3
    reasons = lab.clips["fm_bands_reason"]
    assert reasons.str.contains("NaN, infinity or more than float32 holds").all() and len(reasons) == 3
