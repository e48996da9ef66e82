"""The run folder: append-only rows, encoded clips, manifests. Written data survive a kill at any moment.

Layout::

    run.json            schema version, settings, data set, conditions, metrics, command lines
    clips.jsonl         the clips, in order (`evaluation.datasets.base.Clip.to_json`)
    files.json          of conditions decoded elsewhere: fingerprint of each clip's file, or why it is missing
    environment.json    versions, commit, machine
    rows/rank-0.jsonl   one line per row
    encoded/C@R/CLIP.enc   CLIP encoded by codec C at rate R (`baselines.codec.Encoded.to_bytes`); in large
        runs in encoded/C@R/clips-N.tar (`evaluation.run.encoded`)
    decoded/C@R/CLIP.wav   with --save-audio, float32
    embeddings/E/rank-0.f32   frames of embedding E; rows say where a clip's are (rank-0-1.f32 once that was
        cut or lost)

Kinds of rows: ``coded`` (bytes, times, delay, gain, error), ``score`` (one metric), ``frames`` (place of the
embedding of a clip), ``corpus`` and ``codes`` (computed from all clips of a condition). A row's key is a hash
of everything that decides its content (`coded_key`, `score_key` ...). It has a codec's identity, never its
label. So a model never gets another model's score, and nothing is computed twice.

One process writes. Earlier versions let several write, each to files with its number (``rank-1.jsonl``);
these are read.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import median_low
from typing import Any, TypeVar

import numpy as np

from baselines.codec import Encoded
from evaluation.datasets.base import Clip
from evaluation.records import DecodedFile, Text, loads, read, short
from evaluation.rows import CodedRow, FramesRow, Place, Row, read_row, read_rows
from evaluation.run.columns import Found, Rows
from evaluation.run.encoded import EncodedClips
from evaluation.run.keys import Keys
from evaluation.run.keys import coded_key as coded_key
from evaluation.run.keys import frames_key as frames_key
from evaluation.run.keys import reference_frames_key as reference_frames_key
from evaluation.run.keys import row_key as row_key
from evaluation.run.keys import score_key as score_key
from evaluation.run.manifest import RunDescription
from qincodec import audio
from qincodec.core.errors import UserError
from qincodec.core.files import StoreError, explain_os_errors, fitting, safe_name, write_atomic
from qincodec.core.folders import instead

SCHEMA_VERSION = 1

#: Advice for a damaged list of clips: every command that writes rows writes the list first.
LIST_AGAIN = "run the same `evaluate` command again to write the list again; all scores are kept"

#: Advice for lost frames.
FRAMES_AGAIN = "run the same `evaluate` command again to compute them again"

R = TypeVar("R", bound=Row)

#: File that rows are appended to.
_ROWS = "rank-0.jsonl"

_BYTES_AT_ONCE = 2**23


def condition_delay(delays: Iterable[int | None], align: bool) -> int:
    """Delay to remove from a condition: the (lower) median over its clips, 0 without alignment."""
    known = [delay for delay in delays if delay is not None] if align else []
    return median_low(known) if known else 0


def find_run(folder: Path) -> RunDescription | None:
    """run.json of a run folder; None in a new one. Raises UserError if it cannot be read."""
    path = folder / "run.json"
    run = _read_json(path)
    if run is None:
        return None
    schema = run.get("schema_version")
    if type(schema) is not int or schema != SCHEMA_VERSION:
        raise UserError(
            f"{folder} has run schema {short(schema)}, this version reads {SCHEMA_VERSION}; use the "
            "version that wrote it or start a new run"
        )
    try:
        return RunDescription.of_json(run)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; start a new run") from error


def refuse_strangers(folder: Path) -> None:
    """Refuse a folder with other content than a run."""
    if not folder.is_dir() or (folder / "run.json").exists():
        return
    names = {path.name for path in folder.iterdir()}
    if ".lock" in names:  # a run that was killed before run.json, which is written last
        names -= {".lock", "rows", "clips.jsonl", "files.json", "environment.json"}
    strangers = sorted(name for name in names - {"rows"} if not name.startswith(".writing-"))
    if strangers:
        raise UserError(
            f"{folder} is not empty and not a run (it holds {strangers[0]}); choose another run folder"
        )


def lock_folder(folder: Path) -> int:
    """Handle of a folder's lock, held until it is closed. UserError if another process writes there."""
    handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if not isinstance(error, BlockingIOError):
            raise
        raise UserError(
            f"another evaluation is writing to {folder}; wait for it or choose another run folder"
        ) from None
    return handle


