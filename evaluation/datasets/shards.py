"""``--shard I/N``: the part of a data set that one of several hosts without a shared folder evaluates."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evaluation.datasets.files import ListedFile
from evaluation.records import ShardInfo
from qincodec.core.errors import UserError


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 1) of ``count``, by recording: none is in two parts; sizes differ by one at
    most."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``"2/8"``."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"--shard is '{text}'; give I/N, I from 1 to N, for example 1/4 to 4/4")
        return cls(int(match[1]), int(match[2]))

    def take(self, entries: Sequence[ListedFile]) -> tuple[list[ListedFile], ShardInfo]:
        """The files of this part, in order, and its description for run.json.

        Raises:
            UserError: the recordings are fewer than the parts.
        """
        names = {entry.recording for entry in entries}
        recordings = sorted(names, key=lambda name: (hashlib.sha256(name.encode()).digest(), name))
        if self.count > len(recordings):
            raise UserError(
                f"--shard {self.index}/{self.count} of {len(recordings)} recordings leaves parts empty; give "
                f"{len(recordings)} parts or fewer"
            )
        mine = set(recordings[self.index - 1 :: self.count])
        everything = sorted((s.id, s.recording, s.start_s, s.duration_s or 0.0) for s in entries)
        whole = hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:16]
        info = ShardInfo((self.index,), self.count, len(recordings), whole)
        return [entry for entry in entries if entry.recording in mine], info


def shard_note(info: ShardInfo, n_recordings: int) -> str:
    """Note for every table of one or some parts."""
    numbers = ", ".join(map(str, info.indices))
    several = "shard" if len(info.indices) == 1 else "shards"
    return f"{several} {numbers} of {info.count}: {n_recordings} of {info.recordings} recordings"


def unite_shards(shards: Sequence[ShardInfo | None]) -> ShardInfo | None:
    """Union of parts of one whole; None if one is not a part, because the whole is then unknown.

    Raises:
        UserError: they belong to different wholes.
    """
    known = [shard for shard in shards if shard is not None]
    if len(known) < len(shards):
        return None
    wholes = sorted({f"{shard.count} parts of data {shard.of}" for shard in known})
    if len(wholes) > 1:
        raise UserError(
            f"the runs are shards of different wholes: {' and '.join(wholes)}; the hosts must have the same "
            "files, and the same number of parts"
        )
    return replace(known[0], indices=tuple(sorted({index for shard in known for index in shard.indices})))
