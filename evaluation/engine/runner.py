"""The loop: batches of clips through every condition, one row per result, nothing computed twice.

Two passes. The first codes every clip, estimates its delay and gain, and scores it at the delay its own
batch shows. When all clips are coded, one integer delay per condition is fixed, the median over clips, and
the second pass scores what has no score at that delay yet. For codecs that compensate their delay it finds
nothing to do. Embeddings, the expensive part, wait for the second pass where the clips of a batch do not show
one delay: they would have to be made again.

What a batch takes is done by `evaluation.engine.evaluator`: in threads of this process, or on the workers of
a cluster (`evaluation.engine.cluster`), to the same bytes.
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
    """What will run: checked, loaded, nothing written yet.

    Attributes:
        dataset: its clips with an ``error`` fail for every condition.
        metrics: in table order.
        unavailable: name of a metric or embedding that cannot be computed here -> why.
        skipped: row label of a codec that was left out -> why.
        asked: at measured rates, once operating points were found (`evaluation.engine.matching`): what they
            are for. The conditions are these points then, and nominal ones before.
        whole: of a shard, what was found of all of the data.
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
        """Threads that take batches side by side. Each computes with one CPU thread, so their number changes
        no result."""
        return self.request.typed.workers or usable_cores()

    @property
    def floor(self) -> list[PreparedCondition]:
        """Conditions that only embeddings are computed for."""
        return noise_floor() if self.embeddings else []

    def default_folder(self) -> Path:
        """``runs/<data>-<hash>``: the same request finds its own run again and goes on with it."""
        content = row_key(
            settings=self.settings.to_json(),
            data=self.dataset.hash,
            conditions=[asdict(prepared.condition) for prepared in self.conditions],
            metrics=[[metric.name, metric.version] for metric in self.metrics],
            # By name: weights that arrive later go on with the same folder.
            embeddings=sorted([*(e.name for e in self.embeddings), *self.unavailable]),
        )
        return Path("runs") / f"{self.dataset.name}-{content[:8]}"


class Runner:
    """Evaluates a prepared run into a store.

    Args:
        store: open run folder.
        run: what to evaluate.
        cluster: whose workers do the batches; None: threads of this process.
        on_step: called with the number of (clip, condition) pairs just finished, from any thread; first with
            that of those that were there.
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
        """Code and score all that is missing. Rows of finished work stay, whatever ends the run.

        Raises:
            StoreError: the run folder cannot be written any more.
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
        """Do the work on every batch, here or on the cluster; an error stops it all."""
        works = (work for work in works if work.todo)
        if self.cluster is not None:
            self.cluster.evaluate(works, self._evaluator, self.store, self.on_step)
            return
        pending: set[Future[None]] = set()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for work in works:
                    pending.add(pool.submit(self._evaluator.work, work, self.on_step))
                    if len(pending) > self.workers:  # one waits in line, the rest are not read yet
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
        """What the first pass does of a batch."""
        todo = [prepared for prepared in self.conditions if not self._coded(prepared, clips)]
        return Work(clips, [(prepared, None) for prepared in todo])

    def _coded(self, prepared: PreparedCondition, clips: list[Clip]) -> bool:
        """Whether the first pass has nothing to do; what failed is tried again."""
        for clip in clips:
            row = self._evaluator.coded_row(prepared, clip)
            if row is None or row.error is not None:
                return False
            if self._evaluator.saves(prepared) and not self._is_saved(prepared, clip, row.duration_s):
                return False
        return True

    def _unscored(self, prepared: PreparedCondition, clips: list[Clip], delay: int) -> bool:
        """Whether any clip that was coded lacks a score at ``delay``."""
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
