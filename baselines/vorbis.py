"""Vorbis, by libvorbis (through libsndfile).

What is counted
---------------
libsndfile writes an Ogg file in memory, which is parsed: the payload is the audio packets, one after the
other. The three header packets (4 kB of code books) and the headers of the pages (positions and packet sizes)
are side information. Vorbis has no encoder delay, and the last page has the end of the audio. Input and
output are floats: samples above full scale are not clipped.
"""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import soundfile

from baselines.codec import ClipCodec, Encoded, Rate, damaged
from qincodec.core.errors import UserError

# libsndfile keeps a block's spectra on the stack: one long block would overflow it.
_BLOCK = 4096


class Vorbis(ClipCodec):
    """Vorbis at 44.1 kHz, by quality 0.0 to 1.0 in steps of 0.1 (oggenc's -q 0 to 10).

    The bitrate is variable and depends on the content far more than with other codecs: clips of noise take
    1.5 times the nominal one, quiet or tonal ones half of it. The nominal bitrates are those that libvorbis
    writes into the file's header for a quality; the measured one counts. The lowest are 48 kbit/s (mono) and
    64 kbit/s (stereo).
    """

    name = "vorbis"
    version = f"libsndfile-{soundfile.__libsndfile_version__}"
    sample_rate = 44100
    channels = (1, 2)

    _nominal_kbps: ClassVar[dict[int, tuple[float, ...]]] = {
        1: (48, 60, 70, 80, 86, 96, 110, 120, 140, 160, 239.92),
        2: (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 499.821),
    }

    @classmethod
    def unavailable(cls, weights: str | None = None) -> str | None:
        if "VORBIS" in soundfile.available_subtypes("OGG"):
            return None
        return (
            f"codec 'vorbis' needs libsndfile with Vorbis, which {soundfile.__libsndfile_version__} here was"
            " built without: install the wheel from PyPI (pip install --force-reinstall soundfile)"
        )

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [Rate(kbps, {"quality": step / 10}) for step, kbps in enumerate(self._nominal_kbps[channels])]

    def rate_at(self, kbps: float, channels: int = 1) -> Rate:
        """Interpolated between two qualities, like libvorbis' own settings."""
        nominal = self._nominal_kbps[channels]
        kbps = min(max(kbps, nominal[0]), nominal[-1])
        steps = np.arange(len(nominal)) / 10
        return Rate(kbps, {"quality": round(float(np.interp(kbps, nominal, steps)), 5)})

    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        channels, num_samples = audio.shape
        quality = rate.settings.get("quality")
        if not (isinstance(quality, int | float) and 0 <= quality <= 1):
            raise UserError(
                f"codec 'vorbis': rate {rate.label} has quality {quality}; take a rate from"
                " nearest_rate(kbps, channels), or give a quality from 0 to 1"
            )
        buffer = io.BytesIO()
        # libsndfile's scale of quality runs the other way.
        how = {"subtype": "VORBIS", "format": "OGG", "compression_level": 1 - quality}
        with soundfile.SoundFile(buffer, "w", self.sample_rate, channels, **how) as file:
            for start in range(0, num_samples, _BLOCK):
                file.write(audio[:, start : start + _BLOCK].T)
        headers, page_heads, payload = _take_apart(buffer.getvalue())
        return Encoded(
            payload=payload,
            sample_rate=self.sample_rate,
            channels=channels,
            num_samples=num_samples,
            side_info={
                "headers": base64.b64encode(headers).decode(),
                "pages": [base64.b64encode(head).decode() for head in page_heads],
            },
        )

    def decode_clip(self, encoded: Encoded) -> np.ndarray:
        file = ogg_file(encoded)
        try:
            audio, _ = soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True)
            if audio.shape != (encoded.num_samples, encoded.channels):
                raise ValueError(f"decodes to {audio.shape[1]} channels of {audio.shape[0]} samples")
        except (soundfile.LibsndfileError, ValueError) as error:
            raise damaged(self.name, error) from error
        return np.ascontiguousarray(audio.T)


def ogg_file(encoded: Encoded) -> bytes:
    """The Ogg file of the clip's payload and side information, for any player."""
    start = 0
    try:
        parts = [base64.b64decode(encoded.side_info["headers"])]
        for text in encoded.side_info["pages"]:
            head = base64.b64decode(text)
            size = _body_size(head)
            parts += [head, encoded.payload[start : start + size]]
            start += size
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(Vorbis.name, error) from error
    if start != len(encoded.payload):
        raise damaged(Vorbis.name, f"{len(encoded.payload)} bytes instead of {start}")
    return b"".join(parts)


def _body_size(head: bytes) -> int:
    """Bytes of a page's body: the sum of its segments, whose sizes follow 27 fixed bytes (RFC 3533, 6)."""
    return sum(head[27:])


def _pages(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Head and body of each page of an Ogg file."""
    start = 0
    while start < len(file):
        body = start + 27 + file[start + 26]
        end = body + _body_size(file[start:body])
        yield file[start:body], file[body:end]
        start = end


def _take_apart(file: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Header pages, heads of the audio pages, and audio packets of a Vorbis file, with serial number 0.

    libsndfile draws the stream's serial number at random, so that encodings would differ.
    """
    headers = b""
    heads: list[bytes] = []
    bodies: list[bytes] = []
    header_packets = 0
    for head, body in _pages(file):
        head = head[:14] + bytes(4) + head[18:22] + bytes(4) + head[26:]
        head = head[:22] + struct.pack("<I", _crc(head + body)) + head[26:]
        if header_packets < 3:
            # A segment shorter than 255 bytes ends a packet. Audio begins on a page of its own.
            header_packets += sum(size < 255 for size in head[27:])
            headers += head + body
        else:
            heads.append(head)
            bodies.append(body)
    return headers, heads, b"".join(bodies)


_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def _crc(data: bytes) -> int:
    """Ogg's CRC-32: polynomial 0x04C11DB7, most significant bit first, no inversions (RFC 3533, 6).

    zlib's is the same polynomial, least significant bit first and inverted at both ends.
    """
    reversed_crc = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_crc:032b}"[::-1], 2)
