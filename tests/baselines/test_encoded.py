"""Encoded clips of a run folder, as an editor or damage may leave them."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import numpy as np
import pytest
import torch
from mutations import little_memory, mutated_bytes, mutated_values

from baselines.codec import Codec, Encoded
from baselines.registry import CODECS
from qincodec.core.errors import UserError

HEADER = {
    "sample_rate": 44_100,
    "channels": 1,
    "num_samples": 1000,
    "codes_shape": [2, 3],
    "codebook_sizes": [16, 8],
    "side_info": {"model": "m"},
    "payload_bytes": 4,
}
CODES = np.array([[0, 15, 7], [7, 0, 1]], "<i4")


def clip(header: Any, codes: bytes = CODES.tobytes(), payload: bytes = b"abcd") -> bytes:
    """The bytes of an encoded clip, by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return b"QENC\x01" + struct.pack("<I", len(text)) + text + codes + payload


def test_bytes_by_hand_are_read() -> None:
    found = Encoded.from_bytes(clip(HEADER))
    assert (found.payload, found.sample_rate, found.num_samples) == (b"abcd", 44_100, 1000)
    np.testing.assert_array_equal(found.codes, CODES)
    assert found.codebook_sizes == (16, 8) and found.side_info == {"model": "m"}
    assert Encoded.from_bytes(found.to_bytes()).to_bytes() == clip(HEADER)
    without = Encoded.from_bytes(clip({**HEADER, "codes_shape": None, "codebook_sizes": []}, codes=b""))
    assert without.codes is None and without.payload == b"abcd"


def test_codebooks_of_different_numbers_of_frames() -> None:
    """A row each, one behind the other."""
    rows = (np.array([3, 1]), np.array([0, 15, 7, 2]), np.array([], int))
    data = clip(
        {**HEADER, "codes_shape": [[2], [4], [0]], "codebook_sizes": [4, 16, 2]},
        np.concatenate(rows).astype("<i4").tobytes(),
    )
    found = Encoded.from_bytes(data)
    assert isinstance(found.codes, tuple) and found.frames == 4
    for row, expected in zip(found.codes, rows, strict=True):
        np.testing.assert_array_equal(row, expected)
    assert found.to_bytes() == data
    found.codes = rows
    assert found.to_bytes() == data
    with pytest.raises(UserError, match="codes lie outside their codebooks"):
        Encoded.from_bytes(data.replace(b"[4, 16, 2]", b"[4, 15, 2]"))


@pytest.mark.parametrize("name", list(HEADER))
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"has no '{name}' in its header; delete it and run again"):
        Encoded.from_bytes(clip({key: value for key, value in HEADER.items() if key != name}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_rate": 0}, "sample_rate must be a whole number from 1 to"),
        ({"sample_rate": 44100.0}, "sample_rate must be a whole number"),
        ({"num_samples": 0}, "num_samples must be a whole number from 1 to"),
        ({"channels": "1"}, "channels must be a whole number from 1 to 65536, got '1'"),
        ({"codes_shape": [-2, -3]}, "codes_shape must be a whole number from 0 to"),
        ({"codes_shape": [1 << 39, 1 << 39]}, "truncated"),
        ({"codes_shape": [6]}, r"codes have shape \[6\]"),
        ({"codes_shape": [[6], [1, 2]]}, r"codes have shape \[\[6\], \[1, 2\]\]"),
        ({"codes_shape": [[1 << 39], [1 << 39]]}, "truncated"),
        ({"codes_shape": 6}, "cannot be read"),
        ({"codebook_sizes": [16]}, "codes of 2 codebooks, sizes of 1"),
        ({"codebook_sizes": [16, 7]}, "codes lie outside their codebooks"),
        ({"codebook_sizes": 16}, "cannot be read"),
        ({"side_info": []}, "side_info is not an object"),
        ({"payload_bytes": -4}, "payload_bytes must be a whole number from 0 to"),
        ({"payload_bytes": 5}, "truncated"),
    ],
)
def test_a_value_that_cannot_be_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Encoded.from_bytes(clip({**HEADER, **change}))


@little_memory()
def fuzz(count: int, seed: int) -> None:
    """Read, and decode what is read: audio, or one line."""
    dice = random.Random(seed)
    codecs: list[Codec] = [CODECS.load("qincodec")(weights="untrained:tiny")]
    codecs += [CODECS.load(name)() for name in ("opus", "aac", "vorbis", "pcm16") if name in CODECS]
    seeds: list[tuple[Codec, bytes]] = []
    for codec in codecs:
        codec.sample_rate = codec.sample_rate or 44_100
        sound = 0.1 * torch.randn(1, 1, 900, generator=torch.Generator().manual_seed(0))
        seeds += [(codec, codec.encode(sound, codec.rates()[0])[0].to_bytes())]
    read = 0
    for _ in range(count):
        codec, data = dice.choice(seeds)
        if dice.random() < 0.6:
            (length,) = struct.unpack("<I", data[5:9])
            header = json.dumps(mutated_values(json.loads(data[9 : 9 + length]), dice)).encode()
            data = data[:5] + struct.pack("<I", len(header)) + header + data[9 + length :]
        else:
            data = mutated_bytes(data, dice)
        try:
            encoded = Encoded.from_bytes(data)
            read += 1
            assert encoded.kbps >= 0
            codec.decode([encoded])
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
    assert read > count / 100


def test_mutated_clips_are_decoded_or_refused_in_one_line() -> None:
    fuzz(400, seed=0)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_thousand_mutated_clips() -> None:
    fuzz(10_000, seed=1)
