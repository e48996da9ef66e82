"""The weight-free embedding against NumPy's transform and librosa's filters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.embeddings.base import centred_frames
from evaluation.embeddings.logmel import LogMel


def test_agrees_with_librosa() -> None:
    # librosa's own `melspectrogram` is the same, after 20 s in which Numba compiles the rest of librosa.
    librosa = pytest.importorskip("librosa")
    filters = librosa.filters.mel(sr=44100, n_fft=2048, n_mels=40)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    audio = np.random.default_rng(0).standard_normal(70_000).astype(np.float32) * np.linspace(0, 1, 70_000)
    audio = audio.astype(np.float32)
    found = LogMel().embed(torch.from_numpy(audio), 44100).numpy()
    frames = centred_frames(torch.from_numpy(audio), 44100, 22050).numpy()
    assert found.shape == (len(frames), 80) == (4, 80)
    for row, frame in zip(found, frames, strict=True):
        padded = np.pad(frame, (0, 43 * 1024 + 2048 - 44100))
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2048)[::1024]
        mel = filters @ np.abs(np.fft.rfft(hann * windows)).T
        levels = np.log10(np.maximum(mel, 1e-5))
        np.testing.assert_allclose(row, [*levels.mean(1), *levels.std(1)], atol=1e-4)


@pytest.mark.parametrize("samples", [1, 100, 44100])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_silence_and_short_clips_have_values(samples: int, rate: int) -> None:
    values = LogMel().embed(torch.zeros(samples), rate)
    assert torch.equal(values[:, :40], torch.full_like(values[:, :40], -5))
    assert not values[:, 40:].any()
