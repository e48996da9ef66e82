"""A small place to try plug-ins that fail: recordings, a metric, a run of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from known import RATE, StepCodec, register, register_codecs, tone_and_noise
from nominal import evaluate

from baselines.codec import Codec
from evaluation import open_results
from evaluation.cli.evaluate import main
from evaluation.metrics import METRICS
from evaluation.metrics.base import Metric, Score
from evaluation.results import Results


class Touchy(Metric):
    """The largest sample of the output; raises on clips whose reference exceeds ``limit``."""

    name, label, version, unit, higher_is_better = "touchy", "Touchy", "1", "", False
    definition = "Made up."
    limit = 0.44

    def score(self, prepared: Any, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        if prepared.abs().max() > self.limit:
            raise ZeroDivisionError("this clip\nis not for me")
        return [Score(float(item.abs().max())) for item in decoded]


def raising(error: BaseException) -> Any:
    """A method that raises it."""

    def fail(*_: object) -> None:
        raise error

    return fail


class Lab:
    """Three recordings of one second, of which "loud" alone exceeds `Touchy.limit`; plug-ins; a run."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.recordings, self.out, self._patch = folder / "recordings", folder / "run", patch
        self.recordings.mkdir()
        for seed, (name, peak) in enumerate({"loud": 0.8, "one": 0.2, "two": 0.3}.items()):
            sound = tone_and_noise(seed, 1.0)
            sound *= peak / np.abs(sound).max()
            soundfile.write(self.recordings / f"{name}.wav", sound, RATE, subtype="FLOAT")
        self.codecs(StepCodec)

    def codecs(self, *codecs: type[Codec]) -> None:
        register_codecs(self._patch, *codecs)

    def metric(self, metric: type[Metric]) -> None:
        register(self._patch, METRICS, metric.name, metric)

    def evaluate(self, codecs: str, metrics: str = "si_sdr", **options: Any) -> Results:
        options = {"out": self.out, **options}
        return evaluate(self.recordings, codecs, [8], metrics=metrics, **options)

    def run(self, codecs: str, metrics: str = "si_sdr", *more: str) -> int:
        """Exit code of the command."""
        words = ["evaluate", str(self.recordings), "--codecs", codecs, "--kbps", "8", "--metrics", metrics]
        words += ["--match", "nominal"]  # as `evaluate` here
        self._patch.setattr("sys.argv", [*words, *more, "--workers", "1", "--out", str(self.out)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    @property
    def clips(self) -> pd.DataFrame:
        """What the run has."""
        return open_results(self.out).clips
