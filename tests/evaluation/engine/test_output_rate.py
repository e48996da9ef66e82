"""A codec that decodes to another sample rate, has codebooks of different frame rates, and draws noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines import CodecProblem, check_codec
from baselines.codec import Codec, Encoded, Rate, check_batch, seeded
from evaluation import evaluate, open_results
from qincodec.audio import resample


class Odd(Codec):
    """A byte for each sample at 16 kHz, and a bit for every fourth; faint noise, and 24 kHz out."""

    name, version = "odd", "1"
    sample_rate = 16000
    output_sample_rate: int = 24000
    channels = (1, 2)
    seed = 3

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [Rate(channels * (16 * 8 + 4))]

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        self.check_audio(audio)
        clips = []
        for clip in audio.cpu().numpy():
            fine = np.round(127.5 + 127.5 * clip.clip(-1, 1)).astype(np.uint8)
            coarse = fine[:, ::4] >> 7
            rows = [row for channel in zip(fine, coarse, strict=True) for row in channel]
            clips.append(
                Encoded(
                    fine.tobytes() + np.packbits(coarse).tobytes(),
                    self.output_sample_rate,
                    len(clip),
                    self.output_length(clip.shape[1]),
                    codes=tuple(row.astype(np.int32) for row in rows),
                    codebook_sizes=(256, 2) * len(clip),
                    side_info={"samples": clip.shape[1]},
                )
            )
        return clips

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        check_batch(encoded)
        decoded = []
        for clip in encoded:
            samples = clip.side_number("samples", 1, 2**40)
            codes = np.frombuffer(clip.payload, np.uint8, samples * clip.channels)
            audio = resample(
                codes.reshape(clip.channels, -1) / 127.5 - 1, self.sample_rate, self.output_sample_rate
            )
            with seeded(self.seed, self.device):
                noise = 1e-4 * torch.randn(clip.channels, clip.num_samples)
            decoded.append(torch.from_numpy(audio[:, : clip.num_samples]) + noise)
        return torch.stack(decoded)


def test_it_keeps_the_promises() -> None:
    rows = check_codec(Odd(), lengths=(1, 333))
    assert [row.delay_samples for row in rows] == [0, 0]
    assert min(row.correlation for row in rows) > 0.999
    assert Odd().identity()["seed"] == 3


class Same(Odd):
    """`Odd` at the rate that it takes."""

    name = "same"
    output_sample_rate = 16000


class InputRate(Odd):
    """`Odd` that states the rate of its input."""

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        return [replace(clip, sample_rate=self.sample_rate) for clip in super().encode(audio, rate)]


class Unseeded(Odd):
    seed = None


@pytest.mark.parametrize(
    ("codec", "advice"),
    [(InputRate, "Encoded must state sample_rate"), (Unseeded, "decode must be reproducible, and keep no")],
)
def test_what_is_wrong_with_it_is_found(codec: type[Codec], advice: str) -> None:
    with pytest.raises(CodecProblem, match=advice):
        check_codec(codec(), lengths=())


def test_an_evaluation_of_it(clip_folder: Path, tmp_path: Path) -> None:
    results = evaluate(clip_folder, [Odd(), Same()], [132], metrics="si_sdr", limit=2, out=tmp_path / "run")
    clips = results.clips.set_index(["codec", "clip"])
    assert clips["error"].isna().all() and (clips["delay_samples"] == 0).all()
    assert clips.loc["odd", "si_sdr"].to_numpy() == pytest.approx(clips.loc["same", "si_sdr"], abs=0.05)
    assert clips.loc["odd", "bytes"].tolist() == clips.loc["same", "bytes"].tolist()
    seconds = clips.loc["odd", "duration_s"].sum()
    stored = [
        Encoded.from_bytes(path.read_bytes())
        for path in (tmp_path / "run" / "encoded" / "odd@132").rglob("*.enc")
    ]
    entry, _ = results.corpus
    kbps = 0.0
    for index, book in enumerate(entry.codebooks):
        codes = np.concatenate([np.asarray(clip.codes[index]) for clip in stored if clip.codes is not None])
        p = np.unique(codes, return_counts=True)[1] / len(codes)
        entropy = -np.sum(p * np.log2(p))
        assert (book.frames, book.size) == (len(codes), (256, 2)[index])
        assert book.entropy_bits == pytest.approx(entropy)
        kbps += entropy * len(codes) / seconds / 1000
    assert entry.kbps_entropy == pytest.approx(kbps)
    assert entry.frames == entry.codebooks[0].frames == pytest.approx(16000 * seconds, abs=len(stored))
    assert open_results(tmp_path / "run").corpus == results.corpus


class Unused(Odd):
    """`Odd` with a first codebook that has no frames: none at all in short clips."""

    name = "unused"

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        clips = super().encode(audio, rate)
        kept = audio.shape[2] if audio.shape[2] >= self.sample_rate else 0
        rows = [clip.codes[1][:kept] for clip in clips if clip.codes is not None]
        none = np.zeros(0, np.int32)
        return [replace(clip, codes=(none, row)) for clip, row in zip(clips, rows, strict=True)]


def test_a_codebook_without_frames_has_statistics(clip_folder: Path, tmp_path: Path) -> None:
    results = evaluate(clip_folder, [Unused()], [132], metrics="si_sdr", out=tmp_path / "run")
    unused, used = results.corpus[0].codebooks
    assert (unused.frames, unused.perplexity) == (0, 1) and used.frames > 0
    assert results.corpus[0].perplexity == pytest.approx((1 + used.perplexity) / 2)
