"""Metrics on a batch of clips. Each metric fails by itself: neither the codec nor another metric does."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from evaluation.engine.alignment import apply_delay
from evaluation.engine.coding import Batch
from evaluation.metrics.base import Metric, Score
from evaluation.records import is_text, is_value
from qincodec.core.errors import UserError, one_line, said, shown
from qincodec.core.files import StoreError
from qincodec.core.plugins import FAULTS


def describe(error: BaseException) -> str:
    """The reason that stands in a failed clip's row: one line that any encoding can hold."""
    return one_line(str(error)) if isinstance(error, UserError) else said(error)


def score_batch(
    metric: Metric, batch: Batch, reference: torch.Tensor, decoded: torch.Tensor, delay: int, sample_rate: int
) -> list[Score]:
    """A `Score` per clip of the batch; ``failed`` with the metric's name and reason where it raises.

    Args:
        reference: (clips, channels, samples), on the device of the metrics.
        decoded: same shape, not shifted yet.
        delay: taken out of ``decoded``, samples.
        sample_rate: Hz.
    """
    if reference.shape[-1] <= abs(delay):
        reason = f"clip is shorter than the delay of {delay} samples"
        return [Score(math.nan, reason)] * len(batch.clips)
    # Copies: what a metric writes into its tensors must reach no other metric and no codec.
    shifted_reference, shifted = (part.clone() for part in apply_delay(reference, decoded, delay))
    try:
        if (metric.name, delay) not in batch.prepared:
            batch.prepared[metric.name, delay] = metric.prepare(shifted_reference, sample_rate)
        found = metric.score(batch.prepared[metric.name, delay], shifted, sample_rate)
        return checked_scores(metric.name, found, len(batch.clips))
    except (StoreError, KeyboardInterrupt):
        raise
    except FAULTS as error:
        if len(batch.clips) == 1:
            return [failed_score(metric.name, error)]
    # Each clip by itself, so that only the one at fault has no score.
    return [
        score_batch(metric, batch.clip(i), reference[i : i + 1], decoded[i : i + 1], delay, sample_rate)[0]
        for i in range(len(batch.clips))
    ]


def failed_score(name: str, error: BaseException) -> Score:
    """What stands for a metric that raised: it is tried again when the run goes on."""
    return Score(math.nan, f"{name} failed: {describe(error)}", failed=True)


def checked_scores(name: str, found: Any, count: int) -> list[Score]:
    """What a metric returned, if it is what `evaluation.metrics.base.Metric.score` promises.

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
        told = not math.isnan(score.value) or str(score.reason).strip()
        if not (told and is_value(score.value) and (score.reason is None or is_text(score.reason))):
            raise UserError(
                f"metric '{name}' returned Score({score.value:g}, {shown(score.reason)}); the value must be a"
                " number from -1e100 to 1e100, infinite, or NaN with a reason, and the reason text or None"
            )
    return [replace(score, reason=score.reason and one_line(score.reason)) for score in found]
