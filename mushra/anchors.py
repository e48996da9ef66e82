"""The anchors of Recommendation ITU-R BS.1534-3: the reference, low-passed at 3.5 and at 7 kHz.

The standard's mask of the 3.5 kHz filter: within +-0.1 dB up to 3.5 kHz, at least 25 dB down at 4 kHz, at
least 50 dB down from 4.5 kHz on. The mask of the 7 kHz filter is the same with doubled frequencies. Our
filters have linear phase and odd length, are designed with a Kaiser window, and their delay is removed
exactly. Their transition has the same width in Hz at every sample rate, so that an anchor sounds the same at
all rates.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from baselines.lazy import Lazy
from mushra.config.pages import ANCHOR35, ANCHOR70
from qincodec.audio import Audio
from qincodec.core.errors import UserError

if TYPE_CHECKING:
    from scipy import signal
else:  # it takes half of the time of `mushra check`, which makes no anchor
    signal = Lazy("scipy.signal")

#: Name of an anchor -> end of its pass band in Hz.
CUTOFF_HZ = {ANCHOR35: 3500.0, ANCHOR70: 7000.0}

#: Beginning of the stop band, relative to the cutoff.
_STOP = 8 / 7
#: Our filters' attenuation from the standard's first point (4 kHz) on; their pass-band ripple is about 0.007
#: dB.
_DESIGN_ATTENUATION_DB = 62.0


@lru_cache(maxsize=32)
def anchor_filter(name: str, sample_rate: int) -> NDArray[np.float64]:
    """Coefficients of an anchor's filter: symmetric, odd in number, delay ``(len - 1) / 2`` samples.

    Args:
        name: "anchor35" or "anchor70".
        sample_rate: Hz.

    Raises:
        UserError: half the sample rate is below 8/7 of the cutoff (4 or 8 kHz), where the stop band begins.
    """
    cutoff = CUTOFF_HZ[name]
    stop = cutoff * _STOP
    if sample_rate / 2 < stop:
        raise UserError(
            f"{name} needs a sample rate of at least {2 * stop:g} Hz, where its stop band begins; the"
            f" audio has {sample_rate} Hz: leave this anchor out or create the test at a higher rate"
        )
    width = (stop - cutoff) / (sample_rate / 2)
    count, beta = signal.kaiserord(_DESIGN_ATTENUATION_DB, width)
    taps = signal.firwin(count | 1, (cutoff + stop) / 2, window=("kaiser", beta), fs=sample_rate)
    taps.setflags(write=False)
    return np.asarray(taps, dtype=np.float64)


def make_anchor(reference: Audio, sample_rate: int, name: str) -> Audio:
    """The anchor ``name`` of a reference: float32, same shape (channels, samples), no delay.

    The signal is assumed to be zero beyond its ends. Raises the errors of `anchor_filter`.

    Examples:
        >>> make_anchor(np.ones((1, 48000), np.float32), 48000, "anchor35").shape
        (1, 48000)
    """
    taps = anchor_filter(name, sample_rate)
    samples = np.asarray(reference, dtype=np.float64)
    filtered = signal.oaconvolve(samples, taps[np.newaxis], mode="full", axes=-1)
    delay = (len(taps) - 1) // 2
    return filtered[..., delay : delay + samples.shape[-1]].astype(np.float32)


def exceeds_pcm(anchor: Audio) -> bool:
    """Whether an anchor reaches full scale (that of 16 bits less their dither)."""
    return float(np.abs(anchor).max()) >= 1 - 2.0**-14


def too_loud_for_flac(name: str) -> str:
    """Message for an anchor that `exceeds_pcm` and therefore cannot be made of a FLAC reference."""
    return (
        f"its {name} exceeds full scale, which FLAC cannot hold: lower the level of all files of the page"
        " alike, by 1 dB or more, or give them as WAV"
    )


def removed_db(reference: Audio, anchor: Audio) -> float:
    """Energy that the anchor lacks, relative to the reference, in dB; -inf if nothing was removed."""
    whole = float(np.sum(np.square(reference, dtype=np.float64)))
    removed = float(np.sum(np.square(np.asarray(reference, np.float64) - anchor)))
    return 10 * math.log10(removed / whole) if removed > 0 and whole > 0 else -math.inf
