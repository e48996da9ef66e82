"""Lines at the frame rate in what QINCODEC decodes: a buzz that no metric of `evaluate` points at.

    python benchmarks/frame_rate_lines.py AUDIO ... [--model small] [--kbps 16]

Power at multiples of the frame rate over power half-way between them (Welch, 8192 samples; median of the
ratios in the band), in dB, for the first five seconds of every file and their reconstruction. Noise has 0 dB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.signal import welch

from qincodec import audio
from qincodec.codec import load

BANDS = ((1500, 3400), (3400, 12_000))


def lines_db(samples: np.ndarray, sample_rate: int, frame_rate: float, low: float, high: float) -> float:
    """Of (samples,), over multiples of ``frame_rate`` from ``low`` to ``high`` Hz."""
    frequencies, power = welch(samples, sample_rate, nperseg=8192)
    multiples = np.arange(int(low / frame_rate) + 1, int(high / frame_rate)) * frame_rate
    on, between = (np.interp(multiples + shift, frequencies, power) for shift in (0.0, frame_rate / 2))
    return float(10 * np.log10(np.median((on + 1e-20) / (between + 1e-20))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--model", default="small")
    parser.add_argument("--kbps", type=float, default=16.0)
    arguments = parser.parse_args()
    codec = load(arguments.model)
    rate, frame_rate = codec.sample_rate, codec.autoencoder.frame_rate
    header = "".join(f"{f'{low}-{high} Hz: original':>26}{'decoded':>9}" for low, high in BANDS)
    print(f"{'file':<28}{header}")
    for path in arguments.audio:
        samples, found = audio.read(path, duration_s=5.0)
        mono = audio.resample(samples[:1], found, rate)
        decoded = codec.reconstruct(torch.as_tensor(mono)[None], kbps=arguments.kbps)
        pair = np.asarray(mono[0]), decoded[0, 0].numpy()
        cells = [
            (lines_db(x, rate, frame_rate, *band), width)
            for band in BANDS
            for x, width in zip(pair, (26, 9), strict=True)
        ]
        print(f"{path.stem[:27]:<28}" + "".join(f"{value:>{width}.1f}" for value, width in cells))


if __name__ == "__main__":
    main()
