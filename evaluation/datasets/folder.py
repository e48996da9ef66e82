"""Folders, globs, single files and JSON-lines manifests."""

from __future__ import annotations

import glob
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from evaluation.datasets import packed, remote
from evaluation.datasets.files import ListedFile, Listing, excerpt_id, file_ids, readable
from qincodec.audio import EXTENSIONS
from qincodec.core.errors import UserError
from qincodec.core.folders import kind_of

# ESC-50: <fold>-<clip id>-<take>-<class>; the same with the class's name in front (copies of ESC-10).
_ESC50 = re.compile(r"[1-5]-(?P<recording>\d+)-[A-Z]-(?P<number>\d{1,2})")
_ESC_NAMED = re.compile(r"(?P<name>[A-Za-z_]+)-[1-5]-(?P<recording>\d+)-[A-Z]")
# freesound.org's downloads: <sound id>__<user>__<title>. The clip ids of ESC are sound ids too.
_FREESOUND = re.compile(r"(?P<recording>\d+)__(?:(?!__).)+__.+")

_ESC50_CLASSES = """
    dog rooster pig cow frog cat hen insects sheep crow rain sea_waves crackling_fire crickets chirping_birds
    water_drops wind pouring_water toilet_flush thunderstorm crying_baby sneezing clapping breathing coughing
    footsteps laughing brushing_teeth snoring drinking_sipping door_wood_knock mouse_click keyboard_typing
    door_wood_creaks can_opening washing_machine vacuum_cleaner clock_alarm clock_tick glass_breaking
    helicopter chainsaw siren car_horn engine train church_bells airplane fireworks hand_saw
"""

#: From a file's id to its recording.
RecordingRule = Callable[[str], str]

#: Possible values of DATA.
WAYS = (
    "a folder, a glob, an audio file, a manifest (.jsonl), an address of one of these (s3://bucket/folder),"
    " a WebDataset tar, hf:NAME,"
    " audiocaps:FOLDER, vctk:FOLDER and its like (`evaluate list`) or demo"
)


def find(data: str | Path, recording: RecordingRule) -> Listing:
    """Files of ``data``, see `evaluation.datasets.load_dataset`.

    Args:
        data: folder, glob, file or manifest, or an address of one.
        recording: function from a file's id to its recording, if no manifest names it.

    Raises:
        UserError: the data do not exist or have no audio, or a manifest cannot be parsed.
    """
    if isinstance(data, str) and remote.is_address(data):
        return _find_remote(data, recording)
    given = Path(str(data).removeprefix("file://")).expanduser()
    path = _normal(given)
    try:
        is_folder, exists = path.is_dir(), path.exists() or path.is_symlink()
    except OSError as error:
        raise UserError(f"'{data}' cannot be read: {error.strerror}; give {WAYS}") from error
    if is_folder:
        files, others = scan(path)
        tars = [file for file in others if packed.is_tar(file)]
        if tars and not files:
            return packed.find_tars(path.name or "files", tars, recording)
        return _listing(path.name or "files", path, files, others, data, recording)
    if path.suffix.lower() == ".jsonl" and exists:
        return read_manifest(path, recording)
    if packed.is_tar(path) and exists:
        return packed.find_tars(path.stem, [path], recording)
    if path.suffix.lower() in EXTENSIONS and exists:
        return _listing(path.stem, path.parent, [path], [], data, recording)
    if exists:
        hint = "; a list of AudioCaps works with audiocaps:FOLDER" if path.suffix.lower() == ".csv" else ""
        raise UserError(
            f"'{data}' is neither a folder, nor audio by its extension, nor .jsonl{hint}: give {WAYS}"
        )
    if glob.has_magic(str(given)):
        return _glob(str(given), data, recording)
    raise UserError(f"no such data: '{data}'; give {WAYS}")


def _find_remote(data: str, recording: RecordingRule) -> Listing:
    found = remote.find(data)
    path, shown = found.address.local, remote.without_secrets(data)
    if found.is_file and path.suffix.lower() == ".jsonl":
        remote.fetch(found.sources, [path])
        return read_manifest(path, recording, found.address)
    if found.is_file:
        listing = _listing(path.stem, path.parent, [path], [], shown, recording)
    else:
        audio = [file for file in found.sources if file.suffix.lower() in EXTENSIONS]
        others = [file for file in found.sources if file.suffix.lower() not in EXTENSIONS]
        listing = _listing(path.name, path, audio, others, shown, recording)
    listing.fetch = partial(remote.fetch, found.sources)
    return listing


