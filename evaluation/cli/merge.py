"""``evaluate merge``: runs of parts of a data set as one run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluation.cli.showing import shown_anyway
from qincodec.core.console import ProgressLine, starting
from qincodec.core.errors import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from evaluation.results import Results
    from evaluation.run.merge import Merged


def merge(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Run folder to make or to continue.")],
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders that `evaluate --out` wrote.")],
) -> None:
    """Merge runs of parts of a data set (`evaluate --shard`), or of one data set on several machines, into
    one run, as if one process had made it.

    To continue it, run the command of the runs without --shard and with --out OUT: it computes the results
    that need all parts, and those that no part has. The runs are only read; files are linked where the file
    system can. Run the same command again to continue an interrupted merge, or to add runs. Runs with other
    options, codecs, weights or metrics are refused.
    """
    with starting():
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
            f"merged {len(runs)} run{'s' * (len(runs) != 1)}: {merged.run.dataset.n_clips} clips, "
            f"{merged.new_rows} rows and {merged.new_files} files new in {out}"
        )
        remarks = list(_remarks(merged, results, out))
        progress.done()
        with shown_anyway(partial(print_report, results)):
            write_all(results, out)
    print_report(results)
    print(f"\nTables, plots and rows: {out}", flush=True)
    for line in remarks:  # last: above the tables it would scroll away
        progress.note(line)
    if remarks or results.clips["error"].notna().any():
        raise SystemExit(EXIT_SOME_FAILED)


def _remarks(merged: Merged, results: Results, out: Path) -> Iterator[str]:
    """What is missing, and how to compute it."""
    if (shard := merged.run.dataset.shard) is not None:
        yield f"missing shards: {', '.join(map(str, shard.missing))}; merge again with those too"
        return  # results that need all parts cannot be computed yet
    found = [results, results.noise_floor] if results.noise_floor else [results]
    if left := sum(part.n_pending + part.n_unscored for part in found):
        yield (
            f"{left} results are missing: no part has them, or none at the delay over all clips; to compute "
            f"them: {_finishing(merged.run.commands, out)}"
        )


def _finishing(commands: Sequence[str], out: Path) -> str:
    """The command that completes the merged run; in words if the runs differ beyond --shard and --out."""
    option = re.compile(r" --(?:shard|out)[ =](?:'[^']*'|\S)+")
    whole = {option.sub("", command) for command in commands if " merge " not in command}
    start = whole.pop() if len(whole) == 1 else "the command of the runs, without --shard, on all data, with"
    return f"{start} --out {shlex.quote(str(out))}"
