"""The controls against the closed forms of rounding with dither."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from baselines import check_codec
from baselines.codec import Encoded
from baselines.controls import Pcm16, Reference
from qincodec.core.errors import UserError

STEP = 2.0**-15


def pcm16(samples: np.ndarray) -> np.ndarray:
    codec = Pcm16()
    codec.sample_rate = 44100
    return codec.decode(codec.encode(torch.from_numpy(samples), codec.rates(samples.shape[1])[0])).numpy()


@pytest.mark.parametrize("cls", [Reference, Pcm16])
def test_keeps_the_promises_of_the_interface(cls: type[Reference] | type[Pcm16]) -> None:
    codec = cls()
    assert codec.control and codec.sample_rate == 0
    assert {row.delay_samples for row in check_codec(codec)} == {0}
    assert codec.sample_rate == 0


@pytest.mark.parametrize("sample_rate", [8000, 44100, 96000])
def test_runs_at_the_rate_it_is_given(sample_rate: int) -> None:
    for codec in (Reference(), Pcm16()):
        codec.sample_rate = sample_rate
        (encoded,) = codec.encode(torch.zeros(1, 2, 1000), codec.rates(2)[0])
        assert encoded.sample_rate == sample_rate
        if isinstance(codec, Pcm16):
            assert codec.rates(2)[0].kbps == 32 * sample_rate / 1000
            assert encoded.kbps == pytest.approx(32 * sample_rate / 1000)
        else:
            assert codec.rates(2)[0].kbps is None


def test_an_unset_sample_rate_is_an_error() -> None:
    with pytest.raises(UserError, match=r"assign codec\.sample_rate"):
        Pcm16().rates()
    for codec in (Reference(), Pcm16()):
        with pytest.raises(UserError, match=r"assign codec\.sample_rate"):
            codec.encode(torch.zeros(1, 1, 10), Reference().rates()[0])


def test_reference_keeps_every_bit() -> None:
    codec = Reference()
    codec.sample_rate = 48000
    values = np.array([[[1e-42, -0.0, 3.5, -1.0, 1 / 3, np.finfo(np.float32).max]]], np.float32)
    encoded = Encoded.from_bytes(codec.encode(torch.from_numpy(values), codec.rates()[0])[0].to_bytes())
    assert codec.decode([encoded]).numpy().tobytes() == values.tobytes()


def test_error_is_that_of_triangular_dither() -> None:
    # Variance: 1/12 of the rounding and 2/12 of the dither, at any level of the signal, and no bias.
    for level in (0.0, 0.3 * STEP, 0.5 * STEP, 0.123):
        error = (pcm16(np.full((1, 1, 200_000), level, np.float32))[0, 0] - np.float32(level)) / STEP
        assert error.var() == pytest.approx(0.25, rel=0.02)
        assert abs(error.mean()) < 5 * 0.5 / math.sqrt(200_000)
        assert np.abs(error).max() <= 1.5 + 1e-3
    ramp = np.linspace(-0.5, 0.5, 200_000, dtype=np.float32)[None, None]
    decoded = pcm16(ramp)
    assert np.array_equal(np.rint(decoded / STEP), decoded / STEP)
    assert abs(np.corrcoef(ramp[0, 0], (decoded - ramp)[0, 0])[0, 1]) < 0.01


def test_clips_what_16_bits_cannot_hold() -> None:
    decoded = pcm16(np.array([[[1.5, -1.5, 1.0, -1.0]]], np.float32))[0, 0]
    assert decoded[0] == 1 - STEP
    assert decoded[1] == -1
    assert abs(decoded[3] + 1) <= 1.5 * STEP


def test_dither_depends_on_the_clip_alone() -> None:
    clips = np.random.default_rng(0).uniform(-1, 1, (3, 2, 1000)).astype(np.float32)
    together = pcm16(clips)
    for clip, decoded in zip(clips, together, strict=True):
        assert np.array_equal(pcm16(clip[None])[0], decoded)
    noise = (together - clips).reshape(6, -1)
    assert np.abs(np.corrcoef(noise) - np.eye(6)).max() < 0.15


def test_damaged_payload_is_refused() -> None:
    codec = Reference()
    codec.sample_rate = 44100
    with pytest.raises(UserError, match="damaged"):
        codec.decode([Encoded(bytes(7), 44100, 1, 2)])
