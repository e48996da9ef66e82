"""One file of pretrained weights: its address, its digests, and its state here.

Files are verified against the digest that their authors or repositories published. If none was published, the
digest of the first copy is recorded beside it, and another copy is refused. Digests are computed once per
copy: size and time of change are stored with them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qincodec.core.errors import UserError
from qincodec.core.files import cache_folder, os_errors, replacing

_digests: dict[tuple[str, int, int], dict[str, str]] = {}


@dataclass(frozen=True)
class WeightsFile:
    """One pretrained file.

    Attributes:
        name: name for `evaluate weights fetch NAME` and `--weights NAME=PATH`.
        filename: in the cache folder.
        url: its official address, pinned to a release or revision if no digest identifies its content.
        used_by: name of the codec or embedding that needs it.
        licence: of the weights.
        attribution: whom to cite.
        size: bytes; None if unknown.
        sha256: 64 hexadecimal digits; None if not published.
        sha256_prefix: its first digits, if only they are published.
        git_blob: SHA-1 of ``b"blob <bytes>\\0"`` and the content, as git names it.

    Examples:
        >>> place = "https://example.org/mine.pt"
        >>> file = WeightsFile("mine", "mine.pt", place, "mine", licence="MIT", attribution="Me, 2026")
        >>> file.published is None
        True
    """

    name: str
    filename: str
    url: str
    used_by: str
    licence: str
    attribution: str
    size: int | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    git_blob: str | None = None

    @property
    def published(self) -> str | None:
        """The published digest for display; None: the first copy is trusted."""
        if self.sha256:
            return f"sha256 {self.sha256[:16]}..."
        if self.sha256_prefix:
            return f"sha256 {self.sha256_prefix}..."
        return f"git blob {self.git_blob[:16]}..." if self.git_blob else None

    def mismatch(self, size: int, sha256: str, git_blob: str) -> str | None:
        """Why a file with these digests is not this one; None if no published digest differs."""
        if self.size is not None and size != self.size:
            return f"it has {size} bytes instead of {self.size}"
        expected = self.sha256 or self.sha256_prefix
        if expected and not sha256.startswith(expected):
            return f"its SHA-256 is {sha256[:16]}..., that of the released file begins with {expected[:16]}"
        if self.git_blob and git_blob != self.git_blob:
            return f"its git blob id is {git_blob[:16]}..., that of the released file {self.git_blob[:16]}..."
        return None


def folder() -> Path:
    """The cache folder; it may not exist yet."""
    return cache_folder() / "weights"


def digests(path: Path) -> dict[str, str]:
    """``sha256`` and ``git_blob`` of a file. Raises UserError if it cannot be read."""
    with os_errors(f"cannot read weights '{path}'"):
        status = path.stat()
        key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
        if key in _digests:
            return _digests[key]
        memo = read_memo(path)
        if memo is not None and [memo["size"], memo["mtime_ns"]] == [status.st_size, status.st_mtime_ns]:
            found = {kind: str(memo[kind]) for kind in ("sha256", "git_blob")}
        else:
            found = _hash(path, status.st_size)
    _digests[key] = found
    return found


def _hash(path: Path, size: int) -> dict[str, str]:
    sha, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
            blob.update(block)
    return {"sha256": sha.hexdigest(), "git_blob": blob.hexdigest()}


def memo_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def read_memo(path: Path) -> dict[str, Any] | None:
    """Content written by `remember`; None if it is absent or damaged, and for files outside the cache."""
    if path.parent != folder():
        return None
    try:
        memo = json.loads(memo_path(path).read_bytes())
        return {key: memo[key] for key in ("size", "mtime_ns", "sha256", "git_blob")}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def remember(path: Path) -> None:
    """Record the digests of a cached file beside it, with size and time of change."""
    status = path.stat()
    content = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, **digests(path)}
    if content == read_memo(path):
        return
    try:
        with replacing(memo_path(path)) as temporary:
            temporary.write_text(json.dumps(content) + "\n")
    except UserError:
        pass  # a read-only cache, as on a cluster: the file is hashed at every start instead


def set_aside(path: Path) -> Path:
    """Rename a file to ``*.bad``, in place of an earlier one, and forget its digests."""
    aside = path.with_name(f"{path.name}.bad")
    try:
        path.replace(aside)
        memo_path(path).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"'{path}' is not the released file and cannot be moved aside: {error.strerror}; delete it"
        ) from error
    return aside
