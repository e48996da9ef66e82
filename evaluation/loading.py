"""From the rows of a run to `Results`: the one way reports and statistics get at them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from baselines.codec import Rate
from evaluation.datasets.base import Clip
from evaluation.results import (
    CLIP_COLUMNS,
    Condition,
    CorpusScore,
    MetricInfo,
    Results,
)
from evaluation.run.manifest import conditions_of, embeddings_of, metrics_of
from evaluation.run.store import (
    RunStore,
    coded_key,
    condition_delay,
    frames_key,
    number_from_json,
    score_key,
)
from evaluation.statistics.codes import code_statistics
from evaluation.statistics.distances import Corpus
from qincodec.core.console import Progress
from qincodec.core.errors import UserError


def open_results(folder: str | Path) -> Results:
    """Results of the run in ``folder``, complete or not. Raises UserError if it is not a run."""
    with RunStore(Path(folder), write=False) as store:
        return load_results(store)


def load_results(store: RunStore, progress: Progress = lambda *_: None) -> Results:
    """Results of an open run. Clips without a row yet are counted in `Results.n_pending`.

    What has to be computed from all clips is computed here where the run folder does not hold it yet, and
    kept there if it is open for writing.
    """
    run = store.read_run()
    if run is None:
        raise UserError(f"{store.folder} holds no run yet; start it with `evaluate --out {store.folder}`")
    loader = _Loader(store, run, progress)
    results = loader.load(conditions_of(run), loader.metrics)
    floor = conditions_of(run, "floor")
    metrics = [metric for metric in loader.metrics if metric.embedding]
    if floor and metrics:
        results.noise_floor = loader.load(floor, metrics)
    return results


class _Loader:
    """What the conditions of a run and those of its noise floor share."""

    def __init__(self, store: RunStore, run: dict[str, Any], progress: Progress) -> None:
        self.store = store
        self.run = run
        self.progress = progress
        self.settings = run["settings"]
        self.metrics = metrics_of(run)
        self.embeddings = embeddings_of(run)
        self.clips = store.read_clips()
        self.files = store.read_files()
        self.corpora = [Corpus(store, info, self.settings, self.clips) for info in self.embeddings]

    def load(self, conditions: list[Condition], metrics: list[MetricInfo]) -> Results:
        records: list[dict[str, Any]] = []
        corpus = []
        decoded: list[list[dict[str, dict[str, Any]]]] = []
        per_clip = [metric for metric in metrics if metric.per_clip]
        n_pending = n_failed_scores = 0
        for condition in conditions:
            files = self.files.get(f"{condition.codec}@{Rate(condition.nominal).label}", {})
            keys = {c.id: coded_key(condition, self.settings, c, files.get(c.id)) for c in self.clips}
            rows = {clip.id: self.store.row(keys[clip.id], "coded") for clip in self.clips}
            delay = condition_delay(rows.values(), self.settings["align"])
            for clip in self.clips:
                row = rows[clip.id]
                if row is None:
                    n_pending += 1
                    continue
                records.append(_clip_record(condition, clip, row, delay))
                for metric in per_clip:
                    score = self.store.row(score_key(keys[clip.id], metric, delay), "score")
                    value = None if score is None else score["value"]
                    records[-1][metric.name] = number_from_json(value)
                    reason = "not scored yet" if score is None else score["reason"]
                    n_failed_scores += score is not None and score["error"] is not None
                    records[-1][f"{metric.name}_reason"] = row["error"] or reason
            done = [row for row in rows.values() if row is not None]
            statistics = code_statistics(self.store, done)
            corpus.append({"codec": condition.codec, "kbps": condition.kbps, **statistics})
            good = {name: keys[name] for name, row in rows.items() if row and row["error"] is None}
            decoded.append([self._decoded_frames(corpus, good, delay) for corpus in self.corpora])
        names = [name for metric in per_clip for name in (metric.name, f"{metric.name}_reason")]
        return Results(
            clips=pd.DataFrame.from_records(records, columns=CLIP_COLUMNS + names),
            conditions=conditions,
            metrics=metrics,
            corpus=corpus,
            dataset=self.run["dataset"],
            settings=self.settings,
            environment=self.store.read_environment(),
            n_pending=n_pending,
            n_failed_scores=n_failed_scores,
            scores=self._scores(conditions, decoded),
            embeddings=self.embeddings,
            unavailable=self.run["unavailable"],
            skipped=self.run["skipped"],
            remarks=[line for corpus in self.corpora for line in self._remarks(corpus)],
        )

    def _decoded_frames(self, corpus: Corpus, coded: dict[str, str], delay: int) -> dict[str, dict[str, Any]]:
        """Clip id -> row of its decoded frames, where there are any."""
        rows = {
            name: self.store.row(frames_key(corpus.info.identity, key, delay), "frames")
            for name, key in coded.items()
        }
        return {name: row for name, row in rows.items() if row and corpus.holds(row)}

    def _scores(
        self, conditions: list[Condition], decoded: list[list[dict[str, dict[str, Any]]]]
    ) -> list[CorpusScore]:
        """Of every condition on all its clips, and on those that all codecs at its rate have."""
        scores = []
        total = len(conditions) * len(self.corpora)
        for number, corpus in enumerate(self.corpora):
            common: dict[float | None, set[str]] = {}
            for condition, found in zip(conditions, decoded, strict=True):
                if not condition.control and found[number]:
                    names = set(found[number])
                    common[condition.kbps] = common.get(condition.kbps, names) & names
            for index, (condition, found) in enumerate(zip(conditions, decoded, strict=True)):
                self.progress("comparing distributions", number * len(conditions) + index, total)
                rows = found[number]
                own = corpus.scores(condition.codec, condition.kbps, rows)
                scores += own
                if condition.control:
                    continue
                shared = common.get(condition.kbps, set())
                if shared == set(rows):
                    scores += [replace(score, common=True) for score in own]
                else:
                    rows = {name: row for name, row in rows.items() if name in shared}
                    scores += corpus.scores(condition.codec, condition.kbps, rows, common=True)
        return scores

    def _remarks(self, corpus: Corpus) -> list[str]:
        """Clips and frames that an embedding can say little about."""
        info = corpus.info
        rows = corpus.references.values()
        frames, silent = sum(row["frames"] for row in rows), sum(row["silent"] for row in rows)
        short = sum(corpus.clips[name].duration_s < info.frame_s for name in corpus.references)
        lines = []
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


def _clip_record(condition: Condition, clip: Clip, row: dict[str, Any], delay: int) -> dict[str, Any]:
    """One row of `Results.clips`, without its metrics."""
    failed = row["error"] is not None
    size, duration_s = row.get("bytes"), row.get("duration_s", clip.duration_s)
    measured = size is not None and condition.rate_is == "measured"
    return {
        "codec": condition.codec,
        "kbps": math.nan if condition.kbps is None else condition.kbps,
        "kbps_nominal": math.nan if condition.nominal is None else condition.nominal,
        "kbps_measured": 8 * size / duration_s / 1000 if measured and size is not None else math.nan,
        "clip": clip.id,
        "recording": clip.recording,
        "content_hash": clip.content_hash,
        "category": clip.category,
        "duration_s": duration_s,
        "bytes": size if measured else math.nan,
        "delay_samples": number_from_json(row["delay"]),
        "delay_applied": math.nan if failed else delay,
        "gain_db": number_from_json(row.get("gain_db")),
        "encode_s": number_from_json(row.get("encode_s")),
        "decode_s": number_from_json(row.get("decode_s")),
        "error": row["error"],
    }
