"""Runs of parts of a data set, or of one data set on several machines, as one run folder.

A plain union: rows by key, files by link, and run.json as for a further request in one folder. So the merged
folder is the same as after one process had done the work, and `evaluate` on the whole continues it: it codes
missing clips, adds operating points that asked rates need on all clips, and scores again, from what was
encoded, where the delay of a condition, a median over all its clips, is not that of a part.

Nothing is written into the runs. Files are hard links if the file system has them; that is safe, because
files that a run appends to get another name here. Rows are written after the files they point to, so a merge
that was killed can continue.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from evaluation.datasets.base import Clip, Dataset
from evaluation.datasets.shards import shard_note, unite_shards
from evaluation.records import DatasetInfo, DecodedFile, short
from evaluation.rows import ClipRow, CodedRow, FramesRow, Place, Row
from evaluation.run.environment import unite_environments
from evaluation.run.manifest import RunDescription, describe_dataset
from evaluation.run.store import RunStore, row_key
from qincodec.core.console import Progress
from qincodec.core.errors import UserError, one_line
from qincodec.core.files import link_or_copy

_ROWS_AT_ONCE = 2000

T = TypeVar("T")


@dataclass
class Merged:
    """Result of a merge.

    Attributes:
        run: run.json of the whole.
        new_rows: rows that were added.
        new_files: files linked or copied.
    """

    run: RunDescription
    new_rows: int = 0
    new_files: int = 0


@dataclass(frozen=True)
class _Part:
    """A run, checked before anything is written."""

    folder: Path
    run: RunDescription
    clips: list[Clip]
    files: dict[str, dict[str, DecodedFile]]
    environment: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> _Part:
        """Raises UserError if anything in the run is damaged, its rows included."""
        with RunStore(folder, write=False) as store:
            read = store.read_run(), store.read_clips(), store.read_files(), store.read_environment()
        return cls(folder, *read)


def merge_runs(
    out: Path, runs: Sequence[Path], *, command: str | None = None, progress: Progress = lambda *_: None
) -> Merged:
    """Merge ``runs`` into folder ``out``: a new one, or the result of an earlier merge of some of them.

    Raises:
        UserError: a run is damaged, the runs differ in settings, codecs, metrics, weights or a clip, or
            ``out`` holds something else. Then nothing was written.
    """
    if not runs:
        raise UserError("nothing to merge: give the folders of one run or more behind OUT")
    for folder in runs:
        here, there = out.resolve(), folder.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise UserError(f"OUT {out} and run {folder} are one inside the other; merge into another folder")
    # The content of `out` comes first, so that it does not change.
    earlier = [out] if all((out / name).is_file() for name in ("run.json", "clips.jsonl")) else []
    parts: list[_Part] = []
    for folder in [*earlier, *runs]:
        progress("reading the runs", len(parts), len(earlier) + len(runs))
        parts.append(_Part.of(folder))
    new = parts[len(earlier) :]
    run, clips = _unite_runs(parts), _unite_clips(parts)
    strangers = {clip.id for clip in clips} - {clip.id for part in new for clip in part.clips}
    if strangers:  # nobody merges into a part by mistake
        raise UserError(
            f"{out} is a run that has clip {short(min(strangers))}, which none of the others has; merge into "
            f"a new folder, with {out} among the runs if it belongs to them"
        )
    dataset = describe_dataset(_unite_data([part.run.dataset for part in new], clips))
    commands = _distinct([*run.commands, command] if command else run.commands)
    merged = Merged(replace(run, dataset=dataset, commands=tuple(commands)))
    with RunStore(out) as store:
        # run.json first: without it, a folder left by a kill would count as someone else's.
        store.write_run(merged.run)
        store.write_clips(clips)
        store.write_files(_unite_files(parts))
        store.write_environment(unite_environments([part.environment for part in parts]))
        for number, folder in enumerate(runs):
            progress("merging", number, len(runs))
            with RunStore(folder, write=False) as part:
                _Union(store, part, merged).write()
    return merged


def _unite_runs(parts: Sequence[_Part]) -> RunDescription:
    run = parts[0].run
    for part in parts[1:]:
        for what, had, got in run.differences(part.run):
            raise UserError(
                f"{parts[0].folder} and {part.folder} are not parts of one run: {what} is "
                f"{one_line(str(had), 200)} and {one_line(str(got), 200)}; evaluate both with the same "
                "options, codecs and weights"
            )
        run = run.united(part.run)
    return run


def _unite_clips(parts: Sequence[_Part]) -> list[Clip]:
    """All clips by id; of two with one id, the readable one."""
    chosen: dict[str, tuple[Clip, Path]] = {}
    for part in parts:
        for clip in part.clips:
            known, folder = chosen.setdefault(clip.id, (clip, part.folder))
            if clip is known:
                continue
            for what in ("content_hash", "start_s", "duration_s", "recording"):
                had, got = getattr(known, what), getattr(clip, what)
                if clip.error is None and known.error is None and had != got:
                    raise UserError(
                        f"clip {short(clip.id)} is not the same in {folder} and {part.folder}: {what} is "
                        f"{had} and {got}; give each clip its own id with a manifest, and evaluate "
                        "again"
                    )
            if clip.error is None and known.error is not None:
                chosen[clip.id] = clip, part.folder
    return [chosen[name][0] for name in sorted(chosen)]


def _unite_files(parts: Sequence[_Part]) -> dict[str, dict[str, DecodedFile]]:
    """Files decoded elsewhere; a file missing in one run is taken from another."""
    united: dict[str, dict[str, DecodedFile]] = {}
    for part in parts:
        for point, files in part.files.items():
            known = united.setdefault(point, {})
            known |= {c: f for c, f in files.items() if known.get(c, DecodedFile()).fingerprint is None}
    return united


def _unite_data(entries: Sequence[DatasetInfo], clips: list[Clip]) -> Dataset:
    shard = unite_shards([entry.shard for entry in entries])
    low = next((entry.low_rates for entry in entries if entry.low_rates), None)
    # Counts of a part are counted again in the whole, or left out if they are not known.
    of_parts = [shard_note(e.shard, e.n_recordings) for e in entries if e.shard]
    of_parts += [entry.low_rates.note for entry in entries if entry.low_rates]
    notes = _distinct(note for entry in entries for note in entry.notes if note not in of_parts)
    if low is not None:
        rates = {clip.path: clip.sample_rate for clip in clips}.values()
        below = [rate for rate in rates if 0 < rate < low.below]
        low = replace(low, files=len(rates), low=len(below), lowest=min(below, default=0))
        notes.append(low.note)
    if shard is not None and shard.missing:
        notes.append(shard_note(shard, len({clip.recording for clip in clips})))
    return Dataset(
        "+".join(_distinct(entry.name for entry in entries)),
        clips,
        _distinct(pair for entry in entries for pair in entry.excluded),
        "; ".join(_distinct(entry.disclaimer for entry in entries if entry.disclaimer)) or None,
        notes,
        shard if shard and shard.missing else None,
        low,
    )


def _distinct(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))


@dataclass
class _Union:
    """Appends a run's new rows to the whole, files before the rows that point to them."""

    whole: RunStore
    part: RunStore
    merged: Merged
    #: Files of the part -> their names in the whole.
    brought: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        rows = self.part.rows()
        while some := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            new = [found for row in some if (found := self._bring(row)) is not None]
            self.whole.append(new)
            self.merged.new_rows += len(new)

    def _bring(self, row: Row) -> Row | None:
        """The row for the whole, after bringing its files there; None if it is not new."""
        known = self.whole.row(row.key, type(row))
        if isinstance(row, FramesRow):
            assert known is None or isinstance(known, FramesRow)
            if self.whole.has_frames(known) or not self.part.has_frames(row):
                return None
            return replace(row, file=self._bring_file(row.file))
        if not isinstance(row, ClipRow):  # of an unknown kind, only the key was read
            return row if known is None and type(row) is not Row else None
        assert known is None or isinstance(known, ClipRow)
        new = row.is_news_after(known)
        if isinstance(row, CodedRow) and row.error is None:
            decoded = self.part.decoded_path(row.point, row.clip)
            self._link(decoded, self.whole.decoded_path(row.point, row.clip), new)
            assert known is None or isinstance(known, CodedRow)
            return self._bring_encoded(row, None if new else known)
        return row if new else None

    def _bring_encoded(self, row: CodedRow, known: CodedRow | None) -> CodedRow | None:
        """`_bring` for a coded clip.

        Args:
            known: the row of the whole that stays; None: ``row`` replaces it.
        """
        if row.encoded is None:
            return row if known is None else None
        if row.offset is None:
            self._link(self.part.folder / row.encoded, self.whole.folder / row.encoded, known is None)
        if known is not None and (self.whole.has_encoded(known) or not self.part.has_encoded(row)):
            return None
        file = row.encoded if row.offset is None else self._bring_file(row.encoded)
        found = (known or row).at(Place(file, row.offset))
        return found if found != known else None

    def _bring_file(self, file: str) -> str:
        """Bring a file that the part may still append to, under a name that no run appends to."""
        if file not in self.brought:
            path = self.part.folder / file
            status = path.stat() if path.exists() else None
            # If it is gone, the name must not lead to another file.
            of = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns) if status else (file,)
            name = PurePosixPath(file).with_name(f"from-{row_key(file=[*of])}{path.suffix}")
            self._link(path, self.whole.folder / name, new=False)
            self.brought[file] = str(name)
        return self.brought[file]

    def _link(self, path: Path, target: Path, new: bool) -> None:
        """Link a file if it exists, or copy it if links between the two places are impossible.

        Args:
            new: rows of the whole do not point to the file in its place.
        """
        if (new or not target.exists()) and path.exists() and not (target.exists() and path.samefile(target)):
            link_or_copy(path, target)
            self.merged.new_files += 1
