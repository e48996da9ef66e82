"""What it saves to encode once for all rates that are prefixes of the highest, on this machine, in one run.

    python benchmarks/encode_once.py            # some minutes

DAC at 24 kHz, EnCodec at 48 kHz and QINCODEC with a residual quantizer, all with random weights: speed does
not depend on them. A turn encodes 5 s of mono audio at 8, 16 and 24 kbps, once by encoding at every rate, as
for a codec that says nothing of prefixes, and once by encoding at the highest and cutting the others out of
it. Both take turns, on one thread, and their sums of CPU time count; the bytes must be the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch

from baselines.codec import Codec, Encoded, Rate
from baselines.registry import CODECS

NAMES = {"dac-24khz": "untrained", "encodec": "untrained", "qincodec": "untrained:paper-d32"}
KBPS = (8.0, 16.0, 24.0)
SECONDS = 5.0


def each(codec: Codec, audio: torch.Tensor, rates: Sequence[Rate]) -> list[Encoded]:
    return [clip for rate in rates for clip in codec.encode(audio, rate)]


def once(codec: Codec, audio: torch.Tensor, rates: Sequence[Rate]) -> list[Encoded]:
    (whole,) = codec.encode(audio, rates[-1])
    assert all(codec.is_prefix(rate, rates[-1]) for rate in rates[:-1])
    return [*(codec.truncate(whole, rate) for rate in rates[:-1]), whole]


def main(turns: int) -> None:
    torch.set_num_threads(1)
    print(f"{'codec':10s} {'rates':>18s} {'each, CPU s':>12s} {'once, CPU s':>12s} {'CPU':>6s} {'wall':>6s}")
    generator = torch.Generator().manual_seed(0)
    for name, weights in NAMES.items():
        codec = CODECS.load(name)(weights=weights)
        rates = [codec.nearest_rate(kbps) for kbps in KBPS]
        cpu, wall = [0.0, 0.0], [0.0, 0.0]
        each(codec, 0.1 * torch.randn(1, 1, codec.sample_rate, generator=generator), rates)  # warm-up
        ways: list[Callable[..., list[Encoded]]] = [each, once]
        for _ in range(turns):
            audio = 0.1 * torch.randn(1, 1, round(SECONDS * codec.sample_rate), generator=generator)
            made = []
            for number, way in enumerate(ways):
                began = time.process_time(), time.perf_counter()
                clips = way(codec, audio, rates)
                cpu[number] += time.process_time() - began[0]
                wall[number] += time.perf_counter() - began[1]
                made.append([clip.to_bytes() for clip in clips])
            assert made[0] == made[1]
        said = ", ".join(rate.label for rate in rates)
        ratios = f"{cpu[0] / cpu[1]:5.2f}x {wall[0] / wall[1]:5.2f}x"
        print(f"{name:10s} {said:>18s} {cpu[0]:12.2f} {cpu[1]:12.2f} {ratios}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    main(parser.parse_args().turns)
