"""What is wrong with references: closed-form signals, through the function, `create` and `check`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from listening import make, recording

from mushra.check import check_config
from mushra.create.material import FolderMaterial
from mushra.faults import reference_faults

RATE = 16000
T = np.arange(3 * RATE) / RATE
SINE = 0.3 * np.sin(2 * np.pi * 440 * T)
NOISE = np.stack([0.1 * np.random.default_rng(seed).standard_normal(len(T)) for seed in (0, 1)])


def stereo(second: np.ndarray) -> np.ndarray:
    return np.stack([SINE, second])


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (SINE[None] + 0.1, "has a DC offset of +0.100 of full scale (its sound has -13 dBFS RMS)"),
        (stereo(SINE - 0.1), "has a DC offset of -0.100 of full scale in channel 2"),
        (0.01 * SINE[None] + 0.0011, "has a DC offset of +0.001"),
        (np.full((1, 1000), 0.2), "has a DC offset of +0.200 of full scale (nothing else)"),
        # |1.2 sin| exceeds 1 for pi - 2 arcsin(1 / 1.2) = 1.17 rad, at 0.173 rad a sample.
        ((4 * SINE[None]).clip(-1, 1), "is clipped: up to 7 samples in a row at full scale"),
        (np.zeros((2, 1000)), "is silent (all samples are 0; at least -80 dBFS is sound)"),
        (1e-5 * NOISE / 0.1, "is silent (-100 dBFS RMS; at least -80 dBFS is sound)"),
        (stereo(0.1 * SINE), "is 20.0 dB quieter in channel 2 than in channel 1"),
        (stereo(0 * SINE), "has nothing in channel 2 of 2"),
        (stereo(0 * SINE)[::-1], "has nothing in channel 1 of 2"),
        (stereo(-SINE), "has channels in antiphase (correlation -1.00)"),
    ],
)
def test_each_fault_is_told_and_no_other(samples: np.ndarray, expected: str) -> None:
    (fault,) = reference_faults(samples.astype(np.float32))
    assert fault.startswith(expected)
    # At any gain since: `check` sees what `create` has written.
    (again,) = reference_faults(0.2 * samples, full_scale=0.2)
    assert again == fault


@pytest.mark.parametrize(
    "samples",
    [
        SINE[None],
        np.sin(2 * np.pi * 440 * T)[None],  # full scale, and not beyond
        NOISE,
        stereo(SINE),
        stereo(0.4 * SINE),  # 8 dB apart
        stereo(np.roll(SINE, 12)) + NOISE[:, : len(T)],
        SINE[None] + 0.001,
        recording(3).T,
    ],
)
def test_clean_signals_get_no_remark(samples: np.ndarray) -> None:
    assert reference_faults(samples) == []


def faulty(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    for name in ("ref", "x"):
        (path / name).mkdir()
        for seed in range(3):
            samples = np.repeat(recording(seed, 3.0), 2, axis=1)
            soundfile.write(path / name / f"r{seed}.wav", change(samples), RATE, subtype="FLOAT")
    return [f"x={path / 'x'}"]


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda samples: samples + np.array([[0, 0.1]]),
            r"has a DC offset of \+0\.(099|100) of full scale in channel 2",
        ),
        (lambda samples: (12 * samples).clip(-1, 1), "is clipped: up to"),
        (lambda samples: samples * [[1, 0.1]], "is 20.0 dB quieter in channel 2 than in channel 1"),
        (lambda samples: samples * [[1, -1]], "has channels in antiphase"),
    ],
)
def test_create_and_check_say_it_with_the_file(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], expected: str, bits: Any
) -> None:
    source = FolderMaterial(str(tmp_path / "ref"), faulty(tmp_path, change))
    key, report = make(source, tmp_path / "test", items=1, duration_s=2.0, training=0, bits=bits)
    trial = key["trials"]["trial01"]
    said = [warning for warning in report["items"][0]["warnings"] if warning.startswith("reference")]
    assert len(said) == 1
    assert re.match(f"reference '{trial['clip']}.wav' {expected}", said[0])
    found = [f for f in check_config(tmp_path / "test") if f.message.startswith("reference")]
    assert len(found) == 1
    assert re.match(f"reference '{trial['reference']}' {expected}", found[0].message)
    assert (found[0].severity, found[0].page) == ("warning", 3)


def test_check_looks_at_references_of_any_test(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "r.wav", 1e-5 * NOISE.T / 0.1, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "c.wav", (SINE + 0.1)[:, None] * [[1, 1]], RATE, subtype="FLOAT")
    page = {"type": "mushra", "id": "t", "reference": "r.wav", "stimuli": {"C": "c.wav"}}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({"testname": "t", "testId": "t", "pages": [page]}))
    text = "\n".join(map(str, check_config(tmp_path / "t.yaml")))
    assert "page 1: reference 'r.wav' is silent (-100 dBFS RMS" in text
    assert "DC offset" not in text  # the conditions are as their codecs made them
