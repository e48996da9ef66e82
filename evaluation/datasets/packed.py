"""Audio inside other files: WebDataset tars, and data sets of the library ``datasets`` (``hf:NAME``).

The drawn clips are written to the cache as files, so that the rest of the program sees a local folder.
Nothing is decoded here: the files have the same bytes as in the tar or data set.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from baselines.weights import is_offline
from evaluation.datasets.files import ListedFile, Listing, file_ids, readable
from evaluation.records import is_text, loads
from qincodec.audio import EXTENSIONS
from qincodec.core.console import Progress
from qincodec.core.errors import UserError, count, one_line, said, shown
from qincodec.core.files import cache_folder, write_atomic

HF = "hf:"
_KEYS = ("category", "recording")
#: Greatest length of a part of an id, bytes: files of a run have it in their names of at most 255.
_LONGEST_NAME = 200
#: Columns of the recording in copies of AudioCaps and of speech data.
_RECORDINGS = ("recording", "youtube_id", "speaker_id")

#: In messages of the libraries pyarrow and datasets for data without rows.
_EMPTY = ("BatchSize must be greater than 0", "corresponds to no data")
#: First bytes of the formats of `qincodec.audio.EXTENSIONS`.
_AUDIO_FILE = re.compile(
    rb"(RIFF|RF64|BW64)....WAVE|riff\x2e\x91\xcf\x11|FORM....AIF[FC]|caff|\.snd|fLaC|OggS|ID3|\xff[\xe0-\xff]"
    rb"|....ftyp(?!avi|hei|mif|msf)|\x1aE\xdf\xa3|0&\xb2u|wvpk|MAC |TTA[12]|\x0bw|#!AMR",
    re.DOTALL,
)


def _cached(kind: str, *identity: object) -> Path:
    digest = hashlib.sha256(json.dumps([str(part) for part in identity]).encode()).hexdigest()[:16]
    return (cache_folder() / kind / digest).absolute()


def _fetch(
    contents: Mapping[Path, Callable[[], bytes]],
    paths: Iterable[Path],
    progress: Progress = lambda *_: None,
) -> dict[Path, str]:
    """Write those of ``paths`` that do not exist yet, and say why some cannot be written. An existing file is
    whole, and the name of its folder identifies its source, so it is unchanged."""
    failed: dict[Path, str] = {}
    wanted = [path for path in dict.fromkeys(paths) if not path.exists()]
    for done, path in enumerate(wanted, start=1):
        try:
            content = contents[path]()
        except UserError as error:  # only this clip fails
            failed[path] = one_line(str(error))
        except OSError as error:
            failed[path] = one_line(f"cannot read '{error.filename}': {error.strerror}")
        else:
            write_atomic(path, content)
        progress("unpacking data", done, len(wanted))
    return failed


# --- tars ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Member:
    tar: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def is_tar(path: Path) -> bool:
    return path.suffix.lower() == ".tar"


def find_tars(name: str, tars: Sequence[Path], recording: Callable[[str], str]) -> Listing:
    """The audio in WebDataset tars: ``KEY.flac``, with ``category`` and ``recording`` from a ``KEY.json``
    beside it, if any.

    A clip's id is its key, written like that of a file in a folder; with several tars, the tar's name
    precedes it. The default category is the first folder of the key.

    Raises:
        UserError: a tar cannot be read or is compressed, or none has audio.
    """
    entries, contents, others = [], {}, 0
    for tar in tars:
        status = tar.stat()
        root = _cached("tars", "numbered", tar.absolute(), status.st_size, status.st_mtime_ns)
        members = dict(_members(tar))
        audio = [path for path in map(PurePosixPath, members) if path.suffix.lower() in EXTENSIONS]
        others += sum(not name.lower().endswith(".json") for name in members) - len(audio)
        for number, (path, key) in enumerate(file_ids(audio, PurePosixPath()).items()):
            if max(map(len, key.encode().split(b"/"))) > _LONGEST_NAME:
                key = f"{key[:40].replace('/', '-')}-{number:06d}"
            clip = f"{readable(tar.stem)}/{key}" if len(tars) > 1 else key
            said_of = _json_of(members, path, tar)
            # Names in a tar may be too long for a file, or need a folder and a file of one name.
            place = root / f"{number:06d}{path.suffix.lower()}"
            category = readable(path.parts[0]) if len(path.parts) > 1 else None
            entries.append(
                ListedFile(
                    id=clip,
                    label=clip,
                    path=place,
                    recording=said_of.get("recording") or recording(clip),
                    category=said_of.get("category") or category,
                )
            )
            contents[place] = members[path.as_posix()].read
    if not entries:
        raise UserError(f"no audio in {len(tars)} tar files, such as '{tars[0]}': {others} other files")
    return Listing(readable(name), entries, fetch=partial(_fetch, contents))


def _members(tar: Path) -> Iterator[tuple[str, _Member]]:
    """Files by name, without hidden ones."""
    try:
        with tarfile.open(tar, "r:") as archive:  # uncompressed, for random access
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if (
                    not member.isreg()
                    or member.issparse()
                    or any(part.startswith(".") for part in parts[-1:])
                ):
                    continue
                if member.name.startswith("/") or ".." in parts or "\0" in member.name:
                    raise UserError(f"'{tar}' names a file outside of it: {member.name!a}; make it again")
                name = PurePosixPath(*(part for part in parts if part != ".")).as_posix()
                yield name, _Member(tar, member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(
            f"'{tar}' cannot be read: {one_line(str(error))}; give a whole tar that is not compressed"
        ) from error


def _json_of(members: Mapping[str, _Member], audio: PurePosixPath, tar: Path) -> dict[str, str]:
    """Known fields of the metadata beside an audio file. WebDataset ends keys at the first dot."""
    names = [f"{audio.with_suffix('')}.json", f"{audio.with_name(audio.name.partition('.')[0])}.json"]
    name = next((name for name in names if name in members), None)
    if name is None:
        return {}
    try:
        content = loads(members[name].read())
    except ValueError as error:
        raise UserError(f"'{readable(name)}' in '{tar}' is not JSON: {error}") from error
    known = content if isinstance(content, dict) else {}
    return {name: known[name] for name in _KEYS if is_text(known.get(name))}


# --- the library datasets --------------------------------------------------------------------------------


def find_hf(text: str, recording: Callable[[str], str]) -> Listing:
    """A data set of the library ``datasets``: ``hf:NAME[@CONFIG][:SPLIT]``.

    NAME is one of the Hugging Face hub, or a folder that the library has written (``save_to_disk``) or can
    read. A clip's id is its column ``id``, or the number of its row if it has no id that can be in a file's
    name and that no other row has. Its recording is the first of the columns `_RECORDINGS`, its category the
    column ``category``, or else the first column of class labels.

    Raises:
        UserError: the library is not installed or cannot load the data set, several splits exist and none is
            named, or it has no rows or no column of audio.
    """
    match = re.fullmatch(r"hf:([^@:]+)(?:@([^@:]+))?(?::([^@:]+))?", text)
    if match is None:
        raise UserError(f"'{text}': give hf:NAME, hf:NAME:SPLIT or hf:NAME@CONFIG:SPLIT")
    name, config, split = match.groups()
    data = _load(text, name, config, split)
    if not len(data):
        raise UserError(f"'{text}' has no rows; give a data set or split with audio")
    import datasets

    audio, several = _audio_column(data, text)
    sounds = data.select_columns([audio])
    if isinstance(data.features[audio], datasets.Audio):
        sounds = sounds.cast_column(audio, datasets.Audio(decode=False))
    labels = {key: kind for key, kind in data.features.items() if isinstance(kind, datasets.ClassLabel)}
    of_rows = [key for key in ("id", "category", *_RECORDINGS, *labels) if key in data.features]
    table = data.select_columns(list(dict.fromkeys(of_rows)))[:] if of_rows else {}
    for key, kind in labels.items():
        table[key] = [None if value is None else kind.int2str(value) for value in table[key]]
    notes = []
    odd = [value for value in table.get("category", ()) if not isinstance(value, str | int | None)]
    if odd:
        notes.append(f"{count(len(odd), 'row')} with a category that is not text: {shown(odd[0])}; left out")
    root = _cached("hf", text, data._fingerprint, *([audio] if several else []))
    entries, contents = [], {}
    numbers = [f"{number:06d}" for number in range(len(data))]
    ids, of_ids = _ids(table.get("id", numbers), numbers)
    for number, clip in enumerate(ids):
        path = root / numbers[number]
        source = _first_text(table, _RECORDINGS, number)
        category = _first_text(table, ("category", *labels), number)
        entries.append(ListedFile(clip, clip, path, source or recording(clip), category))
        contents[path] = partial(_bytes_of, sounds, number, audio)
    name = re.sub(r"\W+", "-", Path(name).name) + (f"-{split}" if split else "")
    return Listing(name, entries, notes=several + notes + of_ids, fetch=partial(_fetch, contents))


def _ids(given: Iterable[object], numbers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Ids of the rows, and notes on given ids that cannot be used. Their rows have numbers as ids."""
    values = list(given)
    texts = [_text(value) for value in values]
    ids = [text if text and _is_name(text) else row for text, row in zip(texts, numbers, strict=True)]
    refused = [
        value
        for value, text, clip in zip(values, texts, ids, strict=True)
        if value is not None and text != clip
    ]
    possible = ids
    # An id that was given goes before an equal one that was normalised.
    as_given = {str(value) for value in values}
    ids = [
        row if clip in as_given and clip != str(value) else clip
        for clip, value, row in zip(ids, values, numbers, strict=True)
    ]
    while twice := {clip for clip, times in Counter(ids).items() if times > 1}:
        ids = [row if clip in twice else clip for clip, row in zip(ids, numbers, strict=True)]
    taken: list[object] = [clip for clip, used in zip(possible, ids, strict=True) if clip != used]
    notes = [
        f"{count(len(rows), 'row')} with an id that {why}, such as {shown(rows[0])}: row numbers are used"
        for rows, why in (
            (refused, "cannot be in a file's name (letters, digits, '_.+& -'; 200 bytes)"),
            (taken, "another row has"),
        )
        if rows
    ]
    return ids, notes


