"""OpenL3 in PyTorch, as `evaluate` runs it, beside a plain port and the original's architecture in Keras.

    python benchmarks/openl3_speed.py [--clips 60] [--threads 2]

All embed the same clips of 5 s at hop 0.5 s, from samples at 48 kHz to 512 values, with the same weights, in
this process and with the same number of threads; rounds alternate and the best of each counts. On a
machine that others use too, the ratio of CPU times says more than that of wall times. Without ``--weights``
the values are random, which costs the same. Keras needs TensorFlow, `pip install
'.[openl3-reference]'`, and is left out without it. Exits with 1 if the results differ.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from evaluation.embeddings.base import centred_frames
from evaluation.embeddings.openl3_network import (
    BATCH_NORM_EPS,
    EMBEDDING_DIM,
    HOP_LENGTH,
    LAYERS,
    N_FFT,
    NUM_MELS,
    SAMPLE_RATE,
    Arrays,
    build_network,
    front_end,
    read_weights,
)
from qincodec.distances import mel_filter_bank

OWN_BATCH, PLAIN_BATCH = 2, 32
#: (frames, 48000) -> (frames, 512)
Embed = Callable[[np.ndarray], np.ndarray]


def random_weights() -> Arrays:
    random = np.random.default_rng(0)

    def batch_norm(width: int) -> list[np.ndarray]:
        return [random.uniform(0.5, 1.5, width).astype(np.float32) for _ in range(4)]

    layers: Arrays = [("batch_norm", batch_norm(1))]
    channels = 1
    for width in [*(width for width, _ in LAYERS), EMBEDDING_DIM]:
        kernel = random.standard_normal((3, 3, channels, width)) / np.sqrt(9 * channels)
        layers.append(("conv", [kernel.astype(np.float32), np.zeros(width, np.float32)]))
        layers.append(("batch_norm", batch_norm(width)))
        channels = width
    return layers[:-1]


def in_batches(network: Callable[[torch.Tensor], torch.Tensor], batch: int) -> Embed:
    def embed(frames: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([network(part) for part in torch.from_numpy(frames).split(batch)]).numpy()

    return embed


def ours(layers: Arrays, batch: int) -> Embed:
    network = build_network(layers)
    return in_batches(
        lambda part: functional.max_pool2d(network(front_end(part)), (32, 24)).flatten(1), batch
    )


def plain(layers: Arrays, batch: int) -> Embed:
    """Layer after layer as the paper has it, PyTorch's defaults throughout."""
    entries = (tuple(map(torch.from_numpy, arrays)) for _, arrays in layers)

    def batch_norm() -> nn.Module:
        names = "weight", "bias", "running_mean", "running_var"
        state = dict(zip(names, next(entries), strict=True))
        module = nn.BatchNorm2d(len(state["weight"]), eps=BATCH_NORM_EPS)
        module.load_state_dict(state, strict=False)
        return module

    def conv() -> nn.Module:
        kernel, bias = next(entries)
        module = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=1)
        module.load_state_dict({"weight": kernel.permute(3, 2, 0, 1), "bias": bias})
        return module

    modules = [batch_norm()]
    for _, pools in LAYERS:
        modules += [conv(), batch_norm(), nn.ReLU(), *([nn.MaxPool2d(2)] if pools else [])]
    modules.append(conv())
    network = nn.Sequential(*modules, nn.MaxPool2d((32, 24)), nn.Flatten()).eval()
    return in_batches(lambda part: network(front_end(part)), batch)


