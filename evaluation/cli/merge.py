"""``evaluate merge``: runs of parts of a data set as one run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluation.cli.showing import shown_anyway
from qincodec.core.console import ProgressLine
from qincodec.core.errors import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from evaluation.run.merge import Merged


def merge(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Run folder to make, or to go on with.")],
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders that `evaluate --out` wrote.")],
) -> None:
    """Merge runs of parts of a data set (`evaluate --shard`), or of one data set on several machines, into
    one run, as if one process had made it.

    `evaluate report`, `compare` and `html` read it, and the command of the runs, without --shard and with
    --out OUT, goes on with it. The runs are only read; files are linked where the file system can.
    Interrupted, or with more runs, the same command goes on. Runs of other options, codecs, weights or
    metrics are refused; so are unfinished ones.
    """
    from evaluation.loading import load_results
    from evaluation.report import print_report, write_all
    from evaluation.run.merge import merge_runs
    from evaluation.run.store import RunStore
    from evaluation.session import command_line

    with ProgressLine() as progress:
        merged = merge_runs(out, runs, command=command_line(), progress=progress)
        with RunStore(out) as store:
            results = load_results(store, progress)
        progress.note(
            f"merged {len(runs)} run{'s' * (len(runs) != 1)}: {merged.num_clips} clips, {merged.new_rows} "
            f"rows and {merged.new_files} files new in {out}"
        )
        for line in _remarks(merged):
            progress.note(line)
        progress.done()
        with shown_anyway(partial(print_report, results)):
            write_all(results, out)
    print_report(results)
    print(f"\nTables, plots and rows: {out}")
    if merged.not_scored or merged.lost or merged.missing_shards or results.clips["error"].notna().any():
        raise SystemExit(EXIT_SOME_FAILED)


def _remarks(merged: Merged) -> Iterator[str]:
    """What is left to do."""
    for label, count in merged.not_scored.items():
        yield (
            f"{label}: its delay over all clips is {merged.delays[label]} samples; {count} of "
            f"{merged.num_clips} clips were scored at another one and are not scored yet"
        )
    if merged.not_scored:
        if command := _finishing(merged):
            yield f"to score them from what was encoded: {command}"
        else:
            clips = shlex.quote(str(merged.folder / "clips.jsonl"))
            yield (
                "to score them from what was encoded: the command of the runs, without --shard, on "
                f"{clips} and with --out {shlex.quote(str(merged.folder))}"
            )
    if merged.lost:
        yield (
            f"{merged.lost} encoded clip{'s are' if merged.lost > 1 else ' is'} gone from the runs: scores"
            " stay, statistics of codes and audio cannot be had"
        )
    if merged.missing_shards:
        numbers, several = ", ".join(map(str, merged.missing_shards)), len(merged.missing_shards) > 1
        which = f"shards {numbers} are missing" if several else f"shard {numbers} is missing"
        yield f"this is a part of the data: {which}; merge again with {'them' if several else 'it'}"


def _finishing(merged: Merged) -> str | None:
    """The command of the runs for the whole; None if theirs differ in more than --shard and --out."""
    commands = set()
    for command in merged.run.commands:
        words = shlex.split(command)
        if "merge" in words:
            continue
        for option in ("--shard", "--out"):
            while option in words:
                place = words.index(option)
                del words[place : place + 2]
            words = [word for word in words if not word.startswith(f"{option}=")]
        commands.add(tuple(words))
    if len(commands) != 1:
        return None
    return shlex.join([*commands.pop(), "--out", str(merged.folder)])