def _text(value: object) -> str | None:
    """A cell as the name of a clip or a group, None if it is blank or neither text nor a whole number."""
    text = str(value) if isinstance(value, str | int) else ""
    plain = text.isascii() and text.isprintable()
    # Texts without marks and control characters stay as they are: stored runs have them as ids.
    if not plain and any(unicodedata.category(c)[0] in "MC" for c in text):
        text = readable(text)
    return text if text.strip() else None


def _first_text(table: Mapping[str, Sequence[object]], columns: Iterable[str], row: int) -> str | None:
    """The text of the first of the columns that has one in a row."""
    texts = (_text(table[column][row]) for column in columns if column in table)
    return next((text for text in texts if text is not None), None)


def _audio_column(data: Any, text: str) -> tuple[str, list[str]]:
    """The column of audio, and a note if others could be it or it may not be audio."""
    import datasets

    typed = [column for column, kind in data.features.items() if isinstance(kind, datasets.Audio)]
    found = typed or [column for column, kind in data.features.items() if _is_stored_audio(kind)]
    if not found:
        kinds = ", ".join(f"{column} ({_kind(kind)})" for column, kind in data.features.items())
        raise UserError(
            f"'{text}' has no column of audio among {kinds}; it needs a column of type Audio, or a struct of "
            "bytes (a whole audio file) and path; cast_column(NAME, datasets.Audio()) makes one from paths"
        )
    # Images are stored in the same form.
    audio = typed or [column for column in found if _AUDIO_FILE.match(_first_content(data, column))]
    chosen = typed[0] if typed else min(audio or found, key=lambda column: column != "audio")
    note = f"the audio is column '{chosen}'"
    if not audio:
        names = "', '".join(found)
        return chosen, [f"{note}, of {len(found)}; no known audio file is at the beginning of '{names}'"]
    if len(audio) > 1:
        names = "', '".join(audio)
        return chosen, [f"{note}, of {len(audio)} with audio: '{names}'"]
    return chosen, [f"{note}, of {len(found)}"] if len(found) > 1 else []


