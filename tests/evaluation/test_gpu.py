"""What `evaluate --device cuda` computes on a GPU against the same on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from known import RATE, tone_and_noise

from baselines import weights
from evaluation import evaluate
from evaluation.embeddings.logmel import LogMel
from evaluation.embeddings.openl3 import OpenL3, OpenL3Wide
from evaluation.engine.alignment import Aligner
from evaluation.metrics.ms_mel import MsMel
from evaluation.metrics.si_sdr import SiSdr

DEVICE = "cuda"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def signals() -> tuple[torch.Tensor, torch.Tensor]:
    """References (4, 2, 2 s), and what a codec with a delay of 37 samples and some noise made of them."""
    reference = torch.from_numpy(
        np.stack([[tone_and_noise(seed, 2.0), tone_and_noise(seed + 9, 2.0)] for seed in range(4)])
    ).float()
    error = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    decoded = 0.8 * torch.roll(reference, 37, -1) + 0.01 * reference.std() * error
    decoded[3] = 0  # silence, and no number
    return reference, decoded


@pytest.mark.parametrize("metric", [SiSdr(), MsMel()], ids=lambda metric: metric.name)
def test_metrics_give_the_scores_of_the_cpu(metric: SiSdr | MsMel) -> None:
    reference, decoded = signals()
    expected = metric.score(metric.prepare(reference, RATE), decoded, RATE)
    found = metric.score(metric.prepare(reference.to(DEVICE), RATE), decoded.to(DEVICE), RATE)
    assert [score.reason for score in found] == [score.reason for score in expected]
    values = [[score.value for score in scores] for scores in (found, expected)]
    np.testing.assert_allclose(*values, rtol=1e-4)


def test_delays_are_those_of_the_cpu() -> None:
    reference, decoded = signals()
    expected = Aligner(reference, RATE).estimate(decoded)
    found = Aligner(reference.to(DEVICE), RATE).estimate(decoded.to(DEVICE))
    assert [item.delay_samples for item in expected] == [37, 37, 37, None]
    for item, other in zip(found, expected, strict=True):
        assert (item.delay_samples, item.reason) == (other.delay_samples, other.reason)
        assert item.gain_db == pytest.approx(other.gain_db, abs=1e-3)


@pytest.mark.parametrize("kind", [LogMel, OpenL3, OpenL3Wide])
def test_embeddings_are_those_of_the_cpu(
    kind: type[LogMel] | type[OpenL3], shared: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared("golden/openl3/random_openl3_audio_mel256_env.h5.gz")
    monkeypatch.setitem(weights._explicit, "openl3", path)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    audio = signals()[0][0, 0]
    expected, found = (kind(device=device).embed(audio, RATE) for device in ("cpu", DEVICE))
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


def test_a_run_scores_as_on_the_cpu(clip_folder: Path, tmp_path: Path) -> None:
    runs = [
        evaluate(
            clip_folder,
            "qincodec,opus,pcm16",
            [8],
            out=tmp_path / device,
            metrics="si_sdr,ms_mel,logmel",
            match="nominal",
            device=device,
        )
        for device in ("cpu", DEVICE)
    ]
    expected, found = (run.clips.set_index(["codec", "clip"]).sort_index() for run in runs)
    assert found["error"].isna().all() and list(found.index) == list(expected.index)
    for codec, tolerance in (("opus", 1e-4), ("pcm16", 1e-4), ("qincodec", 0.05)):
        # A search that rounds differently finds other codes for some frames, and no worse ones.
        for column in ("si_sdr", "ms_mel", "fm_logmel"):
            a, b = expected.loc[codec, column].mean(), found.loc[codec, column].mean()
            assert b == pytest.approx(a, rel=tolerance, abs=tolerance), (codec, column)
    assert (found.loc["opus", "delay_samples"] == expected.loc["opus", "delay_samples"]).all()
