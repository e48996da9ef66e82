"""An embedding as a third party would write it; tests announce it by an entry point."""

from __future__ import annotations

import torch

from evaluation.embeddings.base import Embedding, centred_frames
from qincodec.core.errors import Unavailable


class Bands(Embedding):
    """Level and spread of the samples of each frame, and of their differences."""

    name, label, version = "bands", "bands", "1"
    dim, frame_s, hop_s = 4, 0.2, 0.1
    definition = "Root mean square and mean magnitude of samples and their differences, frames of 0.2 s."
    attribution = "Bands by nobody, CC0"
    calls = 0

    def embed(self, audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
        Bands.calls += 1
        frames = centred_frames(audio, round(0.2 * sample_rate), round(0.1 * sample_rate))
        steps = frames.diff(dim=1)
        parts = [frames.square().mean(1).sqrt(), frames.abs().mean(1)]
        parts += [steps.square().mean(1).sqrt(), steps.abs().mean(1)]
        return torch.stack(parts, 1)


class OtherBands(Bands):
    """The same after new training, say."""

    weights_hash = "feedbeef"


class Fragile(Bands):
    """Fails on loud clips."""

    def embed(self, audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
        if audio.abs().max() > 0.44:
            raise RuntimeError("too loud for this network")
        return super().embed(audio, sample_rate)


class Absent(Bands):
    """Cannot run here."""

    def __init__(self, *, device: str | torch.device = "cpu") -> None:
        raise Unavailable("its network is not here; fetch it")
