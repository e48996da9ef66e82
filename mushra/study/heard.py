"""Objective metrics of the files of a test, as listeners heard them, not of the clips they were cut from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from evaluation.embeddings import EMBEDDINGS
from evaluation.embeddings.base import Embedding
from evaluation.engine.request import choose_metrics
from evaluation.engine.scoring import Form
from evaluation.loading import load
from evaluation.metrics import METRICS
from evaluation.metrics.base import Metric, Score, describe_metric
from evaluation.metrics.embedding import (
    COSINE,
    MATCHING,
    compare_frames,
    describe_embedding,
    embedding_metrics,
)
from evaluation.records import MetricInfo
from mushra.config.key import KeyTrial
from mushra.config.locate import KEY_NAME
from mushra.config.pages import HIDDEN_REFERENCE
from qincodec import audio
from qincodec.core.console import Progress
from qincodec.core.errors import UserError


@dataclass(frozen=True)
class Settings:
    """Metrics, and the form of the audio that they get.

    Attributes:
        metrics: one instance each.
        embeddings: each gives the distances of single excerpts, FM and cosine.
        sample_rate: rate to which stimuli are resampled, Hz; None leaves them as they are.
        channels: number of channels to which they are mixed; None leaves them as they are.
        notes: origin of the settings, and metrics that were left out with the reasons.
    """

    metrics: tuple[Metric, ...]
    embeddings: tuple[Embedding, ...]
    sample_rate: int | None
    channels: int | None
    notes: tuple[str, ...]

    @property
    def infos(self) -> list[MetricInfo]:
        """All metrics, in the order of their columns."""
        infos = [describe_metric(metric) for metric in self.metrics]
        for embedding in self.embeddings:
            infos += [info for info in embedding_metrics(describe_embedding(embedding)) if info.per_clip]
        return infos


def is_run(path: Path) -> bool:
    """Whether a folder is a run of ``evaluate``."""
    return (path / "run.json").is_file()


def choose_settings(run: Path | None, names: str | None = None) -> Settings:
    """Settings for a run, for named metrics, or the default ones.

    Args:
        run: run of ``evaluate`` whose metrics, sample rate and channels are used, as in its tables. None: all
            metrics without an embedding that are not only for speech, on stimuli as they are.
        names: metrics and embeddings to use instead, comma-separated.

    Raises:
        UserError: a name is unknown, a named metric cannot run here, no metric is left, or ``run`` is not a
            run.
    """
    sample_rate = channels = None
    notes = []
    wanted, embeddings = METRICS.names(), []
    if run is not None:
        results = load(run)
        sample_rate, channels = results.settings.sample_rate, results.settings.channels
        notes.append(f"metrics at {sample_rate} Hz, {channels} channel{'s' * (channels != 1)}, as in {run}")
        wanted = [metric.name for metric in results.clip_metrics if not metric.embedding]
        embeddings = [embedding.name for embedding in results.embeddings]
        if names is None:
            notes += [
                f"{metric.label} left out: a distance between whole sets has no value for an excerpt"
                for metric in results.metrics
                if not metric.per_clip
            ]
            notes += [f"{name} left out: {reason}" for name, reason in results.unavailable.items()]
    if names is not None:
        wanted, embeddings = choose_metrics(names)
    loaded: dict[str, Any] = {}
    for registry, chosen in ((METRICS, wanted), (EMBEDDINGS, embeddings)):
        for name in chosen:
            try:
                part = registry.load(name)()
                if run is None and names is None and getattr(part, "speech_only", False):
                    notes.append(f"{name} left out: it is only for speech; name it with --metrics")
                    continue
                loaded[name] = part
            except Exception as error:  # an error in a plug-in must not stop the others
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                if names is not None:
                    raise UserError(f"{name} cannot be computed here: {reason}") from error
                notes.append(f"{name} left out: {reason}")
    if not loaded:
        raise UserError(f"there is no metric to correlate ({'; '.join(notes)}); name some with --metrics")
    return Settings(
        tuple(loaded[name] for name in wanted if name in loaded),
        tuple(loaded[name] for name in embeddings if name in loaded),
        sample_rate,
        channels,
        tuple(notes),
    )


def score_trials(
    folder: Path, trials: dict[str, KeyTrial], settings: Settings, *, progress: Progress = lambda *_: None
) -> pd.DataFrame:
    """Each metric of each signal against the reference of its trial, on the files that listeners heard.

    Args:
        folder: folder of the test; the paths of ``trials`` are relative to it.
        trials: item -> its entry in a whole key.
        settings: see `Settings`.
        progress: called with (what, done, total).

    Returns:
        A row per item and condition, in the order of ``trials``, without the hidden reference: ``item,
        condition``, and for each metric M ``M`` and ``M_reason`` (why it is NaN). Both files have the gain of
        the trial, which cancels if the metric does not depend on level. Nothing is aligned again.

    Raises:
        UserError: a file is missing or damaged, differs in length from its reference, or was changed after
            the test was made.
    """
    rows: list[dict[str, Any]] = []
    signals = {
        item: {s.condition: s for s in trial.signals.values() if s.condition != HIDDEN_REFERENCE}
        for item, trial in trials.items()
    }
    total = sum(map(len, signals.values()))
    for item, trial in trials.items():
        reference, sample_rate = _read(folder / str(trial.reference), settings)
        of_reference = [
            *(_attempt(_prepare, metric, reference, sample_rate) for metric in settings.metrics),
            *(_attempt(_embed, embedding, reference, sample_rate) for embedding in settings.embeddings),
        ]
        for condition, signal in signals[item].items():
            path = folder / str(signal.file)
            progress("scoring what was heard", len(rows), total)
            if signal.sha256 and hashlib.sha256(_bytes(path)).hexdigest() != signal.sha256:
                raise UserError(
                    f"{path} differs from its SHA-256 in {KEY_NAME}: it was changed after `create`; restore"
                    " the file that listeners heard"
                )
            decoded, rate = _read(path, settings)
            if decoded.shape != reference.shape or rate != sample_rate:
                raise UserError(
                    f"{path} is {_shape(decoded, rate)}, its reference {Path(str(trial.reference)).name} "
                    f"{_shape(reference, sample_rate)}; create the test again"
                )
            scores: list[Score] = []
            for metric, prepared in zip(settings.metrics, of_reference, strict=False):
                scores += _scores(1, _score, prepared, metric, decoded, sample_rate)
            for embedding, frames in zip(
                settings.embeddings, of_reference[len(settings.metrics) :], strict=True
            ):
                scores += _scores(2, _distances, frames, embedding, decoded, sample_rate)
            row: dict[str, Any] = {"item": item, "condition": condition}
            for info, score in zip(settings.infos, scores, strict=True):
                row[info.name], row[f"{info.name}_reason"] = score.value, score.reason or ""
            rows.append(row)
    columns = ["item", "condition"]
    columns += [name for info in settings.infos for name in (info.name, f"{info.name}_reason")]
    return pd.DataFrame(rows, columns=columns)


def describe_gaps(scores: pd.DataFrame, infos: Sequence[MetricInfo]) -> list[str]:
    """For each metric with missing values: their number and the first reason."""
    notes = []
    for info in infos:
        lacking = scores[scores[f"{info.name}_reason"] != ""]
        if len(lacking):
            first = lacking.iloc[0]
            notes.append(
                f"{info.label} has no value for {len(lacking)} of {len(scores)} signals, left out (first: "
                f"{first['condition']} of {first['item']}: {first[f'{info.name}_reason']})"
            )
    return notes


@dataclass(frozen=True)
class _Failure:
    """The error that a metric raised instead of returning a value."""

    reason: str


def _attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """Result of ``function``, or a `_Failure`: a metric that raises must not stop the others."""
    try:
        return function(*arguments)
    except Exception as error:
        return _Failure(f"{type(error).__name__}: {error}")


def _scores(number: int, function: Callable[..., Any], prepared: Any, *arguments: Any) -> list[Score]:
    """``number`` scores of one signal; NaN with the reason if the metric fails."""
    found = prepared if isinstance(prepared, _Failure) else _attempt(function, prepared, *arguments)
    return [Score(math.nan, found.reason)] * number if isinstance(found, _Failure) else found[:number]


def _prepare(metric: Metric, reference: torch.Tensor, sample_rate: int) -> Any:
    """The metric's preparation of a reference, in the form that it needs."""
    form = Form.of(metric)
    return metric.prepare(form.make(reference, sample_rate).clone(), form.sample_rate or sample_rate)


