"""``evaluate html``: the report of a run with audio to hear."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluation.cli import options
from qincodec.core.console import ProgressLine, starting


def html(
    run: options.Run,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the report. Default: RUN/report.")
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of clips to hear. Default: best, median and worst of each metric, about 50 MB.",
        ),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[@KBPS]=DIR", help="Files of a condition decoded elsewhere. Repeatable."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Weights of a codec, where the run used others than those found here. Repeatable.",
        ),
    ] = None,
    plug_in: options.PlugIn = None,
    device: Annotated[str, typer.Option(metavar="D", help="Device of the decoders: cpu, cuda.")] = "cpu",
) -> None:
    """Write the report of a run as a folder that opens in any browser, offline: tables that sort, curves,
    distributions, tests, and the best and worst clips to hear, every codec at the same position.

    The clips are decoded again from the payloads in the run folder, also for an interrupted run.
    """
    with starting():
        from evaluation.engine.request import parse_conditions, parse_weights
        from evaluation.report.html import write_html
        from evaluation.run.environment import usable_cores

    with ProgressLine() as progress:
        written = write_html(
            run,
            out,
            clips=clips,
            folders=parse_conditions(condition or []),
            weights=parse_weights(weights or []),
            device=device,
            workers=usable_cores(),
            progress=progress,
        )
        for remark in written.remarks:
            progress.note(remark)
    print(f"{written.page} ({written.num_clips} clips to hear, {written.num_bytes / 1e6:.1f} MB)")
