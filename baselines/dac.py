"""DAC, the Descript Audio Codec (Kumar et al., NeurIPS 2023), through transformers' `DacModel`.

The networks run on the whole clip, padded to whole frames and trimmed to the sample, without any change of
loudness. Long clips run in blocks with the context that the convolutions see, so that codes and audio equal
those of the whole clip up to the rounding of float sums: audio agrees to 1e-9 in float64, to about 1e-5 in
float32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from baselines.codec import Encoded, Rate
from baselines.lazy import Lazy
from baselines.pretrained import PretrainedCodec, blocks
from baselines.tensors import from_folder, from_tensors, read_tensors
from qincodec.core.errors import UserError

if TYPE_CHECKING:
    import torch
    import transformers
    from torch import nn
else:
    torch, nn, transformers = Lazy("torch"), Lazy("torch.nn"), Lazy("transformers")

#: Frames per block: 10 s at 44.1 kHz, about 1 GB of activations in the released models.
BLOCK_FRAMES = 862

#: Arguments in the original files -> transformers' names.
_ARGUMENTS = {
    "sample_rate": "sampling_rate",
    "encoder_dim": "encoder_hidden_size",
    "encoder_rates": "downsampling_ratios",
    "decoder_dim": "decoder_hidden_size",
    "decoder_rates": "upsampling_ratios",
    "n_codebooks": "n_codebooks",
    "codebook_size": "codebook_size",
    "codebook_dim": "codebook_dim",
    "latent_dim": "hidden_size",
}
# Greatest value of any argument, so that a damaged file cannot take all memory.
_LARGEST = 1 << 18
_LARGEST_NUMBER = 64  # of codebooks and of rates


class Dac(PretrainedCodec):
    """DAC at 44.1 kHz: two models, 8 kbit/s (9 codebooks) and 16 kbit/s (18); channels are coded separately.

    A rate of up to 9 codebooks per channel is coded with the 8 kbps model, a higher one with the 16 kbps
    model. With one model (``dac:8kbps``, ``dac:16kbps``, ``dac:PATH``) every rate is coded with it. The model
    and the number of codebooks are the settings of a rate. The payload is the packed codes, 10 bits each.
    """

    name = "dac"
    sample_rate = 44100
    gain: ClassVar[float] = 0.7  # its activations amplify
    released: ClassVar[dict[str, str]] = {"8kbps": "dac-8kbps", "16kbps": "dac-16kbps"}
    #: Constructor arguments of each released model, for random weights.
    _architectures: ClassVar[dict[str, dict[str, Any]]] = {
        "8kbps": {"n_codebooks": 9},
        "16kbps": {"n_codebooks": 18, "hidden_size": 128},
    }

    def __init__(self, *, device: str | torch.device = "cpu", weights: str | None = None) -> None:
        self._networks: dict[str, _Network] = {}
        super().__init__(device=device, weights=weights)

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        points, done = [], 0
        for label, network in self._networks.items():
            for n in range(done + 1, network.num_codebooks + 1):
                kbps = channels * n * network.bits * self.sample_rate / network.hop_length / 1000
                points.append(
                    Rate(kbps, {"model": label, "num_codebooks": n} if label else {"num_codebooks": n})
                )
            done = network.num_codebooks
        return points

    def add(self, label: str, model: nn.Module) -> None:
        network = _Network(model, self.device)
        if network.sample_rate != self.sample_rate:
            raise UserError(
                f"codec '{self.name}' runs at {self.sample_rate} Hz, the model at {network.sample_rate} Hz:"
                f" {_OTHERS.get(network.sample_rate, 'no codec here has that rate')}"
            )
        self._networks[label] = network

    def load(self, path: Path, *more: Path) -> nn.Module:
        return from_folder(transformers.DacModel, path) if path.is_dir() else load_original(path)

    @classmethod
    def untrained(cls, label: str, size: str) -> nn.Module:
        wanted = {"sampling_rate": cls.sample_rate, **cls._architectures[label]}
        if size == "tiny":
            wanted |= {"encoder_hidden_size": 4, "decoder_hidden_size": 64, "hidden_size": 64}
        return _model(**wanted)

    def _network(self, label: Any, where: str) -> _Network:
        if label not in self._networks:
            known = ", ".join(f"'{name}'" for name in self._networks)
            raise UserError(
                f"codec '{self.name}': {where} names model '{label}', but the loaded ones are {known}; take "
                "a rate from"
                " nearest_rate(kbps, channels)"
            )
        return self._networks[label]

    def encode_clip(self, audio: torch.Tensor, rate: Rate) -> Encoded:
        label = rate.settings.get("model", "")
        network = self._network(label, f"rate {rate.label}")
        n = self.num_codebooks(rate, network.num_codebooks)
        codes = torch.cat([network.encode(row[None, None], n) for row in audio])
        return self.pack(audio, codes.cpu().numpy(), network.codebook_size, model=label)

    def decode_clip(self, clip: Encoded) -> torch.Tensor:
        network = self._network(str(clip.side_info.get("model", "")), "an encoded clip")
        frames = network.num_frames(clip.num_samples)
        codes, _ = self.unpack(clip, frames, clip.channels, network.codebook_size)
        return torch.cat([network.decode(row[None], clip.num_samples)[0] for row in codes])


class Dac24(Dac):
    """DAC at 24 kHz: one model of 32 codebooks at 75 Hz."""

    name = "dac-24khz"
    sample_rate = 24000
    released: ClassVar[dict[str, str]] = {"24khz": "dac-24khz"}
    _architectures: ClassVar[dict[str, dict[str, Any]]] = {
        "24khz": {"n_codebooks": 32, "downsampling_ratios": [2, 4, 5, 8]}
    }


class Dac16(Dac):
    """DAC at 16 kHz: one model of 12 codebooks at 50 Hz."""

    name = "dac-16khz"
    sample_rate = 16000
    released: ClassVar[dict[str, str]] = {"16khz": "dac-16khz"}
    _architectures: ClassVar[dict[str, dict[str, Any]]] = {
        "16khz": {"n_codebooks": 12, "downsampling_ratios": [2, 4, 5, 8]}
    }


_OTHERS = {codec.sample_rate: f"use it with codec '{codec.name}'" for codec in (Dac, Dac24, Dac16)}


class _Network:
    """A `DacModel` on clips of any length."""

    def __init__(self, model: Any, device: torch.device) -> None:
        config = model.config
        self.model = model.eval().to(device)
        self.sample_rate = int(config.sampling_rate)
        self.num_codebooks = int(config.n_codebooks)
        self.codebook_size = int(config.codebook_size)
        self.bits = (self.codebook_size - 1).bit_length()
        self.hop_length = math.prod(config.downsampling_ratios)
        self._encoder_context = math.ceil(_reach(model.encoder) / self.hop_length)
        self._decoder_context = math.ceil(_reach(model.decoder))
        # Transposed convolutions of odd stride lose a sample at the end.
        missing = 0
        for stride in config.upsampling_ratios:
            missing = missing * stride + stride % 2
        self._missing = missing

    def num_frames(self, num_samples: int) -> int:
        """Number of frames whose decoded audio covers this number of samples."""
        return math.ceil((num_samples + self._missing) / self.hop_length)

    def encode(self, audio: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        """Codes (batch, num_codebooks, frames), int32, of (batch, 1, samples)."""
        frames, hop = self.num_frames(audio.shape[-1]), self.hop_length
        audio = nn.functional.pad(audio, (0, frames * hop - audio.shape[-1]))
        parts = []
        for block in blocks(frames, BLOCK_FRAMES, self._encoder_context):
            latents = self.model.encoder(audio[..., block.first * hop : block.stop * hop])
            latents = latents[..., block.keep_from : block.keep_to]
            parts.append(self.model.quantizer(latents, num_codebooks)[1].int())
        return torch.cat(parts, dim=-1)

    def decode(self, codes: torch.Tensor, num_samples: int) -> torch.Tensor:
        """Audio (batch, 1, num_samples) of codes (batch, num_codebooks, frames)."""
        hop = self.hop_length
        parts = []
        for block in blocks(codes.shape[-1], BLOCK_FRAMES, self._decoder_context):
            latents = self.model.quantizer.from_codes(codes[..., block.first : block.stop])[0]
            audio = self.model.decoder(latents)
            # The last block ends with the clip, so all of it is kept.
            end = None if block.keep_to == block.stop - block.first else block.keep_to * hop
            parts.append(audio[..., block.keep_from * hop : end])
        return torch.cat(parts, dim=-1)[..., :num_samples]


def _reach(part: nn.Module) -> float:
    """Upper bound of the inputs on either side that an output depends on, in inputs of ``part``.

    The convolutions run in the order of their definition; each adds its kernel, measured at its own rate.
    """
    reach, inputs_per_step = 0.0, 1.0
    for layer in part.modules():
        if isinstance(layer, nn.Conv1d):
            reach += layer.dilation[0] * (layer.kernel_size[0] - 1) * inputs_per_step
            inputs_per_step *= layer.stride[0]
        elif isinstance(layer, nn.ConvTranspose1d):
            inputs_per_step /= layer.stride[0]
            reach += (layer.kernel_size[0] - 1) * inputs_per_step
    return reach


# ---- the original files --------------------------------------------------------------------------------


def load_original(path: Path) -> nn.Module:
    """The model in a file of the original release: ``state_dict`` and ``metadata.kwargs``.

    Raises:
        UserError: it is something else, or damaged.
    """
    content = read_tensors(path)
    try:
        arguments, tensors = dict(content["metadata"]["kwargs"]), dict(content["state_dict"])
    except (TypeError, KeyError, ValueError, IndexError) as error:
        raise UserError(
            f"weights '{path}' are not a DAC model of the original release: 'state_dict' with "
            "'metadata.kwargs' is missing; `evaluate weights` names the official files"
        ) from error
    wanted: dict[str, Any] = {}
    for name, ours in _ARGUMENTS.items():
        value = arguments.get(name)
        if name == "latent_dim" and value is None:
            continue
        listed = name == "codebook_dim" or name.endswith("_rates")
        values = value if listed and isinstance(value, list | tuple) and value else [value]
        most = _LARGEST_NUMBER if name == "n_codebooks" else _LARGEST
        if not (len(values) <= _LARGEST_NUMBER and all(type(v) is int and 0 < v <= most for v in values)):
            raise UserError(
                f"weights '{path}' are not a DAC model of the original release: its {name} is {value!r};"
                " `evaluate weights` names the official files"
            )
        wanted[ours] = list(value) if isinstance(value, list | tuple) else value
    dims = wanted["codebook_dim"]
    if isinstance(dims, list) and len(dims) != wanted["n_codebooks"]:
        raise UserError(
            f"weights '{path}' are not a DAC model of the original release: {len(dims)} numbers of "
            "codebook_dim"
            f" for {wanted['n_codebooks']} codebooks; `evaluate weights` names the official files"
        )
    return from_tensors(partial(_model, **wanted), _fold(tensors), path, "DAC")


def _model(codebook_dim: int | list[int] = 8, **arguments: Any) -> nn.Module:
    """A `DacModel`; its codebooks may differ in dimension, as in the original."""
    dims = codebook_dim if isinstance(codebook_dim, list) else [codebook_dim]
    config = transformers.DacConfig(codebook_dim=dims[0], **arguments)
    model: Any = transformers.DacModel(config)
    for index, dim in enumerate(dims):
        if dim != dims[0]:
            own = transformers.DacConfig(codebook_dim=dim, **arguments)
            model.quantizer.quantizers[index] = type(model.quantizer.quantizers[0])(own)
    found: nn.Module = model
    return found


def _fold(tensors: dict[str, Any]) -> dict[str, Any]:
    """transformers' names; weight norm's g v / ||v|| as one tensor, the norm over all dimensions but one."""
    folded: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight_g"):
            continue
        if name.endswith(".weight_v") and isinstance(tensor, torch.Tensor):
            gain = tensors.get(f"{name[:-1]}g")
            if not isinstance(gain, torch.Tensor) or len(gain) != len(tensor):
                continue  # its weight will be reported as missing
            norm = tensor.flatten(1).norm(dim=1).reshape(-1, *[1] * (tensor.ndim - 1))
            tensor = tensor * (gain / norm)
            name = name.removesuffix("_v")
        folded[_rename(name)] = tensor
    return folded


_UNIT = {"0": "snake1", "1": "conv1", "2": "snake2", "3": "conv2"}
_ENCODER_BLOCK = {"0": "res_unit1", "1": "res_unit2", "2": "res_unit3", "3": "snake1", "4": "conv1"}
_DECODER_BLOCK = {"0": "snake1", "1": "conv_t1", "2": "res_unit1", "3": "res_unit2", "4": "res_unit3"}


def _rename(name: str) -> str:
    """transformers' name of a tensor; names without a known pattern stay, and are reported as unknown."""
    match = re.fullmatch(r"(encoder\.block|decoder\.model)\.(\d+)\.(.+)", name)
    if match is None:
        return name
    part, number, rest = match[1].split(".")[0], int(match[2]), match[3]
    inner = re.fullmatch(r"block\.(\d)\.(?:block\.(\d)\.)?(\w+)", rest)
    if inner is None:
        # The two layers after the blocks: a snake, which has an alpha, and a convolution.
        layer = "conv1" if number == 0 else "snake1" if rest == "alpha" else "conv2"
        return f"{part}.{layer}.{rest}"
    names = _ENCODER_BLOCK if part == "encoder" else _DECODER_BLOCK
    unit = f"{_UNIT.get(inner[2], inner[2])}." if inner[2] else ""
    return f"{part}.block.{number - 1}.{names.get(inner[1], inner[1])}.{unit}{inner[3]}"
