"""Encoded clips of a run folder: a file each, or in a large run the members of tar files.

In a run of up to `MOST_FILES` clips each has a file of its own, ``encoded/POINT/CLIP.enc``. In a larger one
they are appended to ``encoded/POINT/clips-00000.tar`` and, when that is full, to the next number, as members
``CLIP.enc``, which any tar program reads. The row of a clip says in which file it is and where (`Place`); the
files have no index and no mark at their end. So nothing but the row confirms a clip: what a kill leaves
behind the last clip that a row speaks of is cut off before the file is appended to again.
"""

from __future__ import annotations

import errno
import itertools
import os
import tarfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from evaluation.rows import Place
from evaluation.run.columns import encoded_file, encoded_folder
from qincodec.core.errors import UserError
from qincodec.core.files import explain_os_errors, write_atomic

#: Up to so many clips of a run, each has a file of its own.
MOST_FILES = 10_000
#: A tar file of this many bytes is full.
FULL = 2**28

_BLOCK = tarfile.BLOCKSIZE


@dataclass
class _TarFile:
    """A tar file that is appended to."""

    number: int
    path: Path
    handle: int
    size: int
    is_synced: bool = True


class EncodedClips:
    """The encoded clips of a run. Thread-safe.

    Args:
        folder: the run folder.
        confirmed: of tar files, below the run folder: where the last clip begins that a row speaks of.
    """

    def __init__(self, folder: Path, confirmed: Callable[[], Mapping[str, int]]) -> None:
        self.folder = folder
        self._is_large = False
        self._confirmed = cache(confirmed)  # before this process appends anything
        self._files: dict[str, _TarFile] = {}  # by folder: points of rows named almost alike may share one
        self._lock = threading.Lock()

    def expect(self, num_clips: int) -> None:
        """The run has so many clips: that decides what becomes of new ones."""
        self._is_large = num_clips > MOST_FILES

    def read(self, clip_id: str, place: Place) -> bytes:
        """The bytes of a clip. Raises OSError where they are gone, UserError where something else stands."""
        path = self.folder / str(place.file)
        if place.offset is None:
            return path.read_bytes()
        with path.open("rb") as file:
            size = _size(file.fileno(), path, place.offset, clip_id)
            data = os.pread(file.fileno(), size, place.offset)
        if len(data) < size:
            raise _cut(path)
        return data

    def has(self, clip_id: str, place: Place) -> bool:
        """Whether `read` finds the clip."""
        if place.file is None:
            return False
        path = self.folder / place.file
        if place.offset is None:
            return path.is_file()
        try:
            with path.open("rb") as file:
                size = _size(file.fileno(), path, place.offset, clip_id)
                return os.fstat(file.fileno()).st_size >= place.offset + size
        except (OSError, UserError):
            return False

    def write(self, point: str, clip_id: str, data: bytes, known: Place) -> Place:
        """Keep a clip; returns where.

        Args:
            point: `Condition.point`.
            known: where it is kept so far, as its row says. It stays there if it has the same bytes.

        Raises:
            StoreError: it cannot be written.
        """
        if known.file is not None:
            with suppress(OSError, UserError):
                if self.read(clip_id, known) == data:
                    return known
        if not self._is_large:
            file = encoded_file(point, clip_id)
            write_atomic(self.folder / file, data)
            return Place(file)
        member = tarfile.TarInfo(f"{clip_id}.enc")
        member.size = len(data)
        header = member.tobuf(tarfile.PAX_FORMAT, "utf-8")
        with self._lock, explain_os_errors(self.folder / encoded_folder(point)):
            tar = self._open_file(point)
            start, rest = tar.size, header + data + bytes(-len(data) % _BLOCK)
            tar.size += len(rest)
            tar.is_synced = False
            try:
                while rest:
                    rest = rest[os.write(tar.handle, rest) :]
            except OSError:
                os.ftruncate(tar.handle, start)
                tar.size = start
                raise
        return Place(str(tar.path.relative_to(self.folder)), start + len(header))

    def sync(self) -> None:
        """Have all that was written to tar files on the disk before returning."""
        with self._lock:
            for tar in self._files.values():
                _sync(tar)

    def close(self) -> None:
        for tar in self._files.values():
            os.close(tar.handle)
        self._files.clear()

    def _open_file(self, point: str) -> _TarFile:
        """What the clips of a point are appended to."""
        folder = encoded_folder(point)
        tar = self._files.get(folder)
        if tar is None or tar.size >= FULL:
            if tar is not None:
                _sync(tar)
                os.close(self._files.pop(folder).handle)
            first = 0 if tar is None else tar.number + 1
            tar = self._files[folder] = self._opened(self.folder / folder, first)
        return tar

    def _opened(self, folder: Path, first: int) -> _TarFile:
        """The first tar file that is not full, without what no row speaks of.

        One that was cut or lost is passed over: its rows would point to what is appended now.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(first):
            path = folder / f"clips-{number:05}.tar"
            last = self._confirmed().get(str(path.relative_to(self.folder)))
            if path.is_dir() or (last is not None and not path.exists()):
                continue
            handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
            size = os.fstat(handle).st_size
            try:
                end = 0 if last is None else last + _size(handle, path, last)
            except (OSError, UserError):
                end = size + 1
            end += -end % _BLOCK
            if end <= size and end < FULL:
                os.ftruncate(handle, end)
                return _TarFile(number, path, handle, end)
            os.close(handle)
        raise AssertionError("numbers do not end")


def _size(handle: int, path: Path, offset: int, clip_id: str | None = None) -> int:
    """Of the member whose bytes begin at ``offset``, as the block before them says.

    Raises:
        FileNotFoundError: the file ends before it.
        UserError: no member begins there, or that of another clip.
    """
    block = os.pread(handle, _BLOCK, max(0, offset - _BLOCK))
    if len(block) < _BLOCK:
        raise _cut(path)
    try:
        member = tarfile.TarInfo.frombuf(block, "ascii", "replace")
        # What else the name is stands in a block further ahead.
        short = None if clip_id is None else f"{clip_id}.enc".encode("ascii", "replace")[:100]
        if short is not None and block[:100].rstrip(b"\0") != short:
            raise tarfile.HeaderError("another clip begins there")
    except tarfile.HeaderError as error:
        raise UserError(
            f"{path} is damaged at byte {offset}: {error}; give another --out to evaluate anew"
        ) from error
    return member.size


def _cut(path: Path) -> OSError:
    return FileNotFoundError(errno.ENOENT, "the file ends before it", str(path))


def _sync(tar: _TarFile) -> None:
    if not tar.is_synced:
        os.fsync(tar.handle)
        tar.is_synced = True
