"""Resampling as OpenL3's authors did it, to the last bit: resampy's filter "kaiser_best".

It is band-limited interpolation after J. O. Smith (*Digital Audio Resampling*, CCRMA): a sinc under a Kaiser
window is tabulated, and values between two entries of the table are interpolated linearly. The result is a
float32 sum of float64 products, first of the samples before each output, from the nearest on, then of those
after it. Another order or precision changes the embeddings of parts 60 dB below a clip's maximum.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.signal.windows import kaiser

#: Entries of the table for each zero crossing of the sinc, and zero crossings on either side.
_PRECISION, _ZEROS = 8192, 50
#: Shape of the window and cutoff as a share of Nyquist's frequency, as resampy publishes them.
_BETA, _ROLLOFF = 12.984585247040012, 0.9173473712608761
#: Output samples per step, to bound the memory.
_BLOCK = 1 << 16


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    size = _PRECISION * _ZEROS
    sinc = _ROLLOFF * np.sinc(_ROLLOFF * np.linspace(0, _ZEROS, size + 1))
    return np.asarray(kaiser(2 * size + 1, _BETA)[size:] * sinc)


def resample(audio: np.ndarray, sample_rate: int, new_rate: int) -> np.ndarray:
    """(samples,) float32 at another rate: (floor(samples * new_rate / sample_rate),) float32."""
    ratio = new_rate / sample_rate
    scale = min(1.0, ratio)
    table = _table() if ratio >= 1 else ratio * _table()
    steps = np.diff(table, append=table[-1])
    # The table is read at whole entries, even if the filter is stretched to a lower cutoff.
    stride = int(scale * _PRECISION)
    result = np.zeros(int(len(audio) * float(new_rate) / float(sample_rate)), np.float32)
    times = np.arange(len(result)) * (1.0 / ratio)

    def add(sums: np.ndarray, fraction: np.ndarray, start: np.ndarray, step: int, count: np.ndarray) -> None:
        """Add one wing: ``count`` samples of each output from ``start`` on, ``fraction`` of a sample away."""
        place = fraction * _PRECISION
        entry = place.astype(np.int64)
        between = place - entry
        count = np.minimum(count, (len(table) - entry) // stride)
        for tap in range(int(count.max(initial=0))):
            # Most outputs have all taps; those at the clip's ends have fewer, and the last tap is not in all.
            some = slice(None) if tap < count.min() else np.flatnonzero(tap < count)
            at = entry[some] + tap * stride
            weight = table[at] + between[some] * steps[at]
            sums[some] += weight * audio[start[some] + step * tap]

    for first in range(0, len(result), _BLOCK):
        time = times[first : first + _BLOCK]
        before = time.astype(np.int64)
        fraction = scale * (time - before)
        sums = result[first : first + _BLOCK]
        add(sums, fraction, before, -1, before + 1)
        add(sums, scale - fraction, before + 1, 1, len(audio) - before - 1)
    return result
