"""Random crops: right places, right samples, the same whoever draws them; and what is done to odd audio."""

from __future__ import annotations

import itertools
import logging
import math
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import soundfile
import torch
from audio_files import encode
from torch.utils.data import DataLoader

from qincodec import audio
from qincodec.core.errors import UserError
from qincodec.training.data import CropDataset, CropError, DamagedFile, Recordings, validation_clips
from qincodec.training.manifest import Manifest

RATE = 44100


def noise(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((channels, samples))).astype(np.float32)


def sound(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.T, rate, subtype=subtype)
    return path


def crops(folder: Path, crop_samples: int = 4000, seed: int = 0, **options: Any) -> CropDataset:
    manifest = Manifest.build(folder / "d", folder / "m")
    settings = {"sample_rate": RATE, **options}
    return CropDataset(manifest, crop_samples=crop_samples, seed=seed, **settings)


def place_of(crop: np.ndarray, whole: np.ndarray) -> int:
    """Where in ``whole`` the crop lies."""
    size = scipy.fft.next_fast_len(len(whole) + len(crop), real=True)  # a prime one takes ten times as long
    spectrum = np.fft.rfft(whole, size) * np.conj(np.fft.rfft(crop, size))
    return int(np.argmax(np.fft.irfft(spectrum, size)[: len(whole) - len(crop) + 1]))


FORMATS = {
    "wav pcm16": ("x.wav", "PCM_16"),
    "wav pcm24": ("x.wav", "PCM_24"),
    "wav float": ("x.wav", "FLOAT"),
    "wav mu-law": ("x.wav", "ULAW"),
    "aiff": ("x.aiff", "PCM_16"),
    "flac 16": ("x.flac", "PCM_16"),
    "flac 24": ("x.flac", "PCM_24"),
    "vorbis": ("x.ogg", "VORBIS"),
}
CASES = [(name, rate, channels) for name in FORMATS for rate, channels in ((44100, 1), (48000, 2))] + [
    ("flac 16", rate, channels)
    for rate, channels in ((8000, 1), (16000, 2), (22050, 1), (32000, 6), (44056, 1), (96000, 1), (192000, 2))
]


