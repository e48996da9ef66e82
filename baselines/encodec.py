"""EnCodec at 48 and at 24 kHz (Defossez et al., 2022), through transformers' `EncodecModel`.

The 48 kHz model is stereo and codes segments of 1 s that overlap by 1 %, separately and scaled by their RMS
values. The loop over segments is here, so that a clip's last segment is as short as in the original, any
number of codebooks can be used, and memory does not grow with the clip.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from baselines.codec import Encoded, Rate
from baselines.lazy import Lazy
from baselines.pretrained import PretrainedCodec
from baselines.tensors import from_folder, from_tensors, parametrized, read_tensors
from baselines.transformers_codec import Layout, TransformersCodec
from qincodec.core.errors import UserError

if TYPE_CHECKING:
    import torch
    import transformers
    from torch import nn
else:
    torch, nn, transformers = Lazy("torch"), Lazy("torch.nn"), Lazy("transformers")

#: Constants of the 48 kHz model, and of the 24 kHz one, that its tensors do not show.
FIXED: dict[str, Any] = {
    "sampling_rate": 48000,
    "audio_channels": 2,
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
}
FIXED_24: dict[str, Any] = {
    "sampling_rate": 24000,
    "audio_channels": 1,
    "normalize": False,
    "chunk_length_s": None,
    "overlap": None,
    "norm_type": "weight_norm",
    "use_causal_conv": True,
}
_SCALE = np.dtype("<f4")


class Encodec(PretrainedCodec):
    """EnCodec's 48 kHz model with 1 to 16 codebooks.

    The model is always stereo: a mono clip goes through both channels at the same rate, and their mean is
    returned. The payload is the codes, 10 bits each, and a 32-bit scale per segment. Nominal rates hold for a
    long clip, with overlap and scales: 1.515 kbit/s per codebook and 0.032.
    """

    name = "encodec"
    sample_rate = 48000
    released: ClassVar[dict[str, str]] = {"48khz": "encodec-48khz"}

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        bits_per_segment = [n * self._bits * self._frames(self._segment) for n in range(1, self._most + 1)]
        return [
            Rate((bits + 8 * _SCALE.itemsize) * self.sample_rate / self._stride / 1000, {"num_codebooks": n})
            for n, bits in enumerate(bits_per_segment, 1)
        ]

    def add(self, label: str, model: Any) -> None:
        config = model.config
        _refuse_other(self.name, config, FIXED)
        self._model = model.eval().to(self.device)
        self._segment, self._stride = config.chunk_length, config.chunk_stride
        self._hop_length = math.prod(config.upsampling_ratios)
        self._codebook_size = config.codebook_size
        self._bits = (config.codebook_size - 1).bit_length()
        self._most = len(model.quantizer.layers)
        # As in the original: a triangle over the segment, without its zeros.
        ramp = torch.linspace(0, 1, self._segment + 2, device=self.device)[1:-1]
        self._window = 0.5 - (ramp - 0.5).abs()

    def load(self, path: Path, *more: Path) -> nn.Module:
        return from_folder(transformers.EncodecModel, path) if path.is_dir() else load_original(path)

    @classmethod
    def untrained(cls, label: str, size: str) -> nn.Module:
        return _model(16, FIXED, **(_TINY if size == "tiny" else {}))

    def _frames(self, num_samples: int) -> int:
        """Number of frames of a segment."""
        return -(-num_samples // self._hop_length)

    def _segments(self, num_samples: int) -> list[tuple[int, int]]:
        """Start and length of each segment of a clip."""
        starts = range(0, num_samples, self._stride)
        return [(start, min(self._segment, num_samples - start)) for start in starts]

    def encode_clip(self, audio: torch.Tensor, rate: Rate) -> Encoded:
        n = self.num_codebooks(rate, self._most)
        # `EncodecModel`'s quantizer takes the number of codebooks as kbit/s.
        bandwidth = n * self._bits * self._model.config.frame_rate / 1000
        codes, scales = [], []
        for start, length in self._segments(audio.shape[-1]):
            segment = audio[:, start : start + length].expand(2, -1)
            # Stored before it is used, so that the decoder multiplies by exactly the divisor.
            scale = segment.mean(dim=0).square().mean().sqrt() + 1e-8
            scales.append(float(scale))
            latents = self._model.encoder((segment / scale)[None])
            codes.append(self._model.quantizer.encode(latents, bandwidth)[:, 0].int())
        packed = np.array(scales, dtype=_SCALE).tobytes()
        stream = torch.cat(codes, dim=-1)[None].cpu().numpy()
        return self.pack(audio, stream, self._codebook_size, packed)

    def decode_clip(self, clip: Encoded) -> torch.Tensor:
        segments = self._segments(clip.num_samples)
        frames = [self._frames(length) for _, length in segments]
        size = _SCALE.itemsize * len(segments)
        codes, packed = self.unpack(clip, sum(frames), 1, self._codebook_size, size)
        scales = np.frombuffer(packed, dtype=_SCALE)
        if not np.isfinite(scales).all():
            raise UserError(f"encoded {self.name} clip is damaged: scales {scales[:3]}; delete it, run again")
        total = segments[-1][0] + frames[-1] * self._hop_length
        audio = torch.zeros(2, max(total, clip.num_samples), device=self.device)
        weight = torch.zeros(audio.shape[-1], device=self.device)
        first = 0
        for (start, _), count, scale in zip(segments, frames, scales, strict=True):
            latents = self._model.quantizer.decode(codes[0, :, None, first : first + count])
            part = self._model.decoder(latents)[0] * float(scale)
            window = self._window[: part.shape[-1]]
            audio[:, start : start + part.shape[-1]] += window * part
            weight[start : start + part.shape[-1]] += window
            first += count
        audio = (audio / weight)[:, : clip.num_samples]
        return audio if clip.channels == 2 else audio.mean(dim=0, keepdim=True)


class Encodec24(TransformersCodec):
    """EnCodec's 24 kHz model: 1 to 32 codebooks of 10 bits, 75 frames per second; channels are coded
    separately.

    Trained with 2, 4, 8, 16 and 32 codebooks; other numbers use the first codebooks of these.
    """

    name = "encodec-24khz"
    sample_rate = 24000
    released: ClassVar = {"24khz": "encodec-24khz"}
    model_class = "EncodecModel"

    def layout(self, config: Any) -> Layout:
        _refuse_other(self.name, config, FIXED_24)
        bits_per_s = (config.codebook_size - 1).bit_length() * config.frame_rate
        most = int(1000 * config.target_bandwidths[-1] // bits_per_s)
        return Layout(config.sampling_rate, config.hop_length, config.codebook_size, most)

    def load(self, path: Path, *more: Path) -> nn.Module:
        return super().load(path, *more) if path.is_dir() else load_original(path, FIXED_24)

    @classmethod
    def untrained(cls, label: str, size: str) -> nn.Module:
        return _model(32, FIXED_24, **(_TINY if size == "tiny" else {}))

    def encode_channel(self, samples: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        # The quantizer takes kbit/s, which it rounds down to codebooks.
        bandwidth = (num_codebooks + 0.5) * (self.rates()[0].kbps or 0)
        codes: torch.Tensor = self.model.quantizer.encode(self.model.encoder(samples[None, None]), bandwidth)
        return codes[:, 0]

    def decode_channel(self, codes: torch.Tensor) -> torch.Tensor:
        audio: torch.Tensor = self.model.decoder(self.model.quantizer.decode(codes[:, None]))
        return audio[0, 0]


def _refuse_other(name: str, config: Any, fixed: dict[str, Any]) -> None:
    hertz = f"{fixed['sampling_rate'] // 1000} kHz"
    for field, value in fixed.items():
        if getattr(config, field) != value:
            raise UserError(
                f"codec '{name}' is EnCodec's {hertz} model; this model has {field}"
                f" {getattr(config, field)} instead of {value}"
            )


# ---- the original file ---------------------------------------------------------------------------------


def load_original(path: Path, fixed: dict[str, Any] = FIXED) -> nn.Module:
    """The model in a file of the original release: a dictionary of tensors, which gives its sizes.

    Args:
        path: of the file.
        fixed: constants that are not in it.

    Raises:
        UserError: it is something else, or damaged.
    """
    content = read_tensors(path)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"weights '{path}' are not an EnCodec model: the file has no dictionary of tensors")
    tensors = {_rename(name): tensor for name, tensor in content.items()}
    weight = parametrized("weight_v") if fixed["norm_type"] == "weight_norm" else "weight"
    hertz = f"{fixed['sampling_rate'] // 1000} kHz"
    try:
        filters, channels, _ = tensors[f"encoder.layers.0.conv.{weight}"].shape
        codebook_size, hidden = tensors["quantizer.layers.0.codebook.embed"].shape
        # Convolutions 3, 6, 9, 12 downsample, by half their kernel.
        ratios = [tensors[f"encoder.layers.{n}.conv.{weight}"].shape[-1] // 2 for n in (12, 9, 6, 3)]
    except (KeyError, ValueError, AttributeError) as error:
        raise UserError(
            f"weights '{path}' are not a {hertz} EnCodec model of the original release ({error}); `evaluate "
            "weights` names the official file"
        ) from error
    if channels != fixed["audio_channels"]:
        raise UserError(
            f"weights '{path}' are of an EnCodec model of {channels} channel; the {hertz} one has"
            f" {fixed['audio_channels']}"
        )
    make = partial(
        _model,
        len({name for name in tensors if name.endswith(".codebook.embed")}),
        fixed,
        num_filters=filters,
        hidden_size=hidden,
        codebook_dim=hidden,
        codebook_size=codebook_size,
        upsampling_ratios=ratios,
    )
    return from_tensors(make, tensors, path, "EnCodec")


#: Sizes of the smallest models, for tests.
_TINY = {"num_filters": 4, "hidden_size": 16, "codebook_dim": 16}


def _model(num_codebooks: int, fixed: dict[str, Any], **sizes: Any) -> nn.Module:
    # The last of the bandwidths sets the number of codebooks: 320 samples a frame, 10 bits a code.
    bandwidth = num_codebooks * 10 * fixed["sampling_rate"] / 320 / 1000
    return transformers.EncodecModel(
        transformers.EncodecConfig(**fixed, **sizes, target_bandwidths=[bandwidth])
    )


def _rename(name: str) -> str:
    """transformers' name of a tensor; names without a known pattern stay, and are reported as unknown."""
    name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
    name = re.sub(r"\.(conv|convtr)\.\1\.", ".conv.", name)
    name = parametrized(re.sub(r"\.(conv|convtr)\.norm\.", ".norm.", name))
    return re.sub(r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook.", name)
