"""Losses and discriminators against closed forms."""

import itertools
import math

import pytest
import torch

from qincodec import architectures
from qincodec.training.adversarial import Generator, draw_codebooks
from qincodec.training.data import latent_noise
from qincodec.training.discriminators import BANDS, PERIODS, STFT_WINDOWS, Discriminators
from qincodec.training.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
    level_loss,
    waveform_loss,
)


def layers(*values: float, size: int = 3) -> list[torch.Tensor]:
    return [torch.full((2, 1, size), float(value)) for value in values]


def test_least_squares_by_hand():
    real, fake = [layers(9, 0.5), layers(9, 1)], [layers(9, 0.25), layers(9, 0)]
    assert discriminator_loss(real, fake) == pytest.approx(0.5**2 + 0.25**2 + 0 + 0)
    assert adversarial_loss(fake) == pytest.approx(0.75**2 + 1)


def test_features_leave_the_verdict_out_and_real_gets_no_gradient():
    real = [[part.requires_grad_() for part in layers(1, 2, 100)]]
    fake = [[part.requires_grad_() for part in layers(3, 2.5, 0)]]
    loss = feature_matching_loss(real, fake)
    assert loss.item() == pytest.approx(2 + 0.5)
    loss.backward()
    assert all(part.grad is None for part in real[0])
    assert fake[0][0].grad is not None
    assert fake[0][2].grad is None


@pytest.mark.parametrize("snr", [0.0, 6.0, 20.0])
def test_waveform_loss_is_the_snr(snr):
    torch.manual_seed(0)
    reference, noise = torch.randn(2, 3, 8000)
    noise *= (reference.norm(dim=-1) / noise.norm(dim=-1))[:, None] * 10 ** (-snr / 20)
    expected = torch.full((3,), 10 ** (-snr / 20))
    torch.testing.assert_close(waveform_loss(reference, reference + noise), expected, rtol=1e-3, atol=0)


def test_the_loss_on_the_waveform_leaves_noise_above_it_alone():
    """No gradient of it reaches that noise, which it would only ever make quieter."""
    torch.manual_seed(0)
    shape = {"latent_dim": 16, "dim": 32, "intermediate_dim": 64, "num_layers": 1, "transform_path": True}
    model = architectures.autoencoder(architectures.from_dict(shape))
    audio = torch.randn(2, 20 * model.config.hop_length) / 10
    made = Generator(model)(audio)
    torch.testing.assert_close(made.audio, model(audio))
    waveform_loss(audio, made.waveform).mean().backward()
    gain, of_noise, *_ = model.head.weight.grad.split(model.config.head_parts)
    assert gain.any()
    bins = model.config.waveform_bins
    assert of_noise[:bins].any()
    assert not of_noise[bins + 1 :].any()  # magnitudes are smoothed over a neighbour


@pytest.mark.slow
def test_larger_latents_do_not_outgrow_their_noise():
    """At the level of the powers' geometric mean, noise has that mean's value and gradient."""
    torch.manual_seed(0)
    latents = (torch.randn(1, 7, 8) * torch.linspace(0.2, 2, 8)).requires_grad_()
    generator = Generator(architectures.autoencoder(architectures.SIZES["tiny"]))
    assert not generator._noise_level(latents).any()  # nothing is known yet
    generator.latent_power.copy_(latents.detach().square().mean((0, 1)))
    level = generator._noise_level(latents)
    powers = latents.square().mean((0, 1))
    expected = (powers + 0.01 * powers.detach().mean()).prod() ** (1 / 16)
    assert level.item() == pytest.approx(expected.item())
    torch.testing.assert_close(
        torch.autograd.grad(level.sum(), latents)[0], torch.autograd.grad(expected, latents)[0]
    )


def test_waveform_loss_has_a_gradient_in_silence():
    silent = torch.zeros(1, 1000, requires_grad=True)
    waveform_loss(torch.zeros(1, 1000), silent).sum().backward()
    assert torch.isfinite(silent.grad).all()


@pytest.mark.parametrize("db", [-6.0, 1.5])
def test_level_loss_of_a_gain_is_its_tenth_in_db(db):
    torch.manual_seed(0)
    reference = torch.randn(3, 22_050)
    loss = level_loss(reference, reference * 10 ** (db / 20), 44_100)
    torch.testing.assert_close(loss, torch.full((3,), abs(db) / 10), rtol=1e-3, atol=0)


