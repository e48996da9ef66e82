"""Reading, and what is refused, against the libraries and the values put in."""

from __future__ import annotations

import math
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from audio_files import FORMATS, NUM_SAMPLES, encode, signal

from qincodec import audio
from qincodec.core.errors import UserError


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No library may write to stderr: it belongs to the progress and errors of the commands."""
    yield
    assert capfd.readouterr().err == ""


# ---- reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_info_and_parts_agree_with_the_whole(name: str, tmp_path: Path) -> None:
    make, lossy, keeps_length = FORMATS[name]
    path = make(tmp_path / "clip")
    info = audio.info(path)
    whole, rate = audio.read(path)
    assert whole.dtype == np.float32 and whole.flags.c_contiguous
    assert (info.sample_rate, info.channels, info.num_samples) == (rate, *whole.shape)
    assert info.duration_s == whole.shape[1] / rate
    assert info.lossy == lossy
    assert whole.shape[0] == 2
    if keeps_length:
        assert whole.shape[1] == NUM_SAMPLES
    else:
        assert NUM_SAMPLES <= whole.shape[1] < NUM_SAMPLES + 3000
    for first, count in [(0, 1), (0, 5000), (1, 4096), (11111, 7), (20479, 9000), (29999, 10**6), (30010, 1)]:
        part, _ = audio.read(path, first / rate, count / rate)
        np.testing.assert_array_equal(part, whole[:, first : first + count])


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_laid_end_to_end_are_the_whole(name: str, tmp_path: Path) -> None:
    path = FORMATS[name][0](tmp_path / "clip")
    whole, rate = audio.read(path)
    blocks = list(audio.blocks(path, block_s=0.1))
    assert len(blocks) > 1
    assert max(block.shape[1] for block in blocks) < rate  # none holds far more than was asked for
    assert np.array_equal(np.concatenate(blocks, axis=1), whole)


@pytest.mark.parametrize("name", FORMATS)
def test_the_signal_is_where_it_was(name: str, tmp_path: Path) -> None:
    """Delay and padding of the coders are gone: the copy lies on the original, sample by sample."""
    make, _, keeps_length = FORMATS[name]
    if not keeps_length:
        pytest.skip("the format does not state its delay")
    decoded, _ = audio.read(make(tmp_path / "clip"))
    original = signal() - signal().mean()
    lags = np.arange(-1200, 1201)
    middle = slice(8000, 22000)
    products = [np.vdot(np.roll(decoded, -lag, axis=1)[:, middle], original[:, middle]) for lag in lags]
    assert lags[int(np.argmax(products))] == 0


def test_vorbis_is_not_entered_by_seeking(shared: Callable[[str], Path]) -> None:
    """Files of FFmpeg's own Vorbis encoder, in which libsndfile's seek lands hundreds of samples off."""
    wrong = 0
    for path in sorted(shared("audio/valid/esc10").glob("dog_bark-*.ogg"))[:6]:
        whole, rate = audio.read(path)
        first = whole.shape[1] - 3000
        part, _ = audio.read(path, first / rate)
        np.testing.assert_array_equal(part, whole[:, first:])
        with soundfile.SoundFile(path) as file:
            file.seek(first)
            wrong += not np.array_equal(file.read(dtype="float32"), whole[0, first:])
    assert wrong, "libsndfile seeks exactly now: read() need not decode from the beginning any more"


@pytest.mark.parametrize(
    ("codec", "dtype", "bits"),
    [("pcm_u8", "uint8", 8), ("pcm_s16le", "int16", 16), ("pcm_s32be", "int32", 32), ("alac", "int16", 16)],
)
def test_integers_become_exact_floats(codec: str, dtype: str, bits: int, tmp_path: Path) -> None:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    codes = rng.integers(limits.min, limits.max, size=(2, 5000), endpoint=True, dtype=np.int64)
    codes[:, :4] = [limits.min, limits.max, limits.max - 1, limits.max // 2 + 1]
    path = encode(tmp_path / "codes.mov", codec, codes.astype(dtype), 44100)
    zero = 128 if bits == 8 else 0
    expected = ((codes - zero) / 2.0 ** (bits - 1)).astype(np.float32)
    np.testing.assert_array_equal(audio.read(path)[0], expected)


@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_f64le"])
def test_floats_above_full_scale_survive_ffmpeg(codec: str, tmp_path: Path) -> None:
    samples = 20 * signal()
    path = encode(tmp_path / "loud.mka", codec, samples, 44100)
    np.testing.assert_array_equal(audio.read(path)[0], samples)


def remux(source: Path, target: Path) -> Path:
    """The same coded stream in another container."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(old.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return target


