"""Crops to train on, and fixed excerpts to validate with.

A crop's place is drawn uniformly over the time of all audio. So a file is drawn in proportion to its length,
and every offset in it is equally likely; this is the plain meaning of "random 1 s crops" of a data set, and
the way files were cut does not matter. Crop ``index`` is a function of the manifest's hash, the seed and the
index alone: a resumed run, or one on another number of GPUs, sees the same crops.

A crop's channels are averaged, and its sample rate is converted as by `qincodec.audio.resample` on the whole
file. A crop below -60 dBFS is drawn again, up to 8 times. A crop beyond full scale is scaled to a peak of 1,
as if recorded at a lower level: the decoder's magnitudes are limited, and files of integers are never that
loud. Files shorter than a crop are zero-padded. Without other speeds or an equalizer, nothing else is
changed: no gain, no normalisation. All of it is counted, see `CropDataset.counts`.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from qincodec import audio
from qincodec.core.errors import UserError
from qincodec.core.files import os_errors, replacing
from qincodec.training.manifest import Manifest, seeded_order
from qincodec.transcode import resampled_blocks

__all__ = ["CropDataset", "CropError", "DamagedFile", "Recordings", "validation_clips"]

SILENCE_DBFS = -60.0
REDRAWS = 8
#: Greatest share of drawn crops from damaged files before training stops.
DAMAGED_LIMIT = 0.05

#: Hz, where an equalizer's gains are drawn.
EQUALIZER_HZ = (50.0, 200.0, 800.0, 3200.0, 12800.0)

_SILENCE = 10 ** (SILENCE_DBFS / 20)
# Samples of the lower of the two rates; beyond 256, soxr at very high quality gives the same bits.
_MARGIN = 512
_COUNTS = ("crops", "padded", "silent_redrawn", "silent_kept", "over_full_scale", "clipped", "damaged")
_MAX_WORKERS = 512
_log = logging.getLogger(__name__)


class DamagedFile(UserError):
    """A file is damaged, gone, or has changed since the manifest was built."""


class CropError(UserError):
    """One line, even after a DataLoader has put its worker's traceback before it."""

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().splitlines()[-1].split("CropError: ")[-1])


