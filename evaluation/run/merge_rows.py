"""Rows of several runs in one, and the files they point to.

Nothing is written into the runs. Files are hard links where the file system has them. That is safe: no file
of a run is ever changed in place but those that ranks append to, and these get other names here.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from baselines.codec import Rate
from evaluation.datasets.base import Clip
from evaluation.results import Condition, MetricInfo
from evaluation.run.manifest import conditions_of, embeddings_of, metrics_of
from evaluation.run.store import (
    RunStore,
    coded_key,
    condition_delay,
    frames_key,
    number_from_json,
    reference_frames_key,
    score_key,
)
from qincodec.core.console import Progress
from qincodec.core.errors import UserError
from qincodec.core.files import explain_os_errors

#: Scores of a clip in two runs may differ by this, relatively: batches and devices decide the last bits.
TOLERANCE = 1e-6

_CLIPS_AT_ONCE = 500

Row = dict[str, Any]


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
    run: dict[str, Any]
    num_clips: int
    new_rows: int = 0
    new_files: int = 0
    not_scored: dict[str, int] = field(default_factory=dict)
    delays: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    missing_shards: list[int] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Source:
    """One run to be merged, open for reading."""

    store: RunStore
    run: dict[str, Any]
    clips: dict[str, Clip]
    files: dict[str, dict[str, str]]

    keeps_audio: bool

    @classmethod
    def of(cls, store: RunStore) -> Source:
        run = store.read_run()
        assert run is not None, "opened for reading, which refuses a folder without run.json"
        clips = {clip.id: clip for clip in store.read_clips()}
        return cls(store, run, clips, store.read_files(), (store.folder / "decoded").is_dir())

    @property
    def name(self) -> str:
        return str(self.store.folder)

    def inside(self, file: str) -> PurePosixPath:
        """A file that a row points to, relative to the run's folder and in it."""
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(
                f"{self.name} has a row that points to '{file}', outside of it: no run wrote that"
            )
        return path


class Plan:
    """Which rows of which run make the whole."""

    def __init__(
        self,
        sources: Sequence[Source],
        run: dict[str, Any],
        clips: Sequence[Clip],
        files: dict[str, dict[str, str]],
        progress: Progress,
    ) -> None:
        self.sources = sources
        self.run = run
        self.settings = run["settings"]
        self.clips = clips
        self.files = files
        self.progress = progress
        self.metrics = [metric for metric in metrics_of(run) if metric.per_clip]
        self.embeddings = embeddings_of(run)
        self.holders: dict[str, tuple[Source, ...]] = {}
        for source in sources:
            for name in source.clips:
                self.holders[name] = (*self.holders.get(name, ()), source)
        of_embeddings = [metric for metric in self.metrics if metric.embedding]
        self.parts = [(condition, self.metrics) for condition in conditions_of(run)]
        self.parts += [(condition, of_embeddings) for condition in conditions_of(run, "floor")]

    def check(self) -> None:
        """Look through everything before anything is written.

        Raises:
            UserError: a run is not finished, or two disagree.
        """
        for number, (condition, metrics) in enumerate(self.parts):
            self.progress("reading the runs", number, len(self.parts))
            Whole(condition, metrics, self).check()

    def write(self, writer: Writer) -> None:
        """Every condition, one after the other: only one of them is in memory."""
        for condition, metrics in self.parts:
            self._write(Whole(condition, metrics, self), writer)

    def _write(self, whole: Whole, writer: Writer) -> None:
        total, not_scored = len(self.clips), 0
        for start in range(0, total, _CLIPS_AT_ONCE):
            part = self.clips[start : start + _CLIPS_AT_ONCE]
            not_scored += writer.write(whole, part)
            self.progress(f"merging {whole.label}", start + len(part), total)
        if not_scored:
            writer.merged.not_scored[whole.label] = not_scored
        writer.merged.delays[whole.label] = whole.delay


