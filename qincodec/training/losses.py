"""What the generator and the discriminators are trained for.

Every loss is a mean over equal items, so the mean over micro-batches, or over ranks, is the loss of the
whole batch. The mel loss is `qincodec.distances.ms_mel`. Adversarial and feature-matching losses are LSGAN's
(Mao et al., 2017) and DAC's (Kumar et al., 2023), summed over the discriminators.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


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
    """Ours, not the paper's: keeps the waveform, to which a mel loss is deaf.

    Root mean square of the difference over that of the reference, so that quiet and loud crops count alike:
    ``10^(-SNR / 20)``. A distance of complex spectra summed over bins without squares was tried first; it
    spends itself on the many bins of noise whose phase no latent can hold, and learnt no phase at all.

    Args:
        reference: (batch, samples).
        estimate: the same shape.

    Returns:
        (batch,). 1 for silence in place of the reference. References under -80 dBFS count less.
    """
    error = ((reference - estimate).square().mean(-1) + 1e-12).sqrt()
    return error / (reference.square().mean(-1).sqrt() + 1e-4)
