"""The noise floor of the embedding metrics: inaudibly changed references, scored like a codec.

A difference between codecs means nothing if rounding to 16 bits or resampling makes a greater one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from baselines.codec import Rate
from baselines.controls import Pcm16
from evaluation.engine.conditions import PreparedCondition
from evaluation.records import Condition
from qincodec import audio

#: Changes (clips, channels, samples) at a sample rate in Hz; they keep the shape.
Change = Callable[[torch.Tensor, int], torch.Tensor]


def dithered(reference: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Signals rounded to 16 bits with TPDF dither, as by the control ``pcm16``."""
    codec = Pcm16()
    codec.sample_rate = sample_rate
    return codec.decode(codec.encode(reference.cpu(), Rate(None)))


def resampled(reference: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Signals resampled to another common rate and back: 48 kHz, or 44.1 kHz if they are at 48 kHz."""
    other = 44100 if sample_rate == 48000 else 48000
    there = audio.resample(reference.cpu().numpy(), sample_rate, other)
    back = torch.from_numpy(audio.resample(there, other, sample_rate))
    return torch.nn.functional.pad(back, (0, reference.shape[-1] - back.shape[-1]))


def noise_floor() -> list[PreparedCondition]:
    """The rows of the noise floor, as conditions."""
    changes: dict[str, Change] = {"16 bits, dithered": dithered, "resampled and back": resampled}
    prepared = []
    for label, change in changes.items():
        identity = {"name": f"floor-{change.__name__}", "version": "1"}
        condition = Condition(label, None, None, identity=identity, rate_is="none", control=True)
        prepared.append(PreparedCondition(condition, change=change))
    return prepared
