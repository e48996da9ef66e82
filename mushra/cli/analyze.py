"""The command ``mushra analyze``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mushra.cli.options import (
    Anchors,
    Database,
    DropItems,
    Exclude,
    Keep,
    Key,
    ListenerIds,
    Reference,
    Scale,
    Style,
    Systems,
    Tests,
    parse_scale,
)
from qincodec.core.errors import UserError, count

if TYPE_CHECKING:
    from mushra.analysis.methods.pipeline import MethodsAnalysis
    from mushra.analysis.pipeline import Analysis
    from qincodec.core.console import ProgressLine


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(name="analyze")(analyze)


def analyze(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Ratings: a test (its folder or YAML), a data base of mushra (file or postgresql://...), an "
            "export, webMUSHRA's CSV, pymushra's JSON, or a CSV with --columns. Several are pooled as one "
            "test.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Output folder. Default: only print the table."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS",
            help="Names of columns in the files, such as score=rating; separate several with commas. OURS is "
            "listener, item, condition, score, time_ms, comment, session, test, order or moves.",
        ),
    ] = None,
    key: Key = None,
    database: Database = None,
    reference: Reference = None,
    anchors: Anchors = None,
    systems: Systems = None,
    scale: Scale = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="Condition to which differences are also given.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            min=0.1,
            max=100,
            help="Margin of an added test of equivalence: differences within ±POINTS.",
        ),
    ] = None,
    keep: Keep = None,
    exclude: Exclude = None,
    drop_flagged: Annotated[
        bool,
        typer.Option(
            "--drop-flagged",
            help="Exclude listeners with doubtful ratings: on more than half of the pages only one slider "
            "moved, a system above the hidden reference, or too fast; or a gold item wrong.",
        ),
    ] = False,
    tests: Tests = None,
    drop_items: DropItems = None,
    keep_training: Annotated[
        bool,
        typer.Option(
            "--keep-training",
            help="Also use training pages: those that the test's YAML names, and ids that begin with "
            "`training`.",
        ),
    ] = False,
    gold: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Gold and trapping questions of ACR and DCR pages: a CSV with item, condition, expected. "
            "Listeners who answer otherwise are excluded.",
        ),
    ] = None,
    listener_ids: ListenerIds = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of bootstrap and permutations.")] = 0,
    permutations: Annotated[
        int, typer.Option(metavar="N", min=100, help="Permutations of each test.")
    ] = 10_000,
    order: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|mean|name",
            help="Order of the systems in tables and figures: by mean (default) or by name. Systems given "
            "by their NAME come first. Repeatable.",
        ),
    ] = None,
    captions: Annotated[
        bool, typer.Option("--captions", help="Put captions into the figures as well as the report.")
    ] = False,
    plots: Annotated[
        bool, typer.Option("--plots/--no-plots", help="Draw the figures, or leave them out.")
    ] = True,
    style: Style = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no remarks.")] = False,
) -> None:
    """Analyze a listening test: screening, intervals, tests, plots, report.

    MUSHRA pages follow ITU-R BS.1534-3. Pages of BS.1116, AB, ABX, paired comparison, ACR and DCR are
    analyzed beside them.
    """
    from qincodec.core.console import ProgressLine, starting

    with starting(enabled=not quiet):
        from mushra.analysis.methods.load import page_types
        from mushra.analysis.methods.report import summary as summary_of_others
        from mushra.analysis.methods.report import write_all as write_others
        from mushra.analysis.report import write_all
        from mushra.analysis.wording import summary

    shared = {
        "key": key,
        "database": database,
        "tests": tests or [],
        "drop_items": drop_items or [],
        "keep_training": keep_training,
        "listener_ids": listener_ids,
    }
    common = {"seed": seed, "keep": keep or [], "exclude": exclude or [], "margin": margin}
    of_mushra = {
        "columns": _column_map(columns or []),
        "reference": reference,
        "anchors": anchors or [],
        "systems": systems or [],
        "scale": parse_scale(scale),
    }
    of_analysis = {"baseline": baseline, "order": order or [], "drop_flagged": drop_flagged}
    with ProgressLine(enabled=not quiet) as progress:
        types = {source: page_types(source, database, tests or []) for source in sources}
        mushra = [source for source in sources if "mushra" in types[source]]
        rest = [source for source in sources if types[source] - {"mushra"}]
        if given := [name for name, value in {**of_mushra, **of_analysis}.items() if value and not mushra]:
            option = {"anchors": "anchor", "systems": "system"}.get(given[0], given[0].replace("_", "-"))
            raise UserError(f"--{option} is for MUSHRA pages, and the sources have none; leave it out")
        if gold is not None and not rest:
            raise UserError("--gold is for ACR and DCR pages, and the sources have none; leave it out")
        others = _others(rest, gold, shared, common, progress) if rest else None
        analysis = None
        if mushra:
            chosen = {**of_analysis, "order": order or ["mean"], "num_permutations": permutations}
            analysis = _mushra(mushra, {**shared, **of_mushra}, {**common, **chosen}, progress)
        paths = []
        if out is not None:
            progress("plots and report", 0, 1)
            options: dict[str, Any] = {"style": style, "plots": plots, "captions": captions}
            if others is not None:
                paths = write_others(others, out, mushra=analysis, **options)
            elif analysis is not None:
                paths = write_all(analysis, out, **options)
    if analysis is not None:
        print(summary(analysis))
    if others is not None:
        print("\n" * (analysis is not None) + summary_of_others(others))
    if out is not None and not quiet:
        print(f"{len(paths)} files written to {out}; start with {out / 'report.html'}", file=sys.stderr)


def _mushra(
    sources: list[str], reading: dict[str, Any], options: dict[str, Any], progress: ProgressLine
) -> Analysis:
    from mushra import load
    from mushra.analysis.pipeline import analyze as run
    from mushra.analysis.wording import letters_caption, primary_result

    ratings = load(sources, **reading)
    for problem in ratings.problems:
        progress.note(f"{problem.kind}: {problem.detail}")
    analysis = run(ratings, **options, progress=progress)
    excluded = analysis.screening.excluded
    if excluded:
        progress.note(f"screening: {count(len(excluded), 'listener')} of {len(ratings.listeners)} excluded")
    primary = analysis.primary
    for note in (*analysis.notes, letters_caption(primary), primary_result(primary, analysis.mixed)):
        if note:
            progress.note(note)
    return analysis


def _others(
    sources: list[str],
    gold: Path | None,
    reading: dict[str, Any],
    options: dict[str, Any],
    progress: ProgressLine,
) -> MethodsAnalysis:
    """Analysis of the pages of all methods but MUSHRA."""
    from mushra.analysis.methods.load import load
    from mushra.analysis.methods.pipeline import analyze as run
    from mushra.analysis.methods.pipeline import read_gold

    analysis = run(load(sources, **reading), **options, gold=read_gold(gold) if gold is not None else None)
    for problem in analysis.problems:
        progress.note(f"{problem.kind}: {problem.detail}")
    for section in analysis.sections:
        for line in (*section.notes, *section.paragraphs[1:]):
            progress.note(f"{section.method}: {line}")
    return analysis


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
