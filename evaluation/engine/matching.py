"""Finds operating points for asked rates by measuring; `evaluation.statistics.matching` reads rows from them.

Before a run, a pilot encodes a few clips, drawn by the run's seed from all of the data, and scores nothing. A
codec whose bitrate can be set freely (`Codec.rate_at`) is searched first on few clips, then on more, because
variable bitrates differ much from clip to clip. The search aims at `PILOT_TOLERANCE` of the asked rate. After
`PATIENCE` points it accepts `STEP_TOLERANCE`: an encoder's bitrate jumps where it changes its mode, and a
nearer one may not exist. For other codecs the search takes the point within `STEP_TOLERANCE`, or the two
around the asked rate. When all clips are coded, the same search continues with the measurements on all of
them, until every asked rate is met, lies between two neighboring points, or is out of reach
(`missing_points`). A shard uses only its pilot, which is the same for all shards.

The points are written to run.json before anything is coded, so a run that continues uses the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import torch

from baselines.codec import Codec, Rate, highest
from baselines.registry import of_plugin
from evaluation.datasets.base import Clip
from evaluation.datasets.files import drawn_at
from evaluation.engine.conditions import PreparedCondition, at_point, checked_rate_at, checked_rates
from evaluation.engine.sizes import Measure, Size, Sizes
from evaluation.records import AskedRate, Settings, Tried, label_of
from evaluation.rows import CodedRow
from evaluation.run.manifest import RunDescription
from evaluation.run.store import RunStore, coded_key
from evaluation.statistics.matching import TOLERANCE, meets
from qincodec.core.console import Progress

#: Tolerance of the pilot about the asked rate (ratio - 1): for codecs whose bitrate can be set freely, for
#: others.
PILOT_TOLERANCE, STEP_TOLERANCE = 0.01, 0.02
#: Number of points after which the pilot accepts the second tolerance.
PATIENCE = 3
#: Clips of the pilot; seconds of audio with which it continues if a codec's bitrate can be set freely.
PILOT_CLIPS, PILOT_S = 8, 600.0
#: Files that a shard reads first, for a pilot of all of the data; twice as many if they are too few.
PILOT_FILES = 256
#: Greatest number of points tried for one asked rate.
MAX_TRIED = 12

#: An operating point and its measured rate; NaN if nothing could be measured.
Measured = tuple[Rate, float]


def next_rate(
    codec: Codec,
    rates: Sequence[Rate],
    channels: int,
    tried: Sequence[Measured],
    asked: float,
    tolerance: float,
) -> Rate | None:
    """The operating point to measure next; None if those tried suffice, or no other exists.

    Args:
        rates: `Codec.rates`.
        tried: with their measured rates, in any order.
        tolerance: accepted distance from the asked rate (ratio - 1).
    """
    known = [(rate, kbps) for rate, kbps in tried if kbps > 0 and rate.kbps is not None]
    if any(meets(kbps, asked, tolerance) for _, kbps in known):
        return None
    before = {rate.label for rate, _ in tried}
    steps = {rate.label: rate for rate in rates if rate.kbps is not None}
    if not steps:
        return None if tried else rates[0]
    # Skip points that were tried and could not be measured.
    ladder = [rate for label, rate in steps.items() if label not in before]
    if not tried:
        return _at(codec, ladder, channels, asked, -math.inf, math.inf)
    if not known:
        return None
    below = max((m for m in known if m[1] < asked), key=lambda m: m[1], default=None)
    above = min((m for m in known if m[1] > asked), key=lambda m: m[1], default=None)
    if below and above:
        # On the line through both, in logarithms; well between them, so that the search ends on any curve.
        share = math.log(asked / below[1]) / math.log(above[1] / below[1])
        ends = _nominal(below[0]), _nominal(above[0])
        low, high = min(ends), max(ends)
        guess = ends[0] * (ends[1] / ends[0]) ** min(max(share, 0.1), 0.9)
    else:
        # From the last point in this direction: close to another point a measured rate may change the other
        # way.
        known.sort(key=lambda m: _nominal(m[0]))
        falls = _falls(known[0], known[-1])
        is_up = bool(below) is not falls
        rate, kbps = known[-1] if is_up else known[0]
        low, high = (_nominal(rate), math.inf) if is_up else (-math.inf, _nominal(rate))
        guess = _nominal(rate) * (kbps / asked if falls else asked / kbps)
    found = _at(codec, ladder, channels, guess, low, high)
    return None if found is None or found.label in before else found


def _falls(first: Measured, last: Measured) -> bool:
    """Whether a measured rate falls as the nominal one rises, judged by two distant points."""
    return _nominal(last[0]) > 1.2 * _nominal(first[0]) and last[1] < 0.95 * first[1]


def _nominal(rate: Rate) -> float:
    return rate.kbps or math.nan


def _at(
    codec: Codec, ladder: Sequence[Rate], channels: int, kbps: float, low: float, high: float
) -> Rate | None:
    """The operating point nearest to a nominal rate, strictly between two others."""
    if (found := codec.rate_at(float(f"{kbps:.4g}"), channels)) is not None:
        return found
    between = [rate for rate in ladder if low < _nominal(rate) < high]
    return min(between, key=lambda rate: abs(math.log(_nominal(rate) / kbps)), default=None)


@dataclass(frozen=True)
class Found:
    """Result of a pilot; it is written to run.json, so codecs are named by their labels.

    Attributes:
        asked: in the order of the request.
        points: (row label, operating point), each once.
    """

    asked: list[AskedRate]
    points: list[tuple[str, Rate]]


def known_points(old: RunDescription | None) -> Found:
    """Result of the earlier sessions of a run."""
    if old is None:
        return Found([], [])
    points = [(point.codec, Rate(point.nominal, point.settings)) for point in old.points]
    return Found(list(old.asked), points)


def find_points(
    conditions: Sequence[PreparedCondition],
    old: RunDescription | None,
    pilot: Pilot,
    progress: Progress,
) -> Found:
    """The operating points that meet the asked rates of ``conditions``, those of an earlier session first.

    Args:
        conditions: of a request, at nominal rates.
        old: content of the run folder.
        pilot: measures unknown rates.
    """
    wanted = [c for c in conditions if c.codec is not None and not c.condition.control]
    before = known_points(old)
    known = {(asked.codec, asked.kbps): asked for asked in before.asked}
    points = before.points
    found: list[AskedRate] = []
    for number, prepared in enumerate(wanted):
        progress("matching rates", number, len(wanted))
        label, kbps = prepared.condition.codec, prepared.condition.kbps
        assert kbps is not None
        if (label, kbps) in known:
            found.append(known[label, kbps])
            continue
        search = partial(pilot.search, prepared, kbps)
        tried, chosen = of_plugin("codec", label, "rates() or rate_at()", search)
        found.append(AskedRate(label, kbps, tuple(tried)))
        points += [(label, rate) for rate in chosen]
    progress("matching rates", len(wanted), len(wanted))
    labels = {prepared.condition.codec for prepared in wanted}
    unique = {(label, rate.label): (label, rate) for label, rate in points if label in labels}
    return Found(found, list(unique.values()))


def with_points(
    conditions: Sequence[PreparedCondition], points: Sequence[tuple[str, Rate]]
) -> list[PreparedCondition]:
    """The conditions with those of codecs under test replaced by their operating points."""
    coded: list[PreparedCondition] = []
    for prepared in conditions:
        if prepared.codec is None or prepared.condition.control:
            coded.append(prepared)
            continue
        if any(prepared.codec is other.codec for other in coded):
            continue
        coded += [at_point(prepared, rate) for label, rate in points if label == prepared.condition.codec]
    return coded


def names_of_points(
    conditions: Sequence[PreparedCondition], asked: Sequence[AskedRate]
) -> dict[tuple[str, str], str]:
    """Names of conditions in tables, by (codec, rate) as in rows. An operating point is named by the asked
    rate nearest to its rate in the pilot."""
    measured = {(of.codec, tried.nominal): tried.kbps for of in asked for tried in of.pilot}
    names: dict[tuple[str, str], str] = {}
    for condition in (prepared.condition for prepared in conditions):
        kbps = measured.get((condition.codec, condition.nominal), condition.nominal or math.nan)
        wanted = [of.kbps for of in asked if of.codec == condition.codec]
        nearest = min(wanted, key=lambda rate: _distance(kbps, rate), default=condition.kbps)
        names.setdefault((condition.codec, condition.rate_label), label_of(condition.codec, nearest))
    return names


def missing_points(
    conditions: Sequence[PreparedCondition],
    asked: Sequence[AskedRate],
    settings: Settings,
    clips: Sequence[Clip],
    store: RunStore,
) -> list[tuple[str, Rate]]:
    """Further operating points that asked rates need, by the rates of all clips at the coded points."""
    measured: dict[str, list[Measured]] = {}
    codecs: dict[str, Codec] = {}
    for prepared in conditions:
        condition = prepared.condition
        if prepared.codec is None or prepared.rate is None or condition.control:
            continue
        codecs[condition.codec] = prepared.codec
        rows = (store.row(coded_key(condition, settings, clip), CodedRow) for clip in clips)
        scored = [row for row in rows if row is not None and row.error is None]
        kbps = kbps_of([row.bytes or 0 for row in scored], [row.duration_s for row in scored])
        measured.setdefault(condition.codec, []).append((prepared.rate, kbps))
    found: dict[tuple[str, str], tuple[str, Rate]] = {}
    for wanted in asked:
        codec = codecs[wanted.codec]
        rates = checked_rates(wanted.codec, codec, settings.channels)
        tried = measured[wanted.codec]
        rate = next_rate(codec, rates, settings.channels, tried, wanted.kbps, TOLERANCE)
        if rate is not None:
            found[wanted.codec, rate.label] = (wanted.codec, rate)
    return list(found.values())


def kbps_of(num_bytes: Sequence[int], durations_s: Sequence[float]) -> float:
    """Total bits over total duration; NaN if empty."""
    return 8 * sum(num_bytes) / sum(durations_s) / 1000 if durations_s else math.nan


@dataclass
class InThreads:
    """Measures clips in threads of this process; their number does not change the result."""

    sizes: Sizes
    workers: int = 1

    def __call__(self, label: str, codec: Codec, rate: Rate, of: Rate, clips: list[Clip]) -> list[Size]:
        self.sizes.turn_to(label, codec)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in the run itself
        try:
            with ThreadPoolExecutor(self.workers) as pool:
                return list(pool.map(partial(self.sizes.size, label, codec, rate, of), clips))
        finally:
            torch.set_num_threads(threads)


@dataclass
class Pilot:
    """Measures rates on clips drawn from all of the data, the same for the same data and seed.

    Args:
        measure: encodes clips (`InThreads`, or the workers of a cluster).
        clips: of the whole data set, from all shards.
        settings: of the run.
    """

    measure: Measure
    clips: Sequence[Clip]
    settings: Settings
    _measured: dict[tuple[str, str, int], tuple[float, int]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        readable = [clip for clip in self.clips if clip.error is None]
        self._drawn = sorted(readable, key=lambda clip: drawn_at(clip.id, self.settings.seed))
        ends = torch.tensor([clip.duration_s for clip in self._drawn]).cumsum(0)
        self._few = min(PILOT_CLIPS, len(self._drawn))
        self._many = max(self._few, int((ends <= PILOT_S).sum()))

    @property
    def is_full(self) -> bool:
        """Whether later clips of the draw would change nothing."""
        return len(self._drawn) > self._many

    def search(self, prepared: PreparedCondition, asked: float) -> tuple[list[Tried], list[Rate]]:
        """The measurements for an asked rate, in order, and the operating points that meet it best."""
        codec, label = prepared.codec, prepared.condition.codec
        assert codec is not None and prepared.rate is not None
        channels = self.settings.channels
        rates = checked_rates(label, codec, channels)
        free = checked_rate_at(label, codec, asked, channels) is not None
        said: list[Tried] = []
        tried: list[Measured] = []
        first = None
        for count in dict.fromkeys((self._few, self._many) if free else (self._few,)):
            tried, rate = [], first or next_rate(codec, rates, channels, [], asked, STEP_TOLERANCE)
            begins = free and count < self._many  # only finds where to begin with more clips
            aim = PILOT_TOLERANCE if free and not begins else STEP_TOLERANCE
            while rate is not None and len(tried) < (PATIENCE if begins else MAX_TRIED):
                kbps, clips = self._kbps(label, codec, rate, rates, count)
                tried.append((rate, kbps))
                if kbps > 0:
                    said.append(Tried(rate.kbps, kbps, clips))
                near = aim if len(tried) < PATIENCE else STEP_TOLERANCE
                rate = next_rate(codec, rates, channels, tried, asked, near)
            first = min(tried, key=lambda m: _distance(m[1], asked))[0]
        return said, self._chosen(tried, asked)

    def _chosen(self, tried: Sequence[Measured], asked: float) -> list[Rate]:
        """The point within the tolerance, else the closest below and above."""
        ordered = sorted(tried, key=lambda m: _distance(m[1], asked))
        if meets(ordered[0][1], asked, STEP_TOLERANCE):
            return [ordered[0][0]]
        sides = (
            next((rate for rate, kbps in ordered if kbps < asked), None),
            next((rate for rate, kbps in ordered if kbps > asked), None),
        )
        return [rate for rate in sides if rate is not None] or [ordered[0][0]]

    def _kbps(
        self, label: str, codec: Codec, rate: Rate, rates: Sequence[Rate], count: int
    ) -> tuple[float, int]:
        """Measured on the first clips of the draw, without those that cannot be coded; and how many
        remain."""
        key = label, rate.label, count
        if key not in self._measured:
            of = highest(codec, rate, rates)
            sizes = self.measure(label, codec, rate, of, self._drawn[:count])
            known = [size for size in sizes if size is not None]
            kbps = kbps_of([size[0] for size in known], [size[1] for size in known])
            self._measured[key] = kbps, len(known)
        return self._measured[key]


def _distance(kbps: float, asked: float) -> float:
    return abs(math.log(kbps / asked)) if kbps > 0 else math.inf
