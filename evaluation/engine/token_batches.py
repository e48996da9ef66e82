"""Batches of ``evaluate tokenize``, as this process or a worker of a cluster encodes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.codec import Codec, Encoded, Rate, check_encoded
from evaluation.datasets.base import Clip
from evaluation.engine.coding import Coder
from evaluation.engine.jobs import Job
from evaluation.engine.ledger import Gathered
from evaluation.engine.scoring import describe
from evaluation.engine.worker import Worker
from qincodec.core.errors import UserError
from qincodec.core.plugins import FAULTS

NO_CODES = "codec '{}' has no codebooks, so there are no tokens; `evaluate list` shows the other codecs"


@dataclass(frozen=True)
class Tokens:
    """Codes of clips, one array per id, and index rows of all clips, also those without codes."""

    arrays: dict[str, np.ndarray]
    rows: list[dict[str, Any]]

    def renamed(self, names: Mapping[str, str]) -> Tokens:
        """The same with other file names in the error messages of rows."""
        return replace(self, rows=[row | {"error": _renamed(row["error"], names)} for row in self.rows])


def _renamed(error: str | None, names: Mapping[str, str]) -> str | None:
    for old, new in names.items():
        error = error and error.replace(old, new)
    return error


def encode_batch(codec: Codec, rate: Rate, coder: Coder, clips: Sequence[Clip]) -> Tokens:
    """The codes of a batch; clips of one length go to the codec together."""
    found: dict[str, Codes | str] = {}
    by_length: dict[int, list[tuple[Clip, torch.Tensor]]] = {}
    for clip in clips:
        try:
            if clip.error:
                raise UserError(clip.error)
            if clip.id == "__metadata__":
                raise UserError("safetensors keeps the name __metadata__ for itself; rename the file")
            samples = torch.from_numpy(coder.reference(clip))
            by_length.setdefault(samples.shape[-1], []).append((clip, samples))
        except KeyboardInterrupt:
            raise
        except FAULTS as error:
            found[clip.id] = describe(error)
    for _, members in sorted(by_length.items()):
        found |= _encode(codec, rate, members)
    arrays = {name: codes.array for name, codes in found.items() if isinstance(codes, Codes)}
    return Tokens(arrays, [row_of(clip, found[clip.id]) for clip in clips])


def _encode(codec: Codec, rate: Rate, members: Sequence[tuple[Clip, torch.Tensor]]) -> dict[str, Codes | str]:
    """Codes of clips of one length by clip id, or why a clip has none."""
    given = torch.stack([samples for _, samples in members]).to(codec.device)
    try:
        encoded = check_encoded(codec.name, codec.encode(given, rate), len(members))
        items = zip(members, encoded, strict=True)
        return {clip.id: Codes.of(codec, item) for (clip, _), item in items}
    except KeyboardInterrupt:
        raise
    except FAULTS as error:
        if len(members) == 1:
            return {members[0][0].id: describe(error)}
        alone = [_encode(codec, rate, [member]) for member in members]  # only the clip at fault is lost
        return {name: codes for part in alone for name, codes in part.items()}


@dataclass(frozen=True)
class Codes:
    """Codes of a clip: (codebooks, frames); the codebooks are concatenated if their frames differ."""

    array: np.ndarray
    frames: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, codec: Codec, encoded: Encoded) -> Codes:
        if encoded.codes is None or not encoded.codebook_sizes:
            raise UserError(NO_CODES.format(codec.name))
        rows, sizes = [np.asarray(row) for row in encoded.codes], encoded.codebook_sizes
        if len(rows) != len(sizes) or any(
            row.size and not 0 <= row.min() <= row.max() < size for row, size in zip(rows, sizes, strict=True)
        ):
            raise UserError(f"codec '{codec.name}': codes lie outside their codebooks")
        rows = [row.astype(np.int16 if max(sizes) <= 2**15 else np.int32) for row in rows]
        frames = tuple(map(len, rows))
        array = np.stack(rows) if len(set(frames)) == 1 else np.concatenate(rows)
        return cls(array, frames, tuple(sizes))


def row_of(clip: Clip, found: Codes | str) -> dict[str, Any]:
    """Row of the index."""
    row: dict[str, Any] = {
        "id": clip.id,
        "recording": clip.recording,
        "category": clip.category,
        "start_s": clip.start_s,
        "duration_s": clip.duration_s,
    }
    if isinstance(found, str):
        return row | {"codebooks": 0, "frames": [], "sizes": [], "error": found}
    sizes = {"codebooks": len(found.frames), "frames": list(found.frames), "sizes": list(found.sizes)}
    return row | sizes | {"error": None}


# --- on a cluster ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokensOrder:
    """A batch as sent to a worker (`evaluation.engine.worker.Order`)."""

    clips: Sequence[Clip]
    label: str
    rate: Rate

    @property
    def files(self) -> Mapping[Path, str]:
        return {clip.path: clip.content_hash for clip in self.clips}

    def work(self, worker: Worker, places: Mapping[Path, Path]) -> Tokens:
        codec = worker.codecs[self.label]
        coder = Coder(Gathered(), codec.sample_rate, worker.settings.channels, worker.unchanged)
        clips = [replace(clip, path=places[clip.path]) for clip in self.clips]
        return encode_batch(codec, self.rate, coder, clips)


@dataclass
class TokensJob:
    """A batch, or a part of one, as a `evaluation.engine.jobs.Job`.

    Attributes:
        batch: all clips of it.
        members: the clips of this part.
        keep: called with the codes of the batch, once they are complete.
        found: codes of all parts so far.
    """

    batch: Sequence[Clip]
    members: Sequence[Clip]
    label: str
    rate: Rate
    keep: Callable[[Tokens], None]
    found: Tokens = field(default_factory=lambda: Tokens({}, []))

    @property
    def points(self) -> list[str]:
        return [f"{self.label}@{self.rate.label}"]

    @property
    def clips(self) -> list[str]:
        return [clip.id for clip in self.members]

    def order(self) -> TokensOrder:
        return TokensOrder(self.members, self.label, self.rate)

    def take(self, found: Tokens) -> None:
        self.found.arrays.update(found.arrays)
        self.found.rows.extend(found.rows)
        if len(self.found.rows) == len(self.batch):
            rows = {row["id"]: row for row in self.found.rows}
            self.keep(Tokens(self.found.arrays, [rows[clip.id] for clip in self.batch]))

    def part(self, points: Set[str]) -> TokensJob | None:
        return self if points & {*self.points} else None

    def parts(self) -> list[Job]:
        return [replace(self, members=[clip]) for clip in self.members] if len(self.members) > 1 else []

    def fail(self, reason: str) -> None:
        self.take(Tokens({}, [row_of(clip, reason) for clip in self.members]))