class CropDataset(Dataset[torch.Tensor]):
    """Endless random crops: ``dataset[index]`` for any index from 0, which counts crops since training began.

    For a `torch.utils.data.DataLoader` with any number of workers, forked or spawned.

    Args:
        manifest: files to draw from.
        crop_samples: length of a crop at ``sample_rate``.
        sample_rate: of the crops, Hz.
        seed: of the draws.
        speeds: playback speeds; each crop draws one, see `Recordings.read`.
        equalizer_db: largest gain, up or down, of the equalizer that each crop passes: gains are drawn at
            `EQUALIZER_HZ`. In dB they are straight lines over the logarithm of frequency, constant outside,
            with zero phase.
        cache: folder for formats without exact seeking (Vorbis, Opus, MP3, AAC, ...): each such file is
            decoded once, to mono float32 at ``sample_rate``: 4 bytes per sample, 0.64 GB per hour at 44.1 kHz
            (`cache_bytes`). None: they are decoded from their beginning for every crop.

    Raises:
        UserError: the audio is not where it was, or the disk has no room for the cache.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        crop_samples: int,
        sample_rate: int,
        seed: int,
        speeds: Sequence[float] = (1.0,),
        equalizer_db: float = 0.0,
        cache: Path | None = None,
    ) -> None:
        if crop_samples < 1 or sample_rate < 1:
            raise UserError(f"crops of {crop_samples} samples at {sample_rate} Hz: give positive numbers")
        self.manifest, self.sample_rate, self.crop_samples = manifest, sample_rate, crop_samples
        self._speeds, self._equalizer_db = tuple(speeds), equalizer_db
        self._reader = Recordings(manifest, sample_rate, cache)
        self._ends = np.cumsum(self._reader.lengths)
        self._key = int.from_bytes(hashlib.sha256(f"{manifest.hash} {seed}".encode()).digest()[:16], "little")
        # A row for each worker, in shared memory.
        self._counts = torch.zeros(_MAX_WORKERS, len(_COUNTS), dtype=torch.int64).share_memory_()
        self._reported: set[int] = set()

    @property
    def cache_bytes(self) -> int:
        """What the cache takes on disk when all files that need it are in it."""
        return self._reader.cache_bytes

    def counts(self) -> dict[str, int]:
        """Counts of draws since the data set was made, by all workers of this process, also of crops ahead.

        ``crops``; of them ``padded`` (file shorter than a crop), ``silent_kept`` (silent after all redraws),
        ``over_full_scale`` (scaled down) and ``clipped`` (4 samples or more in a row at full scale; left as
        they are); and draws that were not used: ``silent_redrawn``, ``damaged``.
        """
        return dict(zip(_COUNTS, self._counts.sum(0).tolist(), strict=True))

    def __getitem__(self, index: int) -> torch.Tensor:
        """Crop ``index``: (crop_samples,) float32.

        Raises:
            CropError: more than 5 % of the draws are damaged, or all draws for this crop.
        """
        if index < 0:
            raise IndexError(f"crop {index}: indices count from 0")
        worker = get_worker_info()
        count = self._counts[0 if worker is None else 1 + worker.id % (_MAX_WORKERS - 1)].numpy()
        # Raw 64-bit words, whose values and place in the stream are the same in all releases of NumPy.
        philox = np.random.Philox(key=self._key, counter=index << 64)
        words = philox.random_raw(2 * (REDRAWS + 1)).tolist()
        speed = self._speeds[int(philox.random_raw()) * len(self._speeds) >> 64]
        silent: tuple[NDArray[np.float32], bool] | None = None
        for place, offset in zip(words[::2], words[1::2], strict=True):
            row = int(np.searchsorted(self._ends, place * int(self._ends[-1]) >> 64, side="right"))
            spare = self._reader.length(row, speed) - self.crop_samples
            first = offset * (max(0, spare) + 1) >> 64
            try:
                crop = self._reader.read(row, first, self.crop_samples, speed)
            except DamagedFile as error:
                self._report(row, error, count)
                continue
            peak = float(np.abs(crop).max())
            if peak >= _SILENCE:
                if self._equalizer_db:
                    gains = philox.random_raw(len(EQUALIZER_HZ)) / 2.0**63 - 1
                    crop = _equalized(crop, self.sample_rate, self._equalizer_db * gains)
                    peak = float(np.abs(crop).max())
                return self._finish(crop, peak, spare < 0, count)
            count[_COUNTS.index("silent_redrawn")] += 1
            silent = crop, spare < 0
        if silent is None:
            raise CropError(
                f"{REDRAWS + 1} files drawn in a row are damaged or gone, the last"
                f" {str(self.manifest.path(row))!r}; replace or remove them and build the manifest again"
            )
        count[_COUNTS.index("silent_redrawn")] -= 1
        count[_COUNTS.index("silent_kept")] += 1
        return self._finish(silent[0], 0.0, silent[1], count)

    def _finish(
        self, crop: NDArray[np.float32], peak: float, short: bool, count: NDArray[np.int64]
    ) -> torch.Tensor:
        count[_COUNTS.index("crops")] += 1
        count[_COUNTS.index("padded")] += short
        count[_COUNTS.index("over_full_scale")] += peak > 1
        count[_COUNTS.index("clipped")] += peak > 0.999 and _is_clipped(crop)
        if peak > 1:
            crop = crop / np.float32(peak)
        return torch.from_numpy(np.pad(crop, (0, self.crop_samples - len(crop))))

    def _report(self, row: int, error: DamagedFile, count: NDArray[np.int64]) -> None:
        if row not in self._reported:
            self._reported.add(row)
            _log.warning("left out of training: %s", error)
        column = _COUNTS.index("damaged")
        count[column] += 1
        drawn = int(count[0] + count[column])
        if drawn >= 200 and count[column] > DAMAGED_LIMIT * drawn:
            raise CropError(
                f"{count[column]} of {drawn} crops drawn are of damaged files (allowed: {DAMAGED_LIMIT:.0%}),"
                f" the last: {error}; replace or remove them and build the manifest again"
            )


def _equalized(
    crop: NDArray[np.float32], sample_rate: int, gains_db: NDArray[np.float64]
) -> NDArray[np.float32]:
    """See `CropDataset`. The filter is circular: the ends affect each other only for some milliseconds."""
    places = _equalizer_places(len(crop), sample_rate)
    curve = np.interp(places, np.log(EQUALIZER_HZ), gains_db).astype(np.float32)
    return np.fft.irfft(np.fft.rfft(crop) * 10 ** (curve / 20), len(crop)).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _equalizer_places(samples: int, sample_rate: int) -> NDArray[np.float64]:
    """Logarithms of the frequencies of a spectrum's bins."""
    return np.log(np.fft.rfftfreq(samples, 1 / sample_rate).clip(min=1.0))


