"""The results of a run as data frames, from which all statistics and reports are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evaluation.records import AskedRate, Condition, DatasetInfo, EmbeddingInfo, MetricInfo, Settings
from evaluation.rows import CodeStatistics, CorpusScore

if TYPE_CHECKING:
    import pandas as pd

#: Columns every `Results.clips` has, besides one per metric and its ``<metric>_reason``.
CLIP_COLUMNS = [
    "codec",  # row label, as typed ("opus", or NAME of NAME=qincodec:PATH)
    "kbps",  # asked bitrate, kbit/s; NaN for controls and conditions without one
    "kbps_nominal",  # nominal bitrate of the chosen operating point; NaN if none
    "kbps_measured",  # 8 * payload bytes / duration / 1000; NaN if nothing was measured
    "clip",
    "recording",
    "content_hash",  # of the reference file: identifies a clip across runs
    "category",
    "duration_s",
    "bytes",  # payload bytes; NaN if nothing was measured
    "delay_samples",  # estimated; positive: the decoded signal is late; NaN if it cannot be estimated
    "delay_applied",  # integer delay removed before scoring, one per codec and rate
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
#: Columns of a summary at measured rates, after all others.
MATCH_COLUMNS = [
    "interpolated",  # whether the row lies between two operating points
    "kbps_below",  # measured rates of these two
    "kbps_above",
]
#: A reference below this RMS is practically empty (a signal in antiphase after the mix to mono, or only DC):
#: its scores measure rounding.
QUIET_DBFS = -80.0
#: Most categories that have tables.
MAX_CATEGORIES = 50
#: Reason of a clip without a score of a metric for speech.
NOT_SPEECH = "not marked as speech"
#: Reason of a coded clip that is not yet scored at the delay over all clips.
NOT_SCORED = "not scored yet"
#: Endings of further columns of distances between distributions.
EXTRA_COLUMNS = ("frames", "half", "half_frames", "limit")


def metric_columns(name: str, *, per_clip: bool = False) -> list[str]:
    """Columns of a metric in a summary; two of the names are also those of its value and reason per clip."""
    ends = ("ci_low", "ci_high", "n", "inf", "reason", "ci_reason")
    return [name, *(f"{name}_{end}" for end in (*ends, *(() if per_clip else EXTRA_COLUMNS)))]


def last_columns(name: str, *, per_clip: bool) -> list[str]:
    """Further columns of a metric, after the columns of all metrics, because earlier versions lack them."""
    ends = ("median", "median_ci_low", "median_ci_high") if per_clip else ("limit_ci_low", "limit_ci_high")
    return [f"{name}_{end}" for end in ends]


@dataclass(frozen=True)
class Between:
    """The two operating points between which a row is interpolated (`evaluation.statistics.matching`).

    Attributes:
        low: point with the lower rate.
        high: point with the higher rate.
        kbps: measured rates of both.
        weight: weight of the higher one.
        delays: delays removed from both, samples; NaN if nothing is scored.
    """

    low: Condition
    high: Condition
    kbps: tuple[float, float]
    weight: float
    delays: tuple[float, float]

    @property
    def nearest(self) -> Condition:
        """The point whose rate is nearer to that of the row."""
        return self.low if self.weight <= 0.5 else self.high


@dataclass(frozen=True)
class Finding:
    """Result of the tests of the codecs at one asked rate by one metric (`evaluation.statistics.findings`).

    Attributes:
        metric: name of the metric.
        kbps: asked rate.
        best: the codec with the best mean.
        ties: codecs for which no test finds a difference to ``best``, the better mean first.
        worse: codecs that are worse by a test, the better mean first.
        nearest: the codec of ``worse`` with the smallest difference; "" without one.
        lead: that difference of means, positive whether higher or lower is better; NaN without one.
        ci_low, ci_high: 95 % interval of ``lead``.
        n_recordings: the smallest number of recordings of a test.
    """

    metric: str
    kbps: float
    best: str
    ties: tuple[str, ...]
    worse: tuple[str, ...]
    nearest: str
    lead: float
    ci_low: float
    ci_high: float
    n_recordings: int


@dataclass(frozen=True)
class Analysis:
    """Functions that compute the numbers of `Results` (`evaluation.statistics.analysis`)."""

    summary: Callable[[Results], pd.DataFrame]
    tests: Callable[[Results], pd.DataFrame]
    bd_rate: Callable[[Results], pd.DataFrame]
    findings: Callable[[Results], list[Finding]]


@dataclass
class Results:
    """Everything that a report needs.

    Attributes:
        clips: one row per condition and clip (`CLIP_COLUMNS`, one column per metric in ``metrics``,
            and its ``<metric>_reason``), in the order of ``conditions``, then of clip id.
        conditions: in the order they were asked for.
        metrics: in the order they were asked for.
        corpus: statistics of codes, one record per condition.
        dataset: the data.
        settings: settings of the run.
        environment: versions, commit, command lines, machine.
        analysis: computes ``summary``, ``tests``, ``bd_rate`` and ``findings``, each on first use.
        n_pending: (condition, clip) pairs without a row; 0 unless the run was interrupted.
        n_unscored: scores of coded clips that are not yet computed at the delay over all clips.
        n_failed_scores: scores of coded clips that a metric could not compute; ``<metric>_reason`` says why.
        scores: values of metrics that are not per clip.
        embeddings: embeddings that metrics compare.
        unavailable: name of an asked metric or embedding -> why it could not be computed here.
        skipped: row label of an asked codec that was left out -> why it could not run here.
        quiet: clip -> dBFS RMS of its reference, for those below `QUIET_DBFS`.
        remarks: notes on the embedding metrics, one line each.
        noise_floor: the same embedding metrics for references that were changed inaudibly; None without
            embedding metrics.
        asked: rates that were asked of codecs, matched by measured rate; empty for nominal rates.
        between: (codec, asked rate) of an interpolated row -> the operating points around it.
        points: coded operating points that are not rows; None without any.
        estimates: means and intervals computed so far (`evaluation.statistics.bootstrap`).

    Examples:
        >>> from evaluation import evaluate
        >>> results = evaluate("demo", "opus", 24, metrics="si_sdr", limit=2, out="run")
        >>> [condition.label for condition in results.conditions], len(results.clips)
        (['opus@24'], 2)
    """

    clips: pd.DataFrame
    conditions: list[Condition]
    metrics: list[MetricInfo]
    corpus: list[CodeStatistics]
    dataset: DatasetInfo
    settings: Settings
    environment: dict[str, Any]
    analysis: Analysis = field(repr=False)
    n_pending: int = 0
    n_unscored: int = 0
    n_failed_scores: int = 0
    scores: list[CorpusScore] = field(default_factory=list)
    embeddings: list[EmbeddingInfo] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    quiet: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    noise_floor: Results | None = None
    asked: list[AskedRate] = field(default_factory=list)
    between: dict[tuple[str, float | None], Between] = field(default_factory=dict)
    points: Results | None = None
    estimates: dict[bytes, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def unfinished(self) -> bool:
        """Whether a clip lacks a result. Means are provisional then, and reports make no claims."""
        return self.n_pending + self.n_unscored > 0

    @property
    def clip_metrics(self) -> list[MetricInfo]:
        """Metrics with a value per clip, which are columns of ``clips``."""
        return [metric for metric in self.metrics if metric.per_clip]

    @property
    def heard(self) -> list[Condition]:
        """``conditions`` that can be heard: an interpolated one is replaced by its nearer operating point."""
        between = {(c.codec, c.kbps): self.between.get((c.codec, c.kbps)) for c in self.conditions}
        return [
            replace(found.nearest, kbps=c.kbps) if (found := between[c.codec, c.kbps]) else c
            for c in self.conditions
        ]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per condition with intervals (`evaluation.statistics.recordings.summarize`)."""
        return self.analysis.summary(self)

    @cached_property
    def tests(self) -> pd.DataFrame:
        """Every pair of codecs at every asked rate (`evaluation.statistics.recordings.paired_tests`)."""
        return self.analysis.tests(self)

    @cached_property
    def bd_rate(self) -> pd.DataFrame:
        """Bjontegaard delta rates (`evaluation.statistics.bd_rate.bd_rate`); they need four rates."""
        return self.analysis.bd_rate(self)

    @cached_property
    def findings(self) -> list[Finding]:
        """Claims about the best codec at each rate (`evaluation.statistics.findings.findings`)."""
        return self.analysis.findings(self)

    @cached_property
    def categories(self) -> dict[str, Results]:
        """Category -> results of its clips, by name; "" for clips without one. Empty unless there are 2 to
        `MAX_CATEGORIES`.

        They have metrics per clip only: distances between distributions and statistics of codes are of all
        clips.
        """
        of_clips = self.clips["category"].where(self.clips["category"].notna(), "")
        names = sorted(of_clips.unique())
        if not 2 <= len(names) <= MAX_CATEGORIES:
            return {}
        metrics = self.clip_metrics
        of_all: dict[str, Any] = {"corpus": [], "scores": [], "embeddings": [], "remarks": [], "points": None}
        parts = ((name, self.clips[of_clips == name].reset_index(drop=True)) for name in names)
        return {
            name: replace(self, clips=part, metrics=metrics, noise_floor=None, **of_all)
            for name, part in parts
        }
