"""What the runner handles at once: clips of like length, and what a condition made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from baselines.codec import Encoded
from evaluation.datasets.base import Clip


@dataclass
class Group:
    """Clips of one batch that have the same length, as audio.

    ``reference`` is (clips, channels, samples) at the evaluation's rate. What is computed from it is kept
    as long as the group is: codec inputs by sample rate, prepared metrics by (metric, delay).
    """

    clips: list[Clip]
    reference: torch.Tensor
    inputs: dict[int, torch.Tensor] = field(default_factory=dict)
    prepared: dict[tuple[str, int], Any] = field(default_factory=dict)

    def clip(self, index: int) -> Group:
        """One of the clips by itself."""
        return Group([self.clips[index]], self.reference[index : index + 1])


@dataclass
class Coded:
    """What a condition made of a group: ``decoded`` like `Group.reference`, and one entry per clip."""

    decoded: torch.Tensor
    encoded: list[Encoded | None]
    notes: list[str | None]
    encode_s: float | None = None  # per clip
    decode_s: float | None = None


def make_batches(clips: Sequence[Clip], batch_size: int) -> list[list[Clip]]:
    """Batches of clips of like length and rate; they depend on the clips and the size alone."""
    ordered = sorted(clips, key=lambda clip: (clip.duration_s, clip.sample_rate, clip.id))
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def fit_length(samples: torch.Tensor, length: int) -> torch.Tensor:
    """Cut or zero-pad (..., samples) to ``length``: rates that do not divide leave a sample over."""
    return functional.pad(samples, (0, length - samples.shape[-1]))
