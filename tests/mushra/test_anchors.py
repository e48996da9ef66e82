"""Anchors against the standard's mask, measured on the signal and not only on the coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from mushra.anchors import anchor_filter, make_anchor, removed_db
from qincodec.core.errors import UserError

RATES = [16000, 22050, 32000, 44100, 48000, 88200, 96000, 192000]
#: Of the standard, for 3.5 kHz; those of the 7 kHz anchor are twice as high.
PASS_END, FIRST, SECOND = 3500.0, 4000.0, 4500.0


def measured(sample_rate: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(frequencies in Hz, dB): the response of `make_anchor` to an impulse amid silence."""
    impulse = np.zeros((1, 4 * sample_rate // 10), np.float32)
    impulse[0, impulse.shape[1] // 2] = 1.0
    response = make_anchor(impulse, sample_rate, name)
    spectrum = np.abs(np.fft.rfft(response[0].astype(np.float64), 2**17))
    return np.fft.rfftfreq(2**17, 1 / sample_rate), 20 * np.log10(np.maximum(spectrum, 1e-10))


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize(("name", "scale"), [("anchor35", 1), ("anchor70", 2)])
def test_response_meets_the_mask(sample_rate: int, name: str, scale: int) -> None:
    frequencies, level = measured(sample_rate, name)
    assert np.abs(level[frequencies <= scale * PASS_END]).max() <= 0.1
    # Beyond half the rate there is nothing to attenuate: at 16 kHz the 7 kHz anchor's mask ends at 8 kHz.
    assert level[frequencies >= scale * FIRST].max(initial=-200) <= -25
    assert level[frequencies >= scale * SECOND].max(initial=-200) <= -50
    if sample_rate / 2 >= scale * FIRST:
        assert (frequencies >= scale * FIRST).any()


@pytest.mark.parametrize("sample_rate", RATES)
def test_linear_phase_without_delay(sample_rate: int) -> None:
    for name in ("anchor35", "anchor70"):
        taps = anchor_filter(name, sample_rate)
        assert len(taps) % 2 == 1
        np.testing.assert_array_equal(taps, taps[::-1])
        impulse = np.zeros((2, 4001), np.float32)
        impulse[0, 1000], impulse[1, 3000] = 1.0, -0.5
        anchor = make_anchor(impulse, sample_rate, name)
        assert anchor.shape == impulse.shape
        assert anchor.dtype == np.float32
        assert np.abs(anchor[0]).argmax() == 1000
        assert np.abs(anchor[1]).argmax() == 3000


def test_a_tone_below_passes_untouched_and_one_above_vanishes() -> None:
    t = np.arange(44100) / 44100
    low, high = np.sin(2 * np.pi * 1000 * t), np.sin(2 * np.pi * 6000 * t)
    anchor = make_anchor((low + high)[np.newaxis].astype(np.float32), 44100, "anchor35")
    middle = slice(1000, -1000)
    np.testing.assert_allclose(anchor[0, middle], low[middle], atol=2e-3)  # 0.01 dB of ripple, 60 dB down


def test_shorter_than_the_filter_and_silent() -> None:
    assert len(anchor_filter("anchor35", 192000)) > 101
    assert make_anchor(np.ones((1, 101), np.float32), 192000, "anchor35").shape == (1, 101)
    assert not make_anchor(np.zeros((2, 50), np.float32), 48000, "anchor70").any()


def test_what_was_removed() -> None:
    t = np.arange(32000) / 32000
    reference = (np.sin(2 * np.pi * 500 * t) + np.sin(2 * np.pi * 9000 * t))[np.newaxis].astype(np.float32)
    anchor = make_anchor(reference, 32000, "anchor70")
    assert removed_db(reference, anchor) == pytest.approx(-3.01, abs=0.05)  # half the energy
    assert removed_db(reference, reference) == -np.inf


@pytest.mark.parametrize(
    ("name", "sample_rate"), [("anchor35", 7999), ("anchor70", 15999), ("anchor70", 11025)]
)
def test_rates_too_low_are_refused(name: str, sample_rate: int) -> None:
    with pytest.raises(UserError, match=f"{name} needs a sample rate of at least (8000|16000) Hz"):
        make_anchor(np.zeros((1, 100), np.float32), sample_rate, name)
