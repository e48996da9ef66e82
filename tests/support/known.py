"""Signals and codecs whose right scores are known, and how a test registers plug-ins; import ``known``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
import torch

from baselines.codec import ClipCodec, Codec, Encoded, Rate, fewer_codebooks, first_codebooks
from baselines.registry import CODECS
from evaluation.statistics.distributions import Gaussian, Moments, frechet, frechet_of_few
from qincodec.core.plugins import Registry

RATE = 44100


def tone_and_noise(seed: int, seconds: float) -> np.ndarray:
    """Harmonic tone with decaying noise bursts: something with structure at all frequencies."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * (180 + 40 * seed) * k * t + k) / k for k in range(1, 12))
    bursts = random.standard_normal(len(t)) * np.exp(-8 * (t % 0.37))
    return (0.1 * tone + 0.1 * bursts).astype(np.float32)


def frechet_distance(x: np.ndarray | torch.Tensor, y: np.ndarray | torch.Tensor) -> float:
    """Of two sets of frames, (n, dim) and (m, dim), two or more each."""
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    if max(len(x), len(y)) <= x.shape[1]:
        return frechet_of_few(x, y)
    return frechet(Gaussian.of(Moments.of(x)), Gaussian.of(Moments.of(y)))


class StepCodec(Codec):
    """Rounds samples to steps of 2**-bits; kbps is made up as ``bits``; optionally late, loud or faulty."""

    name = "steps"
    version = "1"
    sample_rate = RATE
    channels = (1, 2)
    delay = 0
    gain = 1.0
    fails_above = 9.9

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [Rate(float(bits), {"bits": bits}) for bits in (4, 8, 12)]

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        if audio.abs().max() > self.fails_above:
            raise RuntimeError("too loud for this codec")
        scale = 2.0 ** int(rate.settings["bits"])
        steps = torch.round(audio * scale).to(torch.int32)
        return [
            Encoded(
                item.numpy().tobytes(),
                self.sample_rate,
                *item.shape,
                codes=item.numpy() % 16,
                codebook_sizes=(16,) * item.shape[0],
                side_info={"scale": scale},
            )
            for item in steps
        ]

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        items = []
        for item in encoded:
            steps = np.frombuffer(item.payload, np.int32).reshape(item.channels, item.num_samples)
            decoded = self.gain * steps / item.side_info["scale"]
            items.append(np.roll(decoded, self.delay, axis=-1))
            if self.delay:
                items[-1][:, : self.delay] = 0
        return torch.from_numpy(np.stack(items)).float()


class LateCodec(StepCodec):
    """Its output is late, so that a delay is taken out."""

    name = "late"
    delay = 37


class FragileCodec(StepCodec):
    """Fails on loud clips."""

    name = "fragile"
    fails_above = 0.44


class LayersCodec(ClipCodec):
    """Bits of samples, the highest first: a rate with fewer of them is a prefix of one with more."""

    name, version, sample_rate = "layers", "1", RATE

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [Rate(self.sample_rate * n / 1000, {"num_codebooks": n}) for n in (5, 6, 8)]

    def is_prefix(self, rate: Rate, of: Rate) -> bool:
        return fewer_codebooks(rate, of)

    def truncate(self, encoded: Encoded, rate: Rate) -> Encoded:
        return self._of(first_codebooks(encoded, rate)[0], encoded.num_samples)

    def _of(self, bits: np.ndarray, num_samples: int) -> Encoded:
        return Encoded(
            np.packbits(bits.astype(np.uint8)).tobytes(),
            self.sample_rate,
            1,
            num_samples,
            codes=bits,
            codebook_sizes=(2,) * len(bits),
            side_info={"num_codebooks": len(bits)},
        )

    def levels(self, audio: np.ndarray, n: int) -> np.ndarray:
        return np.clip(np.floor(audio[0] * 128) + 128, 0, 255).astype(np.int64)

    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        n = int(rate.settings["num_codebooks"])
        bits = self.levels(audio, n)[None] >> np.arange(7, 7 - n, -1)[:, None] & 1
        return self._of(bits, audio.shape[1])

    def decode_clip(self, encoded: Encoded) -> np.ndarray:
        n, most = encoded.side_info["num_codebooks"], encoded.num_samples
        bits = np.unpackbits(np.frombuffer(encoded.payload, np.uint8))[: n * most].reshape(n, most)
        levels = (bits.astype(np.int64) << np.arange(7, 7 - n, -1)[:, None]).sum(0) + 2 ** (7 - n) - 0.5
        return (levels[None] / 128 - 1).astype(np.float32)


def register(patch: pytest.MonkeyPatch, registry: Registry, name: str, part: Any) -> None:
    """Add a part under a name, beside the project's own."""
    load = registry.load
    patch.setitem(registry._builtin, name, f"known:{name}")
    patch.setattr(registry, "load", lambda asked: part if asked == name else load(asked))


def register_codecs(patch: pytest.MonkeyPatch, *codecs: type[Codec]) -> None:
    for codec in codecs:
        register(patch, CODECS, codec.name, codec)


def announce(patch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    """Nothing but these is what installed packages offer."""
    patch.setattr(
        "qincodec.core.plugins.entry_points", lambda group: [one for one in points if one.group == group]
    )
