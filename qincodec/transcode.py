"""Audio files to .qnc and back, in memory that does not grow with their length (save for the codes).

A file is read, resampled, encoded, decoded and written block by block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch

from qincodec import audio, stereo
from qincodec.audio import Audio, Subtype
from qincodec.bitstream import NO_CODE, QncHeader, dumps
from qincodec.codec import Codebooks, Qincodec
from qincodec.core.console import Progress
from qincodec.core.errors import UserError
from qincodec.core.files import replacing

_BLOCK_S = 10.0

_WAV_LIMIT = 2**32 - 2**16  # a WAV file counts its bytes in 32 bits


@dataclass(frozen=True)
class Written:
    """What `decode_file` wrote.

    Attributes:
        sample_rate: Hz.
        channels: of the file.
        num_samples: per channel.
        clipped: samples beyond full scale that a PCM format cut off.
        peak_dbfs: of the audio before it was cut off.
    """

    sample_rate: int
    channels: int
    num_samples: int
    clipped: int
    peak_dbfs: float


def encode_file(
    codec: Qincodec, path: str | Path, num_codebooks: Codebooks, progress: Progress | None = None
) -> tuple[QncHeader, bytes]:
    """Header and bytes of the .qnc file of an audio file, resampled to the model's rate.

    A stereo file is read twice: what predicts the side, and whether there is any, shows at its end.

    Args:
        path: what `qincodec.audio.read` reads.
        num_codebooks: as `Qincodec.encode` has it.
        progress: called with seconds of audio.

    Raises:
        UserError: as `qincodec.audio.read`, and for a sample rate or a number of channels that a .qnc file
            cannot note.
    """
    header, codes = _encode(codec, path, num_codebooks, progress)
    return header, dumps(header, codes, codec.tables)


def _encode(
    codec: Qincodec, path: str | Path, num_codebooks: Codebooks, progress: Progress | None
) -> tuple[QncHeader, np.ndarray[Any, Any]]:
    """Header and codes (channels, num_codebooks, frames), int32."""
    info = audio.info(path)
    if info.channels > 255:
        raise UserError(f"'{path}' has {info.channels} channels, a .qnc file holds 255 at most: split it")
    prediction = 0
    if info.channels == 2:
        prediction = stereo.best_prediction(map(torch.from_numpy, audio.blocks(path, _BLOCK_S)))
        blocks = map(torch.from_numpy, audio.blocks(path, _BLOCK_S))
        if not any(stereo.to_mid_side(block, prediction)[1].any() for block in blocks):
            num_codebooks = codec.codebooks(num_codebooks, 2)[0], 0
    header = codec.header(
        info.channels, num_codebooks, info.sample_rate, info.num_samples, prediction=prediction
    )
    resampled = resampled_blocks(
        audio.blocks(path, _BLOCK_S),
        info.sample_rate,
        codec.sample_rate,
        info.num_samples,
        header.num_samples,
    )
    # Once for all: results that are kept between the large ones that are not would break up the heap, and
    # memory would grow by a multiple of them.
    codes = np.empty((header.channels, header.num_codebooks, header.num_frames), dtype=np.int32)
    done = 0
    on_device = (torch.from_numpy(block).to(codec.device) for block in resampled)
    for part in codec.encode_blocks(on_device, num_codebooks, prediction):
        codes[:, :, done : done + part.shape[2]] = part.cpu().numpy()
        done += part.shape[2]
        if progress:
            progress("s", round(done / codec.frame_rate), round(header.num_frames / codec.frame_rate))
    return header, codes


def encode_to_rate(
    codec: Qincodec, path: str | Path, kbps: float, progress: Progress | None = None
) -> tuple[QncHeader, bytes]:
    """`encode_file` with the number of codebooks whose file comes nearest to a bitrate, by ratio.

    Entropy-coded files take more or less than `Qincodec.rates` says of the mean, so numbers of codebooks are
    tried, from that of `Qincodec.codebooks_for` on, until those next to each other lie around the bitrate.
    Where a rate is a prefix of a higher one (`Quantizer.prefix_encoded`), the file is encoded once.

    Raises:
        UserError: as `encode_file` and `Qincodec.codebooks_for`.
    """
    channels = audio.info(path).channels
    numbers = [codebooks for codebooks, _ in codec.rates(channels)]
    low, at, high = -1, numbers.index(codec.codebooks_for(kbps, channels)), len(numbers)
    prefixes = codec.quantizer is not None and codec.quantizer.prefix_encoded
    whole = _encode(codec, path, numbers[-1], progress) if prefixes else None
    tried: list[tuple[float, QncHeader, bytes]] = []
    while low < at < high:
        header, codes = whole or _encode(codec, path, numbers[at], progress)
        header, codes = _first_codebooks(header, codes, codec.codebooks(numbers[at], channels))
        data = dumps(header, codes, codec.tables)
        made = header.kbps(len(data))
        tried.append((abs(math.log(made / kbps)), header, data))
        low, high = (at, high) if made < kbps else (low, at)
        at = min(max(round((at + 1) * kbps / made) - 1, low + 1), high - 1)
    _, header, data = min(tried, key=lambda one: one[0])
    return header, data


def _first_codebooks(
    header: QncHeader, codes: np.ndarray[Any, Any], counts: tuple[int, ...]
) -> tuple[QncHeader, np.ndarray[Any, Any]]:
    """Header and codes of no more codebooks than ``counts`` (`Qincodec.codebooks`)."""
    header = replace(header, codebook_sizes=header.codebook_sizes[: counts[0]])
    codes = codes[:, : counts[0]]
    if header.side is not None:
        header = replace(header, side=header.side._replace(num_codebooks=min(counts[1], header.side[0])))
        codes = codes.copy()
        codes[1, header.side_codebooks :] = NO_CODE
    return header, codes


def decode_file(
    codec: Qincodec,
    header: QncHeader,
    codes: np.ndarray[Any, Any],
    path: str | Path,
    *,
    subtype: Subtype = "float32",
    source_rate: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Decode to a .wav or .flac file, which appears complete or not at all.

    Args:
        header, codes: of `qincodec.bitstream.loads`.
        subtype: "float32" (.wav only) keeps every value; "pcm16" and "pcm24" cut off what exceeds [-1, 1].
        source_rate: back to the sample rate and length of what was encoded, instead of the model's rate.

    Raises:
        UserError: codes of another model, a name or subtype that does not fit, a file that cannot be written.
    """
    codec.check_header(header)
    rate = header.source_rate if source_rate else header.sample_rate
    num_samples = header.source_samples if source_rate else header.num_samples
    prediction = None if header.side is None else header.side.prediction
    decoded = codec.decode_blocks(torch.from_numpy(codes).to(codec.device), prediction)
    blocks: Iterable[Audio] = (block.cpu().numpy() for block in decoded)
    blocks = _trim(blocks, header.num_samples)
    blocks = resampled_blocks(blocks, header.sample_rate, rate, header.num_samples, num_samples)
    bits = 32 if subtype == "float32" else int(subtype[3:])
    done = clipped = 0
    peak = np.float32(0)
    with _sound_file(Path(path), rate, header.channels, num_samples, bits) as sound:
        for block in blocks:
            peak = max(peak, np.abs(block).max())
            if bits < 32:
                clipped += int(np.count_nonzero(np.abs(block) > 1))
            try:
                sound.write(block.T if bits == 32 else audio.pcm_steps(block.T, bits))
            except (soundfile.LibsndfileError, AssertionError) as error:  # soundfile asserts what it wrote
                raise UserError(f"cannot write '{path}': {error or 'is the disk full?'}") from error
            done += block.shape[1]
            if progress:
                progress("s", round(done / rate), round(num_samples / rate))
    return Written(rate, header.channels, num_samples, clipped, audio.peak_dbfs(peak))


