"""A small run of codecs whose output is known, with its decoded audio kept for comparison."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from known import RATE, FragileCodec, LateCodec, StepCodec, register_codecs, tone_and_noise
from nominal import evaluate


@pytest.fixture(scope="session")
def own_codecs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        register_codecs(patch, StepCodec, LateCodec, FragileCodec)
        yield


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, own_codecs: None) -> Path:
    """Three codecs at two rates on four clips of one second, one of them beyond full scale."""
    clips = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate(("a & b", "c", "loud", "sub/<d>")):
        path = clips / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        samples = tone_and_noise(seed, 1.0)
        samples *= (1.25 if name == "loud" else 0.4) / np.abs(samples).max()
        soundfile.write(path, samples, RATE, subtype="FLOAT")
    run = tmp_path_factory.mktemp("runs") / "run"
    evaluate(
        clips,
        "steps,late,fragile,reference",
        "4,8",
        out=run,
        metrics="si_sdr,ms_mel",
        save_audio=True,
        workers=1,
    )
    # Payloads alone must be enough; the decoded files are for comparison.
    (run / "decoded").rename(run.parent / "decoded")
    return run
