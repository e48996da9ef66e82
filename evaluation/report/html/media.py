"""Spectrograms and audio files of a report."""

from __future__ import annotations

import functools
import io
import math
import re
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qincodec.audio import Audio
from qincodec.distances import mel_filter_bank

#: Size of a spectrogram in pixels: moments and mel bands.
WIDTH, BANDS = 480, 96
#: Range of a spectrogram, and of a difference spectrogram in each direction, dB.
RANGE_DB, DIFFERENCE_DB = 80.0, 24.0
#: Approximate length of the window, seconds; bands at low frequencies are about 40 Hz apart.
_WINDOW_S = 0.046
_QUALITY = 70
#: Peak of a clip whose gain was reduced because it exceeded full scale.
_CEILING = 10 ** (-0.1 / 20)

Levels = NDArray[np.float32]


def levels(samples: Audio, sample_rate: int) -> Levels:
    """(BANDS, WIDTH) mean power in each mel band and moment, dB re a full-scale sine; channels averaged.

    Bands are those of `qincodec.distances.mel_filter_bank`, lowest first. A Hann window of about 46 ms is
    centred on WIDTH moments evenly spaced over the signal, which is zero beyond its ends.
    """
    window, hann, bank = _constants(sample_rate)
    padded = np.pad(samples, ((0, 0), (window // 2, window // 2)))
    centres = np.linspace(0, samples.shape[1] - 1, WIDTH).round().astype(int)
    frames = padded[:, centres[:, None] + np.arange(window)]  # (channels, WIDTH, window)
    spectrum = np.abs(np.fft.rfft(frames * hann)) * (2 / hann.sum())
    power = (spectrum**2).mean(axis=0) @ bank.T
    return (10 * np.log10(power.T + 1e-20)).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _constants(sample_rate: int) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    window = 2 ** round(math.log2(_WINDOW_S * sample_rate))
    bank = mel_filter_bank(sample_rate, window, BANDS).numpy()
    return window, np.hanning(window + 1)[:-1], bank / bank.sum(axis=1, keepdims=True)


def spectrogram(power_db: Levels, top_db: float) -> bytes:
    """WebP image of what `levels` returned, black at `RANGE_DB` below ``top_db`` and less."""
    return _image((power_db - top_db) / RANGE_DB + 1, "inferno")


def difference_spectrogram(decoded_db: Levels, reference_db: Levels, top_db: float) -> bytes:
    """WebP image of decoded minus reference: red is added, blue is missing, grey is no difference.

    Both are raised to `RANGE_DB` below ``top_db`` first, so differences between inaudible levels do not show.
    """
    floor = top_db - RANGE_DB
    difference = np.maximum(decoded_db, floor) - np.maximum(reference_db, floor)
    return _image(difference / (2 * DIFFERENCE_DB) + 0.5, "coolwarm")


def _image(values: NDArray[Any], colours: str) -> bytes:
    """WebP image of (bands, moments) values from 0 to 1, with the lowest band at the bottom."""
    pixels = matplotlib.colormaps[colours](np.clip(values[::-1], 0, 1), bytes=True)[..., :3]
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(data, "WEBP", quality=_QUALITY, method=4)
    return data.getvalue()


def frequency_ticks(sample_rate: int) -> list[tuple[str, float]]:
    """Labels of the frequency axis, and their heights as a share of a spectrogram's."""
    window, _, bank = _constants(sample_rate)
    hz = bank @ np.linspace(0, sample_rate / 2, window // 2 + 1)
    ticks = [(500, "0.5"), (1000, "1"), (2000, "2"), (4000, "4"), (8000, "8"), (16000, "16 kHz")]
    inside = [(label, float(np.interp(f, hz, np.arange(BANDS) + 0.5) / BANDS)) for f, label in ticks]
    return [entry for entry, (f, _) in zip(inside, ticks, strict=True) if hz[0] < f < 0.95 * hz[-1]]


def playback_gain(signals: list[Audio]) -> float:
    """Factor for all signals of a clip that avoids clipping: 1 unless one exceeds full scale."""
    peak = max((float(np.abs(signal).max()) for signal in signals), default=0.0)
    return 1.0 if peak <= 1.0 else _CEILING / peak


def file_title(text: str) -> str:
    """Short ASCII part of a file name, valid on every system, archive and web server."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[-60:].strip("-.") or "clip"
