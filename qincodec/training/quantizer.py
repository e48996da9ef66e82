"""Stage 2: a quantizer, fitted offline on the latents of the frozen autoencoder."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qincodec.audio import resampled_length
from qincodec.bitstream import bits_per_frame
from qincodec.code_tables import MAX_SIZE, CodeTables
from qincodec.codec import Qincodec
from qincodec.core.console import ProgressLine
from qincodec.core.errors import Unavailable, UserError
from qincodec.core.files import replacing
from qincodec.quantizers import QUANTIZERS
from qincodec.quantizers.base import FitProgress, Quantizer
from qincodec.quantizers.latents import Latents
from qincodec.training.config import QuantizerStage, qinco2_training
from qincodec.training.data import DamagedFile, Recordings
from qincodec.training.manifest import Manifest, seeded_order
from qincodec.training.run import TrainingRun, write_json
from qincodec.training.validation import Validation
from qincodec.transcode import resampled_blocks

#: Frames of a shard: 134 MB at 32 dimensions.
_SHARD = 1 << 20
#: Recordings up to this long are read as a whole, by threads.
_IN_MEMORY_S = 600


def fit_quantizer(run: TrainingRun, device: str = "cpu") -> dict[str, Any]:
    """Fit or continue; writes ``quantizer-KIND/model``: the autoencoder of stage 1 with the quantizer.

    Returns:
        A summary with the held-out error of the latents per number of codebooks, over their variance.
    """
    settings, speeds = run.config.stage2, run.config.data.speeds
    base = run.model("autoencoder")
    quantizer = make_quantizer(settings, base.autoencoder.config.latent_dim)
    folder = run.stage_folder("quantizer", settings.kind)
    with ProgressLine() as progress:
        played = "".join(f"-{speed:g}" for speed in speeds if speeds != (1.0,))
        shards, mark = run.folder / "autoencoder", base.hash[:8]
        latents = extract(base, run.train, shards / f"latents{played}-{mark}", run, device, progress, speeds)
        held_out = extract(base, run.held_out, shards / f"latents-held-out-{mark}", run, device, progress)
        began = time.monotonic()

        def report(state: FitProgress) -> None:
            error = "" if state.mse is None else f", MSE {state.mse:.4g}"
            progress(settings.kind, state.done, state.total, state.phase + error)

        quantizer.to(device)
        more: dict[str, Any] = {}
        if settings.kind == "qinco2":
            more = {"validation": held_out, "training": qinco2_training(settings.training)}
        elif settings.kind in ("rvq", "irvq"):
            more = {"k_means": settings.k_means}
        quantizer.fit(latents, seed=run.config.seed, state_dir=folder, progress=report, **more)
    tables = count_codes(quantizer, latents, held_out, device)
    errors = relative_errors(quantizer, held_out, device)
    codec = Qincodec(base.autoencoder.to(device), quantizer, tables=tables)
    rates = sorted(set(run.config.stage3.codebooks) & {n for n, _ in codec.rates()})
    scores = Validation(run.validation_clips(), quantizer, rates)(codec.autoencoder)
    codec.autoencoder.cpu()
    quantizer.cpu()
    summary = {
        "stage": "quantizer",
        "kind": settings.kind,
        "frames": len(latents),
        "hours": (time.monotonic() - began) / 3600,
        "latent_error": errors,
        "kbps": dict(codec.rates()),
        "validation": scores,
    }
    codec.save(folder / "model")
    write_json(folder / "summary.json", summary)
    return summary


def make_quantizer(settings: QuantizerStage, dim: int) -> Quantizer:
    """An unfitted quantizer. Raises UserError for an unknown kind, one that cannot be fitted here, or unknown
    options."""
    kind: type[Quantizer] = QUANTIZERS.load(settings.kind)
    if (reason := kind.unavailable()) is not None:
        raise Unavailable(reason)
    if not settings.options:
        return kind.for_rate(dim, settings.num_codebooks, settings.codebook_size)
    values = {"num_codebooks": settings.num_codebooks, "codebook_size": settings.codebook_size}
    return kind.from_config({"dim": dim, **values, **settings.options})


def count_codes(
    quantizer: Quantizer, latents: Latents, held_out: Latents, device: str = "cpu"
) -> CodeTables | None:
    """Tables to entropy-code this quantizer's codes; None if they save less than 2 % on held-out latents.

    Also None if codebooks are too large to count. Repeated latents are those of digital silence and count
    once, because repeated frames have their own mark in a file, see `qincodec.code_tables`.
    """
    sizes = quantizer.codebook_sizes
    if max(sizes) > MAX_SIZE:
        return None
    counted, others = (
        quantizer.encode(torch.from_numpy(np.unique(rows.sample(frames, seed=1), axis=0)).to(device))
        for rows, frames in ((latents, 20_000), (held_out, 2_000))
    )
    tables = CodeTables.count(counted.cpu().numpy(), sizes)
    return tables if tables.mean_bits(others.cpu().numpy()) < 0.98 * bits_per_frame(sizes) else None


def relative_errors(quantizer: Quantizer, latents: Latents, device: str) -> dict[int, float]:
    """Squared error over variance, per number of codebooks, on up to 1000 latents."""
    x = torch.from_numpy(latents.sample(1_000, seed=0)).to(device)
    variance = float((x - x.mean(0)).square().mean())
    most = quantizer.num_codebooks
    counts = range(1, most + 1) if quantizer.prefix_decodable else [most]
    return {
        n: float((quantizer.decode(quantizer.encode(x, n)) - x).square().mean()) / variance for n in counts
    }


def extract(
    codec: Qincodec,
    manifest: Manifest,
    folder: Path,
    run: TrainingRun,
    device: str,
    progress: ProgressLine,
    speeds: tuple[float, ...] = (1.0,),
) -> Latents:
    """Latents of whole recordings, in shards that are written once; an interrupted extraction continues.

    Recordings come in a seeded order until ``stage2.max_frames`` are reached, so that they are a fair sample.
    ``speeds``: as in `qincodec.training.config.DataConfig`.
    """
    recordings = Recordings(manifest, codec.sample_rate, run.folder / "cache")
    frames = sum(-(-(recordings.lengths / s).astype(np.int64) // codec.hop_length) for s in speeds)
    order = seeded_order(np.arange(len(manifest), dtype=np.uint64), run.config.seed)
    needed = order[: 1 + int(np.searchsorted(np.cumsum(frames[order]), run.config.stage2.max_frames))]
    shards = np.cumsum(frames[needed]) // _SHARD
    codec.autoencoder.to(device)
    total = int(frames[needed].sum())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(int(shards[-1]) + 1):
            path = folder / f"shard-{number:05d}.npy"
            if path.exists():
                continue
            parts: list[np.ndarray] = []
            for played in _read_ahead(recordings, needed[shards == number].tolist(), speeds, run):
                parts += _of_recording(codec, played, device, progress)
                progress("latents", min(number * _SHARD + sum(map(len, parts)), total), total)
            if not parts:
                raise UserError(f"no recording of '{manifest.folder}' can be read for '{path.name}'")
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.concatenate(parts))
    except OSError as error:
        raise UserError(f"cannot write the latents to '{folder}': {error.strerror or error}") from error
    finally:
        codec.autoencoder.cpu()
    return Latents(folder)


#: Blocks of audio (1, samples) of a recording, once for each speed.
_Played = Callable[[], Iterable[Iterable[np.ndarray]]]


def _read_ahead(
    recordings: Recordings, rows: Sequence[int], speeds: Sequence[float], run: TrainingRun
) -> Iterator[_Played]:
    """The recordings, in order. Threads read short ones while others are encoded."""

    def played(row: int) -> Iterator[Iterator[np.ndarray]]:
        length, rate = int(recordings.lengths[row]), run.config.shape.sample_rate
        for speed in speeds:
            taken = round(speed * rate)
            wanted = resampled_length(length, taken, rate)
            yield resampled_blocks(recordings.whole(row), taken, rate, length, wanted)

    def in_memory(row: int) -> list[list[np.ndarray]]:
        return [list(blocks) for blocks in played(row)]

    workers = max(1, run.config.data.workers)
    short = recordings.lengths <= _IN_MEMORY_S * run.config.shape.sample_rate
    with ThreadPoolExecutor(workers) as pool:
        jobs: deque[_Played] = deque()
        for row in rows:
            job = pool.submit(in_memory, row).result if short[row] else functools.partial(played, row)
            jobs.append(job)
            if len(jobs) > 2 * workers:
                yield jobs.popleft()
        yield from jobs


def _of_recording(codec: Qincodec, played: _Played, device: str, progress: ProgressLine) -> list[np.ndarray]:
    """Latents (frames, dim) of a recording in parts; empty, with a note, if it is damaged."""
    parts: list[np.ndarray] = []
    try:
        for signal in played():
            blocks = (torch.from_numpy(block).to(device) for block in signal)
            parts += [part[0].cpu().numpy() for part in codec.autoencoder.encode_blocks(blocks)]
        return parts
    except DamagedFile as error:
        progress.note(f"left out: {error}")
        return []
