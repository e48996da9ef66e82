"""From files to clips: draw a subset, read and hash the files once, cut them into excerpts."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import av
import soundfile

from evaluation.datasets.base import Clip
from evaluation.datasets.unchanged import SETTLED_S, stamp_of
from evaluation.records import LowRates
from qincodec import audio
from qincodec.core.console import Progress
from qincodec.core.errors import UserError, one_line
from qincodec.core.files import cache_folder, file_sha256, whole_file

P = TypeVar("P", bound=PurePath)

#: Shortest tail of a file that is a clip with ``chunks="all"``.
MIN_TAIL_S = 1.0

# Manifests round: an excerpt that ends this close to the end of its file ends there.
_ROUNDING_S = 0.001


@dataclass(frozen=True)
class ListedFile:
    """Source of clips: a file, or an excerpt of one that a manifest names.

    Attributes:
        id: of its first clip.
        label: prefix of ``@<start>s`` in the ids of its other clips.
        path: absolute.
        recording: see `Clip`.
        category: see `Clip`.
        start_s: its start in the file, seconds.
        duration_s: its length in seconds; None: up to the end of the file.
        content_hash: the file's content in the manifest: leading hex digits of its SHA-256.
    """

    id: str
    label: str
    path: Path
    recording: str
    category: str | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    content_hash: str | None = None


def file_ids(files: Iterable[P], root: P) -> dict[P, str]:
    """Id of each file: its path below ``root`` without the extension, which is kept where ids would clash.

    Two ids clash if they differ only in case, or if one could be that of a chunk ("x@5s"). A character that
    tables cannot hold is escaped as in an address: "a%0Ab" for a line feed, "%FF" for a byte that is not
    UTF-8.
    """
    relative = {path: readable(path.relative_to(root).as_posix()) for path in files}
    stems = {path: name.removesuffix(path.suffix) for path, name in relative.items()}
    count = Counter(stem.casefold() for stem in stems.values())
    return {
        path: relative[path] if count[stem.casefold()] > 1 or re.search(r"@[\d.]+s$", stem) else stem
        for path, stem in stems.items()
    }


def readable(name: str) -> str:
    """A normalised name, with control characters and bytes that are not UTF-8 escaped."""
    return "".join(
        quote(c, errors="surrogateescape" if "\udc80" <= c <= "\udcff" else "surrogatepass")
        if unicodedata.category(c) in ("Cc", "Cs")
        else c
        for c in unicodedata.normalize("NFC", name)
    )


@dataclass
class Listing:
    """Data that were found by name, before any file is opened. See `Dataset` for the other fields.

    Attributes:
        fetch: updates files of ``entries`` that are copies in the cache; says why some have no copy.
    """

    name: str
    entries: list[ListedFile]
    excluded: list[tuple[str, str]] = field(default_factory=list)
    disclaimer: str | None = None
    notes: list[str] = field(default_factory=list)
    fetch: Callable[[Iterable[Path], Progress], Mapping[Path, str] | None] = lambda paths, progress: None


@dataclass(frozen=True)
class File:
    """A file that was read: its audio, or why it has none."""

    content_hash: str = ""
    info: audio.AudioInfo | None = None
    error: str | None = None


def excerpt_id(label: str, start_s: float) -> str:
    """``label`` for a start at 0, else ``label@<start>s`` with up to three decimals."""
    return f"{label}@{f'{start_s:.3f}'.rstrip('0').rstrip('.')}s" if start_s > 0 else label


def draw(entries: Sequence[ListedFile], limit: int, seed: int) -> list[ListedFile]:
    """The files of ``limit`` recordings drawn at random.

    Nested: a larger limit draws everything that a smaller one draws, even if files are added to the data.
    """

    names = {entry.recording for entry in entries}
    drawn = set(sorted(names, key=lambda name: drawn_at(name, seed))[:limit])
    return [entry for entry in entries if entry.recording in drawn]


def drawn_at(name: str, seed: int) -> tuple[bytes, str]:
    """Place of a recording or clip in a draw: a key that sorts names at random."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest(), name


