"""Base classes of codecs with a pretrained network: selection of weights, and stored form of a clip.

Weights of such a codec, as typed after its name or ``--weights NAME=``:

- nothing: the released files, see `baselines.weights`;
- the label of a released model (``dac:16kbps``), if there are several;
- the path of a file in its authors' format, or of a folder as transformers writes it;
- ``untrained`` or ``untrained:tiny``: random weights, which are part of the version in the keys of scores.

Files are read by `baselines.tensors`.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import baselines.weights
from baselines.codec import (
    Codec,
    Encoded,
    Rate,
    check_batch,
    damaged,
    fewer_codebooks,
    first_codebooks,
    seeded,
)
from baselines.lazy import Lazy
from baselines.tensors import FOLDER
from qincodec.bitstream import pack_codes, payload_bytes, unpack_codes
from qincodec.core.errors import Unavailable, UserError, shown
from qincodec.model_folder import model_hash

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch, nn = Lazy("torch"), Lazy("torch.nn")

UNTRAINED = "untrained"
#: Sizes of random weights. "full" is the released architecture, "tiny" one for tests.
SIZES = ("full", "tiny")


class PretrainedCodec(Codec):
    """Base of codecs whose payload is the packed codes of a network's residual quantizer.

    Clips are coded one by one, so that a clip's codes do not depend on its batch.

    Examples:
        >>> class Blocks(PretrainedCodec):
        ...     name, sample_rate, released = "blocks", 16000, {"1.0": "blocks"}
        ...
        ...     @classmethod
        ...     def untrained(cls, label, size):
        ...         return torch.nn.Embedding(256, 8)
        ...
        ...     def load(self, path): ...
        ...
        ...     def add(self, label, model):
        ...         self.blocks = model.weight
        ...
        ...     def rates(self, channels=1):
        ...         return [Rate(16 * channels, {"num_codebooks": 1})]
        ...
        ...     def encode_clip(self, audio, rate): ...
        ...
        ...     def decode_clip(self, clip): ...
        >>> Blocks(weights="untrained").identity()["version"]
        '1-untrained'
    """

    channels = (1, 2)
    version = "1"
    #: Label of each released model -> name or names of its files in `baselines.weights`.
    released: ClassVar[Mapping[str, str | tuple[str, ...]]] = {}
    #: File names of a folder with a model.
    folder: ClassVar[tuple[str, ...]] = FOLDER
    #: Gain of random weights, see `randomize`.
    gain: ClassVar[float] = 1.0

    def __init__(self, *, device: str | torch.device = "cpu", weights: str | None = None) -> None:
        super().__init__(device=device)
        if reason := self.cannot_run():
            raise Unavailable(reason)
        size = _untrained_size(self.name, weights)
        self.version = self.version if size is None else f"{self.version}-untrained"
        hashes = []
        if size is not None:
            for label in self.released:
                model = randomize(self.untrained(label, size), self.gain)
                self.add(label, model)
                hashes.append(model_hash({}, dict(model.state_dict()))[:16])
        else:
            for label, paths in self._sources(weights, baselines.weights.obtain).items():
                self.add(label, self.load(*paths))
                hashes.append(self._hash(paths)[:16])
        self.weights_hash = "-".join(hashes)

    @classmethod
    def missing(cls, weights: str | None = None) -> list[str]:
        """Names of released files that are needed and missing in the cache.

        Raises:
            UserError: ``weights`` is invalid, or a cached file is not the expected one.
        """
        if _untrained_size(cls.name, weights) is not None or cls.cannot_run():
            return []
        absent: dict[str, None] = {}

        def find(name: str) -> Path:
            found = baselines.weights.find(name)
            if found is None:
                absent[name] = None
            return found or Path()

        cls._sources(weights, find)
        return list(absent)

    @classmethod
    def cannot_run(cls) -> str | None:
        """Why it cannot run here with any weights, in one line, for example a missing package."""
        return None

    @classmethod
    def unavailable(cls, weights: str | None = None) -> str | None:
        if reason := cls.cannot_run():
            return reason
        try:
            missing = cls.missing(weights)
        except UserError as error:
            return str(error)
        if not missing:
            return None
        alone = cls.works_alone(weights)
        return baselines.weights.why_unavailable(*missing) + (
            f"; {alone} is here and works alone" if alone else ""
        )

    @classmethod
    def works_alone(cls, weights: str | None = None) -> str | None:
        """The first released model that is here, as typed after ``--codecs``, if others are missing."""
        if weights is not None:
            return None
        missing = cls.missing()
        here = [label for label in cls.released if not {*cls._names(label)} & {*missing}]
        return f"{cls.name}:{here[0]}" if here and missing else None

    @classmethod
    def _names(cls, label: str) -> tuple[str, ...]:
        """Names of the files of a released model."""
        names = cls.released[label]
        return (names,) if isinstance(names, str) else names

    @classmethod
    def _sources(cls, given: str | None, get: Callable[[str], Path]) -> dict[str, tuple[Path, ...]]:
        """Label and paths of each model; the label is "" for a user's path."""
        if given is None or given in cls.released:
            labels = cls.released if given is None else [given]
            return {label: tuple(map(get, cls._names(label))) for label in labels}
        path = Path(given).expanduser()
        if not path.exists():
            ours = ", ".join(cls.released)
            raise UserError(
                f"codec '{cls.name}': there is no '{given}'; give the path of a weights file, {ours},"
                f" or {UNTRAINED} for random weights"
            )
        return {"": (path,)}

    @classmethod
    def _hash(cls, paths: Sequence[Path]) -> str:
        """SHA-256 of a model's file, or of the hashes of its files: 64 hexadecimal digits."""
        if len(paths) == 1 and paths[0].is_dir():
            paths = [paths[0] / name for name in cls.folder]
        found = [baselines.weights.sha256(path) for path in paths]
        return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()

    @abstractmethod
    def add(self, label: str, model: nn.Module) -> None:
        """Use a model under its label."""

    @abstractmethod
    def load(self, path: Path, *more: Path) -> nn.Module:
        """The model in a file or folder, or in the files of a released model, in the order of `released`.
        Raises UserError if it is not a model of this codec."""

    def files(self, path: Path, *more: Path) -> list[Path]:
        """The paths given to `load`, if they are a model's files or a folder with them."""
        if more:
            return [path, *more]
        files = [path / name for name in self.folder]
        for file in files:
            if not file.is_file():
                needed = " and ".join(self.folder)
                raise UserError(f"codec '{self.name}': there is no '{file}'; give a folder with {needed}")
        return files

    @classmethod
    @abstractmethod
    def untrained(cls, label: str, size: str) -> nn.Module:
        """A model of ``size``; its weights are not drawn yet."""

    # ---- what is stored --------------------------------------------------------------------------------

    def num_codebooks(self, rate: Rate, most: int) -> int:
        n = rate.settings.get("num_codebooks")
        if not (isinstance(n, int) and 1 <= n <= most):
            raise UserError(
                f"codec '{self.name}': rate {rate.label} needs {n} codebooks, but the model has {most}; take "
                "a rate from"
                " nearest_rate(kbps, channels)"
            )
        return n

    def pack(
        self, audio: torch.Tensor, codes: np.ndarray, codebook_size: int, extra: bytes = b"", **side: Any
    ) -> Encoded:
        """A clip of audio (channels, samples), as given, with codes (streams, num_codebooks, frames).

        A stream is a channel, or all of them together. ``extra`` are bytes of the payload after the codes.
        """
        sizes = (codebook_size,) * codes.shape[1]
        return Encoded(
            pack_codes(codes, sizes) + extra,
            self.output_sample_rate,
            audio.shape[0],
            self.output_length(audio.shape[1]),
            codes=codes.reshape(-1, codes.shape[-1]).astype(np.int32),
            codebook_sizes=sizes * codes.shape[0],
            side_info={"weights": self.weights_hash, "num_codebooks": int(codes.shape[1]), **side},
        )

    def is_prefix(self, rate: Rate, of: Rate) -> bool:
        return fewer_codebooks(rate, of)

    def truncate(self, encoded: Encoded, rate: Rate) -> Encoded:
        codes = first_codebooks(encoded, rate)
        streams, n, frames = codes.shape
        most = len(encoded.codebook_sizes) // streams
        extra = encoded.payload[payload_bytes(frames, streams, encoded.codebook_sizes[:most]) :]
        sizes = encoded.codebook_sizes[:n]
        return replace(
            encoded,
            payload=pack_codes(codes, sizes) + extra,
            codes=codes.reshape(-1, frames),
            codebook_sizes=sizes * streams,
            side_info={**encoded.side_info, "num_codebooks": n},
        )

    def unpack(
        self, clip: Encoded, frames: int, streams: int, codebook_size: int, extra: int = 0
    ) -> tuple[torch.Tensor, bytes]:
        """Codes (streams, num_codebooks, frames) and the ``extra`` bytes after them."""
        if clip.side_info.get("weights") != self.weights_hash:
            raise UserError(
                f"clip was encoded with {self.name} weights {shown(clip.side_info.get('weights'))}, the"
                f" loaded ones are {self.weights_hash}: give the weights it was encoded with"
            )
        sizes = (codebook_size,) * clip.side_number("num_codebooks", 1, 1024)
        end = payload_bytes(frames, streams, sizes)
        try:
            if len(clip.payload) != end + extra:
                raise ValueError(f"{len(clip.payload)} bytes instead of {end + extra}")
            codes = unpack_codes(clip.payload[:end], frames, streams, sizes)
        except ValueError as error:
            raise damaged(self.name, error) from error
        return torch.from_numpy(codes).long().to(self.device), clip.payload[end:]

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        check_batch(encoded)
        with torch.inference_mode():
            return torch.stack([self._seeded(clip) for clip in encoded])

    def _seeded(self, clip: Encoded) -> torch.Tensor:
        with seeded(self.seed, self.device):
            return self.decode_clip(clip)

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        self.check_audio(audio)
        with torch.inference_mode():
            return [self.encode_clip(clip, rate) for clip in audio.to(self.device)]

    @abstractmethod
    def encode_clip(self, audio: torch.Tensor, rate: Rate) -> Encoded:
        """Encode float32 (channels, samples)."""

    @abstractmethod
    def decode_clip(self, clip: Encoded) -> torch.Tensor:
        """Decode to float32 (channels, num_samples)."""


