"""Encoding speed and error of a model by search preset, beside the search it was saved with.

    python benchmarks/search_presets.py AUDIO_FOLDER [--model small] [--kbps 16] [--threads 1]

Encoding is all of it, from samples to codes. Rounds alternate and the best of each counts. On a machine that
others use too, CPU time says more than wall time. MSE is that of the decoded latents, over that of the first.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from qincodec import audio
from qincodec.codec import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="small")
    parser.add_argument("--kbps", type=float, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5, help="length of a file")
    parser.add_argument("--files", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models = {
        name or "as saved": load(options.model, search=name) for name in (None, "fast", "default", "best")
    }
    first = models["as saved"]
    assert first.quantizer is not None
    paths = sorted(
        path for path in options.folder.rglob("*") if path.suffix in (".flac", ".wav", ".ogg", ".mp3")
    )
    parts = []
    for path in paths[:: max(1, len(paths) // options.files)][: options.files]:
        samples, rate = audio.read(path)
        samples = audio.resample(samples[:1, : round(options.seconds * rate)], rate, first.sample_rate)
        parts.append(torch.as_tensor(samples))
    clip = torch.cat(parts, 1)[None]
    latents, seconds = first.encode_latents(clip)[0, 0], clip.shape[-1] / first.sample_rate
    wall, cpu = dict.fromkeys(models, float("inf")), dict.fromkeys(models, float("inf"))
    errors = {}
    for _ in range(options.rounds):
        for name, model in models.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            codes = model.encode(clip, kbps=options.kbps)
            cpu[name] = min(cpu[name], time.process_time() - cpu_start)
            wall[name] = min(wall[name], time.perf_counter() - start)
            errors[name] = float((first.quantizer.decode(codes[0, 0].T) - latents).square().mean())
    print(f"{options.model} at {options.kbps:g} kbps, {seconds:.0f} s of audio, {options.threads} threads")
    print(f"{'':10}{'x real, CPU':>12}{'x real, wall':>14}{'ratio, CPU':>12}{'MSE':>8}  settings")
    for name, model in models.items():
        assert model.quantizer is not None
        line = f"{name:10}{seconds / cpu[name]:12.2f}{seconds / wall[name]:14.2f}"
        line += f"{cpu['as saved'] / cpu[name]:12.2f}"
        settings = ", ".join(f"{key} {value}" for key, value in model.quantizer.settings().items())
        print(f"{line}{errors[name] / errors['as saved']:8.4f}  {settings}")


if __name__ == "__main__":
    main()
