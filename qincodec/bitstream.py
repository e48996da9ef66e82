"""The .qnc container: a header, and the codes packed to the bit in blocks with a check sum each.

All numbers are little-endian::

    offset  size  field
    0       4     magic "QNC" and 0x1A
    4       1     version: 1 with packed codes, 2 with entropy-coded ones, of channels each by itself;
                  3 and 4 the same of mid and side (`qincodec.stereo`)
    5       1     channels, 1 to 255
    6       2     N, number of codebooks, 1 or more; of the mid
    8       8     first 8 bytes of the model's hash
    16      4     sample rate of the model, Hz
    20      4     hop length of the model, samples per frame
    24      8     samples per channel at the model's rate, 1 or more
    32      4     sample rate of the source, Hz
    36      8     samples per channel at the source's rate
    44      4 N   size of each codebook
    then, only in versions 3 and 4:
            2     number of codebooks of the side, 0 to N, which are the first of the N; 0: the side is silent
            1     prediction of the side by the mid, -8 to 8 eighths
    then    4     CRC-32 of the header so far
    then, for every 256 frames (fewer in the last block):
            4     bytes of codes, only in versions 2 and 4
                  codes
            4     CRC-32 of header check sum, block number and codes

Packed: a frame of one channel is the codes of its N codebooks, first codebook first, most significant bit
first. Codes of 2^b entries take b bits each. To waste little if a size is not a power of two, as many codes
as fit in 63 bits form one number in mixed radix (first codebook highest), which takes the bits of the product
of their sizes; for powers of two that is the same as one code after the other.
Frames follow each other in time, the channels of a frame within it; only the last byte of the last block
is padded. So the payload is ``ceil(channels * frames * bits_per_frame / 8)`` bytes, which for sizes that
are powers of two is ``ceil(channels * frames * sum(log2(size)) / 8)``. Mid and side are packed as one channel
that has the codebooks of both, those of the mid first.

Entropy-coded: as `qincodec.code_tables` has it, by the tables of the model, where it has some; a block that
would not be shorter so is packed, which shows in its length. Frames that repeat the one before, as in digital
silence, take a bit each. Beyond that, codebooks fitted on much data are used evenly and have little to gain
(perplexities of 926 to 980 of 1024 in the paper are worth 1.5 to 0.6 % of the bits), those of the shipped
weights more, see their model card.

The reader checks every number against the bytes that exist before it uses it, so that a multiple of the
file's size bounds its memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qincodec.audio import resampled_length
from qincodec.code_tables import CodeTables
from qincodec.core.errors import UserError

MAGIC = b"QNC\x1a"
#: Versions.
PACKED, ENTROPY_CODED, PACKED_MID_SIDE, ENTROPY_CODED_MID_SIDE = 1, 2, 3, 4
BLOCK_FRAMES = 256  # a multiple of 8, so that every block but the last fills its bytes
MODEL_ID_BYTES = 8
SAMPLE_RATES = range(1_000, 768_001)  # a bound on what a header can make the reader's caller resample to

#: Stands for the code of a codebook that the side does not have.
NO_CODE = -1
#: Steps of the prediction of the side: it is -8 to 8.
EIGHTHS = 8

_FIXED = struct.Struct("<4sBBH8sIIQIQ")
#: Of `QncHeader`, in the order of `_FIXED`, behind the magic.
_FIELDS = (
    *("version", "channels", "num_codebooks", "model", "sample_rate", "hop_length", "num_samples"),
    *("source_rate", "source_samples"),
)
_SIDE = struct.Struct("<Hb")
_CRC = _LENGTH = struct.Struct("<I")

Codes = NDArray[np.int32]


def code_groups(codebook_sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Which codes of a frame are packed as one number: (first, stop, bits) of each group.

    A group is as long as the product of its sizes fits in 63 bits.
    """
    groups: list[tuple[int, int, int]] = []
    first, product = 0, 1
    for n, size in enumerate(codebook_sizes):
        if product * size > 2**63:
            groups.append((first, n, (product - 1).bit_length()))
            first, product = n, 1
        product *= size
    return [*groups, (first, len(codebook_sizes), (product - 1).bit_length())]


def bits_per_frame(codebook_sizes: Sequence[int]) -> int:
    """Bits that one frame of one channel takes; sum(log2(size)) where all sizes are powers of two."""
    return sum(bits for _, _, bits in code_groups(codebook_sizes))


