"""Make stimuli from decoded audio: align, cut, fade, set the loudness, write files.

All signals of an item get the same region, fades and gain. The gain brings the reference to the target
loudness (ITU-R BS.1770). It is lowered for all signals if one would peak above -1 dBFS.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from evaluation.engine.alignment import apply_delay
from mushra.anchors import make_anchor, removed_db
from mushra.config.pages import HIDDEN_REFERENCE
from mushra.faults import CLIPPED_RUN, longest_at_full_scale, reference_faults
from qincodec import audio
from qincodec.audio import Audio
from qincodec.core.errors import UserError
from qincodec.core.files import file_sha256

#: Length of raised-cosine fades at ends where a recording was cut.
FADE_S = 0.01
#: Limit of the true peak of all signals.
PEAK_DBFS = -1.0
#: Length of a block of BS.1770; a shorter excerpt has no loudness.
MIN_EXCERPT_S = 0.4
#: Number of channels -> index of each among L, R, C, Ls, Rs, which BS.1770 weights by 1, 1, 1, 1.41, 1.41;
#: None is the LFE channel, which has no weight. Files have the orders of WAV, FLAC and browsers: L R Ls Rs
#: for 4 channels, L R C LFE Ls Rs for 6.
_PLACES = {
    1: (0,),
    2: (0, 1),
    3: (0, 1, 2),
    4: (0, 1, 3, 4),
    5: (0, 1, 2, 3, 4),
    6: (0, 1, 2, None, 3, 4),
}
#: Files have no common order for more channels.
MAX_CHANNELS = max(_PLACES)
#: An item's own delay replaces that of its condition only if it increases the correlation by this much.
OWN_DELAY_GAIN = 0.02
#: If the energy that an anchor lacks is below this, dB of its reference, the anchor sounds like it.
INAUDIBLE_DB = -50.0

_OVERSAMPLING = 4


class Unsuitable(UserError):
    """This excerpt cannot be an item; another one may be."""


@dataclass
class Raw:
    """An excerpt with some margin, as decoded.

    Attributes:
        sample_rate: of all signals, Hz.
        reference: float32 (channels, samples).
        decoded: label of a condition -> same shape.
        own_delays: label -> delay as estimated from this signal alone, samples; None without an estimate.
        first, stop: region of the excerpt itself, samples.
        cut_start, cut_stop: whether the recording continues beyond the region's ends.
        notes: notes about the processing of the signals.
        name: name of the reference's file.
    """

    sample_rate: int
    reference: Audio
    decoded: dict[str, Audio]
    own_delays: dict[str, int | None]
    first: int
    stop: int
    cut_start: bool
    cut_stop: bool
    notes: list[str] = field(default_factory=list)
    name: str = HIDDEN_REFERENCE


@dataclass
class Item:
    """A finished item.

    Attributes:
        sample_rate: Hz.
        duration_s: of each signal.
        signals: condition ("reference", labels, "anchor35", ...) -> float32 (channels, samples).
        offset_s: how much later than requested the excerpt begins, because a delay was removed at its edge.
        loudness_lufs: loudness of the reference before the gain.
        gain_db: gain of all signals.
        reduced_db: reduction of the gain that the peak required; 0 if none.
        peak_dbfs: highest true peak of all signals after the gain.
        delays: label -> removed delay, samples.
        levels_db: label -> loudness relative to the reference; None below the gate. Only for the report: all
            signals have the same gain.
        removed_db: anchor -> energy of what it lacks, relative to the reference.
        warnings: what the experimenter should check.
    """

    sample_rate: int
    duration_s: float
    signals: dict[str, Audio]
    offset_s: float
    loudness_lufs: float
    gain_db: float
    reduced_db: float
    peak_dbfs: float
    delays: dict[str, int]
    levels_db: dict[str, float | None]
    removed_db: dict[str, float]
    warnings: list[str]


def make_item(raw: Raw, delays: Mapping[str, int], anchors: Sequence[str], target_lufs: float | None) -> Item:
    """Align, cut, fade, and bring to the target loudness.

    Args:
        raw: the excerpt.
        delays: label -> delay of that condition, samples, positive if late. The excerpt's own estimate
            replaces it only if the correlation is higher by `OWN_DELAY_GAIN` with it; a warning says so.
        anchors: names of the anchors to make.
        target_lufs: loudness of the reference; None: no gain, except to keep peaks below -1 dBFS.

    Raises:
        Unsuitable: a signal is silent or not finite, or the reference is too short or quiet for BS.1770.
        UserError: the sample rate is too low for an anchor.
    """
    notes = list(raw.notes)
    excerpt = raw.reference[:, raw.first : raw.stop]
    if np.isfinite(excerpt).all() and excerpt.any():
        notes += [f"reference '{raw.name}' {fault}" for fault in reference_faults(excerpt)]
    _check_signals(raw, notes)
    chosen = {label: _choose_delay(raw, label, delays.get(label, 0), notes) for label in raw.decoded}
    # Nothing is filled in: if an alignment lacks samples at an end, all signals are shortened there.
    first = max([raw.first, *(-delay for delay in chosen.values())])
    stop = min([raw.stop, *(raw.reference.shape[1] - delay for delay in chosen.values())])
    if (stop - first) / raw.sample_rate < MIN_EXCERPT_S:
        raise Unsuitable(
            f"the excerpt has {max(0, stop - first) / raw.sample_rate:.2f} s, too short for a loudness; give"
            f" at least {MIN_EXCERPT_S} s"
        )
    reference = raw.reference[:, first:stop]
    signals = {HIDDEN_REFERENCE: reference}
    for label, decoded in raw.decoded.items():
        signals[label] = decoded[:, first + chosen[label] : stop + chosen[label]]
        if np.array_equal(signals[label], reference):
            notes.append(f"'{label}' is the reference itself, sample for sample; is that meant?")
    silent = [name for name, samples in signals.items() if not samples.any()]
    if silent:
        raise Unsuitable(f"'{silent[0]}' is silent in this excerpt")
    removed: dict[str, float] = {}
    for name in anchors:
        signals[name] = make_anchor(reference, raw.sample_rate, name)
        removed[name] = removed_db(reference, signals[name])
        if removed[name] < INAUDIBLE_DB:
            notes.append(
                f"{name} lacks only {removed[name]:.0f} dB of the reference and may sound like it: the"
                " recording has almost no energy above its cutoff"
            )
    cut_start, cut_stop = raw.cut_start or first > raw.first, raw.cut_stop or stop < raw.stop
    fade = _fades(stop - first, raw.sample_rate, cut_start, cut_stop)
    signals = {name: samples * fade for name, samples in signals.items()}
    loudness = _loudness(reference, raw.sample_rate)
    if loudness is None:
        raise Unsuitable("the reference is below the gate of -70 LUFS in this excerpt: too quiet to align")
    levels: dict[str, float | None] = {}
    for label in raw.decoded:
        own = _loudness(signals[label], raw.sample_rate)
        levels[label] = None if own is None else own - loudness
    peak = max(true_peak_dbfs(samples) for samples in signals.values())
    wanted = 0.0 if target_lufs is None else target_lufs - loudness
    gain = min(wanted, PEAK_DBFS - peak)
    if wanted > 20:
        notes.append(f"the excerpt is quiet ({loudness:.1f} LUFS) and gets {gain:+.1f} dB; its noise, too")
    factor = np.float32(10 ** (gain / 20))
    return Item(
        sample_rate=raw.sample_rate,
        duration_s=(stop - first) / raw.sample_rate,
        signals={name: samples * factor for name, samples in signals.items()},
        offset_s=(first - raw.first) / raw.sample_rate,
        loudness_lufs=loudness,
        gain_db=gain,
        reduced_db=wanted - gain,
        peak_dbfs=peak + gain,
        delays=chosen,
        levels_db=levels,
        removed_db=removed,
        warnings=notes,
    )


def true_peak_dbfs(samples: Audio) -> float:
    """Highest peak of the samples and between them (at 4 times the rate), dBFS."""
    between = audio.resample(samples, 1, _OVERSAMPLING)
    return max(audio.peak_dbfs(samples), audio.peak_dbfs(between))


def loudest_start(samples: Audio, length: int, step: int) -> int:
    """First sample, a multiple of ``step``, of the ``length`` samples with the most energy."""
    energy = np.concatenate(([0.0], np.cumsum(np.square(samples, dtype=np.float64).sum(axis=0))))
    starts = np.arange(0, max(1, samples.shape[1] - length + 1), step)
    return int(starts[np.argmax(energy[np.minimum(starts + length, len(energy) - 1)] - energy[starts])])


def write_stimulus(path: Path, samples: Audio, sample_rate: int, bits: int, dither_seed: str) -> str:
    """Write a ``.wav`` or ``.flac`` file of 16 bits with triangular dither, or of 24; return its SHA-256.

    The dither spans two steps, depends on ``dither_seed`` alone, and makes mean and power of the rounding
    error independent of the signal (Lipshitz, Wannamaker, Vanderkooy 1992).
    """
    if bits == 16:
        digest = hashlib.sha256(dither_seed.encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        noise = generator.random(samples.shape) + generator.random(samples.shape) - 1
        samples = (samples + noise * 2.0**-15).astype(np.float32)
    audio.write(path, samples, sample_rate, "pcm16" if bits == 16 else "pcm24")
    return file_sha256(path)


def _loudness(samples: Audio, sample_rate: int) -> float | None:
    """Integrated loudness by ITU-R BS.1770-4, LUFS; None if all is below the gate of -70 LUFS.

    ``samples``: (channels, samples), at least a block of 0.4 s, of at most `MAX_CHANNELS`.
    """
    import pyloudnorm

    places = _PLACES[len(samples)]
    placed = np.zeros((1 + max(place for place in places if place is not None), samples.shape[1]))
    for place, channel in zip(places, samples, strict=True):
        if place is not None:
            placed[place] = channel
    with np.errstate(divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        loudness = float(pyloudnorm.Meter(sample_rate).integrated_loudness(placed.T))
    return loudness if math.isfinite(loudness) else None


def _check_signals(raw: Raw, notes: list[str]) -> None:
    """Refuse signals that nobody should hear; note clipping."""
    for name, samples in {HIDDEN_REFERENCE: raw.reference, **raw.decoded}.items():
        if samples.shape != raw.reference.shape:
            raise Unsuitable(
                f"'{name}' has {samples.shape[0]} x {samples.shape[1]} samples, the reference"
                f" {raw.reference.shape[0]} x {raw.reference.shape[1]}"
            )
        if not np.isfinite(samples).all():
            raise Unsuitable(f"'{name}' has NaN or infinite samples")
        flat = longest_at_full_scale(samples)
        if name != HIDDEN_REFERENCE and flat >= CLIPPED_RUN:
            notes.append(f"'{name}' is clipped: up to {flat} samples in a row at full scale")


def _choose_delay(raw: Raw, label: str, delay: int, notes: list[str]) -> int:
    """Delay to remove from a signal: its condition's, or its own if that fits clearly better."""
    own = raw.own_delays.get(label)
    if own is None or own == delay:
        return delay
    reference, other = torch.from_numpy(raw.reference), torch.from_numpy(raw.decoded[label])
    gained = _correlation(reference, other, own) - _correlation(reference, other, delay)
    if gained < OWN_DELAY_GAIN:
        return delay
    notes.append(f"'{label}' has a delay of {own} samples in this item, {delay} in the others; {own} removed")
    return own


def _correlation(reference: torch.Tensor, decoded: torch.Tensor, delay: int) -> float:
    first, second = apply_delay(reference.double(), decoded.double(), delay)
    power = float(first.square().sum() * second.square().sum())
    return abs(float((first * second).sum())) / math.sqrt(power) if power > 0 else 0.0


def _fades(length: int, sample_rate: int, fade_in: bool, fade_out: bool) -> Audio:
    """Factor of each sample, (samples,): raised cosines at the ends that were cut."""
    factor = np.ones(length, np.float32)
    count = min(round(FADE_S * sample_rate), length // 2)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / count)).astype(np.float32)
    if fade_in:
        factor[:count] = ramp
    if fade_out:
        factor[length - count :] = ramp[::-1]
    return factor