def cut(
    entries: Iterable[ListedFile], files: dict[Path, File], chunk_s: float, chunks: Literal["first", "all"]
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Clips sorted by id, and the excluded tails, by the rule of `evaluation.datasets.load_dataset`."""
    clips: list[Clip] = []
    excluded: list[tuple[str, str]] = []
    for entry in entries:
        file = files[entry.path]
        error = file.error or _mismatch(entry, file)
        if error or file.info is None:
            clips.append(_clip(entry, entry.id, file, entry.start_s, 0.0, error))
            continue
        rate, stop = file.info.sample_rate, file.info.num_samples
        first = _samples(entry.start_s, rate)
        if entry.duration_s is not None:
            end = first + max(1, _samples(entry.duration_s, rate))
            stop = stop if end > stop - _ROUNDING_S * rate else end
        length = stop - first if math.isinf(chunk_s) else max(1, _samples(chunk_s, rate))
        starts = range(first, stop if chunks == "all" else first + 1, length)
        for start in starts:
            samples = min(length, stop - start)
            name = entry.id if start == first else excerpt_id(entry.label, start / rate)
            if start > first and samples < min(MIN_TAIL_S * rate, length):
                excluded.append((name, f"tail of {samples / rate:.3g} s, shorter than {MIN_TAIL_S:g} s"))
            else:
                clips.append(_clip(entry, name, file, start / rate, samples / rate, None))
    clips.sort(key=lambda clip: clip.id)
    for one, other in pairwise(clips):
        if one.id == other.id:
            raise UserError(
                f"two clips have the id '{one.id}' ({one.path} and {other.path}): rename one file or give "
                "each row of a manifest its own 'id'"
            )
    return clips, excluded


def _mismatch(entry: ListedFile, file: File) -> str | None:
    """Why the file does not agree with the manifest, or None."""
    expected, found, info = (entry.content_hash or "")[:16], file.content_hash, file.info
    if expected and found != expected:
        return one_line(
            f"'{entry.path}' is not the file of the manifest: its hash is {found}, not {expected}"
        )
    if info is None:
        return None
    if _samples(entry.start_s, info.sample_rate) >= info.num_samples:
        return f"'{entry.path}' lasts {info.duration_s:g} s; the manifest starts at {entry.start_s:g} s"
    end = entry.start_s + (entry.duration_s or 0.0)
    if end > info.duration_s + 10 * _ROUNDING_S:
        return f"'{entry.path}' lasts {info.duration_s:g} s; the manifest's excerpt ends at {end:g} s"
    return None


def _samples(seconds: float, sample_rate: int) -> int:
    """Rounded as `qincodec.audio.read` does."""
    return math.floor(seconds * sample_rate + 0.5)


def _clip(
    entry: ListedFile, name: str, file: File, start_s: float, duration_s: float, error: str | None
) -> Clip:
    info = file.info
    return Clip(
        id=name,
        path=entry.path,
        recording=entry.recording,
        content_hash=file.content_hash,
        start_s=start_s,
        duration_s=duration_s,
        sample_rate=info.sample_rate if info else 0,
        channels=info.channels if info else 0,
        lossy=info.lossy if info else None,
        category=entry.category,
        error=error,
    )


# --- reading and hashing, once per content ---------------------------------------------------------------


def low_rates(files: Mapping[Path, File], sample_rate: int, end: str) -> LowRates | None:
    """Number of files below a sample rate in Hz; None if zero. ``end``: end of the note."""
    rates = [file.info.sample_rate for file in files.values() if file.info is not None]
    low = [rate for rate in rates if rate < sample_rate]
    return LowRates(len(files), len(low), min(low), sample_rate, end) if low else None


def look_at(paths: Iterable[Path], progress: Progress = lambda *_: None) -> dict[Path, File]:
    """Hash and header of each file. Files with the path, size and times of the cache are not read.

    Args:
        paths: absolute; repeated ones are read once.
        progress: called before the first file and after each.
    """
    unique = list(dict.fromkeys(paths))
    progress("reading data", 0, len(unique))
    known = _read_cache()
    fresh: dict[str, Any] = {}
    files: dict[Path, File] = {}
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for path, (file, entry) in zip(unique, pool.map(lambda p: _look_at(p, known), unique), strict=True):
            files[path] = file
            if entry is not None:
                fresh[str(path)] = entry
            progress("reading data", len(files), len(unique))
    finally:
        # If interrupted, keep the finished files and begin no others.
        pool.shutdown(wait=False, cancel_futures=True)
        if fresh:
            _write_cache(fresh)
    return files


def _look_at(path: Path, known: dict[str, Any]) -> tuple[File, dict[str, Any] | None]:
    """The file, and its entry for the cache if it is new there."""
    content_hash = ""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return File(error=one_line(f"'{path}' is not a file")), None  # a pipe would block
        stamp = stamp_of(status)
        entry = known.get(str(path))
        if entry is not None and entry["stamp"] == stamp:
            return File(entry["hash"], audio.AudioInfo(**entry["info"])), None
        content_hash = file_sha256(path)[:16]
        info = audio.info(path)
    except (OSError, UserError) as error:
        message = str(error) if isinstance(error, UserError) else f"cannot read '{path}': {error.strerror}"
        return File(content_hash, error=one_line(message)), None
    except Exception as error:  # a decoder's failure on bad data concerns only this file
        return File(content_hash, error=one_line(f"'{path}': {type(error).__name__}: {error}")), None
    entry = {"stamp": stamp, "hash": content_hash, "info": asdict(info)}
    return File(content_hash, info), entry if time.time() - status.st_mtime > SETTLED_S else None


def cache_file() -> Path:
    """Cache file of hashes and headers."""
    return cache_folder() / "files.json"


def _reader() -> str:
    """Identifies the reader of headers, because another version may read other lengths."""
    home = Path(audio.__file__)
    code = home.read_bytes() + home.with_name("_audio_files.py").read_bytes()
    return hashlib.sha256(code + f"{av.__version__} {soundfile.__version__}".encode()).hexdigest()[:16]


def _read_cache() -> dict[str, Any]:
    try:
        content = json.loads(cache_file().read_bytes())
        if content["reader"] == _reader() and content["sum"] == _sum(content["files"]):
            return dict(content["files"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return {}  # absent, damaged or of another version: everything is read again


def _sum(files: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def _write_cache(fresh: dict[str, Any]) -> None:
    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files = {**_read_cache(), **fresh}
        content = {"reader": _reader(), "sum": _sum(files), "files": files}
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(content))
    except OSError:
        pass  # a cache that cannot be written costs time but does not change results
