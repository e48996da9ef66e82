"""``evaluate tokenize``: the codes of a data set as arrays, to train language models on.

A folder holds ``tokens.json`` (the request and, at the end, the result), ``index.parquet`` (a row per clip)
and shards, ``shard-00000.safetensors``: an array per clip under the clip's id. Clips can be read in any order
without the rest, nothing is unpickled, and the same request gives the same bytes.

A finished batch is kept, in ``.partial/`` until its shard is whole, so that an interrupted run continues
there. Batches depend only on data and batch size: kernels may round differently in another batch.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from baselines.codec import Codec, Rate, check_encoded
from evaluation.datasets import load_dataset
from evaluation.datasets.base import Clip, Dataset
from evaluation.engine.cluster import Cluster, on_this_host
from evaluation.engine.coding import Coder, make_batches
from evaluation.engine.conditions import PreparedCondition, prepare_conditions
from evaluation.engine.ledger import Gathered
from evaluation.engine.request import ParsedRequest
from evaluation.engine.token_batches import NO_CODES, Tokens, TokensJob, encode_batch, row_of
from evaluation.engine.worker import identities
from evaluation.records import loads, short
from evaluation.run.environment import usable_cores
from evaluation.run.store import lock_folder
from qincodec.codec import check_device
from qincodec.core.console import Progress
from qincodec.core.errors import UserError
from qincodec.core.files import explain_os_errors, write_atomic
from qincodec.core.plugins import FAULTS

#: Clips of a shard.
SHARD_CLIPS = 1024
_DESCRIPTION = "tokens.json"
#: Columns of a row about codes.
_FOUND = ("codebooks", "frames", "sizes", "error")


@dataclass(frozen=True)
class Tokenized:
    """Result of a run.

    Attributes:
        folder: of it.
        clips: that have codes.
        failed: that have none.
        tokens: codes of all codebooks of all clips.
        duration_s: of the clips that have codes.
        rate: operating point of the codec.
        notes: notes on the data.
    """

    folder: Path
    clips: int
    failed: int
    tokens: int
    duration_s: float
    rate: Rate
    notes: tuple[str, ...] = ()


def tokenize(
    request: ParsedRequest,
    out: Path,
    failed: str | None = None,
    progress: Progress = lambda *_: None,
    note: Callable[[str], None] = lambda line: None,
) -> Tokenized:
    """Write the codes of a data set to a folder; a run that was interrupted continues.

    Args:
        request: with one codec and one bitrate, which selects the nearest nominal operating point.
        failed: why a download of its weights failed.
        progress: called with clips done and their number, from any thread.
        note: called with a line about workers of a cluster that come or go.

    Raises:
        UserError: the codec has no codebooks or cannot run, or the folder holds something else.
        StoreError: the folder cannot be written.
    """
    here = on_this_host(request)
    check_device(here.typed.device)
    ((prepared, *_), _) = prepare_conditions(here, failed)
    codec = prepared.codec
    if codec is None or prepared.rate is None:
        raise UserError("--codec is missing; tokens come from a codec")
    settings = request.typed.settings
    dataset = load_dataset(
        request.typed.data,
        chunk_s=settings.chunk_s,
        chunks=settings.chunks,
        limit=settings.limit,
        seed=settings.seed,
        sample_rate=codec.sample_rate,
        progress=progress,
        **request.typed.dataset_options,
    )
    asked = _describe(request, prepared, codec, dataset)
    _check_folder(out, asked)
    _check_codec(codec, prepared.rate, settings.channels)
    work = _Tokenizer(prepared.condition.codec, prepared.rate, request.typed.batch_size, out)
    address, workers = request.typed.cluster, request.typed.workers or usable_cores()
    with _locked(out), _one_thread():
        _check_folder(out, asked)  # another process may have written to it
        write_atomic(out / _DESCRIPTION, _as_json(asked))
        with (
            _cluster(request, address, prepared, note)
            if address is not None
            else _threads(codec, settings.channels, workers)
        ) as each:
            rows = work.all_shards(dataset.clips, each, progress)
        return replace(_finish(out, asked, rows, prepared.rate), notes=tuple(dataset.notes))


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    with explain_os_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        handle = lock_folder(out)
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Workers in parallel, as in an evaluation; any number of them gives the same bytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check_codec(codec: Codec, rate: Rate, channels: int) -> None:
    """Refuse a codec without codes before it encodes all data."""
    try:
        silence = torch.zeros(1, channels, codec.sample_rate, device=codec.device)
        (encoded,) = check_encoded(codec.name, codec.encode(silence, rate), 1)
    except KeyboardInterrupt:
        raise
    except FAULTS:
        return  # the rows will report failures on the data
    if encoded.codes is None:
        raise UserError(NO_CODES.format(codec.name))


def _describe(
    request: ParsedRequest, prepared: PreparedCondition, codec: Codec, dataset: Dataset
) -> dict[str, Any]:
    condition, settings = prepared.condition, request.typed.settings
    return {
        "codec": condition.codec,
        "identity": condition.identity,
        "kbps": condition.nominal,
        "rate": condition.settings,
        "sample_rate": codec.sample_rate,
        "channels": settings.channels,
        "data": dataset.name,
        "data_hash": dataset.hash,
        "clips": len(dataset.clips),
        "longest_clip_s": settings.chunk_s,
        "batch_size": request.typed.batch_size,
        "shard_clips": SHARD_CLIPS,
    }


def _as_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _check_folder(out: Path, asked: Mapping[str, Any]) -> None:
    """Refuse a folder that holds something else."""
    try:
        known = loads((out / _DESCRIPTION).read_bytes())
        if not isinstance(known, dict):
            raise ValueError("it is not a JSON object")
    except FileNotFoundError:
        if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
            raise UserError(f"{out} is not empty and does not hold tokens; choose another --out") from None
        return
    except (OSError, ValueError) as error:
        raise UserError(f"{out / _DESCRIPTION} cannot be read: {error}; choose another --out") from error
    if different := "; ".join(_differences(known, asked)):
        raise UserError(
            f"{out} holds other tokens: {different}; choose another --out, or repeat the old options to "
            "continue"
        )


#: Keys that differ whenever one of these does; messages leave them out.
_FOLLOWS = {
    "identity": {"codec"},
    "sample_rate": {"codec", "identity"},
    "rate": {"codec", "identity", "kbps"},
    "data_hash": {"data"},
    "clips": {"data"},
}


def _differences(known: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    """Differences between the stored tokens and the request, in words, each once."""
    other = [name for name in asked if known.get(name) != asked[name]]
    for name in other:
        was, now = known.get(name), asked[name]
        if _FOLLOWS.get(name, set()) & {*other}:
            continue
        if name == "identity":
            parts = [part for part in now if not isinstance(was, dict) or was.get(part) != now[part]]
            yield f"codec {asked['codec']} has changed ({', '.join(parts) or 'its identity'})"
        elif name == "rate":
            yield f"the settings of {asked['kbps']} kbps have changed"
        elif name == "data_hash":
            yield f"the clips of {asked['data']} have changed"
        else:
            yield f"{name.replace('_', ' ')} was {short(was)}, now {short(now)}"


#: Encodes every batch once and keeps it.
_Each = Callable[[Sequence[TokensJob]], None]


@contextmanager
def _threads(codec: Codec, channels: int, workers: int) -> Iterator[_Each]:
    coder = Coder(Gathered(), codec.sample_rate, channels)

    def do(job: TokensJob) -> None:
        job.take(encode_batch(codec, job.rate, coder, job.members))

    with ThreadPoolExecutor(workers) as pool:
        try:
            yield lambda jobs: [*pool.map(do, jobs)].clear()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _cluster(
    request: ParsedRequest, address: str, prepared: PreparedCondition, note: Callable[[str], None]
) -> Iterator[_Each]:
    expected = identities({prepared.condition.codec: prepared.condition.identity}, [], [])
    with Cluster(address, request, expected, note) as cluster:
        yield cluster.each


@dataclass(frozen=True)
class _Tokenizer:
    label: str
    rate: Rate
    batch_size: int
    out: Path

    def all_shards(self, clips: Sequence[Clip], each: _Each, progress: Progress) -> list[dict[str, Any]]:
        """Rows of the index for all clips, in order."""
        rows: list[dict[str, Any]] = []

        def shown(start: int, done: int) -> None:
            progress("tokenizing", start + done, len(clips))

        for number, start in enumerate(range(0, len(clips), SHARD_CLIPS)):
            shown(start, 0)
            mine = clips[start : start + SHARD_CLIPS]
            path = self.out / f"shard-{number:05d}.safetensors"
            own = _read_rows(path, mine)
            if own is None or any(row["error"] for row in own):  # what failed is tried again
                own = self._shard(path, mine, each, partial(shown, start))
            rows += [row | {"shard": path.name} for row in own]
        return rows

    def _shard(
        self, path: Path, clips: Sequence[Clip], each: _Each, on_done: Callable[[int], None]
    ) -> list[dict[str, Any]]:
        parts = self.out / ".partial"
        batches = make_batches(clips, self.batch_size)
        files = [parts / f"{path.stem}-{number:04d}.safetensors" for number in range(len(batches))]
        self._take_apart(path, clips, batches, files)
        done, lock = 0, threading.Lock()

        def count(more: int) -> None:
            nonlocal done
            with lock:
                done += more
                on_done(done)

        def keep(file: Path, found: Tokens) -> None:
            _write(file, found.arrays, found.rows)
            count(len(found.rows))

        todo = []
        for batch, file in zip(batches, files, strict=True):
            known = _read_rows(file, batch)
            if known is None or any(row["error"] for row in known):
                todo.append(TokensJob(batch, batch, self.label, self.rate, partial(keep, file)))
            else:
                count(len(batch))
        each(todo)
        arrays = {name: array for file in files for name, array in load_file(file).items()}
        parts_rows = zip(files, batches, strict=True)
        rows = [row for file, batch in parts_rows for row in _read_rows(file, batch) or []]
        rows.sort(key=lambda row: str(row["id"]))
        _write(path, arrays, rows)
        for file in files:
            file.unlink()
        return rows

    def _take_apart(
        self, path: Path, clips: Sequence[Clip], batches: Sequence[Sequence[Clip]], files: Sequence[Path]
    ) -> None:
        """Keep the good clips of a shard in which others have failed."""
        known = {row["id"]: row for row in _read_rows(path, clips) or []}
        if not known:
            return
        arrays = load_file(path)
        for batch, file in zip(batches, files, strict=True):
            rows = [known[clip.id] for clip in batch]
            if not any(row["error"] for row in rows):
                _write(file, {clip.id: arrays[clip.id] for clip in batch}, rows)


# --- files -----------------------------------------------------------------------------------------------


def _write(path: Path, arrays: Mapping[str, np.ndarray], rows: Sequence[Mapping[str, Any]]) -> None:
    """Arrays and, in the header, their rows, as one entry: safetensors writes several in any order."""
    write_atomic(path, save(dict(arrays), {"clips": json.dumps(rows)}))


def _read_rows(path: Path, clips: Sequence[Clip]) -> list[dict[str, Any]] | None:
    """None if the file is missing, incomplete, or of other clips: folders are copied and edited."""
    try:
        with safe_open(path, "numpy") as file:
            rows: list[dict[str, Any]] = loads(file.metadata()["clips"])
            for clip, row in zip(clips, rows, strict=True):
                if row != row_of(clip, "") | {name: row[name] for name in _FOUND}:
                    return None
            good = {row["id"]: sum(row["frames"]) for row in rows if row["error"] is None}
            sizes = {name: math.prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return rows if good == sizes else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _finish(out: Path, asked: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], rate: Rate) -> Tokenized:
    """Write the index, and the result to ``tokens.json``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = [row for row in rows if row["error"] is None]
    if not good:
        raise UserError(f"none of the {len(rows)} clips has tokens; the first one: {rows[0]['error']}")
    ragged = any(len(set(row["frames"])) > 1 for row in good)
    columns: dict[str, tuple[pa.DataType, Any]] = {
        "id": (pa.string(), lambda row: row["id"]),
        "shard": (pa.string(), lambda row: row["shard"]),
        "recording": (pa.string(), lambda row: row["recording"]),
        "category": (pa.string(), lambda row: row["category"]),
        "start_s": (pa.float64(), lambda row: row["start_s"]),
        "duration_s": (pa.float64(), lambda row: row["duration_s"]),
        "codebooks": (pa.int32(), lambda row: row["codebooks"]),
        "frames": (pa.int64(), lambda row: max(row["frames"], default=0)),
        "error": (pa.string(), lambda row: row["error"]),
    }
    if ragged:
        columns["codebook_frames"] = (pa.list_(pa.int64()), lambda row: row["frames"])
    table = pa.table({name: pa.array(map(of, rows), kind) for name, (kind, of) in columns.items()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_atomic(out / "index.parquet", sink.getvalue().to_pybytes())
    tokens, duration_s = sum(sum(row["frames"]) for row in good), sum(row["duration_s"] for row in good)
    found = Tokenized(out, len(good), len(rows) - len(good), tokens, duration_s, rate)
    result = {
        "codebook_sizes": good[0]["sizes"],
        "clips_with_tokens": found.clips,
        "clips_failed": found.failed,
        "tokens": tokens,
        "duration_s": duration_s,
    }
    write_atomic(out / _DESCRIPTION, _as_json({**asked, "result": result}))
    for path in out.glob("shard-*.safetensors"):
        if path.name not in {row["shard"] for row in rows[::SHARD_CLIPS]}:
            path.unlink()  # the index does not use it
    shutil.rmtree(out / ".partial", ignore_errors=True)
    return found