def test_both_libraries_read_the_same(tmp_path: Path) -> None:
    flac = FORMATS["flac PCM_24"][0](tmp_path / "clip")
    expected = soundfile.read(flac, dtype="float32")[0].T
    np.testing.assert_array_equal(audio.read(flac)[0], expected)
    np.testing.assert_array_equal(audio.read(remux(flac, tmp_path / "clip.mka"))[0], expected)
    mp3 = FORMATS["mp3 libmp3lame"][0](tmp_path / "clip")
    np.testing.assert_allclose(audio.read(mp3)[0], soundfile.read(mp3)[0].T, rtol=0, atol=1e-5)


def test_opus_at_a_low_rate_is_decoded_by_the_reference_decoder(tmp_path: Path) -> None:
    """FFmpeg's own decoder differs by some 20 dB below the signal at 24 kbit/s."""
    made = encode(tmp_path / "a.opus", "libopus", signal(1), 48000, bit_rate=16000)
    remux(made, tmp_path / "a.webm")
    expected = soundfile.read(made, dtype="float32")[0]
    for path in (made, tmp_path / "a.webm"):
        np.testing.assert_allclose(audio.read(path)[0][0], expected, rtol=0, atol=1e-6)


def test_opus_is_48_khz_whatever_it_was_made_from(tmp_path: Path) -> None:
    path = tmp_path / "speech.opus"
    soundfile.write(path, signal(1).T, 16000, subtype="OPUS", format="OGG")
    info = audio.info(path)
    assert (info.sample_rate, info.num_samples) == (48000, 3 * NUM_SAMPLES)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (192000, 2), (44100, 6)])
@pytest.mark.parametrize("num_samples", [1, 1000])
def test_rates_channels_and_single_samples(
    rate: int, channels: int, num_samples: int, tmp_path: Path
) -> None:
    samples = signal(channels, num_samples)
    audio.write(tmp_path / "a.wav", samples, rate)
    read, read_rate = audio.read(tmp_path / "a.wav")
    np.testing.assert_array_equal(read, samples)
    assert read_rate == rate
    assert audio.info(tmp_path / "a.wav").channels == channels
    assert audio.resample(read, rate, 16000).shape[1] >= 1


def test_six_channels_keep_their_order_through_ffmpeg(tmp_path: Path) -> None:
    samples = signal(6, 3000)
    np.testing.assert_array_equal(
        audio.read(encode(tmp_path / "a.mka", "pcm_f32le", samples, 48000))[0], samples
    )


