"""Data at an address that fsspec reads (``s3://``, ``gs://``, ``hf://``, ``https://``), copied to the cache.

A copy has the path of its address, so that the rest of the program sees a local folder. It is kept as long as
the address shows the same checksum (or else size and time) as when it was fetched.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from baselines.weights import is_offline, where_allowed
from qincodec.audio import EXTENSIONS
from qincodec.core.console import Progress
from qincodec.core.errors import UserError, one_line, said
from qincodec.core.files import cache_folder, explain_os_errors, whole_file, write_atomic

_ADDRESS = re.compile(r"(?!(?:file|local)://)[A-Za-z][\w+.-]*(?:::[A-Za-z][\w+.-]*)*://")
_WEB = ("http", "https")
_DRIVERS = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(_WEB, "aiohttp requests"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "hf": "huggingface_hub",
}
# File systems' names of a file's checksum, and of the time of its last change; without "-" and "_".
_CHECKSUMS = {"etag", "md5", "md5hash", "contentmd5", "digest", "checksum", "blobid", "sha", "sha256", "crc"}
_TIMES = {"lastmodified", "mtime", "modified", "modify", "updated", "created", "lastwritetime", "datetime"}
_AT_ONCE = 8
_KEPT = "copies in the cache are kept; run the same command again to continue"


def is_address(data: object) -> bool:
    """Whether ``data`` is an address; ``file://`` is a local path."""
    return isinstance(data, str) and _ADDRESS.match(data) is not None


def without_secrets(text: str) -> str:
    """``text`` without passwords and queries (which may hold tokens) in its addresses."""
    text = re.sub(r"\b(https?://)[^/@\s'\"]*@", r"\1", text)
    text = re.sub(r"\b([A-Za-z][\w+.-]*://)[^/@:\s'\"]*:[^/@\s'\"]*@", r"\1", text)
    return re.sub(r"\b([A-Za-z][\w+.-]*://[^\s'\"?]*)\?[^\s'\")]*", r"\1", text)


@dataclass(frozen=True, slots=True)
class Address:
    """``scheme://path?query::chain``, as fsspec takes it; only web addresses have a query."""

    scheme: str
    path: str
    query: str = ""
    chain: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        head, colons, chain = text.partition("::")
        if "://" not in head:  # "filecache::s3://": the first part has no path of its own
            raise UserError(f"'{without_secrets(text)}' wraps an address; give the address itself")
        scheme, _, path = head.partition("://")
        query = ""
        if scheme.lower() in _WEB:
            path, mark, query = path.partition("#")[0].partition("?")
            query = mark + query
        return cls(scheme.lower(), path.rstrip("/"), query, colons + chain)

    @property
    def url(self) -> str:
        """The complete address, to read from."""
        return f"{self.scheme}://{self.path}{self.query}{self.chain}"

    @property
    def shown(self) -> str:
        """The address without secrets, for messages and files."""
        return without_secrets(self.url)

    @property
    def local(self) -> Path:
        """Path of its copy.

        Raises:
            UserError: the address cannot be a path in a folder.
        """
        parts = re.sub(r"^[^/@]*:[^/@]*@", "", self.path).split("/")
        if self.scheme in _WEB:
            parts = [parts[0].rpartition("@")[2], *parts[1:]]
            parts = [unquote(part, errors="surrogateescape").replace("/", "%2F") for part in parts]
        given = parts[self.path.startswith("/") :] if self.path.strip("/") else []
        if any(part in ("", ".", "..") or "\0" in part for part in given):
            raise UserError(
                f"'{self.shown}' has an empty part, '.' or '..', which a path here cannot have; give an "
                "address without"
            )
        chain = hashlib.sha256(without_secrets(self.chain).encode()).hexdigest()[:8]
        return _folder().joinpath(f"{self.scheme}-{chain}" if self.chain else self.scheme, *given)

    def child(self, relative: str) -> Address:
        """The address below it with this rest."""
        return replace(self, path=f"{self.path}/{relative}" if self.path else relative, query="")

    def beside(self, relative: str) -> Address:
        """The address of a relative path in a manifest at this address."""
        plain = quote(relative, errors="surrogateescape") if self.scheme in _WEB else relative
        path = posixpath.normpath(posixpath.join(posixpath.dirname("/" + self.path), plain))[1:]
        if path.split("/")[0] != self.path.split("/")[0]:
            raise UserError(f"the path '{relative}' leads out of the place of the manifest '{self.shown}'")
        return replace(self, path=path, query="")


@dataclass(frozen=True, slots=True)
class Source:
    """Source of a copy, and the stamp and size in the listing; None: unknown."""

    address: Address
    stamp: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Found:
    """Files of an address: itself, if it is one file, or those below it. Nothing is fetched yet.

    Attributes:
        address: of the file, the folder, or the folder before the first pattern of a glob.
        is_file: whether it is one file.
        sources: of the copies, sorted by path, without hidden files.
    """

    address: Address
    is_file: bool
    sources: dict[Path, Source]


