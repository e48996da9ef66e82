"""Options that several commands have: what is read, and which of it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Database = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        envvar="MUSHRA_DATABASE",
        help="Results of a test: SQLite file, or postgresql:// address. Default: in its folder,"
        " results.sqlite or, of NAME.yaml, NAME.sqlite.",
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="key.json of `mushra create`: what opaque names stand for. Default: that in the same folder.",
    ),
]
Reference = Annotated[
    str | None, typer.Option(metavar="NAME", help="Hidden reference, if not found by its name.")
]
Anchors = Annotated[
    list[str] | None,
    typer.Option(
        "--anchor",
        metavar="NAME",
        help="Anchor, if not found by its name; repeat, lowest first; the last of several is the mid.",
    ),
]
Tests = Annotated[
    list[str] | None,
    typer.Option("--test", metavar="ID", help="Test to use, where the sources hold several; repeat to pool."),
]
DropItems = Annotated[
    list[str] | None, typer.Option("--drop-item", metavar="ITEM", help="Item to leave out; repeatable.")
]
Keep = Annotated[
    list[str] | None,
    typer.Option(metavar="LISTENER", help="Not to be excluded by screening; `all` for everybody."),
]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="LISTENER", help="To be excluded in any case; repeatable.")
]
Style = Annotated[
    str | None, typer.Option(metavar="NAME|FILE", help="Matplotlib style of figures, for fonts.")
]
