"""What the tests of `mushra create` share: made-up recordings, and a look into a finished test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mushra.create.documents import Options
from mushra.create.folder import create_test

RATE = 16000
#: Recordings of the run in `tests/mushra/create`.
N_CLIPS = 7


def recording(seed: int, seconds: float = 2.4, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Noise with a changing level and a tone: (samples, channels)."""
    generator = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    level = 0.05 * (1.5 + np.sin(2 * np.pi * (0.5 + seed) * t))
    noise = generator.standard_normal((len(t), channels))
    return level[:, None] * noise + 0.1 * np.sin(2 * np.pi * 300 * (1 + seed) * t)[:, None]


def make(source: Any, out: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(key, report) of a new test."""
    report = create_test(source, out, Options(**{"items": 3, **options}))
    return json.loads((out / "key.json").read_text()), report


def signals(out: Path, trial: dict[str, Any]) -> dict[str, np.ndarray]:
    """Condition -> samples of a trial of the key."""
    return {
        entry["condition"]: soundfile.read(out / entry["file"], dtype="float64")[0]
        for entry in trial["signals"].values()
    }
