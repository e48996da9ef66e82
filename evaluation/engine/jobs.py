"""Jobs for workers of a cluster, as the driver holds them: batches to code, clips of a pilot."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from baselines.codec import Rate, highest
from evaluation.datasets.base import Clip
from evaluation.engine.conditions import PreparedCondition
from evaluation.engine.evaluator import Evaluator, Work
from evaluation.engine.ledger import Gathered, Known
from evaluation.engine.sizes import Size
from evaluation.engine.worker import BatchOrder, Order, Ordered, Sized, SizeOrder
from evaluation.metrics.base import Metric
from evaluation.records import MetricInfo
from evaluation.rows import CodedRow, Row, ScoreRow
from evaluation.run.store import RunStore, condition_delay, score_key
from qincodec.core.errors import UserError


class Job(Protocol):
    """A piece of work for a worker."""

    def order(self) -> Order:
        """The order to send, made when it is sent, so that it includes all earlier results."""

    def take(self, found: Any) -> None:
        """Take the worker's result."""

    @property
    def points(self) -> list[str]:
        """Its conditions (`Condition.point`)."""

    @property
    def clips(self) -> list[str]:
        """Ids of its clips."""

    def part(self, points: Set[str]) -> Job | None:
        """The part of it that belongs to these conditions; None if none does."""

    def parts(self) -> list[Job]:
        """Smaller jobs with the same result, one for each condition if it has several; empty if it cannot be
        split."""

    def fail(self, reason: str) -> None:
        """Record that it cannot be done."""


@dataclass
class BatchJob:
    """A `Work` as a `Job`."""

    work: Work
    evaluator: Evaluator
    store: RunStore
    on_step: Callable[[int], None]
    #: Codecs whose rates are encoded separately, because the highest rate may have ended workers.
    apart: frozenset[str] = frozenset()

    @property
    def points(self) -> list[str]:
        return [prepared.condition.point for prepared, _ in self.work.todo]

    @property
    def clips(self) -> list[str]:
        return [clip.id for clip in self.work.clips]

    def order(self) -> BatchOrder:
        known = Known()
        for prepared, delay in self.work.todo:
            self._tell(known, prepared, delay)
        todo = [self._ordered(prepared, delay) for prepared, delay in self.work.todo]
        codecs = {prepared.condition.codec for prepared, _ in self.work.todo} - self.apart
        conditions = [c for c in self.evaluator.conditions if c.codec and c.condition.codec in codecs]
        there = {prepared.condition.point for prepared, _ in self.work.todo}
        for prepared in _wholes(conditions):
            if prepared.condition.point not in there:
                self._tell_coded(known, prepared)
        return BatchOrder(self.work.clips, todo, [c.condition for c in conditions], Gathered(known))

    def _ordered(self, prepared: PreparedCondition, delay: int | None) -> Ordered:
        files = {clip.id: prepared.files[clip.id] for clip in self.work.clips if clip.id in prepared.files}
        paths: dict[str, Path] = {}
        if (folder := prepared.rendered) is not None:
            there = (clip for clip in self.work.clips if files[clip.id].fingerprint is not None)
            paths = {clip.id: folder.find(clip.id, clip.path.name).absolute() for clip in there}
        return Ordered(prepared.condition, files, paths, delay)

    def _tell_coded(self, known: Known, prepared: PreparedCondition) -> list[tuple[Clip, CodedRow]]:
        """Results of a condition on this batch."""
        rows = [(clip, self.evaluator.coded_row(prepared, clip)) for clip in self.work.clips]
        coded = [(clip, row) for clip, row in rows if row is not None]
        for _, row in coded:
            known.rows[row.key] = row
            if prepared.codec is not None and row.error is None:
                with suppress(OSError, UserError):  # the worker computes it again
                    known.encoded[row.key] = self.store.read_encoded(row)
        return coded

    def _tell(self, known: Known, prepared: PreparedCondition, delay: int | None) -> None:
        """Content of the run folder for a condition on this batch."""
        evaluator, store = self.evaluator, self.store
        coded = self._tell_coded(known, prepared)
        found: list[Row | None] = []
        if delay is None:
            delay = condition_delay((row.delay for _, row in coded), evaluator.settings.align)
        for clip, row in coded:
            if row.error is not None:
                continue
            scored: list[Metric | MetricInfo] = [*evaluator.metrics]
            scored += [metric for embedder in evaluator.embedders for metric in embedder.clip_metrics]
            found += [store.row(score_key(row.key, metric, delay), ScoreRow) for metric in scored]
            with suppress(OSError, UserError):
                for embedder in evaluator.embedders:
                    for key in embedder.keys(clip, row.key, delay):
                        if (frames := store.frames(key)) is not None:
                            known.frames[key] = frames
        known.rows.update((row.key, row) for row in found if row is not None)

    def take(self, found: Gathered) -> None:
        rows = found.write_to(self.store)
        self.evaluator.failed.update(row.key for row in rows if isinstance(row, ScoreRow) and row.error)
        self.evaluator.append(rows)
        self.on_step(self.work.steps)

    def part(self, points: Set[str]) -> BatchJob | None:
        kept = [one for one in self.work.todo if one[0].condition.point in points]
        if len(kept) == len(self.work.todo):
            return self
        left = {p.condition.codec for p, _ in self.work.todo if p.condition.point not in points}
        return replace(self, work=replace(self.work, todo=kept), apart=self.apart | left) if kept else None

    def parts(self) -> list[Job]:
        clips, todo = self.work.clips, self.work.todo
        if len(todo) > 1:  # in the same batch each gives the same result
            works = [Work(clips, [one]) for one in todo]
        else:
            works = [Work([clip], todo) for clip in clips] if len(clips) > 1 else []
        apart = self.apart | {prepared.condition.codec for prepared, _ in todo}
        return [replace(self, work=work, apart=apart) for work in works]

    def fail(self, reason: str) -> None:
        for prepared, delay in self.work.todo:
            for clip in self.work.clips:
                self.evaluator.append(self.evaluator.failures(prepared, clip, delay, reason))
        self.on_step(self.work.steps)


