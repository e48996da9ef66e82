"""LAION-CLAP (Wu et al., "Large-scale Contrastive Language-Audio Pretraining", ICASSP 2023), audio branch.

Network and front end are those of transformers (`ClapAudioModelWithProjection`, `ClapFeatureExtractor`); the
weights are LAION's own file, read only as tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.lazy import Lazy, inference_mode
from baselines.tensors import from_tensors, read_tensors
from evaluation.embeddings.base import centred_frames
from evaluation.embeddings.pretrained import PretrainedEmbedding, hash_of
from qincodec.core.errors import UserError

if TYPE_CHECKING:
    import torch
    import transformers
    from torch import nn
    from torch.nn import functional

    from qincodec import audio as audio_files
else:
    torch, functional, transformers = Lazy("torch"), Lazy("torch.nn.functional"), Lazy("transformers")
    audio_files = Lazy("qincodec.audio")

SAMPLE_RATE = 48000
#: Frames per call of the network.
_FRAMES_CPU, _FRAMES_GPU = 2, 32


class Clap(PretrainedEmbedding):
    """The unfused HTSAT model, 512 values per 10 s."""

    name = "clap"
    label = "CLAP"
    version = "clap-htsat-unfused/1"
    dim = 512
    frame_s = 10.0  # input length of the network
    hop_s = 1.0
    weights_name = "clap"
    definition = (
        "LAION-CLAP, HTSAT unfused, 512 values of unit length per frame of 10 s every 1 s (centred, zeros "
        "beyond the ends), of the mono mix at 48 kHz."
    )

    def __init__(self, *, device: str | torch.device = "cpu") -> None:
        super().__init__(device=device)
        self.network = self.read_weights(load_released).to(self.device)
        self.attribution = f"CLAP weights: {self.attribution}"
        self.weights_hash = hash_of(t.cpu().numpy() for t in self.network.state_dict().values())

    @inference_mode
    def embed(self, audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
        resampled = audio_files.resample(audio.cpu().numpy(), sample_rate, SAMPLE_RATE)
        length, hop = (round(seconds * SAMPLE_RATE) for seconds in (self.frame_s, self.hop_s))
        frames = centred_frames(torch.from_numpy(resampled), length, hop)
        step = _FRAMES_CPU if self.device.type == "cpu" else _FRAMES_GPU
        return torch.cat([self.embed_frames(part) for part in frames.split(step)])

    def embed_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """(frames, 480000) at 48 kHz -> (frames, dim)."""
        found = _front_end()(list(frames.numpy()), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        vectors = self.network(input_features=found["input_features"].float().to(self.device)).audio_embeds
        return functional.normalize(vectors, dim=-1).cpu()


@functools.cache
def _front_end() -> Any:
    # As the model was trained; transformers' defaults belong to the fused model.
    return transformers.ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc")


def load_released(path: Path, config: Any = None) -> nn.Module:
    """The audio branch of LAION's ``pytorch_model.bin``.

    Args:
        config: a `ClapAudioConfig`; None for the released architecture, which is transformers' default.

    Raises:
        UserError: the file is something else, or damaged.
    """
    config = config or transformers.ClapAudioConfig()

    def make() -> nn.Module:
        return transformers.ClapAudioModelWithProjection(config)

    content = read_tensors(path)
    if not isinstance(content, Mapping):
        raise UserError(
            f"weights '{path}' are not a model's tensors; `evaluate weights` names the official file"
        )
    halves = ("audio_model.", "audio_projection.")
    tensors = {name: tensor for name, tensor in content.items() if str(name).startswith(halves)}
    # Tables of indices follow from the configuration; not every version of transformers stores them.
    state = make().state_dict().items()
    tensors |= {name: value for name, value in state if name.endswith("relative_position_index")}
    return from_tensors(make, tensors, path, "CLAP").eval()
