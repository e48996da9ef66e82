"""Metrics of third-party packages, which take one clip at a time as a NumPy array."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from baselines.lazy import Lazy
from evaluation.metrics.base import Metric, Score
from evaluation.metrics.checks import not_finite
from qincodec.core.errors import Unavailable

if TYPE_CHECKING:
    import numpy as np
    import torch
else:
    np, torch = Lazy("numpy"), Lazy("torch")


class NoScore(Exception):
    """Why a clip has no score, in one line."""


class PackageMetric(Metric):
    """A metric from a package of the extra ``metrics``, computed on the CPU from the mean of the channels.

    Attributes:
        distribution: name of the package on PyPI; its version is part of the metric's.
        module: name to import.
    """

    channels = 1
    device = "cpu"
    distribution: str
    module: str

    def __init__(self) -> None:
        if reason := self.unavailable():
            raise Unavailable(reason)
        self.version = f"1/{self.distribution}-{importlib.metadata.version(self.distribution)}"

    @classmethod
    def unavailable(cls) -> str | None:
        if importlib.util.find_spec(cls.module) is not None:
            return None
        return f"package '{cls.distribution}' is not installed; pip install 'qincodec[metrics]'"

    @abstractmethod
    def score_clip(self, reference: np.ndarray, decoded: np.ndarray, sample_rate: int) -> float:
        """The value of one clip, from (samples,) float64 each, finite and not silent; it may write into them.

        Raises:
            NoScore: the clip has no score.
        """

    def score(self, prepared: Any, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        return [self._score(r, d, sample_rate) for r, d in zip(prepared, decoded, strict=True)]

    def _score(self, reference: torch.Tensor, decoded: torch.Tensor, sample_rate: int) -> Score:
        for signal, what in ((reference, "reference"), (decoded, "output")):
            (reason,) = not_finite(signal[None], what)
            if reason is None and not signal.any():
                reason = f"silent {what}"
            if reason is not None:
                return Score(math.nan, reason)
        r, d = (signal.mean(0, dtype=torch.float64).numpy() for signal in (reference, decoded))
        try:
            with np.errstate(all="ignore"):
                value = self.score_clip(r, d, sample_rate)
        except NoScore as reason:
            return Score(math.nan, str(reason))
        return Score(value, f"{self.label} finds nothing to compare" if math.isnan(value) else None)
