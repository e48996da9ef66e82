"""Distances between the distributions of references and decoded clips, from the frames in a run folder.

Recordings are put into groups; a distance, its interval and its value at half the data need only sums per
group. A result is kept as a row of the run folder, under a hash of its frames. Intervals come from the
jackknife over recordings (`evaluation.statistics.distributions.jackknife`). A bootstrap would repeat
recordings; that reduces the effective sample, and a smaller sample has a larger Frechet distance.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.lazy import Lazy
from evaluation.datasets.base import Clip
from evaluation.metrics.embedding import FRECHET, KERNEL, embedding_metrics
from evaluation.records import EmbeddingInfo, Settings, number_to_json
from evaluation.results import Results, last_columns, metric_columns
from evaluation.rows import CorpusRow, CorpusScore, Distance, FramesRow
from evaluation.run.store import RunStore, reference_frames_key, row_key
from evaluation.statistics.distributions import (
    Gaussian,
    Moments,
    bandwidth,
    evenly_spaced,
    frechet,
    frechet_of_few,
    jackknife,
    jackknife_groups,
    kernel_sums,
)

if TYPE_CHECKING:
    import torch
    from scipy import stats
else:  # their import takes seconds, and much of a report needs neither
    torch, stats = Lazy("torch"), Lazy("scipy.stats")

#: If the smaller of frames and dimensions is above this, a distance is slow and is computed only once.
MAX_RESAMPLED_SIZE = 1024
#: Up to this number of frames, the kernel distance uses all pairs; above it, pairs within blocks of clips.
MAX_PAIRED_FRAMES, KERNEL_BLOCK = 20_000, 2_000
#: Factor of the printed kernel distance, as in its authors' tool.
KERNEL_SCALE = 100

_VALUES_AT_ONCE = 2**25

#: A distance computed from the frames of some groups.
Statistic = Callable[[Sequence[int]], float]


class EmbeddedRun:
    """Frames of one embedding in one run folder, and the distances between them.

    Args:
        store: open run folder; results are kept in it if it is open for writing.
        info: the embedding.
        settings: settings of the run.
        clips: all clips of the data set, which decide groups and bandwidth.
    """

    def __init__(
        self, store: RunStore, info: EmbeddingInfo, settings: Settings, clips: Sequence[Clip]
    ) -> None:
        self.store = store
        self.info = info
        self.clips = {clip.id: clip for clip in clips}
        self.groups = jackknife_groups([clip.recording for clip in clips])
        rows = {
            clip.id: store.row(reference_frames_key(info.identity, settings, clip), FramesRow)
            for clip in clips
            if clip.error is None
        }
        self.references = {name: row for name, row in rows.items() if row and self.holds(row)}
        self._sigma: float | None = None
        self._gaussians: dict[tuple[str, tuple[int, ...]], Gaussian] = {}

    def holds(self, row: FramesRow) -> bool:
        """Whether the frames that ``row`` points to exist and are of this embedding."""
        return self.store.has_frames(row) and row.dim == self.info.dim

    def scores(
        self, codec: str, kbps: float | None, decoded: Mapping[str, FramesRow], *, common: bool = False
    ) -> list[CorpusScore]:
        """Frechet and kernel distance of one condition.

        Args:
            codec: row label.
            kbps: asked rate.
            decoded: clip id -> row of its decoded frames; clips whose reference has another number of frames
                are left out.
            common: see `CorpusScore`.
        """
        names = sorted(
            (
                name
                for name in decoded
                if name in self.references and self.references[name].frames == decoded[name].frames
            ),
            key=lambda name: (self.groups[self.clips[name].recording], name),
        )
        rows = [(self.references[name], decoded[name]) for name in names]
        metrics = {metric.name.partition("_")[0]: metric.name for metric in embedding_metrics(self.info)}
        members = _hash([reference.key for reference, _ in rows])
        recordings = [self.clips[name].recording for name in names]
        blank = CorpusScore(
            "",
            codec,
            kbps,
            math.nan,
            n_clips=len(names),
            n_recordings=len(set(recordings)),
            n_frames=sum(reference.frames for reference, _ in rows),
            members=members,
            common=common,
        )
        if blank.n_frames < 2:
            reason = "a distance between distributions needs two frames or more"
            missing = replace(blank, reason=reason, ci_reason="there is no value")
            return [replace(missing, metric=metrics[kind]) for kind in (FRECHET, KERNEL)]
        key = row_key(
            kind="corpus",
            metrics=[[metric.name, metric.version] for metric in embedding_metrics(self.info)],
            frames=_hash([[a.key, b.key] for a, b in rows]),
            sigma=number_to_json(self.sigma),
            groups=_hash(sorted(self.groups.items())),
        )
        row = self.store.row(key, CorpusRow)
        if row is None:
            fd, kad = self._compute(rows, recordings, members)
            row = CorpusRow(key=key, codec=codec, kbps=kbps, embedding=self.info.name, fd=fd, kad=kad)
            if self.store.writable:
                self.store.append([row])
        return [
            replace(
                blank,
                metric=metrics[kind],
                **{spec.name: getattr(distance, spec.name) for spec in fields(Distance)},
            )
            for kind, distance in ((FRECHET, row.fd), (KERNEL, row.kad))
        ]

    @property
    def sigma(self) -> float:
        """Bandwidth of the kernel, from all references."""
        if self._sigma is None:
            rows = [self.references[name] for name in sorted(self.references)]
            ends = np.cumsum([row.frames for row in rows], dtype=np.int64)
            # Only the chosen frames are read, because all references may not fit into memory.
            chosen = evenly_spaced(int(ends[-1])) if rows else np.arange(0)
            clips = np.searchsorted(ends, chosen, side="right")
            frames = [
                self.store.read_frames(rows[clip])[chosen[clips == clip] - ends[clip]]
                for clip in np.unique(clips)
            ]
            self._sigma = bandwidth(np.concatenate(frames)) if frames else math.nan
        return self._sigma

    def _compute(
        self, rows: list[tuple[FramesRow, FramesRow]], recordings: list[str], members: str
    ) -> tuple[Distance, Distance]:
        """Frechet and kernel distance."""
        of_clip = [self.groups[recording] for recording in recordings]
        groups = sorted(set(of_clip))
        sizes = [len({r for r, g in zip(recordings, of_clip, strict=True) if g == group}) for group in groups]
        by_group = [
            [pair for pair, group in zip(rows, of_clip, strict=True) if group == wanted] for wanted in groups
        ]
        counts = [sum(reference.frames for reference, _ in pairs) for pairs in by_group]
        threads = torch.get_num_threads()
        small = min(sum(counts), self.info.dim) <= MAX_RESAMPLED_SIZE
        if small:
            torch.set_num_threads(1)  # with more, the last bits would depend on the number of cores
        try:
            distance = self._frechet(by_group, counts, members, small)
            fd = _summarise(distance, sizes, counts, intervals=small, halves=small, least=0.0)
            kad = _summarise(self._kernel(by_group, counts), sizes, counts, intervals=True, halves=False)
        finally:
            torch.set_num_threads(threads)
        return fd, kad

    def _frechet(self, by_group: list[Any], counts: list[int], members: str, small: bool) -> Statistic:
        if sum(counts) <= self.info.dim:
            frames = [self._read(pairs) for pairs in by_group]

            def of_few(groups: Sequence[int]) -> float:
                x, y = (torch.cat([frames[group][side] for group in groups]) for side in (0, 1))
                return frechet_of_few(x, y)

            return of_few
        parts = by_group if small else [[pair for pairs in by_group for pair in pairs]]
        moments = [self._moments(pairs) for pairs in parts]

        def total(side: int, groups: Sequence[int]) -> Moments:
            return reduce(add, (moments[group][side] for group in groups))

        def of_moments(groups: Sequence[int]) -> float:
            groups = groups if small else [0]
            key = (members, tuple(groups))
            if key not in self._gaussians:
                self._gaussians[key] = Gaussian.of(total(0, groups))
            return frechet(self._gaussians[key], Gaussian.of(total(1, groups)))

        # The Gaussians of the references are the same for all conditions on the same clips.
        if self._gaussians and next(iter(self._gaussians))[0] != members:
            self._gaussians.clear()
        return of_moments

    def _moments(self, pairs: list[Any]) -> tuple[Moments, Moments]:
        blocks = self._blocks(pairs, max(1, _VALUES_AT_ONCE // self.info.dim))
        sums = [Moments.of(frames) for frames in next(blocks)]
        for block in blocks:
            sums = [total + Moments.of(frames) for total, frames in zip(sums, block, strict=True)]
        return sums[0], sums[1]

    def _kernel(self, by_group: list[Any], counts: list[int]) -> Statistic:
        if math.isnan(self.sigma):
            return lambda groups: math.nan
        size = len(by_group)
        n = torch.tensor(counts, dtype=torch.float64)
        if sum(counts) <= MAX_PAIRED_FRAMES:
            frames = [self._read(pairs) for pairs in by_group]
            x, y = (torch.cat([part[side] for part in frames]) for side in (0, 1))
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).tolist()
            sums, pairs = kernel_sums(x, y, self.sigma, starts), torch.outer(n, n) - torch.diag(n)
        else:
            sums, pairs = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, size)
            for group, members in enumerate(by_group):
                for x, y in self._blocks(members, KERNEL_BLOCK):
                    sums[group, group] += kernel_sums(x, y, self.sigma, [0])[0, 0]
                    pairs[group, group] += len(x) * (len(x) - 1)

        def distance(groups: Sequence[int]) -> float:
            chosen = np.ix_(groups, groups)
            count = float(pairs[chosen].sum())
            return KERNEL_SCALE * float(sums[chosen].sum()) / count if count else math.nan

        return distance

    def _blocks(self, pairs: list[Any], size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Frames of references and decoded clips, about ``size`` at a time, whole clips."""
        block: list[Any] = []
        for pair in pairs:
            block.append(pair)
            if sum(reference.frames for reference, _ in block) >= size:
                yield self._read(block)
                block = []
        if block:
            yield self._read(block)

    def _read(self, pairs: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = (np.concatenate([self.store.read_frames(pair[side]) for pair in pairs]) for side in (0, 1))
        return torch.from_numpy(x), torch.from_numpy(y)


def _summarise(
    statistic: Statistic,
    sizes: list[int],
    counts: list[int],
    *,
    intervals: bool,
    halves: bool,
    least: float = -math.inf,
) -> Distance:
    """Value of a statistic, its value at half the data, and its limit for infinite data, with intervals."""
    everything = list(range(len(sizes)))
    value = statistic(everything)
    found = Distance(value, tuple(sizes))
    if math.isnan(value):
        return replace(found, reason="all reference frames are equal", ci_reason="there is no value")
    if len(sizes) < 2:
        return replace(found, ci_reason="one recording only: an interval needs two or more")
    if not intervals:
        reason = f"over {MAX_RESAMPLED_SIZE} frames and dimensions: too slow to repeat for an interval"
        return replace(found, ci_reason=reason)
    rests = [[group for group in everything if group != out] for out in everything]
    parts = [everything[::2], everything[1::2]]
    of_parts: list[float] = []
    if halves and min(frames := [sum(counts[group] for group in part) for part in parts]) >= 2:
        of_parts = [statistic(part) for part in parts]
        half = sum(of_parts) / 2
        limit = max(least, 2 * value - half)
        found = replace(found, half=half, half_frames=sum(frames) / 2, limit=limit)
    enough = min(sum(counts[group] for group in rest) for rest in rests) >= 2
    left_out = [statistic(rest) for rest in rests] if enough else [math.nan]
    if not np.isfinite(left_out).all():
        return replace(found, ci_reason="too few frames for an interval")
    interval = jackknife(value, left_out, sizes)
    low = max(least, interval.low)
    found = replace(found, left_out=tuple(left_out), low=low, high=interval.high)
    limits = []
    for out, without in enumerate(left_out if of_parts else []):
        smaller = [group for group in parts[out % 2] if group != out]
        if sum(counts[group] for group in smaller) < 2:
            return found
        limits.append(2 * without - (statistic(smaller) + of_parts[1 - out % 2]) / 2)
    if not limits:
        return found
    interval = jackknife(2 * value - half, limits, sizes)
    return replace(found, limit_low=max(least, interval.low), limit_high=max(least, interval.high))


def _hash(content: Any) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


# Summary columns and paired differences: one number per condition


def find_score(
    results: Results, metric: str, codec: str, kbps: float | None, *, common: bool = False
) -> CorpusScore:
    """The score of a condition; a score without a value if it is not computed yet."""
    for score in results.scores:
        if (score.metric, score.codec, score.kbps, score.common) == (metric, codec, kbps, common):
            return score
    return CorpusScore(metric, codec, kbps, math.nan, reason="not computed yet", ci_reason="not computed yet")


def corpus_columns(score: CorpusScore) -> dict[str, Any]:
    """Entries of a row of the summary (`evaluation.statistics.recordings.summarize`)."""
    values = (score.value, score.low, score.high, score.n_clips, 0, score.reason, score.ci_reason)
    of_sizes = (score.n_frames, score.half, score.half_frames, score.limit)
    return dict(zip(metric_columns(score.metric), (*values, *of_sizes), strict=True))


def last_corpus_columns(score: CorpusScore) -> dict[str, float]:
    """Further entries of that row (`evaluation.results.last_columns`)."""
    ends = (score.limit_low, score.limit_high)
    return dict(zip(last_columns(score.metric, per_clip=False), ends, strict=True))


def paired_difference(a: CorpusScore, b: CorpusScore) -> dict[str, Any]:
    """a - b with its interval and two-sided p by a paired jackknife: the same groups are left out of both.

    Returns:
        ``n_recordings, n_clips, difference, ci_low, ci_high, p, reason``; NaN with the reason if the two are
        not of the same clips.
    """
    row: dict[str, Any] = dict.fromkeys(("difference", "ci_low", "ci_high", "p"), math.nan)
    row |= {"n_recordings": 0, "n_clips": 0, "reason": ""}
    for score in (a, b):
        if math.isnan(score.value):
            return {**row, "reason": f"{score.codec}: {score.reason}"}
    if a.members != b.members:
        return row | {
            "reason": "not the same clips: a distance between distributions depends on their number"
        }
    row |= {"n_recordings": a.n_recordings, "n_clips": a.n_clips, "difference": a.value - b.value}
    if not a.left_out or len(a.left_out) != len(b.left_out) or a.sizes != b.sizes:
        return {**row, "reason": a.ci_reason or b.ci_reason}
    interval = jackknife(row["difference"], np.subtract(a.left_out, b.left_out).tolist(), a.sizes)
    row |= {"ci_low": interval.low, "ci_high": interval.high}
    if interval.error > 0:
        row["p"] = float(2 * stats.t.sf(abs(row["difference"]) / interval.error, interval.groups - 1))
    else:
        row |= {"p": 1.0, "reason": "all differences are zero"}
    return row