def find(text: str) -> Found:
    """The files of an address, listed by fsspec; offline, those of its last listing.

    Raises:
        UserError: the address is empty, cannot be reached or read, or needs a driver.
    """
    address = Address.parse(text)
    _ = address.local  # refuse an address that cannot be a path here
    is_file = _is_file(address)
    if is_file:
        return Found(address, True, {address.local: Source(address)})
    if address.query:
        raise UserError(f"'{address.shown}' had a query; only an audio file or manifest (.jsonl) can")
    pattern: list[str] = []
    if is_file is None:
        parts = address.path.split("/")
        plain = next(index for index, part in enumerate(parts) if index and glob.has_magic(part))
        address, pattern = replace(address, path="/".join(parts[:plain])), parts[plain:]
    sources = {}
    for relative, stamp, size in _listed(address):
        names = relative.split("/")
        if _matches([unquote(name) for name in names] if address.scheme in _WEB else names, pattern):
            child = address.child(relative)
            sources[child.local] = Source(child, stamp, size)
    return Found(address, False, dict(sorted(sources.items())))


def fetch(
    sources: Mapping[Path, Source], paths: Iterable[Path], progress: Progress = lambda *_: None
) -> None:
    """Update the copies at ``paths``. A copy without its original is deleted.

    Args:
        sources: of copies; other paths are ignored.
        progress: called before the first file and after each.

    Raises:
        UserError: an original cannot be read, or a copy is missing offline; fetched files are kept.
    """
    wanted = [path for path in dict.fromkeys(paths) if path in sources]
    if not wanted:
        return
    copies = _Copies()
    if is_offline():
        missing = [path for path in wanted if not copies.holds(path, sources[path].stamp)]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(wanted)} files are not in the cache, such as"
                f" '{sources[missing[0]].address.shown}': run the same command once{where_allowed()}"
            )
        return
    progress("fetching data", 0, len(wanted))
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        jobs = pool.map(lambda path: _bring(path, sources[path], copies), wanted)
        for done, _ in enumerate(jobs, start=1):
            progress("fetching data", done, len(wanted))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _bring(path: Path, source: Source, copies: _Copies) -> None:
    address, stamp, size = source.address, source.stamp, source.size
    if stamp is not None and copies.holds(path, stamp):
        return
    fs, name = _open(address)
    try:
        with _door(address):
            if stamp is None:
                fs.invalidate_cache(name)
                stamp, size = _stamp(info := fs.info(name)), info.get("size")
            if copies.holds(path, stamp):
                return
    except _Gone:
        path.unlink(missing_ok=True)
        return
    with explain_os_errors(path, "set QINCODEC_CACHE to a folder you may write to"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole_file(path) as temporary, _door(address):
                fs.get_file(name, str(temporary))
                if size is not None and temporary.stat().st_size != size:
                    raise OSError(f"{temporary.stat().st_size} of {size} bytes arrived")
        except _Gone:
            path.unlink(missing_ok=True)
            return
        copies.add(path, stamp)


# --- listing -------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """A file in a listing: the rest of its address, and the fields of `Source`."""

    relative: str
    stamp: str | None
    size: int | None


def _is_file(address: Address) -> bool | None:
    """Whether the address is one file; None: a pattern."""
    magic = any(glob.has_magic(part) for part in address.path.split("/")[1:])
    named = Path(address.path).suffix.lower() in (*EXTENSIONS, ".jsonl")
    if is_offline() or address.scheme in _WEB:  # a web server does not show what is a folder
        if magic or not named:
            return None if magic else False
        if is_offline():
            return not _listing_file(address).exists()
    if not address.path:
        return False
    fs, name = _open(address)
    try:
        with _door(address):
            fs.invalidate_cache()
            is_folder = address.scheme not in _WEB and fs.info(name)["type"] == "directory"
            if address.scheme in _WEB:
                fs.info(name)
    except _Gone as error:
        if magic:
            return None
        raise UserError(f"no such data: '{address.shown}'; check the address") from error
    if not is_folder and not named:
        raise UserError(f"'{address.shown}' is neither a folder, nor audio by its extension, nor .jsonl")
    return not is_folder


def _listed(address: Address) -> list[_Entry]:
    """The files below an address."""
    kept = _listing_file(address)
    if is_offline():
        try:
            return [_Entry(*entry) for entry in json.loads(kept.read_bytes())]
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"'{address.shown}' has not been listed on this machine: run the same command once"
                f"{where_allowed()}"
            ) from error
    fs, name = _open(address)
    try:
        with _door(address):
            fs.invalidate_cache()
            infos = list(_walk(fs, name))
            if not infos:  # some drivers return this for a missing folder
                raise _Gone
    except _Gone as error:
        raise UserError(f"'{address.shown}' has no files; check the address") from error
    root = f"{name.strip('/')}/" if name.strip("/") else ""
    found = []
    for info in infos:
        path = info["name"].lstrip("/")
        if not path.startswith(root):
            raise UserError(one_line(f"'{address.shown}' lists '{without_secrets(path)}', not below it"))
        relative = path.removeprefix(root)
        if not relative or relative.endswith("/"):  # object stores list folders as empty files
            continue
        if address.scheme not in _WEB or not re.search("[?#]", relative):  # links that sort the page
            found.append(_Entry(relative, _stamp(info), info.get("size")))
    found.sort(key=lambda entry: entry.relative)
    write_atomic(kept, json.dumps(found))
    return found


