"""Container and size of files, which browsers show, and padding to equal sizes.

A browser's list of requests shows type and size of every file. The hidden reference has the size of the
reference, and low-passed or coded audio compresses to less. So all files of a trial must have the same type
and size. WAV (RIFF) and FLAC can have padding between header and samples: a ``JUNK`` chunk (Multimedia
Programming Interface and Data Specifications 1.0) and ``PADDING`` blocks (RFC 9639, 8.3).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal

#: Container -> media type; it does not depend on the name of the file or on tables of the system.
MEDIA_TYPES = {"wav": "audio/wav", "flac": "audio/flac"}

#: Error for a page with anchors to make and a file of another type; takes the file's name.
NO_ANCHOR_BESIDE = (
    "anchors are made as WAV or FLAC, and their type would differ from that of '{}': give reference and"
    " stimuli of the page all as WAV or all as FLAC, or make the anchors with `mushra create`"
)

#: Largest FLAC metadata block: its length has 24 bits.
_MAX_BLOCK = 2**24 - 1
_PADDING_BLOCK, _LAST_BLOCK = 1, 0x80
_STREAMINFO_END = 4 + 4 + 34


def container(data: bytes) -> Literal["wav", "flac"] | None:
    """Container by the first bytes of a file; None if it cannot be padded."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE" and _wav_samples(data) is not None:
        return "wav"
    if data[:4] == b"fLaC" and len(data) > _STREAMINFO_END and data[4] & 0x7F == 0:
        return "flac"
    return None


def common_size(sizes: Sequence[int]) -> int:
    """Size in bytes to which files of these sizes can be padded; their own, if they are all equal."""
    largest = max(sizes)
    # Padding has a header (8 bytes in WAV), and a RIFF file has an even length.
    return largest if len(set(sizes)) == 1 else largest + 8 + largest % 2


def padded(data: bytes, size: int) -> bytes:
    """A WAV or FLAC file (see `container`) of ``size`` bytes, a `common_size`, with the same samples."""
    room = size - len(data)
    if room == 0:
        return data
    if data[:4] == b"fLaC":
        return _padded_flac(data, room)
    before = _wav_samples(data)
    assert before is not None
    odd = room % 2  # the last chunk lacked the byte that makes its length even
    junk = b"JUNK" + struct.pack("<I", room - 8 - odd) + bytes(room - 8 - odd)
    (stated,) = struct.unpack("<I", data[4:8])
    # A size that a pipe left open (0 or all ones) stays open.
    riff = stated if stated in (0, 2**32 - 1) else size - 8
    return data[:4] + struct.pack("<I", riff) + data[8:before] + junk + data[before:] + bytes(odd)


def _wav_samples(data: bytes) -> int | None:
    """Position of the ``data`` chunk of a WAV file."""
    at = 12
    while at + 8 <= len(data):
        if data[at : at + 4] == b"data":
            return at
        (length,) = struct.unpack("<I", data[at + 4 : at + 8])
        at += 8 + length + length % 2
    return None


def _padded_flac(data: bytes, room: int) -> bytes:
    first = data[4]
    blocks = b""
    while room:
        # The rest must have room for the header of the next block.
        length = min(room - 4, _MAX_BLOCK)
        if 0 < room - 4 - length < 4:
            length -= 4
        room -= 4 + length
        last = _LAST_BLOCK if first & _LAST_BLOCK and not room else 0
        blocks += bytes([_PADDING_BLOCK | last]) + length.to_bytes(3, "big") + bytes(length)
    return data[:4] + bytes([first & 0x7F]) + data[5:_STREAMINFO_END] + blocks + data[_STREAMINFO_END:]
