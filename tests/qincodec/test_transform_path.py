"""The transform path against what a transform coder must do, and the autoencoder that has one."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch

from qincodec import architectures, transform_path
from qincodec.codec import Qincodec, load
from qincodec.core.errors import UserError
from qincodec.transform_path import (
    NOISE_FRAMES,
    TransformAutoencoder,
    TransformConfig,
    envelope_triangles,
    noise_spectra,
    steady_noise,
)

RATE, HOP = 44_100, 256


@pytest.fixture(autouse=True)
def _quick_fit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steadying the noise takes seconds, and only its own test looks at how steady it gets."""
    if "steady" not in request.node.name:
        monkeypatch.setattr(transform_path, "_STEPS", 1)


def build(latent_dim: int, sample_rate: int = RATE, envelope_latents: int = 0) -> TransformAutoencoder:
    torch.manual_seed(0)
    config = TransformConfig(
        latent_dim=latent_dim,
        dim=32,
        intermediate_dim=64,
        num_layers=1,
        sample_rate=sample_rate,
        envelope_latents=envelope_latents,
    )
    return TransformAutoencoder(config).eval()


def without_noise(model: TransformAutoencoder) -> TransformAutoencoder:
    with torch.no_grad():
        _, log_magnitude, _, _ = model.head.bias.split(model.config.head_parts)
        log_magnitude.fill_(-40.0)
    return model