def _untrained_size(name: str, given: str | None) -> str | None:
    """The size of random weights that ``given`` selects; None if it selects others."""
    if given is None or given.partition(":")[0] != UNTRAINED:
        return None
    size = given.partition(":")[2] or SIZES[0]
    if size not in SIZES:
        known = " and ".join(f"{UNTRAINED}:{size}" for size in SIZES)
        raise UserError(f"codec '{name}': unknown random weights '{given}'; allowed are {known}")
    return size


# ---- long clips ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Frames ``first`` to ``stop`` are computed; ``keep_from`` to ``keep_to`` of them are kept."""

    first: int
    stop: int
    keep_from: int
    keep_to: int


def blocks(frames: int, size: int, before: int, after: int | None = None) -> Iterator[Block]:
    """Blocks of ``size`` frames, with context on both sides within the clip.

    Args:
        frames: of the clip.
        before, after: frames of context; ``after`` equals ``before`` by default.
    """
    for start in range(0, frames, size):
        end = min(start + size, frames)
        first, stop = max(0, start - before), min(end + (before if after is None else after), frames)
        yield Block(first, stop, start - first, end - first)


# ---- random weights ------------------------------------------------------------------------------------


def randomize(model: nn.Module, gain: float) -> nn.Module:
    """Draw all weights, the same every time: standard deviation ``gain / sqrt(inputs)``.

    With a suitable ``gain`` for the activations, signals neither fade nor grow much. The libraries' own
    initial values are for training: EnCodec's codebooks are all zero, and DAC's convolutions suppress almost
    everything.
    """
    for name, tensor in model.state_dict().items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        if not tensor.is_floating_point():
            continue
        if name.endswith("embed") or "codebook.weight" in name or name.endswith("embed_sum"):
            tensor.normal_(generator=generator)
        elif name.endswith(
            ("alpha", "norm.weight", "layernorm.weight", "scale", "cluster_usage", "initialized")
        ):
            tensor.fill_(1)
        elif tensor.ndim >= 2:
            fan_in = math.prod(tensor.shape[1:])
            tensor.normal_(std=gain * fan_in**-0.5, generator=generator)
        else:
            tensor.zero_()
    return model
