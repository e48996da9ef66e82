"""Reading, writing, resampling and mixing of audio, for all packages.

Audio is a float32 array of shape ``(channels, samples)``, nominal range [-1, 1], with its sample rate in
Hz beside it. Integer samples are divided by ``2 ** (bits - 1)``, so that full negative scale is -1.0;
float samples are not changed, even above full scale. Nothing is clipped, dithered, normalised, resampled or
mixed without a request. Encoder delay and padding are removed if the file states them.

Errors have the file's name and the reason. They refuse a file that is missing, empty or unreadable, that has
no audio stream, no sample, or a sample that is NaN or infinite. They also refuse a file that is damaged, or
shorter than its header promises. If a format promises nothing (raw AAC, MP3 without a Xing header, output of
a pipe), the existing samples are read. A header with a sample rate outside 4 to 768 kHz, or with a length
that the file is far too small for, is refused before it is used. Silence is audio. All functions may be
called from several threads.
"""

from __future__ import annotations

import io
import math
import operator
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike, NDArray

from qincodec._audio_files import AudioInfo, open_reader
from qincodec.core.errors import UserError
from qincodec.core.files import replacing

__all__ = [
    "EXTENSIONS",
    "AudioInfo",
    "blocks",
    "info",
    "mix",
    "pcm_steps",
    "peak_dbfs",
    "read",
    "resample",
    "resampled_length",
    "write",
]

Audio = NDArray[np.float32]
Subtype = Literal["float32", "pcm16", "pcm24"]
PathLike = str | os.PathLike[str]

#: Lower-case suffixes that count as audio when a folder is scanned. :func:`read` ignores names.
EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("wav", "wave", "w64", "rf64", "flac", "aif", "aiff", "aifc", "caf", "au", "snd"),
        *("ogg", "oga", "opus", "mp3", "mp2", "m4a", "mp4", "aac", "webm", "mka"),
        *("wma", "wv", "ape", "tta", "ac3", "eac3", "amr"),
    )
)


def info(path: PathLike) -> AudioInfo:
    """Sample rate, channels, length and coding of the file ``path``.

    Reads only the header if it states the length, and otherwise decodes the file once (formats of FFmpeg:
    MP3, Opus, AAC, ...). Raises :class:`UserError` if it is not an audio file.

    Examples:
        >>> write("silence.wav", np.zeros((2, 8000)), 8000)
        >>> info("silence.wav").channels
        2
    """
    with open_reader(os.fspath(path)) as reader:
        return reader.info()


def read(path: PathLike, start_s: float = 0.0, duration_s: float | None = None) -> tuple[Audio, int]:
    """The audio of the file ``path``: float32 of shape (channels, samples), and its sample rate in Hz.

    Args:
        path: a file of any format that libsndfile or FFmpeg reads; of several audio streams, FFmpeg's choice.
        start_s: start, in seconds. Reading begins at sample ``floor(start_s * rate + 0.5)``.
        duration_s: length to read, in seconds: ``floor(duration_s * rate + 0.5)`` samples, or fewer if the
            file ends before. ``None``: up to the end.

    A part is bit-identical to the same slice of the whole. Formats that cannot guarantee this are decoded
    from their beginning to the end of the part.

    Raises:
        UserError: the file is not audio, damaged, shorter than its header says, has NaN or infinity among the
            samples read, or ends before ``start_s``.

    Examples:
        >>> write("silence.wav", np.zeros((2, 8000)), 8000)
        >>> samples, sample_rate = read("silence.wav", start_s=0.5)
        >>> samples.shape, sample_rate
        ((2, 4000), 8000)
    """
    name = os.fspath(path)
    if not (math.isfinite(start_s) and start_s >= 0):
        raise UserError(f"cannot read {name!r} from {start_s} s on: give seconds, 0 or more")
    if duration_s is not None and not duration_s > 0:
        raise UserError(f"cannot read {duration_s} s of {name!r}: give more than 0 seconds")
    with open_reader(name) as reader:
        sample_rate = reader.sample_rate
        first = math.floor(start_s * sample_rate + 0.5)
        stop = None
        if duration_s is not None and math.isfinite(duration_s):
            stop = first + math.floor(duration_s * sample_rate + 0.5)
            if stop == first:
                raise UserError(
                    f"cannot read {duration_s:g} s of {name!r}: less than a sample at {sample_rate} Hz"
                )
        audio = reader.read(first, stop)
    if audio.shape[1] == 0:
        raise UserError(f"cannot read {name!r} from {start_s:g} s on: it lasts {info(name).duration_s:g} s")
    if not np.isfinite(audio).all():
        bad = ~np.isfinite(audio)
        at = first + int(bad.any(axis=0).argmax())
        raise UserError(
            f"{name!r} holds {np.count_nonzero(bad)} samples that are NaN or infinite, the first at"
            f" {at / sample_rate:.3f} s (sample {at}); correct it or leave it out"
        )
    return audio, sample_rate