def snr(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """dB, without the outermost frames, which nothing overlaps."""
    reference, estimate = reference[:, 2 * HOP : -2 * HOP], estimate[:, 2 * HOP : -2 * HOP]
    return float(10 * (reference.square().sum() / (reference - estimate).square().sum()).log10())


def tone(frequency: float, seconds: float = 0.5) -> torch.Tensor:
    t = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    return (0.3 * torch.sin(2 * math.pi * frequency * t)).float()[None]


@torch.no_grad()
def test_with_as_many_latents_as_samples_nothing_is_lost() -> None:
    """A modified discrete cosine transform is orthonormal; a periodic window is half a sample off."""
    model = without_noise(build(HOP, sample_rate=6000))  # all of its bins are in the waveform's band
    torch.manual_seed(1)
    audio = 0.1 * torch.randn(2, 20 * HOP)
    assert snr(audio, model(audio)) > 40
    model.fit_transform([audio])
    assert snr(audio, model(audio)) > 40


@torch.no_grad()
def test_it_begins_as_a_low_pass_filter() -> None:
    model = without_noise(build(32))  # 32 of 256 coefficients: up to 2756 Hz
    assert snr(tone(1000), model(tone(1000))) > 30
    assert snr(tone(8000), model(tone(8000))) < 0.1


@torch.no_grad()
def test_fitted_to_a_tone_it_codes_that_tone() -> None:
    model = without_noise(build(8))
    model.fit_transform([tone(2500), tone(2500, 0.2)])
    assert snr(tone(2500), model(tone(2500))) > 25
    assert snr(tone(1000), model(tone(1000))) < 1


@torch.no_grad()
def test_above_the_waveforms_band_it_fits_and_codes_nothing() -> None:
    model = without_noise(build(8))
    model.fit_transform([tone(1000) + tone(8000)])
    assert snr(tone(1000), model(tone(1000))) > 25
    assert snr(tone(1000), model(tone(1000) + tone(8000))) > 25


@torch.no_grad()
def test_the_band_of_the_waveform_is_the_configurations() -> None:
    shape = architectures.to_dict(build(16).config) | {"latent_dim": 64, "waveform_to_hz": 9000}
    torch.manual_seed(0)
    model = without_noise(architectures.autoencoder(architectures.from_dict(shape)))
    assert architectures.to_dict(model.config) == shape
    model.fit_transform([tone(1000) + tone(8000)])
    both = tone(1000) + tone(8000)
    assert snr(both, model(both)) > 25


@torch.no_grad()
def test_parts_are_all_audio_and_that_in_the_band_of_the_waveform() -> None:
    model = build(16, envelope_latents=4)
    latents = torch.randn(2, 30, 16)
    audio, waveform = model.decode_parts(latents, first_frame=5)
    torch.testing.assert_close(audio, model.decode(latents, first_frame=5))
    # Against filters of the whole, by a library, well below and well above the band's end.
    below, above = (
        scipy.signal.butter(8, hz, kind, fs=RATE, output="sos")
        for hz, kind in ((2500, "low"), (5000, "high"))
    )

    def power(signal: torch.Tensor, filters: np.ndarray) -> float:
        return float(np.square(scipy.signal.sosfiltfilt(filters, signal.numpy())[:, 1000:-1000]).mean())

    assert power(audio - waveform, below) < 1e-4 * power(audio, below)
    assert power(waveform, above) < 1e-3 * power(audio, above)


@torch.no_grad()
def test_the_fit_keeps_the_most_power_that_so_many_coefficients_can() -> None:
    """Against singular values of the same coefficients, by NumPy from their definition."""
    torch.manual_seed(2)
    shaped = torch.nn.functional.conv1d(torch.randn(1, 1, 60 * HOP), torch.randn(1, 1, 64)).squeeze(1) / 30
    model = build(16)
    model.fit_transform([shaped])
    spectrum = model.analysis(shaped)[0]
    spectrum[:, 39:] = 0  # from 3400 Hz on
    frames = np.fft.irfft(spectrum.numpy(), n=2 * HOP)
    n, k = np.arange(2 * HOP)[:, None], np.arange(HOP)
    basis = np.sqrt(2 / HOP) * np.cos(np.pi / HOP * (n + 0.5 + HOP / 2) * (k + 0.5))
    coefficients = frames @ basis
    power = np.square(coefficients).mean(1, keepdims=True)
    coefficients = coefficients / (np.sqrt(power) + 0.005) ** 0.65
    levels = np.linalg.svd(coefficients, compute_uv=False)[:16]
    strongest = np.square(levels).sum()
    low = spectrum[:, :39]
    latents = torch.cat([low.real, low.imag], -1) @ model.transform_analysis.matrix / 20
    levelled = latents.numpy() / (np.sqrt(power) + 0.005) ** 0.65
    covariance = levelled.T @ levelled  # whitened by half: powers of the latents are levels of the components
    expected = np.diag(levels / levels.sum())
    np.testing.assert_allclose(covariance / covariance.trace(), expected, atol=1e-4)
    lost = np.linalg.lstsq(levelled, coefficients)[1].sum()
    assert np.square(coefficients).sum() - lost == pytest.approx(strongest, rel=1e-4)
    # And the synthesis is the way back: of what it gives, the analysis makes the same latents.
    real, imaginary = (latents @ model.transform_synthesis.matrix).chunk(2, dim=-1)
    again = torch.cat([real, imaginary], -1) @ model.transform_analysis.matrix / 20 / 2
    assert float((again - latents).square().sum() / latents.square().sum()) < 0.01


@torch.no_grad()
def test_levels_are_companded_and_come_back() -> None:
    model = without_noise(build(32))
    torch.manual_seed(3)
    audio = 0.5 * torch.randn(1, 20 * HOP)
    loud, quiet = model.encode(audio), model.encode(0.1 * audio)
    torch.testing.assert_close(quiet, 0.1 ** (0.35 * 0.75) * loud, rtol=1e-2, atol=1e-2)
    ratio = model(0.1 * audio).square().mean() / model(audio).square().mean()
    assert float(ratio.sqrt()) == pytest.approx(0.1, rel=1e-2)


@torch.no_grad()
def test_chunks_are_the_whole_signal() -> None:
    model = build(32)
    torch.manual_seed(4)
    for parameter in model.parameters():
        parameter += 0.02 * torch.randn_like(parameter)
    audio = torch.randn(2, 4500 * HOP) * 0.1  # longer than the noise before it repeats
    latents = model.encode(audio)
    pieces = torch.cat(list(model.encode_blocks(audio.split(10_001, dim=1), chunk_frames=600)), dim=1)
    torch.testing.assert_close(pieces, latents, rtol=1e-4, atol=1e-4)
    whole = model.decode(latents)
    pieces = torch.cat(list(model.decode_blocks(latents.split(77, dim=1), chunk_frames=600)), dim=1)
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_its_noise_does_not_repeat_from_frame_to_frame() -> None:
    """Constant latents make lines at multiples of the frame rate only if phases follow from them."""
    model = build(32)
    audio = model.decode(torch.zeros(1, 800, 32))[0]
    blocks = audio[: 790 * HOP].view(-1, HOP)[10 : 10 + NOISE_FRAMES]
    spectra = torch.fft.rfft(blocks)
    coherent = spectra.mean(0).abs().square() / spectra.abs().square().mean(0)  # of a buzz 1, of noise 1 / n
    assert float(coherent.mean()) < 2 / len(blocks)
    assert float(coherent.max()) < 12 / len(blocks)  # e^-12 each for Gaussian noise


@torch.no_grad()
def test_even_magnitudes_give_the_noise_itself() -> None:
    """Without the flutter that frames of unrelated phases have, wherever in the signal they stand."""
    model = build(32)
    for parameter in (model.head.weight, model.head.bias):
        parameter.split(model.config.head_parts)[1].fill_(0.0)
    level = math.sqrt(float(model.window.square().sum()))
    for first in (0, 200, 3 * NOISE_FRAMES + 5, torch.tensor(200)):
        audio = model.decode(torch.zeros(2, 2 * NOISE_FRAMES, 32), first_frame=first)
        expected = model.noise.roll(-int(first) * HOP).repeat(2)[None].expand(2, -1) / level
        inner = slice(HOP, -HOP)
        torch.testing.assert_close(audio[:, inner], expected[:, inner], rtol=1e-4, atol=1e-6)


def shaped_noise(seconds: float, seed: int, db_per_octave: float) -> torch.Tensor:
    white = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    spectrum = np.fft.rfft(white)
    octaves = np.log2(np.fft.rfftfreq(len(white), 1 / RATE).clip(100) / 4000)
    return torch.from_numpy(np.fft.irfft(spectrum * 10 ** (db_per_octave * octaves / 20))).float()[None] / 10


def band_levels(audio: torch.Tensor) -> np.ndarray:
    """dB in thirds of an octave from 4 to 16 kHz, by Welch's method."""
    hz, density = scipy.signal.welch(audio[0].numpy(), RATE, nperseg=2048)
    edges = 4000 * 2 ** (np.arange(7) / 3)
    return np.array(
        [10 * np.log10(density[(hz >= a) & (hz < b)].mean()) for a, b in itertools.pairwise(edges)]
    )


@torch.no_grad()
@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("db_per_octave", [-12, 0, 9])
def test_levels_of_any_colour_pass_before_anything_is_learnt(fitted: bool, db_per_octave: float) -> None:
    model = build(36, envelope_latents=20)
    if fitted:  # to other colours, which is what it must bear
        model.fit_transform([shaped_noise(1, 1, -6), 0.01 * shaped_noise(1, 2, 0)])
    for gain in (1.0, 0.01):
        audio = gain * shaped_noise(2, 3, db_per_octave)
        np.testing.assert_allclose(band_levels(model(audio)), band_levels(audio), atol=1.5)


@torch.no_grad()
def test_latents_of_levels_are_principal_components() -> None:
    """Against NumPy's, of levels from their definition; with all of them nothing of the levels is lost."""
    model = build(12, envelope_latents=8)
    sounds = [shaped_noise(1, seed, slope) for seed, slope in ((1, -9), (2, 0), (3, -4))]
    model.fit_transform(sounds)
    power = torch.cat([model.analysis(sound)[0] for sound in sounds]).abs().square().numpy()
    first = round(1600 * 512 / RATE)
    octaves = np.log(np.arange(first, 257) / first)
    middles = np.linspace(0, octaves[-1], 8)
    weights = np.stack([np.interp(octaves, middles, np.eye(8)[k]) for k in range(8)], 1)
    levels = np.log(power[:, first:] @ (weights / weights.sum(0)) + 3e-4**2) / 2
    latents = torch.cat([model.encode(sound)[0] for sound in sounds])[:, 4:].numpy()
    centred = levels - levels.mean(0)
    strongest = np.square(np.linalg.svd(centred, compute_uv=False)) / len(centred)
    np.testing.assert_allclose(latents.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(latents.T, bias=True) * 16, np.diag(strongest), atol=1e-3)
    again = model.envelope_synthesis(torch.from_numpy(latents)).numpy()
    np.testing.assert_allclose(again, levels @ weights.T, atol=1e-3)


def test_bands_share_every_bin() -> None:
    triangles = envelope_triangles(RATE, 1024, 20)
    assert triangles.shape == (513 - 37, 20)  # from 1600 Hz on
    torch.testing.assert_close(triangles.sum(1), torch.ones(476))
    assert bool((triangles.sum(0) > 0).all())


def test_noise_spectra_are_those_of_the_analysis() -> None:
    model = build(16)
    inner = slice(NOISE_FRAMES, 2 * NOISE_FRAMES)
    spectra = model.analysis(model.noise.repeat(3)[None])[0, inner] / model.window.square().sum().sqrt()
    torch.testing.assert_close(noise_spectra(model.noise, model.window), spectra, rtol=1e-4, atol=1e-4)
    assert float(spectra.abs().square().mean()) == pytest.approx(1, rel=0.01)


@pytest.mark.slow
def test_steady_noise_is_white_and_fluctuates_less() -> None:
    """By windows and bands that it was not made for: 700 samples under a Hamming window, bands of 600 Hz."""

    def fluctuation(noise: torch.Tensor) -> tuple[float, np.ndarray]:
        _, _, spectrum = scipy.signal.stft(noise.numpy(), nperseg=700, window="hamming", boundary=None)
        bands = np.square(np.abs(spectrum[5:345])).reshape(34, 10, -1).mean(1)
        return float(np.log10(bands).std(1).mean()), bands.mean(1)

    torch.manual_seed(5)
    noise = torch.randn(2**15)
    steady = steady_noise(noise, RATE)
    assert float(steady.square().mean()) == pytest.approx(1, rel=1e-5)
    before, _ = fluctuation(noise)
    after, powers = fluctuation(steady)
    assert after < 0.6 * before
    assert powers.max() < 1.25 * powers.min()  # 1 dB
    assert not steady.requires_grad
    torch.testing.assert_close(steady, steady_noise(noise, RATE))
    with torch.no_grad():  # as a model is fitted
        torch.testing.assert_close(steady, steady_noise(noise, RATE))


@pytest.mark.parametrize("bias", [0.0, 1e4, -1e4])
def test_gradients_are_finite_at_silence_and_at_the_limits(bias: float) -> None:
    model = build(16)
    with torch.no_grad():
        model.head.bias += bias
    latents = torch.zeros(1, 5, 16, requires_grad=True)
    model.decode(latents).square().sum().backward()
    assert bool(latents.grad.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    model.encode(torch.zeros(1, 2000)).square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_a_saved_model_decodes_to_the_same(tmp_path: Path) -> None:
    model = build(16)
    Qincodec(model).save(tmp_path / "model")
    again = load(tmp_path / "model").autoencoder
    latents = torch.randn(1, 30, 16)
    with torch.no_grad():
        torch.testing.assert_close(again.decode(latents), model.decode(latents), rtol=1e-5, atol=1e-6)
        later = model.decode(latents[:, 7:], first_frame=7)
        torch.testing.assert_close(
            later[:, 8 * HOP :], model.decode(latents)[:, 15 * HOP :], rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"transform_path": 1}, "true or false"),
        ({"latent_dim": 40}, r"at most 39 \(bins below 3400 Hz\)"),
        ({"envelope_latents": -1}, "from 0 to 4096, got -1"),
        ({"envelope_latents": 32}, "at least 1"),
        ({"envelope_latents": 300, "latent_dim": 310}, r"at most 238 \(bins above 1600 Hz\)"),
        ({"envelope_latents": 8, "transform_path": False}, "set transform_path"),
        ({"waveform_to_hz": 0}, "above 0 and at most 384000 Hz, got 0"),
        ({"waveform_to_hz": "6k"}, "got '6k'"),
        ({"waveform_to_hz": True}, "got True"),
        ({"waveform_to_hz": math.nan}, "got nan"),
        ({"latent_dim": 80, "waveform_to_hz": 6000}, r"at most 70 \(bins below 6000 Hz\)"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict, what: str) -> None:
    with pytest.raises(UserError, match=what):
        architectures.from_dict({"transform_path": True} | changes)
