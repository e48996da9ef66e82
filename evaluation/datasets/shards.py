"""``--shard I/N``: the part of a data set that one of several hosts without a shared folder evaluates."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.datasets.sources import Source
from evaluation.records import ShardInfo
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

    def take(self, sources: Sequence[Source]) -> tuple[list[Source], ShardInfo]:
        """The sources of this part, in their order, and what run.json says of it.

        Raises:
            UserError: more parts than recordings.
        """

        def order(recording: str) -> tuple[bytes, str]:
            return hashlib.sha256(recording.encode()).digest(), recording

        recordings = sorted({source.recording for source in sources}, key=order)
        if self.count > len(recordings):
            raise UserError(
                f"--shard {self.index}/{self.count} of {len(recordings)} recordings: parts would be empty; "
                f"give {len(recordings)} parts or fewer"
            )
        mine = set(recordings[self.index - 1 :: self.count])
        everything = sorted((s.id, s.recording, s.start_s, s.duration_s or 0.0) for s in sources)
        whole = hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:16]
        info = ShardInfo((self.index,), self.count, len(recordings), whole)
        return [source for source in sources if source.recording in mine], info


def shard_note(info: ShardInfo, n_recordings: int) -> str:
    """What every table of one or some parts must say."""
    numbers = ", ".join(map(str, info.indices))
    several = "shard" if len(info.indices) == 1 else "shards"
    return f"{several} {numbers} of {info.count}: {n_recordings} of {info.recordings} recordings"
