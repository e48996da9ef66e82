"""Parts that return what they must not, a full disk, Ctrl-C: told by name, and nothing else is lost."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known import RATE, StepCodec, register
from lab import Lab, Touchy, raising
from toy_embedding import Bands

from baselines.codec import ClipCodec, Codec, Encoded, Rate
from evaluation import open_results
from evaluation.embeddings import EMBEDDINGS
from evaluation.engine.coding import Coder
from qincodec.core.files import explain_os_errors


def of_clips(encoded: Callable[..., Any], decoded: Callable[..., Any]) -> type[Codec]:
    """A codec that returns what the two make of what it should."""

    class Samples(ClipCodec):
        name, version, sample_rate = "samples", "1", RATE

        def rates(self, channels: int = 1) -> list[Rate]:
            return [Rate(8.0)]

        def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
            return encoded(Encoded(audio.tobytes(), RATE, *audio.shape))  # type: ignore[no-any-return]

        def decode_clip(self, encoded: Encoded) -> np.ndarray:
            samples = np.frombuffer(encoded.payload, np.float32).reshape(encoded.channels, -1)
            return decoded(samples)  # type: ignore[no-any-return]

    return Samples


def encoding(change: Callable[..., Any]) -> type[Codec]:
    def encode(self: StepCodec, audio: torch.Tensor, rate: Rate) -> Any:
        return change(StepCodec.encode(self, audio, rate))

    return type("Samples", (StepCodec,), {"name": "samples", "encode": encode})


def decoding(change: Callable[..., Any]) -> type[Codec]:
    def decode(self: StepCodec, encoded: list[Encoded]) -> Any:
        return change(StepCodec.decode(self, encoded))

    return type("Samples", (StepCodec,), {"name": "samples", "decode": decode})


def same(value: Any) -> Any:
    return value


def nothing(value: Any) -> None:
    return None


AUDIO = "codec 'samples': the decoder returned audio of shape"
ENCODED = "codec 'samples': the encoder returned"
OF_CLIPS = (
    "it must be float32 of shape (channels, samples), nominal range [-1, 1]; baselines.check_codec tells"
)
NEEDED = "it must be float32 of shape (1, 1, 44100), nominal range [-1, 1]; baselines.check_codec tells"
OF_LIST = "it must be a list of 1 baselines.Encoded whose payload is bytes"


@pytest.mark.parametrize(
    ("codec", "reason"),
    [
        (
            of_clips(same, lambda x: (x * 32767).astype(np.int16)),
            f"{AUDIO} (1, 44100), int16; {OF_CLIPS}",
        ),
        (of_clips(same, lambda x: x + 1j), f"{AUDIO} (1, 44100), complex64; {OF_CLIPS}"),
        (of_clips(same, nothing), f"codec 'samples': the decoder returned NoneType; {OF_CLIPS}"),
        (of_clips(nothing, same), f"{ENCODED} NoneType; {OF_LIST}"),
        (decoding(lambda x: (x * 32767).short()), f"{AUDIO} (1, 1, 44100), int16; {NEEDED}"),
        (decoding(lambda x: x + 1j), f"{AUDIO} (1, 1, 44100), complex64; {NEEDED}"),
        (decoding(lambda x: x[0]), f"{AUDIO} (1, 44100), float32; {NEEDED}"),
        (decoding(nothing), f"codec 'samples': the decoder returned NoneType; {NEEDED}"),
        (decoding(lambda x: x.numpy()), f"codec 'samples': the decoder returned ndarray; {NEEDED}"),
        (encoding(nothing), f"{ENCODED} NoneType; {OF_LIST}"),
        (encoding(lambda x: x[:-1]), f"{ENCODED} 0 items; {OF_LIST}"),
        (
            encoding(lambda x: [replace(item, payload="text") for item in x]),
            f"codec 'samples': the payload is str; {OF_LIST}",
        ),
    ],
)
def test_output_that_is_not_audio_fails_its_clip(codec: type[Codec], reason: str, lab: Lab) -> None:
    """Integers were cast: the table showed a gain of 90 dB. Complex numbers lost their imaginary part."""
    lab.codecs(codec)
    assert lab.run("samples") == 3
    errors = lab.clips["error"]
    assert len(errors) == 3 and all(error.startswith(reason) for error in errors), set(errors)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_audio_of_other_floats_is_audio(kind: torch.dtype, lab: Lab) -> None:
    lab.codecs(decoding(lambda x: x.to(kind).requires_grad_()))
    assert lab.run("samples") == 0


@pytest.mark.parametrize(
    ("frames", "got"), [(None, "NoneType"), (np.zeros((1, 4)), "ndarray"), (torch.ones(1, 4) * 1j, "complex")]
)
def test_invalid_embeddings_are_reported(
    frames: Any, got: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, EMBEDDINGS, "bands", type("Odd", (Bands,), {"embed": lambda *_: frames}))
    assert lab.run("steps", "si_sdr,bands") == 3
    (reason,) = set(lab.clips["fm_bands_reason"])
    assert re.search(rf"'bands' returned {got}.*; it must be a float tensor \(frames, 4\)", reason)


def test_results_are_shown_though_their_files_cannot_be_written(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, *_: object) -> None:
        with explain_os_errors(path):
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("evaluation.report.files.write_atomic", full)
    assert lab.run("steps") == 2
    shown = capsys.readouterr()
    assert "SI-SDR (dB)" in shown.out and "disk full while writing" in shown.err.splitlines()[-1]


@pytest.mark.parametrize("where", ["codec", "metric", "embedding", "recording"])
def test_ctrl_c_ends_the_run_wherever_it_arrives(
    where: str, lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In worker threads, too: it was the reason of failed clips, and the run went on."""

    def part(kind: type[Any], place: str, method: str, **more: Any) -> type[Any]:
        ends = {method: raising(KeyboardInterrupt())} if place == where else {}
        return type("Ending", (kind,), {**ends, **more})

    lab.codecs(part(StepCodec, "codec", "encode", name="ending"))
    lab.metric(part(Touchy, "metric", "score", limit=2.0))
    register(monkeypatch, EMBEDDINGS, "bands", part(Bands, "embedding", "embed"))
    if where == "recording":
        monkeypatch.setattr(Coder, "reference", raising(KeyboardInterrupt()))
    assert lab.run("steps,ending", "si_sdr,touchy,bands") == 130
    assert "finished results are kept" in capsys.readouterr().err
    results = open_results(lab.out)
    assert results.clips["error"].isna().all() and results.n_failed_scores == 0