def scan(folder: Path) -> tuple[list[Path], list[Path]]:
    """Audio files and other files below ``folder``, each sorted. Hidden files are left out.

    Links to folders are followed after the real folders. A folder is entered once, so that loops end and no
    file is listed twice.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    todo: list[Path] = [folder]
    links: list[Path] = []
    while todo or links:
        here = todo.pop() if todo else links.pop(0)
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"folder '{here}' cannot be read: {error.strerror}") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                found.append(here / entry.name)
            else:
                (links if entry.is_symlink() else todo).append(here / entry.name)
    found.sort()
    audio = [path for path in found if path.suffix.lower() in EXTENSIONS]
    return audio, [path for path in found if path.suffix.lower() not in EXTENSIONS]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: an unreadable file, and reported as one
        return False


def _normal(path: Path) -> Path:
    """Absolute and without ".."; links are kept, so that names are the user's, not those of a target."""
    return Path(os.path.normpath(path.absolute()))


def _glob(pattern: str, data: str | Path, recording: RecordingRule) -> Listing:
    parts = Path(pattern).parts
    plain = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = _normal(Path(*parts[:plain]))
    audio: set[Path] = set()
    others: set[Path] = set()
    for match in glob.iglob(pattern, recursive=True):  # noqa: PTH207 - takes absolute patterns too
        path = _normal(Path(match))
        files = scan(path) if path.is_dir() else ([path], [])
        for file in files[0]:
            (audio if file.suffix.lower() in EXTENSIONS else others).add(file)
        others.update(files[1])
    tars = sorted(path for path in others if packed.is_tar(path))
    if tars and not audio:
        return packed.find_tars(root.name or "files", tars, recording)
    if not audio and not others:
        raise UserError(f"nothing matches '{data}'; quote the pattern, ** stands for any folders; or {WAYS}")
    return _listing(root.name or "files", root, sorted(audio), sorted(others), data, recording)


def _listing(
    name: str, root: Path, files: list[Path], others: list[Path], data: str | Path, recording: RecordingRule
) -> Listing:
    if not files:
        raise UserError(no_audio(data, others))
    ids = file_ids(files, root)
    categories = _categories(files)
    entries = [
        ListedFile(ids[path], ids[path], path, recording(ids[path]), categories[path]) for path in files
    ]
    return Listing(readable(name), entries)


def no_audio(data: str | Path, others: list[Path]) -> str:
    """The message for a folder without audio."""
    seen = Counter(path.suffix.lower() or "none" for path in others).most_common(8)
    extensions = ", ".join(f"{suffix} ({count})" for suffix, count in seen)
    held = f"{len(others)} files, extensions seen: {extensions}" if others else "it holds no files"
    kind = kind_of(data)
    what = f"'{data}', which is {kind}" if kind else f"'{data}'"
    return f"no audio found in {what}: {held}; allowed are {' '.join(sorted(EXTENSIONS))}"


# --- names ---------------------------------------------------------------------------------------------


def recording_of(file_id: str) -> str:
    """The recording that a file was cut from, if its name identifies it; else the file itself.

    ESC-50 and ESC-10 (``1-100032-A-0``, ``rain-5-181766-A``) name the freesound.org clip their takes come
    from, freesound.org's own names (``181766__user__title``) too: all give ``freesound-181766``.
    """
    path = PurePosixPath(file_id)
    name = path.stem if path.suffix.lower() in EXTENSIONS else path.name
    for pattern in (_ESC50, _ESC_NAMED, _FREESOUND):
        if match := pattern.fullmatch(name):
            return f"freesound-{match['recording']}"
    return file_id


class RecordingPattern:
    """`recording_of` by a regular expression with one group; a file without a match is its own recording."""

    def __init__(self, pattern: str) -> None:
        try:
            self._compiled = re.compile(pattern)
        except re.error as error:
            raise UserError(f"recording pattern '{pattern}' is not a regular expression: {error}") from error
        if self._compiled.groups != 1:
            raise UserError(
                f"recording pattern '{pattern}' has {self._compiled.groups} groups; put one pair of"
                r" parentheses round the part that names the recording, as in '([^/_]+)_take\d+'"
            )
        self._names: list[str] = []
        self._found = False

    def __call__(self, file_id: str) -> str:
        match = self._compiled.search(file_id)
        self._names.append(file_id)
        self._found |= bool(match and match[1])
        return match[1] if match and match[1] else file_id

    def check(self) -> None:
        """Raises UserError if no name matched the pattern."""
        if self._found:
            return
        names = f"{len(self._names)} names, such as '{self._names[0]}'" if self._names else ""
        raise UserError(
            f"recording pattern '{self._compiled.pattern}' matches none of"
            f" {names or '0 names: the manifest names all recordings'}"
        )