def write(folder: Path, name: str, rate: int, channels: int) -> Path:
    samples = noise(rate + 1234, channels)
    (folder / "d").mkdir()
    if name in FORMATS:
        file, subtype = FORMATS[name]
        return sound(folder / "d" / file, samples, rate, subtype)
    codec, file = {"mp3": ("libmp3lame", "x.mp3"), "opus": ("libopus", "x.opus"), "aac": ("aac", "x.m4a")}[
        name
    ]
    return encode(folder / "d" / file, codec, samples, rate)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("name", "rate", "channels"), [*CASES, ("mp3", 44100, 1), ("opus", 48000, 2), ("aac", 44100, 2)]
)
def test_a_crop_is_a_slice_of_the_whole_file(
    tmp_path: Path, name: str, rate: int, channels: int, cached: bool
) -> None:
    path = write(tmp_path, name, rate, channels)
    whole = audio.resample(audio.mix(audio.read(path)[0], 1), audio.info(path).sample_rate, RATE)[0]
    dataset = crops(tmp_path, cache=tmp_path / "cache" if cached else None)
    starts = []
    for index in range(4):
        crop = dataset[index].numpy()
        assert crop.shape == (4000,) and crop.dtype == np.float32
        start = place_of(crop, whole)
        np.testing.assert_allclose(crop, whole[start : start + 4000], rtol=0, atol=1e-5)
        if rate == RATE:
            np.testing.assert_array_equal(crop, whole[start : start + 4000])
        starts.append(start)
    assert len(set(starts)) == 4


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 192000])
@pytest.mark.parametrize("suffix", ["wav", "ogg"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_crop_as_long_as_the_file_is_the_file(tmp_path: Path, rate: int, suffix: str, cached: bool) -> None:
    path = sound(tmp_path / "d" / f"x.{suffix}", noise(7001), rate)
    whole = audio.resample(audio.read(path)[0], rate, RATE)[0]
    dataset = crops(tmp_path, len(whole), cache=tmp_path / "cache" if cached else None)
    np.testing.assert_allclose(dataset[0].numpy(), whole, rtol=0, atol=1e-6)
    # One sample more, and the rest is zero.
    longer = crops(tmp_path, len(whole) + 9, cache=tmp_path / "cache" if cached else None)
    np.testing.assert_allclose(longer[5].numpy(), np.pad(whole, (0, 9)), rtol=0, atol=1e-6)
    assert longer.counts()["padded"] == longer.counts()["crops"] == 1


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("cached", [False, True])
def test_crops_at_other_speeds_are_slices_of_the_whole_file_played_so(
    tmp_path: Path, rate: int, cached: bool
) -> None:
    path = sound(tmp_path / "d" / "x.ogg", noise(2 * rate + 1234), rate)
    at_rate = audio.resample(audio.read(path)[0], rate, RATE)
    speeds = (0.8, 1.0, 1.15)
    played = {speed: audio.resample(at_rate, round(speed * RATE), RATE)[0] for speed in speeds}
    dataset = crops(tmp_path, speeds=speeds, cache=tmp_path / "cache" if cached else None)
    seen = []
    for index in range(30):
        crop = dataset[index].numpy()
        errors = {}
        for speed, whole in played.items():
            start = place_of(crop, whole)
            errors[speed] = np.abs(crop - whole[start : start + 4000]).max()
        speed = min(errors, key=errors.__getitem__)
        assert errors[speed] < 1e-5
        seen.append(speed)
    assert all(3 <= seen.count(speed) <= 17 for speed in speeds)  # of 30; outside: 1 in 500 seeds
    # The end: a crop as long as the file, and one sample more.
    longest = len(played[0.8])
    for more in (0, 1):
        dataset = crops(tmp_path, longest + more, speeds=(0.8,))
        np.testing.assert_allclose(dataset[0].numpy(), np.pad(played[0.8], (0, more)), rtol=0, atol=1e-5)
        assert dataset.counts()["padded"] == more


def test_an_equalizer_has_straight_lines_between_its_gains(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "x.wav", noise(3 * RATE))
    plain, equalized = crops(tmp_path, RATE), crops(tmp_path, RATE, equalizer_db=9)
    knots = np.array([50, 200, 800, 3200, 12800])
    gains = []
    for index in range(60):
        before, after = (np.fft.rfft(dataset[index].numpy()) for dataset in (plain, equalized))
        ratio = after / before  # a bin per Hz
        loud = np.abs(before) > 1
        assert np.abs(ratio.imag[loud]).max() < 1e-3
        curve = 20 * np.log10(ratio.real, where=ratio.real > 0, out=np.full(len(ratio), np.nan))
        for low, high in itertools.pairwise(knots):
            middle = round(math.sqrt(low * high))
            assert curve[middle] == pytest.approx((curve[low] + curve[high]) / 2, abs=0.02)
        assert curve[20] == pytest.approx(curve[50], abs=0.02)
        assert curve[20_000] == pytest.approx(curve[12800], abs=0.02)
        gains.append(curve[knots])
    assert 8 < np.max(gains) < 9.01 and -9.01 < np.min(gains) < -8
    assert np.abs(np.mean(gains, 0)).max() < 2.5 and np.std(gains, 0) == pytest.approx(9 / 3**0.5, rel=0.25)
    assert np.abs(np.corrcoef(np.transpose(gains)) - np.eye(5)).max() < 0.5


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
def test_a_long_file_in_blocks_and_in_parts(tmp_path: Path, suffix: str) -> None:
    """Longer than the blocks files are read in: no seam."""
    path = sound(tmp_path / "d" / f"a.{suffix}", noise(25 * 48000, 2), 48000)
    whole = audio.resample(audio.mix(audio.read(path)[0], 1), 48000, RATE)[0]
    manifest = Manifest.build(tmp_path / "d", tmp_path / "m")
    recordings = Recordings(manifest, RATE, tmp_path / "cache")
    blocks = list(recordings.whole(0))
    assert len(blocks) > 1 and recordings.lengths.tolist() == [len(whole)]
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), whole[None], rtol=0, atol=1e-6)
    for first in (0, 440_000, 441_000, 882_000, len(whole) - 5000):
        part = recordings.read(0, first, 5000)
        np.testing.assert_allclose(part, whole[first : first + 5000], rtol=0, atol=1e-6)
    assert recordings.read(0, len(whole) - 7, 5000).shape == (7,)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DamagedFile):
        list(recordings.whole(0))