def _first_content(data: Any, column: str) -> bytes:
    """The first file in a column of `_is_stored_audio`; empty if there is none."""
    for batch in data.select_columns([column]).iter(16):
        for value in batch[column]:
            with suppress(UserError):
                return _content(value, "", column)
    return b""


def _is_stored_audio(kind: object) -> bool:
    """Whether a column has the library's form of audio, in plain Parquet, which does not name its type."""
    import pyarrow as pa

    fields = kind if isinstance(kind, dict) else {}
    types = {name: getattr(field, "pa_type", None) for name, field in fields.items()}
    of_bytes = types.pop("bytes", None) in (pa.binary(), pa.large_binary())
    return (
        of_bytes
        and types.keys() <= {"path"}
        and set(types.values()) <= {pa.string(), pa.large_string(), pa.null()}
    )


def _kind(kind: object) -> str:
    """Type of a column, for messages."""
    if isinstance(kind, dict):
        return f"struct of {', '.join(kind)}"
    return str(getattr(kind, "dtype", type(kind).__name__))


def _is_name(text: str) -> bool:
    """Whether a text can be a clip's id: file names have at most 255 bytes."""
    if len(text.encode(errors="replace")) > _LONGEST_NAME:
        return False
    rest = text[1:]
    if not text.isascii():  # \w has no combining marks
        rest = "".join("_" if unicodedata.category(c)[0] == "M" else c for c in rest)
    return re.fullmatch(r"[\w-][\w.+& -]*", text[:1] + rest) is not None


