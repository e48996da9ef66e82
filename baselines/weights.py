"""Pretrained weights: one table, one cache folder, one way to fetch and verify.

A file is looked for in this order: the path given with ``--weights NAME=PATH`` (`use`), the cache folder
(`find`), its authors' official place (`obtain`). The cache is ``$QINCODEC_CACHE/weights``, or ``weights`` in
the user's cache folder. With ``QINCODEC_OFFLINE=1`` (or ``HF_HUB_OFFLINE=1``) nothing is ever downloaded.

Files are verified against the digest their authors or repositories published. For some there is none; the
digest of the first copy seen is then recorded beside it, and another one is refused. Digests are computed
once per copy: size and time of change are remembered with them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from qincodec.audio import replacing
from qincodec.errors import Unavailable, UserError

#: Called with what is going on, how many megabytes are done, and of how many (0: unknown).
Progress = Callable[[str, int, int], None]

_DAC_RELEASES = "https://github.com/descriptinc/descript-audio-codec/releases/download"
_DAC = "Kumar et al., High-Fidelity Audio Compression with Improved RVQGAN, NeurIPS 2023 (Descript)"
_ENCODEC_FILES = "https://dl.fbaipublicfiles.com/encodec/v0"
_ENCODEC = "Defossez et al., High Fidelity Neural Audio Compression, 2022 (Meta)"
_OPENL3_FILES = "https://github.com/marl/openl3/raw/models"
_OPENL3 = "Cramer, Wu, Salamon and Bello, Look, Listen, and Learn More, ICASSP 2019 (New York University)"
_UNSTATED = "not stated by its authors (their code is MIT)"


@dataclass(frozen=True)
class WeightsFile:
    """One pretrained file.

    Attributes:
        name: what `evaluate weights fetch NAME` and `--weights NAME=PATH` take.
        filename: in the cache folder.
        url: its official place, pinned to a release or revision.
        used_by: name of the codec or embedding that needs it.
        licence: of the weights.
        attribution: whom to cite.
        size: bytes; None if unknown.
        sha256: 64 hexadecimal digits; None if nobody published them.
        sha256_prefix: the first digits of it, where only they are published.
        git_blob: SHA-1 of ``b"blob <bytes>\\0"`` and the content, as git names it.
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
        """The published digest as people see it; None: the first copy is trusted."""
        if self.sha256:
            return f"sha256 {self.sha256[:16]}..."
        if self.sha256_prefix:
            return f"sha256 {self.sha256_prefix}..."
        return f"git blob {self.git_blob[:16]}..." if self.git_blob else None

    def mismatch(self, size: int, sha256: str, git_blob: str) -> str | None:
        """Why a file with these digests is not this one; None if it is, as far as is known."""
        if self.size is not None and size != self.size:
            return f"it has {size} bytes instead of {self.size}"
        expected = self.sha256 or self.sha256_prefix
        if expected and not sha256.startswith(expected):
            return f"its SHA-256 is {sha256[:16]}..., that of the released file begins with {expected[:16]}"
        if self.git_blob and git_blob != self.git_blob:
            return f"its git blob id is {git_blob[:16]}..., that of the released file {self.git_blob[:16]}..."
        return None


