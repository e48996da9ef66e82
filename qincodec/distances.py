"""Distances between two signals: the kernels that training losses and evaluation metrics share.

SI-SDR (Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019) and MS-Mel, the multi-scale mel
distance of DAC (Kumar et al., "High-fidelity audio compression with improved RVQGAN", NeurIPS 2023); the
distance of short-time spectra of the same source, and the log-spectral distance.

Audio is (batch, channels, samples) in and one value per item out. Everything is differentiable torch code for
any device, and an item's value does not depend on the other items beyond float rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from qincodec.spectra import MEL_FLOOR as MEL_FLOOR
from qincodec.spectra import MEL_SCALES as MEL_SCALES
from qincodec.spectra import MelBlocks, frame_blocks, frame_count, framed, item_blocks, pad
from qincodec.spectra import log_mel as log_mel
from qincodec.spectra import mel_filter_bank as mel_filter_bank
from qincodec.spectra import suits_numpy as suits_numpy

#: Window lengths of the STFT distance, and that of the log-spectral distance; the hop is a quarter.
STFT_WINDOWS, LSD_WINDOW = (2048, 512), 2048
#: Least magnitude of a bin in a logarithm.
STFT_FLOOR = 1e-5
#: Number of samples that `si_sdr` converts to float64 in one step.
_BLOCK_SUMS = 2**17


def si_sdr(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """Scale-invariant signal-to-distortion ratio in dB.

    Each channel's mean is removed; then, with all samples of all channels as one vector,
    ``a = <r, e> / <r, r>`` and the ratio is ``10 log10(|a r|^2 / |a r - e|^2)``. All channels share one gain:
    a changed stereo balance counts as distortion, and a single silent channel is allowed.

    Args:
        reference: (batch, channels, samples).
        estimate: same shape.

    Returns:
        (batch,) float64: +inf if the estimate is the reference times a gain, -inf if it has no part of the
            reference, NaN if either is silent (constant).

    Raises:
        ValueError: shapes that differ or are not (batch, channels, samples).
    """
    _check_shapes(reference.shape, estimate.shape)
    return torch.stack([_si_sdr(r, e) for r, e in zip(reference, estimate, strict=True)])


def _si_sdr(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """`si_sdr` of one item: float64 copies of a whole batch would take several times its memory."""
    if reference.device.type == "cpu" and not (reference.requires_grad or estimate.requires_grad):
        ratio_db = _si_sdr_of_sums(reference, estimate)
        if ratio_db is not None:
            return torch.tensor(ratio_db, dtype=torch.float64)
    reference, estimate = remove_mean(reference).flatten(), remove_mean(estimate).flatten()
    # For identical signals both products have the same bits, so the gain is exactly 1 and the residual 0.
    energy = torch.dot(reference, reference)
    gain = torch.dot(reference, estimate) / energy
    # The residual itself: |e|^2 - |a r|^2 would cancel for good estimates.
    residual = torch.addcmul(estimate, reference, gain, value=-1)
    ratio = 10 * torch.log10(gain.square() * energy / torch.dot(residual, residual))
    silent = (energy == 0) | (torch.dot(estimate, estimate) == 0)
    return torch.where(silent, math.nan, ratio)


def _si_sdr_of_sums(reference: torch.Tensor, estimate: torch.Tensor) -> float | None:
    """`_si_sdr` from five float64 sums, without copies of the signals: several times as fast.

    None if their differences would lose more than seven of 16 digits: beyond 70 dB, below -70 dB, or for a
    signal that is tiny beside its mean (like silence); and None if samples are not finite.
    """
    with_means, centred = [0.0] * 3, [0.0] * 3  # <r, r>, <r, e>, <e, e>
    for r, e in zip(reference, estimate, strict=True):
        sums = torch.zeros(5, dtype=torch.float64)
        for x, y in zip(r.split(_BLOCK_SUMS), e.split(_BLOCK_SUMS), strict=True):
            x, y = x.double(), y.double()
            sums += torch.stack([torch.dot(x, x), torch.dot(x, y), torch.dot(y, y), x.sum(), y.sum()])
        *products, total_r, total_e = sums.tolist()
        of_means = [a * b / len(r) for a, b in ((total_r, total_r), (total_r, total_e), (total_e, total_e))]
        with_means = [a + b for a, b in zip(with_means, products, strict=True)]
        centred = [a + b - c for a, b, c in zip(centred, products, of_means, strict=True)]
    (energy, product, estimate_energy), (loud_energy, _, loud_estimate) = centred, with_means
    if not energy > 1e-7 * loud_energy:
        return None
    target = product * product / energy
    residual = estimate_energy - target
    if not (target > 1e-7 * loud_estimate and residual > 1e-7 * loud_estimate):
        return None
    return 10 * math.log10(target / residual)


def remove_mean(audio: torch.Tensor) -> torch.Tensor:
    """(..., samples) minus the mean of each channel, float64. A constant channel becomes exactly 0."""
    audio = audio.double()
    # Not mean(), which on some devices multiplies by 1 / samples and leaves a constant's rounding error.
    return audio - audio.sum(-1, keepdim=True) / audio.shape[-1]


@dataclass(frozen=True)
class MelReference:
    """A reference that `ms_mel` uses more than once; `mel_reference` makes it.

    Attributes:
        spectra: per scale of `MEL_SCALES` (batch, channels, bands, frames), ``max(mel magnitude, 1e-5)``,
            float32, or float64 for float64 input; together 4.4 values per sample.
    """

    spectra: list[torch.Tensor]


def ms_mel(reference: torch.Tensor | MelReference, estimate: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Multi-scale mel distance, as DAC's training loss defines it.

    The sum over the scales of the mean over channels, bands and frames of the absolute difference of
    `log_mel_spectra`. Symmetric, 0 for identical signals, without unit, not invariant to level. The gradient
    is finite everywhere; in silence it is 0.

    Args:
        reference: (batch, channels, samples), or its `mel_reference` if it is compared more than once.
        estimate: (batch, channels, samples).
        sample_rate: Hz.

    Returns:
        (batch,) float32, or float64 for float64 input; NaN where a signal holds NaN or infinity.

    Raises:
        ValueError: shapes that differ or are not (batch, channels, samples).
    """
    if isinstance(reference, torch.Tensor):
        _check_shapes(reference.shape, estimate.shape)
    else:
        _check_shapes(estimate.shape)
        _check_spectra(reference.spectra, estimate.shape)
    _, channels, samples = estimate.shape
    shares = [
        1 / (math.log(10) * channels * bands * frame_count(samples, window)) for window, bands in MEL_SCALES
    ]
    mel_blocks = MelBlocks(estimate.shape, sample_rate)
    distances = []
    for items in item_blocks(estimate):
        padded = pad(estimate[items])
        in_numpy = suits_numpy(padded)
        if isinstance(reference, torch.Tensor):
            other = pad(reference[items])
            in_numpy = in_numpy and suits_numpy(other)
            targets = mel_blocks.joined(other, in_numpy)
        else:
            targets = [part[items] for part in reference.spectra]
        distance = padded.new_zeros(len(padded))
        for scale, frames, mel in mel_blocks(padded, in_numpy):
            target = targets[scale][..., frames]
            # One logarithm of the ratio equals the difference of two.
            if in_numpy:
                ratio = mel.div_(target)
                in_place = ratio.numpy()
                np.log(in_place, out=in_place)
                ratio.abs_()
            else:
                ratio = (mel / target).log().abs()
            distance = distance.add(ratio.sum((1, 2, 3)), alpha=shares[scale])
        distances.append(distance)
    return torch.cat(distances)