def philox(key: int, counter: int) -> list[int]:
    """Four words of Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")."""
    mask = 2**64 - 1
    x = [counter >> 64 * i & mask for i in range(4)]
    k = [key & mask, key >> 64]
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * x[0], 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * x[2], 2**64)
        x = [high1 ^ x[1] ^ k[0], low1, high0 ^ x[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return x


def test_places_are_those_of_philox_with_the_index_in_the_counter(tmp_path: Path) -> None:
    """Fixed for ever: a checkpoint of today resumes with the crops it would have had."""
    files = [noise(5000 + 3000 * i, seed=i) for i in range(5)]
    for i, samples in enumerate(files):
        sound(tmp_path / "d" / f"{i}.wav", samples, subtype="FLOAT")
    dataset = crops(tmp_path, 1000, seed=7)
    ends = np.cumsum([samples.shape[1] for samples in files])
    for index in (0, 1, 2, 3, 12345, 10**12):
        # NumPy counts up before it draws.
        words = philox(dataset._key, (index << 64) + 1)
        row = int(np.argmax(ends > (words[0] * int(ends[-1]) >> 64)))
        offset = words[1] * (files[row].shape[1] - 1000 + 1) >> 64
        np.testing.assert_array_equal(dataset[index].numpy(), files[row][0, offset : offset + 1000])


def test_crops_depend_on_manifest_seed_and_index_alone(tmp_path: Path) -> None:
    for i in range(6):
        sound(tmp_path / "d" / f"{i}.flac", noise(20000, seed=i), 48000)
    dataset = crops(tmp_path)
    expected = torch.stack([dataset[i] for i in range(12)])
    again = crops(tmp_path)
    for index in (11, 0, 5, 5, 3):
        assert torch.equal(again[index], expected[index])
    assert not torch.equal(crops(tmp_path, seed=1)[0], expected[0])
    assert len({crop.numpy().tobytes() for crop in expected}) == 12
    sound(tmp_path / "d" / "6.flac", noise(20000, seed=6), 48000)
    assert not torch.equal(crops(tmp_path)[0], expected[0])
    with pytest.raises(IndexError):
        dataset[-1]


@pytest.mark.parametrize(("workers", "start"), [(1, "fork"), (2, "fork"), (1, "spawn")])
def test_workers_draw_the_same_and_are_counted(tmp_path: Path, workers: int, start: str) -> None:
    for i in range(6):
        suffix = "ogg" if i % 2 else "flac"
        sound(tmp_path / "d" / f"{i}.{suffix}", noise(20000, seed=i), 48000)
    dataset = crops(tmp_path, cache=tmp_path / "cache")
    expected = torch.stack([crops(tmp_path)[i] for i in range(3, 15)])
    loader = DataLoader(
        dataset,
        batch_size=4,
        sampler=range(3, 15),
        num_workers=workers,
        multiprocessing_context=multiprocessing.get_context(start),
    )
    got = torch.cat(list(loader))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert dataset.counts()["crops"] == 12


def test_files_come_up_in_proportion_to_their_length_and_offsets_evenly(tmp_path: Path) -> None:
    """Every sample holds its place in its file."""
    lengths, start = [300, 1000, 4000, 60], 0
    for i, length in enumerate(lengths):
        places = np.arange(start, start + length, dtype=np.float32)[None] / 2**15 + 0.01
        sound(tmp_path / "d" / f"{i}.wav", places, subtype="FLOAT")
        start += length
    dataset = crops(tmp_path, 20)
    firsts = np.array([round((float(dataset[i][0]) - 0.01) * 2**15) for i in range(2000)])
    ends = np.cumsum(lengths)
    rows = np.searchsorted(ends, firsts, side="right")
    seen = np.bincount(rows, minlength=4)
    expected = 2000 * np.array(lengths) / sum(lengths)
    assert ((seen - expected) ** 2 / expected).sum() < 16.27  # chi-square, 3 degrees of freedom, p = 0.001
    offsets = np.sort(firsts[rows == 2] - ends[1])
    assert offsets[0] >= 0 and offsets[-1] <= 3980
    distance = np.abs(offsets / 3981 - np.arange(len(offsets)) / len(offsets)).max()
    assert distance < 1.95 / math.sqrt(len(offsets))  # Kolmogorov and Smirnov's, p = 0.001


def test_silence_is_drawn_again(tmp_path: Path) -> None:
    samples = np.zeros((1, 40000), dtype=np.float32)
    samples[:, 20000:22000] = 0.5
    sound(tmp_path / "d" / "a.wav", samples)
    dataset = crops(tmp_path, 4000)
    loud = sum(bool(dataset[i].abs().max() > 0.1) for i in range(300))
    counts = dataset.counts()
    # A sixth of all places reach the sound: (2000 + 4000) of 36000; 9 draws miss with (5/6)^9 = 19 %.
    assert loud / 300 == pytest.approx(1 - (5 / 6) ** 9, abs=0.07)
    assert counts["silent_kept"] == 300 - loud
    assert counts["silent_redrawn"] / 300 == pytest.approx(sum((5 / 6) ** k for k in range(1, 9)), rel=0.15)


def test_nothing_but_silence_is_kept_and_counted(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "a.wav", np.full((1, 9000), 0.0009, dtype=np.float32), subtype="FLOAT")
    dataset = crops(tmp_path)
    assert torch.equal(dataset[0], torch.full((4000,), 0.0009))
    assert {k: v for k, v in dataset.counts().items() if v} == {
        "crops": 1,
        "silent_redrawn": 8,
        "silent_kept": 1,
    }


def test_beyond_full_scale_is_scaled_down(tmp_path: Path) -> None:
    samples = 12 * noise(4000)
    sound(tmp_path / "d" / "a.wav", samples, subtype="FLOAT")
    dataset = crops(tmp_path)
    np.testing.assert_allclose(dataset[0].numpy(), samples[0] / np.abs(samples).max(), rtol=1e-6)
    assert dataset.counts()["over_full_scale"] == 1 and dataset.counts()["clipped"] == 0


@pytest.mark.parametrize(("run", "clipped"), [(3, 0), (4, 1)])
@pytest.mark.parametrize("value", [0.99999, -1.0])
def test_clipping_is_counted_and_left(tmp_path: Path, run: int, clipped: int, value: float) -> None:
    samples = noise(4000)
    samples[0, 100 : 100 + run] = value
    sound(tmp_path / "d" / "a.wav", samples)
    dataset = crops(tmp_path)
    np.testing.assert_array_equal(dataset[0].numpy(), audio.read(tmp_path / "d" / "a.wav")[0][0])
    assert dataset.counts()["clipped"] == clipped


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 400] = bytes(400)
    path.write_bytes(content)


def test_a_damaged_file_is_counted_logged_once_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(40):
        sound(tmp_path / "d" / f"{i:02}.flac", noise(6000, seed=i))
    damage(tmp_path / "d" / "07.flac")
    dataset = crops(tmp_path, 5900)
    assert len(dataset.manifest) == 40
    with caplog.at_level(logging.WARNING):
        drawn = [dataset[i] for i in range(300)]
    assert all(crop.abs().max() > 0.1 for crop in drawn)
    assert dataset.counts()["crops"] == 300 and dataset.counts()["damaged"] > 1
    assert ["07.flac" in record.message for record in caplog.records] == [True]
    assert torch.equal(drawn[3], crops(tmp_path, 5900)[3])


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
@pytest.mark.parametrize("cached", [False, True])
def test_too_much_damage_ends_training(tmp_path: Path, suffix: str, cached: bool) -> None:
    for i in range(8):
        sound(tmp_path / "d" / f"{i}.{suffix}", noise(20000, seed=i))
    Manifest.build(tmp_path / "d", tmp_path / "m")
    manifest = Manifest.open(tmp_path / "m")
    damage(tmp_path / "d" / f"3.{suffix}")
    dataset = CropDataset(
        manifest, crop_samples=19000, sample_rate=RATE, seed=0, cache=tmp_path / "cache" if cached else None
    )
    with pytest.raises(
        CropError, match=r"of damaged files \(allowed: 5%\).*replace or remove them"
    ) as caught:
        for i in range(400):
            dataset[i]
    assert "\n" not in str(caught.value)


def test_the_error_of_a_worker_is_one_line(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "a.wav", noise(9000))
    dataset = crops(tmp_path)
    (tmp_path / "d" / "a.wav").unlink()
    batches: Any = iter(DataLoader(dataset, sampler=range(1), num_workers=1))
    with pytest.raises(UserError) as caught:
        next(batches)
    batches._shutdown_workers()  # the garbage collector would wait for them for five seconds
    assert str(caught.value).startswith("9 files drawn in a row are damaged or gone, the last")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_another_one_now_counts_as_damaged(tmp_path: Path) -> None:
    for suffix in ("wav", "ogg"):
        path = sound(tmp_path / suffix / "d" / f"a.{suffix}", noise(9000))
        for cache in (None, tmp_path / "cache"):
            dataset = crops(tmp_path / suffix, 8000, cache=cache)
            sound(path, noise(7000))
            with pytest.raises(CropError, match="9 files drawn in a row"):
                dataset[0]
            sound(path, noise(9000))


def test_audio_that_has_moved_is_reported_at_the_start(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "a.wav", noise(9000))
    Manifest.build(tmp_path / "d", tmp_path / "m")
    (tmp_path / "d").rename(tmp_path / "e")
    with pytest.raises(UserError, match="no longer in"):
        CropDataset(Manifest.open(tmp_path / "m"), crop_samples=4, sample_rate=RATE, seed=0)


def test_what_is_cached_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        sound(tmp_path / "d" / f"{i}.ogg", noise(30000, 2, seed=i), 48000)
    sound(tmp_path / "d" / "x.flac", noise(100))
    dataset = crops(tmp_path, cache=tmp_path / "cache")
    before = [dataset[i] for i in range(20)]
    files = sorted((tmp_path / "cache").rglob("*.npy"))
    assert len(files) == 3 and not list((tmp_path / "cache").rglob("*.tmp"))
    assert dataset.cache_bytes == 3 * 4 * math.floor(30000 * 44.1 / 48 + 0.5)
    assert sum(path.stat().st_size for path in files) == dataset.cache_bytes + 3 * 128
    with monkeypatch.context() as patch:
        patch.setattr(audio, "blocks", lambda path: pytest.fail("decoded again"))
        again = crops(tmp_path, cache=tmp_path / "cache")
        assert all(torch.equal(again[i], before[i]) for i in range(20))
    # Cut short, as by a power failure; of no length; of another kind.
    for path, content in zip(files, (files[0].read_bytes()[:300], b"", b"rubbish"), strict=True):
        path.write_bytes(content)
    assert all(torch.equal(dataset[i], before[i]) for i in range(20))


def test_a_cache_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path / "d" / "a.ogg", noise(30000))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use the cache"):
        crops(tmp_path, cache=tmp_path / "file")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**5))
    with pytest.raises(UserError, match=r"needs 0\.0 GB more, .* convert the files to FLAC"):
        crops(tmp_path, cache=tmp_path / "cache")
    crops(tmp_path)
    monkeypatch.undo()
    crops(tmp_path, cache=tmp_path / "cache")[0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**5))
    crops(tmp_path, cache=tmp_path / "cache")[0]  # nothing is missing any more