#: Every pretrained file the project can use, by name.
FILES: dict[str, WeightsFile] = {
    file.name: file
    for file in (
        WeightsFile(
            "dac-8kbps",
            "weights_44khz_8kbps_0.0.1.pth",
            f"{_DAC_RELEASES}/0.0.1/weights.pth",
            "dac",
            "MIT",
            _DAC,
        ),
        WeightsFile(
            "dac-16kbps",
            "weights_44khz_16kbps_1.0.0.pth",
            f"{_DAC_RELEASES}/1.0.0/weights_44khz_16kbps.pth",
            "dac",
            "MIT",
            _DAC,
        ),
        WeightsFile(
            "dac-24khz",
            "weights_24khz_8kbps_0.0.4.pth",
            f"{_DAC_RELEASES}/0.0.4/weights_24khz.pth",
            "dac-24khz",
            "MIT",
            _DAC,
        ),
        WeightsFile(
            "dac-16khz",
            "weights_16khz_8kbps_0.0.5.pth",
            f"{_DAC_RELEASES}/0.0.5/weights_16khz.pth",
            "dac-16khz",
            "MIT",
            _DAC,
        ),
        WeightsFile(
            "encodec-48khz",
            "encodec_48khz-7e698e3e.th",
            f"{_ENCODEC_FILES}/encodec_48khz-7e698e3e.th",
            "encodec",
            _UNSTATED,
            _ENCODEC,
            sha256_prefix="7e698e3e",
        ),
        WeightsFile(
            "mimi",
            "mimi-89091b3e.safetensors",
            "https://huggingface.co/kyutai/mimi/resolve/89091b3e466eb6a9d11e537bf26b144f194978f7/model.safetensors",
            "mimi",
            "CC BY 4.0",
            "Defossez et al., Moshi: a speech-text foundation model, 2024 (Kyutai)",
            size=384_649_828,
            sha256="bac7e85083dcded655d24eaadde7e6eea34c0da1b35fa2d284e641bd2b942a5e",
        ),
        WeightsFile(
            "openl3",
            "openl3_audio_mel256_env-v0_4_0.h5.gz",
            f"{_OPENL3_FILES}/openl3_audio_mel256_env-v0_4_0.h5.gz",
            "openl3",
            "CC BY 4.0",
            _OPENL3,
            git_blob="34dbd7a91cdd2de6a3d6d036ac0a24d27d78e3cc",
        ),
        WeightsFile(
            "openl3-music",
            "openl3_audio_mel256_music-v0_4_0.h5.gz",
            f"{_OPENL3_FILES}/openl3_audio_mel256_music-v0_4_0.h5.gz",
            "openl3",
            "CC BY 4.0",
            _OPENL3,
            git_blob="15e483646fa3d4091a463f0affbb706e6bbbb098",
        ),
    )
}

_explicit: dict[str, Path] = {}
_digests: dict[tuple[str, int, int], dict[str, str]] = {}


def entry(name: str) -> WeightsFile:
    """The table's entry. Raises UserError for an unknown name, with the close ones."""
    if name not in FILES:
        close = difflib.get_close_matches(name, FILES, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise UserError(f"unknown weights '{name}': {hint}known are {', '.join(FILES)}")
    return FILES[name]


def folder() -> Path:
    """The cache folder; it may not exist yet."""
    base = os.environ.get("QINCODEC_CACHE") or platformdirs.user_cache_dir("qincodec")
    return Path(base).expanduser() / "weights"


def cached_path(name: str) -> Path:
    """Where `name` lies in the cache if it is there."""
    return folder() / entry(name).filename


def is_offline() -> bool:
    """Whether the environment forbids downloads."""
    return _forbidden_by() is not None


def _forbidden_by() -> str | None:
    for variable in ("QINCODEC_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on"):
            return variable
    return None


def use(name: str, path: Path) -> None:
    """Take ``path`` for ``name`` in this process. It need not be the released file: its digest tells.

    Raises:
        UserError: unknown name, or no such file.
    """
    entry(name)
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"--weights {name}={path}: there is no such file; give the path of a weights file")
    _explicit[name] = path


def find(name: str) -> Path | None:
    """The file given by `use`, or a verified one in the cache, or None. Never touches the network.

    Raises:
        UserError: the cached file is not the released one (it is moved aside), or cannot be read.
    """
    file = entry(name)
    if name in _explicit:
        return _explicit[name]
    path = cached_path(name)
    if not path.is_file():
        return None
    found = digests(path)
    wrong = file.mismatch(path.stat().st_size, **found)
    if wrong is not None:
        aside = set_aside(path)
        raise UserError(
            f"'{path}' is not {name}: {wrong}; it was moved to '{aside}', run `evaluate weights fetch {name}`"
        )
    first = _read_memo(path)
    if file.published is None and first is not None and first["sha256"] != found["sha256"]:
        raise UserError(
            f"'{path}' is not the file that was first used here: its SHA-256 is {found['sha256'][:16]}..., it"
            f" was {first['sha256'][:16]}...; if you replaced it on purpose, delete '{_memo_path(path)}',"
            f" otherwise delete both and run `evaluate weights fetch {name}`"
        )
    remember(path)
    return path


