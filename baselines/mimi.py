"""Mimi, the streaming codec of Moshi (Defossez et al., 2024), through transformers' `MimiModel`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from safetensors import SafetensorError

from baselines.codec import Encoded, Rate
from baselines.lazy import Lazy
from baselines.pretrained import PretrainedCodec, blocks
from baselines.tensors import from_folder, from_pretrained
from qincodec.core.errors import UserError

if TYPE_CHECKING:
    import torch
    import transformers
    from torch import nn
else:
    torch, nn, transformers = Lazy("torch"), Lazy("torch.nn"), Lazy("transformers")

#: Frames per block: one minute.
BLOCK_FRAMES = 750


class Mimi(PretrainedCodec):
    """Mimi at 24 kHz, made for speech: 12.5 frames per second, 1 to 32 codebooks of 11 bits.

    Channels are coded separately. The networks are causal, and their attention sees about 80 s of the past.
    Longer clips run in blocks after this context, so that codes and audio equal those of the whole clip up to
    the rounding of float sums.
    """

    name = "mimi"
    sample_rate = 24000
    released: ClassVar[dict[str, str]] = {"released": "mimi"}

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        bits_per_s = channels * self._bits * self.sample_rate / self._hop_length
        return [Rate(n * bits_per_s / 1000, {"num_codebooks": n}) for n in range(1, self._most + 1)]

    def add(self, label: str, model: Any) -> None:
        config = model.config
        if config.sampling_rate != self.sample_rate:
            raise UserError(
                f"codec '{self.name}' runs at {self.sample_rate} Hz, the model at {config.sampling_rate} Hz;"
                " give Mimi's own"
            )
        self._model = model.eval().to(self.device)
        self._hop_length = round(config.sampling_rate / config.frame_rate)
        self._codebook_size = config.codebook_size
        self._bits = (config.codebook_size - 1).bit_length()
        self._most = config.num_quantizers
        # Context of the attention, in steps shorter than frames, and as much again for the convolutions.
        attention_s = config.num_hidden_layers * config.sliding_window / config.encodec_frame_rate
        self._context = math.ceil(attention_s * config.frame_rate) + 16

    def load(self, path: Path, *more: Path) -> nn.Module:
        return from_folder(transformers.MimiModel, path) if path.is_dir() else load_released(path)

    @classmethod
    def untrained(cls, label: str, size: str) -> nn.Module:
        return transformers.MimiModel(transformers.MimiConfig(**TINY if size == "tiny" else {}))

    def encode_clip(self, audio: torch.Tensor, rate: Rate) -> Encoded:
        n = self.num_codebooks(rate, self._most)
        hop, frames = self._hop_length, self._frames(audio.shape[-1])
        padded = nn.functional.pad(audio, (0, frames * hop - audio.shape[-1]))
        streams = []
        for row in padded:
            parts = []
            for block in blocks(frames, BLOCK_FRAMES, self._context, 0):
                piece = row[None, None, block.first * hop : block.stop * hop]
                codes = self._model.encode(piece, num_quantizers=n).audio_codes
                parts.append(codes[..., block.keep_from : block.keep_to].int())
            streams.append(torch.cat(parts, dim=-1))
        return self.pack(audio, torch.cat(streams).cpu().numpy(), self._codebook_size)

    def _frames(self, num_samples: int) -> int:
        return -(-num_samples // self._hop_length)

    def decode_clip(self, clip: Encoded) -> torch.Tensor:
        hop, frames = self._hop_length, self._frames(clip.num_samples)
        codes, _ = self.unpack(clip, frames, clip.channels, self._codebook_size)
        rows = []
        for row in codes:
            parts = []
            for block in blocks(frames, BLOCK_FRAMES, self._context, 0):
                audio = self._model.decode(row[None, :, block.first : block.stop]).audio_values[0]
                parts.append(audio[..., block.keep_from * hop : block.keep_to * hop])
            rows.append(torch.cat(parts, dim=-1))
        return torch.cat(rows)[:, : clip.num_samples]


#: `MimiConfig` of the smallest model, for tests.
TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_filters": 4,
    "codebook_dim": 8,
    "vector_quantization_hidden_dimension": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "upsample_groups": 16,
    "sliding_window": 50,
}


def load_released(path: Path, config: Any = None) -> nn.Module:
    """The model in the released ``model.safetensors``.

    Args:
        path: of the file.
        config: a `MimiConfig`; None for the released architecture, which is transformers' default.

    Raises:
        UserError: it is something else, or damaged.
    """
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights '{path}' are not a safetensors file: {error}; get them again") from error
    # transformers maps the released names of tensors, which differ from its model's.
    return from_pretrained(
        transformers.MimiModel, None, path, config=config or transformers.MimiConfig(), state_dict=tensors
    )
