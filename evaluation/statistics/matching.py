"""Rows at the asked rates, from the operating points that were coded.

The operating points of a codec, each with its rate measured over all clips, are its rate-distortion curve. A
row of the tables is the point whose rate is within `TOLERANCE` of the asked one. Without such a point, it is
the value on the line between the two points around the asked rate. The line is linear in the rate: a codec
reaches it if it codes a share of its clips at one point and the rest at the other, so no row claims more than
the codec can do. Beyond its points nothing is extrapolated: the row is the nearest point, with a mark.

Every clip's value is interpolated with the same weights. So a mean is that of the interpolated clips, its
interval uses the same draws of recordings as any other, and pairs of codecs are compared clip by clip. The
weights count as known: a draw of recordings does not change them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from evaluation.records import AskedRate, Condition, MetricInfo
from evaluation.results import MATCH_COLUMNS, Between, Results
from evaluation.rows import CodeStatistics, CorpusScore, FramesRow
from evaluation.statistics.distributions import jackknife

#: Largest deviation (ratio - 1) of a measured rate that meets the asked one.
TOLERANCE = 0.03
# Equal decimals that were rounded twice may differ slightly (16 * 1.03 and 16.48).
_ROOM = 1e-9


@dataclass(frozen=True)
class Reading:
    """Position of an asked rate among measured ones: indices of the points below and above it, and the weight
    of the one above. Both indices are equal if the row is one point."""

    low: int
    high: int
    weight: float = 0.0


def meets(kbps: float, asked: float, tolerance: float = TOLERANCE) -> bool:
    """Whether a measured rate meets the asked one; False for NaN."""
    return abs(kbps / asked - 1) <= tolerance + _ROOM


def read_rate(rates: Sequence[float], asked: float, tolerance: float = TOLERANCE) -> Reading:
    """The point that meets the asked rate best; otherwise the two closest around it; otherwise the nearest.

    Args:
        rates: measured rates of a codec's points; NaN if not yet measured.
    """
    known = [index for index, rate in enumerate(rates) if rate > 0]
    if not known:
        return Reading(0, 0)
    nearest = min(known, key=lambda index: (abs(math.log(rates[index] / asked)), rates[index]))
    below = [index for index in known if rates[index] < asked]
    above = [index for index in known if rates[index] > asked]
    if meets(rates[nearest], asked, tolerance) or not below or not above:
        return Reading(nearest, nearest)
    low, high = max(below, key=lambda index: rates[index]), min(above, key=lambda index: rates[index])
    return Reading(low, high, (asked - rates[low]) / (rates[high] - rates[low]))


def is_point_of(condition: Condition, codec: str) -> bool:
    """Whether a condition is an operating point of the codec, not files decoded elsewhere with its name."""
    return condition.codec == codec and condition.rate_is == "measured"


@dataclass(frozen=True)
class ReadCondition:
    """The results of a condition per clip, before summing.

    Attributes:
        clips: rows of `Results.clips`; texts are objects or None.
        codes: statistics of its codes.
        frames: for each embedding, clip id -> row of its decoded frames: for the condition, or for both
            points between which it is interpolated.
        between: those points.
    """

    condition: Condition
    clips: pd.DataFrame
    codes: CodeStatistics
    frames: list[tuple[dict[str, FramesRow], ...]] = field(default_factory=list)
    between: Between | None = None

    @property
    def coded(self) -> pd.Index:
        """The clips that did not fail."""
        return pd.Index(self.clips.loc[self.clips["error"].isna(), "clip"])

    @property
    def kbps(self) -> float:
        """Rate measured over all clips that did not fail."""
        return self.kbps_over(self.coded)

    @property
    def delay(self) -> float:
        """Delay removed before scoring, samples; NaN if nothing is scored."""
        return float(self.clips["delay_applied"].astype(float).max())

    def kbps_over(self, clips: pd.Index) -> float:
        """Rate measured over some clips that did not fail; NaN without clips."""
        chosen = self.clips[self.clips["clip"].isin(clips)]
        duration_s = chosen["duration_s"].sum()
        return float(8 * chosen["bytes"].sum(skipna=False) / duration_s / 1000) if duration_s else math.nan


def match(
    points: Sequence[ReadCondition], asked: Sequence[AskedRate], metrics: Sequence[MetricInfo]
) -> tuple[list[ReadCondition], list[ReadCondition]]:
    """A row for every asked rate, and the points that are not rows.

    Args:
        points: operating points of all codecs.
        metrics: metrics with a value per clip.
    """
    rows, used = [], set()
    for wanted in asked:
        own = [point for point in points if is_point_of(point.condition, wanted.codec)]
        if not own:
            continue
        reading = read_rate([point.kbps for point in own], wanted.kbps)
        low, high = own[reading.low], own[reading.high]
        if low is not high:
            # A clip that failed at one point has no interpolated value, so it is left out of both rates.
            both, pair = low.coded.intersection(high.coded), (low, high)
            rates = [point.kbps_over(both) for point in pair]
            reading = read_rate(rates, wanted.kbps, tolerance=0)
            low, high = pair[reading.low], pair[reading.high]
        if low is high:
            rows.append(_renamed(low, wanted.kbps))
            used.add(id(low))
        else:
            kbps = rates[reading.low], rates[reading.high]
            delays = low.delay, high.delay
            between = Between(low.condition, high.condition, kbps, reading.weight, delays)
            rows.append(_interpolated(low, high, between, wanted.kbps, metrics))
    return rows, [point for point in points if id(point) not in used]


def _renamed(point: ReadCondition, kbps: float) -> ReadCondition:
    return replace(
        point,
        condition=replace(point.condition, kbps=kbps),
        clips=point.clips.assign(kbps=float(kbps)),
        codes=replace(point.codes, kbps=kbps),
    )


def _interpolated(
    low: ReadCondition, high: ReadCondition, between: Between, kbps: float, metrics: Sequence[MetricInfo]
) -> ReadCondition:
    weight = between.weight
    names = ["bytes", "kbps_measured", "gain_db", "encode_s", "decode_s", *(m.name for m in metrics)]
    places = pd.Index(high.clips["clip"]).get_indexer(low.clips["clip"])
    one = low.clips[places >= 0].reset_index(drop=True)
    other = high.clips.iloc[places[places >= 0]].reset_index(drop=True)
    clips = one.assign(kbps=float(kbps), kbps_nominal=math.nan, error=_either(one["error"], other["error"]))
    for name in names:
        clips[name] = _mixed_columns(one[name], other[name], weight)
    for name in ("delay_samples", "delay_applied"):
        clips[name] = one[name].where(one[name] == other[name])
    for metric in metrics:
        why = f"{metric.name}_reason"
        clips[why] = _either(one[why], other[why])
        unknown = clips[metric.name].isna() & ~clips[why].astype(bool)
        clips.loc[unknown, why] = (
            "infinite at one of the two operating points, with the other sign at the other"
        )
    if (failed := clips["error"].astype(bool)).any():
        for name in (*names, "delay_samples", "delay_applied"):
            clips[name] = clips[name].mask(failed)
    condition = replace(low.condition, kbps=kbps, nominal=None, settings={}, rate_is="interpolated")
    frames = []
    for (one,), (other,) in zip(low.frames, high.frames, strict=True):
        shared = one.keys() & other.keys()
        frames.append(tuple({name: of[name] for name in of if name in shared} for of in (one, other)))
    return ReadCondition(condition, clips, _mixed_codes(low.codes, high.codes, weight, kbps), frames, between)


def _either(one: pd.Series, other: pd.Series) -> pd.Series:
    """The text of one, or of the other if one has none."""
    return pd.Series(np.where(one.astype(bool), one, other), dtype=object)


def _mixed_columns(low: pd.Series, high: pd.Series, weight: float) -> pd.Series:
    """`mixed` for many values."""
    with np.errstate(invalid="ignore"):  # infinity with both signs
        return low.where(low == high, (1 - weight) * low + weight * high)


def match_columns(results: Results) -> pd.DataFrame:
    """`evaluation.results.MATCH_COLUMNS` with a row per condition."""
    rows = []
    for condition in results.conditions:
        between = results.between.get((condition.codec, condition.kbps))
        rows.append((between is not None, *(between.kbps if between else (math.nan, math.nan))))
    return pd.DataFrame(rows, columns=MATCH_COLUMNS)


def mixed(low: float, high: float, weight: float) -> float:
    """Value on the line between two values; exactly their value if they are equal, even if infinite."""
    return low if low == high else (1 - weight) * low + weight * high


def _mixed_codes(low: CodeStatistics, high: CodeStatistics, weight: float, kbps: float) -> CodeStatistics:
    names = ["kbps_entropy", "perplexity", "perplexity_miller_madow", "perplexity_of_mean"]
    names += ["perplexity_of_mean_miller_madow", "usage"]
    values: dict[str, Any] = {name: mixed(getattr(low, name), getattr(high, name), weight) for name in names}
    reason = low.kbps_entropy_reason or high.kbps_entropy_reason
    return CodeStatistics(low.codec, kbps, frames=low.frames, kbps_entropy_reason=reason, **values)


def mixed_scores(low: CorpusScore, high: CorpusScore, weight: float) -> CorpusScore:
    """An interpolated distance between distributions, with the jackknife interval of interpolated values."""
    reason = low.reason or high.reason
    values: dict[str, Any] = {
        name: mixed(getattr(low, name), getattr(high, name), weight) for name in ("value", "half", "limit")
    }
    blank = replace(low, low=math.nan, high=math.nan, limit_low=math.nan, limit_high=math.nan, left_out=())
    found = replace(blank, **values, reason=reason, ci_reason=low.ci_reason or high.ci_reason)
    if not low.left_out or low.sizes != high.sizes or len(low.left_out) != len(high.left_out):
        return replace(
            found, ci_reason=found.ci_reason or "the two operating points were not scored on the same clips"
        )
    left_out = tuple(mixed(a, b, weight) for a, b in zip(low.left_out, high.left_out, strict=True))
    interval = jackknife(found.value, list(left_out), list(low.sizes))
    # A Frechet distance is not negative, and the intervals of its points end at 0.
    least = 0.0 if min(low.low, high.low) >= 0 else -math.inf
    return replace(found, left_out=left_out, low=max(least, interval.low), high=interval.high)
