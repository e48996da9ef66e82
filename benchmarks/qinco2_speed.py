"""Encoding speed of QINCO2-M (D 32, K 1024, N 9) by search setting, beside a plain implementation.

    python benchmarks/qinco2_speed.py --train AUDIO_FOLDER --held-out OTHER_AUDIO_FOLDER --state model.pt

`plain` is the definition written down in float32: every candidate through the whole network. "x plain" is
over plain (16, 32), timed again right before each row, and so is the machine's matrix-multiply peak in the
row's precision, of which "share" is; it counts the multiplications the search asks of the network. So the
ratios hold where the speed of the machine drifts. MSE is that of the decoded codes, over that of plain
(16, 32); "codes" are the vectors that get the same codes. "x real": 172.27 vectors are a second of audio.

The quantizer is trained first, for --steps steps (most of an hour at the default), on the latents of
quantizer_mse.py, and kept in --state.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from quantizer_mse import latents_of, say

from qincodec.quantizers.beam import PRECISIONS, Search
from qincodec.quantizers.qinco2 import QINCO2, SIZES, Training

DIM, N, K = 32, 9, 1024
FRAME_RATE = 44100 / 256
#: (A, B) of the full search.
WIDTHS = [(1, 1), (4, 4), (8, 8), (16, 16), (16, 32), (32, 64)]
#: Shortlisted searches: (A, B, shortlist).
SHORT = [(16, 8, 16), (16, 16, 32), (16, 32, 32), (1024, 32, 32), (16, 32, 64), (16, 32, 128), (16, 64, 64)]


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


def peak(precision: str) -> float:
    """Multiply-adds per second of a square product, the best of a few."""
    left, right = (torch.randn(1024, 1024).to(PRECISIONS[precision]) for _ in range(2))
    return 1024**3 / min(timed(lambda: left @ right)[0] for _ in range(6))


def timed(action: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def trained(arguments: argparse.Namespace, train: object) -> QINCO2:
    # Searches are compared below; none is to be made wider at the end of the training.
    model = QINCO2(DIM, N, K, **SIZES["M"], search=Search())
    if arguments.state.exists():
        model.load_state_dict(torch.load(arguments.state, weights_only=True))
        return model
    epochs = min(8, arguments.steps)
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
    parser.add_argument("--vectors", type=int, default=172, help="one second of audio")
    parser.add_argument("--reference-vectors", type=int, default=16, help="plain (16, 32) before each row")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error(f"--steps must be 1 or more, got {arguments.steps}")
    torch.set_num_threads(arguments.threads)

    train, held = latents_of(arguments.train, arguments.held_out, DIM)
    model = trained(arguments, train)
    x = torch.from_numpy(held[:: len(held) // arguments.vectors][: arguments.vectors].copy())

    def plain(rows: torch.Tensor, a: int, b: int) -> torch.Tensor:
        # 8192 candidates at a time measured fastest of 2048 to 32768.
        return torch.cat([plain_encode(model, part, a, b) for part in rows.split(max(1, 8192 // (a * b)))])

    def ours(rows: torch.Tensor, how: Search) -> torch.Tensor:
        model.search = how
        return model.encode(rows)

    # Multiply-adds of a candidate; the table and the per-beam vector leave the first two layers out.
    network = sum(p.numel() for p in model.networks[0].parameters() if p.ndim == 2)
    deep = network - DIM * 384 - (384 + DIM) * 384
    rows: list[tuple[str, str, Callable[[torch.Tensor], torch.Tensor], float]] = [
        (f"plain ({a}, {b})", "float32", partial(plain, a=a, b=b), network * 8.0 * a * b) for a, b in WIDTHS
    ]
    for precision in PRECISIONS:
        for a, b, short in [*((a, b, None) for a, b in WIDTHS), *SHORT]:
            name = f"({a}, {b})" + (f" of which {short}" if short else "")
            how = Search(a, b, short, precision)
            rows.append((name, precision, partial(ours, how=how), deep * 8.0 * (short or a * b)))

    reference_codes = plain(x, 16, 32)
    reference = float((model.decode(reference_codes) - x).square().mean())
    print(f"{torch.get_num_threads()} threads, {len(x)} vectors, MSE of plain (16, 32) {reference:.6f}")
    print(f"{'':24}{'':10}{'vectors/s':>10}{'x real':>8}{'x plain':>9}{'MSE':>9}{'codes':>8}{'share':>7}")
    for name, precision, action, work in rows:
        some = x[: arguments.reference_vectors]
        plain_rate = len(some) / timed(lambda: plain(some, 16, 32))[0]  # noqa: B023
        best = peak(precision)
        action(x[:4])  # makes the tables
        seconds, codes = timed(lambda: action(x))  # noqa: B023
        if seconds < 5:
            seconds = min(seconds, *(timed(lambda: action(x))[0] for _ in range(2)))  # noqa: B023
        rate = len(x) / seconds
        mse = float((model.decode(codes) - x).square().mean()) / reference
        same = (codes == reference_codes).all(1).float().mean()
        print(
            f"{name:24}{precision:10}{rate:10.1f}{rate / FRAME_RATE:8.2f}{rate / plain_rate:9.2f}"
            f"{mse:9.4f}{same:8.1%}{rate * work / best:7.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
