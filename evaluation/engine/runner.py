"""The loop: batches of clips through every condition, one row per result, nothing computed twice.

Two passes. The first codes every clip, estimates its delay and gain, and scores it at the delay its own
batch shows. When all clips are coded, one integer delay per condition is fixed, the median over clips, and
the second pass scores what has no score at that delay yet. For codecs that compensate their delay it finds
nothing to do. Embeddings, the expensive part, wait for the second pass where the clips of a batch do not show
one delay: they would have to be made again.

A batch is always computed whole, in the same composition, whatever part of it is already known: batched
kernels may round differently in another company, and a resumed run must end in the same bytes.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from baselines.codec import Encoded
from baselines.rendered import RenderedClip
from evaluation.datasets.base import Clip
from evaluation.datasets.unchanged import Unchanged
from evaluation.engine.alignment import estimate_delay
from evaluation.engine.batches import Coded, Group, fit_length, make_batches
from evaluation.engine.conditions import Planned
from evaluation.engine.distributed import Ranks
from evaluation.engine.embedder import Embedder
from evaluation.engine.scoring import describe, failed_score, score_group
from evaluation.metrics.base import Metric, Score
from evaluation.records import ClipRow, CodedRow, MetricInfo, ScoreRow, Settings
from evaluation.run.store import RunStore, coded_key, condition_delay, score_key
from qincodec import audio
from qincodec.core.errors import UserError
from qincodec.core.files import StoreError, explain_os_errors, write_atomic
from qincodec.core.plugins import FAULTS

T = TypeVar("T")


class Runner:
    """Evaluates planned conditions on clips into a store.

    Args:
        store: open run folder.
        clips: of the data set; those with an ``error`` fail for every condition.
        conditions: from `evaluation.engine.conditions.plan_conditions`.
        metrics: instances, in table order.
        settings: of the run.
        embedders: what embeds references and decoded clips for the metrics of embeddings.
        floor: conditions that only these are computed for.
        batch_size: clips coded and scored at once.
        workers: threads that take batches side by side. Each computes with one CPU thread, so their number
            changes no result.
        device: where metrics are computed.
        save_audio: keep what was decoded as float32 WAV.
        ranks: the processes that share the run.
        on_step: called with the number of (clip, condition) pairs just finished, from any worker.
        on_more: called with the number of pairs that the second pass adds.
    """

    def __init__(
        self,
        store: RunStore,
        clips: Sequence[Clip],
        conditions: Sequence[Planned],
        metrics: Sequence[Metric],
        settings: Settings,
        *,
        embedders: Sequence[Embedder] = (),
        floor: Sequence[Planned] = (),
        batch_size: int = 8,
        workers: int = 1,
        device: str = "cpu",
        save_audio: bool = False,
        ranks: Ranks | None = None,
        on_step: Callable[[int], None] = lambda count: None,
        on_more: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.store = store
        self.conditions = [*conditions, *floor]
        self.metrics = list(metrics)
        self.embedders = list(embedders)
        self.settings = settings
        self.ranks = ranks or Ranks()
        self.clips = [clip for clip in clips if clip.error is None]
        self.unreadable = [clip for clip in clips if clip.error is not None]
        self.batches = make_batches(self.clips, batch_size)[self.ranks.rank :: self.ranks.world_size]
        self.workers = workers
        self.device = torch.device(device)
        self.save_audio = save_audio
        self.on_step = on_step
        self.on_more = on_more
        self._stop = threading.Event()
        self._unchanged = Unchanged()
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
                for planned in self.conditions:
                    for clip in self.unreadable:
                        self._append(self._failures(planned, clip, None, clip.error or ""))
            self._each(self.batches, self._first_pass)
            self.ranks.barrier()
            self.store.refresh()
            delays = [
                condition_delay(map(partial(self._delay, planned), self.clips), self.settings.align)
                for planned in self.conditions
            ]
            todo = [(batch, self._unscored_conditions(batch, delays)) for batch in self.batches]
            todo = [(batch, conditions) for batch, conditions in todo if conditions]
            self.on_more(sum(len(batch) * len(conditions) for batch, conditions in todo))
            self._each(todo, lambda item: self._work(*item))
            self.ranks.barrier()
            self.store.refresh()
        finally:
            torch.set_num_threads(threads)

    def steps(self) -> int:
        """Number of (clip, condition) pairs this rank goes through in the first pass."""
        return sum(map(len, self.batches)) * len(self.conditions)

    def _key(self, planned: Planned, clip: Clip) -> str:
        return coded_key(planned.condition, self.settings, clip, planned.files.get(clip.id))

    def _coded_row(self, planned: Planned, clip: Clip) -> CodedRow | None:
        return self.store.row(self._key(planned, clip), CodedRow)

    def _delay(self, planned: Planned, clip: Clip) -> int | None:
        row = self._coded_row(planned, clip)
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

    def _first_pass(self, batch: list[Clip]) -> None:
        todo = [planned for planned in self.conditions if not self._coded(planned, batch)]
        self.on_step(len(batch) * (len(self.conditions) - len(todo)))
        self._work(batch, [(planned, None) for planned in todo])

    def _unscored_conditions(self, batch: list[Clip], delays: list[int]) -> list[tuple[Planned, int | None]]:
        """What is left for the second pass, with the delay to take out."""
        pairs = zip(self.conditions, delays, strict=True)
        return [(planned, delay) for planned, delay in pairs if self._unscored(planned, batch, delay)]

    def _coded(self, planned: Planned, clips: list[Clip]) -> bool:
        """Whether the first pass has nothing to do; what failed is tried again."""
        for clip in clips:
            row = self._coded_row(planned, clip)
            if row is None or row.error is not None:
                return False
            if self._saves(planned) and not self._audio_path(planned, clip).exists():
                return False
        return True

    def _unscored(self, planned: Planned, clips: list[Clip], delay: int) -> bool:
        """Whether any clip that was coded lacks a score at ``delay``."""
        for clip in clips:
            key = self._key(planned, clip)
            row = self.store.row(key, CodedRow)
            if row is None or row.error is not None:
                continue
            if self._lacks_metric(planned, key, delay):
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

    def _lacks_metric(self, planned: Planned, key: str, delay: int) -> bool:
        return planned.change is None and any(
            self._lacks_score(score_key(key, metric, delay)) for metric in self.metrics
        )

    def _lacks_score(self, key: str) -> bool:
        row = self.store.row(key, ScoreRow)
        return row is None or (row.error is not None and key not in self._failed)

    def _saves(self, planned: Planned) -> bool:
        return self.save_audio and planned.change is None

    def _work(self, batch: list[Clip], todo: list[tuple[Planned, int | None]]) -> None:
        if not todo:
            return
        groups = self._load(batch, todo)
        for planned, delay in todo:
            if self._stop.is_set():
                return
            for group in groups:
                self._evaluate(planned, group, delay)
            self.on_step(len(batch))

    def _load(self, batch: list[Clip], todo: list[tuple[Planned, int | None]]) -> list[Group]:
        """Read a batch and group it by length; clips that cannot be read fail for all conditions to do."""
        by_length: dict[int, list[tuple[Clip, torch.Tensor]]] = {}
        for clip in batch:
            try:
                samples, sample_rate = self._unchanged.read(
                    clip.path,
                    clip.content_hash,
                    partial(audio.read, clip.path, clip.start_s, clip.duration_s),
                )
                samples = audio.mix(samples, self.settings.channels)
                samples = audio.resample(samples, sample_rate, self.settings.sample_rate)
            except FAULTS as error:
                for planned, delay in todo:
                    self._append(self._failures(planned, clip, delay, describe(error)))
                continue
            by_length.setdefault(samples.shape[-1], []).append((clip, torch.from_numpy(samples)))
        groups = []
        for _, members in sorted(by_length.items()):
            clips, tensors = zip(*members, strict=True)
            groups.append(Group(list(clips), torch.stack(tensors)))
        return groups

    def _evaluate(self, planned: Planned, group: Group, delay: int | None) -> None:
        """One condition on one group: code what has no row, score at ``delay`` or the group's own."""
        known = [self._coded_row(planned, clip) for clip in group.clips]
        try:
            coded = None
            if all(row is not None and row.error is None for row in known):
                coded = self._from_store(planned, group, known)
            if coded is None:
                coded = self._code(planned, group)
            rows = self._rows(planned, group, coded, delay)
        except StoreError:
            raise
        except FAULTS as error:
            if len(group.clips) == 1:
                rows = self._failures(planned, group.clips[0], delay, describe(error))
            else:  # each clip by itself, so that only the one at fault is lost
                for index in range(len(group.clips)):
                    self._evaluate(planned, group.clip(index), delay)
                return
        self._append(rows)

    def _code(self, planned: Planned, group: Group) -> Coded:
        if planned.rendered is not None:
            return self._rendered(planned, group)
        if planned.change is not None:
            decoded = planned.change(group.reference, self.settings.sample_rate)
            return Coded(decoded, [None] * len(group.clips), [None] * len(group.clips))
        codec, rate = planned.codec, planned.rate
        assert codec is not None and rate is not None
        if codec.sample_rate not in group.inputs:
            samples = audio.resample(group.reference.numpy(), self.settings.sample_rate, codec.sample_rate)
            group.inputs[codec.sample_rate] = torch.from_numpy(samples)
        start = time.perf_counter()
        encoded = codec.encode(group.inputs[codec.sample_rate].to(codec.device, copy=True), rate)
        encoded_at = time.perf_counter()
        decoded = codec.decode(encoded).cpu()
        decoded_at = time.perf_counter()
        for clip, item in zip(group.clips, encoded, strict=True):
            write_atomic(self._encoded_path(planned, clip), _bytes_of(item))
        count = len(group.clips)
        return Coded(
            self._to_evaluation_rate(decoded, codec.sample_rate, group),
            list(encoded),
            [None] * count,
            (encoded_at - start) / count,
            (decoded_at - encoded_at) / count,
        )

    def _from_store(self, planned: Planned, group: Group, known: list[CodedRow | None]) -> Coded | None:
        """Decode what an earlier session encoded; None if its files are gone."""
        if planned.codec is None:
            return None
        try:
            encoded = [
                Encoded.from_bytes((self.store.folder / str(row.encoded)).read_bytes())
                for row in known
                if row is not None
            ]
        except (OSError, UserError):
            return None
        decoded = planned.codec.decode(encoded).cpu()
        return Coded(
            self._to_evaluation_rate(decoded, planned.codec.sample_rate, group),
            list(encoded),
            [None] * len(encoded),
        )

    def _rendered(self, planned: Planned, group: Group) -> Coded:
        loaded = [self._rendered_clip(planned, clip) for clip in group.clips]
        length = group.reference.shape[-1]
        decoded = [fit_length(torch.from_numpy(clip.audio), length) for clip in loaded]
        notes = ["; ".join(clip.notes) or None for clip in loaded]
        return Coded(torch.stack(decoded), [None] * len(loaded), notes)

    def _rendered_clip(self, planned: Planned, clip: Clip) -> RenderedClip:
        rendered, file = planned.rendered, planned.files[clip.id]
        assert rendered is not None
        if file.fingerprint is None:
            raise UserError(file.missing)
        load = partial(
            rendered.load,
            clip.id,
            clip.path.name,
            start_s=clip.start_s,
            duration_s=clip.duration_s,
            source_duration_s=self._unchanged.read(
                clip.path, clip.content_hash, partial(audio.info, clip.path)
            ).duration_s,
            sample_rate=self.settings.sample_rate,
            channels=self.settings.channels,
        )
        return self._unchanged.read(rendered.find(clip.id, clip.path.name), file.fingerprint, load)

    def _to_evaluation_rate(self, decoded: torch.Tensor, sample_rate: int, group: Group) -> torch.Tensor:
        expected = group.inputs[sample_rate].shape if sample_rate in group.inputs else None
        if expected is not None and decoded.shape != expected:
            raise UserError(
                f"the decoder returned audio of shape {tuple(decoded.shape)} for input of shape "
                f"{tuple(expected)}; baselines.check_codec tells what else is wrong with the codec"
            )
        samples = audio.resample(decoded.float().numpy(), sample_rate, self.settings.sample_rate)
        return fit_length(torch.from_numpy(samples), group.reference.shape[-1])

    def _rows(self, planned: Planned, group: Group, coded: Coded, delay: int | None) -> list[ClipRow]:
        """Coded and score rows of a group, and the decoded files where they are asked for."""
        reference, decoded = group.reference.to(self.device), coded.decoded.to(self.device)
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
        for index, clip in enumerate(group.clips):
            encoded = coded.encoded[index]
            path = self._encoded_path(planned, clip).relative_to(self.store.folder)
            coded_rows.append(
                CodedRow(
                    codec=planned.condition.codec,
                    rate=planned.condition.rate_label,
                    clip=clip.id,
                    key=self._key(planned, clip),
                    duration_s=duration_s,
                    bytes=None if encoded is None else len(encoded.payload),
                    delay=aligned[index].delay_samples,
                    gain_db=aligned[index].gain_db,
                    encode_s=coded.encode_s,
                    decode_s=coded.decode_s,
                    encoded=None if encoded is None else str(path),
                    codebooks=0 if encoded is None else len(encoded.codebook_sizes),
                    note=coded.notes[index] or aligned[index].reason,
                    error=None,
                )
            )
            if self._saves(planned):
                self._save(planned, clip, coded.decoded[index])
        keys = [row.key for row in coded_rows]
        scores: list[tuple[Metric | MetricInfo, list[Score]]] = []
        if any(self._lacks_metric(planned, key, delay) for key in keys):
            rate = self.settings.sample_rate
            scores += [(m, score_group(m, group, reference, decoded, delay, rate)) for m in self.metrics]
        for embedder in self.embedders if certain else []:
            try:
                scores += embedder.score(group.clips, keys, group.reference, coded.decoded, delay)
            except StoreError:
                raise
            except FAULTS as error:
                failed = [failed_score(embedder.info.name, error)] * len(group.clips)
                scores += [(metric, failed) for metric in embedder.clip_metrics]
        rows: list[ClipRow] = [*coded_rows]
        for index, clip in enumerate(group.clips):
            rows += [self._score_row(planned, clip, info, delay, found[index]) for info, found in scores]
        return rows

    def _score_row(
        self, planned: Planned, clip: Clip, metric: Metric | MetricInfo, delay: int, score: Score
    ) -> ScoreRow:
        key = score_key(self._key(planned, clip), metric, delay)
        if score.failed:
            self._failed.add(key)
        return ScoreRow(
            codec=planned.condition.codec,
            rate=planned.condition.rate_label,
            clip=clip.id,
            key=key,
            metric=metric.name,
            delay=delay,
            value=score.value,
            reason=score.reason,
            error=score.reason if score.failed else None,
        )

    def _failures(self, planned: Planned, clip: Clip, delay: int | None, reason: str) -> list[ClipRow]:
        """Rows of a clip that failed: of its coding, or, if that is done, of every score at ``delay``.

        Of what is coded, the first pass (no ``delay`` yet) says nothing: the second tries it again.
        """
        row = self._coded_row(planned, clip)
        if row is not None and row.error is None:
            if delay is None:
                return []
            metrics: list[Metric | MetricInfo] = [] if planned.change else [*self.metrics]
            metrics += [metric for embedder in self.embedders for metric in embedder.clip_metrics]
            failed = Score(math.nan, reason, failed=True)
            return [self._score_row(planned, clip, metric, delay, failed) for metric in metrics]
        return [
            CodedRow(
                codec=planned.condition.codec,
                rate=planned.condition.rate_label,
                clip=clip.id,
                key=self._key(planned, clip),
                delay=None,
                error=reason,
            )
        ]

    def _append(self, rows: Sequence[ClipRow]) -> None:
        """Append what is new: known results stay as they are, a failure is written once."""
        self.store.append([row for row in rows if row.is_news_after(self.store.row(row.key, type(row)))])

    def _save(self, planned: Planned, clip: Clip, decoded: torch.Tensor) -> None:
        path = self._audio_path(planned, clip)
        with explain_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        if not torch.isfinite(decoded).all():
            raise UserError("the decoder returned NaN or infinity, which --save-audio cannot keep")
        try:
            audio.write(path, decoded.numpy(), self.settings.sample_rate, "float32")
        except UserError as error:
            raise StoreError(str(error)) from error

    def _audio_path(self, planned: Planned, clip: Clip) -> Path:
        return self.store.decoded_path(planned.condition.point, clip.id)

    def _encoded_path(self, planned: Planned, clip: Clip) -> Path:
        return self.store.encoded_path(planned.condition.point, clip.id)


def _bytes_of(encoded: Encoded) -> bytes:
    """What the run folder keeps. Raises UserError for what could not be decoded from there again."""
    data = encoded.to_bytes()
    try:
        Encoded.from_bytes(data)
    except UserError as error:
        reason = str(error).removesuffix("; delete it and run again")
        raise UserError(
            f"what the encoder returned cannot be kept: {reason}; baselines.check_codec tells more"
        ) from error
    return data
