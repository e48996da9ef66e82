"""Distances against golden values, closed forms, another implementation and what must not matter."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import get_window, stft

from qincodec import spectra
from qincodec.distances import (
    MEL_SCALES,
    log_mel_spectra,
    log_spectral_distance,
    mel_filter_bank,
    mel_reference,
    ms_mel,
    remove_mean,
    si_sdr,
    stft_distance,
)

RATE = 44100


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def golden(shared: Callable[[str], Path]) -> tuple[list[dict[str, float]], torch.Tensor, torch.Tensor]:
    """The table, references and decoded, both (25, 1, 220500)."""
    pairs = json.loads(shared("golden/metrics.json").read_text())["pairs"]
    assert len(pairs) == 25

    def read(column: str) -> torch.Tensor:
        clips = [soundfile.read(shared("golden") / pair[column], dtype="float32")[0] for pair in pairs]
        return torch.from_numpy(np.stack(clips))[:, None]

    return pairs, read("reference"), read("decoded")


def plain_ms_mel(reference: np.ndarray, decoded: np.ndarray, sample_rate: int) -> float:
    """MS-Mel as its definition reads, frame by frame, in float64 with librosa's filters."""
    import librosa

    def log_mel(signal: np.ndarray, window: int, bands: int) -> np.ndarray:
        padded = np.pad(signal.astype(np.float64), window // 2, mode="reflect")
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        starts = range(0, len(signal) + 1, window // 4)
        magnitudes = np.stack([np.abs(np.fft.rfft(hann * padded[at : at + window])) for at in starts])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Empty filters")
            filters = librosa.filters.mel(sr=sample_rate, n_fft=window, n_mels=bands, dtype=np.float64)
        return np.log10(np.maximum(magnitudes @ filters.T, 1e-5))

    return sum(np.abs(log_mel(reference, *scale) - log_mel(decoded, *scale)).mean() for scale in MEL_SCALES)


def test_golden_values(golden: tuple[list[dict[str, float]], torch.Tensor, torch.Tensor]) -> None:
    pairs, reference, decoded = golden
    expected = torch.tensor([pair["ms_mel"] for pair in pairs])
    torch.testing.assert_close(ms_mel(reference, decoded, RATE), expected, atol=1e-5, rtol=0)
    expected_db = torch.tensor([pair["si_sdr_db_zero_mean"] for pair in pairs], dtype=torch.float64)
    torch.testing.assert_close(si_sdr(reference, decoded), expected_db, atol=1e-4, rtol=0)


def test_float32_is_as_good_as_float64(
    golden: tuple[list[dict[str, float]], torch.Tensor, torch.Tensor],
) -> None:
    _, reference, decoded = (part[::4] for part in golden)
    single = ms_mel(reference, decoded, RATE)
    double = ms_mel(reference.double(), decoded.double(), RATE)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sample_rate", [1600, 8000, 24000, 44100, 48000])
def test_filter_bank_is_librosas(sample_rate: int) -> None:
    import librosa

    for window, bands in MEL_SCALES:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Empty filters")
            expected = librosa.filters.mel(sr=sample_rate, n_fft=window, n_mels=bands, dtype=np.float64)
        actual = mel_filter_bank(sample_rate, window, bands).numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12 * expected.max())


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 500, 1023, 1024, 1025, 2049, 5000])
def test_ms_mel_of_any_length_is_its_definition(samples: int) -> None:
    reference, decoded = noise(1, 1, samples), noise(1, 1, samples, seed=1)
    expected = plain_ms_mel(reference[0, 0].numpy(), decoded[0, 0].numpy(), 16000)
    assert ms_mel(reference.double(), decoded.double(), 16000).item() == pytest.approx(expected, abs=1e-12)
    # A few samples, reflected again and again, have a line spectrum: between the lines float32 holds nothing
    # but the rounding of the machine's Fourier transform, and its logarithm counts.
    rounding = 1e-5 if samples >= 500 else 1e-4
    assert ms_mel(reference, decoded, 16000).item() == pytest.approx(expected, abs=rounding)
    assert ms_mel(reference, reference, 16000).item() == 0


def test_ms_mel_of_a_gain_is_known() -> None:
    # Far above the floor, a gain of 10 moves every log10 by 1: 7 in all.
    reference = 1000 * noise(1, 1, 20000)
    assert ms_mel(reference, 10 * reference, RATE).item() == pytest.approx(7, abs=1e-4)


def test_ms_mel_of_silence_is_the_distance_to_the_floor() -> None:
    silence = torch.zeros(1, 1, 4000)
    assert ms_mel(silence, silence, RATE).item() == 0
    spectra = log_mel_spectra(silence, RATE)
    assert all((part == -5).all() for part in spectra)
    expected = sum(float((part + 5).abs().mean()) for part in log_mel_spectra(noise(1, 1, 4000), RATE))
    assert ms_mel(silence, noise(1, 1, 4000), RATE).item() == pytest.approx(expected, rel=1e-5)