def _is_clipped(crop: NDArray[np.float32]) -> bool:
    """Whether 4 samples in a row have the same value at or beyond full scale (32767 / 32768 is at it)."""
    same = (np.abs(crop[1:]) > 0.9999) & (crop[1:] == crop[:-1])
    return bool((same[2:] & same[1:-1] & same[:-2]).any())


def validation_clips(
    manifest: Manifest, *, count: int, duration_s: float, sample_rate: int, seed: int
) -> list[tuple[str, torch.Tensor]]:
    """Fixed excerpts to validate on: up to ``count`` times (id, float32 of shape (samples,)).

    One of each recording in an order that ``seed`` decides, then a second one of each and so on; within a
    recording in random order among the places that lie whole excerpts apart. Silent ones (below -60 dBFS) are
    skipped. They are mixed and resampled as for training, but keep their level. Ids are ``{path}@{start}s``.

    Raises:
        UserError: no such excerpt exists, or a file is damaged.
    """
    samples = math.floor(duration_s * sample_rate + 0.5)
    if count < 1 or samples < 1:
        raise UserError(f"{count} validation clips of {duration_s:g} s: give at least one, of more than 0 s")
    reader = Recordings(manifest, sample_rate, None)
    clips: list[tuple[str, torch.Tensor]] = []
    for row, first in _places(manifest, reader.lengths // samples, samples, seed):
        try:
            clip = reader.read(row, first, samples)
        except DamagedFile as error:
            raise UserError(f"validation clip: {error}") from error
        if np.abs(clip).max() >= _SILENCE:
            clips.append((f"{manifest.id(row)}@{first / sample_rate:g}s", torch.from_numpy(clip)))
        if len(clips) == count:
            return clips
    if not clips:
        raise UserError(
            f"no held-out recording has {duration_s:g} s of sound to validate on: ask for shorter excerpts"
            " (run.validation_s), or hold out more (data.held_out)"
        )
    return clips


def _places(
    manifest: Manifest, slots: NDArray[np.int64], samples: int, seed: int
) -> Iterator[tuple[int, int]]:
    """(file, first sample), one from each recording in turn until all are used."""
    recordings, which = np.unique(manifest.files["recording"], return_inverse=True)
    rows = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    left: list[Iterator[tuple[int, int]]] = []
    for recording in seeded_order(recordings, seed):
        ours = [(int(row), k * samples) for row in rows[recording] for k in range(int(slots[row]))]
        words = np.random.Philox(key=[seed % 2**64, int(recordings[recording])]).random_raw(len(ours))
        left.append(iter([ours[place] for place in np.argsort(words)]))
    while left:
        still = []
        for places in left:
            place = next(places, None)
            if place is not None:
                yield place
                still.append(places)
        left = still


def _source(first: int, count: int, rate: int, target: int, length: int) -> tuple[int, int, int]:
    """Input for ``count`` samples from ``first`` on at rate ``target``, of ``length`` samples at ``rate``.

    Returns:
        Start and stop of the input samples, and how many output samples to drop at the start. The first is
        where samples of both rates coincide, far enough away for the filter.
    """
    common = math.gcd(rate, target)
    step, step_out = rate // common, target // common
    margin = _MARGIN * max(1, -(-rate // target))
    start = max(0, (first * rate // target - margin) // step)
    stop = min(length, -(-(first + count) * rate // target) + margin)
    return start * step, stop, first - start * step_out


class Recordings:
    """The files of a manifest as mono at one sample rate, whole or in parts.

    A part is the slice of the whole file resampled: the same bits for all but odd ratios of the rates, else
    to 1e-5.

    Args:
        manifest: the files, called by their index in it.
        sample_rate: Hz.
        cache: see `CropDataset`.

    Attributes:
        lengths: (files,) samples at this rate.
        cache_bytes: size of the complete cache on disk.

    Raises:
        UserError: the audio is not where it was, or the disk has no room for the cache.
    """

    def __init__(self, manifest: Manifest, sample_rate: int, cache: Path | None) -> None:
        self._manifest, self._sample_rate, self._cache = manifest, sample_rate, cache
        if not manifest.root.is_dir():
            raise UserError(
                f"the audio is no longer in '{manifest.root}'; bring it back or build the manifest again"
            )
        files = manifest.files
        rates = files["sample_rate"].astype(np.int64)
        # As `audio.resampled_length`.
        self.lengths = np.maximum(1, (2 * files["num_samples"] * sample_rate + rates) // (2 * rates))
        self.cache_bytes = int(4 * self.lengths[~files["seekable"]].sum())
        if cache is not None and self.cache_bytes:
            self._check_room(cache)

    def length(self, row: int, speed: float = 1.0) -> int:
        """Samples of the file at this sample rate, played at ``speed``."""
        return audio.resampled_length(int(self.lengths[row]), self._taken(speed), self._sample_rate)

    def _taken(self, speed: float) -> int:
        """The sample rate to assume for the samples, so that they play at ``speed``."""
        return round(speed * self._sample_rate)

    def read(self, row: int, first: int, count: int, speed: float = 1.0) -> NDArray[np.float32]:
        """Samples from ``first`` on, at this sample rate: (count,), fewer where the file ends.

        Args:
            row: number of the file in the manifest.
            first, count: of the file as it is played at ``speed``.
            speed: a tape's: at 2 it is half as long and an octave higher.

        Raises:
            DamagedFile: it cannot be read as the manifest says.
            UserError: the cache cannot be written.
        """
        count = min(count, self.length(row, speed) - first)
        if speed == 1:
            return self._read(row, first, count)
        start, stop, skipped = _source(
            first, count, self._taken(speed), self._sample_rate, int(self.lengths[row])
        )
        part = self._read(row, start, stop - start)
        return audio.resample(part, self._taken(speed), self._sample_rate)[skipped:][:count]

    def _read(self, row: int, first: int, count: int) -> NDArray[np.float32]:
        """`read` at the file's own speed, of what is there."""
        if self._cache is not None and not self._manifest.files["seekable"][row]:
            return np.array(self._cached(row, self._cache)[first : first + count])
        file = self._manifest.files[row]
        rate, target, length = int(file["sample_rate"]), self._sample_rate, int(file["num_samples"])
        if rate == target:
            return self._decode(row, first, first + count)
        start, stop, skipped = _source(first, count, rate, target, length)
        part = audio.resample(self._decode(row, start, stop), rate, target)
        return part[skipped:][:count]

    def _decode(self, row: int, first: int, stop: int) -> NDArray[np.float32]:
        """Mono samples ``first`` to ``stop`` of the file."""
        path, rate = self._manifest.path(row), int(self._manifest.files["sample_rate"][row])
        try:
            samples, found_rate = audio.read(path, first / rate, (stop - first) / rate)
        except UserError as error:
            raise DamagedFile(str(error)) from error
        if found_rate != rate or samples.shape[1] != stop - first:
            raise DamagedFile(f"{str(path)!r} is another file than when the manifest was built")
        return audio.mix(samples, 1)[0]

    # --- what is decoded once

    def _name(self, row: int) -> str:
        file = self._manifest.files[row]
        text = f"{self._manifest.path(row)} {file['size']} {file['mtime_ns']} {self._sample_rate}"
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return f"{digest[:2]}/{digest}.npy"

    def _cached(self, row: int, cache: Path) -> NDArray[np.float32]:
        path = cache / self._name(row)
        length = int(self.lengths[row])
        try:
            samples: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
            if samples.shape == (length,) and samples.dtype == np.float32:
                return samples
        except (OSError, ValueError, EOFError):  # missing, or cut short by a power failure
            pass
        with os_errors(f"cannot write the cache '{cache}'"):
            path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": (length,)}
            np.lib.format.write_array_header_1_0(stream, header)
            for block in self.whole(row):
                stream.write(block.tobytes())
        return self._cached(row, cache)

    def whole(self, row: int) -> Iterator[NDArray[np.float32]]:
        """The whole file, in blocks (1, samples), in memory that does not grow with it.

        Raises:
            DamagedFile: it cannot be read as the manifest says; what came before is of no use then.
        """
        path, file = self._manifest.path(row), self._manifest.files[row]
        length, decoded, given = int(file["num_samples"]), 0, 0

        def mono() -> Iterator[NDArray[np.float32]]:
            nonlocal decoded
            for block in audio.blocks(path):
                decoded += block.shape[1]
                if decoded > length:
                    break
                yield audio.mix(block, 1)

        wanted = int(self.lengths[row])
        try:
            for part in resampled_blocks(mono(), int(file["sample_rate"]), self._sample_rate, length, wanted):
                given += part.shape[1]
                yield part
        except UserError as error:
            raise DamagedFile(str(error)) from error
        if (decoded, given) != (length, wanted):
            raise DamagedFile(f"{str(path)!r} is another file than when the manifest was built")

    def _check_room(self, cache: Path) -> None:
        with os_errors(f"cannot use the cache '{cache}'"):
            cache.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(cache).free
        if self.cache_bytes <= free:
            return
        rows = np.flatnonzero(~self._manifest.files["seekable"]).tolist()
        missing = sum(4 * int(self.lengths[row]) for row in rows if not (cache / self._name(row)).exists())
        if missing > free:
            raise UserError(
                f"the cache of decoded audio needs {missing / 1e9:.1f} GB more, '{cache}' has"
                f" {free / 1e9:.1f} GB left: give a folder with more room, or convert the files to FLAC"
            )


class NoisyCrops(Dataset[tuple[torch.Tensor, ...]]):
    """Crops, each with `latent_noise` if any; workers draw it, so that a GPU does not wait."""

    def __init__(self, crops: CropDataset, frames: int, dim: int, level: float, seed: int) -> None:
        self._crops, self._frames, self._dim, self._level, self._seed = crops, frames, dim, level, seed

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        noise = latent_noise([index], self._frames, self._dim, self._level, self._seed)
        crop = self._crops[index]
        return (crop,) if noise is None else (crop, noise[0])


def latent_noise(
    indices: Sequence[int], frames: int, dim: int, level: float, seed: int
) -> torch.Tensor | None:
    """Noise on latents for the crops of these numbers, as `Generator.forward` adds it; None for ``level`` 0.

    Returns:
        (crops, frames, dim), normal; a crop's standard deviation is uniform between half of ``level`` and it.
    """
    if not level:
        return None
    rows = []
    for index in indices:
        random = np.random.Generator(np.random.Philox(key=[seed, 2 * index + 1]))
        deviation = level * random.uniform(0.5, 1.0)
        rows.append(deviation * random.standard_normal((frames, dim), dtype=np.float32))
    return torch.from_numpy(np.stack(rows).astype(np.float32))