def resampled_blocks(
    blocks: Iterable[Audio], from_rate: int, to_rate: int, num_samples: int, length: int
) -> Iterator[Audio]:
    """As `qincodec.audio.resample` of the blocks laid end to end, ``length`` samples of them."""
    if from_rate == to_rate:
        yield from blocks
        return
    # Beyond its end a signal is zero; with some of that given, soxr comes to ``length``.
    tail = max(0, -(-length * from_rate // to_rate) - num_samples) + -(-from_rate // to_rate)
    stream: Any = None
    done = taken = 0
    for block in blocks:
        stream = stream or soxr.ResampleStream(from_rate, to_rate, len(block), dtype="float32", quality="VHQ")
        taken += block.shape[1]
        last = taken == num_samples
        if last:
            block = np.pad(block, ((0, 0), (0, tail)))
        result = stream.resample_chunk(np.ascontiguousarray(block.T), last=last)[: length - done]
        done += len(result)
        if len(result):
            yield np.ascontiguousarray(result.T)


def _trim(blocks: Iterable[Audio], num_samples: int) -> Iterator[Audio]:
    left = num_samples
    for block in blocks:
        if left:
            yield block[:, :left]
        left -= min(left, block.shape[1])


@contextmanager
def _sound_file(path: Path, sample_rate: int, channels: int, num_samples: int, bits: int) -> Iterator[Any]:
    """A ``soundfile.SoundFile`` to write blocks to."""
    container = {".wav": "WAV", ".flac": "FLAC"}.get(path.suffix.lower())
    if container is None:
        raise UserError(f"cannot write '{path}': its name must end in .wav or .flac")
    if container == "FLAC" and bits == 32:
        raise UserError(f"cannot write '{path}' as float32: FLAC holds pcm16 or pcm24")
    if container == "WAV" and num_samples * channels * bits // 8 > _WAV_LIMIT:
        raise UserError(f"cannot write '{path}': a WAV file ends at 4 GiB; write .flac")
    subtype = {32: "FLOAT", 16: "PCM_16", 24: "PCM_24"}[bits]
    with replacing(path) as temporary:
        try:
            sound = soundfile.SoundFile(temporary, "w", sample_rate, channels, subtype, format=container)
        except soundfile.LibsndfileError as error:
            raise UserError(
                f"cannot write '{path}': {container} cannot hold {channels} channels at {sample_rate} Hz"
            ) from error
        with sound:
            yield sound
        # libsndfile notes the time of writing in float files; the same codes are to give the same bytes.
        with temporary.open("r+b") as file:
            if (at := file.read(128).find(b"PEAK")) >= 0:
                file.seek(at + 12)
                file.write(bytes(4))
