"""Sources of training audio: a folder, a JSON-lines manifest, or WavCaps as distributed by its authors.

- A folder: every file below it with an extension of `qincodec.audio.EXTENSIONS`; hidden ones are left out,
  links to folders followed.
- A JSON-lines manifest: objects with ``path`` (relative to the manifest, or absolute) and, if wanted,
  ``recording``. Lengths and rates come from the files themselves; other keys are left alone.
- WavCaps (Mei et al., 2024): a folder with ``json_files/{AudioSet_SL,BBC_Sound_Effects,FreeSound,SoundBible}/
  *.json`` (``{"data": [{"id": ...}, ...]}``) and, wherever below it the archives were unpacked, folders
  called as these four, with or without ``_flac`` behind, of files named by id. Ids of the AudioSet part are
  ``Y{youtube_id}.wav``; only files of the lists count.

The files of AudioCaps' lists, if given, are left out of any source: those named ``Y{youtube_id}``,
``{youtube_id}`` or ``{youtube_id}_{start_time}``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from qincodec.audio import EXTENSIONS
from qincodec.core.errors import UserError
from qincodec.core.files import os_errors

__all__ = ["Candidate", "Listing", "list_source", "recording_of"]

_WAYS = "give a folder of audio, a manifest (.jsonl) or WavCaps' folder (with json_files)"
_WAVCAPS_PARTS = ("AudioSet_SL", "BBC_Sound_Effects", "FreeSound", "SoundBible")
_AUDIOCAPS_SPLITS = ("train", "val", "test")

# Names with the freesound.org clip: ESC-50's <fold>-<clip>-<take>-<class>, ESC-10's copies with the class in
# front, and freesound.org's downloads <clip>__<user>__<title>.
_FREESOUND = (
    re.compile(r"[1-5]-(\d+)-[A-Z]-\d{1,2}"),
    re.compile(r"[A-Za-z_]+-[1-5]-(\d+)-[A-Z]"),
    re.compile(r"(\d+)__(?:(?!__).)+__.+"),
)
# door_1, door_2 or beat-a, beat-b: likely takes of one recording. Only one sign, not track_001.
_TAKE = re.compile(r"(.+)[ _-](?:\d|[A-Za-z])")
_YOUTUBE = re.compile(r"Y?([A-Za-z0-9_-]{11})(?:_\d+(?:\.0*)?)?")


class Candidate(NamedTuple):
    """A file to check: path below the listing's root (or absolute), size and time of change, recording."""

    path: str
    size: int
    mtime_ns: int
    recording: str


@dataclass
class Listing:
    """Files of a source.

    Attributes:
        root: what the paths are relative to.
        kind: "folder", "jsonl" or "wavcaps".
        candidates: sorted by path, each path once.
        excluded: number of files left out, by reason.
        notes: lines for the user.
    """

    root: Path
    kind: str
    candidates: list[Candidate]
    excluded: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def hash(self) -> str:
        """Hash that shows whether anything has changed."""
        digest = hashlib.sha256(f"{self.root} {self.kind} {self.excluded} {self.notes}".encode())
        for candidate in self.candidates:
            digest.update(repr(tuple(candidate)).encode())
        return digest.hexdigest()


