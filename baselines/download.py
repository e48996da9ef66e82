"""Downloads that survive broken connections, for `baselines.weights`.

A download grows in ``<file>.part``. Its address and validator (RFC 9110 section 8.8) are stored beside it, so
that it continues only with bytes of the same file. It gets its final name once it is complete and verified.
(Not `qincodec.core.files`, whose files do not outlive a failure.)
"""

from __future__ import annotations

import fcntl
import http.client
import json
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from baselines.weights_files import WeightsFile, digests
from qincodec.core.console import Progress, ProgressLine
from qincodec.core.errors import UserError, one_line

TIMEOUT_S = 30.0
#: Attempts without new bytes before a broken download is given up, and the pause before each.
PATIENCE = 3
PAUSE_S = 2.0

_BLOCK = 1 << 18
_MEGABYTE = 1_000_000


class DownloadFailed(UserError):
    """The server could not be reached, or the connection kept breaking; ``reason`` is a few words."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Interrupted(Exception):
    """The connection failed in a way that may pass."""


class _Changed(Exception):
    """The server's file is not the one that the part belongs to."""


def fetch(file: WeightsFile, path: Path, progress: Progress | None = None) -> None:
    """Download ``file`` to ``path`` and verify it. Processes that want the same file wait for the first.

    Raises:
        UserError: it cannot be downloaded or written, or is not the expected file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            if path.is_file():
                return
            _fetch(file, path, progress)
    except OSError as error:
        raise UserError(
            f"cannot write weights '{file.name}' at '{path}': {error.strerror or error}; set QINCODEC_CACHE"
            " to a folder with room"
        ) from error


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process downloads {path.name}; waiting for it", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fetch(file: WeightsFile, path: Path, progress: Progress | None) -> None:
    part = path.with_name(f"{path.name}.part")
    print(f"downloading weights '{file.name}' from {file.url} to {path}", file=sys.stderr)
    print(f"licence: {file.licence}; {file.attribution}", file=sys.stderr)
    with ProgressLine(enabled=progress is None) as line:
        _download(file, part, progress or line)
    found = digests(part)
    wrong = file.mismatch(part.stat().st_size, **found)
    if wrong is not None:
        part.replace(aside := path.with_name(f"{path.name}.bad"))
        _source(part).unlink(missing_ok=True)
        raise UserError(
            f"the file from {file.url} is not '{file.name}': {wrong}; it was kept as '{aside}'; try again "
            "later,"
            f" or give a copy with --weights {file.name}=PATH"
        )
    part.replace(path)
    _source(part).unlink(missing_ok=True)
    if file.published is None:
        print(
            f"{file.name}: sha256 {found['sha256']} (none was published to compare with; this one is"
            " recorded, and another copy will be refused)",
            file=sys.stderr,
        )


def _download(file: WeightsFile, part: Path, progress: Progress) -> None:
    """Fill ``part``, continuing after interruptions as long as bytes arrive."""
    most, patience = 0, 0
    while True:
        try:
            if _transfer(file, part, progress):
                return
            reason = "the connection broke off"
        except _Interrupted as error:
            reason = str(error)
        size = part.stat().st_size if part.exists() else 0
        most, patience = (size, PATIENCE) if size > most else (most, patience - 1)
        if patience <= 0:
            kept = f" after {size / _MEGABYTE:.1f} MB, which are kept" if size else ""
            raise DownloadFailed(
                f"cannot download weights '{file.name}' from {file.url}: {reason}{kept}; run `evaluate"
                f" weights fetch {file.name}` again, or put the file at '{part.with_suffix('')}' yourself",
                reason,
            )
        time.sleep(PAUSE_S)


def _transfer(file: WeightsFile, part: Path, progress: Progress) -> bool:
    """Request the missing bytes of ``part``; returns whether it is complete."""
    try:
        return _request(file, part, progress)
    except _Changed:
        part.unlink(missing_ok=True)
    try:
        return _request(file, part, progress)
    except _Changed as error:
        raise _Interrupted("the server sends a wrong part of the file") from error


def _request(file: WeightsFile, part: Path, progress: Progress) -> bool:
    validator = _validator(file, part)
    have = part.stat().st_size if validator else 0
    headers = {"User-Agent": "qincodec", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": str(validator)}
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(file.url, headers=headers), timeout=TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:  # nothing is left, or the file has become shorter
                if error.headers.get("Content-Range", "").endswith(f"/{have}"):
                    return True
                raise _Changed from error
            if error.code in (408, 425, 429) or error.code >= 500:
                raise _Interrupted(f"the server answers {error.code} {_text(error.reason)}") from error
            raise UserError(
                f"{file.url} answers {error.code} {_text(error.reason)}: weights '{file.name}' cannot be"
                f" downloaded from there; get them elsewhere and give --weights {file.name}=PATH"
            ) from error
    except urllib.error.URLError as error:
        raise _Interrupted(f"{_text(error.reason)}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(_text(error)) from error
    with response:
        return _receive(response, file, part, have, validator, progress)


def _receive(
    response: Any, file: WeightsFile, part: Path, have: int, validator: str | None, progress: Progress
) -> bool:
    if file.url.startswith("https:") and not response.url.startswith("https:"):
        raise UserError(f"{file.url} leads to {response.url}, which is not encrypted; nothing was downloaded")
    if response.headers.get_content_type() == "text/html":
        raise UserError(
            f"{file.url} answers with a web page instead of weights '{file.name}': does this network ask for"
            f" a login? Otherwise give a copy with --weights {file.name}=PATH"
        )
    length = response.headers.get("Content-Length") or ""
    total = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
    if response.status == 206:
        span = re.match(r"bytes (\d{1,18})-\d*/(\d{1,18})$", response.headers.get("Content-Range", ""))
        if span is None or int(span[1]) != have or _strong(response.headers) not in (None, validator):
            raise _Changed
        total = int(span[2])
    else:
        have = 0
    if file.size is not None and total is not None and total != file.size:
        raise UserError(
            f"{file.url} offers {total} bytes, weights '{file.name}' have {file.size}: it is another file;"
            f" give a copy with --weights {file.name}=PATH"
        )
    if total is None and not response.chunked and file.size is None and file.published is None:
        raise UserError(
            f"{file.url} does not send the length of weights '{file.name}' and no digest was published, so "
            "an incomplete download could not be detected; try from another network, or give"
            f" a copy with --weights {file.name}=PATH"
        )
    free = shutil.disk_usage(part.parent).free
    if total is not None and free < total - have:
        raise UserError(
            f"weights '{file.name}' need {(total - have) / _MEGABYTE:.0f} MB in '{part.parent}', which has"
            f" {free / _MEGABYTE:.0f} MB left; make room, or set QINCODEC_CACHE to another folder"
        )
    with part.open("ab" if have else "wb") as stream:
        if not have:
            source = {"url": file.url, "validator": _strong(response.headers)}
            _source(part).write_text(json.dumps(source))
        while True:
            try:
                block = response.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _Interrupted(_text(error)) from error
            if not block:
                break
            stream.write(block)
            have += len(block)
            shown = max(total or have, have) // _MEGABYTE
            progress(f"downloading {file.name}, MB", have // _MEGABYTE, shown)
    if not have:
        raise _Interrupted("the server sends an empty file")
    return total is None or have >= total


def _validator(file: WeightsFile, part: Path) -> str | None:
    """Validator of the file that ``part`` began with, to ask if the server still has it; None: start
    again."""
    try:
        source = json.loads(_source(part).read_bytes())
        validator = source["validator"]
        known = source["url"] == file.url and part.is_file() and isinstance(validator, str)
        return validator if known and validator.isprintable() else None  # else it cannot be a header
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _strong(headers: Any) -> str | None:
    """A validator of the exact bytes: an ETag that is not weak, else the time of change."""
    tag = headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return str(tag)
    changed = headers.get("Last-Modified")
    return str(changed) if changed else None


def _source(part: Path) -> Path:
    return part.with_name(f"{part.name}.source")


def _text(error: Any) -> str:
    """Why a connection failed, as one line of clean text."""
    return one_line(str(getattr(error, "strerror", None) or error) or type(error).__name__, 200)