def blocks(path: PathLike, block_s: float = 10.0) -> Iterator[Audio]:
    """The audio of a file in blocks of about ``block_s`` seconds: float32 (channels, samples).

    The concatenated blocks equal the result of `read`. Memory does not grow with the file, and every format
    is decoded once. Raises as `read` does; for samples that are not finite, when their block is reached.

    Examples:
        >>> write("silence.wav", np.zeros((2, 8000)), 8000)
        >>> [block.shape for block in blocks("silence.wav", block_s=0.5)]
        [(2, 4000), (2, 4000)]
    """
    name = os.fspath(path)
    with open_reader(name) as reader:
        for block in reader.blocks(max(1, round(block_s * reader.sample_rate))):
            if not np.isfinite(block).all():
                raise UserError(f"{name!r} holds NaN or infinite samples; correct it or leave it out")
            yield block


def write(path: PathLike, audio: ArrayLike, sample_rate: int, subtype: Subtype = "float32") -> None:
    """Write ``audio`` of shape (channels, samples) to a ``.wav`` or ``.flac`` file.

    The file appears complete or not at all: it is written beside its place and moved there, replacing a file
    of this name. The same audio always gives the same bytes.

    Args:
        path: ends in ``.wav`` or ``.flac``; FLAC takes "pcm16" and "pcm24" only. The folder must exist.
        audio: finite floats; 1-D is mono.
        sample_rate: in Hz.
        subtype: "float32" keeps every value. "pcm16" and "pcm24" round to the nearest of ``2 ** bits``
            steps (+1.0, which has no code, becomes the largest) and refuse audio beyond [-1, 1].

    Raises:
        UserError: audio beyond full scale for PCM, NaN or infinity, another suffix or subtype, a folder
            without write permission, a full disk.

    Examples:
        >>> write("silence.flac", np.zeros((2, 8000)), 8000, "pcm16")
        >>> info("silence.flac").duration_s
        1.0
    """
    name = os.fspath(path)
    samples = np.atleast_2d(np.asarray(audio, dtype=np.float32))
    if samples.ndim != 2 or samples.size == 0:
        raise UserError(f"cannot write {name!r}: audio has shape {samples.shape}, not (channels, samples)")
    if not np.isfinite(samples).all():
        count = np.count_nonzero(~np.isfinite(samples))
        raise UserError(f"cannot write {name!r}: {count} of its samples are NaN or infinite")
    encoded = _encode(name, samples, sample_rate, subtype)
    try:
        with replacing(Path(name)) as temporary:
            temporary.write_bytes(encoded)
    except ValueError as error:  # an impossible file name
        raise UserError(f"cannot write {name!r}: {error}") from error


def pcm_steps(samples: Audio, bits: int) -> NDArray[np.int32]:
    """Samples as integers in the upper ``bits`` bits of 32, those beyond full scale clipped to it.

    Not by libsndfile, which scales by less than it divides by.

    Examples:
        >>> (pcm_steps(np.float32([-1, 0, 0.5, 1]), bits=16) >> 16).tolist()
        [-32768, 0, 16384, 32767]
    """
    full_scale = 2 ** (bits - 1)
    steps = np.rint(samples.astype(np.float64) * full_scale).clip(-full_scale, full_scale - 1)
    return steps.astype(np.int32) << (32 - bits)


