"""Delay and gain of a decoded signal against its reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from evaluation.metrics.checks import not_finite
from qincodec.distances import remove_mean

#: Peaks of the correlation this close to the highest, relatively, count as equally high.
PEAK_TOLERANCE = 1e-3
#: A tone shifted by half a period looks inverted; so inverted polarity must win by this much, relatively.
POLARITY_MARGIN = 0.05
#: Below this correlation there is nothing of the reference to align to.
LEAST_CORRELATION = 0.1
#: Least share of both signals' energy in the overlap; a shift that leaves less is not considered.
LEAST_OVERLAP_ENERGY = 0.1


@dataclass(frozen=True)
class Alignment:
    """What `estimate_delay` found for one item.

    Attributes:
        delay_samples: positive if the decoded signal is late; None if there is no estimate.
        gain_db: gain of the decoded signal at that delay, ``20 log10(|<r, d>| / <r, r>)``, dB; None with
            the delay.
        reason: why there is no estimate, or that the polarity is inverted; else None.
    """

    delay_samples: int | None
    gain_db: float | None
    reason: str | None = None


def level_dbfs(samples: torch.Tensor) -> float:
    """RMS of (channels, samples) about each channel's mean, dB of full scale, not below -200."""
    power = float(remove_mean(samples.double()).square().mean())
    return round(max(-200.0, 10 * math.log10(power) if power > 0 else -200.0), 2)


