"""The autoencoder against the paper's sizes, a Fourier transform written out, and itself in chunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qincodec import architectures
from qincodec.autoencoder import Autoencoder, _conv_frames
from qincodec.core.errors import UserError

torch.set_num_threads(1)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def lively(size: str = "tiny", seed: int = 0) -> Autoencoder:
    """Random weights large enough for every part of a signal to matter."""
    torch.manual_seed(seed)
    model = architectures.autoencoder(architectures.SIZES[size]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module")
def tiny() -> Autoencoder:
    return lively()


# ---- sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "millions"), [("paper-d16", 27.47), ("paper-d32", 27.53), ("paper-d64", 27.66)]
)
def test_parameter_counts_of_the_papers_sizes(size: str, millions: float) -> None:
    with torch.device("meta"):
        model = architectures.autoencoder(architectures.SIZES[size])
    assert parameters(model) / 1e6 == pytest.approx(millions, abs=0.005)
    assert parameters(model.encoder) == 14_489_088
    assert parameters(model.encoder.blocks[0]) == 1_580_544


def test_initial_weights_are_the_published_ones() -> None:
    torch.manual_seed(0)
    model = architectures.autoencoder(architectures.SIZES["small"])
    block = model.encoder.blocks[0]
    assert float(block.pwconv1.weight.detach().std()) == pytest.approx(
        0.0176, abs=3e-4
    )  # 0.02 cut off at 2 sigma
    assert float(block.pwconv1.weight.detach().abs().max()) <= 0.04
    assert torch.equal(block.pwconv1.bias, torch.zeros(768))
    assert torch.equal(block.gamma, torch.full((256,), 0.25))
    assert block.norm.eps == 1e-6


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"dim": 2.5}, "dim"),
        ({"num_layers": True}, "num_layers"),
        ({"hop_length": 255}, "even"),
        ({"depth": 3}, "depth"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict, what: str) -> None:
    with pytest.raises(UserError, match=what):
        architectures.from_dict(changes)


# ---- transform -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 2, 127, 128, 129, 255, 256, 257, 511, 513, 4999, 44_100])
def test_frames_and_identity_of_the_transform(tiny: Autoencoder, samples: int) -> None:
    audio = torch.from_numpy(np.random.default_rng(samples).uniform(-1, 1, (2, samples)).astype(np.float32))
    spectrum = tiny.analysis(audio)
    frames = -(-samples // 256)
    assert spectrum.shape == (2, frames, 257)
    assert tiny.num_frames(samples) == frames
    back = tiny.synthesis(spectrum)
    assert back.shape == (2, frames * 256)
    assert float((back[:, :samples] - audio).abs().max()) < 1e-5
    assert float(back[:, samples:].abs().max()) < 1e-5 if samples % 256 else True


def test_one_second_has_173_frames(tiny: Autoencoder) -> None:
    assert tiny.num_frames(44_100) == 173
    assert tiny.frame_rate == pytest.approx(172.266, abs=5e-4)


def test_identity_of_the_transform_over_ten_minutes(tiny: Autoencoder) -> None:
    audio = torch.rand(1, 600 * 44_100 + 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    back = tiny.synthesis(tiny.analysis(audio))
    assert float((back[:, : audio.shape[1]] - audio).abs().max()) < 1e-5


@pytest.mark.parametrize("samples", [1, 700, 1024])
def test_analysis_is_the_fourier_transform_of_padded_frames(tiny: Autoencoder, samples: int) -> None:
    audio = np.random.default_rng(0).standard_normal(samples)
    padded = np.pad(np.pad(audio, (0, -samples % 256)), 128, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(512)) / 512)
    expected = [kernel @ (window * padded[at : at + 512]) for at in range(0, len(padded) - 511, 256)]
    got = tiny.analysis(torch.from_numpy(audio[None].astype(np.float32)))[0].numpy()
    np.testing.assert_allclose(got, np.stack(expected), atol=2e-4)


def test_magnitudes_are_limited_to_100_and_the_head_is_magnitude_and_phase(tiny: Autoencoder) -> None:
    model = lively()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias[:257] = torch.linspace(-3, 9, 257)  # beyond log(100) = 4.6 at the end
        model.head.bias[257:] = torch.linspace(-7, 7, 257)
    with torch.no_grad():
        audio = model.decode(torch.randn(1, 5, 8))
    magnitude = torch.minimum(torch.linspace(-3, 9, 257).exp(), torch.tensor(100.0))
    phase = torch.linspace(-7, 7, 257)
    spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin()).expand(1, 5, -1)
    expected = model.synthesis(spectrum.contiguous())
    torch.testing.assert_close(audio, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("shape", [(0,), (100,), (1, 0), (1, 1, 100)])
def test_other_shapes_are_refused(tiny: Autoencoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        tiny.encode(torch.zeros(shape))


# ---- network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize("frames", [1, 3, 50])
def test_convolution_of_frames_is_conv1d(groups: int, frames: int) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(16, 16, 7, padding=3, groups=groups)
    x = torch.randn(2, frames, 16)
    torch.testing.assert_close(_conv_frames(conv, x), conv(x.transpose(1, 2)).transpose(1, 2))


def test_block_is_convnext(tiny: Autoencoder) -> None:
    block = tiny.decoder.blocks[0]
    x = torch.randn(2, 20, 32, generator=torch.Generator().manual_seed(1))
    y = F.conv1d(x.mT, block.dwconv.weight, block.dwconv.bias, padding=3, groups=32).mT
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    y = y * block.norm.weight + block.norm.bias
    y = y @ block.pwconv1.weight.T + block.pwconv1.bias
    y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
    y = y @ block.pwconv2.weight.T + block.pwconv2.bias
    torch.testing.assert_close(block(x), x + y * block.gamma, atol=1e-5, rtol=1e-5)


def test_shapes_and_gradients(tiny: Autoencoder) -> None:
    audio = 0.1 * torch.randn(3, 1000)
    latents = tiny.encode(audio)
    assert latents.shape == (3, 4, 8)
    assert tiny.decode(latents).shape == (3, 1024)
    out = tiny(audio)
    assert out.shape == audio.shape
    model = lively()
    model.train()(audio).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_rows_do_not_mix(tiny: Autoencoder) -> None:
    audio = 0.1 * torch.randn(2, 3000)
    with torch.no_grad():
        both = tiny.encode(audio)
        torch.testing.assert_close(both[1:], tiny.encode(audio[1:]), atol=1e-5, rtol=1e-4)


def test_receptive_field_is_the_one_stated(tiny: Autoencoder) -> None:
    assert tiny.context_frames == 6
    with torch.device("meta"):
        assert architectures.autoencoder(architectures.SIZES["paper-d32"]).context_frames == 27
    audio = 0.1 * torch.randn(1, 60 * 256, generator=torch.Generator().manual_seed(2))
    touched = audio.clone()
    touched[0, 30 * 256 + 128] += 1.0  # the middle of frame 30; frame 31 begins here, with a window of 0
    with torch.no_grad():
        changed = (tiny.encode(audio) - tiny.encode(touched)).abs().amax((0, 2)).nonzero().flatten()
    assert (int(changed.min()), int(changed.max())) == (30 - 6, 30 + 6)
    latents = torch.randn(1, 60, 8, generator=torch.Generator().manual_seed(3))
    other = latents.clone()
    other[0, 30] += 1.0
    with torch.no_grad():
        changed = (tiny.decode(latents) - tiny.decode(other)).abs()[0].nonzero().flatten()
    assert (30 - 7) * 256 <= int(changed.min()) < (30 - 6) * 256
    assert (30 + 7) * 256 <= int(changed.max()) < (30 + 8) * 256


def first_nan(x: torch.Tensor) -> int:
    """Sample or frame of (1, n) or (1, n, dim)."""
    return int(x.isnan().reshape(x.shape[1], -1).any(1).nonzero()[0])


@torch.no_grad()
@pytest.mark.parametrize(("size", "context", "latency"), [("small", 15, 16_384), ("paper-d32", 27, 14_336)])
def test_latency_is_how_far_back_nan_spreads(size: str, context: int, latency: int) -> None:
    """NaN reaches all that depends on it, however little; the widths, which do not matter, are small."""
    full = architectures.SIZES[size]
    with torch.device("meta"):
        assert architectures.autoencoder(full).latency_samples == latency
    model = architectures.autoencoder(dataclasses.replace(full, dim=8, intermediate_dim=8)).eval()
    hop, frame = full.hop_length, 2 * context + 3
    last = (frame + 1 + context) * hop + hop // 2 - 1  # that the frame's latent needs
    for at in (last - hop + 1, last - hop // 2, last, last + 1):
        audio = torch.zeros(1, 2 * frame * hop)
        audio[0, at] = torch.nan
        latents = model.encode(audio)
        assert first_nan(latents) == frame + (at > last)
        back = at - first_nan(model.decode(latents))
        assert back == latency - 1 if at == last else back < latency
    latents = torch.zeros(1, 2 * frame, full.latent_dim)
    latents[0, frame] = torch.nan
    assert first_nan(model.decode(latents)) == (frame - context) * hop - hop // 2


def test_frames_come_out_of_blocks_as_soon_as_the_latency_allows(tiny: Autoencoder) -> None:
    come = 0

    def blocks() -> Iterator[torch.Tensor]:
        nonlocal come
        for block in torch.zeros(1, 40 * 256).split(128, 1):
            come += block.shape[1]
            yield block

    given = [(come, audio.shape[1]) for audio in tiny.decode_blocks(tiny.encode_blocks(blocks(), 1), 1)]
    assert tiny.latency_samples == 14 * 256
    due = [((n + 14) * 256 + 128, 256) for n in range(40 - 14)]  # the rest comes when the signal ends
    assert [one for one in given if one[0] < 40 * 256] == due
    assert sum(samples for _, samples in given) == 40 * 256


# ---- chunks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 256, 20 * 256, 20 * 256 + 1, 33 * 256 - 5, 100 * 256 + 77])
@pytest.mark.parametrize(("chunk", "block"), [(1, 999), (5, 256), (20, 100_000), (27, 4000), (94, 25_677)])
def test_chunks_are_the_whole(tiny: Autoencoder, samples: int, chunk: int, block: int) -> None:
    audio = 0.3 * torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))
    with torch.no_grad():
        latents = tiny.encode(audio)
        decoded = tiny.decode(latents)
    parts = list(tiny.encode_blocks(audio.split(block, 1), chunk))
    torch.testing.assert_close(torch.cat(parts, 1), latents, atol=2e-5, rtol=1e-4)
    pieces = list(tiny.decode_blocks(latents.split(max(1, block // 256), 1), chunk))
    # The head's phases are large with these weights, hence not 1e-5.
    torch.testing.assert_close(torch.cat(pieces, 1), decoded, atol=1e-3, rtol=1e-3)


def test_chunks_bound_what_is_worked_on_at_once(tiny: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for name in ("_encode_spectrum", "_decode_spectrum"):
        original = getattr(Autoencoder, name)

        def spy(self: Autoencoder, x: torch.Tensor, *place: int, original=original) -> torch.Tensor:
            sizes.append(x.shape[1])
            return original(self, x, *place)

        monkeypatch.setattr(Autoencoder, name, spy)
    latents = torch.cat(list(tiny.encode_blocks(torch.zeros(1, 1000 * 256).split(300, 1), 50)), 1)
    list(tiny.decode_blocks([latents], 50))
    assert max(sizes) <= 50 + 2 * (tiny.context_frames + 1) + 1


def test_no_blocks_give_nothing(tiny: Autoencoder) -> None:
    assert list(tiny.encode_blocks([])) == []
    assert list(tiny.decode_blocks([])) == []


# ---- weights -------------------------------------------------------------------------------------------


def test_weights_come_back(tiny: Autoencoder) -> None:
    copy = architectures.autoencoder(tiny.config, tiny.state_dict())
    audio = torch.randn(1, 1000)
    with torch.no_grad():
        assert torch.equal(copy(audio), tiny(audio))
    assert set(copy.state_dict()) == set(dict(tiny.named_parameters()))


def test_weights_that_do_not_fit_are_refused(tiny: Autoencoder) -> None:
    tensors = dict(tiny.state_dict())
    with pytest.raises(UserError, match="do not fit"):
        architectures.autoencoder(architectures.SIZES["small"], tensors)
    tensors.pop("head.bias")
    with pytest.raises(UserError, match=r"head\.bias"):
        architectures.autoencoder(tiny.config, tensors)