def resampled_length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Number of samples after resampling: ``num_samples * to_rate / from_rate`` rounded half up, at least 1.

    Computed in integers, so that it is the same everywhere and for any length.

    Examples:
        >>> resampled_length(44100, 44100, 48000)
        48000
    """
    n = operator.index(num_samples)
    source, target = _rate(from_rate), _rate(to_rate)
    if n < 1:
        raise UserError(f"cannot resample {n} samples: give at least one")
    return max(1, (2 * n * target + source) // (2 * source))


def resample(audio: ArrayLike, from_rate: int, to_rate: int) -> Audio:
    """Resample along the last axis with soxr at very high quality (linear phase, no delay).

    ``audio`` of shape (..., samples) becomes float32 of shape
    ``(..., resampled_length(samples, from_rate, to_rate))``; sample ``k`` of the result lies at the time
    of sample ``k * from_rate / to_rate`` of the input. At equal rates the values are unchanged. The result
    can exceed the input's range, because the input may have peaks between samples.

    Examples:
        >>> resample(np.zeros((2, 44100)), 44100, 16000).shape
        (2, 16000)
    """
    samples = np.asarray(audio, dtype=np.float32)
    length = resampled_length(samples.shape[-1], from_rate, to_rate)
    if from_rate == to_rate:
        return samples
    # soxr assumes zeros beyond a signal's ends. Its result may be a sample too short; appended zeros extend
    # it without changing a value.
    num_samples, num_zeros = samples.shape[-1], -(-from_rate // to_rate)
    columns = np.zeros((num_samples + num_zeros, samples.size // num_samples), dtype=np.float32)
    columns[:num_samples] = samples.reshape(-1, num_samples).T
    result = soxr.resample(columns, from_rate, to_rate, quality="VHQ")[:length]
    return np.ascontiguousarray(result.T).reshape(*samples.shape[:-1], length)


def mix(audio: ArrayLike, channels: int) -> Audio:
    """``audio`` of shape (channels, samples) with ``channels`` channels.

    An equal number leaves them unchanged. Many to one: the mean of all channels (LFE included). One to two:
    duplicated. Others raise :class:`UserError`, because any other matrix is the listener's choice.

    Examples:
        >>> mix([[0, 1], [1, 0]], 1).tolist()
        [[0.5, 0.5]]
    """
    samples = np.asarray(audio, dtype=np.float32)
    if samples.ndim != 2:
        raise ValueError(f"audio has shape {samples.shape}, expected (channels, samples)")
    given = samples.shape[0]
    if channels == given:
        return samples
    if channels == 1:
        return samples.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    if (given, channels) == (1, 2):
        return np.repeat(samples, 2, axis=0)
    raise UserError(
        f"cannot mix {given} channels to {channels}: allowed are the same number, any number to 1 (mean)"
        " and 1 to 2 (duplicated); mix the file beforehand or evaluate in mono"
    )


def peak_dbfs(audio: ArrayLike) -> float:
    """Sample peak in dB relative to full scale (1.0 = 0 dBFS); -inf for silence.

    Examples:
        >>> round(peak_dbfs([0.5, -0.1]), 2)
        -6.02
    """
    peak = float(np.max(np.abs(np.asarray(audio)), initial=0.0))
    return -math.inf if peak == 0 else 20.0 * math.log10(peak)


def _rate(value: int) -> int:
    rate = operator.index(value)
    if rate < 1:
        raise UserError(f"sample rate {rate} Hz: give a positive number")
    return rate


def _encode(name: str, samples: Audio, sample_rate: int, subtype: str) -> memoryview:
    """The bytes of the file."""
    container = {".wav": "WAV", ".flac": "FLAC"}.get(Path(name).suffix.lower())
    if container is None:
        raise UserError(f"cannot write {name!r}: its name must end in .wav or .flac")
    codes = {"float32": "FLOAT", "pcm16": "PCM_16", "pcm24": "PCM_24"}
    if subtype not in codes:
        raise UserError(f"cannot write {name!r} as {subtype!r}: give one of {', '.join(codes)}")
    if container == "FLAC" and subtype == "float32":
        raise UserError(f"cannot write {name!r} as float32: FLAC holds pcm16 or pcm24; use .wav for float32")
    if 4 * samples.size > 2**32 - 2**12:
        raise UserError(f"cannot write {name!r}: it exceeds 4 GiB, the most a WAV file can hold; write parts")
    data: NDArray[Any] = samples
    if subtype != "float32":
        if np.abs(samples).max() > 1.0:
            raise UserError(
                f"cannot write {name!r} as {subtype}: it peaks at {peak_dbfs(samples):+.2f} dBFS and would be"
                " clipped; write float32 (.wav)"
            )
        data = pcm_steps(samples, bits=int(subtype[3:]))
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, data.T, _rate(sample_rate), subtype=codes[subtype], format=container)
    except soundfile.LibsndfileError as error:
        raise UserError(
            f"cannot write {name!r}: {container} cannot hold {len(samples)} channels at {sample_rate} Hz"
        ) from error
    encoded = buffer.getbuffer()
    if subtype == "float32":
        # libsndfile writes the time into the file; the same audio must give the same bytes.
        time_stamp = bytes(encoded[:128]).index(b"PEAK") + 12
        encoded[time_stamp : time_stamp + 4] = bytes(4)
    return encoded
