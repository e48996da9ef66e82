"""Headers that say what cannot be, and WAV files whose writer never knew their length."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_files import signal

from qincodec import audio
from qincodec.core.errors import UserError

RATE = 44_100
UNKNOWN = 0xFFFFFFFF
SAMPLES = (signal(1, 20_011) * 32767).astype("<i2")


def wav(path: Path, riff: int, data: int, *, rate: int = RATE, after: bytes = b"", samples=SAMPLES) -> Path:
    """A WAV file of 16 bits with these numbers of bytes in its header, whatever it holds."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + form + struct.pack("<4sI", b"data", data)
    path.write_bytes(head + samples.tobytes() + after)
    return path


@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (0, 0),
        (36, 0),  # an empty file's, written before the first sample
        (UNKNOWN, UNKNOWN),
        (UNKNOWN, 0),
        (0, UNKNOWN),
        (0x7FFFFFFF, 0x7FFFF000),
        (0x7FFFF024, 0x7FFFF000),
    ],
)
def test_a_wav_file_that_does_not_know_its_length_is_read_to_its_end(
    tmp_path: Path, riff: int, data: int
) -> None:
    path = wav(tmp_path / "a.wav", riff, data)
    info = audio.info(path)
    assert (info.num_samples, info.sample_rate, info.channels) == (SAMPLES.size, RATE, 1)
    np.testing.assert_array_equal(audio.read(path)[0], SAMPLES / np.float32(32768))
    np.testing.assert_array_equal(np.concatenate(list(audio.blocks(path, 0.1)), 1), audio.read(path)[0])


class Pipe:
    """What FFmpeg writes to without being able to go back."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += bytes(data)
        return len(data)


def test_what_ffmpeg_wrote_to_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = Pipe()
    with av.open(pipe, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(SAMPLES, format="s16", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert struct.unpack("<I", pipe.data[4:8]) == (UNKNOWN,)
    (tmp_path / "a.wav").write_bytes(pipe.data)
    np.testing.assert_array_equal(audio.read(tmp_path / "a.wav")[0], SAMPLES / np.float32(32768))


def test_an_empty_wav_file_stays_empty(tmp_path: Path) -> None:
    """What follows an empty data chunk of a finished file is not audio."""
    tags = struct.pack("<4sI4s4sI14s", b"LIST", 26, b"INFO", b"ISFT", 14, b"Lavf60.16.100")
    for after in (b"", tags):
        path = wav(tmp_path / "a.wav", 36 + len(after), 0, after=after, samples=SAMPLES[:, :0])
        with pytest.raises(UserError, match=r"holds no audio samples$"):
            audio.info(path)


def test_another_unfinished_file_is_named_for_what_it_is(tmp_path: Path) -> None:
    head = struct.pack(">4sIIIII", b".snd", 24, 0, 3, RATE, 1)
    (tmp_path / "a.au").write_bytes(head + SAMPLES.astype(">i2").tobytes())
    with pytest.raises(UserError, match=r"no audio samples by its header, but 40046 bytes.*pipe"):
        audio.info(tmp_path / "a.au")


@pytest.mark.parametrize("rate", [1, 100, 3_999, 768_001, 2**31 - 1])
@pytest.mark.parametrize("size", [2 * SAMPLES.size, 0], ids=["libsndfile", "FFmpeg"])
def test_a_sample_rate_that_cannot_be_is_refused(tmp_path: Path, rate: int, size: int) -> None:
    path = wav(tmp_path / "a.wav", size and size + 36, size, rate=rate)
    for use in (audio.info, audio.read, lambda path: list(audio.blocks(path))):
        with pytest.raises(UserError, match=f"sample rate of {rate} Hz.* 4000 to 768000 Hz"):
            use(path)


@pytest.mark.parametrize("rate", [4_000, 768_000])
def test_the_lowest_and_the_highest_rate_are_read(tmp_path: Path, rate: int) -> None:
    audio.write(tmp_path / "a.wav", signal(1, 100), rate)
    assert audio.read(tmp_path / "a.wav")[1] == audio.info(tmp_path / "a.wav").sample_rate == rate


def test_the_case_of_one_hertz(shared: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match=r"onehz\.wav' has a sample rate of 1 Hz"):
        audio.info(shared("cases/train-one-hertz/onehz.wav"))


def flac(path: Path, samples: np.ndarray, claimed: int) -> Path:
    """A FLAC file whose header claims a number of samples: 36 bits of its STREAMINFO."""
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    assert (data[21] & 15) << 32 | int.from_bytes(data[22:26], "big") == len(samples)
    data[21] = data[21] & 0xF0 | claimed >> 32
    data[22:26] = (claimed & UNKNOWN).to_bytes(4, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("claimed", "message"),
    [(2**36 - 1, r"too few for the 1558265 s"), (200 * RATE * 60, "is truncated|decoding fails")],
)
def test_a_length_that_the_file_is_too_small_for(tmp_path: Path, claimed: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        audio.info(flac(tmp_path / "a.flac", signal(1, 2 * RATE)[0], claimed))


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
def test_silence_is_small_and_audio(tmp_path: Path, suffix: str) -> None:
    with soundfile.SoundFile(tmp_path / f"a.{suffix}", "w", RATE, 1) as sound:
        for _ in range(600):  # libsndfile's Vorbis writer dies of more at once
            sound.write(np.zeros(RATE, np.float32))
    assert audio.info(tmp_path / f"a.{suffix}").num_samples == 600 * RATE