def list_source(source: Path, audiocaps: Path | None = None) -> Listing:
    """The files of ``source``, without those of AudioCaps if its lists are given.

    Args:
        source: see the module.
        audiocaps: a CSV list of AudioCaps (columns audiocap_id, youtube_id, start_time, caption) or a folder
            of them.

    Raises:
        UserError: the source does not exist or has no audio, or lists are invalid.
    """
    source = Path(os.path.normpath(source.absolute()))
    if source.is_dir():
        listing = _wavcaps(source) if (source / "json_files").is_dir() else _folder(source)
    elif source.suffix.lower() == ".jsonl" and source.is_file():
        listing = _manifest(source)
    elif source.exists():
        raise UserError(f"'{source}' is not a source of training audio: {_WAYS}")
    else:
        raise UserError(f"no such training data: '{source}'; {_WAYS}")
    if audiocaps is not None:
        _exclude(listing, audiocaps)
    elif listing.kind == "wavcaps":
        listing.notes.append(
            "AudioCaps' clips are not left out of WavCaps' AudioSet part: give --exclude-audiocaps with the"
            " folder of its train.csv, val.csv and test.csv, or do not evaluate on AudioCaps"
        )
    if not listing.candidates:
        raise UserError(
            f"no audio to train on in '{source}'"
            + "".join(f"; {count} files left out: {reason}" for reason, count in listing.excluded.items())
            + f"; {_WAYS}; allowed are {' '.join(sorted(EXTENSIONS))}"
        )
    listing.candidates.sort(key=lambda candidate: os.fsencode(candidate.path))
    return listing


def recording_of(path: str) -> str:
    """The recording identified by a file's name; else the path without extension and take.

    In doubt it merges recordings, because they separate training and development data.
    """
    pure = PurePath(path)
    stem = pure.stem
    for pattern in _FREESOUND:
        if match := pattern.fullmatch(stem):
            return f"freesound-{match[1]}"
    take = _TAKE.fullmatch(stem)
    return str(pure.with_name(take[1] if take else stem))