def payload_bytes(frames: int, channels: int, codebook_sizes: Sequence[int]) -> int:
    """Bytes that `pack_codes` makes of that many frames."""
    return -(-frames * channels * bits_per_frame(codebook_sizes) // 8)


def pack_codes(codes: NDArray[np.integer], codebook_sizes: Sequence[int]) -> bytes:
    """Codes (channels, num_codebooks, frames) to ``ceil(channels * frames * bits_per_frame / 8)`` bytes.

    Raises:
        ValueError: another shape, or codes outside their codebooks.
    """
    sizes = np.asarray(codebook_sizes, dtype=np.int64)
    if codes.ndim != 3 or codes.shape[1] != len(sizes):
        raise ValueError(f"codes must have shape (channels, {len(sizes)}, frames), got {codes.shape}")
    rows = codes.transpose(2, 0, 1).reshape(-1, len(sizes)).astype(np.int64)
    if ((rows < 0) | (rows >= sizes)).any():
        raise ValueError("codes lie outside their codebooks")
    columns = []
    for first, stop, bits in code_groups(codebook_sizes):
        value = np.zeros(len(rows), dtype=np.uint64)
        for n in range(first, stop):
            value = value * np.uint64(sizes[n]) + rows[:, n].astype(np.uint64)
        as_bits = np.unpackbits(value.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
        columns.append(as_bits[:, 64 - bits :])
    return np.packbits(np.concatenate(columns, axis=1)).tobytes()


def unpack_codes(data: bytes, frames: int, channels: int, codebook_sizes: Sequence[int]) -> Codes:
    """Inverse of `pack_codes`: (channels, num_codebooks, frames), int32.

    Raises:
        ValueError: the bytes are too few or too many, or hold codes that do not exist.
    """
    if len(data) != payload_bytes(frames, channels, codebook_sizes):
        raise ValueError(f"{len(data)} bytes do not hold {frames} frames of {channels} channels")
    per_frame = bits_per_frame(codebook_sizes)
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    if bits[frames * channels * per_frame :].any():
        raise ValueError("padding bits are set")
    rows = bits[: frames * channels * per_frame].reshape(-1, per_frame)
    codes = np.empty((len(rows), len(codebook_sizes)), dtype=np.int32)
    at = 0
    for first, stop, width in code_groups(codebook_sizes):
        wide = np.zeros((len(rows), 64), dtype=np.uint8)
        wide[:, 64 - width :] = rows[:, at : at + width]
        value = np.packbits(wide, axis=1).view(">u8")[:, 0].astype(np.uint64)
        for n in range(stop - 1, first - 1, -1):
            value, codes[:, n] = np.divmod(value, np.uint64(codebook_sizes[n]))
        if value.any():
            raise ValueError("codes lie outside their codebooks")
        at += width
    return np.ascontiguousarray(codes.reshape(frames, channels, -1).transpose(1, 2, 0))


class Side(NamedTuple):
    """What a .qnc file says about the second of two channels that are coded as mid and side.

    Attributes:
        num_codebooks: 0 if the side is silent.
        prediction: of the side by the mid, in eighths.
    """

    num_codebooks: int
    prediction: int = 0


def code(
    codes: NDArray[np.integer],
    codebook_sizes: Sequence[int],
    tables: CodeTables | None,
    side_codebooks: int | None = None,
) -> bytes:
    """Codes (channels, num_codebooks, frames), entropy-coded by ``tables``, or packed if that is not longer.

    Args:
        side_codebooks: of codes of mid and side, how many the side has; beyond, its codes are -1.

    Raises:
        ValueError: another shape, or codes outside their codebooks.
    """
    if side_codebooks is not None and (codes[1:, side_codebooks:] != NO_CODE).any():
        raise ValueError(f"the side has codes beyond its {side_codebooks} codebooks")
    if tables is not None:
        counts = _counts(len(codes), len(codebook_sizes), side_codebooks)
        coded = tables.encode(codes[: len(counts)], counts)
        if len(coded) < packed_bytes(codes.shape[2], len(codes), codebook_sizes, side_codebooks):
            return coded
    if side_codebooks is None:
        return pack_codes(codes, codebook_sizes)
    together = np.concatenate([codes[0], codes[1, :side_codebooks]])
    return pack_codes(together[None], [*codebook_sizes, *codebook_sizes[:side_codebooks]])


def decode(
    data: bytes,
    frames: int,
    channels: int,
    codebook_sizes: Sequence[int],
    tables: CodeTables | None,
    side_codebooks: int | None = None,
) -> Codes:
    """Inverse of `code`: (channels, num_codebooks, frames), int32. What is as long as packed codes is packed.

    Raises:
        ValueError: the bytes are not those of that many codes.
    """
    packed = packed_bytes(frames, channels, codebook_sizes, side_codebooks)
    is_packed, n = tables is None or len(data) >= packed, len(codebook_sizes)
    if side_codebooks is None and is_packed:
        return unpack_codes(data, frames, channels, codebook_sizes)
    counts = _counts(channels, n, side_codebooks)
    codes = np.full((channels, n, frames), NO_CODE, dtype=np.int32)
    if is_packed:
        sizes = [*codebook_sizes, *codebook_sizes[:side_codebooks]]
        together = unpack_codes(data, frames, 1, sizes)[0]
        codes[0], codes[1, :side_codebooks] = together[:n], together[n:]
    else:
        assert tables is not None
        codes[: len(counts)] = tables.decode(data, frames, len(counts), n, counts)
    return codes


def _counts(channels: int, num_codebooks: int, side_codebooks: int | None) -> list[int]:
    """Codebooks of every channel that has some."""
    if side_codebooks is None:
        return [num_codebooks] * channels
    return [num_codebooks, side_codebooks] if side_codebooks else [num_codebooks]


def packed_bytes(
    frames: int, channels: int, codebook_sizes: Sequence[int], side_codebooks: int | None = None
) -> int:
    """Bytes that `code` makes without tables."""
    if side_codebooks is None:
        return payload_bytes(frames, channels, codebook_sizes)
    return payload_bytes(frames, 1, [*codebook_sizes, *codebook_sizes[:side_codebooks]])


@dataclass(frozen=True)
class QncHeader:
    """What a .qnc file says about its codes.

    Attributes:
        model: first 8 bytes of the hash of the model whose codes these are.
        sample_rate: of the model, Hz.
        hop_length: of the model, samples per frame.
        num_samples: per channel, at ``sample_rate``.
        source_rate: sample rate of what was encoded, Hz.
        source_samples: its length; resampled to ``sample_rate`` it is ``num_samples``.
        channels: 1 to 255.
        codebook_sizes: entries of each codebook in use.
        version: `PACKED` or `ENTROPY_CODED`, or one of them of mid and side.
        side: of two channels that are coded as mid and side; None where each is coded by itself.
    """

    model: bytes
    sample_rate: int
    hop_length: int
    num_samples: int
    source_rate: int
    source_samples: int
    channels: int
    codebook_sizes: tuple[int, ...]
    version: int = PACKED
    side: Side | None = None

    @property
    def num_frames(self) -> int:
        return -(-self.num_samples // self.hop_length)

    @property
    def num_codebooks(self) -> int:
        return len(self.codebook_sizes)

    @property
    def side_codebooks(self) -> int | None:
        return None if self.side is None else self.side.num_codebooks

    @property
    def is_entropy_coded(self) -> bool:
        return self.version in (ENTROPY_CODED, ENTROPY_CODED_MID_SIDE)

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.sample_rate

    def packed_bytes(self, frames: int) -> int:
        """Bytes of the codes of that many frames where they are packed."""
        return packed_bytes(frames, self.channels, self.codebook_sizes, self.side_codebooks)

    @property
    def overhead_bytes(self) -> int:
        """Bytes of a file other than codes: the header, all check sums, the lengths of the blocks."""
        blocks = -(-self.num_frames // BLOCK_FRAMES)
        of_block = _CRC.size + (_LENGTH.size if self.is_entropy_coded else 0)
        return self.header_bytes + blocks * of_block

    @property
    def header_bytes(self) -> int:
        return _FIXED.size + 4 * self.num_codebooks + (_SIDE.size if self.side else 0) + _CRC.size

    def kbps(self, file_bytes: int) -> float:
        """Measured bitrate of the codes in a file of that many bytes, total over the channels."""
        return 8 * (file_bytes - self.overhead_bytes) / self.duration_s / 1000

    def check(self) -> None:
        """Raises ValueError unless all numbers are possible and fit each other."""
        if self.version not in range(PACKED, ENTROPY_CODED_MID_SIDE + 1):
            raise ValueError(f"version {self.version}")
        if (self.side is not None) != (self.version >= PACKED_MID_SIDE):
            raise ValueError(f"version {self.version} with side {self.side}")
        if self.side is not None and (
            self.channels != 2
            or not 0 <= self.side.num_codebooks <= self.num_codebooks
            or abs(self.side.prediction) > EIGHTHS
        ):
            raise ValueError(f"{self.channels} channels with {self.side}")
        if len(self.model) != MODEL_ID_BYTES or not 1 <= self.channels <= 255:
            raise ValueError(f"{self.channels} channels")
        if not 1 <= self.num_codebooks < 2**16 or not all(2 <= s < 2**31 for s in self.codebook_sizes):
            raise ValueError(f"codebook sizes {self.codebook_sizes[:8]}")
        if self.sample_rate not in SAMPLE_RATES or self.source_rate not in SAMPLE_RATES:
            raise ValueError(f"sample rates {self.sample_rate} and {self.source_rate} Hz")
        if not 1 <= self.hop_length <= 2**16:
            raise ValueError(f"hop length {self.hop_length}")
        if not (1 <= self.num_samples < 2**63 and 1 <= self.source_samples < 2**63):
            raise ValueError(f"{self.num_samples} samples")
        if resampled_length(self.source_samples, self.source_rate, self.sample_rate) != self.num_samples:
            raise ValueError(f"{self.source_samples} samples do not resample to {self.num_samples}")

    def to_bytes(self) -> bytes:
        fixed = _FIXED.pack(MAGIC, *(getattr(self, name) for name in _FIELDS))
        data = fixed + struct.pack(f"<{self.num_codebooks}I", *self.codebook_sizes)
        data += _SIDE.pack(*self.side) if self.side else b""
        return data + _CRC.pack(zlib.crc32(data))


def dumps(header: QncHeader, codes: NDArray[np.integer], tables: CodeTables | None = None) -> bytes:
    """A whole .qnc file.

    Args:
        header: fits the codes.
        codes: (channels, num_codebooks, frames), integers; -1 in codebooks that a side lacks.
        tables: of the model, which a header of a version with entropy-coded codes needs.

    Raises:
        UserError: the source's sample rate cannot be noted.
        ValueError: codes and header do not fit each other.
    """
    if header.source_rate not in SAMPLE_RATES:
        raise UserError(
            f"cannot note a sample rate of {header.source_rate} Hz in a .qnc file: it must be"
            f" {SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]} Hz; resample the audio first"
        )
    header.check()
    if codes.shape != (header.channels, header.num_codebooks, header.num_frames):
        raise ValueError(f"codes of shape {codes.shape} do not fit {header}")
    if (tables is not None) != header.is_entropy_coded:
        raise ValueError(f"version {header.version} and tables {tables} do not fit")
    parts = [header.to_bytes()]
    (seed,) = _CRC.unpack(parts[0][-_CRC.size :])
    for number, start in enumerate(range(0, header.num_frames, BLOCK_FRAMES)):
        block = codes[:, :, start : start + BLOCK_FRAMES]
        coded = code(block, header.codebook_sizes, tables, header.side_codebooks)
        if tables is not None:
            parts.append(_LENGTH.pack(len(coded)))
        parts += [coded, _CRC.pack(_block_crc(coded, number, seed))]
    return b"".join(parts)


def loads_header(data: bytes) -> QncHeader:
    """The header of a .qnc file; the codes behind it may be missing.

    Raises:
        UserError: not a .qnc file, of a newer version, truncated or damaged. The message has no file name.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise UserError("not a .qnc file: it does not begin with the bytes 'QNC'; is it audio to be encoded?")
    if len(data) > len(MAGIC) and data[len(MAGIC)] not in range(PACKED, ENTROPY_CODED_MID_SIDE + 1):
        raise UserError(
            f".qnc file of version {data[len(MAGIC)]}, this program reads versions {PACKED} to"
            f" {ENTROPY_CODED_MID_SIDE}: update qincodec"
        )
    cut_off = UserError(f".qnc file is truncated: {len(data)} bytes end within the header; get a whole copy")
    if len(data) < _FIXED.size:
        raise cut_off
    fields = dict(zip(_FIELDS, _FIXED.unpack_from(data)[1:], strict=True))
    num_codebooks = fields.pop("num_codebooks")
    sizes_end = _FIXED.size + 4 * num_codebooks
    end = sizes_end + (_SIDE.size if fields["version"] >= PACKED_MID_SIDE else 0)
    if len(data) < end + _CRC.size:
        raise cut_off
    if _CRC.unpack_from(data, end)[0] != zlib.crc32(data[:end]):
        raise UserError(".qnc file is damaged: the check sum of its header does not fit; get a whole copy")
    sizes = struct.unpack_from(f"<{num_codebooks}I", data, _FIXED.size)
    side = Side(*_SIDE.unpack_from(data, sizes_end)) if end > sizes_end else None
    header = QncHeader(codebook_sizes=sizes, side=side, **fields)
    try:
        header.check()
    except ValueError as error:
        raise UserError(f".qnc file is damaged: its header makes no sense ({error}); encode again") from error
    return header


def blocks(data: bytes) -> tuple[QncHeader, list[bytes]]:
    """Header and codes of a .qnc file, block by block, as stored; their check sums are verified.

    Raises:
        UserError: as `loads_header`, and for blocks that are missing, damaged, moved, or followed by
            something else. The message has no file name.
    """
    header = loads_header(data)
    found = []
    at = header.header_bytes
    (seed,) = _CRC.unpack_from(data, at - _CRC.size)
    for number, start in enumerate(range(0, header.num_frames, BLOCK_FRAMES)):
        seconds = start * header.hop_length / header.sample_rate
        frames = min(BLOCK_FRAMES, header.num_frames - start)
        if not header.is_entropy_coded:
            size = header.packed_bytes(frames)
        else:
            size = _LENGTH.unpack_from(data, at)[0] if len(data) >= at + _LENGTH.size else len(data)
            at += _LENGTH.size
        stop = at + size
        if len(data) < stop + _CRC.size:
            raise UserError(
                f".qnc file is truncated: its {len(data)} bytes end within the block at {seconds:.2f} s of"
                f" {header.duration_s:.2f} s; get a whole copy"
            )
        if _CRC.unpack_from(data, stop)[0] != _block_crc(data[at:stop], number, seed):
            raise UserError(
                f".qnc file is damaged: the check sum of the block at {seconds:.2f} s does not fit;"
                " get a whole copy"
            )
        found.append(data[at:stop])
        at = stop + _CRC.size
    if len(data) > at:
        raise UserError(f".qnc file is damaged: {len(data) - at} bytes follow its end; get a whole copy")
    return header, found


def loads(data: bytes, tables: CodeTables | None = None) -> tuple[QncHeader, Codes]:
    """Inverse of `dumps`: header and codes (channels, num_codebooks, frames), int32.

    Args:
        tables: of the file's model; files of packed codes need none.

    Raises:
        UserError: as `blocks`, for codes that cannot be, and without the tables that are needed. The message
            has no file name.
    """
    header, found = blocks(data)
    if not header.is_entropy_coded:
        tables = None
    elif tables is None or tables.codebook_sizes[: header.num_codebooks] != header.codebook_sizes:
        raise UserError(
            f".qnc file is entropy-coded by the tables of model {header.model.hex()}, which are not here:"
            " give the model it was encoded with"
        )
    parts = []
    for number, block in enumerate(found):
        start = number * BLOCK_FRAMES
        frames = min(BLOCK_FRAMES, header.num_frames - start)
        try:
            parts.append(
                decode(block, frames, header.channels, header.codebook_sizes, tables, header.side_codebooks)
            )
        except ValueError as error:
            seconds = start * header.hop_length / header.sample_rate
            raise UserError(
                f".qnc file is damaged: the block at {seconds:.2f} s makes no sense ({error}); encode again"
            ) from error
    return header, np.concatenate(parts, axis=2)


def _block_crc(coded: bytes, number: int, seed: int) -> int:
    # Seeded with the header's own, so that a block of another file or place does not pass.
    return zlib.crc32(coded, zlib.crc32(struct.pack("<Q", number), seed))
