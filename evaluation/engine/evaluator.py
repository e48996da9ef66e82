"""One batch of clips through the conditions that lack results: coded, aligned, scored.

A batch is always computed whole, even if a part of it is already known: batched kernels may round differently
in another batch, and a resumed run must end in the same bytes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from evaluation.datasets.base import Clip
from evaluation.datasets.unchanged import Unchanged
from evaluation.embeddings.base import Embedding
from evaluation.engine.alignment import Aligner, Alignment
from evaluation.engine.coding import Batch, Coded, Coder
from evaluation.engine.conditions import PreparedCondition
from evaluation.engine.embedder import Embedder
from evaluation.engine.ledger import Ledger
from evaluation.engine.scoring import Signals, describe, failed_score, is_for
from evaluation.metrics.base import Metric, Score
from evaluation.records import MetricInfo, Settings
from evaluation.rows import ClipRow, CodedRow, Place, ScoreRow
from evaluation.run.store import coded_key, condition_delay, score_key
from qincodec.core.errors import UserError
from qincodec.core.files import StoreError
from qincodec.core.plugins import FAULTS


@dataclass(frozen=True)
class Work:
    """Work that a batch of clips lacks.

    Attributes:
        clips: of the batch.
        todo: conditions, each with the delay to score it at; None: the delay that the batch shows.
    """

    clips: list[Clip]
    todo: list[tuple[PreparedCondition, int | None]]

    @property
    def steps(self) -> int:
        """Number of (clip, condition) pairs."""
        return len(self.clips) * len(self.todo)


class Evaluator:
    """Does the work on batches, and adds the results to a ledger. Threads may share one.

    Args:
        ledger: a run folder, or its substitute on another host.
        settings: of the run.
        conditions: whose rates may be cut out of one another (`Coder`).
        metrics: with a value per clip.
        embeddings: loaded.
        device: of the metrics.
        save_audio: keep decoded clips.
        unchanged: files that were checked already.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        conditions: Sequence[PreparedCondition],
        metrics: Sequence[Metric],
        embeddings: Sequence[Embedding],
        device: str,
        save_audio: bool,
        unchanged: Unchanged | None = None,
    ) -> None:
        self.ledger = ledger
        self.settings = settings
        self.conditions = conditions
        self.metrics = metrics
        self.embedders = [Embedder(ledger, embedding, settings) for embedding in embeddings]
        self.device = torch.device(device)
        self.save_audio = save_audio
        #: Ends the work before the next condition, in all threads.
        self.stop = threading.Event()
        #: Keys of scores that could not be computed in this session: a second attempt would fail, too.
        self.failed: set[str] = set()
        seen = unchanged or Unchanged()
        self._coder = Coder(ledger, settings.sample_rate, settings.channels, seen, conditions, self.coded_row)

    def work(self, work: Work, on_step: Callable[[int], None] = lambda count: None) -> None:
        """Code and score a batch.

        Args:
            on_step: called with the number of (clip, condition) pairs just finished.
        """
        if not work.todo:
            return
        batches = self._load(work.clips, work.todo)
        for prepared, delay in work.todo:
            if self.stop.is_set():
                return
            for batch in batches:
                self._evaluate(prepared, batch, delay)
            on_step(len(work.clips))

    def key(self, prepared: PreparedCondition, clip: Clip) -> str:
        return coded_key(prepared.condition, self.settings, clip, prepared.files.get(clip.id))

    def coded_row(self, prepared: PreparedCondition, clip: Clip) -> CodedRow | None:
        return self.ledger.row(self.key(prepared, clip), CodedRow)

    def lacks_metric(self, prepared: PreparedCondition, clip: Clip, key: str, delay: int) -> bool:
        keys = (score_key(key, metric, delay) for metric in self._metrics(prepared, clip))
        rows = ((score, self.ledger.row(score, ScoreRow)) for score in keys)
        return any(row is None or (row.error and score not in self.failed) for score, row in rows)

    def _metrics(self, prepared: PreparedCondition, clip: Clip) -> list[Metric]:
        """Metrics of which the clip has scores."""
        return [m for m in self.metrics if is_for(m, clip)] if prepared.change is None else []

    def saves(self, prepared: PreparedCondition) -> bool:
        return self.save_audio and prepared.change is None

    def append(self, rows: Sequence[ClipRow]) -> None:
        """Append new rows: known results stay as they are, a failure is written once."""
        self.ledger.append([new for row in rows if (new := self._new(row)) is not None])

    def _new(self, row: ClipRow) -> ClipRow | None:
        """The row to append beside a known one, if any."""
        known = self.ledger.row(row.key, type(row))
        if row.is_news_after(known):
            return row
        if not isinstance(row, CodedRow) or row.place == Place():
            return None
        assert isinstance(known, CodedRow)
        return known.at(row.place) if row.place != known.place else None  # the file kept there is gone

    def _load(self, clips: list[Clip], todo: Sequence[tuple[PreparedCondition, int | None]]) -> list[Batch]:
        """Read clips into batches of one length each; an unreadable clip fails for all conditions."""
        by_length: dict[int, list[tuple[Clip, torch.Tensor]]] = {}
        for clip in clips:
            try:
                samples = self._coder.reference(clip)
            except KeyboardInterrupt:
                raise
            except FAULTS as error:
                for prepared, delay in todo:
                    self.append(self.failures(prepared, clip, delay, describe(error)))
                continue
            by_length.setdefault(samples.shape[-1], []).append((clip, torch.from_numpy(samples)))
        batches = []
        for _, members in sorted(by_length.items()):
            readable, tensors = zip(*members, strict=True)
            batches.append(Batch(list(readable), torch.stack(tensors)))
        return batches

    def _evaluate(self, prepared: PreparedCondition, batch: Batch, delay: int | None) -> None:
        """One condition on one batch: code what has no row, score at ``delay`` or the batch's own."""
        known = [self.coded_row(prepared, clip) for clip in batch.clips]
        try:
            coded = self._decode_again(prepared, batch, known) or self._coder.code(prepared, batch)
            rows = self._rows(prepared, batch, coded, known, delay)
        except (StoreError, KeyboardInterrupt):
            raise
        except FAULTS as error:
            if len(batch.clips) == 1:
                rows = self.failures(prepared, batch.clips[0], delay, describe(error))
            else:  # one clip at a time, so that only the one at fault is lost
                for index in range(len(batch.clips)):
                    self._evaluate(prepared, batch.clip(index), delay)
                return
        self.append(rows)

    def _decode_again(
        self, prepared: PreparedCondition, batch: Batch, known: list[CodedRow | None]
    ) -> Coded | None:
        """Decode clips that an earlier session encoded; None if any is missing."""
        done = [row for row in known if row is not None and row.error is None]
        if prepared.codec is None or len(done) < len(known):
            return None
        try:
            encoded = [self.ledger.read_encoded(row) for row in done]
        except (OSError, UserError):
            return None
        given = batch.inputs.get(prepared.codec.sample_rate)
        decoded = self._coder.decode(prepared.codec, encoded, batch.reference.shape[-1], given)
        return Coded(decoded, encoded, [row.place for row in done], [None] * len(encoded))

    def _rows(
        self,
        prepared: PreparedCondition,
        batch: Batch,
        coded: Coded,
        known: list[CodedRow | None],
        delay: int | None,
    ) -> list[ClipRow]:
        """Coded and score rows of a batch, and the decoded files if requested."""
        if batch.aligner is None:
            batch.aligner = Aligner(batch.reference.to(self.device), self.settings.sample_rate)
        reference, decoded = batch.aligner.reference, coded.decoded.to(self.device)
        coded_rows = [
            row.at(place) for row, place in zip(known, coded.places, strict=True) if row and not row.error
        ]
        if len(coded_rows) < len(known):  # known clips were aligned when they were coded
            coded_rows = self._new_rows(prepared, batch, coded, batch.aligner.estimate(decoded))
        if delay is None:
            own = [row.delay for row in coded_rows]
            delay = condition_delay(own, self.settings.align)
            delays = {*own} - {None}
            certain = not self.settings.align or len(delays) <= 1
        else:
            certain = True
        if self.saves(prepared):
            for clip, signal in zip(batch.clips, coded.decoded, strict=True):
                self._save(prepared, clip, signal)
        keys = [row.key for row in coded_rows]
        scores: list[tuple[Metric | MetricInfo, Sequence[Score | None]]] = []
        pairs = zip(batch.clips, keys, strict=True)
        if any(self.lacks_metric(prepared, clip, key, delay) for clip, key in pairs):
            signals = Signals(batch, reference, decoded, delay, self.settings.sample_rate)
            scores += [(metric, signals.score(metric)) for metric in self.metrics]
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
            for info, found in scores:
                score = found[index]
                rows += [] if score is None else [self._score_row(prepared, clip, info, delay, score)]
        return rows

    def _new_rows(
        self, prepared: PreparedCondition, batch: Batch, coded: Coded, aligned: Sequence[Alignment]
    ) -> list[CodedRow]:
        rows = []
        duration_s = batch.reference.shape[-1] / self.settings.sample_rate
        for index, clip in enumerate(batch.clips):
            encoded = coded.encoded[index]
            rows.append(
                CodedRow(
                    codec=prepared.condition.codec,
                    rate=prepared.condition.rate_label,
                    clip=clip.id,
                    key=self.key(prepared, clip),
                    duration_s=duration_s,
                    bytes=None if encoded is None else len(encoded.payload),
                    delay=aligned[index].delay_samples,
                    gain_db=aligned[index].gain_db,
                    encode_s=coded.encode_s,
                    decode_s=coded.decode_s,
                    encoded=coded.places[index].file,
                    offset=coded.places[index].offset,
                    codebooks=0 if encoded is None else len(encoded.codebook_sizes),
                    note=coded.notes[index] or aligned[index].reason,
                    reference_dbfs=batch.levels_dbfs[index],
                    error=None,
                )
            )
        return rows

    def _score_row(
        self, prepared: PreparedCondition, clip: Clip, metric: Metric | MetricInfo, delay: int, score: Score
    ) -> ScoreRow:
        key = score_key(self.key(prepared, clip), metric, delay)
        if score.failed:
            self.failed.add(key)
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

    def failures(
        self, prepared: PreparedCondition, clip: Clip, delay: int | None, reason: str
    ) -> list[ClipRow]:
        """Rows of a clip that failed: of its coding, or, if it is coded, of every score at ``delay``.

        The first pass (no ``delay`` yet) writes none for coded clips: the second tries them again.
        """
        row = self.coded_row(prepared, clip)
        if row is not None and row.error is None:
            if delay is None:
                return []
            metrics: list[Metric | MetricInfo] = [*self._metrics(prepared, clip)]
            metrics += [metric for embedder in self.embedders for metric in embedder.clip_metrics]
            failed = Score(math.nan, reason, failed=True)
            return [self._score_row(prepared, clip, metric, delay, failed) for metric in metrics]
        return [
            CodedRow(
                codec=prepared.condition.codec,
                rate=prepared.condition.rate_label,
                clip=clip.id,
                key=self.key(prepared, clip),
                delay=None,
                error=reason,
            )
        ]

    def _save(self, prepared: PreparedCondition, clip: Clip, decoded: torch.Tensor) -> None:
        if not torch.isfinite(decoded).all():
            raise UserError("the decoder returned NaN or infinity, which --save-audio cannot keep")
        point, rate = prepared.condition.point, self.settings.sample_rate
        self.ledger.write_decoded(point, clip.id, decoded.numpy(), rate)
