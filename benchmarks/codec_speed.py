"""Speed of QINCODEC beside DAC and EnCodec on this machine, in one run.

    python benchmarks/codec_speed.py            # 5 s and 60 s of audio, some minutes
    python benchmarks/codec_speed.py --quick    # 5 s only

All models have random weights: speed does not depend on them. DAC is transformers' `DacModel` in its
44.1 kHz configuration, EnCodec its `EncodecModel` in the 48 kHz one, fed with the same signal in two channels
as evaluations of mono audio do. Both are timed with their quantizers (a few percent of their time), QINCODEC
without, as "autoencoder", and with a residual quantizer of 9 codebooks, as "rvq". The models take turns of
some seconds, and the best time of each counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from baselines.encodec import FIXED
from qincodec.codec import load

#: (encode, decode) of a model: audio (1, 1, samples) at its sample rate -> code -> audio.
Codec = tuple[Callable[[torch.Tensor], Any], Callable[[Any], Any]]
#: Least wall time of a turn, in seconds.
TURN_S = 5.0


def qincodec_models(size: str) -> dict[str, tuple[int, Codec]]:
    codec = load(f"untrained:{size}")
    return {
        "autoencoder": (codec.sample_rate, (codec.encode_latents, codec.decode_latents)),
        "rvq": (codec.sample_rate, (lambda x: codec.encode(x, num_codebooks=9), codec.decode)),
    }


def dac() -> tuple[int, Codec]:
    from transformers import DacConfig, DacModel

    model = DacModel(DacConfig(sampling_rate=44_100)).eval()

    def encode(audio: torch.Tensor) -> torch.Tensor:
        # The model cuts what does not fill a hop.
        padded = torch.nn.functional.pad(audio, (0, -audio.shape[-1] % 512))
        return model.encode(padded).audio_codes

    return 44_100, (encode, lambda codes: model.decode(audio_codes=codes))


def encodec() -> tuple[int, Codec]:
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig(**FIXED, target_bandwidths=[3.0, 6.0, 12.0, 15.0, 24.0])
    model = EncodecModel(config).eval()

    def encode(audio: torch.Tensor) -> Any:
        return model.encode(audio.expand(-1, 2, -1), bandwidth=15.0)

    def decode(encoded: Any) -> Any:
        last = getattr(encoded, "last_frame_pad_length", None)
        extra = {} if last is None else {"last_frame_pad_length": last}
        return model.decode(encoded.audio_codes, encoded.audio_scales, **extra)

    return 48_000, (encode, decode)


def measure(
    models: dict[str, tuple[int, Codec]], seconds: float, turns: int
) -> dict[str, tuple[float, float]]:
    """Best wall time of encoding and of decoding, in seconds per second of audio."""
    best = {name: (float("inf"), float("inf")) for name in models}
    generator = torch.Generator().manual_seed(0)
    for turn in range(turns + 1):
        warm_up = turn == 0
        for name, (rate, (encode, decode)) in models.items():
            length = round(rate * (1 if warm_up else seconds))
            audio = 0.1 * torch.randn(1, 1, length, generator=generator)
            start = time.perf_counter()
            while True:
                begin = time.perf_counter()
                code = encode(audio)
                middle = time.perf_counter()
                decode(code)
                end = time.perf_counter()
                if not warm_up:
                    times = (middle - begin) / seconds, (end - middle) / seconds
                    best[name] = min(best[name][0], times[0]), min(best[name][1], times[1])
                # A fast model has as long to find a quiet moment of the machine as a slow one.
                if warm_up or end - start > TURN_S:
                    break
            print(f"{name}: {seconds:g} s, turn {turn} of {turns}", file=sys.stderr)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--quick", action="store_true", help="5 s of audio only, twice instead of three times"
    )
    parser.add_argument("--size", default="paper-d32", help="QINCODEC configuration (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    models = {**qincodec_models(arguments.size), "dac": dac(), "encodec": encodec()}
    print(f"{arguments.size}, {arguments.threads} threads, torch {torch.__version__}")
    print("times faster than real time, and time over that of QINCODEC's autoencoder\n")
    print(f"{'audio':>6}  {'model':<12} {'enc xRT':>8} {'dec xRT':>8} {'enc':>8} {'dec':>8} {'both':>8}")
    for seconds in (5.0,) if arguments.quick else (5.0, 60.0):
        best = measure(models, seconds, 2 if arguments.quick or seconds > 5 else 3)
        ours = best["autoencoder"]
        for name, (encode, decode) in best.items():
            ratios = encode / ours[0], decode / ours[1], (encode + decode) / sum(ours)
            print(
                f"{seconds:>5.0f}s  {name:<12} {1 / encode:>8.1f} {1 / decode:>8.1f} "
                + " ".join(f"{ratio:>7.1f}x" for ratio in ratios)
            )


if __name__ == "__main__":
    main()