def _score(prepared: Any, metric: Metric, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
    form = Form.of(metric)
    return metric.score(prepared, form.make(decoded, sample_rate).clone(), form.sample_rate or sample_rate)


def _distances(
    frames: np.ndarray, embedding: Embedding, decoded: torch.Tensor, sample_rate: int
) -> list[Score]:
    """Feature-matching and cosine distance of an embedding."""
    distances = compare_frames(frames, _embed(embedding, decoded, sample_rate))
    return [distances[kind] for kind in (MATCHING, COSINE)]


def _embed(embedding: Embedding, samples: torch.Tensor, sample_rate: int) -> np.ndarray:
    """Embedding of the mean of the channels, (frames, dim)."""
    mono = torch.from_numpy(audio.mix(samples[0].numpy(), 1))[0]
    return np.asarray(embedding.embed(mono, sample_rate).cpu())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; create the test again") from error


def _read(path: Path, settings: Settings) -> tuple[torch.Tensor, int]:
    """(1, channels, samples) and the sample rate, after the mixing and resampling of ``settings``."""
    samples, sample_rate = audio.read(path)
    if settings.channels is not None:
        samples = audio.mix(samples, settings.channels)
    if settings.sample_rate is not None:
        samples = audio.resample(samples, sample_rate, settings.sample_rate)
        sample_rate = settings.sample_rate
    return torch.from_numpy(samples)[None], sample_rate


def _shape(samples: torch.Tensor, sample_rate: int) -> str:
    return f"{samples.shape[1]} x {samples.shape[2]} samples at {sample_rate} Hz"
