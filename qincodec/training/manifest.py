"""The manifest: every audio file to train on, listed once, then memory-mapped.

A manifest is a folder. ``files.npy`` holds a record for each readable file and ``paths.bin`` their names
(both named by content, see ``manifest.json``), sorted by path, so that the order of the scan and the number
of workers do not matter. ``scan.jsonl`` keeps what each file's header said; a build that was killed goes on
from it, and a later one reads only what is new or changed (by size and time of change). ``unreadable.jsonl``
names each file that cannot be trained on, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qincodec import audio
from qincodec.core.console import Progress
from qincodec.core.errors import UserError
from qincodec.core.files import os_errors, replacing
from qincodec.training.sources import Candidate, Listing, list_source
from qincodec.training.workers import prepare_worker

__all__ = ["FILE_DTYPE", "Manifest"]

#: A file: where its name ends in ``paths.bin``, what its header says, the recording it comes from (a hash),
#: and whether reading can begin anywhere in it.
FILE_DTYPE = np.dtype(
    [
        ("path_end", "<i8"),
        ("size", "<i8"),
        ("mtime_ns", "<i8"),
        ("num_samples", "<i8"),
        ("sample_rate", "<i4"),
        ("channels", "<i4"),
        ("recording", "<u8"),
        ("seekable", "?"),
    ]
)

_FORMAT = 1
_CHUNK = 64
#: Below this number of files, starting processes takes longer than reading headers.
_ALONE = 2000


class Manifest:
    """Readable audio files in the order of their paths; a view of some of them after `split`.

    Attributes:
        hash: 16 hex digits over the paths below the source's root, lengths, rates, channels and recordings of
            the files (of the view); independent of the data's place.
        root: what the paths are relative to.
        files: (len,) records of `FILE_DTYPE`.
    """

    def __init__(self, folder: Path, rows: NDArray[np.int64] | None = None, name: str = "") -> None:
        """Use `build` or `open`."""
        self.folder = folder
        self._rows, self._name = rows, name
        self._meta = _read_meta(folder)
        self._files, self._paths = _map(folder, self._meta)
        self.root = Path(self._meta["root"])
        base: str = self._meta["hash"]
        self.hash = base if rows is None else hashlib.sha256(f"{base} {name}".encode()).hexdigest()[:16]

    def __reduce__(self) -> tuple[Any, ...]:
        # A memory map would be pickled as an array.
        return _again, (self.folder, self._rows, self._name, self.hash)

    @classmethod
    def open(cls, folder: str | Path) -> Manifest:
        """The manifest in ``folder``, as it was built; files are not checked.

        Raises:
            UserError: it is missing, unfinished or damaged.
        """
        return cls(Path(folder).absolute())

    @classmethod
    def build(
        cls,
        source: str | Path,
        folder: str | Path,
        *,
        workers: int | None = None,
        exclude_audiocaps: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Manifest:
        """List ``source``, read the headers of new and changed files, and open the manifest.

        After a kill at any moment, the next call continues. If nothing has changed since the last time, no
        file is opened. Takes about 1 KB of memory per file.

        Args:
            source: a folder, a JSON-lines manifest, or WavCaps' folder: see `qincodec.training.sources`.
            folder: of the manifest; made if necessary.
            workers: processes that read headers; None: one per core.
            exclude_audiocaps: a CSV list of AudioCaps, or the folder of its lists.
            progress: called now and then.

        Raises:
            UserError: the source does not exist or has no readable file, or the folder cannot be written to.
        """
        source, folder = Path(source).expanduser(), Path(folder).expanduser().absolute()
        if workers is not None and workers < 1:
            raise UserError(f"{workers} workers cannot read headers; give 1 or more")
        listing = list_source(
            source, None if exclude_audiocaps is None else Path(exclude_audiocaps).expanduser()
        )
        with os_errors(f"cannot write the manifest '{folder}'"):
            folder.mkdir(parents=True, exist_ok=True)
            state = listing.hash()
            if (folder / "manifest.json").exists():
                try:
                    manifest = cls(folder)
                except UserError:  # an older format, or damaged: built again
                    pass
                else:
                    if manifest._meta["state"] == state:
                        return manifest
            scanned = _scan(listing, folder, workers or os.cpu_count() or 1, progress)
            _write(listing, folder, scanned, state, str(source.absolute()))
        return cls(folder)

    def __len__(self) -> int:
        return len(self._files if self._rows is None else self._rows)

    @cached_property
    def files(self) -> NDArray[np.void]:
        return self._files if self._rows is None else np.asarray(self._files)[self._rows]

    @cached_property
    def total_s(self) -> float:
        """Seconds of audio."""
        return float(np.sum(self.files["num_samples"] / self.files["sample_rate"]))

    def id(self, index: int) -> str:
        """The path of a file below the root (absolute if it is elsewhere)."""
        row = int(index if self._rows is None else self._rows[index])
        start = int(self._files["path_end"][row - 1]) if row else 0
        return os.fsdecode(self._paths[start : int(self._files["path_end"][row])].tobytes())

    def path(self, index: int) -> Path:
        """Where a file is."""
        return self.root / self.id(index)

    def split(self, fraction: float, seed: int) -> tuple[Manifest, Manifest]:
        """Split into the rest (to train on) and a development slice, by recording.

        All files of a recording go to the same side. Recordings are taken in an order that ``seed`` decides,
        each if the slice stays within ``fraction`` of the time, so that a long one does not fill it.

        Args:
            fraction: of the total time, between 0 and 1.
            seed: of the order.

        Raises:
            UserError: the fraction is out of range, or the recordings are so few and long that none fits.
        """
        if not 0 < fraction < 1:
            raise UserError(f"a development slice of {fraction:g} of the data: give more than 0, less than 1")
        files = self.files
        recordings, which = np.unique(files["recording"], return_inverse=True)
        seconds = np.bincount(which, weights=files["num_samples"] / files["sample_rate"])
        limit, held, taken = fraction * self.total_s, 0.0, np.zeros(len(recordings), dtype=bool)
        for index in seeded_order(recordings, seed):
            if held + seconds[index] <= limit:
                taken[index] = True
                held += float(seconds[index])
        if not taken.any():
            raise UserError(
                f"no recording fits into {fraction:g} of {self.total_s:.0f} s: all {len(recordings)} have "
                f"{seconds.min():.0f} s or more; give a larger fraction or more recordings"
            )
        rows = np.arange(len(self._files)) if self._rows is None else self._rows
        name = f"{self._name}/{fraction!r} {seed}"
        held_out = taken[which]
        return (
            Manifest(self.folder, rows[~held_out], f"{name} train"),
            Manifest(self.folder, rows[held_out], f"{name} dev"),
        )

    def summary(self) -> dict[str, Any]:
        """Counts of the files (of the view), and of files left out of the whole, as JSON values."""
        files = self.files
        seconds = files["num_samples"] / files["sample_rate"]
        needs_cache = ~files["seekable"]

        def per(field: str) -> dict[str, int]:
            values, counts = np.unique(files[field], return_counts=True)
            return {str(value): int(count) for value, count in zip(values, counts, strict=True)}

        return {
            "hash": self.hash,
            "source": self._meta["source"],
            "kind": self._meta["kind"],
            "files": len(self),
            "hours": self.total_s / 3600,
            "recordings": len(np.unique(files["recording"])),
            "shortest_s": float(seconds.min()),
            "longest_s": float(seconds.max()),
            "sample_rates": per("sample_rate"),
            "channels": per("channels"),
            "not_seekable": int(needs_cache.sum()),
            "not_seekable_hours": float(seconds[needs_cache].sum()) / 3600,
            "unreadable": self._meta["unreadable"],
            "unreadable_log": str(self.folder / "unreadable.jsonl"),
            "excluded": self._meta["excluded"],
            "notes": self._meta["notes"],
        }


def _again(folder: Path, rows: NDArray[np.int64] | None, name: str, expected: str) -> Manifest:
    manifest = Manifest(folder, rows, name)
    if manifest.hash != expected:
        raise UserError(f"manifest '{folder}' was built again while it was in use; start again")
    return manifest


def seeded_order(recordings: NDArray[np.uint64], seed: int) -> NDArray[np.int64]:
    """An order of recordings by ``seed``, which added or removed recordings do not change."""
    keys = [hashlib.blake2b(int(r).to_bytes(8, "little") + str(seed).encode()).digest() for r in recordings]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


# --- reading headers -----------------------------------------------------------------------------------

#: Content of a header: samples per channel, sample rate, channels, seekable; or why it cannot be read.
Header = tuple[int, int, int, bool] | str


def _probe(root: str, candidates: list[Candidate]) -> list[Header]:
    headers: list[Header] = []
    for candidate in candidates:
        try:
            info = audio.info(os.path.join(root, candidate.path))  # noqa: PTH118 - may hold surrogates
            headers.append((info.num_samples, info.sample_rate, info.channels, _seekable(info)))
        except UserError as error:
            headers.append(str(error))
        except Exception as error:  # any error of the libraries concerns only this file
            headers.append(f"{candidate.path!r}: {type(error).__name__}: {error}")
    return headers


def _seekable(info: audio.AudioInfo) -> bool:
    """Whether `audio.read` can seek in the file instead of decoding it from its beginning.

    libsndfile's names of codings are in capitals.
    """
    return info.format != "OGG" and info.codec.startswith(("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW"))


def _scan(listing: Listing, folder: Path, workers: int, progress: Progress | None) -> dict[str, Header]:
    """The header of each candidate by path, from earlier scans if the file is unchanged."""
    log = folder / "scan.jsonl"
    wanted = {candidate.path: candidate for candidate in listing.candidates}
    headers: dict[str, Header] = {}
    for path, size, mtime_ns, header in _scanned(log):
        candidate = wanted.get(path)
        # Unreadable files may be readable now.
        if candidate and (size, mtime_ns) == candidate[1:3] and not isinstance(header, str):
            headers[candidate.path] = header
    todo = [candidate for candidate in listing.candidates if candidate.path not in headers]
    chunks = [todo[first : first + _CHUNK] for first in range(0, len(todo), _CHUNK)]
    with log.open("ab") as stream:
        stream.write(b"\n")  # after a line that a kill cut short
        for chunk, found in _probed(str(listing.root), chunks, workers if len(todo) > _ALONE else 1):
            lines = [json.dumps([*c[:3], header]) for c, header in zip(chunk, found, strict=True)]
            stream.write("".join(f"{line}\n" for line in lines).encode())
            stream.flush()
            headers.update(zip((c.path for c in chunk), found, strict=True))
            if progress:
                progress("reading headers", len(headers), len(wanted))
    return headers


def _scanned(log: Path) -> Iterator[tuple[str, int, int, Header]]:
    if not log.exists():
        return
    with log.open("rb") as stream:
        for line in stream:
            try:
                path, size, mtime_ns, header = json.loads(line)
                yield path, size, mtime_ns, header if isinstance(header, str) else tuple(header)
            except (ValueError, TypeError):  # empty, or cut short by a kill
                continue


def _probed(
    root: str, chunks: list[list[Candidate]], workers: int
) -> Iterator[tuple[list[Candidate], list[Header]]]:
    """Each chunk with its headers, in any order."""
    if workers == 1:
        yield from ((chunk, _probe(root, chunk)) for chunk in chunks)
        return
    # Spawned, because a fork would copy the locks of threads.
    context = multiprocessing.get_context("spawn")
    running: dict[Future[list[Header]], list[Candidate]] = {}
    executor = ProcessPoolExecutor(workers, context, initializer=prepare_worker)
    try:
        waiting = iter(chunks)
        while True:
            for chunk in islice(waiting, 4 * workers - len(running)):
                running[executor.submit(_probe, root, chunk)] = chunk
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process that read headers died, by lack of memory or by a library that fails on a file; call "
            "again to continue, with one worker (which dies at this file) if it happens again"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


# --- the files of a manifest ---------------------------------------------------------------------------


def _write(listing: Listing, folder: Path, headers: dict[str, Header], state: str, source: str) -> None:
    names: list[bytes] = []
    unreadable: list[dict[str, str]] = []
    table = np.empty(len(listing.candidates), dtype=FILE_DTYPE)
    end = 0
    for candidate in listing.candidates:  # sorted
        header = headers[candidate.path]
        if isinstance(header, str):
            unreadable.append({"path": candidate.path, "reason": header})
            continue
        name = os.fsencode(candidate.path)
        end += len(name)
        digest = hashlib.blake2b(candidate.recording.encode("utf-8", "surrogateescape"), digest_size=8)
        recording = int.from_bytes(digest.digest(), "little")
        *sizes, seekable = header
        table[len(names)] = (end, candidate.size, candidate.mtime_ns, *sizes, recording, seekable)
        names.append(name)
    table, blob = table[: len(names)], b"".join(names)
    with replacing(folder / "unreadable.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in unreadable))
    if not names:
        raise UserError(
            f"none of the {len(unreadable)} audio files of '{source}' can be read, such as"
            f" {unreadable[0]['reason']}; all are in '{folder / 'unreadable.jsonl'}'"
        )
    content = hashlib.sha256(blob)
    for field in ("path_end", "size", "num_samples", "sample_rate", "channels", "recording"):
        content.update(np.ascontiguousarray(table[field]).tobytes())
    meta = {
        "format": _FORMAT,
        "state": state,
        "hash": content.hexdigest()[:16],
        # Not the hash: times of change are in the table too.
        "table": hashlib.sha256(table.tobytes() + blob).hexdigest()[:16],
        "source": source,
        "root": str(listing.root),
        "kind": listing.kind,
        "files": len(table),
        "unreadable": len(unreadable),
        "excluded": listing.excluded,
        "notes": listing.notes,
    }
    for path in _parts(folder, meta):
        with replacing(path) as temporary, temporary.open("wb") as stream:
            if path.suffix == ".npy":
                np.save(stream, table, allow_pickle=False)
            else:
                stream.write(blob)
    with replacing(folder / "manifest.json") as temporary:
        temporary.write_text(json.dumps(meta, indent=1) + "\n")
    for old in [*folder.glob("files-*.npy"), *folder.glob("paths-*.bin")]:
        if old not in _parts(folder, meta):
            old.unlink(missing_ok=True)


def _parts(folder: Path, meta: dict[str, Any]) -> tuple[Path, Path]:
    return folder / f"files-{meta['table']}.npy", folder / f"paths-{meta['table']}.bin"


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no finished manifest in '{folder}'; build it first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"manifest '{path}' cannot be read: {error}") from error
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise UserError(f"'{path}' is not a manifest of this version; delete the folder and build it again")
    return meta


def _map(folder: Path, meta: dict[str, Any]) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
    table, blob = _parts(folder, meta)
    try:
        files: NDArray[np.void] = np.load(table, mmap_mode="r", allow_pickle=False)
        paths: NDArray[np.uint8] = np.memmap(blob, dtype=np.uint8, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"manifest '{folder}' is damaged ({error}); delete it and build it again") from error
    if files.dtype != FILE_DTYPE or len(files) != meta["files"] or files["path_end"][-1] != len(paths):
        raise UserError(f"manifest '{folder}' is damaged: sizes differ; delete it and build it again")
    return files, paths