def _load(text: str, name: str, config: str | None, split: str | None) -> Any:
    if is_offline():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the library is imported
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"'{text}' needs the library datasets, which is not installed: pip install 'qincodec[hf]'"
        ) from error
    folder = Path(name).expanduser()
    saved = (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()
    if saved and config is not None:
        raise UserError(f"'{text}' was saved to disk and has no configurations; leave out @{config}")
    datasets.disable_progress_bars()
    try:
        if saved:
            found = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(str(folder) if folder.exists() else name, config)
    except Exception as error:  # it raises any error of its readers, and wraps the reason
        why: BaseException = error
        while why.__cause__ is not None:
            why = why.__cause__
        if isinstance(why, ImportError):  # the library needs another package for anything but tables
            raise UserError(
                f"'{text}' cannot be loaded: {HF} reads data sets in Parquet or Arrow, not folders of audio"
                f" or tars, which are evaluated without {HF} ({one_line(said(why))})"
            ) from error
        if any(words in str(why) for words in _EMPTY) or (saved and isinstance(why, IndexError)):
            raise UserError(
                f"'{text}' has no rows, or a file or split of it has none; leave that out"
            ) from error
        hint = f"; a folder of audio files is evaluated without {HF}" if folder.is_dir() else ""
        raise UserError(f"'{text}' cannot be loaded: {one_line(said(why), 500)}{hint}") from error
    if not isinstance(found, dict):
        if split is not None:
            raise UserError(f"'{text}' has no splits; leave out :{split}")
        return found
    if split is None and len(found) > 1:
        raise UserError(f"'{text}' has splits {', '.join(found)}; give one: {text}:{next(iter(found))}")
    if split is not None and split not in found:
        raise UserError(f"'{text}' has no split '{split}'; it has {', '.join(found)}")
    return found[split] if split is not None else next(iter(found.values()))


def _bytes_of(data: Any, number: int, column: str) -> bytes:
    return _content(data[number][column], f"row {number}", column)


def _content(value: Mapping[str, Any] | None, row: str, column: str) -> bytes:
    """The audio file in a cell of a column: its bytes or, if there are none, the file at its path."""
    value = value or {}
    if value.get("bytes"):
        return bytes(value["bytes"])
    path = value.get("path")
    if not path:
        raise UserError(f"{row} has no audio in column '{column}'")
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        missing = isinstance(error, FileNotFoundError)
        why = "is missing" if missing else f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise UserError(f"{row} has no audio in column '{column}': '{path}' {why}") from error
