"""The interface every codec implements: `Codec`, its operating points (`Rate`), its output (`Encoded`).

Audio is a float32 tensor of shape (batch, channels, samples), nominal range [-1, 1] (values outside are
allowed), at the codec's own ``sample_rate``. Rates are totals over the channels, in kbit/s.
"""

from __future__ import annotations

import json
import math
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from baselines.lazy import Lazy
from qincodec.core.errors import UserError, check_whole

if TYPE_CHECKING:
    import torch
else:
    torch = Lazy("torch")

#: Accepted types of decoded audio.
_AUDIO = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Rate:
    """One operating point of a codec: data, not a class.

    Attributes:
        kbps: nominal bitrate in kbit/s, total over the channels; None where a rate has no meaning.
        settings: values selecting the point (``{"num_codebooks": 9}``); JSON scalars; part of a score's key.

    Examples:
        >>> Rate(7.75, {"num_codebooks": 9}).label
        '7.75'
    """

    kbps: float | None
    settings: Mapping[str, int | float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.kbps is None or isinstance(self.kbps, int | float)):
            object.__setattr__(self, "kbps", float(self.kbps))  # also from NumPy's and torch's numbers

    @property
    def label(self) -> str:
        """The rate in tables and file names: ``"16"``, ``"7.75"``, ``"none"``."""
        return "none" if self.kbps is None else f"{self.kbps:.4g}"


@dataclass
class Encoded:
    """One clip, encoded.

    Attributes:
        payload: the bytes that count for the bitrate.
        sample_rate: of the audio that `Codec.decode` returns, Hz.
        channels: of that audio.
        num_samples: of that audio, per channel.
        codes: (num_codebooks, frames) integers; a tuple of rows, one per codebook, if their numbers of frames
            differ; None for codecs without codebooks.
        codebook_sizes: number of entries of each codebook, one per row of ``codes``.
        side_info: JSON values that a file format would have in its headers (packet sizes, encoder delay);
            needed to decode, not counted.

    Examples:
        >>> clip = Encoded(bytes(2000), sample_rate=8000, channels=1, num_samples=8000)
        >>> clip.kbps
        16.0
        >>> Encoded.from_bytes(clip.to_bytes()) == clip
        True
    """

    payload: bytes
    sample_rate: int
    channels: int
    num_samples: int
    codes: np.ndarray | tuple[np.ndarray, ...] | None = None
    codebook_sizes: tuple[int, ...] = ()
    side_info: dict[str, Any] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.sample_rate

    @property
    def kbps(self) -> float:
        """Measured bitrate: 8 * payload bytes / duration / 1000."""
        return 8 * len(self.payload) / self.duration_s / 1000

    @property
    def frames(self) -> int:
        """Number of frames of the longest codebook; 0 without codes."""
        return 0 if self.codes is None else max((len(row) for row in self.codes), default=0)

    def side_number(self, name: str, least: int, most: int) -> int:
        """A whole number from the side information. Raises UserError, with the range, if it is not one."""
        return check_whole(f"encoded clip: side_info {name}", self.side_info.get(name), least, most)

    def check_codes(self) -> None:
        """Raises ValueError unless every code is below the size of its codebook."""
        if self.codes is None or not self.codebook_sizes:
            return
        if len(self.codebook_sizes) != len(self.codes):
            raise ValueError(f"codes of {len(self.codes)} codebooks, sizes of {len(self.codebook_sizes)}")
        for row, size in zip(self.codes, self.codebook_sizes, strict=True):
            if ((row < 0) | (row >= size)).any():
                raise ValueError("codes lie outside their codebooks")

    _MAGIC: ClassVar[bytes] = b"QENC\x01"

    def to_bytes(self) -> bytes:
        """Serialize for a run folder: magic, header length, JSON header, codes (int32), payload."""
        rows: Sequence[np.ndarray] = [] if self.codes is None else [np.asarray(row) for row in self.codes]
        # same_kind: do not cut off fractions.
        codes = b"".join(row.astype("<i4", "C", "same_kind").tobytes() for row in rows)
        shape: Any = None
        if self.codes is not None:
            shape = [row.shape for row in rows] if isinstance(self.codes, tuple) else np.shape(self.codes)
        header = json.dumps(
            {
                "sample_rate": self.sample_rate,
                "channels": self.channels,
                "num_samples": self.num_samples,
                "codes_shape": shape,
                "codebook_sizes": list(self.codebook_sizes),
                "side_info": self.side_info,
                "payload_bytes": len(self.payload),
            }
        ).encode()
        return self._MAGIC + struct.pack("<I", len(header)) + header + codes + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> Encoded:
        """Inverse of `to_bytes`. Raises UserError if the bytes are truncated or something else."""
        start = len(cls._MAGIC) + 4
        try:
            if data[: len(cls._MAGIC)] != cls._MAGIC:
                raise ValueError("not an encoded clip of this version")
            (length,) = struct.unpack("<I", data[len(cls._MAGIC) : start])
            header = json.loads(data[start : start + length])
            clip = cls(
                payload=b"",
                sample_rate=check_whole("sample_rate", header["sample_rate"], 1, 2**31 - 1),
                channels=check_whole("channels", header["channels"], 1, 2**16),
                num_samples=check_whole("num_samples", header["num_samples"], 1, 2**40),
                codebook_sizes=tuple(
                    check_whole("codebook size", size, 1, 2**31 - 1) for size in header["codebook_sizes"]
                ),
                side_info=header["side_info"],
            )
            if not isinstance(clip.side_info, dict):
                raise ValueError("side_info is not an object")
            codes_at = start + length
            shapes = _shapes(header["codes_shape"])
            payload_at = codes_at + 4 * sum(map(math.prod, shapes))
            if len(data) != payload_at + check_whole("payload_bytes", header["payload_bytes"], 0, 2**40):
                raise ValueError("truncated")
            parts = []
            for shape in shapes:
                part = np.frombuffer(data, dtype="<i4", count=math.prod(shape), offset=codes_at)
                parts.append(part.reshape(shape))
                codes_at += part.nbytes
            if header["codes_shape"] is not None:
                clip.codes = parts[0] if len(shapes[0]) == 2 else tuple(parts)
                clip.check_codes()
        except KeyError as error:
            raise UserError(f"encoded clip has no {error} in its header; delete it and run again") from error
        except (UserError, ValueError, TypeError, RecursionError, struct.error) as error:
            raise UserError(f"encoded clip cannot be read: {error}; delete it and run again") from error
        clip.payload = data[payload_at:]
        return clip


