"""Metrics by name."""

from __future__ import annotations

from qincodec.plugins import Registry

METRICS = Registry(
    "metric",
    "qincodec.metrics",
    {
        "si_sdr": "evaluation.metrics.si_sdr:SiSdr",
        "ms_mel": "evaluation.metrics.ms_mel:MsMel",
    },
)
