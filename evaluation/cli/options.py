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
    plug_in_option(_add_file, "Codec, metric or quantizer in a Python file, which is run. Repeatable."),
]
Limit = Annotated[int | None, typer.Option(metavar="N", help="Draw N recordings, with all their clips.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of the draw and of the bootstrap.")]
AudiocapsList = Annotated[
    Path | None, typer.Option(metavar="CSV", help="AudioCaps' test list, for audiocaps:FOLDER.")
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline", help="Download no weights and no data; so does QINCODEC_OFFLINE=1 in the environment."
    ),
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Print what each metric and column is below the tables, too.")
]
Device = Annotated[str, typer.Option(metavar="D", help="Device of neural codecs and metrics: cpu, cuda.")]
BatchSize = Annotated[int, typer.Option(metavar="N", help="Clips coded and scored at once.")]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Threads that take batches side by side, or workers of the cluster; their number changes no"
        " score. Default: one per core, or per GPU of a cluster.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Code and score on a Ray cluster: local (this machine), auto (that of this host) or HOST:PORT.",
    ),
]
