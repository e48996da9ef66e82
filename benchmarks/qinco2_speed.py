"""Encoding speed of QINCO2-M (D 32, K 1024, N 9) by search setting, beside a plain implementation.

    python benchmarks/qinco2_speed.py --train AUDIO_FOLDER --held-out OTHER_AUDIO_FOLDER --state model.pt

All rows of the table are of one run on the same vectors, so ratios hold on a busy machine too. `plain` is
the definition written down in float32: every candidate through the whole network. MSE is that of the
decoded codes, over that of plain (16, 32). "share" is of the machine's matrix-multiply peak in the same
precision, measured here, and counts the multiplications the search asks of the network.

The quantizer is trained first, for --steps steps (an hour at the default; 172.27 vectors are one second of
audio at 44.1 kHz), on the latents of quantizer_mse.py, and kept in --state.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from quantizer_mse import latents_of, say

from qincodec.quantizers.beam import Search
from qincodec.quantizers.qinco2 import QINCO2, SIZES
from qincodec.quantizers.qinco2_fit import Training

DIM, N, K = 32, 9, 1024
FRAME_RATE = 44100 / 256
#: (A, B) of the full search.
WIDTHS = [(1, 1), (4, 4), (8, 8), (16, 16), (16, 32), (32, 64)]
#: Shortlisted searches: (A, B, shortlist).
SHORT = [
    (1024, 4, 8),
    (1024, 8, 16),
    (1024, 16, 32),
    (1024, 32, 64),
    (16, 32, 64),
    (1024, 32, 128),
    (1024, 64, 256),
]


@torch.no_grad()
def plain_encode(model: QINCO2, x: torch.Tensor, a: int, b: int) -> torch.Tensor:
    """(n, N) codes of (n, dim) latents by the definition: float32, every candidate through the network."""
    x = (x - model.mean) / model.scale
    _, codes = torch.cdist(x, model.codebooks[0]).topk(b, largest=False)
    x_hat, codes = model.codebooks[0][codes], codes[..., None]  # (n, b, dim), (n, b, 1)
    for m in range(1, N):
        residual = x[:, None] - x_hat
        _, candidates = torch.cdist(residual, model.preselection[m - 1]).topk(a, largest=False)  # (n, b, a)
        base = model.codebooks[m][candidates]  # (n, b, a, dim)
        reached = x_hat[:, :, None] + model.networks[m - 1](base, x_hat[:, :, None].expand_as(base))
        error = (x[:, None, None] - reached).square().sum(-1).flatten(1)  # (n, b * a)
        _, best = error.topk(1 if m == N - 1 else b, largest=False)
        rows = torch.arange(len(x))[:, None]
        x_hat = reached.flatten(1, 2)[rows, best]
        codes = torch.cat([codes[rows, best // a], candidates.flatten(1)[rows, best][..., None]], -1)
    return codes[:, 0]


def peak(dtype: torch.dtype) -> float:
    """Multiply-adds per second of the best of a few square products."""
    rates = []
    for size in (1024, 2048):
        left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
        rates.append(size**3 / min(timed(lambda: left @ right) for _ in range(8)))  # noqa: B023
    return max(rates)


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def trained(arguments: argparse.Namespace, train: object) -> QINCO2:
    model = QINCO2(DIM, N, K, **SIZES["M"])
    if arguments.state.exists():
        model.load_state_dict(torch.load(arguments.state, weights_only=True))
        return model
    epochs = 8
    training = Training(
        epochs=epochs,
        epoch_frames=arguments.steps // epochs * 1024,
        ramp_epochs=0.5,
        rvq_frames=400_000,
        validation_frames=2000,
        search=Search(8, 8, shortlist=8, precision="bfloat16"),
    )
    folder = arguments.state.with_suffix(".fit")
    model.fit(train, training=training, state_dir=folder, progress=say)  # type: ignore[arg-type]
    torch.save(model.state_dict(), arguments.state)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument(
        "--state", type=Path, required=True, help="trained quantizer; made if it is not there"
    )
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--vectors", type=int, default=344, help="two seconds of audio")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    train, held = latents_of(arguments.train, arguments.held_out, DIM)
    model = trained(arguments, train)
    x = torch.from_numpy(held[:: len(held) // arguments.vectors][: arguments.vectors].copy())
    peaks = {"float32": peak(torch.float32), "bfloat16": peak(torch.bfloat16)}
    print(
        f"{torch.get_num_threads()} threads; peak "
        + ", ".join(f"{k} {v / 1e9:.0f} GMAC/s" for k, v in peaks.items())
    )

    def mse(codes: torch.Tensor) -> float:
        return float((model.decode(codes) - x).square().mean())

    per_network = sum(p.numel() for p in model.networks[0].parameters() if p.ndim == 2)
    first = 32 * 384 + (384 + 32) * 384  # of it, what the table and the per-beam vector leave out

    Row = tuple[str, str, Callable[[], torch.Tensor], float]  # name, precision, action, MAC per vector
    rows: list[Row] = [
        (f"plain ({a}, {b})", "float32", lambda a=a, b=b: plain(a, b), per_network * 8.0 * a * b)
        for a, b in WIDTHS
    ]

    def plain(a: int, b: int) -> torch.Tensor:
        # Rows that keep a layer's activations near the cache; found best of 2048 to 32768 candidates.
        return torch.cat([plain_encode(model, part, a, b) for part in x.split(max(1, 8192 // (a * b)))])

    def ours(how: Search) -> torch.Tensor:
        model.search = how
        return model.encode(x)

    for precision in ("float32", "bfloat16"):
        for a, b, short in [*((a, b, None) for a, b in WIDTHS), *SHORT]:
            how = Search(a, b, short, precision)
            name = f"({a}, {b})" + (f" of which {short}" if short else "")
            evaluated = short or a * b
            rows.append((name, precision, lambda how=how: ours(how), (per_network - first) * 8.0 * evaluated))

    reference, reference_codes = 1.0, None
    print(f"{'':24}{'':10}{'vectors/s':>10}{'x real':>8}{'x plain':>9}{'MSE':>9}{'codes':>8}{'share':>7}")
    results: dict[str, float] = {}
    for name, precision, action, work in rows:
        codes = action()  # warms up too
        repeats = 1 if work > 1e10 else arguments.repeats
        rate = len(x) / statistics.median(timed(action) for _ in range(repeats))
        results[name + precision] = rate
        if name == "plain (16, 32)":
            reference, reference_codes = mse(codes), codes
    for name, precision, action, work in rows:
        codes, rate = action(), results[name + precision]
        same = (codes == reference_codes).all(1).float().mean() if reference_codes is not None else 0
        print(
            f"{name:24}{precision:10}{rate:10.1f}{rate / FRAME_RATE:8.2f}"
            f"{rate / results['plain (16, 32)float32']:9.2f}{mse(codes) / reference:9.4f}{same:8.1%}"
            f"{rate * work / peaks[precision]:7.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
