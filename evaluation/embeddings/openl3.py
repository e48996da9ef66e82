"""OpenL3 (Cramer, Wu, Salamon and Bello, "Look, Listen and Learn More", ICASSP 2019), version 0.4.

Front end and network as in the authors' package, written in PyTorch from their description; it reads their
published weight files. Agreement with the package: 1e-3 dB after the front end, 1e-4 relative in the
embeddings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.lazy import Lazy, inference_mode
from evaluation.embeddings.base import centred_frames
from evaluation.embeddings.pretrained import PretrainedEmbedding, hash_of
from qincodec.core.errors import Unavailable

if TYPE_CHECKING:
    import torch
    from torch.nn import functional

    from evaluation.embeddings import openl3_network as openl3
else:
    torch, functional = Lazy("torch"), Lazy("torch.nn.functional")
    openl3 = Lazy("evaluation.embeddings.openl3_network")

#: Frames per call of the network on a CPU, whose cache holds no more maps, and on a GPU.
_FRAMES_CPU, _FRAMES_GPU = 2, 64


class OpenL3(PretrainedEmbedding):
    """Environmental model, 512 values per second of audio: FD-OL3 of the literature."""

    name = "openl3"
    label = "OL3"
    version = "openl3-0.4/mel256"
    dim = 512  # maps of the network's last convolution; this module is imported without torch
    frame_s = 1.0
    hop_s = 0.5
    weights_name = "openl3"
    definition = (
        "OpenL3 0.4, mel256, environmental sounds, 512 values per frame of 1 s every 0.5 s (centred), of the "
        "mono mix at 48 kHz."
    )
    #: Cells to which the last map is pooled.
    pooling: tuple[int, int] = (32, 24)

    def __init__(self, *, device: str | torch.device = "cpu") -> None:
        super().__init__(device=device)
        layers = self.read_weights(openl3.read_weights)
        self.attribution = f"OpenL3 weights: {self.attribution}"
        self.weights_hash = hash_of(array.astype("<f4") for _, arrays in layers for array in arrays)
        self.network = openl3.build_network(layers).to(self.device)

    @inference_mode
    def embed(self, audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
        rate = openl3.SAMPLE_RATE
        frames = centred_frames(openl3.to_48k(audio.cpu(), sample_rate), rate, round(self.hop_s * rate))
        step = _FRAMES_CPU if self.device.type == "cpu" else _FRAMES_GPU
        return torch.cat([self.embed_frames(part).cpu() for part in frames.split(step)])

    def embed_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """(frames, 48000) at 48 kHz -> (frames, dim)."""
        maps = functional.max_pool2d(self.network(openl3.front_end(frames).to(self.device)), self.pooling)
        return maps.permute(0, 2, 3, 1).flatten(1)  # Keras flattens with the channels last


class OpenL3Wide(OpenL3):
    """Environmental model, 6144 values: 12 cells of the last map, of which `OpenL3` is the maximum."""

    name = "openl3-6144"
    label = "OL3-6144"
    dim = 12 * OpenL3.dim
    pooling = (8, 8)
    definition = OpenL3.definition.replace("512 values", "6144 values")


class OpenL3Music(OpenL3):
    """Music model, 512 values."""

    name = "openl3-music"
    label = "OL3-music"
    weights_name = "openl3-music"
    definition = OpenL3.definition.replace("environmental sounds", "music")


class OpenL3MusicWide(OpenL3Wide):
    """Music model, 6144 values."""

    name = "openl3-music-6144"
    label = "OL3-music-6144"
    weights_name = "openl3-music"
    definition = OpenL3Wide.definition.replace("environmental sounds", "music")


class _Unverified(OpenL3):
    """An input representation whose front end has not been compared with the original yet."""

    @classmethod
    def unavailable(cls) -> str:
        return (
            f"'{cls.name}' has not been compared with the original implementation yet, so it is not "
            "available; use openl3, whose mel256 front end has been compared"
        )

    def __init__(self, *, device: str | torch.device = "cpu") -> None:
        raise Unavailable(self.unavailable())


class OpenL3Mel128(_Unverified):
    name = "openl3-mel128"
    label = "OL3-mel128"
    definition = OpenL3.definition.replace("mel256", "mel128")


class OpenL3Linear(_Unverified):
    name = "openl3-linear"
    label = "OL3-linear"
    definition = OpenL3.definition.replace("mel256", "linear spectrum")
