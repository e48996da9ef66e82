"""What runs on a GPU against the same on the CPU, and all stages of a training there."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from qincodec import architectures, audio
from qincodec.codec import Qincodec, load
from qincodec.distances import ms_mel, si_sdr
from qincodec.quantizers.irvq import IRVQ
from qincodec.quantizers.qinco2 import QINCO2, Training
from qincodec.quantizers.rvq import RVQ
from qincodec.training.autoencoder import train_autoencoder
from qincodec.training.config import parse_config
from qincodec.training.discriminators import Discriminators
from qincodec.training.finetune import finetune
from qincodec.training.loop import launch
from qincodec.training.quantizer import fit_quantizer
from qincodec.training.run import TrainingRun

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

SHAPE = {
    "latent_dim": 24,
    "dim": 32,
    "intermediate_dim": 64,
    "num_layers": 1,
    "transform_path": True,
    "envelope_latents": 8,
}
CONFIG = {
    "autoencoder": SHAPE,
    "data": {"crop_s": 0.1, "batch_size": 8, "workers": 2, "held_out": 0.2, "speeds": [1, 0.9]},
    "discriminators": {"width": 0.05},
    "losses": {"waveform": 1.0},
    "stage1": {"steps": 8, "latent_noise": 0.2, "ema": 0.9},
    "stage2": {
        "kind": "qinco2",
        "codebook_size": 16,
        "num_codebooks": 3,
        "options": {"num_blocks": 1, "width": 16, "hidden": 16, "search": {"candidates": 4, "beam": 4}},
        "training": {"epochs": 2, "epoch_frames": 2000, "batch_size": 64, "rvq_frames": 2000},
    },
    "stage3": {"steps": 6, "codebooks": [1, 3], "ema": 0.9},
    "run": {
        "log_every": 2,
        "validate_every": 4,
        "save_every": 4,
        "samples_every": 8,
        "validation_clips": 2,
        "validation_s": 0.3,
    },
}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    for number in range(8):
        t = np.arange(2 * 44_100) / 44_100
        tone = 0.3 * np.sin(2 * np.pi * (200 + 150 * number) * t) * np.exp(-t)
        noisy = tone + 0.02 * random.standard_normal(len(t))
        audio.write(folder / f"{number}.wav", noisy[None].astype(np.float32), 44_100)
    return folder


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_all_stages_train_and_the_model_codes_on_the_cpu(tmp_path, sounds, precision: str) -> None:
    values = json.loads(json.dumps(CONFIG))
    values["run"]["precision"] = precision
    run = TrainingRun.create(tmp_path / "run", parse_config(values, "test"), sounds)
    fabric = launch(run.config.run, "cuda")
    summaries = [
        train_autoencoder(run, fabric),
        fit_quantizer(run, str(fabric.device)),
        finetune(run, fabric),
    ]
    assert summaries[0]["best"]["score"] < 10 and summaries[2]["best"]["score"] < 10
    assert all(math.isfinite(error) for error in summaries[1]["latent_error"].values())
    on_cpu, on_gpu = (load(run.folder / "finetuned-qinco2" / "model", device=d) for d in ("cpu", "cuda"))
    sound = audio.read(sounds / "1.wav")[0][None, :, :22_050]
    codes = on_gpu.encode(torch.from_numpy(sound))
    agreement = (codes.cpu() == on_cpu.encode(torch.from_numpy(sound))).float().mean()
    assert float(agreement) > 0.97
    decoded = on_gpu.decode(codes).cpu()
    torch.testing.assert_close(decoded, on_cpu.decode(codes.cpu()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("transform_path", [False, True])
def test_the_autoencoder_is_that_of_the_cpu(transform_path: bool) -> None:
    torch.manual_seed(0)
    shape = SHAPE if transform_path else {"latent_dim": 8, "dim": 32, "intermediate_dim": 64, "num_layers": 1}
    codec = Qincodec(architectures.autoencoder(architectures.from_dict(shape)))
    sound = 0.1 * torch.randn(2, 1, 30_000)
    latents = codec.encode_latents(sound)
    decoded = codec.decode_latents(latents)
    codec.autoencoder.cuda()
    there = codec.encode_latents(sound)
    torch.testing.assert_close(there.cpu(), latents, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(codec.decode_latents(latents).cpu(), decoded, rtol=1e-3, atol=1e-4)


def test_distances_are_those_of_the_cpu() -> None:
    torch.manual_seed(1)
    a = 0.1 * torch.randn(3, 2, 20_000)
    b = a + 0.01 * torch.randn_like(a)
    torch.testing.assert_close(
        ms_mel(a.cuda(), b.cuda(), 44_100).cpu(), ms_mel(a, b, 44_100), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(si_sdr(a.cuda(), b.cuda()).cpu(), si_sdr(a, b), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [RVQ, IRVQ, QINCO2])
def test_quantizers_fit_as_well_as_on_the_cpu(kind) -> None:
    torch.manual_seed(2)
    latents = torch.randn(6000, 4) @ torch.randn(4, 6)
    errors = {}
    for device in ("cpu", "cuda"):
        more = {}
        quantizer = kind(6, 2, 32)
        if kind is QINCO2:
            quantizer = kind(6, 2, 32, num_blocks=1, width=16, hidden=16)
            more = {"training": Training(epochs=2, batch_size=128, rvq_frames=6000, ramp_epochs=0.5)}
        quantizer.to(device).fit(latents, **more)
        decoded = quantizer.decode(quantizer.encode(latents.to(device)))
        errors[device] = float((decoded.cpu() - latents).square().mean())
    assert errors["cuda"] < 1.05 * errors["cpu"]


def test_discriminators_are_those_of_the_cpu() -> None:
    torch.manual_seed(3)
    discriminators = Discriminators(0.05)
    sound = 0.1 * torch.randn(2, 8000)
    expected = [layers[-1] for layers in discriminators(sound)]
    found = [layers[-1].cpu() for layers in discriminators.cuda()(sound.cuda())]
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)
