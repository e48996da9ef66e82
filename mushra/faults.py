"""Faults of a reference recording.

A fault of a reference is in all conditions of its trial or, worse, in some: codecs remove an offset or mix
channels. The scores do not show it. The limits were set on about 1,000 openly licensed recordings (speech,
music, effects, one-shot samples), so that every reported recording has the fault. In a validation set of 129
these are 3: a whale's hydrophone and a tabla with an offset, and a clipped drum loop.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.floating[Any]]

#: A quieter recording counts as silent: at the loudness of a test (-23 LUFS), 57 dB more, it would be noise.
SILENCE_DBFS = -80.0
#: A mean above 0.01 of full scale, or above a tenth of the level without it (and above 0.001), is an offset:
#: it clicks at switches and reduces the headroom. Good recordings are about 20 dB below both limits. The
#: median over parts is used, because a single impulse also has a mean.
OFFSET = 0.01
RELATIVE_OFFSET = 0.1
_LEAST_OFFSET = 0.001
_PARTS = 15
#: Equal samples in a row at full scale (at least `AT_FULL_SCALE` of it) that count as clipping: a waveform
#: that is not clipped has one, by chance two.
CLIPPED_RUN = 3
AT_FULL_SCALE = 0.9999
#: A larger difference of the channels' levels, dB, is a fault or a single hard-panned source; finished stereo
#: recordings have up to 9 dB over some seconds.
IMBALANCE_DB = 10.0
#: Channels with a lower correlation cancel each other in mono by more than 13 dB; wide stereo is above.
ANTIPHASE = -0.9


def reference_faults(samples: Samples, full_scale: float = 1.0, slack: float = 0.0) -> list[str]:
    """Faults of a recording, each as "has a DC offset of ...".

    Args:
        samples: float (channels, samples), at least one sample.
        full_scale: full scale of the recording in ``samples``, that is, the gain that was applied to it.
        slack: largest difference of samples that count as equal, for dithered recordings.

    The constants of this module are the limits. Clipping is not found if the recording was resampled, mixed
    or turned down afterwards.
    """
    audio = np.asarray(samples, dtype=np.float64) / full_scale
    level = _dbfs(audio)
    if level < SILENCE_DBFS:
        shown = "all samples are 0" if level == -math.inf else f"{level:.0f} dBFS RMS"
        return [f"is silent ({shown}; at least {SILENCE_DBFS:g} dBFS is sound)"]
    faults = []
    means = _offsets(audio)
    levels = [_dbfs(channel) for channel in audio - means[:, np.newaxis]]
    for number, (mean, besides) in enumerate(zip(means, levels, strict=True), start=1):
        relative = _LEAST_OFFSET if besides < SILENCE_DBFS else RELATIVE_OFFSET * 10 ** (besides / 20)
        if abs(mean) > OFFSET or abs(mean) > max(_LEAST_OFFSET, relative):
            where = f" in channel {number}" if len(audio) > 1 else ""
            sound = f"its sound has {besides:.0f} dBFS RMS" if besides > SILENCE_DBFS else "nothing else"
            faults.append(
                f"has a DC offset of {mean:+.3f} of full scale{where} ({sound}); high-pass it or take another"
            )
    run = longest_at_full_scale(audio, slack / full_scale)
    if run >= CLIPPED_RUN:
        faults.append(f"is clipped: up to {run} samples in a row at full scale")
    if len(audio) == 2:
        faults += _stereo_faults(audio - means[:, np.newaxis], levels)
    return faults


def _offsets(audio: NDArray[np.float64]) -> NDArray[np.float64]:
    """(channels,): median of the means of equal parts."""
    length = max(1, audio.shape[1] // _PARTS)
    parts = audio[:, : audio.shape[1] // length * length].reshape(len(audio), -1, length)
    return np.asarray(np.median(parts.mean(axis=2), axis=1))


def longest_at_full_scale(samples: Samples, slack: float = 0.0) -> int:
    """Length of the longest run of equal samples (within ``slack``) at `AT_FULL_SCALE` or above."""
    longest = 0
    for channel in samples:
        still = np.abs(np.diff(channel, prepend=channel.dtype.type(0))) <= slack
        top = (np.abs(channel) >= AT_FULL_SCALE - slack) & still
        edges = np.flatnonzero(np.diff(np.concatenate(([0], top.astype(np.int8), [0]))))
        if len(edges):
            longest = max(longest, int((edges[1::2] - edges[::2]).max()) + 1)
    return longest


def _stereo_faults(audio: Samples, levels: list[float]) -> list[str]:
    quiet = int(np.argmin(levels))
    apart = levels[1 - quiet] - levels[quiet]
    if levels[quiet] < SILENCE_DBFS:
        return [f"has nothing in channel {quiet + 1} of 2"]
    if apart > IMBALANCE_DB:
        return [f"is {apart:.1f} dB quieter in channel {quiet + 1} than in channel {2 - quiet}"]
    correlation = float(np.corrcoef(audio[0], audio[1])[0, 1])
    if correlation < ANTIPHASE:
        return [f"has channels in antiphase (correlation {correlation:.2f}): one of them is inverted"]
    return []


def _dbfs(samples: Samples) -> float:
    """RMS level, dB relative to a constant 1.0."""
    power = float(np.mean(np.square(samples)))
    return 10 * math.log10(power) if power > 0 else -math.inf
