"""Signals in the forms that metrics ask for: made once, of the right clips, or a reason in the row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
import torch
from known import RATE, LateCodec, announce, tone_and_noise
from lab import Lab

from evaluation.cli.listing import metric_rows
from evaluation.datasets.base import Clip
from evaluation.engine import scoring
from evaluation.engine.coding import Batch
from evaluation.engine.scoring import Signals
from evaluation.metrics import METRICS, load_metrics
from evaluation.metrics.base import Metric, Score, describe_metric
from evaluation.report import write_all
from qincodec import audio
from qincodec.core.errors import UserError


class Seen(Metric):
    """Keeps what it is given; its score is the largest sample."""

    name, label, version, unit, higher_is_better = "seen", "Seen", "1", "", False
    definition = "Made up."

    def __init__(self, **form: Any) -> None:
        self.given: list[tuple[torch.Tensor, torch.Tensor, int]] = []
        for name, value in form.items():
            setattr(self, name, value)

    def score(self, prepared: torch.Tensor, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        self.given.append((prepared.clone(), decoded.clone(), sample_rate))
        prepared.zero_()  # what it writes must reach no other metric
        decoded.zero_()
        return [Score(float(len(self.given)))] * len(decoded)


class ForSpeech(Seen):
    name, label, speech_only, sample_rate = "spoken", "Spoken", True, 16000

    def score(self, prepared: torch.Tensor, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        return [Score(float(sample_rate)) for _ in decoded]


def batch_of(*categories: str | None, channels: int = 2) -> tuple[Batch, torch.Tensor]:
    """References, and something else that was decoded."""
    clips = [Clip(f"c{i}", Path("x"), f"c{i}", "0", category=c) for i, c in enumerate(categories)]
    sounds = [[tone_and_noise(2 * i + k, 0.5) for k in range(channels)] for i in range(2 * len(clips))]
    both = torch.from_numpy(np.array(sounds))
    return Batch(clips, both[: len(clips)]), both[len(clips) :]


def test_each_form_is_made_once_and_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    resample: Callable[..., Any] = audio.resample

    def counted(samples: Any, from_rate: int, to_rate: int) -> Any:
        made.append((samples.shape[1], to_rate))
        return resample(samples, from_rate, to_rate)

    monkeypatch.setattr(scoring.audio, "resample", counted)
    batch, decoded = batch_of(None, "music")
    plain, mono, first, second = Seen(), Seen(channels=1), Seen(sample_rate=16000), Seen(sample_rate=16000)
    low = Seen(sample_rate=16000, channels=1, device="cpu")
    metrics = [plain, mono, first, second, low]
    for number, metric in enumerate(metrics):
        metric.name = f"seen{number}"
    delay = 37
    for output in (decoded, 0.5 * decoded):  # two conditions
        signals = Signals(batch, batch.reference, output, delay, RATE)
        for metric in metrics:
            assert signals.score(metric) == [Score(len(metric.given))] * 2
    # References once, decoded signals once per condition, whatever number of metrics wants them.
    assert sorted(made) == [(1, 16000)] * 3 + [(2, 16000)] * 3

    reference, output = batch.reference.numpy()[..., :-delay], decoded.numpy()[..., delay:]
    forms = [(RATE, 2), (RATE, 1), (16000, 2), (16000, 2), (16000, 1)]
    for metric, (rate, channels) in zip(metrics, forms, strict=True):
        for given, sound in zip(metric.given[0], (reference, output), strict=False):
            expected = sound if channels == 2 else sound.mean(1, keepdims=True)
            if rate != RATE:
                clips = [soxr.resample(clip.T, RATE, rate, quality="VHQ").T for clip in expected]
                length = audio.resampled_length(expected.shape[-1], RATE, rate)
                expected = np.stack(clips)[..., :length]
                assert given.shape[-1] == length
            np.testing.assert_allclose(given, expected, atol=1e-4)
        assert metric.given[0][2] == rate


def test_a_metric_that_wants_two_channels_says_so_of_mono() -> None:
    batch, decoded = batch_of("music", channels=1)
    metric = Seen(channels=2)
    (score,) = Signals(batch, batch.reference, decoded, 0, RATE).score(metric)
    assert score is not None and not score.failed and not metric.given
    assert score.reason == "Seen takes two channels, the evaluation has one; --channels 2"


def test_metrics_for_speech_get_clips_of_speech_alone() -> None:
    batch, decoded = batch_of("speech", "music", None, " Speech ")
    metric = Seen(speech_only=True)
    found = Signals(batch, batch.reference, decoded, 0, RATE).score(metric)
    assert [score is None for score in found] == [False, True, True, False]
    torch.testing.assert_close(metric.given[0][0], batch.reference[[0, 3]])
    torch.testing.assert_close(metric.given[0][1], decoded[[0, 3]])


def test_clips_that_are_not_speech_are_left_out_and_counted(lab: Lab) -> None:
    lab.metric(ForSpeech)
    lines = [{"path": "loud.wav", "category": "speech"}, {"path": "one.wav"}, {"path": "two.wav"}]
    manifest = lab.recordings / "list.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    lab.recordings = manifest
    results = lab.evaluate("steps", "si_sdr,spoken")
    assert not results.n_unscored and not results.n_failed_scores
    rows = results.clips.set_index("clip")
    assert rows["spoken"].dropna().to_dict() == {"loud": 16000}
    assert rows["spoken_reason"].dropna().to_dict() == dict.fromkeys(("one", "two"), "not marked as speech")
    assert results.summary["spoken_n"].tolist() == [1] and results.summary["si_sdr_n"].tolist() == [3]
    write_all(results, lab.out)
    table = (lab.out / "table.md").read_text().replace("\\", "")
    said = "only clips of category speech have a score; 2 of 3 clips have another category or none"
    assert (
        f"Spoken: for speech only, so {said}" in table
        and "Spoken is the mean of fewer" not in table
        and "not a number" not in table
    )
    assert "Spoken, version 1 (16 kHz, speech), lower is better" in table

    # The same folder goes on with all of them, and back.
    everything = lab.evaluate("steps", "si_sdr,spoken", speech=True)
    assert everything.clips["spoken"].tolist() == [16000] * 3
    assert lab.evaluate("steps", "si_sdr,spoken").clips["spoken"].notna().sum() == 1


def test_a_metric_for_speech_without_speech_is_named_before_coding(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.metric(ForSpeech)
    assert lab.run("steps", "spoken", "--dry-run") == 0
    assert "Spoken: for speech only, and no clip has the category speech" in capsys.readouterr().err
    assert lab.run("steps", "spoken", "--dry-run", "--speech") == 0
    assert "for speech only" not in capsys.readouterr().err


def test_forms_are_taken_after_the_delay(lab: Lab) -> None:
    """A tone that is late by whole samples at 44.1 kHz is in time at another rate, too."""
    taken: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Takes(Seen):
        name, sample_rate = "takes", 16000

        def score(self, prepared: torch.Tensor, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
            taken.append((prepared.clone(), decoded.clone()))
            return [Score(0.0)] * len(decoded)

    lab.codecs(LateCodec)
    lab.metric(Takes)
    lab.evaluate("late", "takes")
    for reference, decoded in taken:
        assert (reference - decoded).abs().max() < 0.01  # steps of 1/256


def test_attributes_of_a_form_are_checked() -> None:
    for attribute, value, said in (
        ("sample_rate", "16k", "'sample_rate' is '16k'"),
        ("channels", 5, "'channels' is 5; it must be a whole number from 1 to 2"),
        ("device", "cuda:0", "'device' is 'cuda:0'; it must be 'cpu' or None"),
        ("speech_only", "yes", "'speech_only' is 'yes'"),
    ):
        with pytest.raises(UserError, match=said):
            describe_metric(Seen(**{attribute: value}))
    info = describe_metric(Seen(sample_rate=22050, channels=1, speech_only=True))
    assert info.takes == "22.05 kHz, mono, speech" and describe_metric(Seen()).takes == ""


def test_the_list_tries_a_plug_in_at_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    class Picky(Seen):
        name, sample_rate, channels = "picky", 8000, 2

        def score(self, prepared: torch.Tensor, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
            assert sample_rate == 8000 and decoded.shape == (2, 2, 4000)
            return [Score(1.0)] * 2

    announce(monkeypatch)
    monkeypatch.setattr(METRICS, "names", lambda: ["picky"])
    monkeypatch.setattr(METRICS, "load", lambda name: Picky)
    assert [row[:5] for row in metric_rows()] == [("picky", "-", "lower", "ready", "8 kHz, stereo")]


def test_a_missing_package_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    names = ["pesq", "stoi", "estoi", "visqol", "visqol_speech", "2f"]
    metrics, reasons = load_metrics(names)
    assert not metrics and list(reasons) == names
    assert reasons["2f"] == "package 'seabass-2f' is not installed; pip install 'qincodec[metrics]'"
