"""Signals and codecs whose right scores are known; tests import them as ``known``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from baselines.codec import Codec, Encoded, Rate
from evaluation.statistics.distributions import Gaussian, Moments, frechet, frechet_of_few

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
