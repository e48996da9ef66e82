"""``evaluate tokenize``: the codes of a data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from evaluation.cli import options
from qincodec.core.console import ProgressLine
from qincodec.core.errors import EXIT_SOME_FAILED


def tokenize(
    codec: Annotated[
        str, typer.Option(metavar="CODEC", help="CODEC, CODEC:WEIGHTS, or your own codec as FILE.py:CLASS.")
    ],
    kbps: Annotated[
        float, typer.Option(metavar="R", help="Bitrate in kbit/s; the nearest nominal one is used.")
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of the tokens; continues an interrupted one."),
    ],
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="Data, as for `evaluate`. Default: the demo clips.")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Weights of the codec. Repeatable."),
    ] = None,
    plug_in: options.PlugIn = None,
    offline: options.Offline = False,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Part I of N of the recordings, for N hosts with a folder each."),
    ] = None,
    channels: Annotated[int, typer.Option(metavar="N", help="1: mixed to mono; 2: stereo.")] = 1,
    chunk: Annotated[
        float,
        typer.Option(metavar="S", help="Longest clip in seconds; longer files are cut into several clips."),
    ] = 30.0,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = 8,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
) -> None:
    """Write the codes of a data set as arrays (safetensors) with an index (Parquet), for language models.

    Audio goes to the codec at its own sample rate; the rest of a longer file is left out if it is below 1 s.
    Run the same command again to continue an interrupted run; the result has the same bytes.
    """
    if offline:
        os.environ["QINCODEC_OFFLINE"] = "1"
    from evaluation.engine.fetching import fetch_weights
    from evaluation.engine.request import Request, parse_request
    from evaluation.engine.tokens import tokenize as write_tokens
    from evaluation.records import Settings

    request = Request(
        data=data,
        codecs=[codec],
        kbps=[kbps],
        weights=weights or [],
        device=device,
        batch_size=batch_size,
        workers=workers,
        cluster=cluster,
        settings=Settings(
            channels=channels, chunk_s=chunk, chunks="all", limit=limit, seed=seed, match="nominal"
        ),
        dataset_options={"shard": shard},
    )
    with ProgressLine() as progress:
        parsed = parse_request(request)
        found = write_tokens(parsed, out, fetch_weights(parsed, progress), progress, progress.note)
        for note in found.notes:
            progress.note(note)
    print(
        f"{found.folder}: {found.tokens} tokens of {found.clips} clips, {found.duration_s:.1f} s,"
        f" {found.tokens / found.duration_s:.4g} per second; {codec} at {found.rate.label} kbps"
    )
    if found.failed:
        print(f"{found.failed} clips failed: column error of {found.folder / 'index.parquet'}")
        raise SystemExit(EXIT_SOME_FAILED)