class Whole:
    """One condition over all clips: the run whose row counts for each, and the delay they have in common."""

    def __init__(self, condition: Condition, metrics: Sequence[MetricInfo], plan: Plan) -> None:
        self.condition = condition
        self.metrics = metrics
        self.plan = plan
        rate = Rate(condition.nominal).label
        self.rate_label = rate
        self.label = condition.codec if condition.kbps is None else f"{condition.codec}@{condition.kbps:g}"
        files = plan.files.get(f"{condition.codec}@{rate}", {})
        self.keys = {c.id: coded_key(condition, plan.settings, c, files.get(c.id)) for c in plan.clips}
        #: Clip id -> run that has its row. What failed in one run and not in another has not failed.
        self.source: dict[str, Source] = {}
        missing: dict[str, int] = {}
        for clip in plan.clips:
            known: tuple[Source, Row] | None = None
            for source in plan.holders[clip.id]:
                row = source.store.row(self.keys[clip.id], "coded")
                if row is None:
                    continue
                if known is not None and row["error"] is None and known[1]["error"] is None:
                    self._refuse_conflict(clip, known, (source, row))
                elif known is None or (known[1]["error"] is not None and row["error"] is None):
                    known = source, row
            if known is None:
                name = plan.holders[clip.id][-1].name
                missing[name] = missing.get(name, 0) + 1
            else:
                self.source[clip.id] = known[0]
        if missing:
            name, count = next(iter(missing.items()))
            raise UserError(
                f"{name} is not finished: {self.label} has no result for {count} of its clips; run its own "
                "command again there, then merge"
            )
        self.delay = condition_delay(map(self.coded, plan.clips), plan.settings["align"])
        #: What the runs by themselves took out.
        self.delays = {self.delay, *self._own_delays()}

    def coded(self, clip: Clip) -> Row:
        """The row that counts."""
        row = self.source[clip.id].store.row(self.keys[clip.id], "coded")
        assert row is not None
        return row

    def _own_delays(self) -> Iterator[int]:
        for source in self.plan.sources:
            rows = (source.store.row(self.keys[name], "coded") for name in source.clips if name in self.keys)
            yield condition_delay(rows, self.plan.settings["align"])

    def _refuse_conflict(self, clip: Clip, one: tuple[Source, Row], other: tuple[Source, Row]) -> None:
        for what in ("bytes", "delay", "duration_s", "codebooks"):
            if one[1].get(what) != other[1].get(what):
                self._conflict(clip, what, one[0], one[1].get(what), other[0], other[1].get(what))

    def _conflict(self, clip: Clip, what: str, one: Source, had: Any, other: Source, got: Any) -> None:
        raise UserError(
            f"{one.name} and {other.name} disagree on clip '{clip.id}' of {self.label}: {what} is {had} and "
            f"{got}; the codec or metric does not give the same on both machines: evaluate that clip on one "
            "only"
        )

    def check(self) -> None:
        """Refuse what is not scored at any delay, and scores that conflict."""
        lacking: dict[tuple[Source, str], int] = {}
        for clip in self.plan.clips:
            source = self.source[clip.id]
            if self.coded(clip)["error"] is not None:
                continue
            for metric in self.metrics:
                if self.score(clip, metric, self.delay) is None and not any(
                    self.score(clip, metric, delay) for delay in self.delays
                ):
                    at = (source, metric.name)
                    lacking[at] = lacking.get(at, 0) + 1
        if lacking:
            (source, name), count = next(iter(lacking.items()))
            why = source.run.get("unavailable", {}).get(name.partition("_")[2], "")
            raise UserError(
                f"{source.name} is not finished: {count} clips of {self.label} have no {name}"
                f"{f' ({why})' if why else ''}; run its own command again there with that metric, then merge"
            )

    def score(self, clip: Clip, metric: MetricInfo, delay: int) -> Row | None:
        """The score that counts at a delay, or None."""
        key = score_key(self.keys[clip.id], metric, delay)
        known: tuple[Source, Row] | None = None
        for source in self.plan.holders[clip.id]:
            row = source.store.row(key, "score")
            if row is None:
                continue
            if known is None or (known[1]["error"] is not None and row["error"] is None):
                known = source, row
            elif row["error"] is None and known[1]["error"] is None:
                had, got = number_from_json(known[1]["value"]), number_from_json(row["value"])
                if not _close(had, got):
                    self._conflict(clip, metric.name, known[0], had, source, got)
        return None if known is None else known[1]

    def frame_keys(self, clip: Clip) -> Iterator[str]:
        """Of the reference's and the decoded frames of every embedding."""
        for info in self.plan.embeddings:
            yield reference_frames_key(info.identity, self.plan.settings, clip)
            yield frames_key(info.identity, self.keys[clip.id], self.delay)

    def frames(self, clip: Clip, key: str) -> tuple[Source, Row] | None:
        """Where the frames under ``key`` are, or None."""
        for source in self.plan.holders[clip.id]:
            row = source.store.row(key, "frames")
            if row is not None and source.store.has_frames(row):
                return source, row
        return None