def test_level_loss_wants_noise_of_the_right_power():
    """Where the loss on mel magnitudes, of noise that is steadier than its reference, wants it quieter."""
    torch.manual_seed(0)
    reference, other = 0.1 * torch.randn(2, 4, 44_100)
    gains = [-3.0, -1.5, 0.0, 1.5]
    losses = [float(level_loss(reference, other * 10 ** (db / 20), 44_100).mean()) for db in gains]
    assert min(losses) == losses[2]
    assert losses[2] < 0.12  # 1.2 dB, of bands of a few bins and a tenth of a second


@pytest.mark.parametrize("samples", [8000, 300])
def test_level_loss_has_a_gradient_in_silence(samples):
    silent = torch.zeros(1, samples, requires_grad=True)
    level_loss(torch.zeros(1, samples), silent, 44_100).sum().backward()
    assert torch.isfinite(silent.grad).all()


def test_a_silent_estimate_counts_one():
    assert waveform_loss(torch.ones(1, 500), torch.zeros(1, 500)).item() == pytest.approx(1, abs=1e-3)


def conv_parameters(channels_in, channels_out, kernel):
    # Weight norm keeps a length per output channel beside the direction.
    return channels_out * channels_in * math.prod(kernel) + 2 * channels_out


def test_number_of_parameters_by_hand():
    """From the table of the discriminators: channels, kernels and bands as DAC publishes them."""
    widths = [1, 32, 128, 512, 1024, 1024]
    period = sum(conv_parameters(a, b, (5, 1)) for a, b in itertools.pairwise(widths))
    period += conv_parameters(1024, 1, (3, 1))
    band = (
        conv_parameters(2, 32, (3, 9)) + 3 * conv_parameters(32, 32, (3, 9)) + conv_parameters(32, 32, (3, 3))
    )
    stft = 5 * band + conv_parameters(32, 1, (3, 3))
    with torch.device("meta"):
        model = Discriminators()
    assert sum(p.numel() for p in model.parameters()) == len(PERIODS) * period + len(STFT_WINDOWS) * stft


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return Discriminators(0.0625).eval()


def test_layers_and_shapes(small):
    judged = small(torch.randn(2, 8192))
    assert [len(member) for member in judged] == [6] * len(PERIODS) + [5 * (len(BANDS) - 1) + 1] * 3
    for period, member in zip(PERIODS, judged, strict=False):
        assert all(layer.shape[0] == 2 and layer.shape[3] == period for layer in member)
        rows = -(-8192 // period)
        for layer in member[:4]:
            rows = (rows - 1) // 3 + 1
            assert layer.shape[2] == rows
    for window, member in zip(STFT_WINDOWS, judged[len(PERIODS) :], strict=True):
        assert member[0].shape[2] == 8192 // (window // 4) + 1  # centred frames
        # The first layers of the bands together see every bin once.
        assert sum(layer.shape[3] for layer in member[:-1:5]) == window // 2 + 1


def test_level_and_offset_tell_nothing(small):
    torch.manual_seed(1)
    audio = 0.1 * torch.randn(1, 8192)
    for a, b in zip(small(audio), small(5 * audio + 0.3), strict=True):
        torch.testing.assert_close(a[-1], b[-1], rtol=1e-3, atol=1e-4)


def test_an_item_does_not_depend_on_the_rest_of_its_batch(small):
    audio = torch.randn(3, 6000)
    alone, together = small(audio[1:2]), small(audio)
    for a, b in zip(alone, together, strict=True):
        torch.testing.assert_close(a[-1][0], b[-1][1], rtol=1e-4, atol=1e-5)


def test_silence_has_finite_losses(small):
    assert all(torch.isfinite(layer).all() for member in small(torch.zeros(1, 4096)) for layer in member)


def test_noise_belongs_to_the_crop():
    together = latent_noise([5, 6, 7], 4, 3, 0.5, seed=1)
    assert torch.equal(latent_noise([6], 4, 3, 0.5, seed=1)[0], together[1])
    assert not torch.equal(together, latent_noise([5, 6, 7], 4, 3, 0.5, seed=2))
    assert latent_noise([5], 4, 3, 0.0, seed=1) is None
    deviations = latent_noise(range(400), 64, 8, 0.5, seed=0).std((1, 2))
    # From half the level on. Standard errors: 0.004 of the mean, 0.008 of one deviation.
    assert deviations.mean() == pytest.approx(0.375, abs=0.016)
    assert 0.22 < deviations.min() < 0.27 and 0.48 < deviations.max() < 0.53


def test_every_number_of_codebooks_is_drawn():
    drawn = [draw_codebooks([2, 5, 9], seed=0, step=step) for step in range(600)]
    for n in (2, 5, 9):
        assert drawn.count(n) == pytest.approx(200, abs=60)
