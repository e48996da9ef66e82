"""Delay and gain of a decoded signal against its reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import fft
from torch.nn import functional

from evaluation.metrics.checks import not_finite
from qincodec.distances import remove_mean

#: Peaks of the correlation this close to the highest, relatively, count as equally high.
PEAK_TOLERANCE = 1e-3
#: A tone shifted by half a period looks inverted; so inverted polarity must win by this much, relatively.
POLARITY_MARGIN = 0.05
#: Below this correlation the decoded signal has too little of the reference to align to.
LEAST_CORRELATION = 0.1
#: Least share of both signals' energy in the overlap; a shift that leaves less is not considered.
LEAST_OVERLAP_ENERGY = 0.1
#: Several times the error of correlation coefficients in float32; closer cases are decided in float64.
FLOAT32_ERROR = 5e-6


@dataclass(frozen=True)
class Alignment:
    """Result of `estimate_delay` for one item.

    Attributes:
        delay_samples: positive if the decoded signal is late; None if it is unknown.
        gain_db: gain of the decoded signal at that delay, ``20 log10(|<r, d>| / <r, r>)``, dB; None with
            the delay.
        reason: why the delay is unknown, or that the polarity is inverted; else None.
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

    The correlation coefficient of the overlap is computed for every shift of up to ``max_delay_s``, and up to
    half the length. The channels' means are removed before, and all channels count as one vector. The delay
    is the highest local maximum. Periodic signals have several maxima within 0.1 % of it; the smallest shift
    is taken, and of two equal shifts the higher maximum. A negative correlation counts only if it exceeds
    every positive one by 5 %: then ``reason`` says that the polarity is inverted. SI-SDR and MS-Mel do not
    depend on the polarity.

    The delay is unknown if a signal is silent (constant) or not finite, if the correlation is below 0.1, or
    if it is highest at the end of the range without a maximum there.

    Args:
        reference: (batch, channels, samples).
        decoded: same shape.
        sample_rate: Hz.
        max_delay_s: longest delay to search for, seconds.

    Returns:
        One `Alignment` per item.

    Raises:
        ValueError: the shapes differ.
    """
    return Aligner(reference, sample_rate, max_delay_s).estimate(decoded)


class Aligner:
    """`estimate_delay` for references that are compared more than once: it keeps their spectra.

    Attributes:
        reference: as given.

    Args:
        reference: (batch, channels, samples), on the device to compute on.
        sample_rate: Hz.
        max_delay_s: longest delay to search for, seconds.
    """

    def __init__(self, reference: torch.Tensor, sample_rate: int, max_delay_s: float = 0.1) -> None:
        self.reference = reference
        self._max_delay = min(round(max_delay_s * sample_rate), reference.shape[-1] // 2)
        self._reasons = not_finite(reference, "reference")
        self._prepared: dict[int, _Reference] = {}

    def estimate(self, decoded: torch.Tensor) -> list[Alignment]:
        """`estimate_delay` for ``decoded`` (batch, channels, samples)."""
        if self.reference.shape != decoded.shape:
            raise ValueError(
                f"reference and decoded differ in shape: {tuple(self.reference.shape)}, "
                f"{tuple(decoded.shape)}"
            )
        return [self._align(index, item) for index, item in enumerate(decoded)]

    def _align(self, index: int, decoded: torch.Tensor) -> Alignment:
        if self._reasons[index]:
            return Alignment(None, None, self._reasons[index])
        reach = self._max_delay + 1  # one more on each side shows whether the last shift is a maximum
        if index not in self._prepared:
            self._prepared[index] = _Reference(_Signal(self.reference[index], torch.float32, reach))
        reference = self._prepared[index]
        quick = _Signal(decoded, torch.float32, reach, exact_energy=False)
        if not math.isfinite(quick.energy):
            (reason,) = not_finite(decoded[None], "output")
            if reason is not None:
                return Alignment(None, None, reason)
        clear = _clear_peak(_correlation(reference, quick))
        if clear is not None:
            return _alignment(reference.signal, quick, *clear)
        exact = _Reference(_Signal(self.reference[index], torch.float64, reach))
        return _align(exact, _Signal(decoded, torch.float64, reach), self._max_delay)


def apply_delay(
    reference: torch.Tensor, decoded: torch.Tensor, delay: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlap of both signals after ``delay`` is removed from the decoded one.

    Both lose ``|delay|`` samples; nothing is padded.

    Args:
        reference: (..., samples).
        decoded: same length.
        delay: in samples, positive if the decoded signal is late.

    Returns:
        Views (..., samples - |delay|) of both.

    Raises:
        ValueError: the lengths differ, or the overlap is empty.
    """
    samples = reference.shape[-1]
    if decoded.shape[-1] != samples or abs(delay) >= samples:
        raise ValueError(
            f"cannot take a delay of {delay} samples out of signals of {samples} and {decoded.shape[-1]}"
        )
    if delay >= 0:
        return reference[..., : samples - delay], decoded[..., delay:]
    return reference[..., -delay:], decoded[..., : samples + delay]


