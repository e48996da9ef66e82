"""Signals of an item against closed forms: delay, gain, peak, fades, dither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mushra.create.stimuli import Raw, Unsuitable, loudest_start, make_item, true_peak_dbfs, write_stimulus
from qincodec.audio import peak_dbfs

RATE = 16000


def noise(seconds: float = 2.0, seed: int = 0, level: float = 0.1) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal((1, round(seconds * RATE)))
    return (level * samples).astype(np.float32)


def raw(reference: np.ndarray, decoded: dict[str, np.ndarray], **changes: Any) -> Raw:
    values: dict[str, Any] = {
        "sample_rate": RATE,
        "reference": reference,
        "decoded": decoded,
        "own_delays": dict.fromkeys(decoded),
        "first": 0,
        "stop": reference.shape[1],
        "cut_start": False,
        "cut_stop": False,
    }
    return Raw(**{**values, **changes})


def delayed(samples: np.ndarray, delay: int) -> np.ndarray:
    return np.roll(samples, delay, axis=1)


def test_delays_are_taken_out_to_the_sample() -> None:
    reference = noise()
    decoded = {"late": delayed(reference, 37), "early": delayed(reference, -5), "exact": 0.5 * reference}
    item = make_item(
        raw(reference, decoded, first=1000, stop=30000), {"late": 37, "early": -5}, [], target_lufs=None
    )
    assert item.delays == {"late": 37, "early": -5, "exact": 0}
    assert item.duration_s == 29000 / RATE
    assert item.offset_s == 0
    np.testing.assert_array_equal(item.signals["late"], item.signals["reference"])
    np.testing.assert_array_equal(item.signals["early"], item.signals["reference"])
    np.testing.assert_array_equal(item.signals["exact"], 0.5 * item.signals["reference"])
    assert item.levels_db["exact"] == pytest.approx(-6.02, abs=0.01)


def test_what_an_alignment_lacks_all_signals_lack() -> None:
    reference = noise()
    decoded = {"late": delayed(reference, 37), "early": delayed(reference, -5)}
    item = make_item(raw(reference, decoded), {"late": 37, "early": -5}, ["anchor35"], target_lufs=None)
    assert {samples.shape for samples in item.signals.values()} == {(1, reference.shape[1] - 42)}
    assert item.offset_s == 5 / RATE
    inner = slice(300, -300)  # the ends are cut now, and faded
    np.testing.assert_array_equal(item.signals["late"][:, inner], item.signals["early"][:, inner])


def test_an_item_with_a_delay_of_its_own() -> None:
    reference = noise()
    decoded = {"a": delayed(reference, 20), "b": (reference + noise(seed=1, level=0.3)).astype(np.float32)}
    item = make_item(
        raw(reference, decoded, own_delays={"a": 20, "b": 777}), {"a": 3, "b": 0}, [], target_lufs=None
    )
    # One that is plain to see is taken, one that explains nothing is not.
    assert item.delays == {"a": 20, "b": 0}
    assert [note for note in item.warnings if "'a' has a delay of 20 samples in this item, 3" in note]


def test_loudness_of_a_sine_and_one_gain_for_all() -> None:
    # A sine of 997 Hz at full scale in one channel has -3.01 LUFS by the standard's calibration.
    t = np.arange(3 * 48000) / 48000
    reference = (0.05 * np.sin(2 * np.pi * 997 * t))[None].astype(np.float32)
    item = make_item(
        raw(reference, {"half": reference / 2}, sample_rate=48000), {}, ["anchor35"], target_lufs=-23.0
    )
    expected = -23.0 - (-3.01 + 20 * np.log10(0.05))
    assert item.loudness_lufs == pytest.approx(-23.0 - expected, abs=0.1)  # a meter may be 0.1 LU off
    assert item.gain_db == pytest.approx(expected, abs=0.1)
    assert item.reduced_db == 0
    factor = np.float32(10 ** (item.gain_db / 20))
    np.testing.assert_array_equal(item.signals["reference"], reference * factor)
    np.testing.assert_array_equal(item.signals["half"], reference / 2 * factor)
    assert np.abs(item.signals["anchor35"][0, 2000:-2000]).max() == pytest.approx(0.05 * factor, rel=2e-3)


def test_a_reference_that_peaks_at_plus_2_dbfs() -> None:
    reference = noise(level=0.02)
    reference[0, 5000:5003] = 10 ** (2 / 20) * np.array([0.5, 1.0, 0.5], np.float32)
    louder = 1.2 * reference
    item = make_item(raw(reference, {"louder": louder}), {}, ["anchor35", "anchor70"], target_lufs=-16.0)
    assert item.reduced_db > 0.1
    assert item.gain_db + item.reduced_db == pytest.approx(-16.0 - item.loudness_lufs)
    assert item.peak_dbfs == pytest.approx(-1.0, abs=1e-3)
    peaks = {name: true_peak_dbfs(samples) for name, samples in item.signals.items()}
    assert max(peaks.values()) <= -1.0 + 1e-3
    assert peaks["louder"] == max(peaks.values())
    np.testing.assert_allclose(item.signals["louder"], 1.2 * item.signals["reference"], rtol=1e-6)


def test_no_target_still_keeps_the_peak() -> None:
    quiet, loud = noise(level=0.05), noise(level=0.5)
    assert make_item(raw(quiet, {"a": quiet}), {}, [], target_lufs=None).gain_db == 0
    item = make_item(raw(loud, {"a": loud}), {}, [], target_lufs=None)
    assert item.gain_db < 0
    assert item.peak_dbfs == pytest.approx(-1.0, abs=1e-3)


def test_peaks_between_the_samples_count() -> None:
    # At a quarter of the rate and 45 degrees all samples are 0.707 of a sine that reaches 1.
    sine = np.sin(np.pi / 4 + np.pi / 2 * np.arange(8000))[None].astype(np.float32)
    assert peak_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert true_peak_dbfs(sine[:, 100:-100] * np.hanning(7800).astype(np.float32)) == pytest.approx(
        0, abs=0.02
    )


def test_fades_at_cut_ends_only() -> None:
    reference = np.full((1, 2 * RATE), 0.1, np.float32) * np.resize([1, -1], 2 * RATE).astype(np.float32)
    length = RATE // 100
    for cut_start, cut_stop in [(True, False), (False, True), (False, False)]:
        item = make_item(
            raw(reference, {"a": reference}, cut_start=cut_start, cut_stop=cut_stop), {}, [], target_lufs=None
        )
        factor = item.signals["a"][0] / reference[0]
        ramp = np.sin(np.pi / 2 * (np.arange(length) + 0.5) / length) ** 2
        np.testing.assert_allclose(factor[:length], ramp if cut_start else 1, atol=1e-6)
        np.testing.assert_allclose(factor[-length:], ramp[::-1] if cut_stop else 1, atol=1e-6)
        np.testing.assert_array_equal(factor[length:-length], 1)


def test_anchor_of_a_dull_recording_is_warned_about() -> None:
    dull = np.sin(2 * np.pi * 300 * np.arange(2 * RATE) / RATE)[None].astype(np.float32) / 10
    item = make_item(raw(dull, {"a": dull}), {}, ["anchor35", "anchor70"], target_lufs=-23.0)
    assert item.removed_db["anchor35"] < -50
    assert sum("may sound like it" in note for note in item.warnings) == 2


def test_clipping_is_noticed() -> None:
    loud = np.clip(3 * np.sin(2 * np.pi * 100 * np.arange(2 * RATE) / RATE), -1, 1)[None].astype(np.float32)
    item = make_item(raw(0.2 * loud, {"clipped": loud}), {}, [], target_lufs=-23.0)
    (note,) = [note for note in item.warnings if "clipped" in note]
    assert "'clipped' is clipped: up to" in note
    assert not [n for n in make_item(raw(noise(), {"a": noise()}), {}, [], -23.0).warnings if "clip" in n]


def nan(samples: np.ndarray) -> np.ndarray:
    samples = samples.copy()
    samples[0, 100] = np.nan
    return samples


@pytest.mark.parametrize(
    ("reference", "decoded", "message"),
    [
        (noise(), np.zeros_like(noise()), "'a' is silent"),
        (np.zeros_like(noise()), noise(), "'reference' is silent"),
        (noise(), nan(noise()), "'a' has NaN"),
        (nan(noise()), noise(), "'reference' has NaN"),
        (noise(), noise(1.9), "'a' has 1 x 30400 samples, the reference 1 x 32000"),
        (noise(), np.repeat(noise(), 2, axis=0), "'a' has 2 x 32000 samples"),
        (1e-5 * noise(), noise(), "below the gate of -70 LUFS"),
        (noise(0.3), noise(0.3), "too short for a loudness"),
    ],
)
def test_unsuitable_excerpts(reference: np.ndarray, decoded: np.ndarray, message: str) -> None:
    with pytest.raises(Unsuitable, match=message):
        make_item(raw(reference, {"a": decoded}), {}, ["anchor35"], target_lufs=-23.0)


def test_a_delay_longer_than_the_excerpt() -> None:
    with pytest.raises(Unsuitable, match="too short"):
        make_item(raw(noise(), {"a": noise()}), {"a": 40000}, [], target_lufs=-23.0)


def test_loudest_start_as_by_trying_all() -> None:
    samples = noise(1.0, seed=3) * np.linspace(0, 1, RATE, dtype=np.float32) ** np.float32(0.5)
    length, step = 4000, 640
    energies = [float((samples[:, s : s + length] ** 2).sum()) for s in range(0, RATE - length + 1, step)]
    assert loudest_start(samples, length, step) == step * int(np.argmax(energies))
    assert loudest_start(samples, 2 * RATE, step) == 0


def test_dither_has_the_textbook_mean_and_power(tmp_path: Path) -> None:
    step = 2.0**-15
    sine = 0.4 * step * np.sin(2 * np.pi * 500 * np.arange(200_000) / RATE)[None]  # would round to silence
    write_stimulus(tmp_path / "a.wav", sine.astype(np.float32), RATE, 16, "seed")
    written, _ = soundfile.read(tmp_path / "a.wav", dtype="float64")
    error = (written - sine[0]) / step
    assert error.mean() == pytest.approx(0, abs=0.01)
    assert (error**2).mean() == pytest.approx(1 / 4, abs=0.01)  # 1/12 of rounding, 2/12 of the dither
    assert abs(np.corrcoef(error, sine[0])[0, 1]) < 0.01
    assert written @ sine[0] / (sine[0] @ sine[0]) == pytest.approx(1, abs=0.05)


def test_files_have_the_same_bytes_each_time_and_one_size(tmp_path: Path) -> None:
    loud, quiet = noise(1.0, level=0.3).clip(-0.8, 0.8), noise(1.0, level=0.001)
    for bits in (16, 24):
        first = write_stimulus(tmp_path / "a.wav", loud, RATE, bits, "x")
        assert write_stimulus(tmp_path / "b.wav", loud, RATE, bits, "x") == first
        other = write_stimulus(tmp_path / "c.wav", loud, RATE, bits, "y")
        assert (other == first) == (bits == 24)  # 24 bits need no dither
        write_stimulus(tmp_path / "d.wav", quiet, RATE, bits, "z")
        assert (tmp_path / "a.wav").stat().st_size == (tmp_path / "d.wav").stat().st_size
        assert soundfile.info(tmp_path / "a.wav").subtype == f"PCM_{bits}"


def test_24_bits_keep_the_signal_as_wav_and_flac(tmp_path: Path) -> None:
    samples = noise(1.0).clip(-0.9, 0.9)
    for name in ("a.wav", "a.flac"):
        write_stimulus(tmp_path / name, samples, RATE, 24, "")
        written, rate = soundfile.read(tmp_path / name, dtype="float64")
        assert rate == RATE
        assert np.abs(written - samples[0]).max() <= 2.0**-24 * 1.001
