"""A small folder of clips."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import soundfile
from known import RATE, tone_and_noise


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power, and on a busy disk that is what they would wait for."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is known of files, as on a machine that has read none."""
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven recordings: five of one second, two of other lengths, one in a subfolder."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "sub").mkdir()
    lengths = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "sub/e": 1.0, "f": 0.61, "g": 1.37}
    for seed, (name, seconds) in enumerate(lengths.items()):
        soundfile.write(folder / f"{name}.wav", tone_and_noise(seed, seconds), RATE, subtype="FLOAT")
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of other things: figures are made, but drawing them takes longer than a small run."""
    monkeypatch.setattr(
        "evaluation.report.plots.files_of", lambda figure, kinds, **_: dict.fromkeys(kinds, b"")
    )
