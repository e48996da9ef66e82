"""Controls, which every table of results needs beside the codecs.

`Reference` returns its input: its scores are the best a metric can give. `Pcm16` rounds to 16 bits with
dither: differences between codecs that are smaller than its own distance mean nothing. Both run at any
assigned sample rate (see `baselines.codec.Codec.sample_rate`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from baselines.codec import ClipCodec, Encoded, Rate
from qincodec.core.errors import UserError


class Reference(ClipCodec):
    """Identity. The payload is the float32 samples, but the only rate has no kbps: it is not a codec."""

    name = "reference"
    version = "1"
    sample_rate = 0
    channels = (1, 2)
    control = True

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [Rate(kbps=None)]

    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        return Encoded(audio.astype("<f4").tobytes(), self.sample_rate, *audio.shape)

    def decode_clip(self, encoded: Encoded) -> np.ndarray:
        return _unpack(encoded, "<f4").astype(np.float32)


class Pcm16(ClipCodec):
    """Rounding to 16 bits with dither, as in a careful export to a 16-bit file.

    y = round(32768 x + d) / 32768, d triangular on (-1, 1) steps (TPDF, the sum of two uniform values; see
    Lipshitz, Wannamaker and Vanderkooy, "Quantization and Dither: A Theoretical Survey", JAES 40(5), 1992):
    the error is then noise of variance 1/4 step squared, -93.3 dB re a full-scale sine, whatever the signal.
    Values beyond 16 bits are clipped to [-1, 1 - 2^-15], in this codec only.

    The dither is seeded with the clip's samples: the same clip always gives the same bytes, alone or in a
    batch. Digital silence becomes dither noise.
    """

    name = "pcm16"
    version = "1"
    sample_rate = 0
    channels = (1, 2)
    control = True

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        if self.sample_rate == 0:
            raise UserError(
                "the bitrate of 'pcm16' depends on the sample rate: assign codec.sample_rate first"
            )
        return [Rate(kbps=16 * self.sample_rate * channels / 1000)]

    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        digest = hashlib.sha256(audio.astype("<f4").tobytes()).digest()
        random = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
        # float64, so that rounding 32768 x + d follows the formula exactly.
        dither = random.random(audio.shape) - random.random(audio.shape)
        steps = np.rint(audio.astype(np.float64) * 32768 + dither)
        payload = np.clip(steps, -32768, 32767).astype("<i2").tobytes()
        return Encoded(payload, self.sample_rate, *audio.shape)

    def decode_clip(self, encoded: Encoded) -> np.ndarray:
        return _unpack(encoded, "<i2").astype(np.float32) / np.float32(32768)


def _unpack(encoded: Encoded, dtype: str) -> np.ndarray:
    expected = encoded.channels * encoded.num_samples * np.dtype(dtype).itemsize
    if len(encoded.payload) != expected:
        raise UserError(
            f"encoded clip is damaged: its payload has {len(encoded.payload)} bytes, its shape needs"
            f" {expected}; delete it and run again"
        )
    return np.frombuffer(encoded.payload, dtype=dtype).reshape(encoded.channels, encoded.num_samples)