def obtain(name: str, progress: Progress | None = None) -> Path:
    """`find`, else download, with progress on stderr. A broken download goes on where it broke off.

    Args:
        progress: called while downloading; None for a line on stderr.

    Raises:
        UserError: the file cannot be had; says why, and the command or path that mends it.
    """
    path = find(name)
    if path is not None:
        return path
    if is_offline():
        raise Unavailable(why_unavailable(name))
    from baselines import download

    file = entry(name)
    path = cached_path(name)
    download.fetch(file, path, progress)
    remember(path)
    return path


def why_unavailable(*names: str) -> str:
    """One line: that these files are not in the cache, and what mends it."""
    held = " and ".join(f"'{entry(name).filename}'" for name in names)
    return (
        f"weights {' and '.join(names)} are not in the cache: run `evaluate weights fetch {' '.join(names)}`"
        f"{where_allowed()}, or put {held} into '{folder()}' (`evaluate weights` says where from), or give"
        f" --weights {names[0]}=PATH"
    )


def where_allowed() -> str:
    """What stands behind the advice to download, where the environment forbids it."""
    return f" where downloads are allowed (not with {_forbidden_by()}=1)" if is_offline() else ""


def files_of(user: str) -> list[WeightsFile]:
    """Files that codec or embedding ``user`` needs, in the order of the table."""
    return [file for file in FILES.values() if file.used_by == user]


def sha256(path: Path) -> str:
    """SHA-256 of a weights file, 64 hexadecimal digits, for identities; cached files are not read again.

    Raises:
        UserError: it cannot be read.
    """
    return digests(path)["sha256"]


# ---- digests, remembered -------------------------------------------------------------------------------


def digests(path: Path) -> dict[str, str]:
    """``sha256`` and ``git_blob`` of a file. Raises UserError if it cannot be read."""
    try:
        status = path.stat()
        key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
        if key in _digests:
            return _digests[key]
        memo = _read_memo(path)
        if memo is not None and [memo["size"], memo["mtime_ns"]] == [status.st_size, status.st_mtime_ns]:
            found = {kind: str(memo[kind]) for kind in ("sha256", "git_blob")}
        else:
            found = _hash(path, status.st_size)
    except OSError as error:
        raise UserError(f"cannot read weights '{path}': {error.strerror or error}") from error
    _digests[key] = found
    return found


def _hash(path: Path, size: int) -> dict[str, str]:
    sha, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
            blob.update(block)
    return {"sha256": sha.hexdigest(), "git_blob": blob.hexdigest()}


def _memo_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_memo(path: Path) -> dict[str, Any] | None:
    """What `remember` wrote; None if it is absent or damaged, and for files outside the cache."""
    if path.parent != folder():
        return None
    try:
        memo = json.loads(_memo_path(path).read_bytes())
        return {key: memo[key] for key in ("size", "mtime_ns", "sha256", "git_blob")}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def remember(path: Path) -> None:
    """Record the digests of a cached file beside it, with what shows whether it has changed."""
    status = path.stat()
    content = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, **digests(path)}
    if content == _read_memo(path):
        return
    try:
        with replacing(_memo_path(path)) as temporary:
            temporary.write_text(json.dumps(content) + "\n")
    except UserError:
        pass  # a cache that is read-only, on a cluster say: the file is hashed at every start instead


def set_aside(path: Path) -> Path:
    """Rename a file to ``*.bad``, in place of an earlier one, and forget its digests."""
    aside = path.with_name(f"{path.name}.bad")
    try:
        path.replace(aside)
        _memo_path(path).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"'{path}' is not the released file and cannot be moved aside: {error.strerror}; delete it"
        ) from error
    return aside
