"""``--shard I/N``: the part of a data set that one of several hosts without a shared folder evaluates."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.datasets.files import ListedFile
from qincodec.core.errors import UserError


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 1) of ``count``, by recording: none is in two parts, their sizes differ by one."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``"2/8"``."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"--shard is '{text}'; give I/N, I from 1 to N, for example 1/4 to 4/4")
        return cls(int(match[1]), int(match[2]))

    def take(self, entries: Sequence[ListedFile]) -> tuple[list[ListedFile], dict[str, Any]]:
        """The files of this part, in their order, and what run.json says of it.

        That is ``indices`` and ``count``, ``recordings`` of the whole and ``of``, a hash of all:
        parts of wholes that differ do not add up to one.

        Raises:
            UserError: more parts than recordings.
        """

        def order(recording: str) -> tuple[bytes, str]:
            return hashlib.sha256(recording.encode()).digest(), recording

        recordings = sorted({entry.recording for entry in entries}, key=order)
        if self.count > len(recordings):
            raise UserError(
                f"--shard {self.index}/{self.count} of {len(recordings)} recordings: parts would be empty; "
                f"give {len(recordings)} parts or fewer"
            )
        mine = set(recordings[self.index - 1 :: self.count])
        everything = sorted((s.id, s.recording, s.start_s, s.duration_s or 0.0) for s in entries)
        described = {
            "indices": [self.index],
            "count": self.count,
            "recordings": len(recordings),
            "of": hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:16],
        }
        return [entry for entry in entries if entry.recording in mine], described


def shard_note(entry: dict[str, Any], n_recordings: int) -> str:
    """What every table of one or some parts must say."""
    numbers = ", ".join(map(str, entry["indices"]))
    several = "shard" if len(entry["indices"]) == 1 else "shards"
    return f"{several} {numbers} of {entry['count']}: {n_recordings} of {entry['recordings']} recordings"
