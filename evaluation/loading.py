"""From the rows of a run to `Results`: the one way reports and statistics get at them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.datasets.base import Clip
from evaluation.records import AskedRate, Condition, MetricInfo
from evaluation.results import CLIP_COLUMNS, QUIET_DBFS, Results
from evaluation.rows import CodedRow, CodesRow, CodeStatistics, CorpusScore, FramesRow, ScoreRow
from evaluation.run.store import (
    FRAMES_AGAIN,
    LIST_AGAIN,
    RunStore,
    coded_key,
    condition_delay,
    frames_key,
    reference_frames_key,
    score_key,
)
from evaluation.statistics.codes import code_statistics
from evaluation.statistics.distances import EmbeddedRun
from evaluation.statistics.matching import ReadCondition, is_point_of, match, mixed_scores
from evaluation.statistics.recordings import summarize
from qincodec.core.console import Progress
from qincodec.core.errors import UserError


def load(folder: str | Path) -> Results:
    """Results of the run in ``folder``, complete or not. Raises UserError if it is not a run."""
    with RunStore(Path(folder), write=False) as store:
        return load_results(store)


open_results = load  # its earlier name


def load_results(store: RunStore, progress: Progress = lambda *_: None) -> Results:
    """Results of an open run. Clips without a row yet are counted in `Results.n_pending`.

    What has to be computed from all clips is computed here where the run folder does not hold it yet, and
    kept there if it is open for writing.
    """
    loader = _Loader(store, progress)
    results = loader.load(loader.run.conditions, loader.run.metrics, loader.run.asked)
    metrics = [metric for metric in loader.run.metrics if metric.embedding]
    if loader.run.floor and metrics:
        results.noise_floor = loader.load(loader.run.floor, metrics)
    return results


class _Loader:
    """What the conditions of a run and those of its noise floor share."""

    def __init__(self, store: RunStore, progress: Progress) -> None:
        self.store = store
        self.run = store.read_run()
        self.progress = progress
        self.settings = self.run.settings
        self.clips = store.read_clips()
        if len(self.clips) != self.run.dataset.n_clips:  # means and intervals would be of other clips
            raise UserError(
                f"{store.folder / 'clips.jsonl'} lists {len(self.clips)} clips, run.json says "
                f"{self.run.dataset.n_clips}: the list was cut or edited; {LIST_AGAIN}"
            )
        self.files = store.read_files()
        #: Name of an embedding -> rows whose frames are gone.
        self.lost: dict[str, list[FramesRow]] = {info.name: [] for info in self.run.embeddings}
        self.embedded = [EmbeddedRun(store, info, self.settings, self.clips) for info in self.run.embeddings]

    def load(
        self,
        conditions: Sequence[Condition],
        metrics: Sequence[MetricInfo],
        asked: Sequence[AskedRate] = (),
    ) -> Results:
        """Results of these conditions, or of asked rates where they are operating points of codecs."""
        per_clip = [metric for metric in metrics if metric.per_clip]
        quiet: dict[str, float] = {}
        counted = {"n_pending": 0, "n_failed_scores": 0}
        rows = [self._read(condition, per_clip, quiet, counted) for condition in conditions]
        points: list[ReadCondition] = []
        others: list[ReadCondition] = []
        if asked:
            matched, rest = match(rows, asked, per_clip)
            codecs = {wanted.codec for wanted in asked}
            for row in rest:
                point = any(is_point_of(row.condition, codec) for codec in codecs)
                (points if point else others).append(row)
            rows = [
                *(row for row in others if row.condition.control),
                *matched,
                *(row for row in others if not row.condition.control),
            ]
        results = self._results(rows, metrics, quiet=quiet, **counted)
        if points:
            results.points = self._results(points, metrics)
        results.asked = list(asked)
        return results

    def _read(
        self,
        condition: Condition,
        metrics: Sequence[MetricInfo],
        quiet: dict[str, float],
        counted: dict[str, int],
    ) -> ReadCondition:
        """What the rows say of a condition; the last two are added to."""
        files = self.files.get(condition.point, {})
        keys = {c.id: coded_key(condition, self.settings, c, files.get(c.id)) for c in self.clips}
        rows = {clip.id: self.store.row(keys[clip.id], CodedRow) for clip in self.clips}
        done = [row for row in rows.values() if row is not None]
        delay = condition_delay((row.delay for row in done), self.settings.align)
        records: list[dict[str, Any]] = []
        for clip in self.clips:
            row = rows[clip.id]
            if row is None:
                counted["n_pending"] += 1
                continue
            records.append(_clip_record(condition, clip, row, delay))
            if row.reference_dbfs is not None and row.reference_dbfs < QUIET_DBFS:
                quiet[clip.id] = row.reference_dbfs
            for metric in metrics:
                score = self.store.row(score_key(keys[clip.id], metric, delay), ScoreRow)
                records[-1][metric.name] = math.nan if score is None else score.value
                reason = "not scored yet" if score is None else score.reason
                counted["n_failed_scores"] += score is not None and score.error is not None
                records[-1][f"{metric.name}_reason"] = row.error or reason
        codes = _code_statistics(condition, code_statistics(self.store, done))
        good = {name: keys[name] for name, row in rows.items() if row and row.error is None}
        frames: list[tuple[dict[str, FramesRow], ...]] = [
            (self._decoded_frames(embedded, good, delay),) for embedded in self.embedded
        ]
        return ReadCondition(condition, records, codes, frames)

    def _results(self, rows: Sequence[ReadCondition], metrics: Sequence[MetricInfo], **rest: Any) -> Results:
        names = [name for m in metrics if m.per_clip for name in (m.name, f"{m.name}_reason")]
        records = [record for row in rows for record in row.records]
        return Results(
            clips=pd.DataFrame.from_records(records, columns=CLIP_COLUMNS + names),
            conditions=[row.condition for row in rows],
            metrics=list(metrics),
            corpus=[row.codes for row in rows],
            dataset=self.run.dataset,
            settings=self.settings,
            environment=self.store.read_environment(),
            summarize=partial(summarize, seed=self.settings.seed),
            scores=self._scores(rows),
            embeddings=list(self.run.embeddings),
            unavailable=self.run.unavailable,
            skipped=self.run.skipped,
            remarks=[line for embedded in self.embedded for line in self._remarks(embedded)],
            between={(row.condition.codec, row.condition.kbps): row.between for row in rows if row.between},
            **rest,
        )

    def _decoded_frames(
        self, embedded: EmbeddedRun, coded: dict[str, str], delay: int
    ) -> dict[str, FramesRow]:
        """Clip id -> row of its decoded frames, where there are any."""
        rows = {
            name: self.store.row(frames_key(embedded.info.identity, key, delay), FramesRow)
            for name, key in coded.items()
        }
        self._note_lost(embedded, rows.values())
        return {name: row for name, row in rows.items() if row and embedded.holds(row)}

    def _note_lost(self, embedded: EmbeddedRun, rows: Iterable[FramesRow | None]) -> None:
        found = [row for row in rows if row and row.error is None and not self.store.has_frames(row)]
        self.lost[embedded.info.name] += found

    def _scores(self, conditions: Sequence[ReadCondition]) -> list[CorpusScore]:
        """Of every condition on all its clips, and on those that all codecs at its rate have."""
        scores = []
        total = len(conditions) * len(self.embedded)
        for number, embedded in enumerate(self.embedded):
            common: dict[float | None, set[str]] = {}
            for row in conditions:
                condition, names = row.condition, set(row.frames[number][0])
                if not condition.control and names:
                    common[condition.kbps] = common.get(condition.kbps, names) & names
            for index, row in enumerate(conditions):
                self.progress("comparing distributions", number * len(conditions) + index, total)
                condition, names = row.condition, set(row.frames[number][0])
                own = _condition_scores(embedded, row, number, names)
                scores += own
                if condition.control:
                    continue
                shared = common.get(condition.kbps, set())
                if shared != names:
                    own = _condition_scores(embedded, row, number, shared)
                scores += [replace(score, common=True) for score in own]
        return scores

    def _remarks(self, embedded: EmbeddedRun) -> list[str]:
        """Clips and frames that an embedding can say little about."""
        info = embedded.info
        keys = [reference_frames_key(info.identity, self.settings, clip) for clip in self.clips]
        self._note_lost(embedded, (self.store.row(key, FramesRow) for key in keys))
        rows = embedded.references.values()
        frames, silent = sum(row.frames for row in rows), sum(row.silent for row in rows)
        short = sum(embedded.clips[name].duration_s < info.frame_s for name in embedded.references)
        lines = []
        if lost := self.lost[info.name]:
            files, count = ", ".join(sorted({row.file for row in lost})), len(lost)
            lines.append(
                f"{info.label}: {files}: the frames of {count} signal{'s' * (count > 1)} are gone, the"
                f" distances are of the rest; {FRAMES_AGAIN}"
            )
        if silent:
            lines.append(
                f"{info.label}: {silent} of {frames} reference frames are digital silence; they count"
            )
        if short:
            lines.append(
                f"{info.label}: {short} of {len(rows)} clips are shorter than a frame of {info.frame_s:g} s; "
                "zeros stand for what is missing"
            )
        if 0 < frames <= info.dim:
            lines.append(
                f"{info.label}: {frames} reference frames for {info.dim} dimensions: the covariances are "
                "singular, the Frechet distance is mostly bias"
            )
        return lines


def _condition_scores(
    embedded: EmbeddedRun, row: ReadCondition, number: int, names: set[str]
) -> list[CorpusScore]:
    """Distances of a condition on some of its clips; interpolated as the condition is.

    Args:
        number: of the embedding.
    """
    condition = row.condition
    parts = [
        embedded.scores(condition.codec, condition.kbps, {name: of[name] for name in of if name in names})
        for of in row.frames[number]
    ]
    if row.between is None:
        return parts[0]
    return [mixed_scores(low, high, row.between.weight) for low, high in zip(*parts, strict=True)]


def _code_statistics(condition: Condition, found: CodesRow | str | None) -> CodeStatistics:
    blank = CodeStatistics(condition.codec, condition.kbps)
    if not isinstance(found, CodesRow):
        return replace(blank, kbps_entropy_reason=found or "")
    names = [spec.name for spec in fields(CodeStatistics) if spec.name in CodesRow.__slots__]
    return replace(blank, **{name: getattr(found, name) for name in names if name != "codec"})


def _clip_record(condition: Condition, clip: Clip, row: CodedRow, delay: int) -> dict[str, Any]:
    """One row of `Results.clips`, without its metrics."""
    failed = row.error is not None
    duration_s = clip.duration_s if failed else row.duration_s
    size = row.bytes if condition.rate_is == "measured" else None
    return {
        "codec": condition.codec,
        "kbps": _number(condition.kbps),
        "kbps_nominal": _number(condition.nominal),
        "kbps_measured": math.nan if size is None else 8 * size / duration_s / 1000,
        "clip": clip.id,
        "recording": clip.recording,
        "content_hash": clip.content_hash,
        "category": clip.category,
        "duration_s": duration_s,
        "bytes": math.nan if size is None else size,
        "delay_samples": _number(row.delay),
        "delay_applied": math.nan if failed else delay,
        "gain_db": _number(row.gain_db),
        "encode_s": _number(row.encode_s),
        "decode_s": _number(row.decode_s),
        "error": row.error,
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
