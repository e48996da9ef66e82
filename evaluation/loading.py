"""Loads the rows of a run as `Results`; reports and statistics have no other way to read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from evaluation.datasets.base import Clip
from evaluation.records import AskedRate, Condition, MetricInfo
from evaluation.results import CLIP_COLUMNS, NOT_SCORED, NOT_SPEECH, QUIET_DBFS, Results
from evaluation.rows import CodedRow, CodesRow, CodeStatistics, CorpusScore, FramesRow, ScoreRow
from evaluation.run.columns import Found
from evaluation.run.keys import coded_keys, frames_key, reference_frames_key, score_keys
from evaluation.run.store import (
    FRAMES_AGAIN,
    LIST_AGAIN,
    RunStore,
    condition_delay,
)
from evaluation.statistics.analysis import analysis
from evaluation.statistics.codes import code_statistics
from evaluation.statistics.distances import EmbeddedRun
from evaluation.statistics.matching import ReadCondition, is_point_of, match, mixed_scores
from qincodec.core.console import Progress
from qincodec.core.errors import UserError

R = TypeVar("R", bound=Results)


def load(folder: str | Path) -> Results:
    """Results of the run in ``folder``, complete or not. Raises UserError if ``folder`` is not a run."""
    with RunStore(Path(folder), write=False) as store:
        return load_results(store)


open_results = load  # its earlier name


def load_results(store: RunStore, progress: Progress = lambda *_: None) -> Results:
    """Results of an open run. `Results.n_pending` counts the clips without a row.

    Results that need all clips are computed here if the run folder does not have them, and are kept in it if
    it is open for writing.
    """
    return load_results_as(Results, store, progress)


def load_results_as(kind: type[R], store: RunStore, progress: Progress) -> R:
    """`load_results` as this kind of `Results`."""
    loader = _Loader(store, progress)
    results = loader.load(kind, loader.run.conditions, loader.run.metrics, loader.run.asked)
    metrics = [metric for metric in loader.run.metrics if metric.embedding]
    if loader.run.floor and metrics:
        results.noise_floor = loader.load(Results, loader.run.floor, metrics)
    return results


#: Column -> attribute of `Clip`.
_OF_CLIPS = {"clip": "id"} | {
    name: name for name in ("recording", "content_hash", "category", "start_s", "duration_s")
}


class _Loader:
    """Reads the conditions of a run and those of its noise floor, which share clips and embeddings."""

    def __init__(self, store: RunStore, progress: Progress) -> None:
        self.store = store
        self.run = store.read_run()
        self.progress = progress
        self.settings = self.run.settings
        self.clips: list[Clip] = []
        columns: dict[str, list[Any]] = {name: [] for name in _OF_CLIPS}
        for clip in store.each_clip():
            for name, values in columns.items():
                values.append(getattr(clip, _OF_CLIPS[name]))
            if self.run.embeddings:
                self.clips.append(clip)
        #: Columns are objects, because numbers are part of keys in the form in which they were written.
        self.table = pd.DataFrame({name: _objects(values) for name, values in columns.items()})
        if len(self.table) != self.run.dataset.n_clips:  # means and intervals would be over other clips
            raise UserError(
                f"{store.folder / 'clips.jsonl'} lists {len(self.table)} clips, run.json says "
                f"{self.run.dataset.n_clips}: the list was cut or edited; {LIST_AGAIN}"
            )
        self.files = store.read_files()
        #: Name of an embedding -> rows whose frames are missing.
        self.lost: dict[str, list[FramesRow]] = {info.name: [] for info in self.run.embeddings}
        self.embedded = [EmbeddedRun(store, info, self.settings, self.clips) for info in self.run.embeddings]

    def load(
        self,
        kind: type[R],
        conditions: Sequence[Condition],
        metrics: Sequence[MetricInfo],
        asked: Sequence[AskedRate] = (),
    ) -> R:
        """Results of these conditions; operating points of codecs are matched to the asked rates."""
        per_clip = [metric for metric in metrics if metric.per_clip]
        quiet: dict[str, float] = {}
        counted = {"n_pending": 0, "n_unscored": 0, "n_failed_scores": 0}
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
        results = self._results(kind, rows, metrics, quiet=quiet, **counted)
        if points:
            results.points = self._results(Results, points, metrics)
        results.asked = list(asked)
        return results

    def _read(
        self,
        condition: Condition,
        metrics: Sequence[MetricInfo],
        quiet: dict[str, float],
        counted: dict[str, int],
    ) -> ReadCondition:
        """Results of one condition; adds its clips to ``quiet`` and its counts to ``counted``."""
        files = self.files.get(condition.point, {})
        coded = self.store.find(coded_keys(condition, self.settings, self.table, files), CodedRow)
        counted["n_pending"] += int((~coded.there).sum())
        clips = self.table[coded.there]
        coded = coded.where(coded.there)
        delay = self._delay(coded.numbers("delay"))
        errors = coded.texts("error")
        loud = coded.numbers("reference_dbfs")
        soft = loud < QUIET_DBFS
        quiet.update(zip(clips["clip"][soft].tolist(), loud[soft].tolist(), strict=True))
        rows = _clip_columns(condition, clips, coded, errors, delay)
        for metric in metrics:
            scores = self.store.find(score_keys(coded.keys, metric, delay), ScoreRow)
            wanted = np.ones(len(clips), bool)
            if metric.speech_only:
                wanted = clips["category"].map(metric.wants).to_numpy(bool)
            rows[metric.name] = np.where(wanted, scores.numbers("value"), math.nan)
            reasons = np.where(scores.there, scores.texts("reason"), NOT_SCORED)
            reasons = np.where(wanted, reasons, NOT_SPEECH)
            rows[f"{metric.name}_reason"] = _objects(np.where(errors.astype(bool), errors, reasons))
            counted["n_unscored"] += int((~scores.there & ~errors.astype(bool) & wanted).sum())
            counted["n_failed_scores"] += int((pd.notna(scores.texts("error")) & wanted).sum())
        codes = _code_statistics(condition, code_statistics(self.store, coded))
        frames: list[tuple[dict[str, FramesRow], ...]] = []
        if self.embedded:
            good = coded.where(pd.isna(errors))
            names = dict(zip(clips["clip"][pd.isna(errors)], good.keys.hex(), strict=True))
            frames = [(self._decoded_frames(embedded, names, delay),) for embedded in self.embedded]
        return ReadCondition(condition, rows, codes, frames)

    def _delay(self, delays: np.ndarray) -> int:
        """`condition_delay` of the delays of all clips, which may be NaN."""
        return condition_delay(delays[~np.isnan(delays)].astype(int).tolist(), self.settings.align)

    def _results(
        self, kind: type[R], rows: Sequence[ReadCondition], metrics: Sequence[MetricInfo], **rest: Any
    ) -> R:
        names = [name for m in metrics if m.per_clip for name in (m.name, f"{m.name}_reason")]
        return kind(
            clips=_united([row.clips for row in rows], CLIP_COLUMNS + names),
            conditions=[row.condition for row in rows],
            metrics=list(metrics),
            corpus=[row.codes for row in rows],
            dataset=self.run.dataset,
            settings=self.settings,
            environment=self.store.read_environment(),
            analysis=analysis(self.settings.seed),
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
        """Clip id -> row of its decoded frames, for clips that have them."""
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
        """Distances of every condition on all its clips, and on those common to all codecs at its rate."""
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
        if total:
            self.progress("comparing distributions", total, total)
        return scores

    def _remarks(self, embedded: EmbeddedRun) -> list[str]:
        """Remarks on clips and frames for which an embedding has little meaning."""
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
                f"{info.label}: {files}: the frames of {count} signal{'s' * (count > 1)} are missing; the"
                f" distances use the rest; {FRAMES_AGAIN}"
            )
        if silent:
            lines.append(
                f"{info.label}: {silent} of {frames} reference frames are digital silence; they count"
            )
        if short:
            lines.append(
                f"{info.label}: {short} of {len(rows)} clips are shorter than a frame of {info.frame_s:g} s; "
                "they are padded with zeros"
            )
        if 0 < frames <= info.dim:
            lines.append(
                f"{info.label}: {frames} reference frames for {info.dim} dimensions: the covariances are "
                "singular, so the Frechet distance is mostly bias"
            )
        return lines


def _condition_scores(
    embedded: EmbeddedRun, row: ReadCondition, number: int, names: set[str]
) -> list[CorpusScore]:
    """Distances of a condition on some of its clips, interpolated if the condition is.

    Args:
        number: index of the embedding.
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


