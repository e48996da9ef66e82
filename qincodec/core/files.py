"""Files: written whole or not at all, named safely, hashed; and messages for errors of the system."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from qincodec.core.errors import UserError


class StoreError(UserError):
    """A result cannot be written. This ends the work; other errors only fail their clip."""


#: Greatest length of a file's or folder's name, bytes.
_LONGEST_PART = 255


def safe_name(text: str) -> str:
    """A label or rate as one folder name: anything but letters, digits, ``._@+-`` becomes ``_``."""
    return re.sub(r"[^\w.@+-]", "_", text).lstrip(".") or "_"


def fitting(path: str) -> str:
    """A path below a folder, with parts of at most 255 bytes, as file systems allow.

    A longer part is cut, and gets a hash of the whole part before its suffix.
    """
    if 4 * len(path) <= _LONGEST_PART:
        return path
    return "/".join(map(_fitting, path.split("/")))


def _fitting(part: str) -> str:
    data = part.encode("utf-8", "surrogateescape")
    if len(data) <= _LONGEST_PART:
        return part
    suffix = Path(part).suffix if len(Path(part).suffix) < 8 else ""
    end = f"-{hashlib.sha256(data).hexdigest()[:16]}{suffix}"
    # Drop a character that was cut in two.
    return data[: _LONGEST_PART - len(end.encode())].decode("utf-8", "ignore") + end


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits; a file of any size is read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Cache of downloaded and computed files for all programs: ``$QINCODEC_CACHE``, or the user's."""
    return Path(os.environ.get("QINCODEC_CACHE") or platformdirs.user_cache_dir("qincodec")).expanduser()


@contextmanager
def os_errors(what: str) -> Iterator[None]:
    """Turn errors of the system inside into a UserError: ``what`` failed, and the system's reason."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: {error.strerror or error}") from error


#: Advice if the system forbids writing to a folder.
ELSEWHERE = "choose a folder you may write to"


@contextmanager
def explain_os_errors(path: Path, advice: str = ELSEWHERE) -> Iterator[None]:
    """Turn errors of the file system into one line for the user.

    Args:
        path: the file or folder to write.
        advice: advice, unless the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"disk full while writing {path}: free some space and run the same command again"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            message = f"cannot write {path}: a file is in the way; {advice}"
        else:
            message = f"cannot write {path}: {error.strerror or error}; {advice}"
        raise StoreError(message) from error


@contextmanager
def whole_file(path: Path, *, large: bool = False) -> Iterator[Path]:
    """A new, empty file beside ``path`` that replaces it if the block succeeds, and is deleted if it fails.

    Args:
        path: its folder must exist.
        large: for gigabytes of state, written by one process at a time. It is flushed to the disk before it
            replaces the good file, and has one temporary name, so that kills leave at most one such file.
    """
    # Not `tempfile`: only the owner may read its files, also under their final name.
    temporary = path.with_name(f".writing-{path.name if large else f'{secrets.token_hex(8)}.tmp'}")
    try:
        temporary.open("wb" if large else "xb").close()
        yield temporary
        if large:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path, *, large: bool = False) -> Iterator[Path]:
    """`whole_file` for a file named by the user.

    Raises:
        UserError: the system forbids writing it, also inside the block.
    """
    with os_errors(f"cannot write '{path}'"), whole_file(path, large=large) as temporary:
        yield temporary


@contextmanager
def result_file(path: Path) -> Iterator[Path]:
    """`whole_file` for a file of a result folder, which is made if necessary. Raises StoreError."""
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            yield temporary


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file of a result folder, which is made if necessary. Raises StoreError."""
    with result_file(path) as temporary:
        # Bytes of file names that are not UTF-8 are written as JSON's and Python's escapes.
        temporary.write_bytes(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)


def link_or_copy(path: Path, target: Path) -> None:
    """A hard link to a file, or a copy if a link is impossible; whole or not at all."""
    # Not `whole_file`: a link cannot replace a file. One temporary name, so that a kill leaves at most one.
    temporary = target.with_name(f".writing-{target.name}")
    with explain_os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
                raise
            shutil.copyfile(path, temporary)
        temporary.replace(target)
