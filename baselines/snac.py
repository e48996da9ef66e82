"""SNAC (Siuzdak et al., 2024), through its authors' package: codebooks of different frame rates.

Optional: ``pip install 'qincodec[snac]'``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from baselines.codec import Encoded, Rate
from baselines.lazy import Lazy
from baselines.pretrained import PretrainedCodec
from baselines.tensors import from_tensors, parametrized, read_tensors
from qincodec.core.errors import UserError

if TYPE_CHECKING:
    import snac
    import torch
    from torch import nn
else:
    torch, nn, snac = Lazy("torch"), Lazy("torch.nn"), Lazy("snac")

#: Greatest value of any number in a configuration.
_LARGEST = 1 << 16


class Snac(PretrainedCodec):
    """SNAC at 44.1 kHz: four codebooks of 12 bits, each with twice the frame rate of the previous one.

    Channels are coded separately, and clips go through the networks whole. As in the authors' code, clips are
    zero-padded to whole windows of the attention (0.28 s; 0.38 s at 32 kHz, 0.09 s at 24), and the codes of
    the padding count. The decoder adds noise, which is drawn from `seed`: the same for clips of equal length.
    """

    name = "snac"
    sample_rate = 44100
    seed = 0
    gain = 0.8
    folder: ClassVar = ("config.json", "pytorch_model.bin")
    released: ClassVar = {"44khz": ("snac-config", "snac")}
    #: Arguments of the released model that differ from its class' defaults, for random weights.
    full: ClassVar[Mapping[str, Any]] = {"encoder_rates": [2, 3, 8, 8], "decoder_rates": [8, 8, 3, 2]}

    @classmethod
    def cannot_run(cls) -> str | None:
        if find_spec("snac") is not None:
            return None
        return f"codec '{cls.name}' needs the package snac: run `pip install 'qincodec[snac]'`"

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        bits = channels * sum(self._repeats) * (self._size - 1).bit_length()
        return [Rate(bits * self.sample_rate / self._coarsest / 1000)]

    def add(self, label: str, model: Any) -> None:
        if model.sampling_rate != self.sample_rate:
            raise UserError(
                f"codec '{self.name}' runs at {self.sample_rate} Hz, the model at {model.sampling_rate} Hz;"
                " there are snac, snac-32khz and snac-24khz"
            )
        self.model = model.eval().to(self.device)
        #: Codes of each codebook in a frame of the coarsest, and samples of that frame.
        self._repeats = [model.vq_strides[0] // stride for stride in model.vq_strides]
        self._coarsest = int(model.hop_length) * model.vq_strides[0]
        self._size = model.codebook_size
        self._window = int(model.hop_length) * math.lcm(model.vq_strides[0], model.attn_window_size or 1)

    def load(self, path: Path, *more: Path) -> nn.Module:
        config, tensors = self.files(path, *more)
        try:
            arguments = json.loads(config.read_text(encoding="utf-8"))
            _refuse_numbers(arguments)
            stored = {parametrized(name): tensor for name, tensor in read_tensors(tensors).items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"'{config}' with '{tensors}' is not a SNAC model: {error}; `evaluate weights` names the"
                " official files"
            ) from error
        return from_tensors(partial(snac.SNAC, **arguments), stored, tensors, "SNAC")

    @classmethod
    def untrained(cls, label: str, size: str) -> nn.Module:
        # Each head of the attention has 64 values.
        tiny = {"encoder_dim": 4, "decoder_dim": 64} if size == "tiny" else {}
        model: nn.Module = snac.SNAC(**{"sampling_rate": cls.sample_rate, **cls.full, **tiny})
        return model

    def encode_clip(self, audio: torch.Tensor, rate: Rate) -> Encoded:
        channels = [[book[0].cpu().numpy() for book in self.model.encode(row[None, None])] for row in audio]
        # Packed as if a frame of the coarsest codebook had a codebook for each of its codes.
        packed = self.pack(audio, np.stack([self._interleaved(books) for books in channels]), self._size)
        packed.codes = tuple(book.astype(np.int32) for books in channels for book in books)
        packed.codebook_sizes = (self._size,) * len(packed.codes)
        return packed

    def decode_clip(self, clip: Encoded) -> torch.Tensor:
        frames = -(-clip.num_samples // self._window) * self._window // self._coarsest
        codes, _ = self.unpack(clip, frames, clip.channels, self._size)
        rows = [self.model.decode(self._separated(row))[0, 0] for row in codes]
        return torch.stack(rows)[:, : clip.num_samples]

    def _interleaved(self, books: Sequence[np.ndarray]) -> np.ndarray:
        """(codes per coarsest frame, coarsest frames) from one row per codebook."""
        return np.concatenate([b.reshape(-1, n).T for b, n in zip(books, self._repeats, strict=True)])

    def _separated(self, codes: torch.Tensor) -> list[torch.Tensor]:
        """Inverse of `_interleaved`, as the model takes it: (1, frames) of each codebook."""
        return [part.T.reshape(1, -1) for part in codes.split(self._repeats)]


class Snac32(Snac):
    """SNAC at 32 kHz, for music and effects."""

    name = "snac-32khz"
    sample_rate = 32000
    released: ClassVar = {"32khz": ("snac-32khz-config", "snac-32khz")}


class Snac24(Snac):
    """SNAC at 24 kHz, for speech: three codebooks."""

    name = "snac-24khz"
    sample_rate = 24000
    released: ClassVar = {"24khz": ("snac-24khz-config", "snac-24khz")}
    full: ClassVar = {
        "encoder_dim": 48,
        "encoder_rates": [2, 4, 8, 8],
        "decoder_dim": 1024,
        "decoder_rates": [8, 8, 4, 2],
        "attn_window_size": None,
        "vq_strides": [4, 2, 1],
    }


def _refuse_numbers(arguments: Mapping[str, Any]) -> None:
    """Refuse numbers larger than in any model, before any take memory."""
    for name, value in arguments.items():
        for number in value if isinstance(value, list) else [value]:
            if number is not None and not (isinstance(number, int) and 0 <= number <= _LARGEST):
                raise ValueError(f"{name} is {value}"[:100])
        if isinstance(value, list) and len(value) > 16:
            raise ValueError(f"{name} has {len(value)} entries")
