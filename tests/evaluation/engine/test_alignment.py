"""Delay and gain of signals whose delay and gain are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from evaluation.engine import alignment
from evaluation.engine.alignment import Aligner, Alignment, apply_delay, estimate_delay, level_dbfs

RATE = 44100
CLIPS = ["amen", "dog", "rain", "speech", "strings"]


@pytest.fixture(scope="module")
def clips(shared: Callable[[str], Path]) -> dict[str, torch.Tensor]:
    """(1, 1, 3 s) each."""
    read = {name: soundfile.read(shared(f"golden/metrics/{name}.flac"), dtype="float32")[0] for name in CLIPS}
    return {name: torch.from_numpy(samples[: 3 * RATE])[None, None] for name, samples in read.items()}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def delayed(signal: torch.Tensor, delay: int) -> torch.Tensor:
    """Zero-filled where a codec would have been silent or cut off."""
    shifted = torch.roll(signal, delay, -1)
    if delay > 0:
        shifted[..., :delay] = 0
    elif delay < 0:
        shifted[..., delay:] = 0
    return shifted


def tone(hz: float, samples: int = 20000) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hz * torch.arange(samples, dtype=torch.float64) / RATE).float()[
        None, None
    ]


def align(reference: torch.Tensor, decoded: torch.Tensor) -> Alignment:
    (result,) = estimate_delay(reference, decoded, RATE)
    return result


def test_float32_and_float64_decide_alike(
    clips: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    hum, cut = tone(40) + 0.02 * tone(4000), noise(1, 1, 20000)
    cut[..., 200:] *= 1e-3  # most energy in the first samples: some shifts leave too little of it
    signals = [
        *clips.values(),
        noise(1, 2, 9000),
        tone(441),
        tone(440),
        hum,
        cut,
        noise(1, 1, 50),
        tone(1000) + 3,
    ]
    pairs = [
        (signal, decoded)
        for number, signal in enumerate(signals)
        for decoded in (
            delayed(signal, 200) + 0.01 * noise(*signal.shape, seed=number),
            -0.5 * delayed(signal, -17),
            noise(*signal.shape, seed=number),
            0.1 * noise(*signal.shape, seed=number) + 0.1 * signal,
        )
    ]
    decisions = []
    for decide in (alignment._clear_peak, lambda found: None):
        monkeypatch.setattr(alignment, "_clear_peak", decide)
        decisions.append([align(*pair) for pair in pairs])
    for quick, exact in zip(*decisions, strict=True):
        assert (quick.delay_samples, quick.reason) == (exact.delay_samples, exact.reason)
        assert quick.gain_db == pytest.approx(exact.gain_db, abs=1e-4)


def test_references_are_prepared_once(clips: dict[str, torch.Tensor]) -> None:
    reference = torch.cat([*clips.values()])
    aligner = Aligner(reference, RATE)
    for delay in (-300, 12):
        found = aligner.estimate(delayed(reference, delay))
        assert found == estimate_delay(reference, delayed(reference, delay), RATE)
        assert [item.delay_samples for item in found] == [delay] * len(reference)


def test_golden_pairs(shared: Callable[[str], Path]) -> None:
    for pair in json.loads(shared("golden/metrics.json").read_text())["pairs"]:
        reference, decoded = (
            torch.from_numpy(soundfile.read(shared("golden") / pair[side], dtype="float32")[0])[None, None]
            for side in ("reference", "decoded")
        )
        result = align(reference, decoded)
        assert result.reason is None
        if "shift1" in pair["decoded"]:
            assert result.delay_samples == 1, pair
            assert result.gain_db == pytest.approx(-6.0206, abs=1e-3)
        else:
            assert result.delay_samples == 0, pair


@pytest.mark.parametrize("name", CLIPS)
def test_real_clips(name: str, clips: dict[str, torch.Tensor]) -> None:
    clip = clips[name]
    assert align(clip, clip.clone()) == Alignment(0, 0.0)
    for delay in (-4410, -441, -1, 3, 1024, 4410):
        result = align(clip, 2 * delayed(clip, delay))
        assert (result.delay_samples, result.reason) == (delay, None)
        assert result.gain_db == pytest.approx(20 * math.log10(2), abs=1e-4)


@pytest.mark.parametrize("name", CLIPS)
def test_impaired_clips(name: str, clips: dict[str, torch.Tensor]) -> None:
    clip = clips[name]
    low = scipy.signal.firwin(201, 3500, fs=RATE)
    filtered = scipy.signal.lfilter(low, 1, clip.numpy(), axis=-1).astype(np.float32)  # late by 100 samples
    assert align(clip, torch.from_numpy(filtered)).delay_samples == 100
    noisy = delayed(clip, -37) + clip.std() * noise(*clip.shape) / 0.1  # 0 dB
    assert align(clip, noisy).delay_samples == -37
    assert align(clip, delayed(clip, 20) + 0.3).delay_samples == 20  # a constant does not matter
    spectrum = torch.fft.rfft(clip) * torch.exp(
        -2j * torch.pi * 5.3 * torch.arange(clip.shape[-1] // 2 + 1) / clip.shape[-1]
    )
    assert align(clip, torch.fft.irfft(spectrum, clip.shape[-1])).delay_samples == 5


@pytest.mark.parametrize("delay", [0, 7])
def test_inverted_polarity_is_found_and_reported(delay: int, clips: dict[str, torch.Tensor]) -> None:
    for clip in clips.values():
        result = align(clip, -0.5 * delayed(clip, delay))
        assert (result.delay_samples, result.reason) == (delay, "polarity is inverted")
        assert result.gain_db == pytest.approx(-6.0206, abs=1e-3)


def test_periodic_signals_take_the_smallest_shift() -> None:
    signal = tone(441)  # a period of 100 samples
    assert align(signal, signal.clone()) == Alignment(0, 0.0)
    assert align(signal, torch.roll(signal, 30, -1)).delay_samples == 30
    assert align(signal, torch.roll(signal, 80, -1)).delay_samples == -20
    # Half a period late and upside down look the same; upright is taken.
    assert align(signal, -signal).delay_samples in (-50, 50)
    assert align(signal, -signal).reason is None


def test_low_frequencies_are_aligned_to_the_sample() -> None:
    swell = tone(30, 40000) * torch.hann_window(40000)
    for delay in (-11, 0, 1, 250):
        assert align(swell, delayed(swell, delay)).delay_samples == delay


def test_loud_end_that_is_cut_off_does_not_hide_the_delay() -> None:
    rising = noise(1, 1, 20000) * torch.linspace(0, 1, 20000) ** 8
    assert align(rising, delayed(rising, 900)).delay_samples == 900
    click = torch.zeros(1, 1, 20000)
    click[..., 50] = 1.0
    assert align(click, delayed(click, 20) + 1e-3 * noise(1, 1, 20000)).delay_samples == 20


def test_stereo_is_one_signal() -> None:
    left, right = noise(1, 1, 20000), torch.zeros(1, 1, 20000)
    stereo = torch.cat([left, right], 1)
    result = align(stereo, 0.1 * delayed(stereo, 12))
    assert result.delay_samples == 12 and result.gain_db == pytest.approx(-20, abs=1e-3)


def test_items_are_independent() -> None:
    clip = noise(1, 1, 9000)
    batch = torch.cat([delayed(clip, delay) for delay in (0, 5, -60)] + [torch.zeros(1, 1, 9000)])
    results = estimate_delay(clip.expand(4, -1, -1), batch, RATE)
    assert [item.delay_samples for item in results] == [0, 5, -60, None]
    assert results[:1] == estimate_delay(clip, batch[:1], RATE)


@pytest.mark.parametrize(
    ("reference", "decoded", "reason"),
    [
        (torch.zeros(1, 1, 5000), noise(1, 1, 5000), "silent reference"),
        (torch.full((1, 1, 5000), 0.1), noise(1, 1, 5000), "silent reference"),
        (noise(1, 1, 5000), torch.zeros(1, 1, 5000), "silent output"),
        (noise(1, 1, 5000), noise(1, 1, 5000) + torch.tensor(math.nan), "output contains NaN"),
        (noise(1, 1, 50000), noise(1, 1, 50000, seed=1), "does not resemble the reference"),
        (noise(1, 1, 50000), delayed(noise(1, 1, 50000), 6000), "does not resemble the reference"),
    ],
)
def test_no_estimate_has_a_reason(reference: torch.Tensor, decoded: torch.Tensor, reason: str) -> None:
    result = align(reference, decoded)
    assert (result.delay_samples, result.gain_db) == (None, None)
    assert reason in (result.reason or "")


def test_peak_outside_the_range_is_not_taken_for_its_end() -> None:
    slow = torch.hann_window(30000)[None, None] ** 4
    result = align(slow, delayed(slow, 5000))
    assert result.delay_samples is None and "no peak" in (result.reason or "")
    (wider,) = estimate_delay(slow, delayed(slow, 5000), RATE, max_delay_s=0.2)
    assert wider.delay_samples == 5000


@pytest.mark.parametrize("samples", [1, 2, 3, 10, 100])
def test_short_signals(samples: int) -> None:
    clip = noise(1, 1, samples)
    result = align(clip, clip)
    assert result == (Alignment(None, None, "silent reference") if samples == 1 else Alignment(0, 0.0))


def test_apply_delay_undoes_a_delay_and_fills_nothing_in() -> None:
    clip = torch.arange(1, 11.0)[None, None]
    for delay in (-9, -3, 0, 1, 9):
        reference, decoded = apply_delay(clip, delayed(clip, delay), delay)
        assert reference.shape[-1] == 10 - abs(delay)
        assert torch.equal(reference, decoded) and reference.all()


def test_apply_delay_refuses_a_delay_of_the_whole_signal() -> None:
    clip = torch.ones(1, 1, 10)
    for delay in (10, -10, 99):
        with pytest.raises(ValueError, match="cannot take a delay"):
            apply_delay(clip, clip, delay)
    with pytest.raises(ValueError, match="cannot take a delay"):
        apply_delay(clip, clip[..., 1:], 1)
    with pytest.raises(ValueError, match="differ in shape"):
        estimate_delay(clip, clip[..., 1:], RATE)


def test_level_of_what_is_left_without_dc() -> None:
    sine = math.sqrt(2) * 0.1 * tone(1000, 44100)[0]
    assert level_dbfs(sine) == pytest.approx(-20, abs=0.01) == level_dbfs(sine + 0.5)
    assert level_dbfs((sine - sine) / 2) == -200.0 == level_dbfs(torch.full((2, 100), 0.7))
    assert level_dbfs(1e-4 * sine) == pytest.approx(-100, abs=0.01)