def _clip_columns(
    condition: Condition, clips: pd.DataFrame, coded: Found[CodedRow], errors: np.ndarray, delay: int
) -> pd.DataFrame:
    """Rows of `Results.clips` for one condition, without their metrics; texts are objects."""
    failed = pd.notna(errors)
    duration_s = np.where(failed, clips["duration_s"].astype(float), coded.numbers("duration_s"))
    size = coded.numbers("bytes") if condition.rate_is == "measured" else np.full(len(clips), math.nan)
    columns: dict[str, Any] = {
        "codec": _objects([condition.codec] * len(clips)),
        "kbps": _number(condition.kbps),
        "kbps_nominal": _number(condition.nominal),
        "kbps_measured": 8 * size / duration_s / 1000,
        **{name: _objects(clips[name]) for name in ("clip", "recording", "content_hash", "category")},
        "duration_s": duration_s,
        "bytes": _whole(size),
        "delay_samples": coded.numbers("delay"),
        "delay_applied": _whole(np.where(failed, math.nan, delay)),
        "gain_db": coded.numbers("gain_db"),
        "encode_s": coded.numbers("encode_s"),
        "decode_s": coded.numbers("decode_s"),
        "error": _objects(errors),
    }
    return pd.DataFrame(columns, index=range(len(clips)))


def _united(parts: Sequence[pd.DataFrame], names: list[str]) -> pd.DataFrame:
    """One data frame of the rows of several conditions, with texts in the type that pandas has for them."""
    if not sum(map(len, parts)):
        return pd.DataFrame.from_records([], columns=names)
    return pd.DataFrame({name: np.concatenate([part[name].to_numpy() for part in parts]) for name in names})


def _objects(texts: Any) -> pd.Series:
    """Texts and None as objects: with its type for texts, pandas would copy them and store NaN for None."""
    return pd.Series(np.asarray(texts, dtype=object), dtype=object)


def _whole(values: np.ndarray) -> np.ndarray:
    """Counts as whole numbers if all are known."""
    return values if np.isnan(values).any() else values.astype(np.int64)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