def test_ms_mel_is_symmetric_and_averages_channels() -> None:
    reference, decoded = noise(3, 2, 9000), noise(3, 2, 9000, seed=1)
    both = ms_mel(reference, decoded, RATE)
    torch.testing.assert_close(both, ms_mel(decoded, reference, RATE), atol=1e-6, rtol=0)
    each = [ms_mel(reference[:, [c]], decoded[:, [c]], RATE) for c in range(2)]
    torch.testing.assert_close(both, (each[0] + each[1]) / 2, atol=1e-6, rtol=0)


@pytest.mark.parametrize("distance", [lambda r, d: ms_mel(r, d, RATE), si_sdr], ids=["ms_mel", "si_sdr"])
def test_an_item_does_not_depend_on_the_rest_of_its_batch(
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, decoded = noise(5, 1, 30000), noise(5, 1, 30000, seed=1)
    together = distance(reference, decoded)
    alone = torch.cat([distance(reference[[i]], decoded[[i]]) for i in range(5)])
    assert torch.equal(together, alone)  # the same bits: a resumed run ends in the same bytes
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(distance(reference[order], decoded[order]), alone[order])
    monkeypatch.setattr(spectra, "_BLOCK_CPU", 4096)  # frames in many blocks
    torch.testing.assert_close(distance(reference, decoded), together, atol=1e-6, rtol=0)


def test_spectra_may_be_kept() -> None:
    reference, decoded = noise(3, 2, 20000), noise(3, 2, 20000, seed=1)
    kept = mel_reference(reference, RATE)
    assert [tuple(part.shape) for part in kept.spectra] == [
        (3, 2, bands, 1 + 20000 // (window // 4)) for window, bands in MEL_SCALES
    ]
    assert torch.equal(ms_mel(kept, decoded, RATE), ms_mel(reference, decoded, RATE))
    assert ms_mel(kept, reference, RATE).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="do not belong"):
        ms_mel(kept, decoded[..., :-100], RATE)


def test_ms_mel_is_not_weakened_by_autocast_or_half_precision_input() -> None:
    reference, decoded = noise(2, 1, 5000), noise(2, 1, 5000, seed=1)
    expected = ms_mel(reference, decoded, RATE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ms_mel(reference, decoded, RATE), expected)
    halves = reference.half(), decoded.half()
    assert torch.equal(ms_mel(*halves, RATE), ms_mel(halves[0].float(), halves[1].float(), RATE))


def test_ms_mel_gradient_is_that_of_finite_differences() -> None:
    # Also after a first use under inference_mode, whose tensors no gradient could flow through.
    spectra._constants.cache_clear()
    reference, decoded = noise(1, 1, 40).double(), noise(1, 1, 40, seed=1).double()
    with torch.inference_mode():
        ms_mel(reference, decoded, 16000)
    assert torch.autograd.gradcheck(lambda x: ms_mel(reference, x, 16000), decoded.requires_grad_())


@pytest.mark.parametrize("reference", [torch.zeros(1, 1, 3000), noise(1, 1, 3000)], ids=["silence", "noise"])
def test_ms_mel_gradient_is_finite_in_silence(reference: torch.Tensor) -> None:
    decoded = torch.zeros(1, 1, 3000)
    decoded[..., :1000] = noise(1000)
    decoded.requires_grad_()
    ms_mel(reference, decoded, RATE).backward()
    assert decoded.grad is not None and decoded.grad.isfinite().all() and decoded.grad.any()
    still = torch.zeros(1, 1, 3000, requires_grad=True)
    ms_mel(reference, still, RATE).backward()
    assert still.grad is not None and not still.grad.any()


def test_all_is_computed_where_the_signals_are(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever needed a value on the CPU, or mixed devices, would fail on this one, which has no autocast.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    reference, decoded = torch.empty(3, 2, 9000, device="meta"), torch.empty(3, 2, 9000, device="meta")
    kept = mel_reference(reference, RATE)
    for found in (
        ms_mel(reference, decoded, RATE),
        ms_mel(kept, decoded, RATE),
        si_sdr(reference, decoded),
    ):
        assert found.device.type == "meta" and found.shape == (3,)


@pytest.mark.parametrize("rate", [8000, RATE])
def test_ms_mel_with_a_gradient_is_that_without(rate: int) -> None:
    # Two implementations: NumPy has no gradient, and torch is slower.
    reference, decoded = noise(3, 2, 9000), noise(3, 2, 9000, seed=1)
    reference[0, :, 2000:6000] = decoded[0, :, 4000:8000] = 0
    decoded[2, 1] *= 1e-4
    expected = ms_mel(reference, decoded, rate)
    found = ms_mel(reference, decoded.clone().requires_grad_(), rate)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-6, atol=0)
    assert ms_mel(reference, reference.clone().requires_grad_(), rate).tolist() == [0, 0, 0]


@pytest.mark.parametrize("db", [0, 25, 69.9, 70.1, 100])
@pytest.mark.parametrize("offset", [0, 0.3, 30])
def test_si_sdr_is_that_of_extended_precision(db: float, offset: float) -> None:
    reference = noise(1, 2, 140_000) + offset
    decoded = 0.5 * reference + 10 ** (-db / 20) * noise(1, 2, 140_000, seed=1) - 2 * offset
    r, d = (
        (signal - signal.mean(-1, keepdims=True)).ravel()
        for signal in (part[0].numpy().astype(np.longdouble) for part in (reference, decoded))
    )
    target = (r @ d) / (r @ r) * r
    expected = float(10 * np.log10((target @ target) / ((target - d) @ (target - d))))
    assert si_sdr(reference, decoded).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("db", [-30, 0, 20, 60, 110, 150])
def test_si_sdr_of_orthogonal_noise_is_known(db: float) -> None:
    reference = remove_mean(noise(1, 1, 5000))
    error = remove_mean(noise(1, 1, 5000, seed=1))
    error -= (error * reference).sum() / reference.square().sum() * reference
    error *= reference.norm() / error.norm() * 10 ** (-db / 20)
    assert si_sdr(reference, reference + error).item() == pytest.approx(db, abs=1e-3)
    # Neither gain nor polarity nor a constant matter.
    assert si_sdr(reference, -7.3 * (reference + error) + 2).item() == pytest.approx(db, abs=1e-2)
    assert si_sdr(0.01 * reference - 3, reference + error).item() == pytest.approx(db, abs=1e-2)


def test_si_sdr_is_infinite_for_identical_signals() -> None:
    for samples in [2, 3, 17, 1000, 4097, 44100, 65537]:
        reference = noise(2, 2, samples, seed=samples) + 0.01
        assert si_sdr(reference, reference.clone()).tolist() == [math.inf] * 2
        assert si_sdr(reference, -0.25 * reference).tolist() == [math.inf] * 2
    assert si_sdr(reference, 0.3 * reference).min() > 130  # what float32 leaves of it


def test_si_sdr_of_nothing_in_common_is_minus_infinity() -> None:
    reference, decoded = torch.tensor([[[1.0, -1.0, 0.0, 0.0]]]), torch.tensor([[[0.0, 0.0, 1.0, -1.0]]])
    assert si_sdr(reference, decoded).tolist() == [-math.inf]


def test_si_sdr_of_silence_is_not_a_number() -> None:
    signal = noise(1, 1, 1000)
    for constant in (0.0, 0.1, -1.0):
        silence = torch.full((1, 1, 1000), constant)
        assert si_sdr(silence, signal).isnan().all()
        assert si_sdr(signal, silence).isnan().all()
        assert si_sdr(silence, silence).isnan().all()


def test_si_sdr_takes_the_channels_as_one_vector() -> None:
    reference, error = noise(1, 1, 8000), 0.01 * noise(1, 1, 8000, seed=1)
    mono = si_sdr(reference, reference + error).item()
    twice = reference.expand(1, 2, -1)
    assert si_sdr(twice, twice + error).item() == pytest.approx(mono, abs=1e-9)
    # One silent channel changes nothing ...
    silent = torch.cat([reference, torch.zeros_like(reference)], 1)
    decoded = torch.cat([reference + error, torch.zeros_like(reference)], 1)
    assert si_sdr(silent, decoded).item() == pytest.approx(mono, abs=1e-9)
    # ... and a balance of 1 : g counts as distortion: the ratio is (1 + g)^2 / (1 - g)^2.
    balance = torch.tensor([1.0, 0.5])[None, :, None]
    assert si_sdr(twice, balance * twice).item() == pytest.approx(20 * math.log10(1.5 / 0.5), abs=1e-5)


def test_views_are_as_good_as_copies() -> None:
    reference, decoded = noise(2, 1, 6000)[..., 3:], noise(2, 1, 6000, seed=1)[..., :-3]
    copies = reference.contiguous().clone(), decoded.contiguous().clone()
    assert torch.equal(si_sdr(reference, decoded), si_sdr(*copies))
    assert torch.equal(ms_mel(reference, decoded, RATE), ms_mel(*copies, RATE))
    assert torch.equal(copies[0], reference)


@pytest.mark.parametrize(
    ("reference", "decoded"), [((1, 1, 9), (1, 1, 8)), ((1, 2, 9), (1, 1, 9)), ((9,), (9,)), ((1, 1, 0),) * 2]
)
def test_wrong_shapes_are_refused(reference: tuple[int, ...], decoded: tuple[int, ...]) -> None:
    for distance in (si_sdr, lambda r, d: ms_mel(r, d, RATE)):
        with pytest.raises(ValueError, match=r"differ in shape|must be \(batch, channels, samples\)"):
            distance(torch.ones(reference), torch.ones(decoded))


# Distances of short-time spectra


def plain_spectra(signal: np.ndarray, window: int) -> np.ndarray:
    """Magnitudes (frames, bins) by SciPy, which scales by the window's sum and pads as it is told."""
    padded = np.pad(signal.astype(np.float64), window // 2, mode="reflect")
    hann = get_window("hann", window)
    _, _, spectra = stft(
        padded, window=hann, nperseg=window, noverlap=3 * window // 4, boundary=None, padded=False
    )
    return np.abs(spectra.T) * hann.sum()


def plain_logs(signal: np.ndarray, window: int) -> np.ndarray:
    return np.log10(np.maximum(plain_spectra(signal, window), 1e-5) ** 2)


def test_stft_distance_and_lsd_are_those_of_scipy(
    golden: tuple[list[dict[str, float]], torch.Tensor, torch.Tensor],
) -> None:
    _, reference, decoded = golden
    reference, decoded = reference[::6, :, :60001], decoded[::6, :, :60001]
    expected_stft, expected_lsd = [], []
    for r, d in zip(reference[:, 0].numpy(), decoded[:, 0].numpy(), strict=True):
        parts = 0.0
        for window in (2048, 512):
            parts += np.abs(plain_spectra(r, window) - plain_spectra(d, window)).mean()
            parts += np.abs(plain_logs(r, window) - plain_logs(d, window)).mean()
        expected_stft.append(parts)
        expected_lsd.append(np.sqrt(np.square(plain_logs(r, 2048) - plain_logs(d, 2048)).mean(1)).mean())
    # Bins at the floor of 1e-5 are rounding in float32.
    assert stft_distance(reference, decoded).tolist() == pytest.approx(expected_stft, rel=2e-4)
    assert log_spectral_distance(reference, decoded).tolist() == pytest.approx(expected_lsd, rel=2e-4)
    exactly = stft_distance(reference.double(), decoded.double())
    assert exactly.tolist() == pytest.approx(expected_stft, rel=1e-9)
    exactly = log_spectral_distance(reference.double(), decoded.double())
    assert exactly.tolist() == pytest.approx(expected_lsd, rel=1e-9)


def test_a_gain_is_its_logarithm_in_every_bin() -> None:
    signal = noise(2, 2, 9000).double()
    assert log_spectral_distance(signal, 0.5 * signal).tolist() == pytest.approx([2 * math.log10(2)] * 2)
    apart = stft_distance(signal, 0.5 * signal) - stft_distance(signal, 0.25 * signal) * (0.5 / 0.75)
    # Magnitudes are proportional to 1 - gain and cancel; two windows' logarithms remain.
    logs = 2 * 2 * (math.log10(2) - math.log10(4) * 0.5 / 0.75)
    assert apart.tolist() == pytest.approx([logs] * 2)


@pytest.mark.parametrize("distance", [stft_distance, log_spectral_distance])
def test_spectral_distances_of_equal_silent_short_or_broken_signals(
    distance: Callable[..., torch.Tensor],
) -> None:
    signal = noise(3, 2, 5000)
    assert distance(signal, signal.clone()).tolist() == [0] * 3
    assert distance(torch.zeros(1, 1, 300), torch.zeros(1, 1, 300)).tolist() == [0]
    assert torch.isfinite(distance(noise(1, 1, 1), noise(1, 1, 1, seed=1))).all()
    other = noise(3, 2, 5000, seed=1)
    together = distance(signal, other)
    assert together.tolist() == distance(other, signal).tolist()
    assert together[1:].tolist() == pytest.approx(distance(signal[1:], other[1:]).tolist(), rel=1e-6)
    other[0, 1, 7] = math.nan
    assert distance(signal, other).isnan().tolist() == [True, False, False]
    with pytest.raises(ValueError, match="differ in shape"):
        distance(signal, other[:, :1])


@pytest.mark.parametrize("distance", [stft_distance, log_spectral_distance])
def test_spectral_distances_in_blocks(
    distance: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    signal, other = noise(2, 1, 20000), noise(2, 1, 20000, seed=1)
    whole = distance(signal, other)
    monkeypatch.setattr(spectra, "_BLOCK_CPU", 3000)
    assert distance(signal, other).tolist() == pytest.approx(whole.tolist(), rel=1e-6)
