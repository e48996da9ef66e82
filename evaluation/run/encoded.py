"""Encoded clips of a run folder: one file each, or in a large run members of tar files.

In a run of up to `MOST_FILES` clips each has a file of its own, ``encoded/POINT/CLIP.enc``. In a larger one
they are appended to ``encoded/POINT/clips-00000.tar`` and, when that is full, to the next number, as members
``CLIP.enc``, which any tar program reads. The row of a clip has its file and offset (`Place`); the files have
no index and no end mark. So only the row confirms a clip: bytes that a kill left behind the last confirmed
clip are cut off before the file is appended to again.
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

#: Greatest number of clips of a run with a file for each.
MOST_FILES = 10_000
#: Size at which a tar file is full, bytes.
FULL = 2**28

_BLOCK = tarfile.BLOCKSIZE


@dataclass
class _TarFile:
    """A tar file that grows by appending."""

    number: int
    path: Path
    handle: int
    size: int
    is_synced: bool = True


class EncodedClips:
    """The encoded clips of a run. Thread-safe.

    Args:
        folder: the run folder.
        confirmed: tar file, below the run folder -> start of the last clip that has a row.
    """

    def __init__(self, folder: Path, confirmed: Callable[[], Mapping[str, int]]) -> None:
        self.folder = folder
        self._is_large = False
        self._confirmed = cache(confirmed)  # before this process appends anything
        self._files: dict[str, _TarFile] = {}  # by folder: points with similar names may share one
        self._lock = threading.Lock()

    def expect(self, num_clips: int) -> None:
        """Set the run's number of clips, which decides how new ones are kept."""
        self._is_large = num_clips > MOST_FILES

    def read(self, clip_id: str, place: Place) -> bytes:
        """Bytes of a clip. Raises OSError if they are gone, UserError if others are in their place."""
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
        """Keep a clip; returns its place.

        Args:
            point: `Condition.point`.
            known: its present place, from its row. It stays there if it has the same bytes.

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
        """Flush the tar files to the disk."""
        with self._lock:
            for tar in self._files.values():
                _sync(tar)

    def close(self) -> None:
        for tar in self._files.values():
            os.close(tar.handle)
        self._files.clear()

    def _open_file(self, point: str) -> _TarFile:
        """The tar file to append a point's clips to."""
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
        """The first tar file that is not full, without bytes that have no row.

        A file that was cut or lost is skipped: its rows would point to the newly appended clips.
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
    """Size of the member whose bytes begin at ``offset``, from the block before them.

    Raises:
        FileNotFoundError: the file ends before it.
        UserError: no member begins there, or another clip's.
    """
    block = os.pread(handle, _BLOCK, max(0, offset - _BLOCK))
    if len(block) < _BLOCK:
        raise _cut(path)
    try:
        member = tarfile.TarInfo.frombuf(block, "ascii", "replace")
        # The block has the first 100 bytes of a name; an earlier one has the rest.
        short = None if clip_id is None else f"{clip_id}.enc".encode("ascii", "replace")[:100]
        if short is not None and block[:100].rstrip(b"\0") != short:
            raise tarfile.HeaderError("another clip begins there")
    except tarfile.HeaderError as error:
        raise UserError(
            f"{path} is damaged at byte {offset}: {error}; evaluate again with another --out"
        ) from error
    return member.size


def _cut(path: Path) -> OSError:
    return FileNotFoundError(errno.ENOENT, "the file ends before it", str(path))


def _sync(tar: _TarFile) -> None:
    if not tar.is_synced:
        os.fsync(tar.handle)
        tar.is_synced = True
