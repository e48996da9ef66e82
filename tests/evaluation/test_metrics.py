"""SI-SDR and MS-Mel as metrics: scores, reasons, the registry, the benchmark."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch

from evaluation.metrics import METRICS
from evaluation.metrics.base import Metric, Score
from qincodec.core.errors import UserError

RATE = 44100
REPOSITORY = Path(__file__).resolve().parents[2]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def score(name: str, reference: torch.Tensor, decoded: torch.Tensor) -> list[Score]:
    metric: Metric = METRICS.load(name)()
    return metric.score(metric.prepare(reference, RATE), decoded, RATE)


@pytest.fixture(params=["si_sdr", "ms_mel"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_registered_under_its_name_and_described(name: str) -> None:
    metric: Metric = METRICS.load(name)()
    assert isinstance(metric, Metric) and metric.name == name
    assert metric.version and metric.definition.endswith(".") and "\n" not in metric.definition
    assert (metric.label, metric.unit, metric.higher_is_better) == {
        "si_sdr": ("SI-SDR", "dB", True),
        "ms_mel": ("MS-Mel", "", False),
    }[name]


def test_unknown_name_suggests_the_right_one() -> None:
    with pytest.raises(UserError, match="did you mean si_sdr"):
        METRICS.load("sisdr")


def test_perfect_signal(name: str) -> None:
    clips = noise(2, 2, 10000)
    perfect = math.inf if name == "si_sdr" else 0.0
    assert score(name, clips, clips.clone()) == [Score(perfect)] * 2


def test_si_sdr_is_that_of_torchmetrics(shared: Callable[[str], Path]) -> None:
    # With it comes transformers: all processes collect this file, one needs it
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

    clips = [
        torch.from_numpy(soundfile.read(shared("golden/metrics") / f"{clip}.flac", dtype="float32")[0])
        for clip in ("speech", "speech--opus16")
    ]
    reference, decoded = (clip[None, None] for clip in clips)
    expected = scale_invariant_signal_distortion_ratio(decoded.double(), reference.double(), zero_mean=True)
    assert score("si_sdr", reference, decoded)[0].value == pytest.approx(expected.item(), abs=1e-9)


def test_what_cannot_be_scored_has_a_reason_and_harms_no_other_item(name: str) -> None:
    reference, decoded = noise(6, 1, 5000), noise(6, 1, 5000, seed=1)
    good = score(name, reference, decoded)
    decoded[1, 0, 77] = math.nan
    decoded[2, 0, 0] = math.inf
    reference[3, 0, -1] = math.nan
    reference[4] = 0
    decoded[5] = 0.25
    scores = score(name, reference, decoded)
    assert scores[0].value == pytest.approx(good[0].value, abs=1e-6) and scores[0].reason is None
    assert [item.reason for item in scores[1:4]] == [
        "output contains NaN",
        "output contains infinite values",
        "reference contains NaN",
    ]
    assert all(math.isnan(item.value) for item in scores[1:4])
    if name == "si_sdr":
        assert [item.reason for item in scores[4:]] == ["silent reference", "silent output"]
    else:
        assert all(item.reason is None and 0 < item.value < 100 for item in scores[4:])


def test_opposite_infinities_are_not_called_nan(name: str) -> None:
    decoded = noise(1, 1, 5000)
    decoded[0, 0, :2] = torch.tensor([math.inf, -math.inf])
    assert score(name, noise(1, 1, 5000), decoded)[0].reason == "output contains infinite values"


def test_absurdly_loud_output_is_no_perfect_score() -> None:
    loud = 1e30 * noise(1, 1, 5000)
    assert score("ms_mel", loud, loud)[0].reason == "samples are too large to compare"
    assert score("si_sdr", loud, loud) == [Score(math.inf)]


def test_shortest_clips_have_a_value_or_a_reason(name: str) -> None:
    for samples in (1, 2, 3, 50):
        (item,) = score(name, noise(1, 1, samples), noise(1, 1, samples, seed=1))
        assert (item.reason is None) != math.isnan(item.value)


def test_score_does_not_depend_on_the_batch(name: str) -> None:
    reference, decoded = noise(4, 1, 20000), noise(4, 1, 20000, seed=1)
    together = [item.value for item in score(name, reference, decoded)]
    backwards = [item.value for item in score(name, reference.flip(0), decoded.flip(0))]
    alone = [score(name, reference[[i]], decoded[[i]])[0].value for i in range(4)]
    assert together == pytest.approx(alone, abs=1e-6) == backwards[::-1]


@pytest.mark.long
def test_benchmark_agrees_with_the_plain_loop() -> None:
    command = [sys.executable, "benchmarks/metrics.py", "--quick", "--threads", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "x real time" in done.stdout and "peak memory" in done.stdout