def _shapes(stored: Any) -> list[tuple[int, ...]]:
    """Shapes from ``codes_shape`` in a header: ``[rows, frames]`` of one array, ``[[frames], ...]`` of rows,
    None without codes."""
    if stored is None:
        return []
    ragged = len(stored) > 0 and all(isinstance(row, list) for row in stored)
    shapes = [
        tuple(check_whole("codes_shape", size, 0, 2**40) for size in row)
        for row in (stored if ragged else [stored])
    ]
    if any(len(shape) != (1 if ragged else 2) for shape in shapes):
        raise ValueError(f"codes have shape {stored!r}"[:100] + ", not (codebooks, frames)")
    return shapes


class Codec(ABC):
    """A codec that can be evaluated. A new codec needs a subclass and a registry line (or entry point).

    Attributes:
        name: as typed after ``--codecs``.
        version: of everything that decides the output (library, encoder, format of the payload). Scores are
            stored by it, so change it when the output changes.
        sample_rate: of the audio that `encode` takes, Hz, and that `decode` returns (unless
            `output_sample_rate` differs). The evaluation resamples. 0 means any rate: the caller first
            assigns the rate of its audio to the instance (``codec.sample_rate = 44100``), and nothing is
            resampled.
        channels: channel counts that the codec codes. The evaluation refuses others.
        control: a control (`reference`, `pcm16`) is in the table once, at its own rate, for any ``--kbps``.
        weights_hash: identifies the loaded weights; "" for codecs without.
        of_encoding: entries of `identity` that affect only encoding, not decoding.
        seed: of the noise that a stochastic decoder draws, so that a clip is always decoded to the same
            audio (`seeded`); None if it draws none. Part of `identity`.

    Examples:
        >>> from baselines.registry import CODECS
        >>> codec = CODECS.load("opus")()
        >>> rate = codec.nearest_rate(24)
        >>> (clip,) = codec.encode(torch.zeros(1, 1, 48000), rate)
        >>> rate.label, codec.decode([clip]).shape
        ('24', torch.Size([1, 1, 48000]))
    """

    name: str
    version: str
    sample_rate: int
    channels: tuple[int, ...] = (1,)
    control: bool = False
    weights_hash: str = ""
    of_encoding: tuple[str, ...] = ()
    seed: int | None = None

    def __init__(self, *, device: str | torch.device = "cpu", weights: str | None = None) -> None:
        if weights is not None:
            raise UserError(f"codec '{self.name}' has no weights to load; got {weights}; leave the path out")
        self._device = device

    @cached_property
    def device(self) -> torch.device:
        """Device it computes on."""
        return torch.device(self._device)

    @property
    def output_sample_rate(self) -> int:
        """Sample rate of the audio that `decode` returns, Hz. A codec whose two rates differ sets it as an
        attribute, ``output_sample_rate = 24000``."""
        return self.sample_rate

    def output_length(self, num_samples: int) -> int:
        """Samples that `decode` returns for a clip of ``num_samples``: the same time, rounded up."""
        return -(-num_samples * self.output_sample_rate // self.sample_rate)

    @classmethod
    def unavailable(cls, weights: str | None = None) -> str | None:
        """Why the codec cannot run here and what to do about it, in one line; None if it can. Fast."""
        return None

    @abstractmethod
    def rates(self, channels: int = 1) -> Sequence[Rate]:
        """Operating points for audio with this number of channels, in ascending order of bitrate."""

    def nearest_rate(self, kbps: float, channels: int = 1) -> Rate:
        """The operating point whose nominal bitrate is nearest to ``kbps``, by ratio; the lower at a tie."""
        check_kbps(kbps)
        rates = [rate for rate in self.rates(channels) if rate.kbps is not None]
        if not rates:
            return self.rates(channels)[0]
        return min(rates, key=lambda rate: (abs(math.log((rate.kbps or kbps) / kbps)), rate.kbps))

    def rate_at(self, kbps: float, channels: int = 1) -> Rate | None:
        """The operating point of exactly this nominal bitrate, or the nearest end of the range, of codecs
        whose bitrate can be set freely; None: the codec has only `rates`.

        An evaluation at measured rates asks for bitrates of four significant digits, as in labels.
        """
        return None

    def is_prefix(self, rate: Rate, of: Rate) -> bool:
        """Whether `truncate` turns the result of `encode` at the rate ``of`` into its result at ``rate``.

        This holds for a residual quantizer that chooses one code after the other, without looking ahead. An
        evaluation then encodes once for both. By default each rate is encoded.
        """
        return False

    def truncate(self, encoded: Encoded, rate: Rate) -> Encoded:
        """The bytes of `encode` at ``rate``, cut out of its result at another rate.

        It is called only where `is_prefix` is true, so a codec without prefixes need not have it.
        """
        raise NotImplementedError(f"codec '{self.name}' has is_prefix but no truncate")

    @abstractmethod
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        """Encode (batch, channels, samples) at ``sample_rate``; one `Encoded` per item of the batch, which
        states the rate and number of samples that `decode` returns (`output_length`).

        An item's result must not depend on the other items of the batch.
        """

    @abstractmethod
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        """Decode clips of equal length to (batch, channels, samples), float32, from `Encoded` alone.

        Time-aligned with the input (encoder delay removed) and exactly ``num_samples`` long.
        """

    def check_audio(self, audio: torch.Tensor) -> None:
        """Refuse audio that `encode` cannot take. Adapters call it first.

        Raises:
            UserError: the audio is not float32 of shape (batch, channels, samples), has a channel count that
                the codec does not code, no samples, NaN or infinity, or no sample rate is assigned.
        """
        if self.sample_rate == 0:
            raise UserError(
                f"codec '{self.name}' takes audio of any sample rate: assign codec.sample_rate first"
            )
        if audio.ndim != 3 or audio.dtype != torch.float32:
            raise UserError(
                f"codec '{self.name}' takes float32 of shape (batch, channels, samples); got"
                f" {str(audio.dtype).removeprefix('torch.')} of shape {tuple(audio.shape)}"
            )
        if audio.shape[1] not in self.channels:
            raise UserError(
                f"codec '{self.name}' codes {' or '.join(map(str, self.channels))} channels; got"
                f" {audio.shape[1]}; mix the audio first"
            )
        if audio.shape[2] == 0:
            raise UserError(f"codec '{self.name}' cannot encode a clip without samples; leave it out")
        if not torch.isfinite(audio).all():
            raise UserError(f"codec '{self.name}' cannot encode NaN or infinite samples; correct the audio")

    def identity(self) -> dict[str, Any]:
        """Everything except the rate that decides this codec's output, as canonical JSON values.

        Subclasses with run-time settings (precision, search widths) add them here.
        """
        seed = {} if self.seed is None else {"seed": self.seed}
        return {"name": self.name, "version": self.version, "weights": self.weights_hash, **seed}


class ClipCodec(Codec):
    """A codec without batches: implement `encode_clip` and `decode_clip` on NumPy arrays.

    Examples:
        >>> class Bytes(ClipCodec):
        ...     name, version, sample_rate = "bytes", "1", 8000
        ...     def rates(self, channels=1):
        ...         return [Rate(64 * channels)]
        ...     def encode_clip(self, audio, rate):
        ...         payload = np.round(127 * audio).astype(np.int8).tobytes()
        ...         return Encoded(payload, self.sample_rate, *audio.shape)
        ...     def decode_clip(self, encoded):
        ...         samples = np.frombuffer(encoded.payload, np.int8).reshape(encoded.channels, -1)
        ...         return (samples / 127).astype(np.float32)
        >>> (clip,) = Bytes().encode(torch.zeros(1, 1, 8000), Rate(64))
        >>> clip.kbps, Bytes().decode([clip]).shape
        (64.0, torch.Size([1, 1, 8000]))
    """

    @abstractmethod
    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        """Encode float32 (channels, samples) without changing it."""

    @abstractmethod
    def decode_clip(self, encoded: Encoded) -> np.ndarray:
        """Decode to float32 (channels, samples), time-aligned and exactly ``num_samples`` long."""

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        self.check_audio(audio)
        return [self.encode_clip(clip, rate) for clip in audio.detach().cpu().numpy()]

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        check_batch(encoded)
        decoded = [self.decode_clip(clip) for clip in encoded]
        for samples in decoded:
            check_decoded(self.name, samples, ("channels", "samples"), np.ndarray)
        return torch.from_numpy(np.stack(decoded)).to(self.device)


_drawing = threading.Lock()  # all threads share torch's generator


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Context for a stochastic decoder: torch draws the same noise for each clip, and its generator's state
    is restored afterwards. The noise differs between kinds of devices. None changes nothing.

    Examples:
        >>> def noise():
        ...     with seeded(7, torch.device("cpu")):
        ...         return torch.randn(3)
        >>> torch.equal(noise(), noise())
        True
    """
    if seed is None:
        yield
        return
    kind = "cuda" if device.type == "cpu" else device.type
    with _drawing, torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=kind):
        torch.manual_seed(seed)
        yield


def fewer_codebooks(rate: Rate, of: Rate) -> bool:
    """Whether a rate has fewer codebooks than another (``num_codebooks``) and is otherwise equal."""
    low, high = rate.settings.get("num_codebooks"), of.settings.get("num_codebooks")
    same = {**rate.settings, "num_codebooks": None} == {**of.settings, "num_codebooks": None}
    return isinstance(low, int) and isinstance(high, int) and low < high and same


def first_codebooks(encoded: Encoded, rate: Rate) -> np.ndarray:
    """The codes that a rate keeps (`fewer_codebooks`): (streams, num_codebooks, frames), int32.

    Args:
        encoded: with ``num_codebooks`` in its side information and its codes in order of streams.
    """
    most, keep = encoded.side_number("num_codebooks", 1, 1024), rate.settings["num_codebooks"]
    if (
        not isinstance(encoded.codes, np.ndarray)
        or len(encoded.codes) % most
        or not isinstance(keep, int)
        or keep > most
    ):
        raise UserError(f"encoded clip has no {keep} codebooks to keep; delete it and run again")
    codes = np.asarray(encoded.codes)
    return codes.reshape(-1, most, codes.shape[-1])[:, :keep]


def highest(codec: Codec, rate: Rate, rates: Iterable[Rate]) -> Rate:
    """The highest other rate that ``rate`` is a prefix of, or ``rate``."""
    above = [of for of in rates if (of.kbps or 0) > (rate.kbps or 0) and codec.is_prefix(rate, of)]
    return max(above, key=lambda of: of.kbps or 0, default=rate)


def check_batch(encoded: Sequence[Encoded]) -> None:
    """Refuse clips that cannot be decoded to one tensor: none at all, or of different shapes."""
    shapes = {(clip.channels, clip.num_samples) for clip in encoded}
    if len(shapes) != 1:
        found = ", ".join(f"{channels} x {samples}" for channels, samples in sorted(shapes)) or "none"
        raise UserError(
            f"decode takes clips of one length and channel count, got {found}; decode them one by one"
        )


def check_encoded(name: str, encoded: Any, count: int) -> list[Encoded]:
    """The clips that a codec encoded, checked. Raises UserError if they are not ``count`` valid ones."""
    needed = f"it must be a list of {count} baselines.Encoded whose payload is bytes"
    if not isinstance(encoded, list | tuple) or len(encoded) != count:
        got = f"{len(encoded)} items" if isinstance(encoded, list | tuple) else type(encoded).__name__
        raise UserError(f"codec '{name}': the encoder returned {got}; {needed}")
    for item in encoded:
        if not isinstance(item, Encoded):
            raise UserError(f"codec '{name}': the encoder returned {type(item).__name__}; {needed}")
        if not isinstance(item.payload, bytes | bytearray):
            raise UserError(f"codec '{name}': the payload is {type(item.payload).__name__}; {needed}")
    return list(encoded)


def check_decoded(name: str, decoded: Any, shape: tuple[int | str, ...], kind: type[Any]) -> None:
    """Refuse a decoder's output that is not audio; integers have another full scale.

    Args:
        name: of the codec.
        shape: expected; a name allows any size.
        kind: expected, an array or a tensor.
    """
    got, fits = type(decoded).__name__, False
    if isinstance(decoded, kind):
        dtype, found = str(decoded.dtype).removeprefix("torch."), tuple(decoded.shape)
        fits = dtype in _AUDIO and len(found) == len(shape)
        fits = fits and all(size in (have, str(size)) for size, have in zip(shape, found, strict=True))
        got = f"audio of shape {found}, {dtype}"
    if not fits:
        raise UserError(
            f"codec '{name}': the decoder returned {got}; it must be float32 of shape"
            f" ({', '.join(map(str, shape))}), nominal range [-1, 1]; baselines.check_codec tells what else"
            " is wrong with the codec"
        )


def damaged(codec: str, why: object) -> UserError:
    """The error of an `Encoded` that cannot be decoded."""
    return UserError(f"encoded {codec} clip is damaged: {why}; delete it and run again")


def check_kbps(kbps: float) -> None:
    """Refuse a bitrate that is not a positive number."""
    if not (math.isfinite(kbps) and kbps > 0):
        raise UserError(f"bitrate {kbps} kbit/s: give a positive number")
