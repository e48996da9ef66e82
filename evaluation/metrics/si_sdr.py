"""SI-SDR."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from baselines.lazy import Lazy, inference_mode
from evaluation.metrics.base import Metric, Score
from evaluation.metrics.checks import not_finite

if TYPE_CHECKING:
    import torch

    from qincodec import distances
else:
    torch, distances = Lazy("torch"), Lazy("qincodec.distances")


class SiSdr(Metric):
    """Scale-invariant signal-to-distortion ratio; see `qincodec.distances.si_sdr`."""

    name = "si_sdr"
    label = "SI-SDR"
    version = "1"
    unit = "dB"
    higher_is_better = True
    definition = (
        "10 log10(|a r|^2 / |a r - d|^2) with a = <r, d> / <r, r> for reference r and decoded d, each "
        "channel's mean removed, all samples of all channels of a clip as one vector."
    )

    @inference_mode
    def score(self, prepared: torch.Tensor, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        """`Score` per item; NaN with the reason if reference or output is silent (constant) or not finite."""
        values = distances.si_sdr(prepared, decoded).tolist()
        return [
            Score(math.nan, _reason(r, d)) if math.isnan(value) else Score(value)
            for value, r, d in zip(values, prepared, decoded, strict=True)
        ]


def _reason(reference: torch.Tensor, decoded: torch.Tensor) -> str:
    """Why the signals (channels, samples) have no SI-SDR."""
    for signal, what in ((reference, "reference"), (decoded, "output")):
        (reason,) = not_finite(signal[None], what)
        if reason is not None:
            return reason
    return "silent output" if distances.remove_mean(reference).any() else "silent reference"
