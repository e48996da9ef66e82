"""Runs of parts of a data set, or of one data set on several machines, as one run folder.

The result is what one process would have left: the union of all rows by key, and of what was encoded, saved
and embedded. Of two rows under one key the first counts, a result before a failure; results that differ by
more than rounding are refused. Distances and statistics of codes are of the parts and stay behind:
`evaluation.loading` computes those of the whole. A condition's delay is a median over all its clips, so that
of the whole may be one that no part was scored at: `evaluate` on the merged folder then scores anew, from
what was encoded.

Nothing is written into the runs. Files are hard links where the file system has them; that is safe, as ranks
append to no file but their own, and frames get other names here. Rows are written after the files they point
to, so a merge that is killed goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from evaluation.datasets.base import Clip, Dataset
from evaluation.datasets.shards import shard_note, unite_shards
from evaluation.records import Condition, DecodedFile, LowRates, MetricInfo, short
from evaluation.rows import ClipRow, CodedRow, FramesRow, Row, ScoreRow
from evaluation.run.environment import unite_environments
from evaluation.run.manifest import RunDescription, describe_dataset
from evaluation.run.store import (
    R,
    RunStore,
    coded_key,
    condition_delay,
    frames_key,
    reference_frames_key,
    score_key,
)
from qincodec.core.console import Progress
from qincodec.core.errors import UserError, one_line
from qincodec.core.files import link_or_copy

#: Scores of a clip in two runs may differ by this, relatively: batches and devices decide the last bits.
TOLERANCE = 1e-6

_ROWS_AT_ONCE = 2000


@dataclass
class Merged:
    """What a merge did and what it left to do.

    Attributes:
        folder: the merged run.
        run: its run.json.
        num_clips: of the merged run.
        new_rows: rows that were not there yet.
        new_files: files linked or copied.
        not_scored: label of a condition -> clips whose scores were taken at another delay than ``delays``.
        delays: label -> the delay of the whole, samples.
        lost: encoded clips that rows point to and no run has any more.
        missing_shards: numbers of parts that none of the runs is.
    """

    folder: Path
    run: RunDescription
    num_clips: int
    new_rows: int = 0
    new_files: int = 0
    not_scored: dict[str, int] = field(default_factory=dict)
    delays: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    missing_shards: list[int] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Part:
    """One run to be merged, open for reading."""

    store: RunStore
    run: RunDescription
    clips: dict[str, Clip]
    files: dict[str, dict[str, DecodedFile]]

    @classmethod
    def of(cls, store: RunStore) -> _Part:
        clips = {clip.id: clip for clip in store.read_clips()}
        return cls(store, store.read_run(), clips, store.read_files())

    @property
    def name(self) -> str:
        return str(self.store.folder)


def merge_runs(
    out: Path, runs: Sequence[Path], *, command: str | None = None, progress: Progress = lambda *_: None
) -> Merged:
    """Merge ``runs`` into folder ``out``: a new one, or what an earlier merge of some of them left.

    Raises:
        UserError: the runs were made with other settings, codecs, metrics or weights, disagree on a clip, are
            not finished, or ``out`` holds something else. Nothing was written then.
    """
    _refuse_places(out, runs)
    with contextlib.ExitStack() as stack:
        # What is in `out` comes first: it stays as it is.
        earlier = [out] if all((out / name).is_file() for name in ("run.json", "clips.jsonl")) else []
        parts = [_Part.of(stack.enter_context(RunStore(f, write=False))) for f in [*earlier, *runs]]
        new = parts[len(earlier) :]
        _refuse_differences(parts)
        clips = _unite_clips(parts)
        if earlier:
            _refuse_strangers(parts[0], new)
        run, missing = _unite_descriptions(parts, new, clips, command)
        merged = Merged(out, run, len(clips), missing_shards=missing)
        files = _unite_files(parts)
        union = _Union(parts, run, progress)
        union.check(clips, files, merged)
        with RunStore(out) as store:
            # run.json first: without it, what a kill leaves would count as a stranger's folder.
            store.write_run(run)
            store.write_clips(clips)
            store.write_files(files)
            store.write_environment(unite_environments([part.store.read_environment() for part in parts]))
            _Writer(store, merged).write(union, progress)
    return merged


# What refuses


def _refuse_places(out: Path, runs: Sequence[Path]) -> None:
    if not runs:
        raise UserError("nothing to merge: give the folders of one run or more behind OUT")
    target = out.resolve()
    for run in runs:
        place = run.resolve()
        if target == place or target in place.parents or place in target.parents:
            raise UserError(f"OUT {out} and run {run} lie in one another; merge into a folder of its own")


def _refuse_differences(parts: Sequence[_Part]) -> None:
    for one, other in itertools.combinations(parts, 2):
        for what, had, got in one.run.differences(other.run):
            raise UserError(
                f"{one.name} and {other.name} are no parts of one run: {what} is {one_line(str(had), 200)}"
                f" and {one_line(str(got), 200)}; evaluate both with the same options, codecs and weights"
            )


def _refuse_strangers(earlier: _Part, runs: Sequence[_Part]) -> None:
    """`out` may hold an earlier merge of the runs, not clips of its own."""
    for name in earlier.clips:
        if not any(name in source.clips for source in runs):
            raise UserError(
                f"{earlier.name} is a run that has clip {short(name)}, which none of the others has; merge "
                "into a new folder, and give it as one of the runs if it is to be in it"
            )


def _unite_clips(parts: Sequence[_Part]) -> list[Clip]:
    """All clips by id: of two the one that could be read, and whose file is here."""
    chosen: dict[str, tuple[Clip, _Part]] = {}
    for source in parts:
        for clip in source.clips.values():
            if clip.id not in chosen:
                chosen[clip.id] = clip, source
                continue
            known, other = chosen[clip.id]
            if clip.error is None and known.error is None:
                for what in ("content_hash", "start_s", "duration_s", "recording"):
                    if getattr(clip, what) != getattr(known, what):
                        raise UserError(
                            f"clip {short(clip.id)} is not the same in {other.name} and {source.name}: "
                            f"{what} is {getattr(known, what)} and {getattr(clip, what)}; give each clip an "
                            "id of its own with a manifest, and evaluate again"
                        )
            gain = (clip.error is None, clip.path.exists()) > (known.error is None, known.path.exists())
            if (clip.path != known.path and gain) or (clip.error is None) > (known.error is None):
                chosen[clip.id] = clip, source
    return [chosen[name][0] for name in sorted(chosen)]


def _unite_files(parts: Sequence[_Part]) -> dict[str, dict[str, DecodedFile]]:
    """Files decoded elsewhere; what was missing for one run and not for another is there."""
    united: dict[str, dict[str, DecodedFile]] = {}
    for part in parts:
        for point, files in part.files.items():
            known = united.setdefault(point, {})
            for clip, file in files.items():
                before = known.get(clip, DecodedFile())
                if before.fingerprint is None:
                    known[clip] = file
                elif file.fingerprint not in (None, before.fingerprint):
                    raise UserError(
                        f"condition {point}: {part.name} scored another file for clip {short(clip)} than "
                        "the runs before it; decode it once, and evaluate both on that"
                    )
    return {name: dict(sorted(files.items())) for name, files in united.items()}


# run.json


def _unite_descriptions(
    parts: Sequence[_Part], new: Sequence[_Part], clips: list[Clip], command: str | None
) -> tuple[RunDescription, list[int]]:
    """run.json of the whole, and the shards that are missing.

    Args:
        new: the runs, without what an earlier merge left: they have all its clips.
    """
    run = parts[0].run
    for part in parts:
        run = run.united(part.run)
    entries = [part.run.dataset for part in new]
    shard, missing = unite_shards({part.name: part.run.dataset.shard for part in new})
    low = _unite_low_rates([entry.low_rates for entry in entries], clips)
    # What counts something of a part is counted in the whole.
    of_parts = {shard_note(e.shard, e.n_recordings) for e in entries if e.shard and shard}
    of_parts |= {entry.low_rates.note for entry in entries if entry.low_rates}
    notes = [n for n in dict.fromkeys(n for entry in entries for n in entry.notes) if n not in of_parts]
    if low is not None:
        notes.append(low.note)
    if shard is not None and missing:
        notes.append(shard_note(shard, len({clip.recording for clip in clips})))
    dataset = Dataset(
        "+".join(dict.fromkeys(entry.name for entry in entries)),
        clips,
        list(dict.fromkeys(pair for entry in entries for pair in entry.excluded)),
        "; ".join(dict.fromkeys(entry.disclaimer for entry in entries if entry.disclaimer)) or None,
        notes,
        shard if missing else None,
        low,
    )
    commands = tuple(dict.fromkeys([*run.commands, command] if command else run.commands))
    return replace(run, dataset=describe_dataset(dataset), commands=commands), missing


def _unite_low_rates(found: Sequence[LowRates | None], clips: Sequence[Clip]) -> LowRates | None:
    first = next((low for low in found if low is not None), None)
    if first is None:
        return None
    rates = {clip.path: clip.sample_rate for clip in clips}
    low = [rate for rate in rates.values() if 0 < rate < first.below]
    return replace(first, files=len(rates), low=len(low), lowest=min(low, default=0))


# Rows


class _Union:
    """The rows of all runs by key. Rows stay in the stores, this knows which store's counts.

    Raises:
        UserError: two runs disagree.
    """

    def __init__(self, parts: Sequence[_Part], run: RunDescription, progress: Progress) -> None:
        self.run = run
        self._parts = parts
        self._labels = {(c.codec, c.rate_label): c.label for c in reversed([*run.conditions, *run.floor])}
        self._of: dict[str, _Part] = {}
        for number, part in enumerate(parts):
            progress("reading the runs", number, len(parts))
            for row in part.store.rows():
                if isinstance(row, ClipRow | FramesRow):
                    self._add(row, part)

    def _add(self, row: ClipRow | FramesRow, part: _Part) -> None:
        known = self.row(row.key, type(row))
        if isinstance(known, FramesRow):
            counts = not self._of[row.key].store.has_frames(known)
        else:
            counts = known is None or (known.error is not None and row.error is None)
        if counts:
            self._of[row.key] = part
        elif isinstance(row, ClipRow) and known is not None and row.error is None:
            for what in (
                ("value",) if isinstance(row, ScoreRow) else ("bytes", "delay", "duration_s", "codebooks")
            ):
                had, got = getattr(known, what), getattr(row, what)
                if not (_close(had, got) if what == "value" else had == got):
                    self._conflict(row, what, self._of[row.key], had, part, got)

    def _conflict(self, row: ClipRow, what: str, one: _Part, had: Any, other: _Part, got: Any) -> NoReturn:
        label = self._labels.get((row.codec, row.rate), row.codec)
        what = row.metric if isinstance(row, ScoreRow) else what
        raise UserError(
            f"{one.name} and {other.name} disagree on clip {short(row.clip)} of {label}: {what} is {had} and "
            f"{got}; the codec or metric does not give the same on both machines: evaluate that clip on one "
            "only"
        )

    def row(self, key: str, kind: type[R]) -> R | None:
        """The row that counts."""
        part = self._of.get(key)
        return None if part is None else part.store.row(key, kind)

    def rows(self) -> Iterator[tuple[Row, _Part]]:
        for key, part in self._of.items():
            row = part.store.row(key, Row)
            assert row is not None
            yield row, part

    def __len__(self) -> int:
        return len(self._of)

    def check(self, clips: Sequence[Clip], files: dict[str, dict[str, DecodedFile]], merged: Merged) -> None:
        """Refuse runs that are not finished; say in ``merged`` what the whole lacks at its own delays."""
        metrics = [metric for metric in self.run.metrics if metric.per_clip]
        for condition in self.run.conditions:
            self._check(condition, metrics, clips, files, merged)
        for condition in self.run.floor:
            self._check(condition, [m for m in metrics if m.embedding], clips, files, merged)

    def _check(
        self,
        condition: Condition,
        metrics: Sequence[MetricInfo],
        clips: Sequence[Clip],
        files: dict[str, dict[str, DecodedFile]],
        merged: Merged,
    ) -> None:
        decoded = files.get(condition.point, {})
        keys = {c.id: coded_key(condition, self.run.settings, c, decoded.get(c.id)) for c in clips}
        coded = {name: self.row(key, CodedRow) for name, key in keys.items()}
        missing = [name for name, row in coded.items() if row is None]
        if missing:
            self._refuse_unfinished(
                missing, lambda count: f"{condition.label} has no result for {count} of its clips"
            )

        def delay_of(names: Iterator[str]) -> int:
            found = (row.delay for name in names if (row := coded[name]) is not None)
            return condition_delay(found, self.run.settings.align)

        delay = delay_of(iter(coded))
        own = {delay_of(iter(part.clips)) for part in self._parts}
        not_scored = 0
        lacking: dict[str, list[str]] = {}
        for clip in clips:
            row = coded[clip.id]
            if row is None or row.error is not None:
                continue
            scores = {m.name: self.row(score_key(row.key, m, delay), ScoreRow) for m in metrics}
            for metric in metrics:
                if scores[metric.name] is None and not any(
                    self.row(score_key(row.key, metric, other), ScoreRow) for other in own
                ):
                    lacking.setdefault(metric.name, []).append(clip.id)
            # What failed has no frames and says so.
            of_embeddings = [scores[metric.name] for metric in metrics if metric.embedding]
            failed = any(score is not None and score.error for score in of_embeddings)
            not_scored += None in scores.values() or not (failed or self._has_frames(clip, row.key, delay))
        if lacking:
            name, ids = next(iter(lacking.items()))
            self._refuse_unfinished(ids, lambda n: f"{n} clips of {condition.label} have no {name}", name)
        merged.delays[condition.label] = delay
        if not_scored:
            merged.not_scored[condition.label] = not_scored

    def _has_frames(self, clip: Clip, coded: str, delay: int) -> bool:
        keys = [
            key
            for info in self.run.embeddings
            for key in (
                reference_frames_key(info.identity, self.run.settings, clip),
                frames_key(info.identity, coded, delay),
            )
        ]
        return all(
            key in self._of and self._of[key].store.has_frames(self.row(key, FramesRow)) for key in keys
        )

    def _refuse_unfinished(
        self, clips: Sequence[str], what: Callable[[int], str], metric: str = ""
    ) -> NoReturn:
        """Name the last run that has the first of the clips."""
        part = next(part for part in reversed(self._parts) if clips[0] in part.clips)
        count = sum(name in part.clips for name in clips)
        why = part.run.unavailable.get(metric.partition("_")[2])
        raise UserError(
            f"{part.name} is not finished: {what(count)}{f' ({why})' if why else ''}; run its own "
            f"command again there{' with that metric' if metric else ''}, then merge"
        )


def _close(one: float, other: float) -> bool:
    both_nan = math.isnan(one) and math.isnan(other)
    return both_nan or math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


@dataclass
class _Writer:
    """Appends what the merged run does not have yet, files before the rows that point to them."""

    store: RunStore
    merged: Merged
    _frame_files: dict[Path, str] = field(default_factory=dict)

    def write(self, union: _Union, progress: Progress) -> None:
        rows = union.rows()
        done = 0
        while some := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            new = [found for row, part in some if (found := self._bring_row(row, part)) is not None]
            self.store.append(new)
            self.merged.new_rows += len(new)
            done += len(some)
            progress("merging", done, len(union))

    def _bring_row(self, row: Row, part: _Part) -> Row | None:
        """What a row points to, and the row as it stands in the merged run; None if it is there already."""
        known = self.store.row(row.key, type(row))
        if isinstance(row, FramesRow):
            if self.store.has_frames(known if isinstance(known, FramesRow) else None):
                return None
            if not part.store.has_frames(row):
                return None
            return replace(row, file=self._bring_frames(part, row))
        assert isinstance(row, ClipRow) and (known is None or isinstance(known, ClipRow))
        new = row.is_news_after(known)
        if isinstance(row, CodedRow) and row.error is None:
            self._bring_coded(part, row, new)
        return row if new else None

    def _bring_coded(self, part: _Part, row: CodedRow, new: bool) -> None:
        """What was encoded, and what was decoded if that was kept."""
        if row.encoded is not None:
            self.merged.lost += not self._bring(
                part.store.folder / row.encoded, self.store.folder / row.encoded, new
            )
        decoded = part.store.decoded_path(row.point, row.clip)
        self._bring(decoded, self.store.decoded_path(row.point, row.clip), new)

    def _bring_frames(self, part: _Part, row: FramesRow) -> str:
        """The file of frames in the merged run, under a name made of its content, that no rank appends to."""
        file = PurePosixPath(row.file)
        path = part.store.folder / file
        if path not in self._frame_files:
            name = file.with_name(f"from-{_fingerprint(path)}{file.suffix}")
            self._bring(path, self.store.folder / name, new=False)
            self._frame_files[path] = str(name)
        return self._frame_files[path]

    def _bring(self, path: Path, target: Path, new: bool) -> bool:
        """A link to a file, or a copy where there are no links between the two places; False if it is gone.

        Args:
            new: what is in its place is not what rows of the merged run point to.
        """
        if target.exists() and not new:
            return True
        if not path.exists():
            return target.exists()
        if target.exists() and path.samefile(target):
            return True
        link_or_copy(path, target)
        self.merged.new_files += 1
        return True


def _fingerprint(path: Path) -> str:
    """Of a file of frames, from its size, first and last MiB: enough to tell it from others of its kind."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(2**20))
        file.seek(max(0, size - 2**20))
        digest.update(file.read())
    return digest.hexdigest()[:16]
