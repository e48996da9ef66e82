"""Data sets: the embedded demo, folders, globs, files and manifests, here or at an address; and AudioCaps."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from evaluation.datasets import audiocaps, folder, layouts, packed, remote
from evaluation.datasets.base import Clip, Dataset
from evaluation.datasets.files import File, Listing, cut, draw, drawn_at, look_at, low_rates
from evaluation.datasets.shards import Shard, shard_note
from qincodec.core.console import Progress
from qincodec.core.errors import UserError

__all__ = ["Clip", "Dataset", "find_data", "load_dataset"]

_DEMO = Path(__file__).parent / "demo" / "demo.jsonl"
_AUDIOCAPS = "audiocaps:"
_MIN_CHUNK_S = 0.1


def load_dataset(
    data: str | Path | None = None,
    *,
    chunk_s: float = 5.0,
    chunks: Literal["first", "all"] = "first",
    limit: int | None = None,
    seed: int = 0,
    shard: str | None = None,
    sample: int | None = None,
    sample_rate: int = 44100,
    recording_pattern: str | None = None,
    audiocaps_list: str | Path | None = None,
    allow_resampled: bool = False,
    listing: Listing | None = None,
    progress: Progress = lambda *_: None,
) -> Dataset:
    """The clips of ``data``, each with its hash, length and recording.

    Excerpts: one clip per file, its first ``chunk_s`` seconds, or the whole file if it is shorter. With
    ``chunks="all"``, clips follow each other to the end; a last one shorter than 1 s (or than ``chunk_s``, if
    that is less) is excluded, unless it is the only one. Recordings: a file is its own recording, unless its
    ESC or freesound.org name identifies one (`evaluation.datasets.folder.recording_of`). Categories: from a
    manifest, else the first folder below the one all files share, else the class in an ESC name.

    A file that cannot be read is a clip with an ``error``; files without an audio extension and hidden files
    are ignored.

    Args:
        data: None or "demo": the embedded demo ("./demo" is a folder of that name). A folder, searched
            with all folders below it; a glob (``**`` for any folders); an audio file; a JSON-lines list
            file (`evaluation.datasets.folder.read_manifest`), whose rows are cut as files are. Each of these
            also as an address that fsspec reads, such as "s3://bucket/folder": the drawn files are copied
            into the cache. A WebDataset tar, or a folder or glob of some; "hf:NAME[@CONFIG][:SPLIT]": a data
            set of the library ``datasets`` (both `evaluation.datasets.packed`). "vctk:FOLDER" and similar:
            the data set of that name (`evaluation.datasets.layouts`). "audiocaps:FOLDER": the clips of
            AudioCaps' test list in FOLDER (`evaluation.datasets.audiocaps.find`).
        chunk_s: length of an excerpt in seconds, at least 0.1; ``math.inf``: whole files.
        chunks: "first" or "all".
        limit: number of recordings to evaluate, drawn at random; a larger limit includes a smaller one.
        seed: of that draw.
        shard: "I/N": part I of N of what was drawn (`evaluation.datasets.shards.Shard`).
        sample: number of files to read, drawn at random; a larger sample includes a smaller one.
        sample_rate: of the evaluation, Hz. Files with a lower rate are noted; those of AudioCaps are refused.
        recording_pattern: regular expression with one group, searched in the id of each file; the group's
            text is its recording. Files without a match are their own recording. A manifest's ``recording``
            comes first.
        audiocaps_list: CSV file for "audiocaps:FOLDER", see `evaluation.datasets.audiocaps.find`.
        allow_resampled: accept files of AudioCaps below ``sample_rate``. Otherwise they are clips with an
            ``error``, and a UserError if they are more than half.
        listing: result of `find_data` for the same data; None: it is called.
        progress: called as files are read.

    Raises:
        UserError: nothing can be evaluated, or an argument does not apply.
    """
    if not chunk_s >= _MIN_CHUNK_S:
        raise UserError(f"chunks are {chunk_s} s; give at least {_MIN_CHUNK_S} s")
    if chunks not in ("first", "all"):
        raise UserError(f"chunks '{chunks}' is not known; give first or all")
    if limit is not None and limit < 1:
        raise UserError(f"a limit of {limit} recordings leaves nothing; give at least 1 or leave it out")
    listing = listing or find_data(data, shard, recording_pattern, audiocaps_list, allow_resampled)
    entries, notes = listing.entries, [*listing.notes]
    recordings = len({entry.recording for entry in entries})
    if limit is not None and limit < recordings:
        entries = draw(entries, limit, seed)
        notes.append(f"{limit} of {recordings} recordings, drawn with seed {seed}")
    part = None
    if shard is not None:
        entries, part = Shard.parse(shard).take(entries)
        notes.append(shard_note(part, len({entry.recording for entry in entries})))
    if sample is not None:
        entries = sorted(entries, key=lambda entry: drawn_at(entry.id, seed))[:sample]
    failed = listing.fetch((entry.path for entry in entries), progress) or {}
    files = look_at((entry.path for entry in entries), progress)
    files |= {path: File(error=reason) for path, reason in failed.items()}
    if isinstance(data, str) and data.startswith(_AUDIOCAPS):
        files, low = audiocaps.refuse_resampled(files, sample_rate, allow_resampled)
    else:
        low = low_rates(files, sample_rate, ": nothing above half their rate to code")
    clips, tails = cut(entries, files, chunk_s, chunks)
    if part is None and sample is None and all(clip.error for clip in clips):  # a part may be so
        reasons = "; ".join([str(clips[0].error), *listing.notes])
        raise UserError(
            f"none of the {len(clips)} clips of '{_shown(data)}' can be read; the first: {reasons}"
        )
    return Dataset(
        name=listing.name,
        clips=clips,
        excluded=listing.excluded + tails,
        disclaimer=listing.disclaimer,
        notes=notes + ([low.note] if low else []),
        shard=part,
        low_rates=low,
    )


def find_data(
    data: str | Path | None = None,
    shard: str | None = None,
    recording_pattern: str | None = None,
    audiocaps_list: str | Path | None = None,
    allow_resampled: bool = False,
) -> Listing:
    """Files for `load_dataset`, found by name: no file of the data set is opened or fetched.

    Raises:
        UserError: the data do not exist or have no audio, or an argument does not apply.
    """
    if shard is not None:
        Shard.parse(shard)
    if isinstance(data, str) and data.rstrip(":") == "audiocaps":
        raise UserError("AudioCaps needs the folder of its audio, which cannot be shipped: audiocaps:FOLDER")
    if isinstance(data, str) and data.startswith(_AUDIOCAPS):
        if recording_pattern is not None:
            raise UserError("recordings of AudioCaps are its videos; leave out the recording pattern")
        if remote.is_address(data.removeprefix(_AUDIOCAPS)):
            raise UserError(f"'{_shown(data)}' is an address; give a folder of this machine for AudioCaps")
        return audiocaps.find(data.removeprefix(_AUDIOCAPS), audiocaps_list)
    if audiocaps_list is not None:
        raise UserError(f"a list of AudioCaps works with audiocaps:FOLDER, not with '{_shown(data)}'")
    if allow_resampled:
        raise UserError(
            f"--allow-resampled works with audiocaps:FOLDER; '{_shown(data)}' may have any sample rate"
        )
    if data is not None and not str(data):
        raise UserError("the data set's name is empty; leave it out for the demo")
    pattern = None if recording_pattern is None else folder.RecordingPattern(recording_pattern)
    recording = pattern or folder.recording_of
    kind, colon, rest = str(data or "").partition(":")
    if colon and kind in layouts.LAYOUTS:
        if pattern is not None:
            raise UserError(f"recordings of {kind}: are in its layout; leave out the recording pattern")
        return layouts.find(kind, rest, lambda root: folder.find(root, recording))
    if isinstance(data, str) and data.startswith(packed.HF) and not remote.is_address(data):
        listing = packed.find_hf(data, recording)
    elif data is None or data == "demo":
        listing = folder.read_manifest(_DEMO, recording)
        count = len(listing.entries)
        listing.disclaimer = f"demo: {count} made-up clips, not comparable with published figures"
    else:
        listing = folder.find(data, recording)
    if pattern is not None:
        pattern.check()
    return listing


def _shown(data: str | Path | None) -> str:
    """For messages."""
    return remote.without_secrets(str(data or "demo"))
