"""Base of codecs whose networks are a model of transformers."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from baselines.codec import Encoded, Rate
from baselines.lazy import Lazy
from baselines.pretrained import PretrainedCodec
from baselines.tensors import from_files
from qincodec.bitstream import bits_per_frame
from qincodec.core.errors import UserError

if TYPE_CHECKING:
    import torch
    import transformers
    from torch import nn
else:
    torch, transformers = Lazy("torch"), Lazy("transformers")


@dataclass(frozen=True)
class Layout:
    """Properties of a model's codes, from its configuration.

    Attributes:
        sample_rate: of the audio that it encodes, Hz.
        hop_length: samples of that audio per frame.
        codebook_size: entries of every codebook.
        num_codebooks: greatest number.
        output_sample_rate: of the audio that it decodes to, Hz; None if it is the same.
    """

    sample_rate: int
    hop_length: int
    codebook_size: int
    num_codebooks: int = 1
    output_sample_rate: int | None = None


class TransformersCodec(PretrainedCodec):
    """A codec of a model of transformers for one channel; channels are coded separately.

    A subclass names its model, reads its configuration (`layout`), and turns a channel into codes and back.
    Its models are folders as transformers writes them, or the released pair of files. Clips go through the
    networks whole, as in the authors' own code, so memory grows with the longest clip, or with its square if
    the networks have attention over the whole clip.
    """

    #: Class of transformers, and its first version with this class.
    model_class: ClassVar[str]
    since: ClassVar[str] = "5"
    #: Configuration of random weights in each size, where it differs from transformers' default.
    full: ClassVar[Mapping[str, Any]] = {}
    tiny: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def layout(self, config: Any) -> Layout:
        """Layout from the model's configuration."""

    @abstractmethod
    def encode_channel(self, samples: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        """Codes (num_codebooks, frames) of (samples,), with `num_frames` frames."""

    @abstractmethod
    def decode_channel(self, codes: torch.Tensor) -> torch.Tensor:
        """At least the wanted number of samples, (samples,), from codes (num_codebooks, frames)."""

    def num_frames(self, num_samples: int) -> int:
        """Number of frames of a clip that is decoded to this number of samples."""
        hop = self.output_length(self.hop_length)
        return -(-num_samples // hop)

    # ---- of all of them --------------------------------------------------------------------------------

    @property
    def hop_length(self) -> int:
        return self._layout.hop_length

    @classmethod
    def model_kind(cls) -> Any:
        """The model's class."""
        return getattr(transformers, cls.model_class)

    @classmethod
    def cannot_run(cls) -> str | None:
        here = version("transformers")
        if _numbers(here) >= _numbers(cls.since):
            return None
        return (
            f"codec '{cls.name}' needs transformers {cls.since} or newer, {here} is installed: run"
            f" `pip install 'transformers>={cls.since}'`"
        )

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        layout = self._layout
        kilo_frames = channels * layout.sample_rate / layout.hop_length / 1000
        return [
            Rate(bits_per_frame([layout.codebook_size] * n) * kilo_frames, {"num_codebooks": n})
            for n in range(1, layout.num_codebooks + 1)
        ]

    def add(self, label: str, model: Any) -> None:
        self._layout = self.layout(model.config)
        ours = (self.sample_rate, self.output_sample_rate)
        theirs = (self._layout.sample_rate, self._layout.output_sample_rate or self._layout.sample_rate)
        for own, other in zip(ours, theirs, strict=True):
            if own != other:
                raise UserError(
                    f"codec '{self.name}' runs at {own} Hz, the model at {other} Hz; give one of"
                    f" {self.name}'s own"
                )
        self.model = model.eval().to(self.device)

    def load(self, path: Path, *more: Path) -> nn.Module:
        return from_files(self.model_kind(), *self.files(path, *more))

    @classmethod
    def untrained(cls, label: str, size: str) -> nn.Module:
        kind = cls.model_kind()
        model: nn.Module = kind(kind.config_class(**{**cls.full, **(cls.tiny if size == "tiny" else {})}))
        return model

    def encode_clip(self, audio: torch.Tensor, rate: Rate) -> Encoded:
        n = self.num_codebooks(rate, self._layout.num_codebooks)
        codes = torch.stack([self.encode_channel(row, n) for row in audio])
        return self.pack(audio, codes.cpu().numpy(), self._layout.codebook_size)

    def decode_clip(self, clip: Encoded) -> torch.Tensor:
        frames = self.num_frames(clip.num_samples)
        codes, _ = self.unpack(clip, frames, clip.channels, self._layout.codebook_size)
        return torch.stack([self.decode_channel(row)[: clip.num_samples] for row in codes])


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
