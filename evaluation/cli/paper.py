"""``evaluate paper``: the paper's tables and figures, beside its own values."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from evaluation.cli import options
from evaluation.cli.showing import shown_anyway
from qincodec.core.console import starting
from qincodec.core.errors import EXIT_SOME_FAILED


def paper(
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Data, as for `evaluate`; the paper's are audiocaps:FOLDER. Default: the demo clips.",
        ),
    ] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Folder that `qincodec train` wrote, for all rows. Repeatable."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=PATH",
            help="Model of a role: rvq, irvq, irvq-finetuned, qinco2 or qinco2-finetuned. Repeatable, also "
            "for several latent dimensions. Default: shipped models where they fit.",
        ),
    ] = None,
    listening: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that `mushra analyze` wrote, for Fig. 2.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the results; continues the run in it.")
    ] = Path("paper"),
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Weights of dac or encodec, or a file of `evaluate weights`. Repeatable.",
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B", help="Parts to leave out: dac, encodec, openl3, fig4, or roles of models."
        ),
    ] = None,
    offline: options.Offline = False,
    device: options.Device = "cpu",
    limit: options.Limit = None,
    seed: options.Seed = 0,
    audiocaps_list: options.AudiocapsList = None,
    allow_resampled: Annotated[
        bool, typer.Option("--allow-resampled", help="Accept AudioCaps copies below 44.1 kHz.")
    ] = False,
    batch_size: options.BatchSize = 8,
    workers: options.Workers = None,
) -> None:
    """Compute the paper's Tables I to III and Figs. 2 to 4 and print them beside the paper's own values.

    A row that cannot be computed here shows the reason. Writes paper.html, tables.tex, paper.json and the
    figures. Run the same command again to continue an interrupted run.
    """
    with starting():
        from evaluation.paper.report import PAGE, print_paper, write_all
        from evaluation.paper.run import RUN, PaperRequest, reproduce

    if offline:
        os.environ["QINCODEC_OFFLINE"] = "1"
    skipped = [part.strip() for entry in skip or [] for part in entry.split(",") if part.strip()]
    request = PaperRequest(
        data=data,
        training=training or [],
        models=model or [],
        listening=listening,
        weights=weights or [],
        skip=skipped,
        device=device,
        limit=limit,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        dataset_options={"audiocaps_list": audiocaps_list, "allow_resampled": allow_resampled},
    )
    with starting() as progress:
        found = reproduce(request, out, progress)
        progress.done()
        with shown_anyway(partial(print_paper, found)):
            write_all(found, out)
    print_paper(found)
    print(f"\nTables and figures: {out / PAGE}; the run: {out / RUN}")
    if found.n_failed:
        raise SystemExit(EXIT_SOME_FAILED)
