"""SI-SDR and MS-Mel of a hundred clips, beside a plain loop over torchmetrics and librosa.

    python benchmarks/metrics.py [--quick]

Both run in this process on the same seeded clips, in turn, with the same number of threads, BLAS's included.
The best of each counts: processor time, which a busy machine disturbs less, and wall time beside it. Exits
with 1 if their values differ or if memory grows with the number of clips.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from evaluation.metrics.base import Metric
from evaluation.metrics.ms_mel import MsMel
from evaluation.metrics.si_sdr import SiSdr
from qincodec.distances import MEL_SCALES

SAMPLE_RATE = 44100
BATCH = 10

#: (references, decoded), each (clips, 1, samples)
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def make_clip(seed: int, seconds: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A reference of coloured noise and decaying tones, and a distorted copy; both (1, samples)."""
    random = np.random.default_rng(seed)
    samples = round(seconds * SAMPLE_RATE)
    spectrum = np.fft.rfft(random.standard_normal(samples))
    noise = np.fft.irfft(spectrum / np.sqrt(1 + np.arange(len(spectrum))), samples)
    t = np.arange(samples) / SAMPLE_RATE
    tones = sum(
        random.uniform(0.02, 0.2) * np.sin(2 * np.pi * hz * t) * np.exp(-3 * (t % random.uniform(0.2, 1)))
        for hz in random.uniform(60, 8000, 8)
    )
    reference = 0.3 * (noise / noise.std() * 0.1 + tones)
    decoded = 0.9 * np.round(reference * 256) / 256 + 1e-4 * random.standard_normal(samples)
    first, second = (torch.from_numpy(signal.astype(np.float32))[None] for signal in (reference, decoded))
    return first, second


def batches(clips: int, seconds: float) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for start in range(0, clips, BATCH):
        pairs = [make_clip(seed, seconds) for seed in range(start, min(start + BATCH, clips))]
        references, decoded = zip(*pairs, strict=True)
        yield torch.stack(references), torch.stack(decoded)


def peer_si_sdr(reference: torch.Tensor, decoded: torch.Tensor) -> list[float]:
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

    pairs = zip(reference, decoded, strict=True)
    return [float(scale_invariant_signal_distortion_ratio(d, r, zero_mean=True)) for r, d in pairs]