def _categories(files: list[Path]) -> dict[Path, str | None]:
    """First folder level below the common folder of all files; without folders, the class in an ESC name."""
    common = Path(os.path.commonpath([path.parent for path in files]))
    categories: dict[Path, str | None] = {}
    for path in files:
        folders = path.relative_to(common).parts[:-1]
        categories[path] = readable(folders[0]) if folders else _esc_class(path.stem)
    return categories


def _esc_class(stem: str) -> str | None:
    if match := _ESC_NAMED.fullmatch(stem):
        return match["name"]
    classes = _ESC50_CLASSES.split()
    match = _ESC50.fullmatch(stem)
    return classes[int(match["number"])] if match and int(match["number"]) < len(classes) else None


# --- manifests ----------------------------------------------------------------------------------------


def read_manifest(file: Path, recording: RecordingRule, address: remote.Address | None = None) -> Listing:
    """The rows of a manifest: JSON lines.

    Each line is an object with ``path`` (relative to the manifest, absolute, or an address) and, if wanted,
    ``id``, ``recording``, ``category``, ``start_s``, ``duration_s``, ``sha256`` or ``content_hash``; other
    keys are ignored. The default ``id`` is the path below the file's folder (below the folder all files
    share, if some are elsewhere), without extension, and ``@<start>s``.

    Args:
        address: original of the copy ``file``.
    """
    file = _normal(file)
    rows = _rows(file)
    sources: dict[Path, remote.Source] = {}
    paths = [_row_path(row["path"], file, address, sources) for row in rows]
    here = [row for row, path in zip(rows, paths, strict=True) if path not in sources]
    if sources and here and not all(row.get("id") for row in rows):
        raise UserError(
            f"manifest '{file}' has addresses and local files ('{here[0]['path']}'); give each row an 'id', "
            "or make two manifests"
        )
    root = file.parent
    if not all(path.is_relative_to(root) for path in paths):
        root = Path(os.path.commonpath([path.parent for path in paths]))
    ids, categories = file_ids(dict.fromkeys(paths), root), _categories(paths)
    entries = []
    for row, path in zip(rows, paths, strict=True):
        start_s = float(row.get("start_s") or 0.0)
        entries.append(
            ListedFile(
                id=row.get("id") or excerpt_id(ids[path], start_s),
                label=row.get("id") or ids[path],
                path=path,
                recording=row.get("recording") or recording(ids[path]),
                category=row.get("category") or categories[path],
                start_s=start_s,
                duration_s=row.get("duration_s"),
                content_hash=row.get("sha256") or row.get("content_hash"),
            )
        )
    return Listing(readable(file.stem), entries, fetch=partial(remote.fetch, sources))


def _row_path(
    text: str, file: Path, address: remote.Address | None, sources: dict[Path, remote.Source]
) -> Path:
    """The file of a row; if it is a copy, its original is added to ``sources``."""
    if remote.is_address(text):
        source = remote.Address.parse(text)
    elif address is not None and not text.startswith("/"):
        source = address.beside(text)
    else:
        return _normal(file.parent / text.removeprefix("file://"))
    if sources.setdefault(source.local, remote.Source(source)).address != source:
        raise UserError(
            f"manifest '{file}' has two addresses that differ only after '?': '{source.shown}'; make two "
            "manifests"
        )
    return source.local


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"manifest '{file}' cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"line {number} of manifest '{file}'"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where} is not JSON ({error}); one object per line is needed") from error
        _check_row(row, where)
        rows.append(row)
    if not rows:
        raise UserError(f"manifest '{file}' is empty; give one JSON object with 'path' per line")
    return rows


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, dict) or not isinstance(row.get("path"), str) or not row["path"]:
        raise UserError(f'{where} has no \'path\'; give a JSON object such as {{"path": "a/b.wav"}}')
    for key in ("id", "recording", "category", "sha256", "content_hash"):
        value = row.get(key)
        if not isinstance(value, str | None) or any(unicodedata.category(c) == "Cs" for c in value or ""):
            raise UserError(f"{where}: '{key}' is {value!a}; give text or leave it out")
    for key, least in (("start_s", 0.0), ("duration_s", 0.001)):
        value = row.get(key)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < 1e9:
            raise UserError(f"{where}: '{key}' is {value!r}; give seconds from {least:g} up or leave it out")
    name = row.get("id") or "x"
    parts = PurePosixPath(name).parts
    control = any(unicodedata.category(c) in ("Cc", "Cs") for c in name)
    if (
        control
        or not parts
        or ".." in parts
        or name.startswith("/")
        or PurePosixPath(name).as_posix() != name
    ):
        raise UserError(
            f"{where}: id {name!r} is not a relative file name; leave out '..', '//' and a leading '/'"
        )
