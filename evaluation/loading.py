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
from evaluation.records import Condition, MetricInfo
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
    results = loader.load(loader.run.conditions, loader.run.metrics)
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

    def load(self, conditions: Sequence[Condition], metrics: Sequence[MetricInfo]) -> Results:
        records: list[dict[str, Any]] = []
        corpus = []
        decoded: list[list[dict[str, FramesRow]]] = []
        per_clip = [metric for metric in metrics if metric.per_clip]
        quiet: dict[str, float] = {}
        n_pending = n_failed_scores = 0
        for condition in conditions:
            files = self.files.get(condition.point, {})
            keys = {c.id: coded_key(condition, self.settings, c, files.get(c.id)) for c in self.clips}
            rows = {clip.id: self.store.row(keys[clip.id], CodedRow) for clip in self.clips}
            done = [row for row in rows.values() if row is not None]
            delay = condition_delay((row.delay for row in done), self.settings.align)
            for clip in self.clips:
                row = rows[clip.id]
                if row is None:
                    n_pending += 1
                    continue
                records.append(_clip_record(condition, clip, row, delay))
                if row.reference_dbfs is not None and row.reference_dbfs < QUIET_DBFS:
                    quiet[clip.id] = row.reference_dbfs
                for metric in per_clip:
                    score = self.store.row(score_key(keys[clip.id], metric, delay), ScoreRow)
                    records[-1][metric.name] = math.nan if score is None else score.value
                    reason = "not scored yet" if score is None else score.reason
                    n_failed_scores += score is not None and score.error is not None
                    records[-1][f"{metric.name}_reason"] = row.error or reason
            corpus.append(_code_statistics(condition, code_statistics(self.store, done)))
            good = {name: keys[name] for name, row in rows.items() if row and row.error is None}
            decoded.append([self._decoded_frames(embedded, good, delay) for embedded in self.embedded])
        names = [name for metric in per_clip for name in (metric.name, f"{metric.name}_reason")]
        return Results(
            clips=pd.DataFrame.from_records(records, columns=CLIP_COLUMNS + names),
            conditions=list(conditions),
            metrics=list(metrics),
            corpus=corpus,
            dataset=self.run.dataset,
            settings=self.settings,
            environment=self.store.read_environment(),
            summarize=partial(summarize, seed=self.settings.seed),
            n_pending=n_pending,
            n_failed_scores=n_failed_scores,
            scores=self._scores(conditions, decoded),
            embeddings=list(self.run.embeddings),
            unavailable=self.run.unavailable,
            skipped=self.run.skipped,
            quiet=quiet,
            remarks=[line for embedded in self.embedded for line in self._remarks(embedded)],
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

    def _scores(
        self, conditions: Sequence[Condition], decoded: list[list[dict[str, FramesRow]]]
    ) -> list[CorpusScore]:
        """Of every condition on all its clips, and on those that all codecs at its rate have."""
        scores = []
        total = len(conditions) * len(self.embedded)
        for number, embedded in enumerate(self.embedded):
            common: dict[float | None, set[str]] = {}
            for condition, found in zip(conditions, decoded, strict=True):
                if not condition.control and found[number]:
                    names = set(found[number])
                    common[condition.kbps] = common.get(condition.kbps, names) & names
            for index, (condition, found) in enumerate(zip(conditions, decoded, strict=True)):
                self.progress("comparing distributions", number * len(conditions) + index, total)
                rows = found[number]
                own = embedded.scores(condition.codec, condition.kbps, rows)
                scores += own
                if condition.control:
                    continue
                shared = common.get(condition.kbps, set())
                if shared == set(rows):
                    scores += [replace(score, common=True) for score in own]
                else:
                    rows = {name: row for name, row in rows.items() if name in shared}
                    scores += embedded.scores(condition.codec, condition.kbps, rows, common=True)
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
