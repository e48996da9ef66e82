"""Runs of parts of a data set, or of one data set on several machines, as one run folder.

The result is what one process would have left: rows under the same keys, what was encoded, frames of
embeddings. A condition's delay is a median over all its clips, so it is found anew; what was scored at
another delay is left behind, and `evaluate` on the merged folder scores it from what was encoded. Distances
between distributions and statistics of codes are not taken over: `evaluation.loading` computes them from all
clips.

Rows are written after what they point to (`evaluation.run.merge_rows`), so a merge that is killed goes on
where it was.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.datasets.base import Clip, Dataset
from evaluation.datasets.shards import shard_note
from evaluation.run.manifest import describe_dataset, differences, unite
from evaluation.run.merge_rows import Merged, Plan, Source, Writer
from evaluation.run.store import RunStore
from qincodec.core.console import Progress
from qincodec.core.errors import UserError, one_line


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
        sources = [Source.of(stack.enter_context(RunStore(f, write=False))) for f in [*earlier, *runs]]
        new = sources[len(earlier) :]
        _refuse_differences(sources)
        clips = _unite_clips(sources)
        if earlier:
            _refuse_strangers(sources[0], new)
        files = _unite_files(sources)
        run, missing = _unite_manifests(sources, new, clips, command)
        plan = Plan(sources, run, clips, files, progress)
        merged = Merged(out, run, len(clips), missing_shards=missing)
        plan.check()
        with RunStore(out) as store:
            # run.json first: without it, what a kill leaves would count as a stranger's folder.
            store.write_run(run)
            store.write_clips(clips)
            store.write_files(files)
            store.write_environment(_unite_environments(sources))
            plan.write(Writer(store, merged))
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


def _refuse_differences(sources: Sequence[Source]) -> None:
    for one, other in itertools.combinations(sources, 2):
        for what, had, got in differences(one.run, other.run):
            raise UserError(
                f"{one.name} and {other.name} are no parts of one run: {what} is {one_line(str(had), 200)}"
                f" and {one_line(str(got), 200)}; evaluate both with the same options, codecs and weights"
            )


def _refuse_strangers(earlier: Source, runs: Sequence[Source]) -> None:
    """`out` may hold an earlier merge of the runs, not clips of its own."""
    for name in earlier.clips:
        if not any(name in source.clips for source in runs):
            raise UserError(
                f"{earlier.name} is a run that has clip '{name}', which none of the others has; merge into a "
                "new folder, and give it as one of the runs if it is to be in it"
            )


def _unite_clips(sources: Sequence[Source]) -> list[Clip]:
    """All clips by id: of two the one that could be read, and whose file is here."""
    chosen: dict[str, tuple[Clip, Source]] = {}
    for source in sources:
        for clip in source.clips.values():
            if clip.id not in chosen:
                chosen[clip.id] = clip, source
                continue
            known, other = chosen[clip.id]
            if clip.error is None and known.error is None:
                for what in ("content_hash", "start_s", "duration_s", "recording"):
                    if getattr(clip, what) != getattr(known, what):
                        raise UserError(
                            f"clip '{clip.id}' is not the same in {other.name} and {source.name}: {what} is "
                            f"{getattr(known, what)} and {getattr(clip, what)}; give each clip an id of its "
                            "own with a manifest, and evaluate again"
                        )
            gain = (clip.error is None, clip.path.exists()) > (known.error is None, known.path.exists())
            if (clip.path != known.path and gain) or (clip.error is None) > (known.error is None):
                chosen[clip.id] = clip, source
    return [chosen[name][0] for name in sorted(chosen)]


def _unite_files(sources: Sequence[Source]) -> dict[str, dict[str, str]]:
    """Fingerprints of files decoded elsewhere; what was missing for one run and not for another is there."""
    united: dict[str, dict[str, str]] = {}
    for source in sources:
        for condition, files in source.files.items():
            known = united.setdefault(condition, {})
            for clip, fingerprint in files.items():
                before = known.get(clip, "missing")
                if before.startswith("missing"):
                    known[clip] = fingerprint
                elif before != fingerprint and not fingerprint.startswith("missing"):
                    raise UserError(
                        f"condition {condition}: {source.name} scored another file for clip '{clip}' than "
                        "the runs before it; decode it once, and evaluate both on that"
                    )
    return {name: dict(sorted(files.items())) for name, files in united.items()}


# run.json


def _unite_manifests(
    sources: Sequence[Source], new: Sequence[Source], clips: list[Clip], command: str | None
) -> tuple[dict[str, Any], list[int]]:
    """run.json of the whole, and the parts that are missing.

    Args:
        new: the runs, without what an earlier merge left: they have all its clips.
    """
    run = sources[0].run
    for source in sources:
        run = unite(run, source.run)
    entries = [source.run["dataset"] for source in new]
    shard, missing = _unite_shards(new)
    excluded = dict.fromkeys(tuple(pair) for entry in entries for pair in entry["excluded"])
    dataset = Dataset(
        "+".join(dict.fromkeys(str(entry["name"]) for entry in entries)),
        clips,
        [(str(name), str(reason)) for name, reason in excluded],
        "; ".join(dict.fromkeys(entry["disclaimer"] for entry in entries if entry["disclaimer"])) or None,
        _unite_notes(entries, clips, shard, missing),
        shard if missing else None,
    )
    run = {name: value for name, value in run.items() if name != "schema_version"}
    commands = dict.fromkeys([*run["commands"], command] if command else run["commands"])
    return {**run, "dataset": describe_dataset(dataset), "commands": list(commands)}, missing


def _unite_shards(sources: Sequence[Source]) -> tuple[dict[str, Any] | None, list[int]]:
    """What run.json says of parts of one whole taken together, and the numbers that are missing.

    None and [] where a run is not a part: nobody can say what the whole would be.
    """
    parts = [(source, source.run["dataset"].get("shard")) for source in sources]
    if any(part is None for _, part in parts):
        return None, []
    first, shard = parts[0]
    for source, part in parts[1:]:
        for what, text in (("count", "parts"), ("of", "data"), ("recordings", "recordings")):
            if part[what] != shard[what]:
                raise UserError(
                    f"{first.name} and {source.name} are shards of different wholes: {text} {shard[what]} "
                    f"and {part[what]}; the hosts must hold the same files, and split them in as many parts"
                )
    indices = sorted({index for _, part in parts for index in part["indices"]})
    missing = [index for index in range(1, shard["count"] + 1) if index not in indices]
    return {**shard, "indices": indices}, missing


_LOW_RATES = re.compile(r"\d+ of \d+ (files are below (\d+) Hz \(lowest )\d+( Hz\).*)", re.DOTALL)


def _unite_notes(
    entries: Sequence[dict[str, Any]], clips: Sequence[Clip], shard: dict[str, Any] | None, missing: list[int]
) -> list[str]:
    """Each note once; those that count something of the data count it in the whole."""
    notes: list[str] = []
    parts = {shard_note(e["shard"], e["n_recordings"]) for e in entries if e.get("shard")} if shard else set()
    for note in dict.fromkeys(note for entry in entries for note in entry["notes"] if note not in parts):
        match = _LOW_RATES.fullmatch(note)
        if match is None:
            notes.append(note)
            continue
        rates = {clip.path: clip.sample_rate for clip in clips}
        low = [rate for rate in rates.values() if 0 < rate < int(match[2])]
        line = f"{len(low)} of {len(rates)} {match[1]}{min(low, default=0)}{match[3]}"
        if line not in notes:
            notes.append(line)
    if shard is not None and missing:
        notes.append(shard_note(shard, len({clip.recording for clip in clips})))
    return notes


def _unite_environments(sources: Sequence[Source]) -> dict[str, Any]:
    """The first one; machines that differ from it stand beside it."""
    found: list[dict[str, Any]] = []
    for source in sources:
        environment = source.store.read_environment()
        for entry in (environment, *environment.get("other_machines", [])):
            plain = {name: value for name, value in entry.items() if name != "other_machines"}
            if plain and plain not in found:
                found.append(plain)
    if len(found) < 2:
        return found[0] if found else {}
    return {**found[0], "other_machines": found[1:]}