def keras(layers: Arrays, batch: int, threads: int) -> Embed:
    """The original's layers, front end included, as its package builds them with kapre."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    bank = tf.constant(mel_filter_bank(SAMPLE_RATE, N_FFT, NUM_MELS).float().T.numpy())

    def spectra(samples: Any) -> Any:
        mel = tf.abs(tf.signal.stft(samples, N_FFT, HOP_LENGTH, N_FFT, pad_end=True)) @ bank
        decibels = 10 / np.log(10) * tf.math.log(tf.maximum(mel, 1e-10))
        decibels -= tf.reduce_max(decibels, (1, 2), keepdims=True)
        return tf.transpose(tf.maximum(decibels, -80.0), (0, 2, 1))[..., None]

    kl = tf.keras.layers
    x = inputs = tf.keras.Input((256, 199, 1))
    made = []

    def add(layer: Any) -> None:
        nonlocal x
        x = layer(x)
        if layer.weights:
            made.append(layer)

    add(kl.BatchNormalization(epsilon=BATCH_NORM_EPS))
    for width, pools in LAYERS:
        add(kl.Conv2D(width, 3, padding="same"))
        add(kl.BatchNormalization(epsilon=BATCH_NORM_EPS))
        add(kl.Activation("relu"))
        if pools:
            add(kl.MaxPooling2D(2))
    add(kl.Conv2D(EMBEDDING_DIM, 3, padding="same"))
    add(kl.MaxPooling2D((32, 24), padding="same"))
    model = tf.keras.Model(inputs, kl.Flatten()(x))
    for layer, (_, arrays) in zip(made, layers, strict=True):
        layer.set_weights(arrays)
    step = tf.function(lambda samples: model(spectra(samples), training=False))

    def embed(frames: np.ndarray) -> np.ndarray:
        parts = np.split(frames, range(batch, len(frames), batch))
        return np.concatenate([step(tf.constant(part)).numpy() for part in parts])

    return embed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=60, help="number of clips of 5 s, ten frames each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="an OpenL3 .h5 or .h5.gz file; default: random values")
    options = parser.parse_args()
    if min(options.clips, options.threads, options.rounds) <= 0:
        parser.error("--clips, --threads and --rounds must be positive")
    torch.set_num_threads(options.threads)
    layers = read_weights(options.weights) if options.weights else random_weights()
    random = np.random.default_rng(0)
    clips = [
        torch.from_numpy(random.standard_normal(5 * SAMPLE_RATE, np.float32)) for _ in range(options.clips)
    ]
    frames = np.concatenate([centred_frames(clip, SAMPLE_RATE, SAMPLE_RATE // 2).numpy() for clip in clips])
    contests: dict[str, Embed] = {
        f"ours, batch {OWN_BATCH}": ours(layers, OWN_BATCH),
        f"plain PyTorch, batch {PLAIN_BATCH}": plain(layers, PLAIN_BATCH),
        f"plain PyTorch, batch {OWN_BATCH}": plain(layers, OWN_BATCH),
    }
    if find_spec("tensorflow") is None:
        print("Keras left out: pip install '.[openl3-reference]'", file=sys.stderr)
    else:
        for batch in (OWN_BATCH, PLAIN_BATCH):
            contests[f"Keras, batch {batch}"] = keras(layers, batch, options.threads)
    best = dict.fromkeys(contests, float("inf"))
    cpu = dict.fromkeys(contests, float("inf"))
    found: dict[str, np.ndarray] = {}
    for embed in contests.values():
        embed(frames[:OWN_BATCH])  # compilation is not timed
    for _ in range(options.rounds):
        for name, embed in contests.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            found[name] = embed(frames)
            best[name] = min(best[name], time.perf_counter() - start)
            cpu[name] = min(cpu[name], time.process_time() - cpu_start)
    first = next(iter(contests))
    print(
        f"{len(frames)} frames of {options.clips} clips, {options.threads} threads, torch {torch.__version__}"
    )
    print(f"{'':26}{'time':>9}{'frames/s':>10}{'ratio':>8}{'CPU time':>10}{'ratio':>8}  largest difference")
    largest = 0.0
    for name, wall_s in best.items():
        difference = float(np.abs(found[name] - found[first]).max() / np.abs(found[first]).max())
        largest = max(largest, difference)
        ratio, cpu_ratio = wall_s / best[first], cpu[name] / cpu[first]
        line = f"{name:26}{wall_s:7.2f} s{len(frames) / wall_s:10.2f}{ratio:7.2f}x{cpu[name]:8.2f} s"
        print(f"{line}{cpu_ratio:7.2f}x  {difference:.1e}")
    if largest > 1e-4:
        print("FAILED: the results differ by more than 1e-4", file=sys.stderr)
    return int(largest > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
