"""Options that several commands of ``evaluate`` take, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qincodec.core.console import plug_in_option

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `evaluate --out` wrote.")]


def _add_file(text: str) -> None:
    from evaluation.engine.plug_ins import add_files

    add_files([text])


PlugIn = Annotated[
    list[str] | None,
    plug_in_option(_add_file, "Python file with a codec, metric or quantizer; it is executed. Repeatable."),
]
Limit = Annotated[int | None, typer.Option(metavar="N", help="Number of recordings to draw, with all clips.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of the draw and of the bootstrap.")]
AudiocapsList = Annotated[
    Path | None, typer.Option(metavar="CSV", help="AudioCaps' test list, for audiocaps:FOLDER.")
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline", help="Download no weights and no data, as with QINCODEC_OFFLINE=1 in the environment."
    ),
]
Explain = Annotated[bool, typer.Option("--explain", help="Explain each metric and column below the tables.")]
Device = Annotated[str, typer.Option(metavar="D", help="Device of neural codecs and metrics: cpu, cuda.")]
BatchSize = Annotated[int, typer.Option(metavar="N", help="Clips coded and scored at once.")]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of threads, or of workers of the cluster; it does not change the scores. Default: one"
        " per core, or per GPU of a cluster.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Ray cluster that codes and scores: local (this machine), auto (the one of this host) or"
        " HOST:PORT.",
    ),
]
