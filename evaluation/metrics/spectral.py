"""Distances of short-time spectra: STFT and LSD."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from baselines.lazy import Lazy, inference_mode
from evaluation.metrics.base import Metric, Score
from evaluation.metrics.checks import not_finite

if TYPE_CHECKING:
    import torch

    from qincodec import distances
else:
    torch, distances = Lazy("torch"), Lazy("qincodec.distances")


class Stft(Metric):
    """Multi-resolution STFT distance; see `qincodec.distances.stft_distance`."""

    name = "stft"
    label = "STFT"
    version = "1"
    unit = ""
    higher_is_better = False
    definition = (
        "Sum over windows of 2048 and 512 samples (hop a quarter, periodic Hann, centred, reflected ends, not"
        " normalised) of the means over frames, bins and channels of ||R| - |D|| and of |log10 max(|R|, 1e-5)"
        "^2 - log10 max(|D|, 1e-5)^2| of reference and decoded: stft-44k of DAC's evaluation."
    )

    @inference_mode
    def score(self, prepared: torch.Tensor, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        """`Score` per item; silence has a value; NaN only where samples or their spectra are not finite."""
        return _scores(prepared, decoded, distances.stft_distance(prepared, decoded))


class Lsd(Metric):
    """Log-spectral distance; see `qincodec.distances.log_spectral_distance`."""

    name = "lsd"
    label = "LSD"
    version = "1"
    unit = ""
    higher_is_better = False
    definition = (
        "Log-spectral distance: mean over frames and channels of the root of the mean over bins of (log10 "
        "max(|R|, 1e-5)^2 - log10 max(|D|, 1e-5)^2)^2 of reference and decoded (window of 2048 samples, hop "
        "512, periodic Hann, centred, reflected ends, not normalised)."
    )

    @inference_mode
    def score(self, prepared: torch.Tensor, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        """`Score` per item; silence has a value; NaN only where samples or their spectra are not finite."""
        return _scores(prepared, decoded, distances.log_spectral_distance(prepared, decoded))


def _scores(reference: torch.Tensor, decoded: torch.Tensor, values: torch.Tensor) -> list[Score]:
    reasons: list[Any] = [
        of_reference or of_output
        for of_reference, of_output in zip(
            not_finite(reference, "reference"), not_finite(decoded, "output"), strict=True
        )
    ]
    return [
        Score(math.nan, reason or "samples are too large to compare")
        if reason or not math.isfinite(value)
        else Score(value)
        for value, reason in zip(values.tolist(), reasons, strict=True)
    ]