def _read_text(path: Path, advice: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; {advice}") from error


def _read_json(path: Path, advice: str = "start a new run") -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = loads(_read_text(path, advice))
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}; {advice}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object; {advice}")
    return content


class RunStore:
    """One run folder. Use as a context manager.

    Args:
        folder: the run folder.
        write: False opens for reading only: no lock, nothing created.

    Raises:
        UserError: the folder is not a run, has a later schema, is in use by another process, or cannot be
            written.
    """

    def __init__(self, folder: Path, *, write: bool = True) -> None:
        self.folder = folder
        self._rows = Rows()
        self._encoded = EncodedClips(folder, self._rows.last_offsets)
        self._thread_lock = threading.Lock()
        self._lock_handle: int | None = None
        self._append_handle: int | None = None
        self._frames_files: dict[Path, Path] = {}
        #: Called with newly written rows.
        self.on_append: Callable[[Sequence[Row]], None] = lambda rows: None
        try:
            if write:
                self._open_for_writing()
            elif not (folder / "run.json").is_file():
                raise UserError(
                    f"{folder} is not a run: it {instead(folder, 'run.json')}; give the folder that "
                    "`evaluate --out` wrote"
                )
            self.find_run()
            self._read_rows()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for handle in (self._append_handle, self._lock_handle):
            if handle is not None:
                os.close(handle)
        self._append_handle = self._lock_handle = None
        self._encoded.close()

    def _open_for_writing(self) -> None:
        refuse_strangers(self.folder)
        rows = self.folder / "rows"
        with explain_os_errors(self.folder, "choose another run folder"):
            rows.mkdir(parents=True, exist_ok=True)
            self._lock_handle = lock_folder(self.folder)
            self._append_handle = os.open(rows / _ROWS, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
            self._cut_torn_line(self._append_handle)

    @staticmethod
    def _cut_torn_line(handle: int) -> None:
        """Drop the rest of a line that a killed process left incomplete."""
        size = os.fstat(handle).st_size
        position = size
        while position > 0:
            start = max(0, position - 65536)
            newline = os.pread(handle, position - start, start).rfind(b"\n")
            if newline >= 0:
                position = start + newline + 1
                break
            position = start
        if position < size:
            os.ftruncate(handle, position)

    # Rows

    def _read_rows(self) -> None:
        for path in sorted((self.folder / "rows").glob("rank-*.jsonl")):
            try:
                self._read_file_of_rows(path)
            except OSError as error:
                raise UserError(f"{path} cannot be read: {error.strerror}; restore it") from error

    def _read_file_of_rows(self, path: Path) -> None:
        offset = 0
        with path.open("rb") as file:
            complete = True
            while complete and (lines := file.readlines(_BYTES_AT_ONCE)):
                complete = lines[-1].endswith(b"\n")
                if not complete:
                    del lines[-1]  # another process is writing it, or was killed
                try:
                    self._rows.add(read_rows(lines), lines)
                except ValueError:
                    self._explain_damage(path, lines, offset)
                    raise
                offset += sum(map(len, lines))

    @staticmethod
    def _explain_damage(path: Path, lines: Sequence[bytes], offset: int) -> None:
        for line in lines:
            try:
                read_row(line)
            except ValueError as error:
                raise UserError(
                    f"{path} is damaged at byte {offset}: {error}; remove this line to have its clip "
                    "scored again"
                ) from error
            offset += len(line)

    def row(self, key: str, kind: type[R]) -> R | None:
        """The last row written under ``key``, or None.

        Raises:
            UserError: it has another kind.
        """
        row = self._rows.get(key)
        if row is not None and not isinstance(row, kind):
            raise self._stranger(row, kind)
        return row

    def find(self, keys: Keys, kind: type[R]) -> Found[R]:
        """`row` for many keys, in columns."""
        found, stranger = self._rows.find(keys, kind)
        if stranger is not None:
            raise self._stranger(stranger, kind)
        return found

    def _stranger(self, row: Row, kind: type[Row]) -> UserError:
        wanted = fields(kind)[0].default
        return UserError(
            f"rows of {self.folder} were edited: under the key {row.key} of a '{wanted}' row stands one of "
            f"kind {row.kind!a}; remove this line to have its clip scored again"
        )

    def rows(self) -> Iterator[Row]:
        """All rows, in the order they were written."""
        return iter(self._rows)

    def append(self, rows: Sequence[Row]) -> None:
        """Append rows in one write and flush them to the disk. Thread-safe."""
        if not rows:
            return
        lines = [
            (json.dumps(row.to_json(), separators=(",", ":"), allow_nan=False) + "\n").encode()
            for row in rows
        ]
        data = b"".join(lines)
        assert self._append_handle is not None, "opened for reading only"
        with self._thread_lock, explain_os_errors(self.folder / "rows"):
            self._encoded.sync()
            start = os.fstat(self._append_handle).st_size
            try:
                while data:
                    data = data[os.write(self._append_handle, data) :]
                os.fsync(self._append_handle)
            except OSError:
                os.ftruncate(self._append_handle, start)  # later rows must not follow half a row
                raise
            self._rows.add(rows, lines)
        self.on_append(rows)

    @property
    def writable(self) -> bool:
        return self._append_handle is not None

    # Frames of embeddings

    def append_frames(
        self, embedding: str, keys: Sequence[str], clips: Sequence[np.ndarray], silent: Sequence[int]
    ) -> None:
        """Append the frames of clips, then the rows with their places. Thread-safe.

        Frames without a row, left by a kill, are never read.

        Args:
            keys: of the rows.
            clips: (frames, dim) float32 each.
            silent: number of each clip's frames whose samples are all 0.
        """
        folder = self.folder / "embeddings" / safe_name(embedding)
        rows = []
        with self._thread_lock, explain_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            path = self._frames_file(folder)
            with path.open("ab") as file:
                for key, frames, num_silent in zip(keys, clips, silent, strict=True):
                    data = frames.astype("<f4").tobytes()
                    rows.append(
                        FramesRow(
                            key=key,
                            embedding=embedding,
                            file=str(path.relative_to(self.folder)),
                            offset=file.tell(),
                            frames=len(frames),
                            dim=frames.shape[1],
                            silent=num_silent,
                            error=None,
                            crc32=zlib.crc32(data),
                        )
                    )
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
        self.append(rows)

    def _frames_file(self, folder: Path) -> Path:
        """File to append frames to. A file that was cut or lost is skipped: its rows would point to the newly
        appended frames."""
        if folder not in self._frames_files:
            ends: dict[str, int] = {}
            for row in self.rows():
                if isinstance(row, FramesRow):
                    ends[row.file] = max(ends.get(row.file, 0), row.end)
            for number in itertools.count():
                path = folder / f"rank-0{f'-{number}' if number else ''}.f32"
                size = path.stat().st_size if path.exists() else 0
                if size >= ends.get(str(path.relative_to(self.folder)), 0):
                    self._frames_files[folder] = path
                    break
        return self._frames_files[folder]

    def has_frames(self, row: FramesRow | None) -> bool:
        """Whether the frames that ``row`` points to exist."""
        if row is None or row.error is not None:
            return False
        try:
            size = (self.folder / row.file).stat().st_size
        except OSError:
            return False
        return size >= row.end

    def frames(self, key: str) -> np.ndarray | None:
        """`read_frames` for the row under ``key``; None if it does not exist."""
        row = self.row(key, FramesRow)
        return self.read_frames(row) if row is not None and self.has_frames(row) else None

    def read_frames(self, row: FramesRow) -> np.ndarray:
        """The (frames, dim) float32 that ``row`` points to; see `has_frames`.

        Raises:
            UserError: the file holds something else in this place.
        """
        path = self.folder / row.file
        with path.open("rb") as file:
            file.seek(row.offset)
            data = file.read(row.end - row.offset)
        frames = np.frombuffer(data, "<f4").reshape(row.frames, row.dim)
        why = "" if row.crc32 in (None, zlib.crc32(data)) else "its frames have changed"
        if not np.isfinite(frames).all():
            why = "its frames contain NaN or infinity"
        if why:
            raise UserError(f"{path} is damaged at byte {row.offset}: {why}; delete it and {FRAMES_AGAIN}")
        return frames

    # Files beside the rows

    def write_encoded(self, point: str, clip_id: str, data: bytes, known: Place) -> Place:
        """Keep an encoded clip of an operating point (`Condition.point`); returns the place for its row.

        Args:
            known: the place in its present row.
        """
        return self._encoded.write(point, clip_id, data, known)

    def read_encoded(self, row: CodedRow) -> Encoded:
        """The encoded clip of a coded row. Raises OSError if it is gone, UserError if it is damaged."""
        return Encoded.from_bytes(self._encoded.read(row.clip, row.place))

    def has_encoded(self, row: CodedRow) -> bool:
        """Whether the encoded clip of a coded row exists."""
        return self._encoded.has(row.clip, row.place)

    def decoded_path(self, point: str, clip_id: str) -> Path:
        """File of the decoded clip with ``--save-audio``."""
        return self.folder / "decoded" / safe_name(point) / fitting(f"{clip_id}.wav")

    def write_decoded(self, point: str, clip_id: str, samples: np.ndarray, sample_rate: int) -> None:
        """Keep (channels, samples) of a decoded clip as float32 WAV."""
        path = self.decoded_path(point, clip_id)
        with explain_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            audio.write(path, samples, sample_rate, "float32")
        except UserError as error:
            raise StoreError(str(error)) from error

    def read_run(self) -> RunDescription:
        """run.json. Raises UserError if it does not exist yet, or is damaged."""
        run = self.find_run()
        if run is None:
            raise UserError(f"{self.folder} holds no run yet; start it with `evaluate --out {self.folder}`")
        return run

    def find_run(self) -> RunDescription | None:
        """run.json; None in a new folder."""
        return find_run(self.folder)

    def write_run(self, run: RunDescription) -> None:
        self._write_json("run.json", {"schema_version": SCHEMA_VERSION, **run.to_json()})

    def read_environment(self) -> dict[str, Any]:
        return _read_json(self.folder / "environment.json", "delete it: results do not depend on it") or {}

    def write_environment(self, environment: dict[str, Any]) -> None:
        self._write_json("environment.json", environment)

    def read_files(self) -> dict[str, dict[str, DecodedFile]]:
        """`Condition.point` -> clip id -> its file that was decoded elsewhere."""
        path = self.folder / "files.json"
        try:
            found = read(dict[Text, dict[Text, Text]], _read_json(path) or {})
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}; start a new run") from error
        return {
            point: {clip: DecodedFile.of(text) for clip, text in files.items()}
            for point, files in found.items()
        }

    def write_files(self, files: Mapping[str, Mapping[str, DecodedFile]]) -> None:
        plain = {point: {clip: file.text for clip, file in found.items()} for point, found in files.items()}
        self._write_json("files.json", plain)

    def write_clips(self, clips: list[Clip]) -> None:
        self._encoded.expect(len(clips))
        lines = [json.dumps(clip.to_json(), ensure_ascii=False) + "\n" for clip in clips]
        write_atomic(self.folder / "clips.jsonl", "".join(lines))

    def read_clips(self) -> list[Clip]:
        return list(self.each_clip())

    def each_clip(self) -> Iterator[Clip]:
        """The clips one by one, because a list of a million takes a gigabyte."""
        path = self.folder / "clips.jsonl"
        seen: set[str] = set()
        try:
            # Split only at \n: names may contain other line ends.
            with path.open(encoding="utf-8", newline="\n") as file:
                for number, line in enumerate(file, 1):
                    if not line.strip():
                        continue
                    try:
                        clip = read(Clip, loads(line))
                        if clip.id in seen:
                            raise ValueError(f"clip {short(clip.id)} is in it twice")
                    except ValueError as error:
                        raise UserError(f"{path} is damaged, line {number}: {error}; {LIST_AGAIN}") from error
                    seen.add(clip.id)
                    yield clip
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}; {LIST_AGAIN}") from error

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        write_atomic(self.folder / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
