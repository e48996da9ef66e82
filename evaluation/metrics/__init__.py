"""Metrics by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from baselines.registry import of_plugin, why_not
from qincodec.core.errors import Unavailable
from qincodec.core.plugins import Registry

if TYPE_CHECKING:
    from evaluation.metrics.base import Metric

METRICS = Registry(
    "metric",
    "qincodec.metrics",
    "evaluation.metrics.base:Metric",
    {
        "si_sdr": "evaluation.metrics.si_sdr:SiSdr",
        "ms_mel": "evaluation.metrics.ms_mel:MsMel",
        "stft": "evaluation.metrics.spectral:Stft",
        "lsd": "evaluation.metrics.spectral:Lsd",
        "visqol": "evaluation.metrics.perceptual:Visqol",
        "visqol_speech": "evaluation.metrics.perceptual:VisqolSpeech",
        "2f": "evaluation.metrics.perceptual:TwoF",
        "pesq": "evaluation.metrics.speech:Pesq",
        "stoi": "evaluation.metrics.speech:Stoi",
        "estoi": "evaluation.metrics.speech:Estoi",
    },
)


def load_metrics(names: Sequence[str], speech: bool = False) -> tuple[list[Metric], dict[str, str]]:
    """Metrics that can be computed here, and why the others cannot.

    Args:
        speech: all clips are speech, so metrics for speech score every clip.

    Raises:
        UserError: a metric cannot be imported or made, or is not a valid metric.
    """
    metrics: list[Metric] = []
    reasons: dict[str, str] = {}
    for name in names:
        kind = METRICS.load(name)
        reason = why_not("metric", name, kind)
        try:
            if reason is None:
                metric = of_plugin("metric", name, "loading it", kind)
                if (digest := METRICS.digest(name)) and isinstance(getattr(metric, "version", None), str):
                    metric.version += f"+{digest}"  # of its file, because an edit changes its scores
                if speech:
                    metric.speech_only = False
                metrics.append(metric)
        except Unavailable as error:
            reason = str(error)
        if reason is not None:
            reasons[name] = reason
    return metrics, reasons
