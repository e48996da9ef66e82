"""What a training tells a person: warnings about its data, pictures of its samples."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qincodec import audio
from qincodec.architectures import SIZES, autoencoder
from qincodec.core.console import ProgressLine
from qincodec.training.cli import _describe
from qincodec.training.manifest import Manifest
from qincodec.training.validation import Validation


@pytest.mark.parametrize(("held_out", "warned"), [(0.2, "held out"), (0.9, "to train on"), (0.5, None)])
def test_a_side_with_one_recording_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], held_out: float, warned: str | None
) -> None:
    (tmp_path / "d").mkdir()
    for name in ("dog", "rain", "bell", "voice", "horn"):
        audio.write(tmp_path / "d" / f"{name}.wav", np.ones((1, 8000)), 8000)
    train, other = Manifest.build(tmp_path / "d", tmp_path / "m").split(held_out, 0)
    with ProgressLine() as progress:
        _describe(SimpleNamespace(train=train, held_out=other), progress)  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert ("warning" in said) == (warned is not None)
    assert warned is None or f"only 1 recording is {warned}" in said


def test_samples_of_digital_silence_and_of_any_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    names = ["a\nb.wav@0s", "$x_$.wav@0s", os.fsdecode(b"caf\xe9.wav"), "\u97f3.wav"]
    clips = [(name, torch.cat([torch.randn(9000) * 0.1, torch.zeros(9000)])) for name in names]
    Validation(clips)(autoencoder(SIZES["tiny"]), tmp_path / "samples")
    assert len(list((tmp_path / "samples").glob("*.png"))) == 4
    assert not recwarn.list and capfd.readouterr().err == ""
