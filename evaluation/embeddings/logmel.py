"""Log-mel statistics: an embedding without weights, always available. It is not OpenL3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.lazy import Lazy, inference_mode
from evaluation.embeddings.base import Embedding, centred_frames

if TYPE_CHECKING:
    import torch
    from torch.nn import functional

    from qincodec import distances
else:
    torch, functional, distances = Lazy("torch"), Lazy("torch.nn.functional"), Lazy("qincodec.distances")

WINDOW, HOP_LENGTH, NUM_MELS = 2048, 1024, 40


class LogMel(Embedding):
    """Mean and standard deviation over time of 40 log-mel bands, per frame of one second."""

    name = "logmel"
    label = "logmel"
    version = "1"
    dim = 2 * NUM_MELS
    frame_s = 1.0
    hop_s = 0.5
    definition = (
        "Mean and standard deviation over time of log10 max(X, 1e-5) of 40 Slaney mel bands X, 0 Hz to "
        "Nyquist (magnitudes, periodic Hann window of 2048 samples, hop 1024), in frames of 1 s every 0.5 s "
        "(centred), of the mono mix at the evaluation's rate; no trained network."
    )

    @inference_mode
    def embed(self, audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
        frame, hop = (2 * round(seconds * sample_rate / 2) for seconds in (self.frame_s, self.hop_s))
        frames = centred_frames(audio.to(self.device), frame, hop)
        in_numpy = distances.suits_numpy(frames)
        return torch.cat([_statistics(part, sample_rate, in_numpy) for part in frames.split(64)]).cpu()


def _statistics(frames: torch.Tensor, sample_rate: int, in_numpy: bool) -> torch.Tensor:
    """(frames, samples) -> (frames, 80)."""
    steps = -(-frames.shape[-1] // HOP_LENGTH)
    padded = functional.pad(frames, (0, (steps - 1) * HOP_LENGTH + WINDOW - frames.shape[-1]))
    windows = padded.unfold(-1, WINDOW, HOP_LENGTH)
    mel = distances.log_mel(windows, sample_rate, NUM_MELS, in_numpy)
    return torch.cat([mel.mean(-1), mel.std(-1, correction=0)]).T
