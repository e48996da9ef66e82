"""Writing, resampling and mixing, against the libraries, closed forms and the values put in."""

from __future__ import annotations

import math
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from audio_files import FORMATS, signal
from hypothesis import given, settings
from hypothesis import strategies as st

from qincodec import audio
from qincodec.core.errors import UserError


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No library may write to stderr: it belongs to the progress and errors of the commands."""
    yield
    assert capfd.readouterr().err == ""


# ---- writing -------------------------------------------------------------------------------------------


def test_float_above_full_scale_survives(tmp_path: Path) -> None:
    samples = signal()
    samples *= 10 ** (2 / 20) / np.abs(samples).max()
    audio.write(tmp_path / "loud.wav", samples, 44100)
    read, rate = audio.read(tmp_path / "loud.wav")
    np.testing.assert_array_equal(read, samples)
    assert (rate, audio.info(tmp_path / "loud.wav").codec) == (44100, "FLOAT")
    assert audio.peak_dbfs(read) == pytest.approx(2.0, abs=1e-4)
    theirs = soundfile.read(tmp_path / "loud.wav", dtype="float32")[0]
    np.testing.assert_array_equal(theirs.T, samples)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("bits", [16, 24])
def test_pcm_holds_every_code(suffix: str, bits: int, tmp_path: Path) -> None:
    full_scale = 2 ** (bits - 1)
    codes = np.unique(np.linspace(-full_scale, full_scale - 1, 2**16).round().astype(np.int32))
    path = tmp_path / f"codes.{suffix}"
    audio.write(path, codes / full_scale, 44100, "pcm16" if bits == 16 else "pcm24")
    stored = soundfile.read(path, dtype="int32")[0] >> (32 - bits)
    np.testing.assert_array_equal(stored, codes)
    np.testing.assert_array_equal(audio.read(path)[0][0], (codes / full_scale).astype(np.float32))


def test_pcm_rounds_to_the_nearest_code(tmp_path: Path) -> None:
    values = np.array([1.0, -1.0, 0.4 / 32768, 0.6 / 32768, -1.6 / 32768])
    audio.write(tmp_path / "a.wav", values, 8000, "pcm16")
    stored = soundfile.read(tmp_path / "a.wav", dtype="int16")[0]
    assert stored.tolist() == [32767, -32768, 0, 1, -2]


@pytest.mark.parametrize(
    ("name", "samples", "rate", "subtype", "message"),
    [
        ("a.wav", [[1.2, -1.26]], 44100, "pcm16", r"peaks at \+2\.01 dBFS.*float32"),
        ("a.flac", [[-1.0001]], 44100, "pcm24", r"peaks at \+0\.00 dBFS.*float32"),
        ("a.wav", [[0.0, math.nan]], 44100, "float32", "1 of its samples are NaN"),
        ("a.wav", [[math.inf]], 44100, "pcm16", "NaN or infinite"),
        ("a.mp3", [[0.0]], 44100, "float32", r"end in \.wav or \.flac"),
        ("a", [[0.0]], 44100, "float32", r"end in \.wav or \.flac"),
        ("a.flac", [[0.0]], 44100, "float32", "FLAC holds pcm16 or pcm24"),
        ("a.wav", [[0.0]], 44100, "pcm8", "give one of float32, pcm16, pcm24"),
        ("a.wav", [[0.0]], 0, "float32", "positive"),
        ("a.wav", [[]], 44100, "float32", "shape"),
        ("a.wav", [[[0.0]]], 44100, "float32", "shape"),
        ("a.flac", [[0.0]] * 9, 44100, "pcm16", "9 channels"),
        ("no/a.wav", [[0.0]], 44100, "float32", "No such file or directory"),
        ("folder.wav", [[0.0]], 44100, "float32", "directory"),
        ("x" * 300 + ".wav", [[0.0]], 44100, "float32", "too long"),
        ("a\0b.wav", [[0.0]], 44100, "float32", "null byte"),
    ],
)
def test_writing_that_is_refused_leaves_nothing(
    name: str, samples: list[Any], rate: int, subtype: Any, message: str, tmp_path: Path
) -> None:
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(UserError, match=message):
        audio.write(tmp_path / name, np.array(samples), rate, subtype)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder.wav"]


def test_a_failed_write_keeps_the_file_that_was(tmp_path: Path) -> None:
    """A file system that takes only 10 kB stands for a full disk."""
    path = tmp_path / "a.wav"
    audio.write(path, signal(1, 100), 44100)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*a\.wav': File too large"):
            audio.write(path, signal(1, 5000), 44100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode="r", *rest: real_open(Path("/dev/full"), "wb"))
    with pytest.raises(UserError, match="No space left on device"):
        audio.write(tmp_path / "a.wav", signal(), 44100)


def test_written_files_are_plain_files(tmp_path: Path) -> None:
    """The same bytes each time (libsndfile would put the time in), and the usual permissions."""
    mask = os.umask(0o022)
    try:
        audio.write(tmp_path / "a.wav", signal(), 44100)
    finally:
        os.umask(mask)
    content = (tmp_path / "a.wav").read_bytes()
    peak = content.index(b"PEAK")
    assert content[peak + 12 : peak + 16] == bytes(4)
    assert stat.S_IMODE((tmp_path / "a.wav").stat().st_mode) == 0o644
    audio.write(tmp_path / "a.wav", signal()[0], 44100)  # 1-D is mono
    assert audio.info(tmp_path / "a.wav").channels == 1


# ---- resampling, mixing, level -------------------------------------------------------------------------

RATES = st.sampled_from([8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 192000])


@given(st.integers(1, 10**12), st.integers(1, 400_000), st.integers(1, 400_000))
def test_resampled_length_rounds_half_up(n: int, from_rate: int, to_rate: int) -> None:
    exact = Fraction(n * to_rate, from_rate)
    assert audio.resampled_length(n, from_rate, to_rate) == max(1, math.floor(exact + Fraction(1, 2)))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3000), RATES, RATES)
def test_resample_is_soxr_with_a_stated_length(n: int, from_rate: int, to_rate: int) -> None:
    samples = signal(2, n)
    result = audio.resample(samples, from_rate, to_rate)
    assert result.shape == (2, audio.resampled_length(n, from_rate, to_rate))
    assert result.dtype == np.float32 and result.flags.c_contiguous
    theirs = soxr.resample(samples.T, from_rate, to_rate, quality="VHQ").T
    common = min(theirs.shape[1], result.shape[1])
    assert abs(theirs.shape[1] - result.shape[1]) <= 1
    np.testing.assert_allclose(result[:, :common], theirs[:, :common], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(44100, 48000), (48000, 44100), (96000, 16000), (8000, 44100)]
)
def test_resample_gives_the_same_sine(from_rate: int, to_rate: int) -> None:
    """No delay, no change of level, at the times stated."""
    hertz = min(from_rate, to_rate) / 8
    time_in, time_out = np.arange(from_rate) / from_rate, np.arange(to_rate) / to_rate
    result = audio.resample(np.sin(2 * np.pi * hertz * time_in), from_rate, to_rate)
    error = (result - np.sin(2 * np.pi * hertz * time_out))[to_rate // 10 : -to_rate // 10]
    assert np.abs(error).max() < 1e-5


def test_resample_shapes() -> None:
    batch = signal(6, 999).reshape(3, 2, 999)
    result = audio.resample(batch, 44100, 16000)
    assert result.shape == (3, 2, audio.resampled_length(999, 44100, 16000))
    np.testing.assert_array_equal(result[2, 1], audio.resample(batch[2, 1], 44100, 16000))
    assert audio.resample(batch, 44100, 44100) is batch
    assert audio.resample(np.ones((1, 1)), 192000, 8000).shape == (1, 1)


@pytest.mark.parametrize(("n", "from_rate", "to_rate"), [(0, 44100, 48000), (10, 0, 48000), (10, 44100, -1)])
def test_resample_refuses(n: int, from_rate: int, to_rate: int) -> None:
    with pytest.raises(UserError):
        audio.resample(np.zeros((1, n)), from_rate, to_rate)
    with pytest.raises(TypeError):
        audio.resampled_length(10, 44100.5, 48000)  # type: ignore[arg-type]


def test_mix() -> None:
    six = signal(6, 100)
    mono, stereo = six[:1], six[:2]
    for samples in (mono, stereo, six):
        assert audio.mix(samples, len(samples)) is samples
    np.testing.assert_allclose(audio.mix(six, 1)[0], sum(six.astype(np.float64)) / 6, atol=1e-8)
    np.testing.assert_array_equal(audio.mix(np.repeat(mono, 6, axis=0), 1), mono)
    np.testing.assert_array_equal(audio.mix(mono, 2), np.stack([mono[0], mono[0]]))
    assert audio.mix(six, 1).dtype == audio.mix(mono, 2).dtype == np.float32
    for samples, channels in [(six, 2), (stereo, 6), (mono, 3), (stereo, 0), (mono, -1)]:
        with pytest.raises(UserError, match=r"allowed are the same number, any number to 1 .* and 1 to 2"):
            audio.mix(samples, channels)


def test_peak_dbfs() -> None:
    assert audio.peak_dbfs(np.array([[0.5, -1.0]])) == 0.0
    assert audio.peak_dbfs(np.array([[0.1]])) == pytest.approx(-20.0)
    assert audio.peak_dbfs(np.zeros((2, 5))) == -math.inf
    assert math.isnan(audio.peak_dbfs(np.array([math.nan])))


# ---- the module ----------------------------------------------------------------------------------------


def test_many_threads_read_what_one_reads(tmp_path: Path) -> None:
    names = [
        "wav FLOAT",
        "flac PCM_24",
        "ogg VORBIS",
        "mp3 libmp3lame",
        "m4a aac",
        "webm libopus",
        "wv wavpack",
    ]
    paths = [FORMATS[name][0](tmp_path / "clip") for name in names]
    expected = [audio.resample(audio.read(path)[0], 44100, 24000) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda path: audio.resample(audio.read(path)[0], 44100, 24000), paths * 8)
        for index, result in enumerate(results):
            np.testing.assert_array_equal(result, expected[index % len(paths)])
        targets = [tmp_path / f"{index % 4}.wav" for index in range(40)]  # ten writers for each file
        list(pool.map(lambda path: audio.write(path, expected[0], 24000), targets))
    for path in targets[:4]:
        np.testing.assert_array_equal(audio.read(path)[0], expected[0])


def test_extensions_are_lower_case_suffixes() -> None:
    assert {".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".webm", ".aiff"} <= audio.EXTENSIONS
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in audio.EXTENSIONS)


def test_no_torch_is_imported() -> None:
    code = "import sys, qincodec.audio; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
