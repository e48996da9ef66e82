"""Data to evaluate: `Clip` (an excerpt of a recording) and `Dataset` (an ordered list of clips)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from evaluation import records


@dataclass(frozen=True)
class Clip:
    """One excerpt to be coded and scored.

    Attributes:
        id: unique in the data set, stable across machines: the path relative to the data set's root
            without its extension, with ``@<start>s`` behind it for excerpts that do not start at 0.
            Safe as a relative file name ("/" separates folders).
        path: the audio file.
        recording: source recording, the unit of all intervals and tests. Takes of one recording share it.
        content_hash: first 16 hex digits of the SHA-256 of the file's bytes.
        start_s: start of the excerpt in the file, seconds.
        duration_s: length of the excerpt, seconds.
        sample_rate: of the file, Hz.
        channels: of the file.
        lossy: name of the lossy format that the reference was once coded in ("Vorbis"), or None.
        category: a label to group results by, or None.
        error: why the file cannot be evaluated, or None. Such a clip is reported as failed for every codec.
    """

    id: records.File
    path: records.FilePath
    recording: records.Text
    content_hash: records.Text
    start_s: records.Amount = 0.0
    duration_s: records.Amount = 0.0
    sample_rate: records.Count = 0
    channels: records.Count = 0
    lossy: records.Text | None = None
    category: records.Text | None = None
    error: records.Text | None = None

    def to_json(self) -> dict[str, Any]:
        """The clip as JSON values, for the run's manifest."""
        return {**self.__dict__, "path": str(self.path)}


@dataclass
class Dataset:
    """An ordered set of clips, with notes for readers of its results.

    Attributes:
        name: short name for titles and folders ("demo", "valid", "audiocaps-test").
        clips: sorted by id.
        excluded: (name, reason) of everything listed or found that is not a clip: missing AudioCaps ids,
            tails below the minimum length, files that are not audio.
        disclaimer: a line that every table of results must show, or None.
        notes: further lines for readers of the results: a random subset, low sample rates.
        shard: the part of the whole (`evaluation.datasets.shards.Shard.take`); None: all of it.
        low_rates: the counts of the note on low sample rates, so that a merge can add them.
    """

    name: str
    clips: list[Clip]
    excluded: list[tuple[str, str]] = field(default_factory=list)
    disclaimer: str | None = None
    notes: list[str] = field(default_factory=list)
    shard: records.ShardInfo | None = None
    low_rates: records.LowRates | None = None

    @property
    def hash(self) -> str:
        """Identifies the data: ids, contents and excerpts, wherever the files are."""
        rows = [(c.id, c.content_hash, c.start_s, c.duration_s, c.recording) for c in self.clips]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
