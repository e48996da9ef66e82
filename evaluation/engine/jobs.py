"""What workers of a cluster are given to do, as the driver knows it: batches to code, clips of a pilot."""

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
    """Something that a worker does."""

    def order(self) -> Order:
        """What it is sent: made then, so that all is known that came before."""

    def take(self, found: Any) -> None:
        """What it made of it."""

    @property
    def points(self) -> list[str]:
        """The conditions that it is of (`Condition.point`)."""

    @property
    def clips(self) -> list[str]:
        """Ids of the clips that it is of."""

    def part(self, points: Set[str]) -> Job | None:
        """What of it is of these conditions; None if nothing is."""

    def parts(self) -> list[Job]:
        """Smaller ones that give the same together, one for each condition if there are several; none if
        there are none."""

    def fail(self, reason: str) -> None:
        """It cannot be done."""


@dataclass
class BatchJob:
    """A `Work` as a `Job`."""

    work: Work
    evaluator: Evaluator
    store: RunStore
    on_step: Callable[[int], None]
    #: Codecs whose rates are encoded each by itself: a higher one, out of which they would be cut, may have
    #: ended workers.
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
        """What was made of this batch in a condition."""
        rows = [(clip, self.evaluator.coded_row(prepared, clip)) for clip in self.work.clips]
        coded = [(clip, row) for clip, row in rows if row is not None]
        for _, row in coded:
            known.rows[row.key] = row
            if prepared.codec is not None and row.error is None:
                with suppress(OSError, UserError):  # the worker makes it again
                    known.encoded[row.key] = self.store.read_encoded(row)
        return coded

    def _tell(self, known: Known, prepared: PreparedCondition, delay: int | None) -> None:
        """What the run folder holds of a condition on this batch."""
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
        if len(todo) > 1:  # in the same batch each gives the same
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
    """What a clip of the pilot takes, as a `Job`; where it cannot be coded, nothing is ``found``."""

    clip: Clip
    label: str
    rate: Rate
    of: Rate
    found: dict[str, Size]
    #: Codecs whose rates are encoded each by itself.
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
        """By itself, if it was to be cut out of a higher rate, which may be at fault."""
        if self.of.label == self.rate.label:
            return []
        self.alone.add(self.label)
        return [replace(self, of=self.rate)]

    def fail(self, reason: str) -> None:
        """The run itself will report it."""


def _wholes(conditions: Sequence[PreparedCondition]) -> list[PreparedCondition]:
    """Those that others are cut out of (`Coder`)."""
    rates = [(c.codec, c.rate) for c in conditions]
    found = []
    for prepared in conditions:
        own = [rate for codec, rate in rates if codec is prepared.codec and rate is not None]
        assert prepared.codec is not None
        if any(highest(prepared.codec, rate, own) is prepared.rate is not rate for rate in own):
            found.append(prepared)
    return found