def peer_ms_mel(reference: torch.Tensor, decoded: torch.Tensor) -> list[float]:
    import librosa

    def log_mel(signal: np.ndarray, window: int, bands: int) -> np.ndarray:
        sizes = {"n_fft": window, "hop_length": window // 4, "n_mels": bands}
        mel = librosa.feature.melspectrogram(y=signal, sr=SAMPLE_RATE, **sizes, power=1.0, pad_mode="reflect")
        return np.log10(np.maximum(mel, 1e-5))

    return [
        sum(
            float(np.abs(log_mel(r, window, bands) - log_mel(d, window, bands)).mean())
            for window, bands in MEL_SCALES
        )
        for r, d in zip(reference[:, 0].numpy(), decoded[:, 0].numpy(), strict=True)
    ]


def measure_memory(clips: int, seconds: float) -> None:
    """Print the peak memory that scoring adds to this process, in MB."""
    metrics: list[Metric] = [SiSdr(), MsMel()]

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for reference, decoded in batches(1, 0.1):  # libraries and filter banks belong to the process
        for metric in metrics:
            metric.score(metric.prepare(reference, SAMPLE_RATE), decoded, SAMPLE_RATE)
    torch.set_num_threads(1)
    idle = peak()
    for reference, decoded in batches(clips, seconds):
        for metric in metrics:
            metric.score(metric.prepare(reference, SAMPLE_RATE), decoded, SAMPLE_RATE)
    print((peak() - idle) / (2**20 if sys.platform == "darwin" else 2**10))


def memory_in_new_process(clips: int, seconds: float) -> float:
    command = [sys.executable, __file__, "--measure-memory", "--clips", str(clips), "--seconds", str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def plain_loop(peer: Callable[..., list[float]], data: Batches, threads: int) -> list[float]:
    torch.set_num_threads(threads)
    return [value for reference, decoded in data for value in peer(reference, decoded)]


def ours(metric: Metric, data: Batches, prepared: list[Any] | None, threads: int) -> list[float]:
    """Scores of all clips, as `evaluate` computes them: batches side by side, each with one CPU thread.

    ``prepared`` holds the references' part if that was computed before.
    """
    torch.set_num_threads(1)

    def score(index: int) -> list[float]:
        reference, decoded = data[index]
        known = metric.prepare(reference, SAMPLE_RATE) if prepared is None else prepared[index]
        return [score.value for score in metric.score(known, decoded, SAMPLE_RATE)]

    with ThreadPoolExecutor(threads) as pool:
        return [value for values in pool.map(score, range(len(data))) for value in values]


def compare(clips: int, seconds: float, threads: int, repeats: int) -> bool:
    """Time both and print the table; whether all values agree."""
    data = list(batches(clips, seconds))
    contests: list[tuple[Metric, Callable[..., list[float]], float]] = [
        (SiSdr(), peer_si_sdr, 1e-3),
        (MsMel(), peer_ms_mel, 1e-4),
    ]
    print(
        f"{'CPU time':8}  {'ours':>8}  {'kept':>8}  {'plain':>8}  {'ratio':>6}  {'kept':>6}  wall  difference"
    )
    agree = True
    totals = dict.fromkeys(("ours", "kept", "plain"), (0.0, 0.0))
    for metric, peer, tolerance in contests:
        peer(*(signal[:1] for signal in data[0]))  # imports and caches are not timed
        prepared = [metric.prepare(reference, SAMPLE_RATE) for reference, _ in data]
        runs: dict[str, Callable[[], list[float]]] = {
            "ours": partial(ours, metric, data, None, threads),
            "kept": partial(ours, metric, data, prepared, threads),
            "plain": partial(plain_loop, peer, data, threads),
        }
        best, values = dict.fromkeys(runs, (math.inf, math.inf)), {}
        for _ in range(repeats):
            for name, run in runs.items():
                start, start_cpu = time.perf_counter(), time.process_time()
                values[name] = run()
                took = time.process_time() - start_cpu, time.perf_counter() - start
                best[name] = min(best[name][0], took[0]), min(best[name][1], took[1])
        difference = float(np.abs(np.subtract(values["ours"], values["plain"])).max())
        agree = agree and difference <= tolerance
        for name, (cpu_s, wall_s) in best.items():
            totals[name] = totals[name][0] + cpu_s, totals[name][1] + wall_s
        print_row(metric.label, best, f"{difference:.1e} (allowed {tolerance:g})")
    print_row("both", totals, "")
    for name, text in (("ours", "references included"), ("kept", "references kept"), ("plain", "plain loop")):
        print(f"{clips * seconds / totals[name][0]:8.0f} x real time, {text}")
    return agree


def print_row(label: str, taken: dict[str, tuple[float, float]], note: str) -> None:
    (ours, wall), (kept, _), (plain, plain_wall) = taken.values()
    ratios = f"{plain / ours:5.1f}x  {plain / kept:5.1f}x  {plain_wall / wall:3.1f}x"
    print(f"{label:8}  {ours:6.2f} s  {kept:6.2f} s  {plain:6.2f} s  {ratios}  {note}".rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a clip")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few short clips, to see that it works")
    parser.add_argument("--measure-memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    clips, seconds, repeats = (
        (20, 0.5, 1) if options.quick else (options.clips, options.seconds, options.repeats)
    )
    if min(clips, seconds, repeats, options.threads) <= 0:
        parser.error("--clips, --seconds, --repeats and --threads must be positive")
    if options.measure_memory:
        measure_memory(clips, seconds)
        return 0
    missing = [name for name in ("librosa", "torchmetrics") if find_spec(name) is None]
    if missing:
        print(f"the plain loop needs {' and '.join(missing)}: pip install -e '.[dev]'", file=sys.stderr)
        return 2
    print(
        f"{clips} clips of {seconds:g} s at {SAMPLE_RATE} Hz, mono, {options.threads} threads, "
        f"best of {repeats}; torch {torch.__version__}, plain loop: torchmetrics {version('torchmetrics')}, "
        f"librosa {version('librosa')}"
    )
    # First, while this process is small (so no import above): a child's peak starts at its parent's.
    few, many = (memory_in_new_process(count, seconds) for count in (clips, 4 * clips))
    from threadpoolctl import threadpool_limits  # after NumPy and torch have loaded their libraries

    with threadpool_limits(options.threads):
        agree = compare(clips, seconds, options.threads, repeats)
    print(
        f"peak memory above the idle process: {few:.0f} MB for {clips} clips, {many:.0f} MB for {4 * clips}"
    )
    steady = many <= 1.1 * few + 32
    if not agree:
        print("FAILED: the values differ by more than allowed", file=sys.stderr)
    if not steady:
        print("FAILED: memory grows with the number of clips", file=sys.stderr)
    return 0 if agree and steady else 1


if __name__ == "__main__":
    sys.exit(main())