class _Signal:
    """One signal (channels, samples) without its means.

    Attributes:
        reach: longest shift.
        centred: (channels, samples) in the requested type.
        energy: sum of its squares.
        without_first: float64 energy without the first 0, 1 ... reach samples.
        without_last: without the last.
    """

    def __init__(
        self, signal: torch.Tensor, dtype: torch.dtype, reach: int, *, exact_energy: bool = True
    ) -> None:
        self.reach = reach
        if dtype == torch.float64:
            self.centred = remove_mean(signal)
        else:
            mean = signal.sum(-1, keepdim=True, dtype=torch.float64) / signal.shape[-1]
            self.centred = signal.to(dtype) - mean.to(dtype)
        self.energy = 0.0 if exact_energy else float(self.centred.square().sum())
        if not self.energy > 1e-20:  # squares in float32 may have underflowed
            self.energy = _dot(self.centred, self.centred)
        ends = (self.centred[:, :reach], self.centred[:, -reach:].flip(-1))
        dropped = [functional.pad(end.double().square().sum(0), (1, 0)).cumsum(0) for end in ends]
        self.without_first, self.without_last = (self.energy - part for part in dropped)


class _Reference:
    """A reference with the spectra of its sections; see `_correlation`."""

    def __init__(self, signal: _Signal) -> None:
        self.signal = signal
        samples, reach = signal.centred.shape[-1], signal.reach
        lengths = [factor << power for power in range(8, 15) for factor in (3, 4, 5)]
        # One transform for each section, and one back, which takes as long as seven.
        cost = {size: (-(-samples // (size - 2 * reach)) + 7) * size for size in lengths if size > 3 * reach}
        self.length = min(cost, key=lambda size: cost[size]) if cost else 1 << (6 * reach).bit_length()
        self.step = self.length - 2 * reach
        self.count = -(-samples // self.step)
        self.missing = self.count * self.step - samples
        sections = functional.pad(signal.centred, (0, self.missing)).unflatten(-1, (self.count, self.step))
        self.spectra = torch.fft.rfft(sections, self.length).conj().resolve_conj()
        # Energy of the overlap for shifts from -reach to reach, and whether it is enough.
        self.energy = torch.cat([signal.without_first.flip(0)[:-1], signal.without_last])
        self.enough = self.energy >= LEAST_OVERLAP_ENERGY * self.energy[reach]


def _align(reference: _Reference, decoded: _Signal, max_delay: int) -> Alignment:
    """`estimate_delay` for one item in float64, which decides every case."""
    if not reference.signal.centred.any():
        return Alignment(None, None, "silent reference")
    if not decoded.centred.any():
        return Alignment(None, None, "silent output")
    correlation, _ = _correlation(reference, decoded)
    upright, inverted = _peak(correlation), _peak(-correlation)
    peak, height = upright
    flipped = inverted[1] > (1 + POLARITY_MARGIN) * height
    if flipped:
        peak, height = inverted
    if peak is None:
        return Alignment(None, None, f"no peak of the correlation within +-{max_delay} samples")
    if height < LEAST_CORRELATION:
        return Alignment(None, None, f"output does not resemble the reference (correlation {height:.2f})")
    return _alignment(reference.signal, decoded, peak, flipped)


def _alignment(reference: _Signal, decoded: _Signal, peak: int, flipped: bool) -> Alignment:
    delay = peak - reference.reach
    r, d = apply_delay(reference.centred, decoded.centred, delay)
    # Computed from the samples, so that identical signals get exactly 0 dB.
    energy = (reference.without_last if delay >= 0 else reference.without_first)[abs(delay)]
    gain = _dot(r, d) / float(energy)
    return Alignment(delay, 20 * math.log10(abs(gain)), "polarity is inverted" if flipped else None)


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Sum of products of (channels, samples) in float64, in blocks that stay in the cache."""
    blocks = [
        torch.dot(x.double(), y.double())
        for of_a, of_b in zip(a, b, strict=True)
        for x, y in zip(of_a.split(2**15), of_b.split(2**15), strict=True)
    ]
    return float(torch.stack(blocks).sum())


def _clear_peak(found: tuple[torch.Tensor, bool]) -> tuple[int, bool] | None:
    """Index of the peak and whether the polarity is inverted, if float32 suffices for the result of `_align`.

    It suffices if one maximum exceeds all its rivals by more than `FLOAT32_ERROR`.
    """
    correlation, everywhere = found
    lowest, highest = (float(end) for end in correlation.aminmax())
    upright = (1 + POLARITY_MARGIN) * highest
    if not everywhere or abs(upright + lowest) <= 4 * FLOAT32_ERROR:
        return None
    flipped = -lowest > upright
    if flipped:
        correlation, highest = -correlation, -lowest
    if highest < LEAST_CORRELATION + FLOAT32_ERROR:
        return None
    inner, slack = correlation[1:-1], 2 * FLOAT32_ERROR
    near = inner >= (1 - PEAK_TOLERANCE) * highest - 2 * slack
    maxima = (inner >= correlation[:-2] - slack) & (inner >= correlation[2:] - slack) & near
    candidates = maxima.nonzero().flatten().tolist()
    ends = max(float(correlation[0]), float(correlation[-1]))
    if len(candidates) != 1 or ends > highest - slack:
        return None
    return candidates[0] + 1, flipped


def _peak(correlation: torch.Tensor) -> tuple[int | None, float]:
    """Index and height of the chosen local maximum; the index is None if an end is higher."""
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


def _correlation(reference: _Reference, decoded: _Signal) -> tuple[torch.Tensor, bool]:
    """Correlation coefficients for shifts from -reach to reach, and whether each shift leaves enough energy.

    The coefficient of a shift that does not is 0. Products are computed in sections: each section of the
    reference meets a section of the decoded signal that is ``reach`` longer on both sides, so that no shift
    wraps around. Their spectra are summed. This is several times as fast as one long transform, and needs
    little memory.
    """
    reach = decoded.reach
    padded = functional.pad(decoded.centred, (reach, reference.missing + reach))
    longer = padded.unfold(-1, reference.length, reference.step)
    spectrum = reference.spectra.new_zeros(reference.spectra.shape[-1])
    for r, d in zip(reference.spectra.split(16, 1), longer.split(16, 1), strict=True):
        spectrum = spectrum + (r * torch.fft.rfft(d)).sum((0, 1))
    products = _transform_back(spectrum, reference.length)[: 2 * reach + 1].double()
    # A positive shift k pairs r[:-k] with d[k:], a negative one the other way round.
    decoded_energy = torch.cat([decoded.without_last.flip(0)[:-1], decoded.without_first])
    enough = reference.enough & (decoded_energy >= LEAST_OVERLAP_ENERGY * decoded_energy[reach])
    correlation = torch.where(enough, products / (reference.energy * decoded_energy).sqrt(), 0.0)
    return correlation, bool(enough.all())


def _transform_back(spectrum: torch.Tensor, length: int) -> torch.Tensor:
    """``torch.fft.irfft``; on a CPU SciPy's, which caches its plan: most of a single transform's time."""
    if spectrum.device.type != "cpu":
        return torch.fft.irfft(spectrum, length)
    return torch.from_numpy(fft.irfft(spectrum.numpy(), length))
