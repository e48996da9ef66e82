"""Files are scored under the hash of their content, so they must not change after they are hashed."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from qincodec.core.errors import UserError

#: Clocks of file systems are coarse: a younger file could change again within one time stamp.
SETTLED_S = 2.0

T = TypeVar("T")


def stamp_of(status: os.stat_result) -> list[int]:
    """Stamp that changes with a file: also the change time, as copies can keep size and modification time."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def is_settled(status: os.stat_result) -> bool:
    """Whether a later change of the file will show in its stamp."""
    return time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_S


class Unchanged:
    """Reads files of known content. Its methods may be called from several threads.

    A file is hashed when it is read and again when its stamp has changed. A file that was written just now,
    whose stamp is not reliable yet, is hashed before and after every reading.

    Args:
        task: the task that hashed the files, for messages.
        again: advice if the old file is gone, for messages.
    """

    def __init__(self, task: str = "run", again: str = "evaluate again in a new run folder") -> None:
        self._task, self._again = task, again
        self._known: dict[Path, tuple[list[int], str]] = {}
        self._lock = threading.Lock()

    def read(self, path: Path, content_hash: str, read: Callable[[], T], what: str | None = None) -> T:
        """Result of ``read``, if ``path`` has the content of this hash before and after it.

        Args:
            content_hash: leading hex digits of the SHA-256 of the file's bytes.
            what: name of the file in messages; None: its path.

        Raises:
            UserError: its content differs, or it cannot be read.
        """
        what = what or f"'{path}'"
        self._check(path, content_hash, what)
        value = read()
        self._check(path, content_hash, what)
        return value

    def _check(self, path: Path, content_hash: str, what: str) -> None:
        try:
            found = self._digest(path)
        except OSError as error:
            raise UserError(
                f"{what} cannot be read: {error.strerror}; restore it where the {self._task} found it"
            ) from error
        if not found.startswith(content_hash):
            raise UserError(
                f"{what} has changed since the {self._task} began: its SHA-256 is {found[:16]} instead of "
                f"{content_hash}; restore the old file, or {self._again}"
            )

    def _digest(self, path: Path) -> str:
        stamp = stamp_of(path.stat())
        with self._lock:
            known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            status = os.fstat(file.fileno())
        if stamp_of(status) == stamp and is_settled(status):
            with self._lock:
                self._known[path] = stamp, digest
        return digest