# --- folders -------------------------------------------------------------------------------------------


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Audio files below ``folder``, unordered; a folder is entered once, even if links lead back to it."""
    todo, seen = [str(folder)], set()
    while todo:
        here = todo.pop()
        with os_errors(f"folder '{here}' cannot be read"):
            status = os.stat(here)  # noqa: PTH116 - may hold surrogates, and millions of Paths are slow
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        todo.append(entry.path)
                    elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:  # noqa: PTH122
                        yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: an unreadable file, and listed as one
        return False


def _stat(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return -1, -1  # reading it will report why
    return status.st_size, status.st_mtime_ns


def _folder(folder: Path) -> Listing:
    prefix = len(str(folder).rstrip("/")) + 1
    candidates = [
        Candidate(path, *_stat(entry.path), recording_of(path))
        for entry in _walk(folder)
        for path in [entry.path[prefix:]]
    ]
    return Listing(folder, "folder", candidates)


# --- manifests -----------------------------------------------------------------------------------------


def _manifest(manifest: Path) -> Listing:
    root = manifest.parent
    candidates: dict[str, Candidate] = {}
    again = 0
    try:
        with manifest.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                row = _row(line, f"line {number} of manifest '{manifest}'")
                path = os.path.normpath(row["path"])
                recording = row.get("recording") or recording_of(path)
                again += path in candidates
                candidates[path] = Candidate(path, *_stat(os.path.join(root, path)), recording)  # noqa: PTH118
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"manifest '{manifest}' cannot be read: {error}") from error
    excluded = {"named twice in the manifest": again} if again else {}
    return Listing(root, "jsonl", list(candidates.values()), excluded)


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}); one object per line is needed") from error
    if not isinstance(row, dict) or not isinstance(row.get("path"), str) or not row["path"]:
        raise UserError(f'{where} has no \'path\'; give a JSON object such as {{"path": "a/b.wav"}}')
    if PurePath(os.path.normpath(row["path"])).name in ("", "..") or not _encodable(row["path"]):
        raise UserError(
            f"{where}: 'path' is {row['path']!a}, which is not a possible file name; correct the line"
        )
    if not isinstance(row.get("recording", ""), str | None):
        raise UserError(f"{where}: 'recording' is {row['recording']!r}; give text or leave it out")
    if row.get("start_s"):
        raise UserError(f"{where} names an excerpt ('start_s'), but training takes whole files: leave it out")
    return row


def _encodable(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can hold
        return False


# --- WavCaps and AudioCaps -----------------------------------------------------------------------------


def _wavcaps(root: Path) -> Listing:
    ids = {part: _wavcaps_ids(root / "json_files" / part) for part in _WAVCAPS_PARTS}
    if not any(ids.values()):
        raise UserError(
            f"'{root / 'json_files'}' holds none of WavCaps' lists; it needs one or more of"
            f" {', '.join(f'{part}/*.json' for part in _WAVCAPS_PARTS)}"
        )
    folders = {name: part for part in _WAVCAPS_PARTS for name in (part, f"{part}_flac")}
    prefix = len(str(root).rstrip("/")) + 1
    candidates, excluded, found = [], Counter[str](), {part: set[str]() for part in _WAVCAPS_PARTS}
    for entry in sorted(_walk(root), key=lambda entry: entry.path):  # always the same of two copies
        path = entry.path[prefix:]
        pure = PurePath(path)
        part = next((folders[name] for name in reversed(pure.parts[:-1]) if name in folders), None)
        if part is None or pure.stem not in ids[part]:
            excluded["not in WavCaps' lists"] += 1
        elif pure.stem in found[part]:
            excluded["a second file of an id of WavCaps"] += 1
        else:
            found[part].add(pure.stem)
            candidates.append(Candidate(path, *_stat(entry.path), f"{part}/{pure.stem}"))
    notes = [
        f"WavCaps {part}: {len(found[part])} of the {len(ids[part])} listed files are there"
        for part in _WAVCAPS_PARTS
    ]
    return Listing(root, "wavcaps", candidates, dict(excluded), notes)


def _wavcaps_ids(folder: Path) -> set[str]:
    ids = set()
    for path in sorted(folder.glob("*.json")):
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))["data"]
            # "Yb0RFKhbpFJA.wav" in the AudioSet part, "180913" or 180913 elsewhere.
            ids |= {str(row["id"]).removesuffix(".wav").removesuffix(".flac") for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"'{path}' is not a list of WavCaps ({type(error).__name__}: {error}): expected"
                ' {"data": [{"id": ...}, ...]}; get it again or remove it'
            ) from error
    return ids


def _exclude(listing: Listing, audiocaps: Path) -> None:
    lists = sorted(audiocaps.glob("*.csv")) if audiocaps.is_dir() else [audiocaps]
    if not lists or not lists[0].is_file():
        raise UserError(f"no lists of AudioCaps in '{audiocaps}'; give its train.csv, val.csv and test.csv")
    ids = set[str]().union(*(_youtube_ids(path) for path in lists))
    named = [_YOUTUBE.fullmatch(PurePath(candidate.path).stem) for candidate in listing.candidates]
    kept = [c for c, match in zip(listing.candidates, named, strict=True) if not (match and match[1] in ids)]
    listing.excluded["listed by AudioCaps"] = len(listing.candidates) - len(kept)
    listing.candidates = kept
    listing.notes.append(
        f"AudioCaps: {len(ids)} videos of {', '.join(path.name for path in lists)} are left out"
    )
    missing = [s for s in _AUDIOCAPS_SPLITS if not any(path.stem.startswith(s) for path in lists)]
    if missing:
        listing.notes.append(
            f"AudioCaps' {' and '.join(missing)} lists are not given: their clips are not left out"
        )


def _youtube_ids(table: Path) -> set[str]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if "youtube_id" not in (reader.fieldnames or []):
                raise UserError(
                    f"'{table}' is not a list of AudioCaps: it has no column youtube_id; remove it or get"
                    " train.csv, val.csv and test.csv from https://github.com/cdjkim/audiocaps"
                )
            ids = set()
            for row in reader:
                youtube_id = (row["youtube_id"] or "").strip()
                # Spreadsheets turn ids that begin with "-" into "#NAME?".
                if not re.fullmatch(r"[A-Za-z0-9_-]{11}", youtube_id):
                    raise UserError(
                        f"line {reader.line_num} of '{table}': '{youtube_id}' is not a YouTube id; get the "
                        "list again from https://github.com/cdjkim/audiocaps (folder dataset)"
                    )
                ids.add(youtube_id)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"AudioCaps' list '{table}' cannot be read: {error}") from error
    return ids
