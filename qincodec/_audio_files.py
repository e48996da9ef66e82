"""The two libraries that decode audio files for :mod:`qincodec.audio`, behind one interface.

libsndfile reads all formats it knows except MP3, Opus and FLAC streams without a length; FFmpeg (through
PyAV) reads the rest. Both give float32 of shape (channels, samples) from a given sample on; the samples do
not depend on where reading begins. Both refuse a file that is damaged or shorter than its header says.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import av.error
import numpy as np
import soundfile
from av.codec.codec import Properties
from numpy.typing import NDArray

from qincodec.core.errors import UserError

_ADVICE = "get the whole file or leave it out"

#: Hz; other values in a header are mistakes: at 1 Hz, seconds become hours and dominate any sum.
SAMPLE_RATES = range(4_000, 768_001)
#: Least size of any coding, even of silence: 4 bytes for a second.
_LEAST_BYTES_PER_S = 4
#: A file with fewer bits per sample may be silent, or shorter than its header says: its end is searched.
_FEW_BITS = 0.2

# The usual names of codecs that lose information, by libsndfile's names ...
_LOSSY_SUBTYPES = {
    **{"VORBIS": "Vorbis", "MPEG_LAYER_I": "MP1", "MPEG_LAYER_II": "MP2", "ULAW": "mu-law", "ALAW": "A-law"},
    **{"IMA_ADPCM": "IMA ADPCM", "MS_ADPCM": "Microsoft ADPCM", "VOX_ADPCM": "VOX ADPCM"},
    **dict.fromkeys(("NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32"), "NMS ADPCM"),
    **{"G721_32": "G.721", "G723_24": "G.723", "G723_40": "G.723", "GSM610": "GSM 06.10"},
}
# ... and by FFmpeg's, where FFmpeg's display name is not the usual one.
_LOSSY_CODECS = {"ac3": "AC-3", "eac3": "E-AC-3", "dts": "DTS"}


@dataclass(frozen=True)
class AudioInfo:
    """Properties of a file.

    ``num_samples`` is per channel and exactly what :func:`qincodec.audio.read` returns. ``format`` is the
    container and ``codec`` the coding of the samples, named by the library that reads the file. ``lossy`` is
    the usual name of the codec if it discards information (``"Vorbis"``, ``"MP3"``, ``"AAC"``, ``"Opus"``,
    ...), else ``None``: lossy material makes a poor reference.

    Examples:
        >>> from qincodec import audio
        >>> audio.write("silence.wav", np.zeros((2, 8000)), 8000)
        >>> info = audio.info("silence.wav")
        >>> info.sample_rate, info.channels, info.duration_s
        (8000, 2, 1.0)
    """

    sample_rate: int
    channels: int
    num_samples: int
    format: str
    codec: str
    lossy: str | None

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.sample_rate


class Reader(Protocol):
    """An open audio file. Only one of ``info``, ``read`` and ``blocks`` may be called, once."""

    sample_rate: int

    def info(self) -> AudioInfo: ...

    def read(self, first: int, stop: int | None) -> NDArray[np.float32]:
        """Samples ``first`` to ``stop`` (``None``: the end), fewer if the file ends before."""
        ...

    def blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        """All samples in order, about ``size`` at a time."""
        ...


@contextmanager
def open_reader(path: str) -> Iterator[Reader]:
    """Open the file ``path`` with the library that reads it."""
    _check_file(path)
    # By descriptor, because libsndfile takes a name for a hint (".raw", ".vox", "-"); unbuffered, because
    # libsndfile begins at the descriptor's position.
    with Path(path).open("rb", buffering=0) as file:
        sound = _open_sndfile(path, file)
        if sound is not None:
            with sound:
                _check_rate(path, sound.samplerate)
                yield _SndfileReader(path, sound)
            return
    # An absolute name under an explicit protocol: a colon in a name would be taken for one. Only files are
    # allowed: a play list must not make FFmpeg download anything.
    url = "file:" + os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links
    try:
        container = av.open(url, options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"{path!r} is not audio that libsndfile or FFmpeg can read, or is damaged") from error
    with closing(container):
        stream = container.streams.best("audio")
        if stream is None:
            raise UserError(f"{path!r} has no audio stream")
        if stream.codec_context is None:
            raise UserError(f"{path!r} has a coding that FFmpeg does not know, or is damaged")
        reader = _FFmpegReader(path, container, stream)
        _check_rate(path, reader.sample_rate)
        yield reader


def _check_file(path: str) -> None:
    """Refuse a missing, unreadable or empty file, before a library does so in its own words."""
    file = Path(path)
    try:
        if not file.exists():
            raise UserError(f"no such audio file: {path!r}")
        if not file.is_file():
            raise UserError(f"{path!r} is {'a folder' if file.is_dir() else 'a device or pipe'}, not a file")
        with file.open("rb") as stream:
            if not stream.read(1):
                raise UserError(f"{path!r} is empty (0 bytes)")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path!r}: {getattr(error, 'strerror', None) or error}") from error


def _check_rate(path: str, sample_rate: int) -> None:
    """Refuse a sample rate in a header that audio cannot have."""
    if sample_rate not in SAMPLE_RATES:
        raise UserError(
            f"{path!r} has a sample rate of {sample_rate} Hz by its header; audio has {SAMPLE_RATES[0]} to"
            f" {SAMPLE_RATES[-1]} Hz: correct the header or leave the file out"
        )


def _truncated(path: str, promised_s: float, found_s: float) -> UserError:
    if not found_s:
        return UserError(f"{path!r} is truncated: it ends before its first sample; {_ADVICE}")
    return UserError(
        f"{path!r} is truncated: its header promises {promised_s:.3f} s, but it has {found_s:.3f} s; "
        f"{_ADVICE}"
    )


# ---- libsndfile ----------------------------------------------------------------------------------------


def _open_sndfile(path: str, file: Any) -> Any:
    """``soundfile.SoundFile``, or None if FFmpeg has to read the file."""
    head = file.read(2)
    file.seek(0)
    # MP3, with or without an ID3 tag: libsndfile's decoder writes warnings to stderr.
    if head == b"ID" or (head[0] == 0xFF and head[1:] >= b"\xe0"):
        return None
    try:
        sound = soundfile.SoundFile(file.fileno(), closefd=False)
    except soundfile.LibsndfileError:
        return None
    _check_promise(path, sound)
    # In Opus, libsndfile gives other samples if a read begins shortly before the end, and it takes the sample
    # rate of the encoder's input; FFmpeg always takes 48 kHz. And libsndfile gives a FLAC stream of unknown
    # length 2**63 - 1 samples.
    if sound.subtype == "OPUS" or sound.frames >= 2**62:
        sound.close()
        return None
    if sound.frames == 0:
        num_bytes = os.fstat(file.fileno()).st_size
        if _is_unfinished_wav(os.pread(file.fileno(), 8, 0), num_bytes):
            sound.close()
            return None  # FFmpeg reads it to its end
        if num_bytes > 1024:
            raise UserError(
                f"{path!r} has no audio samples by its header, but {num_bytes} bytes: the program that wrote "
                "it, perhaps to a pipe, did not finish the header; write it again, to a file"
            )
        raise UserError(f"{path!r} holds no audio samples")
    return sound


def _is_unfinished_wav(head: bytes, num_bytes: int) -> bool:
    """Whether a WAV file without samples by its header is one whose writer never wrote the sizes.

    Programs that write to a pipe, or die, leave such a file. A truly empty one has its own size.
    """
    size = int.from_bytes(head[4:8], "little")
    return head[:4] == b"RIFF" and num_bytes - (size + 8) not in (0, 1)


def _check_promise(path: str, sound: Any) -> None:
    """libsndfile silently reads fewer samples than the header promises; only its log shows it."""
    log, rate = sound.extra_info, sound.samplerate
    size = re.search(r"^\s*(?:data|SSND|Data Size|riff)\s*:\s*(\d+) \(should be (\d+)\)", log, re.MULTILINE)
    # Programs that write to a pipe write a size near 2**31 or 2**32 for "unknown".
    if size and int(size[2]) < int(size[1]) < 0x7FFF0000:
        raise _truncated(path, sound.frames * int(size[1]) / max(1, int(size[2])) / rate, sound.frames / rate)
    count = re.search(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)", log)
    if count and int(count[1]) < int(count[2]):
        raise _truncated(path, int(count[2]) / rate, int(count[1]) / rate)
    if "Junk after the last page" in log:
        raise UserError(f"{path!r} is truncated or damaged: it does not end with a whole Ogg page; {_ADVICE}")
    if "libogg reports a hole" in log:
        raise UserError(f"{path!r} is damaged: an Ogg page is missing or broken; {_ADVICE}")


class _SndfileReader:
    def __init__(self, path: str, sound: Any) -> None:
        self.sample_rate: int = sound.samplerate
        self._path = path
        self._sound = sound

    def info(self) -> AudioInfo:
        sound = self._sound
        num_bytes = Path(self._path).stat().st_size
        if 8 * num_bytes < _FEW_BITS * sound.frames * sound.channels:
            self._check_length(num_bytes)
        return AudioInfo(
            sample_rate=sound.samplerate,
            channels=sound.channels,
            num_samples=sound.frames,
            format=sound.format,
            codec=sound.subtype,
            lossy=_LOSSY_SUBTYPES.get(sound.subtype),
        )

    def _check_length(self, num_bytes: int) -> None:
        """Check a length that is large for the file: refuse an impossible one, else read the last sample."""
        duration_s = self._sound.frames / self.sample_rate
        if num_bytes < _LEAST_BYTES_PER_S * duration_s:
            raise UserError(
                f"{self._path!r} has {num_bytes} bytes, too few for the {duration_s:.0f} s that its header"
                f" promises; {_ADVICE}"
            )
        self.read(self._sound.frames - 1, None)

    def read(self, first: int, stop: int | None) -> NDArray[np.float32]:
        sound = self._sound
        stop = sound.frames if stop is None else min(stop, sound.frames)
        first = min(first, stop)
        try:
            position = self._go_to(first)
            audio = sound.read(stop - first, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UserError(f"{self._path!r} is damaged or truncated: decoding fails; {_ADVICE}") from error
        except (MemoryError, ValueError) as error:
            raise UserError(
                f"{self._path!r} does not fit into memory: its header says {sound.frames} samples"
            ) from error
        if sound.format == "OGG":
            _check_promise(self._path, sound)  # a broken page shows after it was read
        if position + len(audio) < stop:
            found = position + len(audio)
            raise _truncated(self._path, sound.frames / self.sample_rate, found / self.sample_rate)
        return np.ascontiguousarray(audio.T)

    def blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        for first in range(0, self._sound.frames, size):
            yield self.read(first, first + size)  # continues from its position

    def _go_to(self, first: int) -> int:
        sound = self._sound
        # Seeking in Vorbis is up to hundreds of samples off if a file's granule positions are inexact, and
        # the state of an ADPCM decoder depends on all earlier samples.
        if sound.format != "OGG" and sound.subtype.startswith(("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")):
            return int(sound.seek(first))
        if sound.tell() == first:
            return first
        position = 0
        while position < first:
            skipped = len(sound.read(min(first - position, 2**16), dtype="float32", always_2d=True))
            if not skipped:
                break
            position += skipped
        return position


# ---- FFmpeg --------------------------------------------------------------------------------------------


class _FFmpegReader:
    """Always decodes from the beginning, because FFmpeg's seeking is not exact.

    Frames are joined if timestamps leave gaps.
    """

    def __init__(self, path: str, container: Any, stream: Any) -> None:
        self._path = path
        self._container = container
        self._stream = stream
        self._decoder = stream.codec_context
        if self._lossy() is None:
            # Wrong check sums are errors; by default FFmpeg only logs them.
            self._decoder.options = {"err_detect": "crccheck+explode"}
        elif self._decoder.codec.canonical_name == "opus":
            # The reference decoder. FFmpeg's own differs in SILK, that is at low rates, by up to -20 dB of
            # the signal.
            self._decoder = av.CodecContext.create("libopus", "r")
            self._decoder.extradata = stream.codec_context.extradata
            self._decoder.options = {"request_sample_fmt": "flt"}
        self._decoded = self._frames()
        # The decoder is more reliable than the header, which may have half the rate (HE-AAC).
        self._first: Any = next(self._decoded, None)
        if self._first is None:
            raise UserError(f"{path!r} holds no audio samples")
        self.sample_rate: int = self._first.sample_rate
        self._channels: int = self._first.layout.nb_channels

    def info(self) -> AudioInfo:
        return AudioInfo(
            sample_rate=self.sample_rate,
            channels=self._channels,
            num_samples=sum(block.shape[1] for block in self._blocks()),
            format=self._container.format.name,
            codec=self._stream.codec_context.codec.canonical_name,
            lossy=self._lossy(),
        )

    def read(self, first: int, stop: int | None) -> NDArray[np.float32]:
        stop = sys.maxsize if stop is None else stop
        parts = [np.empty((self._channels, 0), dtype=np.float32)]
        position = 0
        for block in self._blocks():
            parts.append(block[:, max(0, first - position) : max(0, stop - position)])
            position += block.shape[1]
            if position >= stop:
                break
        return np.concatenate(parts, axis=1)

    def blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        parts, held = [], 0
        for block in self._blocks():
            parts.append(block)
            held += block.shape[1]
            if held >= size:
                yield np.concatenate(parts, axis=1)
                parts, held = [], 0
        if parts:
            yield np.concatenate(parts, axis=1)

    def _lossy(self) -> str | None:
        codec = self._stream.codec_context.codec
        properties = Properties(codec.properties)
        # FFmpeg marks codecs that can be either as both: WavPack (seldom lossy) and DTS (seldom lossless).
        seldom_lossless = codec.canonical_name == "dts" and "MA" not in str(self._stream.profile)
        if properties & Properties.LOSSLESS and not seldom_lossless:
            return None
        if not properties & Properties.LOSSY:
            return None
        return _LOSSY_CODECS.get(codec.canonical_name) or str(codec.long_name).split(" (")[0]

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        held, num_samples = self._first, 0
        for frame in self._decoded:
            if (frame.sample_rate, frame.layout.nb_channels) != (self.sample_rate, self._channels):
                raise UserError(f"{self._path!r} changes its sample rate or channels midway; split it there")
            num_samples += held.samples
            yield _to_float32(self._path, held)
            held = frame
        length = held.samples
        if self._container.format.name.startswith("mov") and held.duration:
            # FFmpeg keeps the padding in the last AAC frame, although MP4 states the frame's length.
            length = min(length, round(held.duration * held.time_base * self.sample_rate))
        found_s = (num_samples + length) / self.sample_rate
        promised_s = self._promised_s()
        # Headers may count encoder delay and padding, which are not decoded: in HE-AAC, which has the
        # most, some 5,000 samples.
        if promised_s is not None and found_s < promised_s - 5200 / self.sample_rate:
            raise _truncated(self._path, promised_s, found_s)
        yield _to_float32(self._path, held)[:, :length]

    def _frames(self) -> Iterator[Any]:
        """Decoded frames with samples; a packet that cannot be decoded is an error."""
        # Tags and padding may follow the last frame of these; data after the last frame are not audio.
        may_trail = self._container.format.name in ("mp3", "aac")
        failure: Exception | None = None
        seconds = Fraction(0)
        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = [frame for frame in self._decoder.decode(packet) if frame.samples]
                except av.error.InvalidDataError as error:
                    if not may_trail:
                        raise
                    failure = failure or error
                    continue
                if failure and frames:
                    raise failure
                for frame in frames:
                    seconds += Fraction(frame.samples, frame.sample_rate)
                    yield frame
        except av.error.FFmpegError as error:
            raise UserError(
                f"{self._path!r} is damaged or truncated: decoding fails after {float(seconds):.3f} s;"
                f" {_ADVICE}"
            ) from error

    def _promised_s(self) -> float | None:
        """Duration in seconds in the header, None if FFmpeg only has an estimate."""
        container, stream = self._container, self._stream
        if container.format.name == "mp3":
            num_frames = _mp3_frame_count(self._path)
            return num_frames and num_frames * (1152 if self.sample_rate >= 32000 else 576) / self.sample_rate
        if container.format.name in ("aac", "ac3", "eac3", "amr", "mpegts"):
            return None
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        if container.duration is not None and len(container.streams) == 1:
            return float(container.duration - max(0, container.start_time or 0)) / av.time_base
        return None


def _mp3_frame_count(path: str) -> int | None:
    """Number of frames stated in the header that most encoders write into a first, silent frame."""
    with Path(path).open("rb") as file:
        head = file.read(10)
        # An ID3 tag's length is in four bytes of seven bits.
        tag = sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        file.seek(10 + tag if head[:3] == b"ID3" else 0)
        found = re.search(
            rb"(?:Xing|Info)...[\x01\x03\x05\x07\x09\x0b\x0d\x0f](.{4})", file.read(64), re.DOTALL
        )
    return int.from_bytes(found[1], "big") if found else None


def _to_float32(path: str, frame: Any) -> NDArray[np.float32]:
    try:
        samples = frame.to_ndarray()
    except ValueError as error:
        raise UserError(
            f"{path!r} holds samples of type {frame.format.name}, which PyAV does not read; convert it to "
            "float32"
        ) from error
    if frame.format.is_packed:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # gives infinity, which the caller refuses
            return samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return samples.astype(np.float32) / np.float32(128) - np.float32(1)
    return samples.astype(np.float32) * np.float32(2.0 ** (1 - 8 * samples.dtype.itemsize))
