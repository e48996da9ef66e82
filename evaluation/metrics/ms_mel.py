"""MS-Mel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.lazy import Lazy, inference_mode
from evaluation.metrics.base import Metric, Score
from evaluation.metrics.checks import not_finite

if TYPE_CHECKING:
    import torch

    from qincodec import distances
else:
    torch, distances = Lazy("torch"), Lazy("qincodec.distances")


@dataclass(frozen=True)
class Prepared:
    """The prepared reference, 18 bytes per sample, and why an item has no score."""

    reference: distances.MelReference
    reasons: list[str | None]


class MsMel(Metric):
    """Multi-scale mel distance; see `qincodec.distances.ms_mel`."""

    name = "ms_mel"
    label = "MS-Mel"
    version = "1"
    unit = ""
    higher_is_better = False
    definition = (
        "Sum over seven scales (windows of 32, 64 ... 2048 samples, hop a quarter, 5, 10 ... 320 Slaney mel "
        "bands from 0 Hz to Nyquist, magnitudes, periodic Hann, centred, reflected ends) of the mean over "
        "frames, bands and channels of |log10 max(R, 1e-5) - log10 max(D, 1e-5)| of reference and decoded."
    )

    @inference_mode
    def prepare(self, reference: torch.Tensor, sample_rate: int) -> Prepared:
        return Prepared(distances.mel_reference(reference, sample_rate), not_finite(reference, "reference"))

    @inference_mode
    def score(self, prepared: Prepared, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        """`Score` per item; silence has a value; NaN only if samples or their squares are not finite."""
        values = distances.ms_mel(prepared.reference, decoded, sample_rate).tolist()
        scores = []
        for value, item, reason in zip(values, decoded, prepared.reasons, strict=True):
            if reason is None and not math.isfinite(value):  # always so if the output is not finite
                (of_output,) = not_finite(item[None], "output")
                reason = of_output or "samples are too large to compare"
            scores.append(Score(value) if reason is None else Score(math.nan, reason))
        return scores
