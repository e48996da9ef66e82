"""Objectives of the generator and the discriminators.

Every loss is a mean over equal items, so the mean over micro-batches, or over ranks, is the loss of the
whole batch. The mel loss is `qincodec.distances.ms_mel`. Adversarial and feature-matching losses are LSGAN's
(Mao et al., 2017) and DAC's (Kumar et al., 2023), summed over the discriminators.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from qincodec.distances import mel_filter_bank

#: Of `level_loss`: window in samples, mel bands, frames that are averaged, power under which all is silence.
_LEVEL_WINDOW, _LEVEL_BANDS, _LEVEL_FRAMES, _LEVEL_FLOOR = 1024, 32, 8, 1e-4


def discriminator_loss(
    real: Sequence[Sequence[torch.Tensor]], fake: Sequence[Sequence[torch.Tensor]]
) -> torch.Tensor:
    """Sum over discriminators of ``mean (1 - D(real))^2 + mean D(fake)^2``; ``fake`` comes detached."""
    parts = [
        (1 - r[-1].float()).square().mean() + f[-1].float().square().mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(parts).sum()


def adversarial_loss(fake: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    """Sum over discriminators of ``mean (1 - D(fake))^2``."""
    return torch.stack([(1 - layers[-1].float()).square().mean() for layers in fake]).sum()


def feature_matching_loss(
    real: Sequence[Sequence[torch.Tensor]], fake: Sequence[Sequence[torch.Tensor]]
) -> torch.Tensor:
    """Sum over discriminators and their layers but the last of the mean absolute difference.

    ``real`` gets no gradient.
    """
    parts = [
        (a.detach().float() - b.float()).abs().mean()
        for r, f in zip(real, fake, strict=True)
        for a, b in zip(r[:-1], f[:-1], strict=True)
    ]
    return torch.stack(parts).sum()


def waveform_loss(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """Ours, not the paper's: keeps the waveform, which a mel loss ignores.

    Root mean square of the difference over that of the reference, so that quiet and loud crops count alike:
    ``10^(-SNR / 20)``. A distance of complex spectra summed over bins without squares was tried first: the
    many bins of noise, whose phase latents cannot hold, dominate it, and it learnt no phase at all.

    Args:
        reference: (batch, samples).
        estimate: the same shape.

    Returns:
        (batch,). 1 for silence in place of the reference. References under -80 dBFS count less.
    """
    error = ((reference - estimate).square().mean(-1) + 1e-12).sqrt()
    return error / (reference.square().mean(-1).sqrt() + 1e-4)


def level_loss(reference: torch.Tensor, estimate: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Ours, not the paper's: keeps the power of noise.

    A decoder cannot know the noise of its reference. By the mel loss it then does best if it errs towards
    quiet, because the median of a band's magnitude is below its root mean square. Averaged over one of 32
    bands and a tenth of a second, the power of noise is nearly constant, so here the right power is best.

    Args:
        reference: (batch, samples).
        estimate: the same shape.
        sample_rate: Hz.

    Returns:
        (batch,): mean over bands and tenths of a second of the absolute difference of log10 of the power: 0.1
        is 1 dB.
    """
    return (_levels(reference, sample_rate) - _levels(estimate, sample_rate)).abs().mean((1, 2))


def _levels(audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """log10 of the power in each band, (batch, bands, blocks of frames)."""
    window = torch.hann_window(_LEVEL_WINDOW, device=audio.device)
    # Zeros, not a reflection, which would need more than half a window.
    spectrum = torch.stft(
        audio.float(),
        _LEVEL_WINDOW,
        _LEVEL_WINDOW // 2,
        window=window,
        pad_mode="constant",
        return_complex=True,
    )
    power = _level_bands(sample_rate).to(audio) @ torch.view_as_real(spectrum).square().sum(-1)
    blocks = torch.nn.functional.avg_pool1d(power, _LEVEL_FRAMES, ceil_mode=True)
    return (blocks + _LEVEL_FLOOR).log10()


@lru_cache(maxsize=4)
def _level_bands(sample_rate: int) -> torch.Tensor:
    """(bands, bins), rows that sum to 1."""
    bank = torch.as_tensor(mel_filter_bank(sample_rate, _LEVEL_WINDOW, _LEVEL_BANDS)).float()
    return bank / bank.sum(1, keepdim=True).clamp(min=1e-9)