def estimate_delay(
    reference: torch.Tensor, decoded: torch.Tensor, sample_rate: int, max_delay_s: float = 0.1
) -> list[Alignment]:
    """Integer delay and gain per item, from the peak of the normalised cross-correlation.

    For every shift of up to ``max_delay_s``, and up to half the length, the correlation coefficient of what
    overlaps is computed, after the channels' means are removed and with all channels as one vector. The
    delay is its highest local maximum. Among maxima within 0.1 % of that, as periodic signals have them, it
    is the one of the smallest shift, of two such the higher one. A negative correlation counts only where it
    exceeds every positive one by 5 %: then the polarity is inverted, which ``reason`` says. SI-SDR and MS-Mel
    do not depend on the polarity.

    There is no estimate for a signal that is silent (constant) or not finite, for a correlation below 0.1,
    and where it is highest at the end of the range without a maximum there.

    Args:
        reference: (batch, channels, samples).
        decoded: same shape.
        sample_rate: Hz.
        max_delay_s: longest delay looked for, seconds.

    Returns:
        One `Alignment` per item.

    Raises:
        ValueError: the shapes differ.
    """
    if reference.shape != decoded.shape:
        raise ValueError(
            f"reference and decoded differ in shape: {tuple(reference.shape)}, {tuple(decoded.shape)}"
        )
    max_delay = min(round(max_delay_s * sample_rate), reference.shape[-1] // 2)
    reasons = zip(not_finite(reference, "reference"), not_finite(decoded, "output"), strict=True)
    return [
        Alignment(None, None, first or second) if first or second else _align(r, d, max_delay)
        for r, d, (first, second) in zip(reference, decoded, reasons, strict=True)
    ]


def apply_delay(
    reference: torch.Tensor, decoded: torch.Tensor, delay: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both signals cut to where they overlap when ``delay`` is taken out of the decoded one.

    Nothing is filled in: both lose ``|delay|`` samples.

    Args:
        reference: (..., samples).
        decoded: same length.
        delay: in samples, positive if the decoded signal is late.

    Returns:
        Views (..., samples - |delay|) of both.

    Raises:
        ValueError: lengths that differ, or nothing is left.
    """
    samples = reference.shape[-1]
    if decoded.shape[-1] != samples or abs(delay) >= samples:
        raise ValueError(
            f"cannot take a delay of {delay} samples out of signals of {samples} and {decoded.shape[-1]}"
        )
    if delay >= 0:
        return reference[..., : samples - delay], decoded[..., delay:]
    return reference[..., -delay:], decoded[..., : samples + delay]


def _align(reference: torch.Tensor, decoded: torch.Tensor, max_delay: int) -> Alignment:
    """`estimate_delay` for one item, (channels, samples)."""
    reference, decoded = remove_mean(reference), remove_mean(decoded)
    if not reference.any():
        return Alignment(None, None, "silent reference")
    if not decoded.any():
        return Alignment(None, None, "silent output")
    reach = max_delay + 1  # one more on each side tells whether the last shift is a maximum
    energy, decoded_energy = _overlap_energies(reference, decoded, reach)
    enough = (energy >= LEAST_OVERLAP_ENERGY * energy[reach]) & (
        decoded_energy >= LEAST_OVERLAP_ENERGY * decoded_energy[reach]
    )
    products = _cross_correlation(reference, decoded, reach)
    correlation = torch.where(enough, products / (energy * decoded_energy).sqrt(), 0.0)
    upright, inverted = _peak(correlation), _peak(-correlation)
    peak, height = upright
    flipped = inverted[1] > (1 + POLARITY_MARGIN) * height
    if flipped:
        peak, height = inverted
    if peak is None:
        return Alignment(None, None, f"no peak of the correlation within +-{max_delay} samples")
    if height < LEAST_CORRELATION:
        return Alignment(None, None, f"output does not resemble the reference (correlation {height:.2f})")
    delay = peak - reach
    r, d = apply_delay(reference, decoded, delay)
    gain = float((r * d).sum() / (r * r).sum())  # not from the transforms: identical signals get exactly 0 dB
    return Alignment(delay, 20 * math.log10(abs(gain)), "polarity is inverted" if flipped else None)


def _peak(correlation: torch.Tensor) -> tuple[int | None, float]:
    """Index and height of the chosen local maximum; the index is None where an end is higher than it."""
    inner = correlation[1:-1]
    is_peak = (inner >= correlation[:-2]) & (inner >= correlation[2:]) & (inner > 0)
    ends = max(float(correlation[0]), float(correlation[-1]))
    if not is_peak.any():
        return None, ends
    highest = float(inner[is_peak].max())
    if ends > (1 + PEAK_TOLERANCE) * highest:
        return None, ends
    candidates = (is_peak & (inner >= (1 - PEAK_TOLERANCE) * highest)).nonzero().flatten() + 1
    centre = len(correlation) // 2
    chosen = min(candidates.tolist(), key=lambda index: (abs(index - centre), -float(correlation[index])))
    return chosen, float(correlation[chosen])


def _cross_correlation(reference: torch.Tensor, decoded: torch.Tensor, reach: int) -> torch.Tensor:
    """``sum_n r[n] d[n + k]`` over samples and channels, for k from -reach to reach.

    Section by section: each section of the reference meets that of the decoded signal which is ``reach``
    longer on both sides, so no shift wraps around. Their spectra add up. Several times as fast as one long
    transform, and in little memory.
    """
    length = max(4096, 1 << (6 * reach).bit_length())
    step = length - 2 * reach
    count = -(-reference.shape[-1] // step)
    missing = count * step - reference.shape[-1]
    sections = functional.pad(reference, (0, missing)).unflatten(-1, (count, step))
    longer = functional.pad(decoded, (reach, missing + reach)).unfold(-1, length, step)
    spectrum = torch.zeros(length // 2 + 1, dtype=torch.complex128, device=reference.device)
    for r, d in zip(sections.split(16, 1), longer.split(16, 1), strict=True):
        spectrum += (torch.fft.rfft(r, length).conj() * torch.fft.rfft(d)).sum((0, 1))
    return torch.fft.irfft(spectrum, length)[: 2 * reach + 1]


def _overlap_energies(
    reference: torch.Tensor, decoded: torch.Tensor, reach: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Energies of both signals where they overlap, for shifts from -reach to reach."""

    def without_first(signal: torch.Tensor) -> torch.Tensor:
        energy = signal.square().sum(0)
        dropped = functional.pad(energy, (1, reach))[: reach + 1].cumsum(0)
        return energy.sum() - dropped

    # A positive shift k pairs r[:-k] with d[k:], a negative one the other way round.
    early_reference, late_reference = without_first(reference), without_first(reference.flip(-1))
    early_decoded, late_decoded = without_first(decoded), without_first(decoded.flip(-1))
    return (
        torch.cat([early_reference.flip(0)[:-1], late_reference]),
        torch.cat([late_decoded.flip(0)[:-1], early_decoded]),
    )