def test_a_full_disk_is_not_reported_as_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound(tmp_path / "d" / "a.ogg", noise(30000))
    dataset = crops(tmp_path, cache=tmp_path / "cache")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(UserError, match="No space left on device"):
        dataset[0]
    assert dataset.counts()["damaged"] == 0


def test_bad_settings(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "a.wav", noise(9000))
    for options in ({"crop_samples": 0}, {"sample_rate": 0}):
        with pytest.raises(UserError, match="positive numbers"):
            crops(tmp_path, **options)


def test_real_sounds(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    manifest = Manifest.build(shared("audio/train.jsonl"), tmp_path)
    dataset = CropDataset(manifest, crop_samples=RATE, sample_rate=RATE, seed=0)
    batch = torch.stack([dataset[i] for i in range(30)])
    peaks = batch.abs().amax(1)
    assert batch.isfinite().all() and peaks.max() <= 1 and peaks.min() >= 1e-3
    assert dataset.counts()["crops"] == 30 and dataset.counts()["damaged"] == 0


def test_validation_clips(tmp_path: Path) -> None:
    for i in range(4):
        for take in "ab":
            sound(tmp_path / "d" / f"rec{i}_{take}.wav", noise(2 * 24000, 2, seed=i + ord(take)), 24000)
    sound(tmp_path / "d" / "silent.wav", np.zeros((1, 3 * RATE)))
    sound(tmp_path / "d" / "short.wav", noise(2000))
    sound(tmp_path / "d" / "loud.wav", 20 * noise(RATE), subtype="FLOAT")
    manifest = Manifest.build(tmp_path / "d", tmp_path / "m")
    settings: dict[str, Any] = {"duration_s": 0.5, "sample_rate": RATE, "seed": 3}
    clips = validation_clips(manifest, count=5, **settings)
    assert len(clips) == 5
    assert {name[:4] for name, _ in clips} == {"rec0", "rec1", "rec2", "rec3", "loud"}
    for name, clip in clips:
        path, start = name.rsplit("@", 1)
        samples, rate = audio.read(tmp_path / "d" / path)
        whole = audio.resample(audio.mix(samples, 1), rate, RATE)[0]
        first = round(float(start.removesuffix("s")) * RATE)
        np.testing.assert_allclose(clip.numpy(), whole[first : first + 22050], rtol=0, atol=1e-5)
    everything = validation_clips(manifest, count=34, **settings)
    assert len({name for name, _ in everything}) == 34
    assert [name for name, _ in everything[:5]] == [name for name, _ in clips]
    others = validation_clips(manifest, count=5, **{**settings, "seed": 4})
    assert [name for name, _ in others] != [name for name, _ in clips]
    assert len(validation_clips(manifest, count=35, **settings)) == 34
    with pytest.raises(UserError, match="no held-out recording has 60 s of sound"):
        validation_clips(manifest, count=1, **{**settings, "duration_s": 60})
    with pytest.raises(UserError, match="at least one"):
        validation_clips(manifest, count=0, **settings)
    damage(tmp_path / "d" / "loud.wav")
    (tmp_path / "d" / "loud.wav").unlink()
    with pytest.raises(UserError, match="validation clip: no such audio file"):
        validation_clips(manifest, count=34, **settings)
