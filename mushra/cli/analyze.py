"""The command ``mushra analyze``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from mushra.cli.options import (
    Anchors,
    Database,
    DropItems,
    Exclude,
    Keep,
    Key,
    Reference,
    Scale,
    Style,
    Systems,
    Tests,
    parse_scale,
)
from qincodec.core.errors import UserError, count


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(name="analyze")(analyze)


def analyze(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Ratings: a test (its folder or YAML), a data base of mushra (file or postgresql://...), an "
            "export, webMUSHRA's mushra.csv, pymushra's JSON, or a CSV with --columns. Several are read as "
            "one test.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to write to; without it only the table is shown."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS",
            help="Columns of the files, such as score=rating; several with commas. Ours are listener, item, "
            "condition, score, time_ms, comment, session, test, order, moves.",
        ),
    ] = None,
    key: Key = None,
    database: Database = None,
    reference: Reference = None,
    anchors: Anchors = None,
    systems: Systems = None,
    scale: Scale = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="Also give differences to this condition.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            min=0.1,
            max=100,
            help="Also test which systems are equivalent: that their difference is within ±POINTS.",
        ),
    ] = None,
    keep: Keep = None,
    exclude: Exclude = None,
    drop_flagged: Annotated[
        bool,
        typer.Option(
            "--drop-flagged",
            help="Exclude whose ratings are in doubt: one slider moved, a system over the hidden reference, "
            "or too fast, on more than half of the pages.",
        ),
    ] = False,
    tests: Tests = None,
    drop_items: DropItems = None,
    keep_training: Annotated[
        bool,
        typer.Option(
            "--keep-training",
            help="Use training pages, too: those the test's YAML names, or whose id begins with `training`.",
        ),
    ] = False,
    listener_ids: Annotated[
        Literal["global", "per-file"] | None,
        typer.Option(
            help="Whether the same listener id in two files is one person (global) or two (per-file)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the bootstrap and the permutations.")] = 0,
    permutations: Annotated[
        int, typer.Option(metavar="N", min=100, help="Of each permutation test.")
    ] = 10_000,
    order: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|mean|name",
            help="Order of the systems in tables and figures: by mean (default) or by name; systems that are "
            "named, repeating this, come first.",
        ),
    ] = None,
    captions: Annotated[
        bool, typer.Option("--captions", help="Captions inside the figures, too, not only in the report.")
    ] = False,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Whether to draw.")] = True,
    style: Style = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no remarks.")] = False,
) -> None:
    """Analyse a MUSHRA test after ITU-R BS.1534-3: screening, intervals, tests, plots, report."""
    from mushra import load
    from mushra.analysis.pipeline import analyze as run
    from mushra.analysis.report import write_all
    from mushra.analysis.wording import letters_caption, primary_result, summary
    from qincodec.core.console import ProgressLine

    with ProgressLine(enabled=not quiet) as progress:
        ratings = load(
            sources,
            columns=_column_map(columns or []),
            key=key,
            database=database,
            reference=reference,
            anchors=anchors or [],
            systems=systems or [],
            scale=parse_scale(scale),
            tests=tests or [],
            drop_items=drop_items or [],
            keep_training=keep_training,
            listener_ids=listener_ids,
        )
        for problem in ratings.problems:
            progress.note(f"{problem.kind}: {problem.detail}")
        analysis = run(
            ratings,
            seed=seed,
            keep=keep or [],
            exclude=exclude or [],
            drop_flagged=drop_flagged,
            baseline=baseline,
            margin=margin,
            order=order or ["mean"],
            num_permutations=permutations,
            progress=progress,
        )
        excluded = analysis.screening.excluded
        if excluded:
            progress.note(
                f"screening: {count(len(excluded), 'listener')} of {len(ratings.listeners)} excluded"
            )
        for note in (*analysis.notes, letters_caption(analysis), primary_result(analysis)):
            if note:
                progress.note(note)
        paths = []
        if out is not None:
            progress("plots and report", 0, 1)
            paths = write_all(analysis, out, style=style, plots=plots, captions=captions)
    print(summary(analysis))
    if out is not None and not quiet:
        print(f"{len(paths)} files written to {out}; start with {out / 'report.html'}", file=sys.stderr)


def _column_map(options: list[str]) -> dict[str, str]:
    from mushra.analysis.ratings import COLUMNS, OPTIONAL_COLUMNS

    known = (*COLUMNS, *OPTIONAL_COLUMNS)
    columns: dict[str, str] = {}
    for option in options:
        for pair in option.split(","):
            ours, equals, theirs = pair.partition("=")
            if not equals or not theirs or ours.strip() not in known:
                raise UserError(
                    f"--columns got '{pair}'; it takes OURS=THEIRS, where OURS is one of {', '.join(known)}"
                )
            columns[ours.strip()] = theirs.strip()
    return columns
