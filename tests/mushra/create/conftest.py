"""A run of `evaluate` that tests are made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import soundfile
from listening import N_CLIPS, RATE, recording
from nominal import evaluate


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("references")
    for seed in range(N_CLIPS):
        path = folder / ("music" if seed % 2 else "speech") / f"clip{seed}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, recording(seed), RATE, subtype="FLOAT")
    return folder


@pytest.fixture(scope="session")
def run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    evaluate(
        clips,
        codecs="mp3,pcm16",
        kbps="16,32",
        metrics="si_sdr,ms_mel",
        out=folder,
        sample_rate=RATE,
        workers=1,
        chunk_s=2.0,
        save_audio=True,
    )
    return folder


@pytest.fixture(scope="session")
def payloads(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without decoded audio."""
    folder = tmp_path_factory.mktemp("payloads") / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "decoded")
    return folder