def _close(one: float, other: float) -> bool:
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


class Writer:
    """Appends what the merged run does not have yet, files before the rows that point to them."""

    def __init__(self, store: RunStore, merged: Merged) -> None:
        self.store = store
        self.merged = merged
        self._frame_files: dict[Path, str] = {}

    def write(self, whole: Whole, clips: Iterable[Clip]) -> int:
        """One condition on some clips, in one write; returns how many lack a score at its delay."""
        rows: dict[str, Row] = {}
        not_scored = 0
        for clip in clips:
            source, coded = whole.source[clip.id], whole.coded(clip)
            new = self._is_new(coded)
            if new:
                rows[coded["key"]] = coded
            if coded["error"] is not None:
                continue
            self._bring_coded(whole, clip, source, coded, new)
            scores = [whole.score(clip, metric, whole.delay) for metric in whole.metrics]
            rows |= {score["key"]: score for score in scores if score is not None and self._is_new(score)}
            complete = None not in scores
            failed = any(
                score is not None and score["error"] is not None and metric.embedding
                for metric, score in zip(whole.metrics, scores, strict=True)
            )
            for key in whole.frame_keys(clip):
                if key in rows or self.store.has_frames(self.store.row(key, "frames")):
                    continue
                found = whole.frames(clip, key)
                if found is not None:
                    rows[key] = {**found[1], "file": self._bring_frames(*found)}
                elif not failed:  # what failed has no frames and says so
                    complete = False
            not_scored += not complete
        self.store.append(list(rows.values()))
        self.merged.new_rows += len(rows)
        return not_scored

    def _is_new(self, row: Row) -> bool:
        """As the runner decides: results stay as they are, a failure is written once."""
        known = self.store.row(row["key"])
        return known is None or (known["error"] is not None and known["error"] != row["error"])

    def _bring_coded(self, whole: Whole, clip: Clip, source: Source, coded: Row, new: bool) -> None:
        """What was encoded, and what was decoded if that was kept."""
        if coded.get("encoded") is not None:
            file = source.inside(coded["encoded"])
            self.merged.lost += not self._bring(source.store.folder / file, self.store.folder / file, new)
        if source.keeps_audio:
            names = whole.condition.codec, whole.rate_label, clip.id
            self._bring(source.store.decoded_path(*names), self.store.decoded_path(*names), new)

    def _bring_frames(self, source: Source, row: Row) -> str:
        """The file of frames in the merged run, under a name made of its content, that no rank appends to."""
        file = source.inside(row["file"])
        path = source.store.folder / file
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
        # Not `whole_file`: a link cannot be made onto a file. One name, so that a kill leaves one behind.
        temporary = target.with_name(f".writing-{target.name}")
        with explain_os_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            try:
                os.link(path, temporary)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
                    raise
                shutil.copyfile(path, temporary)
            temporary.replace(target)
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
