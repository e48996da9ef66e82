"""Speed of training: steps per second, memory, and where the time goes, on whatever device is here.

Prints, for stages 1 and 3 at a configuration, the seconds of a step and the shares of data, generator and
discriminators; for stage 2 the frames per second of a fit; and what the planned steps would take at the
planned batch. On a GPU also the share of its measured bfloat16 matrix-multiply rate.

    python benchmarks/train_speed.py [--config paper-d32] [--crops 2] [--steps 3] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from qincodec import architectures, audio
from qincodec.quantizers.rvq import RVQ
from qincodec.training.adversarial import AdversarialStep, Generator
from qincodec.training.config import TrainingConfig, load_config
from qincodec.training.data import CropDataset
from qincodec.training.discriminators import Discriminators
from qincodec.training.loop import launch, name_of
from qincodec.training.manifest import Manifest


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work, device: torch.device, repeats: int) -> float:
    """Median seconds of ``work()`` after one call to warm up, or as many as make a recording on a GPU."""
    seconds = []
    for repeat in range(-5 if device.type == "cuda" else -1, repeats):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        if repeat >= 0:
            seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def matrix_rate(device: torch.device) -> float:
    """Measured bfloat16 multiply-adds per second, times two."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    return 2 * size**3 / timed(lambda: a @ b, device, 5)


def step_of(config: TrainingConfig, fabric, quantized: bool, adversarial: bool) -> AdversarialStep:
    torch.manual_seed(0)
    autoencoder = architectures.autoencoder(config.shape)
    quantizer = RVQ(config.shape.latent_dim, 9) if quantized else None
    return AdversarialStep(
        fabric,
        Generator(autoencoder, quantizer),
        Discriminators(config.discriminators.width) if adversarial else None,
        config.losses,
        config.optimizer,
        lambda step: 1e-6,
    )


def crops_per_second(data: Path, config: TrainingConfig, count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        dataset = CropDataset(
            Manifest.build(data, Path(folder) / "manifest", workers=1),
            crop_samples=config.crop_samples,
            sample_rate=config.shape.sample_rate,
            seed=0,
            cache=Path(folder) / "cache",
        )
        for index in range(count):  # fills the cache with what will be read
            dataset[index]
        began = time.perf_counter()
        for index in range(count):
            dataset[index]
        return count / (time.perf_counter() - began)


def synthetic(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(4):
        noise = 0.1 * random.standard_normal((1, 10 * 44_100)).astype(np.float32)
        audio.write(folder / f"{number}.wav", noise, 44_100)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="paper-d32")
    parser.add_argument(
        "--crops", type=int, help="crops of a measured step (default: 2 on a CPU, 48 on a GPU)"
    )
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--data", type=Path, help="audio to read crops from (default: noise made here)")
    parser.add_argument("--accelerator", default="auto")
    arguments = parser.parse_args()

    config = load_config(arguments.config)
    fabric = launch(config.run, arguments.accelerator)
    device = fabric.device
    crops = arguments.crops or (48 if device.type == "cuda" else 2)
    batch = 0.1 * torch.randn(crops, config.crop_samples, device=device)
    batches, noises = [batch], [None]
    print(
        f"{arguments.config} on {name_of(device)}, {config.run.precision},"
        f" {crops} crops of {config.data.crop_s:g} s a step"
    )

    with tempfile.TemporaryDirectory() as folder:
        reading = crops_per_second(arguments.data or synthetic(Path(folder)), config, 200)
    spectral = step_of(config, fabric, quantized=False, adversarial=False)
    generator_s = timed(lambda: spectral(0, batches, noises), device, arguments.steps)
    planned = config.data.batch_size / crops
    for title, quantized, steps in (
        ("stage 1", False, config.stage1.steps),
        ("stage 3", True, config.stage3.steps),
    ):
        adversarial = config.losses.adversarial > 0 or config.losses.feature_matching > 0
        step = step_of(config, fabric, quantized, adversarial)
        codebooks = 9 if quantized else None
        whole_s = timed(lambda: step(0, batches, noises, codebooks), device, arguments.steps)  # noqa: B023
        data_s = crops / reading
        days = whole_s * planned * steps / 86_400
        print(
            f"{title}: {whole_s:.3f} s a step, {crops * config.data.crop_s / whole_s:.2f} x real time;"
            f" discriminators {max(0.0, 1 - generator_s / whole_s):.0%}, generator and its losses"
            f" {min(1.0, generator_s / whole_s):.0%}; data {data_s / whole_s:.1%} of a step on one worker"
            f" ({reading:.0f} crops/s); {steps:,} steps of {config.data.batch_size} crops would take"
            f" {days:.1f} days on this device"
        )
    latents = torch.randn(100_000, config.shape.latent_dim)
    began = time.perf_counter()
    RVQ(config.shape.latent_dim, 1, config.stage2.codebook_size).fit(latents)
    seconds = time.perf_counter() - began
    print(
        f"stage 2: {len(latents) / seconds:,.0f} frames/s a codebook (rvq);"
        " qinco2: see benchmarks/qinco2_speed.py"
    )
    if device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB on the device")
        frames = crops * config.crop_samples / config.shape.hop_length
        parameters = sum(p.numel() for p in spectral.generator.autoencoder.parameters())
        share = 6 * parameters * frames / generator_s / matrix_rate(device)
        print(f"generator: {share:.0%} of the measured bfloat16 matrix rate")
    else:
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


if __name__ == "__main__":
    main()
