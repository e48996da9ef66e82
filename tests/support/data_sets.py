"""Sounds to make data sets of, and what is in a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from evaluation.datasets import Dataset

RATE = 44100


def sound(path: Path, duration_s: float = 0.2, rate: int = RATE, channels: int = 1, seed: int = 0) -> Path:
    """A file of noise, written by soundfile. Its content depends on the arguments and not on the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(duration_s * rate), channels))
    kind = {".ogg": "OGG", ".flac": "FLAC"}.get(path.suffix.lower(), "WAV")
    soundfile.write(path, noise, rate, format=kind)
    return path


def ids(dataset: Dataset) -> list[str]:
    return [clip.id for clip in dataset.clips]


def recordings(dataset: Dataset) -> dict[str, str]:
    return {clip.id: clip.recording for clip in dataset.clips}