@dataclass
class ClipJob:
    """Measurement of a clip of the pilot, as a `Job`; ``found`` stays empty if the clip cannot be coded."""

    clip: Clip
    label: str
    rate: Rate
    of: Rate
    found: dict[str, Size]
    #: Codecs whose rates are encoded separately.
    alone: set[str]

    @property
    def points(self) -> list[str]:
        return [f"{self.label}@{self.rate.label}"]

    @property
    def clips(self) -> list[str]:
        return [self.clip.id]

    def order(self) -> SizeOrder:
        return SizeOrder(self.clip, self.label, self.rate, self.rate if self.label in self.alone else self.of)

    def take(self, found: Sized) -> None:
        self.found[self.clip.id] = found.size

    def part(self, points: Set[str]) -> ClipJob | None:
        return self if points & {*self.points} else None

    def parts(self) -> list[Job]:
        """Encoded separately, if it was to be cut out of a higher rate, which may be at fault."""
        if self.of.label == self.rate.label:
            return []
        self.alone.add(self.label)
        return [replace(self, of=self.rate)]

    def fail(self, reason: str) -> None:
        """The run itself will report it."""


def _wholes(conditions: Sequence[PreparedCondition]) -> list[PreparedCondition]:
    """Conditions that others are cut out of (`Coder`)."""
    rates = [(c.codec, c.rate) for c in conditions]
    found = []
    for prepared in conditions:
        own = [rate for codec, rate in rates if codec is prepared.codec and rate is not None]
        assert prepared.codec is not None
        if any(highest(prepared.codec, rate, own) is prepared.rate is not rate for rate in own):
            found.append(prepared)
    return found
