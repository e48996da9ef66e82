"""What FFmpeg costs in an evaluation, how true a dry run is, and how long commands take to begin.

FFmpeg: encoding with many frames in one call of PyAV beside a frame at a time, decoding into a FIFO beside an
array for each frame, and two threads beside one; the bytes must be the same. The dry run: CPU time that it
takes and that it says, beside CPU time of the run itself without its report. Ratios are of CPU time but for
threads; peers alternate, and the best of all rounds counts.

    python benchmarks/evaluate_speed.py AUDIO_FOLDER [--limit 40] [--codecs opus,mp3,aac,vorbis]
"""

from __future__ import annotations

import argparse
import itertools
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import torch

from baselines import ffmpeg
from baselines.codec import Encoded
from evaluation.datasets import load_dataset
from evaluation.engine.estimate import estimate
from evaluation.engine.request import Request, parse_request
from evaluation.records import Settings
from evaluation.session import execute, prepare
from qincodec import audio

ROUNDS = 3


def best(*calls: Callable[[], Any]) -> list[float]:
    """Least CPU time of each, taken in turns."""
    taken = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for index, call in enumerate(calls):
            began = time.process_time()
            call()
            taken[index] = min(taken[index], time.process_time() - began)
    return taken


def decode_by_frame(codec: ffmpeg._FFmpegCodec, encoded: Encoded) -> np.ndarray:
    """An array for each frame, put together at the end."""
    context: Any = av.CodecContext.create(codec._decoder, "r")
    context.sample_rate = encoded.side_info["coded_sample_rate"]
    context.layout = ffmpeg._LAYOUTS[encoded.channels]
    context.extradata = bytes.fromhex(encoded.side_info["extradata"]) or None
    context.options = {**ffmpeg._DECODER_FLAGS, **codec._decoder_options}
    ends = itertools.accumulate(encoded.side_info["packet_bytes"], initial=0)
    blocks = []
    for start, end in itertools.pairwise(ends):
        for frame in context.decode(av.Packet(encoded.payload[start:end])):
            block = frame.to_ndarray()
            blocks.append(block.reshape(-1, encoded.channels).T if frame.format.is_packed else block)
    samples = np.concatenate(blocks, axis=1)[:, encoded.side_info["padding"] :]
    samples = samples[:, : encoded.side_info["coded_samples"]]
    samples = audio.resample(samples, encoded.side_info["coded_sample_rate"], codec.sample_rate)
    return samples[:, : encoded.num_samples]


def compare_ffmpeg(clips: list[np.ndarray], sample_rate: int) -> None:
    print("times real time      encode: frame by frame, at once       decode: array by array, FIFO")
    seconds = sum(clip.shape[1] for clip in clips) / sample_rate
    for codec in (ffmpeg.Opus(), ffmpeg.Mp3(), ffmpeg.Aac()):
        for kbps in (16, 64):
            rate = codec.nearest_rate(kbps)
            inputs = [audio.resample(clip, sample_rate, codec.sample_rate) for clip in clips]

            def one_by_one(codec: Any = codec, inputs: Any = inputs, rate: Any = rate) -> list[Encoded]:
                with patch.object(ffmpeg, "_FRAMES", 1):
                    return [codec.encode_clip(clip, rate) for clip in inputs]

            def at_once(codec: Any = codec, inputs: Any = inputs, rate: Any = rate) -> list[Encoded]:
                return [codec.encode_clip(clip, rate) for clip in inputs]

            encoded = at_once()
            assert [e.to_bytes() for e in encoded] == [e.to_bytes() for e in one_by_one()]

            def by_frame(codec: Any = codec, encoded: Any = encoded) -> list[np.ndarray]:
                return [decode_by_frame(codec, clip) for clip in encoded]

            def fifo(codec: Any = codec, encoded: Any = encoded) -> list[np.ndarray]:
                return [codec.decode_clip(clip) for clip in encoded]

            assert all(map(np.array_equal, by_frame(), fifo()))
            slow, fast, old, new = best(one_by_one, at_once, by_frame, fifo)
            print(
                f"{codec.name}@{kbps:<7}{seconds / slow:26.0f}{seconds / fast:10.0f} ({slow / fast:.2f} x)"
                f"{seconds / old:26.0f}{seconds / new:10.0f} ({old / new:.2f} x)"
            )


def compare_threads(clips: list[np.ndarray]) -> None:
    codec = ffmpeg.Opus()
    rate = codec.nearest_rate(16)
    walls: dict[int, float] = {}
    for _, threads in itertools.product(range(ROUNDS), (1, 2)):
        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda clip: codec.encode_clip(clip, rate), clips))
        walls[threads] = min(walls.get(threads, float("inf")), time.perf_counter() - began)
    print(f"opus@16 in two threads: {walls[1] / walls[2]:.2f} x as fast as in one, wall time")


def compare_dry_run(data: Path, codecs: str, limit: int) -> None:
    options: dict[str, Any] = {"metrics": "si_sdr,ms_mel,logmel", "workers": 1}
    request = Request(str(data), codecs, "8,16", settings=Settings(limit=limit, match="measured"), **options)
    run = prepare(parse_request(request))
    with patch.object(time, "perf_counter", time.process_time):
        began = time.process_time()
        guess = estimate(run)
        dry_s = time.process_time() - began
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        execute(run, Path(folder) / "run")
    run_s = time.process_time() - began
    print(
        f"{codecs} at 8,16 on {guess.n_clips} clips: the dry run took {dry_s:.1f} s of CPU time and said"
        f" {guess.time_s:.0f} s; the run took {run_s:.0f} s, {run_s / guess.time_s:.2f} x"
    )


def compare_commands() -> None:
    for command in ("evaluation list", "evaluation --help", "mushra --help", "qincodec --help"):
        taken = []
        for _ in range(ROUNDS):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-m", *command.split()], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        print(f"start of python -m {command}: {min(taken):.2f} s of CPU time")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--codecs", default="opus,mp3,aac,vorbis")
    options = parser.parse_args()
    torch.set_num_threads(1)
    compare_commands()
    clips = []
    for clip in load_dataset(str(options.data), limit=8).clips:
        samples, sample_rate = audio.read(clip.path, clip.start_s, clip.duration_s)
        clips.append(audio.resample(audio.mix(samples, 1), sample_rate, 48000))
    compare_ffmpeg(clips, 48000)
    compare_threads(clips)
    compare_dry_run(options.data, options.codecs, options.limit)


if __name__ == "__main__":
    main()
