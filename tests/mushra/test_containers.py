"""Padding to one size against readers of others: Python's `wave`, libsndfile, FFmpeg."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mushra.containers import common_size, container, padded


def encoded(kind: str, subtype: str, n: int = 4411, level: float = 0.1) -> bytes:
    samples = level * np.random.default_rng(1).standard_normal((n, 1))
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.clip(-1, 1), 44100, format=kind.upper(), subtype=subtype)
    return buffer.getvalue()


def by_ffmpeg(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data)) as file:
        return np.concatenate([frame.to_ndarray().ravel() for frame in file.decode(audio=0)])


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("kind", ["wav", "flac"])
@pytest.mark.parametrize("more", [8, 9, 10, 12, 1000, 2**24 + 3, 2**24 + 5, 2**25 + 7])
def test_padded_files_have_the_size_and_the_same_samples(kind: str, subtype: str, more: int) -> None:
    data = encoded(kind, subtype)
    assert container(data) == kind
    size = len(data) + more + (kind == "wav" and more % 2)
    longer = padded(data, size)
    assert len(longer) == size
    for before, after in (
        (soundfile.read(io.BytesIO(data)), soundfile.read(io.BytesIO(longer))),
        ((by_ffmpeg(data), 0), (by_ffmpeg(longer), 0)),
    ):
        np.testing.assert_array_equal(after[0], before[0])
        assert after[1] == before[1]
    if kind == "wav" and subtype == "PCM_16":
        with wave.open(io.BytesIO(longer)) as file:
            assert file.readframes(10**6) == data[-2 * 4411 :]
    assert padded(longer, size) == longer


def test_common_sizes_can_be_reached_by_all() -> None:
    for kind in ("wav", "flac"):
        files = [encoded(kind, "PCM_16", n) for n in (1, 4410, 4411, 4412)]
        odd = files[1] + b"LIST" + struct.pack("<I", 5) + b"odd..\0"
        assert common_size([len(files[0])] * 3) == len(files[0])
        files += [odd[:-1], odd] if kind == "wav" else []  # also one that lacks its last pad byte
        size = common_size([len(data) for data in files])
        assert {len(padded(data, size)) for data in files} == {size}
        for data in files:
            first, second = (soundfile.read(io.BytesIO(d))[0] for d in (data, padded(data, size)))
            np.testing.assert_array_equal(first, second)


def test_a_wav_file_that_a_pipe_left_open_stays_so() -> None:
    data = bytearray(encoded("wav", "PCM_16"))
    data[4:8] = data[40:44] = b"\xff" * 4
    longer = padded(bytes(data), common_size([len(data), 2 * len(data)]))
    assert longer[4:8] == b"\xff" * 4
    np.testing.assert_array_equal(by_ffmpeg(longer), by_ffmpeg(bytes(data)))


@pytest.mark.parametrize(
    "data", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS" + bytes(60), b"ID3\4" + bytes(60)]
)
def test_what_cannot_be_padded(data: bytes, tmp_path: Path) -> None:
    assert container(data) is None
