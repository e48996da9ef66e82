"""Metrics on a batch of clips. A metric that fails affects neither the codec nor other metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from evaluation.datasets.base import Clip
from evaluation.engine.alignment import apply_delay
from evaluation.engine.coding import Batch
from evaluation.metrics.base import Metric, Score
from evaluation.records import is_speech, is_text, is_value
from qincodec import audio
from qincodec.core.errors import UserError, one_line, said, shown
from qincodec.core.files import StoreError
from qincodec.core.plugins import FAULTS


def describe(error: BaseException) -> str:
    """The reason for a failed clip's row: one line that any encoding can hold."""
    return one_line(str(error)) if isinstance(error, UserError) else said(error)


@dataclass(frozen=True)
class Form:
    """How a metric takes signals (`Metric`)."""

    sample_rate: int | None = None
    channels: int | None = None
    device: str | None = None

    @classmethod
    def of(cls, metric: Metric) -> Form:
        return cls(metric.sample_rate, metric.channels, metric.device)

    def make(self, signals: torch.Tensor, sample_rate: int) -> torch.Tensor:
        """Signals (clips, channels, samples) at a rate in this form; maybe the same tensor."""
        if self.channels == 1 and signals.shape[1] > 1:
            signals = signals.double().mean(1, keepdim=True).to(signals.dtype)
        device = torch.device(self.device or signals.device)
        if self.sample_rate not in (None, sample_rate):
            resampled = audio.resample(signals.cpu().numpy(), sample_rate, self.sample_rate)
            signals = torch.from_numpy(resampled)
        return signals.to(device)


class Signals:
    """The references of a batch and a condition's output, for all metrics.

    Each form is computed once: of the decoded signals for all metrics, of the references also for all
    conditions.

    Args:
        batch: keeps the forms of its references.
        reference: (clips, channels, samples), on the device of the metrics.
        decoded: same shape, not shifted yet.
        delay: taken out of ``decoded``, samples.
        sample_rate: Hz.
    """

    def __init__(
        self, batch: Batch, reference: torch.Tensor, decoded: torch.Tensor, delay: int, sample_rate: int
    ) -> None:
        self.batch = batch
        self.delay = delay
        self._reference = reference
        self._decoded = decoded
        self._sample_rate = sample_rate
        self._forms: dict[Form, torch.Tensor] = {}
        self._parts: dict[tuple[int, ...], Signals] = {}

    def score(self, metric: Metric) -> list[Score | None]:
        """A `Score` per clip of the batch, or None if the metric does not apply to it.

        It is ``failed``, with the metric's name and reason, if the metric raises.
        """
        clips = self.batch.clips
        wanted = tuple(i for i, clip in enumerate(clips) if is_for(metric, clip))
        if not wanted:
            return [None] * len(clips)
        if len(wanted) < len(clips) and wanted not in self._parts:
            self._parts[wanted] = self._part(self.batch.part(wanted), list(wanted))
        found = dict(zip(wanted, self._parts.get(wanted, self)._score(metric), strict=True))
        return [found.get(index) for index in range(len(clips))]

    def _score(self, metric: Metric) -> list[Score]:
        """A `Score` per clip."""
        if reason := self._reason(metric):
            return [Score(math.nan, reason)] * len(self.batch.clips)
        try:
            return checked_scores(metric.name, self._ask(metric), len(self.batch.clips))
        except (StoreError, KeyboardInterrupt):
            raise
        except FAULTS as error:
            if len(self.batch.clips) == 1:
                return [failed_score(metric.name, error)]
        # One clip at a time, so that only the one at fault has no score.
        alone = (self._part(self.batch.clip(i), [i]) for i in range(len(self.batch.clips)))
        return [signals._score(metric)[0] for signals in alone]

    def _reason(self, metric: Metric) -> str:
        """Why the metric has no score for any of the clips, or ""."""
        channels, samples = self._reference.shape[1:]
        if samples <= abs(self.delay):
            return f"clip is shorter than the delay of {self.delay} samples"
        if metric.channels == 2 and channels == 1:
            return f"{metric.label} takes two channels, the evaluation has one; --channels 2"
        return ""

    def _ask(self, metric: Metric) -> object:
        form, prepared = Form.of(metric), self.batch.prepared
        rate = form.sample_rate or self._sample_rate
        # Copies: a metric that writes into its tensors must not affect other metrics or codecs.
        decoded = self._in_form(form).clone()
        if (metric.name, self.delay) not in prepared:
            reference = self.batch.forms[form, self.delay].clone()
            prepared[metric.name, self.delay] = metric.prepare(reference, rate)
        return metric.score(prepared[metric.name, self.delay], decoded, rate)

    def _in_form(self, form: Form) -> torch.Tensor:
        """Prepare the decoded signals, and the references in the batch."""
        if form not in self._forms:
            reference, decoded = apply_delay(self._reference, self._decoded, self.delay)
            self._forms[form] = form.make(decoded, self._sample_rate)
            if (form, self.delay) not in self.batch.forms:
                self.batch.forms[form, self.delay] = form.make(reference, self._sample_rate)
        return self._forms[form]

    def _part(self, batch: Batch, indices: list[int]) -> Signals:
        parts = self._reference[indices], self._decoded[indices]
        return Signals(batch, *parts, self.delay, self._sample_rate)


def is_for(metric: Metric, clip: Clip) -> bool:
    """Whether a clip has a score of a metric."""
    return not metric.speech_only or is_speech(clip.category)


def failed_score(name: str, error: BaseException) -> Score:
    """Score of a metric that raised; it is tried again when the run continues."""
    return Score(math.nan, f"{name} failed: {describe(error)}", failed=True)


def checked_scores(name: str, found: Any, count: int) -> list[Score]:
    """Scores that a metric returned, checked as `evaluation.metrics.base.Metric.score` promises.

    Raises:
        UserError: it is not.
    """
    if not isinstance(found, list | tuple) or not all(isinstance(score, Score) for score in found):
        parts = found if isinstance(found, list | tuple) else [found]
        kinds = ", ".join(sorted({type(part).__name__ for part in parts if not isinstance(part, Score)}))
        raise UserError(
            f"metric '{name}' returned {kinds}; score() must return a list with a Score per item, such as "
            "[Score(1.5)]"
        )
    if len(found) != count:
        raise UserError(
            f"metric '{name}' returned {len(found)} scores for {count} clips; return one per item"
        )
    for score in found:
        explained = not math.isnan(score.value) or str(score.reason).strip()
        if not (explained and is_value(score.value) and (score.reason is None or is_text(score.reason))):
            raise UserError(
                f"metric '{name}' returned Score({score.value:g}, {shown(score.reason)}); the value must be a"
                " number from -1e100 to 1e100, infinite, or NaN with a reason, and the reason text or None"
            )
    return [replace(score, reason=score.reason and one_line(score.reason)) for score in found]