def _walk(fs: Any, name: str) -> Iterator[dict[str, Any]]:
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    own = getattr(type(fs), "_find", AsyncFileSystem._find) is not AsyncFileSystem._find
    if own or (type(fs).find is not AbstractFileSystem.find and not fs.async_impl):
        # An object store lists everything at once, and raises all errors.
        infos = fs.find(name, detail=True)
        yield from ({**info, "name": path} for path, info in infos.items())
        return
    for _, _, files in fs.walk(name, detail=True, on_error="raise"):
        yield from files.values()


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path or a folder above it matches a glob, as in `glob` and `evaluation.datasets.folder`."""
    if not pattern:
        return not any(name.startswith(".") for name in names)
    if not names:
        return False
    first, *rest = pattern
    hidden = names[0].startswith(".") and not first.startswith(".")
    if first == "**":
        return _matches(names, rest) or (not hidden and _matches(names[1:], pattern))
    return not hidden and fnmatchcase(names[0], first) and _matches(names[1:], rest)


def _stamp(info: Mapping[str, Any]) -> str | None:
    """Stamp that changes with the file; None if the file system has no reliable one."""
    plain = {re.sub("[-_]", "", key.lower()): value for key, value in info.items() if value is not None}
    for known in (_CHECKSUMS, _TIMES):
        # A file system may give the same time as a date and as seconds.
        said = {
            key: str(value.timestamp() if isinstance(value, datetime) else value)
            for key, value in sorted(plain.items())
            if key in known
        }
        if said:
            text = json.dumps([plain.get("size"), said])
            return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]
    return None


# --- the door to fsspec --------------------------------------------------------------------------------


class _Gone(Exception):
    """The file or folder does not exist."""


def _open(address: Address) -> tuple[Any, str]:
    """The file system of an address, and its path there."""
    from fsspec.core import url_to_fs

    try:
        with _door(address):
            fs, name = url_to_fs(address.url)
            return fs, str(name)
    except _Gone as error:
        raise UserError(f"no such data: '{address.shown}'; check the address") from error


@contextmanager
def _door(address: Address) -> Iterator[None]:
    """Turn errors of any driver into `_Gone` or a UserError without secrets; a full disk is passed on."""
    try:
        yield
    except (UserError, _Gone):
        raise
    except ImportError as error:
        pip = _DRIVERS.get(address.scheme)
        how = f"run `pip install {pip}`" if pip else without_secrets(said(error))
        raise UserError(f"'{address.shown}' needs a driver that is not installed: {how}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        why: BaseException = error
        if address.scheme in _WEB and isinstance(error, FileNotFoundError):
            why = error.__cause__ or error  # fsspec raises the same for a server that refuses or is down
        if isinstance(why, FileNotFoundError) or getattr(why, "status", None) in (404, 410):
            raise _Gone from error
        what = one_line(without_secrets(said(why)), 500)
        if isinstance(why, PermissionError) or getattr(why, "status", None) in (401, 403):
            advice = "access is denied; give this driver your credentials, or check the address"
        else:
            advice = f"check the address, your credentials and the network; {_KEPT}"
        raise UserError(f"'{address.shown}' cannot be read: {what}; {advice}") from error


# --- the cache -----------------------------------------------------------------------------------------


def _folder() -> Path:
    return (cache_folder() / "remote").absolute()


def _listing_file(address: Address) -> Path:
    name = hashlib.sha256(address.shown.encode()).hexdigest()[:16]
    return _folder() / "listings" / f"{name}.json"


class _Copies:
    """The copies in the cache, each with the stamp of its original, and its own size and time.

    A file of JSON lines that only grows, so that a kill or another process costs at most one line.
    """

    def __init__(self) -> None:
        self._file = _folder() / "copies.jsonl"
        self._known: dict[str, list[Any]] = {}
        try:
            lines = self._file.read_bytes().splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                path, *rest = json.loads(line)
                self._known[path] = rest
            except (ValueError, TypeError):
                continue

    def holds(self, path: Path, stamp: str | None) -> bool:
        """Whether the copy is untouched, and of the original with this stamp (offline: None, with any)."""
        known = self._known.get(str(path.relative_to(_folder())))
        if known is None or (stamp != known[0] if stamp is not None else not is_offline()):
            return False
        try:
            status = path.stat()
        except OSError:
            return False
        return known[1:] == [status.st_size, status.st_mtime_ns]

    def add(self, path: Path, stamp: str | None) -> None:
        """Add a copy; may be called from any thread."""
        status = path.stat()
        entry = [str(path.relative_to(_folder())), stamp, status.st_size, status.st_mtime_ns]
        with self._file.open("ab", buffering=0) as file:  # one write, so that others' lines stay whole
            file.write(b"\n" + json.dumps(entry).encode())