def mel_reference(audio: torch.Tensor, sample_rate: int) -> MelReference:
    """The part of `ms_mel` that depends only on ``audio`` (batch, channels, samples).

    Raises:
        ValueError: a shape that is not (batch, channels, samples).
    """
    _check_shapes(audio.shape)
    mel_blocks = MelBlocks(audio.shape, sample_rate)
    spectra = mel_blocks.room(audio)
    for items in item_blocks(audio):
        padded = pad(audio[items])
        for scale, frames, mel in mel_blocks(padded, suits_numpy(padded)):
            spectra[scale][items, ..., frames] = mel
    return MelReference(spectra)


def log_mel_spectra(audio: torch.Tensor, sample_rate: int) -> list[torch.Tensor]:
    """Spectra for `ms_mel`: ``log10(max(mel magnitude, 1e-5))`` at every scale of `MEL_SCALES`.

    Frames are centred, ``1 + samples // hop`` of them, under a periodic Hann window. The ends are extended by
    reflection, repeatedly if the signal is shorter than the extension (as in numpy.pad; one sample gives a
    constant), so every length from one sample on has a value.

    Args:
        audio: (batch, channels, samples).
        sample_rate: Hz.

    Returns:
        Per scale (batch, channels, bands, frames), float32, or float64 for float64 input; together 4.4 values
        per sample.

    Raises:
        ValueError: a shape that is not (batch, channels, samples).
    """
    return [mel.log10() for mel in mel_reference(audio, sample_rate).spectra]


