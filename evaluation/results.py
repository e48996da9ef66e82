"""What a run holds, as data frames: the one thing statistics and reports are computed from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

#: Columns every `Results.clips` has, besides one per metric and its ``<metric>_reason``.
CLIP_COLUMNS = [
    "codec",  # row label, as typed ("opus", or NAME of NAME=qincodec:PATH)
    "kbps",  # asked bitrate, kbit/s; NaN for controls and conditions without one
    "kbps_nominal",  # of the operating point that was chosen; NaN if none
    "kbps_measured",  # 8 * payload bytes / duration / 1000; NaN if nothing was measured
    "clip",
    "recording",
    "content_hash",  # of the reference file: what makes two clips of two runs the same
    "category",
    "duration_s",
    "bytes",  # payload bytes; NaN if nothing was measured
    "delay_samples",  # estimated; positive: the decoded signal is late; NaN if it cannot be estimated
    "delay_applied",  # integer delay taken out before scoring, one per codec and rate
    "gain_db",  # estimated gain of the decoded signal, never applied
    "encode_s",  # wall time, seconds; NaN if nothing was encoded
    "decode_s",
    "error",  # why the clip failed, else None; a failed clip has NaN in all metrics
]


@dataclass(frozen=True)
class Condition:
    """One row of the summary: a codec at a rate.

    Attributes:
        codec: row label.
        kbps: asked bitrate; None for controls and conditions without one.
        nominal: bitrate of the operating point; None if it has none.
        settings: of the operating point.
        identity: what decides the codec's output (`baselines.codec.Codec.identity`).
        rate_is: "measured" (from the payload), "declared" (decoded elsewhere, as the user said),
            "none".
        control: a control stands once in the table, whatever rates were asked for.
    """

    codec: str
    kbps: float | None
    nominal: float | None
    settings: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    rate_is: str = "measured"
    control: bool = False


@dataclass(frozen=True)
class MetricInfo:
    """A metric as reports need it (see `evaluation.metrics.base.Metric`)."""

    name: str
    label: str
    version: str
    unit: str
    higher_is_better: bool
    definition: str


@dataclass
class Results:
    """Everything a report is made of.

    Attributes:
        clips: one row per condition and clip (`CLIP_COLUMNS`, one column per metric in ``metrics``,
            and its ``<metric>_reason``), in the order of ``conditions``, then of clip id.
        conditions: in the order they were asked for.
        metrics: in the order they were asked for.
        corpus: values that belong to a condition and not to a clip, one dict per condition:
            ``{"codec": "qincodec", "kbps": 16.0, "kbps_entropy": 15.2, "frames": 10332}``; absent
            keys mean "does not apply".
        dataset: ``name, n_clips, n_recordings, n_lossy, lossy_formats, n_excluded, excluded, disclaimer,
            hash``.
        settings: evaluation settings (``sample_rate, channels, align, seed, chunk_s, ...``).
        environment: versions, commit, command lines, machine.
        n_pending: (condition, clip) pairs without a row yet; 0 unless the run was interrupted.
    """

    clips: pd.DataFrame
    conditions: list[Condition]
    metrics: list[MetricInfo]
    corpus: list[dict[str, Any]]
    dataset: dict[str, Any]
    settings: dict[str, Any]
    environment: dict[str, Any]
    n_pending: int = 0

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per condition with intervals (`evaluation.statistics.summarize`)."""
        from evaluation.statistics import summarize

        return summarize(self, seed=self.settings["seed"])
