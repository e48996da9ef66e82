"""What a run holds, as data frames: the one thing statistics and reports are computed from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

#: Columns every `Results.summary` has, besides those of its metrics (`metric_columns`).
SUMMARY_COLUMNS = [
    *("codec", "kbps", "kbps_nominal", "kbps_measured", "rate_is", "rate_deviation", "rate_off"),
    *("kbps_entropy", "control", "n", "n_failed", "n_recordings"),
    *("delay_samples", "delay_applied", "gain_db", "encode_rt", "decode_rt"),
]
#: Of distances between distributions.
EXTRA_COLUMNS = ("frames", "half", "half_frames", "limit")


def metric_columns(name: str, *, per_clip: bool = False) -> list[str]:
    """Columns of a metric in a summary. Values and reasons of clips have the names of two of them."""
    ends = ("ci_low", "ci_high", "n", "inf", "reason", "ci_reason")
    return [name, *(f"{name}_{end}" for end in (*ends, *(() if per_clip else EXTRA_COLUMNS)))]


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
    """A metric as reports need it (see `evaluation.metrics.base.Metric`).

    Attributes:
        embedding: name of the embedding it compares, or "".
        per_clip: False for a distance between distributions: a number per condition, not per clip.
    """

    name: str
    label: str
    version: str
    unit: str
    higher_is_better: bool
    definition: str
    embedding: str = ""
    per_clip: bool = True


@dataclass(frozen=True)
class EmbeddingInfo:
    """An embedding as the run folder and reports need it (see `evaluation.embeddings.base.Embedding`)."""

    name: str
    label: str
    dim: int
    frame_s: float
    hop_s: float
    definition: str
    attribution: str
    identity: dict[str, Any]


@dataclass(frozen=True)
class CorpusScore:
    """A distance between the distributions of all references and all decoded clips of a condition.

    Attributes:
        metric: name of the metric.
        codec: row label of the condition.
        kbps: its asked rate, None without one.
        value: NaN with a ``reason``.
        low: of the 95 % interval by jackknife over recordings; NaN with a ``ci_reason``.
        high: likewise.
        half: the mean of the distances of two halves of the recordings: what half the data would give. NaN
            where there is none.
        limit: extrapolated to infinite data, ``2 value - half``, for a bias that falls with 1 / frames.
        n_clips: clips compared.
        n_recordings: recordings they are from.
        n_frames: frames they have.
        half_frames: mean frames of a half.
        left_out: the value without each group of recordings, for paired intervals.
        sizes: recordings of each group.
        members: hash of the references: equal for conditions scored on the same clips.
        common: on the clips that all codecs at the asked rate have, for their comparison; False: on all
            clips of the condition.
    """

    metric: str
    codec: str
    kbps: float | None
    value: float
    low: float = math.nan
    high: float = math.nan
    half: float = math.nan
    limit: float = math.nan
    n_clips: int = 0
    n_recordings: int = 0
    n_frames: int = 0
    half_frames: float = math.nan
    left_out: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    members: str = ""
    reason: str = ""
    ci_reason: str = ""
    common: bool = False


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
            keys mean "does not apply". Codebook statistics: `evaluation.statistics.codes.code_statistics`.
        dataset: ``name, n_clips, n_recordings, n_lossy, lossy_formats, n_excluded, excluded, disclaimer,
            hash``.
        settings: evaluation settings (``sample_rate, channels, align, seed, chunk_s, ...``).
        environment: versions, commit, command lines, machine.
        n_pending: (condition, clip) pairs without a row yet; 0 unless the run was interrupted.
        n_failed_scores: scores of coded clips that a metric could not compute; ``<metric>_reason`` says why.
        scores: of metrics that are not per clip.
        embeddings: that metrics compare.
        unavailable: name of a metric or embedding that was asked for -> why it could not be computed here.
        skipped: row label of a codec that was asked for and left out -> why it could not run here.
        remarks: what else a reader of the embedding metrics should know, one line each.
        noise_floor: the same embedding metrics of references that were changed inaudibly; None without
            embedding metrics.
    """

    clips: pd.DataFrame
    conditions: list[Condition]
    metrics: list[MetricInfo]
    corpus: list[dict[str, Any]]
    dataset: dict[str, Any]
    settings: dict[str, Any]
    environment: dict[str, Any]
    n_pending: int = 0
    n_failed_scores: int = 0
    scores: list[CorpusScore] = field(default_factory=list)
    embeddings: list[EmbeddingInfo] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    noise_floor: Results | None = None

    @property
    def clip_metrics(self) -> list[MetricInfo]:
        """Metrics with a value per clip: those that are columns of ``clips``."""
        return [metric for metric in self.metrics if metric.per_clip]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per condition with intervals (`evaluation.statistics.recordings.summarize`)."""
        from evaluation.statistics.recordings import summarize

        return summarize(self, seed=self.settings["seed"])
