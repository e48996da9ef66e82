"""The main loop: batches of clips through every condition, one row per result, nothing computed twice.

The first pass codes every clip, estimates its delay and gain, and scores it at the delay of its batch. When
all clips are coded, each condition gets one integer delay, the median over clips. The second pass scores the
clips that have no score at this delay yet: none, if the codec compensates its delay. Embeddings, the
expensive part, wait for the second pass if the clips of a batch differ in delay, so that they are not
computed twice.

`evaluation.engine.evaluator` does the work on a batch, in threads of this process or on the workers of a
cluster (`evaluation.engine.cluster`). Both write the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from evaluation.datasets.base import Clip, Dataset
from evaluation.datasets.files import Listing
from evaluation.embeddings.base import Embedding
from evaluation.engine.coding import make_batches
from evaluation.engine.conditions import PreparedCondition
from evaluation.engine.evaluator import Evaluator, Work
from evaluation.engine.noise_floor import noise_floor
from evaluation.engine.request import ParsedRequest
from evaluation.metrics.base import Metric
from evaluation.records import AskedRate, Settings
from evaluation.rows import CodedRow, FramesRow, ScoreRow
from evaluation.run.environment import usable_cores
from evaluation.run.store import RunStore, condition_delay, row_key, score_key
from qincodec import audio
from qincodec.core.errors import UserError

if TYPE_CHECKING:
    from evaluation.engine.cluster import Cluster


@dataclass
class PreparedRun:
    """A checked and loaded run; nothing is written yet.

    Attributes:
        dataset: clips with an ``error`` fail for every condition.
        metrics: in table order.
        unavailable: name of a metric or embedding that cannot be computed here -> why.
        skipped: row label of a codec that was left out -> why.
        asked: asked conditions at measured rates. ``conditions`` are nominal ones until operating points are
            found (`evaluation.engine.matching`), and these points afterwards.
        whole: the whole data set as found, if this is a shard.
    """

    request: ParsedRequest
    dataset: Dataset
    conditions: list[PreparedCondition]
    metrics: list[Metric]
    embeddings: list[Embedding]
    unavailable: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    asked: list[AskedRate] = field(default_factory=list)
    whole: Listing | None = None

    @property
    def settings(self) -> Settings:
        return self.request.typed.settings

    @property
    def workers(self) -> int:
        """Number of threads that work on batches. Each computes with one CPU thread, so it does not change
        results."""
        return self.request.typed.workers or usable_cores()

    @property
    def floor(self) -> list[PreparedCondition]:
        """Conditions that get only metrics of embeddings."""
        return noise_floor() if self.embeddings else []

    def default_folder(self) -> Path:
        """``runs/<data>-<hash>``: the same request finds its own run and continues it."""
        content = row_key(
            settings=self.settings.to_json(),
            data=self.dataset.hash,
            conditions=[asdict(prepared.condition) for prepared in self.conditions],
            metrics=[[metric.name, metric.version] for metric in self.metrics],
            # By name: the same folder is used when missing weights arrive later.
            embeddings=sorted([*(e.name for e in self.embeddings), *self.unavailable]),
        )
        return Path("runs") / f"{self.dataset.name}-{content[:8]}"


class Runner:
    """Evaluates a prepared run into a store.

    Args:
        store: open run folder.
        run: what to evaluate.
        cluster: its workers do the batches; None: threads of this process.
        on_step: called with the number of (clip, condition) pairs just finished, from any thread; first with
            the number of known pairs.
        on_more: called with the number of pairs that the second pass adds.
    """

    def __init__(
        self,
        store: RunStore,
        run: PreparedRun,
        *,
        cluster: Cluster | None = None,
        on_step: Callable[[int], None] = lambda count: None,
        on_more: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.store = store
        request, settings = run.request.typed, run.settings
        self.conditions = [*run.conditions, *run.floor]
        self.settings = settings
        self.clips = [clip for clip in run.dataset.clips if clip.error is None]
        self.unreadable = [clip for clip in run.dataset.clips if clip.error is not None]
        self.batches = make_batches(self.clips, request.batch_size)
        self.workers = run.workers
        self.cluster = cluster
        self.on_step = on_step
        self.on_more = on_more
        typed = request.device, request.save_audio
        self._evaluator = Evaluator(store, settings, self.conditions, run.metrics, run.embeddings, *typed)

    def run(self) -> None:
        """Code and score everything that is missing. Rows of finished work stay, whatever ends the run.

        Raises:
            StoreError: the run folder cannot be written.
        """
        evaluator = self._evaluator
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for prepared in self.conditions:
                for clip in self.unreadable:
                    evaluator.append(evaluator.failures(prepared, clip, None, clip.error or ""))
            works = [self._uncoded(clips) for clips in self.batches]
            self.on_step(self.steps() - sum(work.steps for work in works))
            self._each(works)
            delays = [
                condition_delay(map(partial(self._delay, prepared), self.clips), self.settings.align)
                for prepared in self.conditions
            ]
            pairs = list(zip(self.conditions, delays, strict=True))
            works = [
                Work(clips, [p for p in pairs if self._unscored(p[0], clips, p[1])]) for clips in self.batches
            ]
            self.on_more(sum(work.steps for work in works))
            self._each(works)
        finally:
            torch.set_num_threads(threads)

    def steps(self) -> int:
        """Number of (clip, condition) pairs of the first pass."""
        return len(self.clips) * len(self.conditions)

    def _delay(self, prepared: PreparedCondition, clip: Clip) -> int | None:
        row = self._evaluator.coded_row(prepared, clip)
        return None if row is None else row.delay

    def _each(self, works: Iterable[Work]) -> None:
        """Do the work on every batch, here or on the cluster; an error stops all of it."""
        works = (work for work in works if work.todo)
        if self.cluster is not None:
            self.cluster.evaluate(works, self._evaluator, self.store, self.on_step)
            return
        pending: set[Future[None]] = set()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for work in works:
                    pending.add(pool.submit(self._evaluator.work, work, self.on_step))
                    if len(pending) > self.workers:  # one waits, the rest are not read yet
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        for future in done:
                            future.result()
                for future in pending:
                    future.result()
            except BaseException:
                self._evaluator.stop.set()
                for future in pending:
                    future.cancel()
                raise

    def _uncoded(self, clips: list[Clip]) -> Work:
        """The first pass's work on a batch."""
        todo = [prepared for prepared in self.conditions if not self._coded(prepared, clips)]
        return Work(clips, [(prepared, None) for prepared in todo])

    def _coded(self, prepared: PreparedCondition, clips: list[Clip]) -> bool:
        """Whether the first pass has nothing to do; failed clips are tried again."""
        for clip in clips:
            row = self._evaluator.coded_row(prepared, clip)
            if row is None or row.error is not None:
                return False
            if self._evaluator.saves(prepared) and not self._is_saved(prepared, clip, row.duration_s):
                return False
        return True

    def _unscored(self, prepared: PreparedCondition, clips: list[Clip], delay: int) -> bool:
        """Whether any coded clip lacks a score at ``delay``."""
        evaluator = self._evaluator
        for clip in clips:
            key = evaluator.key(prepared, clip)
            row = self.store.row(key, CodedRow)
            if row is None or row.error is not None:
                continue
            if evaluator.lacks_metric(prepared, clip, key, delay):
                return True
            for embedder in evaluator.embedders:
                frames = embedder.keys(clip, key, delay)
                if not all(self.store.has_frames(self.store.row(name, FramesRow)) for name in frames):
                    return True
                scores = (score_key(key, metric, delay) for metric in embedder.clip_metrics)
                if any(self.store.row(name, ScoreRow) is None for name in scores):
                    return True
        return False

    def _is_saved(self, prepared: PreparedCondition, clip: Clip, duration_s: float) -> bool:
        """Whether the decoded audio is there and whole."""
        path = self.store.decoded_path(prepared.condition.point, clip.id)
        try:
            length = round(duration_s * self.settings.sample_rate)
            return path.exists() and audio.info(path).num_samples == length
        except UserError:
            return False
