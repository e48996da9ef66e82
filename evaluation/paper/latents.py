"""Quantization error of the latents of the evaluated clips (Table III)."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch

from evaluation.datasets.base import Clip
from evaluation.engine.coding import Coder
from evaluation.records import Condition
from evaluation.rows import CodedRow, LatentsRow
from evaluation.run.store import RunStore, coded_key, row_key
from evaluation.statistics.distributions import jackknife, jackknife_groups
from qincodec import audio
from qincodec.codec import Qincodec
from qincodec.core.errors import UserError

VERSION = "1"
DEFINITION = (
    "Latent MSE: squared error of the quantized latents of all frames of all clips over their variance "
    "(0: none, 1: as bad as their mean); [95% interval by delete-group jackknife over recordings]. The paper "
    "does not say which latents and which scale its MSE uses"
)


@dataclass(frozen=True)
class LatentError:
    """Squared error over variance, with its 95 % interval.

    Attributes:
        value: NaN with a ``reason``.
        low, high: NaN with a ``ci_reason``.
        mse: squared error per dimension, in the units of the latents.
        n_clips, n_recordings, n_frames: numbers of clips, recordings and frames.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    mse: float = math.nan
    n_clips: int = 0
    n_recordings: int = 0
    n_frames: int = 0
    reason: str = ""
    ci_reason: str = ""


@dataclass
class _Sums:
    """Sums over frames, (dim,) or scalar, float64."""

    frames: int
    error: float
    x: np.ndarray
    squares: float

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, other: _Sums) -> _Sums:
        return _Sums(*map(operator.sub, astuple(self), astuple(other)))

    @property
    def relative(self) -> float:
        """Error over variance."""
        variance = self.squares - float(np.square(self.x).sum()) / max(self.frames, 1)
        return self.error / variance if variance > 0 else math.nan


def latent_error(
    store: RunStore,
    condition: Condition,
    codec: Qincodec,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LatentError:
    """Difference between the latents of a condition and those decoded from the stored codes.

    Nothing is quantized again. Sums per clip are kept as rows of the run folder.

    Args:
        store: store of a run that coded ``condition`` at the sample rate of the codec, open for writing.
        condition: condition of ``codec``.
        codec: codec before fine-tuning.
        progress: called with the number of clips done and the total.

    Raises:
        UserError: an encoded clip or a recording is missing.
    """
    run = store.read_run()
    settings = run.settings
    coder = Coder(store, settings.sample_rate, channels=1)
    clips = [clip for clip in store.read_clips() if clip.error is None]
    sums: list[_Sums] = []
    recordings: list[str] = []
    for number, clip in enumerate(clips):
        progress(number, len(clips))
        row = store.row(coded_key(condition, settings, clip), CodedRow)
        if row is None or row.error is not None:
            continue
        key = row_key(kind="latents", version=VERSION, coded=row.key)
        known = store.row(key, LatentsRow)
        if known is None:
            found = _sums(coder, row, clip, codec)
            known = LatentsRow(key=key, codec=condition.codec, clip=clip.id, **found)
            store.append([known])
        sums.append(_Sums(known.frames, known.error_sum, np.array(known.x), known.squares))
        recordings.append(clip.recording)
    return _summarise(sums, recordings)


def _sums(coder: Coder, row: CodedRow, clip: Clip, codec: Qincodec) -> dict[str, Any]:
    try:
        codes = coder.store.read_encoded(row).codes
    except OSError as error:
        raise UserError(
            f"'{error.filename}' is missing ({error.strerror}); give another --out to evaluate again"
        ) from error
    assert isinstance(codes, np.ndarray) and codec.quantizer is not None
    # The codec gets the audio as it did in the run.
    samples = audio.resample(coder.reference(clip), coder.sample_rate, codec.sample_rate)
    with torch.inference_mode():
        x = codec.encode_latents(torch.from_numpy(samples)[None])[0, 0].double()
        decoded = codec.quantizer.decode(torch.from_numpy(codes.T.copy()).to(codec.device))
    if decoded.shape != x.shape:
        raise UserError(
            f"'{clip.path}' has changed since the run coded it: {len(decoded)} frames then, {len(x)} now;"
            " give another --out to evaluate again"
        )
    return {
        "frames": len(x),
        "error_sum": float((decoded.double() - x).square().sum()),
        "x": x.sum(0).tolist(),
        "squares": float(x.square().sum()),
    }


def _summarise(sums: Sequence[_Sums], recordings: Sequence[str]) -> LatentError:
    if not sums:
        return LatentError(math.nan, reason="no clip was coded", ci_reason="there is no value")
    of_recording = jackknife_groups(recordings)
    groups = sorted(set(of_recording.values()))
    nothing = _Sums(0, 0.0, np.zeros_like(sums[0].x), 0.0)
    by_group = [
        sum((s for s, r in zip(sums, recordings, strict=True) if of_recording[r] == group), nothing)
        for group in groups
    ]
    sizes = [sum(g == group for g in of_recording.values()) for group in groups]
    total = sum(by_group, nothing)
    value = total.relative
    interval = jackknife(value, [(total - part).relative for part in by_group], sizes)
    reason = "" if math.isfinite(value) else "all latents are equal"
    ci_reason = "" if math.isfinite(interval.low) else "an interval needs two recordings or more"
    return LatentError(
        value,
        max(0.0, interval.low) if math.isfinite(interval.low) else math.nan,
        interval.high,
        total.error / (total.frames * len(total.x)),
        len(sums),
        len(set(recordings)),
        total.frames,
        reason,
        ci_reason,
    )