def stft_distance(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """Multi-resolution STFT distance, as in DAC's evaluation.

    The sum over windows of 2048 and 512 samples of two means over channels, frames and bins, of
    ``| |R| - |E| |`` and of ``|log10 max(|R|, 1e-5)^2 - log10 max(|E|, 1e-5)^2|``, where R and E are the
    short-time spectra under a periodic Hann window, a hop of a quarter, centred, with reflected ends, not
    normalised. (``MultiScaleSTFTLoss`` of descript-audio-codec 1.0.0 with its defaults, which
    ``scripts/evaluate.py`` prints as ``stft-44k``.) Symmetric, 0 for identical signals, without unit.

    Args:
        reference: (batch, channels, samples).
        estimate: same shape.

    Returns:
        (batch,) float64; NaN where a signal holds NaN or infinity.

    Raises:
        ValueError: shapes that differ or are not (batch, channels, samples).
    """
    _check_shapes(reference.shape, estimate.shape)
    distance = estimate.new_zeros(len(estimate), dtype=torch.float64)
    for window in STFT_WINDOWS:
        for items, r, e in _magnitudes(reference, estimate, window):
            size = r[0, :, 0].numel() * frame_count(estimate.shape[-1], window)
            logs = (part.clamp(min=STFT_FLOOR).log10() for part in (r, e))
            apart = (r - e).abs() + 2 * torch.sub(*logs).abs()
            distance[items] += apart.sum((1, 2, 3), dtype=torch.float64) / size
    return distance


def log_spectral_distance(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """Log-spectral distance, as in papers on codecs and bandwidth extension.

    The mean over channels and frames of the root of the mean over bins of
    ``(log10 max(|R|, 1e-5)^2 - log10 max(|E|, 1e-5)^2)^2``, where R and E are the short-time spectra under a
    periodic Hann window of 2048 samples, hop 512, centred, with reflected ends, not normalised. (Gray and
    Markel, "Distance measures for speech processing", IEEE TASSP 1976, with frames and logarithms of Lee and
    Han, "NU-Wave", Interspeech 2021.) Symmetric, 0 for identical signals, without unit: 1 is 10 dB.
    Its gradient is not finite if frames are equal, so it is not a training loss.

    Args:
        reference: (batch, channels, samples).
        estimate: same shape.

    Returns:
        (batch,) float64; NaN where a signal holds NaN or infinity.

    Raises:
        ValueError: shapes that differ or are not (batch, channels, samples).
    """
    _check_shapes(reference.shape, estimate.shape)
    distance = estimate.new_zeros(len(estimate), dtype=torch.float64)
    size = estimate.shape[1] * frame_count(estimate.shape[-1], LSD_WINDOW)
    for items, r, e in _magnitudes(reference, estimate, LSD_WINDOW):
        logs = (part.clamp(min=STFT_FLOOR).log10() for part in (r, e))
        frames = 2 * torch.sub(*logs).square().mean(-1).sqrt()
        distance[items] += frames.sum((1, 2), dtype=torch.float64) / size
    return distance


def _magnitudes(
    reference: torch.Tensor, estimate: torch.Tensor, window: int
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Slices of items, with spectra of some frames of both, (items, channels, frames, bins)."""
    for items in item_blocks(estimate):
        padded = pad(reference[items]), pad(estimate[items])
        hann = torch.hann_window(window, dtype=torch.float64).to(padded[0])
        for frames in frame_blocks(padded[1], estimate.shape[-1], window):
            r, e = (torch.fft.rfft(framed(part, window, frames) * hann).abs() for part in padded)
            yield items, r, e


def _check_shapes(*shapes: torch.Size) -> None:
    for shape in shapes:
        if len(shape) != 3 or 0 in shape:
            raise ValueError(f"audio must be (batch, channels, samples), none of them 0; got {tuple(shape)}")
    if len(set(shapes)) > 1:
        raise ValueError(f"reference and estimate differ in shape: {tuple(shapes[0])}, {tuple(shapes[1])}")


def _check_spectra(spectra: Sequence[torch.Tensor], shape: torch.Size) -> None:
    """Check that `log_mel_spectra` belong to audio of a shape."""
    expected = [(*shape[:2], bands, frame_count(shape[2], window)) for window, bands in MEL_SCALES]
    if [tuple(part.shape) for part in spectra] != expected:
        raise ValueError(f"the reference's spectra do not belong to audio of shape {tuple(shape)}")