def test_silence_is_audio(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.flac", np.zeros((1, 100)), 44100, "pcm16")
    assert not audio.read(tmp_path / "a.flac")[0].any()
    assert audio.peak_dbfs(audio.read(tmp_path / "a.flac")[0]) == -math.inf


@pytest.mark.parametrize(
    "name", ["a b.wav", "ä ☃ 音.wav", "-", "-rf.wav", "a:b.wav", "http:x.wav", "%d.wav", "a\nb"]
)
@pytest.mark.parametrize("library", ["libsndfile", "FFmpeg"])
def test_any_file_name(name: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = FORMATS["wav PCM_16" if library == "libsndfile" else "mka pcm_f32le"][0](tmp_path / "made")
    made.rename(tmp_path / name)
    assert audio.info(name).num_samples == NUM_SAMPLES
    assert audio.read(name)[0].shape == (2, NUM_SAMPLES)
    (tmp_path / name).write_text("no audio")
    with pytest.raises(UserError) as caught:
        audio.read(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", ["libsndfile", "FFmpeg"])
def test_a_name_that_is_not_utf8(library: str, tmp_path: Path) -> None:
    made = FORMATS["wav PCM_16" if library == "libsndfile" else "mka pcm_f32le"][0](tmp_path / "made")
    name = made.rename(tmp_path / os.fsdecode(b"caf\xe9.x"))
    assert audio.read(name)[0].shape == (2, NUM_SAMPLES)
    name.write_text("no audio")
    with pytest.raises(UserError) as caught:
        audio.read(name)
    str(caught.value).encode()  # can be printed


def test_start_and_duration(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.wav", signal(1, 4000), 4000)
    read = audio.read
    path = tmp_path / "a.wav"
    assert read(path, 0.9, 5.0)[0].shape == (1, 400)
    assert read(path, 0.9, math.inf)[0].shape == (1, 400)
    # Halves go up, and the length does not depend on where the part begins.
    assert read(path, 0.000125)[0].shape == (1, 3999)
    assert {read(path, start / 28000, 0.03085)[0].shape for start in range(7)} == {(1, 123)}


@pytest.mark.parametrize("name", ["wav PCM_16", "m4a aac"])
@pytest.mark.parametrize(
    ("start_s", "duration_s", "message"),
    [
        (30.0, None, "lasts"),
        (-0.1, None, "0 or more"),
        (math.nan, None, "0 or more"),
        (math.inf, None, "0 or more"),
        (0.0, 0.0, "more than 0"),
        (0.0, -1.0, "more than 0"),
        (0.0, math.nan, "more than 0"),
        (0.0, 1e-6, "less than a sample"),
    ],
)
def test_parts_that_cannot_be(
    name: str, start_s: float, duration_s: float | None, message: str, tmp_path: Path
) -> None:
    path = FORMATS[name][0](tmp_path / "clip")
    with pytest.raises(UserError, match=message):
        audio.read(path, start_s, duration_s)


def test_a_start_at_the_very_end_is_beyond_it(tmp_path: Path) -> None:
    for name in ("flac PCM_16", "m4a aac"):
        path = FORMATS[name][0](tmp_path / "clip")
        info = audio.info(path)
        with pytest.raises(UserError, match="lasts"):
            audio.read(path, info.duration_s)


# ---- files that are refused ----------------------------------------------------------------------------


def video(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    return path


def refused(path: Path) -> str:
    messages = []
    for function in (audio.info, audio.read):
        with pytest.raises(UserError) as caught:
            function(path)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert path.name in messages[0] and "\n" not in messages[0]
    return messages[0]


def test_files_that_are_not_audio_are_refused(tmp_path: Path) -> None:
    assert "no such audio file" in refused(tmp_path / "missing.wav")
    assert "no such audio file" in refused(tmp_path / "nowhere" / "missing.wav")
    assert "folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.wav")
    assert "pipe" in refused(tmp_path / "pipe.wav")
    (tmp_path / "empty.wav").touch()
    assert "empty (0 bytes)" in refused(tmp_path / "empty.wav")
    for name, content in [("text.wav", b"This is no audio.\n" * 50), ("one.wav", b"R"), ("ff.mp3", b"\xff")]:
        (tmp_path / name).write_bytes(content)
        assert "not audio that" in refused(tmp_path / name) or "no audio stream" in refused(tmp_path / name)
    assert "no audio stream" in refused(video(tmp_path / "silent film.mp4"))
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 1)), 44100)
    assert "no audio samples" in refused(tmp_path / "none.wav")
    content = bytearray(FORMATS["wav PCM_16"][0](tmp_path / "clip").read_bytes())
    content[20:22] = b"\xab\xcd"
    (tmp_path / "tag.wav").write_bytes(content)
    assert "coding that FFmpeg does not know" in refused(tmp_path / "tag.wav")
    for seed in range(20):
        noise = np.random.default_rng(seed).bytes(4000)
        (tmp_path / "noise.wav").write_bytes(noise)
        refused(tmp_path / "noise.wav")
        (tmp_path / "noise.mp3").write_bytes(b"\xff\xfb" + noise)
        refused(tmp_path / "noise.mp3")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = FORMATS["wav PCM_16"][0](tmp_path / "clip")
    path.chmod(0)
    assert "denied" in refused(path)


@pytest.mark.parametrize("name", ["wav FLOAT", "wav DOUBLE", "mka pcm_f32le"])
def test_nan_and_infinity_are_counted_and_located(name: str, tmp_path: Path) -> None:
    samples = signal(2, 8000).astype(np.float64 if name == "wav DOUBLE" else np.float32)
    samples[1, 2000] = np.nan
    samples[0, 3000] = -np.inf if name != "wav DOUBLE" else 1e300  # not representable in float32
    path = tmp_path / "bad.wav"
    if name.startswith("mka"):
        path = encode(tmp_path / "bad.mka", "pcm_f32le", samples, 8000)
    else:
        soundfile.write(path, samples.T, 8000, subtype=name[4:])
    with pytest.raises(UserError, match=r"bad\..*2 samples that are NaN.* 0\.250 s \(sample 2000\)"):
        audio.read(path)
    with pytest.raises(UserError, match=r"1 samples .*sample 3000"):
        audio.read(path, 0.3)
    assert np.isfinite(audio.read(path, 0.0, 0.2)[0]).all()


@pytest.mark.parametrize(
    "name",
    [
        *("wav PCM_16", "wav FLOAT", "wav IMA_ADPCM", "aiff PCM_24", "au PCM_16", "w64 FLOAT", "rf64 PCM_16"),
        *("flac PCM_16", "ogg VORBIS", "ogg OPUS", "m4a aac", "m4a alac", "mp3 libmp3lame", "webm libopus"),
        *("wv wavpack", "mka pcm_f32le"),
    ],
)
def test_a_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    path = FORMATS[name][0](tmp_path / "cut")
    content = path.read_bytes()
    # A few frames may be missing where the header is not exact.
    inexact = name.startswith(("mp3", "webm"))
    for length in (
        len(content) * 2 // 5,
        len(content) - (50_000 if name == "mka pcm_f32le" else 10_000 if inexact else 1000),
    ):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"cut\..*(truncated|damaged|no audio samples|can read)"):
            audio.read(path)


