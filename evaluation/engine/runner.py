"""The loop: batches of clips through every condition, one row per result, nothing computed twice.

Two passes. The first codes every clip, estimates its delay and gain, and scores it at the delay its own
batch shows. When all clips are coded, one integer delay per condition is fixed, the median over clips, and
the second pass scores what has no score at that delay yet. For codecs that compensate their delay it finds
nothing to do. Embeddings, the expensive part, wait for the second pass where the clips of a batch do not show
one delay: they would have to be made again.

A batch is always computed whole, in the same composition, whatever part of it is already known: batched
kernels may round differently in another batch, and a resumed run must end in the same bytes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from evaluation.datasets.base import Clip, Dataset
from evaluation.embeddings.base import Embedding
from evaluation.engine.alignment import estimate_delay, level_dbfs
from evaluation.engine.coding import Batch, Coded, Coder, make_batches
from evaluation.engine.conditions import PreparedCondition
from evaluation.engine.distributed import Ranks, usable_cores
from evaluation.engine.embedder import Embedder
from evaluation.engine.noise_floor import noise_floor
from evaluation.engine.request import ParsedRequest
from evaluation.engine.scoring import describe, failed_score, score_batch
from evaluation.metrics.base import Metric, Score
from evaluation.records import AskedRate, MetricInfo, Settings
from evaluation.rows import ClipRow, CodedRow, ScoreRow
from evaluation.run.store import RunStore, coded_key, condition_delay, row_key, score_key
from qincodec import audio
from qincodec.core.errors import UserError
from qincodec.core.files import StoreError, explain_os_errors
from qincodec.core.plugins import FAULTS

T = TypeVar("T")


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
    """

    request: ParsedRequest
    dataset: Dataset
    conditions: list[PreparedCondition]
    metrics: list[Metric]
    embeddings: list[Embedding]
    unavailable: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    asked: list[AskedRate] = field(default_factory=list)

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
        ranks: the processes that share the run.
        on_step: called with the number of (clip, condition) pairs just finished, from any worker.
        on_more: called with the number of pairs that the second pass adds.
    """

    def __init__(
        self,
        store: RunStore,
        run: PreparedRun,
        *,
        ranks: Ranks | None = None,
        on_step: Callable[[int], None] = lambda count: None,
        on_more: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.store = store
        request, settings = run.request.typed, run.settings
        self.conditions = [*run.conditions, *run.floor]
        self.metrics = run.metrics
        self.settings = settings
        self.embedders = [Embedder(store, embedding, settings) for embedding in run.embeddings]
        self.ranks = ranks or Ranks()
        self.clips = [clip for clip in run.dataset.clips if clip.error is None]
        self.unreadable = [clip for clip in run.dataset.clips if clip.error is not None]
        batches = make_batches(self.clips, request.batch_size)
        self.batches = batches[self.ranks.rank :: self.ranks.world_size]
        self.workers = run.workers
        self.device = torch.device(request.device)
        self.save_audio = request.save_audio
        self.on_step = on_step
        self.on_more = on_more
        known = self.conditions, self._coded_row
        self._coder = Coder(store, settings.sample_rate, settings.channels, *known)
        self._stop = threading.Event()
        #: Keys of scores that could not be computed in this session: a second attempt would fail likewise.
        self._failed: set[str] = set()

    def run(self) -> None:
        """Code and score all that is missing. Rows of finished work stay, whatever ends the run.

        Raises:
            StoreError: the run folder cannot be written any more.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if self.ranks.rank == 0:
                for prepared in self.conditions:
                    for clip in self.unreadable:
                        self._append(self._failures(prepared, clip, None, clip.error or ""))
            self._each(self.batches, self._first_pass)
            self.ranks.barrier()
            self.store.refresh()
            delays = [
                condition_delay(map(partial(self._delay, prepared), self.clips), self.settings.align)
                for prepared in self.conditions
            ]
            pairs = list(zip(self.conditions, delays, strict=True))
            todo = [
                (clips, [p for p in pairs if self._unscored(p[0], clips, p[1])]) for clips in self.batches
            ]
            todo = [(clips, conditions) for clips, conditions in todo if conditions]
            self.on_more(sum(len(clips) * len(conditions) for clips, conditions in todo))
            self._each(todo, lambda item: self._work(*item))
            self.ranks.barrier()
            self.store.refresh()
        finally:
            torch.set_num_threads(threads)

    def steps(self) -> int:
        """Number of (clip, condition) pairs this rank goes through in the first pass."""
        return sum(map(len, self.batches)) * len(self.conditions)

    def _key(self, prepared: PreparedCondition, clip: Clip) -> str:
        return coded_key(prepared.condition, self.settings, clip, prepared.files.get(clip.id))

    def _coded_row(self, prepared: PreparedCondition, clip: Clip) -> CodedRow | None:
        return self.store.row(self._key(prepared, clip), CodedRow)

    def _delay(self, prepared: PreparedCondition, clip: Clip) -> int | None:
        row = self._coded_row(prepared, clip)
        return None if row is None else row.delay

    def _each(self, items: Sequence[T], work: Callable[[T], None]) -> None:
        """Run ``work`` on every item with as many threads as there are workers; an error stops them all."""
        pending: set[Future[None]] = set()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for item in items:
                    pending.add(pool.submit(work, item))
                    if len(pending) > self.workers:  # one waits in line, the rest are not read yet
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        for future in done:
                            future.result()
                for future in pending:
                    future.result()
            except BaseException:
                self._stop.set()  # workers look at it between conditions
                for future in pending:
                    future.cancel()
                raise

    def _first_pass(self, clips: list[Clip]) -> None:
        todo = [prepared for prepared in self.conditions if not self._coded(prepared, clips)]
        self.on_step(len(clips) * (len(self.conditions) - len(todo)))
        self._work(clips, [(prepared, None) for prepared in todo])

    def _coded(self, prepared: PreparedCondition, clips: list[Clip]) -> bool:
        """Whether the first pass has nothing to do; what failed is tried again."""
        for clip in clips:
            row = self._coded_row(prepared, clip)
            if row is None or row.error is not None:
                return False
            if self._saves(prepared) and not self._is_saved(prepared, clip, row.duration_s):
                return False
        return True

    def _unscored(self, prepared: PreparedCondition, clips: list[Clip], delay: int) -> bool:
        """Whether any clip that was coded lacks a score at ``delay``."""
        for clip in clips:
            key = self._key(prepared, clip)
            row = self.store.row(key, CodedRow)
            if row is None or row.error is not None:
                continue
            if self._lacks_metric(prepared, key, delay):
                return True
            if not all(embedder.is_done(clip, key, delay) for embedder in self.embedders):
                return True
            if any(
                self.store.row(score_key(key, metric, delay), ScoreRow) is None
                for embedder in self.embedders
                for metric in embedder.clip_metrics
            ):
                return True
        return False

    def _lacks_metric(self, prepared: PreparedCondition, key: str, delay: int) -> bool:
        keys = (score_key(key, metric, delay) for metric in self.metrics if prepared.change is None)
        rows = ((score, self.store.row(score, ScoreRow)) for score in keys)
        return any(row is None or (row.error and score not in self._failed) for score, row in rows)

    def _saves(self, prepared: PreparedCondition) -> bool:
        return self.save_audio and prepared.change is None

    def _work(self, clips: list[Clip], todo: Sequence[tuple[PreparedCondition, int | None]]) -> None:
        if not todo:
            return
        batches = self._load(clips, todo)
        for prepared, delay in todo:
            if self._stop.is_set():
                return
            for batch in batches:
                self._evaluate(prepared, batch, delay)
            self.on_step(len(clips))

    def _load(self, clips: list[Clip], todo: Sequence[tuple[PreparedCondition, int | None]]) -> list[Batch]:
        """Read clips into batches of one length each; what cannot be read fails for all conditions."""
        by_length: dict[int, list[tuple[Clip, torch.Tensor]]] = {}
        for clip in clips:
            try:
                samples = self._coder.reference(clip)
            except KeyboardInterrupt:
                raise
            except FAULTS as error:
                for prepared, delay in todo:
                    self._append(self._failures(prepared, clip, delay, describe(error)))
                continue
            by_length.setdefault(samples.shape[-1], []).append((clip, torch.from_numpy(samples)))
        batches = []
        for _, members in sorted(by_length.items()):
            readable, tensors = zip(*members, strict=True)
            batches.append(Batch(list(readable), torch.stack(tensors)))
        return batches

    def _evaluate(self, prepared: PreparedCondition, batch: Batch, delay: int | None) -> None:
        """One condition on one batch: code what has no row, score at ``delay`` or the batch's own."""
        known = [self._coded_row(prepared, clip) for clip in batch.clips]
        try:
            coded = self._decode_again(prepared, batch, known) or self._coder.code(prepared, batch)
            rows = self._rows(prepared, batch, coded, delay)
        except (StoreError, KeyboardInterrupt):
            raise
        except FAULTS as error:
            if len(batch.clips) == 1:
                rows = self._failures(prepared, batch.clips[0], delay, describe(error))
            else:  # each clip by itself, so that only the one at fault is lost
                for index in range(len(batch.clips)):
                    self._evaluate(prepared, batch.clip(index), delay)
                return
        self._append(rows)

    def _decode_again(
        self, prepared: PreparedCondition, batch: Batch, known: list[CodedRow | None]
    ) -> Coded | None:
        """Decode what an earlier session encoded; None if that is not all there."""
        done = [row for row in known if row is not None and row.error is None]
        if prepared.codec is None or len(done) < len(known):
            return None
        try:
            encoded = [self.store.read_encoded(row.encoded) for row in done]
        except (OSError, UserError):
            return None
        given = batch.inputs.get(prepared.codec.sample_rate)
        decoded = self._coder.decode(prepared.codec, encoded, batch.reference.shape[-1], given)
        return Coded(decoded, encoded, [None] * len(encoded))

    def _rows(
        self, prepared: PreparedCondition, batch: Batch, coded: Coded, delay: int | None
    ) -> list[ClipRow]:
        """Coded and score rows of a batch, and the decoded files where they are asked for."""
        reference, decoded = batch.reference.to(self.device), coded.decoded.to(self.device)
        aligned = estimate_delay(reference, decoded, self.settings.sample_rate)
        if delay is None:
            own = [item.delay_samples for item in aligned]
            delay = condition_delay(own, self.settings.align)
            delays = {*own} - {None}
            certain = not self.settings.align or len(delays) <= 1
        else:
            certain = True
        coded_rows = []
        duration_s = reference.shape[-1] / self.settings.sample_rate
        for index, clip in enumerate(batch.clips):
            encoded = coded.encoded[index]
            path = self.store.encoded_path(prepared.condition.point, clip.id).relative_to(self.store.folder)
            coded_rows.append(
                CodedRow(
                    codec=prepared.condition.codec,
                    rate=prepared.condition.rate_label,
                    clip=clip.id,
                    key=self._key(prepared, clip),
                    duration_s=duration_s,
                    bytes=None if encoded is None else len(encoded.payload),
                    delay=aligned[index].delay_samples,
                    gain_db=aligned[index].gain_db,
                    encode_s=coded.encode_s,
                    decode_s=coded.decode_s,
                    encoded=None if encoded is None else str(path),
                    codebooks=0 if encoded is None else len(encoded.codebook_sizes),
                    note=coded.notes[index] or aligned[index].reason,
                    reference_dbfs=level_dbfs(batch.reference[index]),
                    error=None,
                )
            )
            if self._saves(prepared):
                self._save(prepared, clip, coded.decoded[index])
        keys = [row.key for row in coded_rows]
        scores: list[tuple[Metric | MetricInfo, list[Score]]] = []
        if any(self._lacks_metric(prepared, key, delay) for key in keys):
            rate = self.settings.sample_rate
            scores += [(m, score_batch(m, batch, reference, decoded, delay, rate)) for m in self.metrics]
        for embedder in self.embedders if certain else []:
            try:
                scores += embedder.score(batch.clips, keys, batch.reference, coded.decoded, delay)
            except (StoreError, KeyboardInterrupt):
                raise
            except FAULTS as error:
                failed = [failed_score(embedder.info.name, error)] * len(batch.clips)
                scores += [(metric, failed) for metric in embedder.clip_metrics]
        rows: list[ClipRow] = [*coded_rows]
        for index, clip in enumerate(batch.clips):
            rows += [self._score_row(prepared, clip, info, delay, found[index]) for info, found in scores]
        return rows

    def _score_row(
        self, prepared: PreparedCondition, clip: Clip, metric: Metric | MetricInfo, delay: int, score: Score
    ) -> ScoreRow:
        key = score_key(self._key(prepared, clip), metric, delay)
        if score.failed:
            self._failed.add(key)
        return ScoreRow(
            codec=prepared.condition.codec,
            rate=prepared.condition.rate_label,
            clip=clip.id,
            key=key,
            metric=metric.name,
            delay=delay,
            value=score.value,
            reason=score.reason,
            error=score.reason if score.failed else None,
        )

    def _failures(
        self, prepared: PreparedCondition, clip: Clip, delay: int | None, reason: str
    ) -> list[ClipRow]:
        """Rows of a clip that failed: of its coding, or, if that is done, of every score at ``delay``.

        Of what is coded, the first pass (no ``delay`` yet) says nothing: the second tries it again.
        """
        row = self._coded_row(prepared, clip)
        if row is not None and row.error is None:
            if delay is None:
                return []
            metrics: list[Metric | MetricInfo] = [] if prepared.change else [*self.metrics]
            metrics += [metric for embedder in self.embedders for metric in embedder.clip_metrics]
            failed = Score(math.nan, reason, failed=True)
            return [self._score_row(prepared, clip, metric, delay, failed) for metric in metrics]
        return [
            CodedRow(
                codec=prepared.condition.codec,
                rate=prepared.condition.rate_label,
                clip=clip.id,
                key=self._key(prepared, clip),
                delay=None,
                error=reason,
            )
        ]

    def _append(self, rows: Sequence[ClipRow]) -> None:
        """Append what is new: known results stay as they are, a failure is written once."""
        self.store.append([row for row in rows if row.is_news_after(self.store.row(row.key, type(row)))])

    def _save(self, prepared: PreparedCondition, clip: Clip, decoded: torch.Tensor) -> None:
        path = self._audio_path(prepared, clip)
        with explain_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        if not torch.isfinite(decoded).all():
            raise UserError("the decoder returned NaN or infinity, which --save-audio cannot keep")
        try:
            audio.write(path, decoded.numpy(), self.settings.sample_rate, "float32")
        except UserError as error:
            raise StoreError(str(error)) from error

    def _is_saved(self, prepared: PreparedCondition, clip: Clip, duration_s: float) -> bool:
        """Whether the decoded audio is there and whole."""
        path = self._audio_path(prepared, clip)
        try:
            length = round(duration_s * self.settings.sample_rate)
            return path.exists() and audio.info(path).num_samples == length
        except UserError:
            return False

    def _audio_path(self, prepared: PreparedCondition, clip: Clip) -> Path:
        return self.store.decoded_path(prepared.condition.point, clip.id)
