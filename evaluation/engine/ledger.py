"""The interface between the work on a batch and a run folder, on its own host or another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np

from baselines.codec import Encoded
from evaluation.rows import ClipRow, CodedRow, FramesRow, Place, Row, ScoreRow
from evaluation.run.store import RunStore

R = TypeVar("R", bound=Row)


class Ledger(Protocol):
    """The part of `RunStore` that coding and scoring use, which `Gathered` also has."""

    def row(self, key: str, kind: type[R]) -> R | None: ...

    def append(self, rows: Sequence[Row]) -> None: ...

    def read_encoded(self, row: CodedRow) -> Encoded: ...

    def write_encoded(self, point: str, clip_id: str, data: bytes, known: Place) -> Place: ...

    def write_decoded(self, point: str, clip_id: str, samples: np.ndarray, sample_rate: int) -> None: ...

    def frames(self, key: str) -> np.ndarray | None: ...

    def append_frames(
        self, embedding: str, keys: Sequence[str], clips: Sequence[np.ndarray], silent: Sequence[int]
    ) -> None: ...


@dataclass
class Known:
    """Known content of a run folder.

    Attributes:
        rows: by key.
        encoded: by key of their rows.
        frames: by key of their rows; ``rows`` does not have these.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    encoded: dict[str, Encoded] = field(default_factory=dict)
    frames: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Gathered:
    """Substitute for a run folder on another host: holds known results and collects new ones."""

    known: Known = field(default_factory=Known)
    new_rows: dict[str, Row] = field(default_factory=dict)
    #: Placeholder of a file -> operating point, clip, bytes, present place.
    new_encoded: dict[str, tuple[str, str, bytes, Place]] = field(default_factory=dict)
    #: Operating point, clip, samples, sample rate.
    new_decoded: list[tuple[str, str, np.ndarray, int]] = field(default_factory=list)
    #: Key -> embedding, frames, number of silent frames.
    new_frames: dict[str, tuple[str, np.ndarray, int]] = field(default_factory=dict)

    def row(self, key: str, kind: type[R]) -> R | None:
        row = self.new_rows.get(key) or self.known.rows.get(key)
        assert row is None or isinstance(row, kind)  # the run folder returned this kind
        return row

    def append(self, rows: Sequence[Row]) -> None:
        self.new_rows.update((row.key, row) for row in rows)

    def read_encoded(self, row: CodedRow) -> Encoded:
        if row.key not in self.known.encoded:
            raise FileNotFoundError(str(row.encoded))
        return self.known.encoded[row.key]

    def write_encoded(self, point: str, clip_id: str, data: bytes, known: Place) -> Place:
        """Returns a placeholder: the run folder decides the place in `write_to`."""
        name = f"{point}/{clip_id}"
        self.new_encoded[name] = point, clip_id, data, known
        return Place(name)

    def write_decoded(self, point: str, clip_id: str, samples: np.ndarray, sample_rate: int) -> None:
        self.new_decoded.append((point, clip_id, samples, sample_rate))

    def frames(self, key: str) -> np.ndarray | None:
        new = self.new_frames.get(key)
        return self.known.frames.get(key) if new is None else new[1]

    def append_frames(
        self, embedding: str, keys: Sequence[str], clips: Sequence[np.ndarray], silent: Sequence[int]
    ) -> None:
        for key, frames, count in zip(keys, clips, silent, strict=True):
            self.new_frames[key] = embedding, frames, count

    def additions(self) -> Gathered:
        """New results without the known ones, to send back."""
        return replace(self, known=Known())

    def renamed(self, names: Mapping[str, str]) -> Gathered:
        """The same with other file names in the error messages of rows."""

        def with_new_names(row: Row) -> Row:
            if not isinstance(row, ClipRow) or row.error is None:
                return row
            error = row.error
            for old, new in names.items():
                error = error.replace(old, new)
            return replace(row, error=error, **({"reason": error} if isinstance(row, ScoreRow) else {}))

        return replace(self, new_rows={key: with_new_names(row) for key, row in self.new_rows.items()})

    def write_to(self, store: RunStore) -> list[ClipRow]:
        """Write all new results to a run folder, files before the rows that name them.

        Returns:
            The rows with the folder's file names; they are not appended yet.
        """
        for point, clip_id, samples, sample_rate in self.new_decoded:
            store.write_decoded(point, clip_id, samples, sample_rate)
        for embedding in dict.fromkeys(name for name, _, _ in self.new_frames.values()):
            new = {
                key: (frames, silent)
                for key, (name, frames, silent) in self.new_frames.items()
                if name == embedding and not store.has_frames(store.row(key, FramesRow))
            }
            if new:
                frames, silent = zip(*new.values(), strict=True)
                store.append_frames(embedding, list(new), list(frames), list(silent))
        places = {name: store.write_encoded(*encoded) for name, encoded in self.new_encoded.items()}
        rows = [row for row in self.new_rows.values() if isinstance(row, ClipRow)]
        return [
            row.at(places.get(row.encoded or "", row.place)) if isinstance(row, CodedRow) else row
            for row in rows
        ]