def test_a_file_that_ends_after_its_header_is_reported_without_samples(tmp_path: Path) -> None:
    path = tmp_path / "header.wav"
    soundfile.write(path, np.zeros(800), 8000, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:44])
    with pytest.raises(UserError, match=r"header\.wav' is truncated: it ends before its first sample; get"):
        audio.read(path)


def test_a_truncated_stream_without_a_promise_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = FORMATS["aac aac"][0](tmp_path / "cut")
    whole, _ = audio.read(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 5])
    part, _ = audio.read(path)
    assert part.shape[1] == audio.info(path).num_samples
    assert 0.3 * NUM_SAMPLES < part.shape[1] < 0.5 * NUM_SAMPLES
    np.testing.assert_array_equal(part, whole[:, : part.shape[1]])


def test_damage_within_a_file(tmp_path: Path) -> None:
    for name in ("flac PCM_16", "ogg VORBIS", "wv wavpack", "mka flac", "ogg OPUS", "aac aac"):
        path = FORMATS[name][0](tmp_path / "hurt")
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 2000] = bytes(2000)
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"hurt\..*(damaged|truncated)"):
            audio.read(path)


def test_info_of_flac_does_not_decode(tmp_path: Path) -> None:
    path = FORMATS["flac PCM_16"][0](tmp_path / "hurt")
    path.write_bytes(path.read_bytes()[:2000])
    assert audio.info(path).num_samples == NUM_SAMPLES


def test_lengths_that_the_header_does_not_know(tmp_path: Path) -> None:
    path = FORMATS["wav PCM_16"][0](tmp_path / "piped")
    expected, _ = audio.read(path)
    content = bytearray(path.read_bytes())
    for unknown in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF024):
        content[4:8] = content[40:44] = struct.pack("<I", unknown)
        path.write_bytes(content)
        np.testing.assert_array_equal(audio.read(path)[0], expected)
    path = FORMATS["flac PCM_16"][0](tmp_path / "piped")
    expected, _ = audio.read(path)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO for the number of samples
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert audio.info(path).num_samples == NUM_SAMPLES
    np.testing.assert_array_equal(audio.read(path)[0], expected)
    # The opposite: a header that lies so much that no memory holds it.
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"memory|damaged|truncated"):
        audio.read(path)


def test_tags_around_an_mp3(tmp_path: Path) -> None:
    path = FORMATS["mp3 libmp3lame"][0](tmp_path / "song")
    content, (expected, _) = path.read_bytes(), audio.read(path)
    ape = struct.pack("<II", 1, 0) + b"Title\0x" + b"APETAGEX" + struct.pack("<IIII8x", 2000, 47, 1, 0)
    comment = b"COMM" + struct.pack(">IH", 5, 0) + b"\0eng\0"  # libmpg123 complains about this one
    id3v2 = b"ID3\x03\0\0" + bytes([0, 0, 0, len(comment)]) + comment
    for tagged in (content + ape, content + b"TAG".ljust(128, b"\0"), id3v2 + content):
        path.write_bytes(tagged)
        np.testing.assert_array_equal(audio.read(path)[0], expected)


def test_a_play_list_fetches_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        text = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}\n#EXT-X-ENDLIST\n"
        for name in ("a.m3u8", "a.wav"):
            (tmp_path / name).write_text(text)
            refused(tmp_path / name)
        with pytest.raises(TimeoutError):
            server.accept()


def test_sound_of_a_film(tmp_path: Path) -> None:
    """The picture lasts longer than the sound: that is no truncation."""
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        picture: Any = container.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        sound: Any = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(signal(1, 1024), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux([*sound.encode(frame), *sound.encode(None)])
        for _ in range(30):
            black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
            container.mux(picture.encode(black))
        container.mux(picture.encode(None))
    assert audio.read(path)[0].shape == (1, 1024)
