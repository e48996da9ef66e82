r"""Held-out error of every quantizer at every number of codebooks, on the same latents.

    python benchmarks/quantizer_mse.py --train AUDIO_FOLDER --held-out OTHER_AUDIO_FOLDER
    python benchmarks/quantizer_mse.py --train latents/ --held-out held.npy        # real latents
    python benchmarks/quantizer_mse.py --train LATENTS --held-out OTHER_LATENTS --frames 500000 \
        --only rvq,faiss_rq,qinco2 --model RUN/quantizer-qinco2/model --num-codebooks 28 --codebook-size 1024

The folders of latents that a training wrote are RUN/autoencoder/latents-*.
Folders of audio stand for latents where there is no trained encoder: the first principal components of
power-compressed complex STFT frames (512 samples, hop 256, |S|^0.3), which keep the phase as an encoder of
such frames does. Errors are relative to the variance of the held-out latents.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from qincodec.codec import load
from qincodec.quantizers.base import FitProgress, Quantizer
from qincodec.quantizers.beam import Search
from qincodec.quantizers.faiss_additive import FaissLSQ, FaissRQ
from qincodec.quantizers.fsq import FSQ
from qincodec.quantizers.irvq import IRVQ
from qincodec.quantizers.latents import Latents
from qincodec.quantizers.qinco2 import QINCO2, SIZES, Training
from qincodec.quantizers.rvq import RVQ

AUDIO = (".flac", ".mp3", ".ogg", ".wav")


def stft_frames(folder: Path) -> np.ndarray:
    """(frames, 514) compressed real and imaginary parts, each file at one level, 30 s of a file at most."""
    rows = []
    for path in sorted(file for file in folder.rglob("*") if file.suffix in AUDIO):
        audio = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(1)
        if len(audio) < 4096:
            continue
        audio = audio[: 30 * 44100] * (0.1 / (np.sqrt(np.square(audio).mean()) + 1e-3))
        frames = np.lib.stride_tricks.sliding_window_view(audio, 512)[::256] * np.hanning(512)
        spectrum = np.fft.rfft(frames.astype(np.float32), axis=1)
        spectrum *= (np.abs(spectrum) + 1e-5) ** -0.7
        rows.append(np.concatenate([spectrum.real, spectrum.imag], 1).astype(np.float32))
    if not rows:
        raise SystemExit(f"no audio in {folder}")
    return np.concatenate(rows)


def latents_of(train: Path, held: Path, dim: int, most: int = 1 << 62) -> tuple[np.ndarray, np.ndarray]:
    """Training (``most`` of them at most) and held-out latents, from audio or from .npy files."""
    if train.suffix == ".npy" or any(train.glob("*.npy")):
        return Latents(train).sample(most, 0), Latents(held).sample(1 << 62, 0)
    frames, other = stft_frames(train), stft_frames(held)
    mean = frames.mean(0)
    some = frames[np.random.default_rng(0).permutation(len(frames))[:100_000]] - mean
    axes = np.linalg.eigh(some.T @ some)[1][:, ::-1][:, :dim]
    return (frames - mean) @ axes, (other - mean) @ axes


def say(progress: FitProgress) -> None:
    if progress.done % 100 == 0:
        error = "" if progress.mse is None else f"  mse {progress.mse:.5f}"
        print(f"  {progress.phase}  {progress.done}/{progress.total}{error}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--held-out-frames", type=int, default=5000)
    parser.add_argument("--dim", type=int, default=32, help="dimensions of latents made from audio")
    parser.add_argument("--num-codebooks", type=int, default=6)
    parser.add_argument("--codebook-size", type=int, default=64)
    parser.add_argument("--size", choices=list(SIZES), default="S", help="size of QINCO2")
    parser.add_argument("--only", metavar="Q,Q", help="quantizers to fit (default: all)")
    parser.add_argument("--model", help="folder or name of a model, whose QINCO2 is measured, not fitted")
    parser.add_argument("--frames", type=int, help="most latents to fit on (default: all; FAISS' RQ 100,000)")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--epoch-frames", type=int, default=150_000)
    arguments = parser.parse_args()

    train, held = latents_of(arguments.train, arguments.held_out, arguments.dim, arguments.frames or 1 << 62)
    dim, n, size = train.shape[1], arguments.num_codebooks, arguments.codebook_size
    x = torch.from_numpy(Latents(held).sample(arguments.held_out_frames, 0))
    variance = float((x - x.mean(0)).square().mean())
    print(f"{len(train)} frames to fit on, {len(x)} held out, {dim} dimensions, {n} codebooks of {size}")

    training = Training(
        epochs=arguments.epochs,
        epoch_frames=arguments.epoch_frames,
        ramp_epochs=0.5,
        validation_frames=3000,
        search=Search(8, 8, shortlist=16),
    )
    quantizers: dict[str, tuple[Quantizer, dict]] = {
        "rvq": (RVQ(dim, n, size), {}),
        "irvq unweighted": (IRVQ(dim, n, size), {}),
        "irvq weighted": (IRVQ(dim, n, size, "weighted"), {}),
        "faiss_rq": (FaissRQ(dim, n, size), {"max_frames": arguments.frames or 100_000}),
        "faiss_lsq": (FaissLSQ(dim, n, size), {"max_frames": 30_000, "iterations": 10}),
        "fsq": (FSQ.for_rate(dim, n, size), {}),
        "qinco2": (QINCO2(dim, n, size, **SIZES[arguments.size]), {"training": training, "progress": say}),
    }
    names = arguments.only.split(",") if arguments.only else list(quantizers)
    if unknown := set(names) - set(quantizers):
        parser.error(f"--only: no quantizer {', '.join(sorted(unknown))}; there are {', '.join(quantizers)}")
    if arguments.model:
        trained = load(arguments.model).quantizer
        if not isinstance(trained, QINCO2) or trained.dim != dim:
            parser.error(f"--model: '{arguments.model}' has no QINCO2 for latents of {dim} dimensions")
        if trained.codebook_sizes[:n] != (size,) * n:
            parser.error(
                f"--model: '{arguments.model}' has {trained.num_codebooks} codebooks of"
                f" {trained.codebook_sizes[0]}; give that --codebook-size, and --num-codebooks up to that"
            )
        quantizers["qinco2"] = (trained, {})
    lines = []
    for name in names:
        quantizer, more = quantizers[name]
        start = time.monotonic()
        if name != "qinco2" or not arguments.model:
            quantizer.fit(train, **more)
        seconds = time.monotonic() - start
        rates = range(1, n + 1) if quantizer.prefix_decodable else [None]
        errors = [float((quantizer.decode(quantizer.encode(x, m)) - x).square().mean()) for m in rates]
        cells = [""] * (n - len(errors)) + [f"{error / variance:.4f}" for error in errors]
        lines.append(f"{name:16}" + "".join(f"{cell:>9}" for cell in cells) + f"{seconds:9.0f}")
        print(lines[-1], flush=True)
    print(f"\n{'MSE / variance':16}" + "".join(f"{f'N={m}':>9}" for m in range(1, n + 1)) + f"{'fit, s':>9}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
