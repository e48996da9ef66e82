"""The command ``mushra payments``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mushra.cli.options import Database
from qincodec.core.errors import UserError, count


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("payments")(payments)


def payments(
    test: Annotated[
        Path, typer.Argument(metavar="TEST", help="Folder of `mushra create`, or a webMUSHRA YAML file.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV file to write. Default: print the list.")
    ] = None,
    database: Database = None,
) -> None:
    """List who is to be paid: person, state, completion code, times and gold items of each session."""
    from mushra.config.load import load_config
    from mushra.config.locate import database_of
    from mushra.server.session_pages import places
    from mushra.store.failures import store_errors
    from mushra.store.payments import list_payments, payments_csv
    from mushra.store.store import Store
    from qincodec.core.files import write_atomic

    config = load_config(test)
    with Store(database or database_of(test), create=False) as store:
        with store_errors(store.name), store.read() as connection:
            rows = list_payments(connection, config.test_id, places(config))
        if not rows:
            raise UserError(
                f"'{store.name}' has no sessions of the test '{config.test_id}' yet; nobody is to be paid"
            )
    text = payments_csv(rows)
    if out is None:
        print(text, end="")
        return
    write_atomic(out, text)
    finished = sum(row.state == "finished" for row in rows)
    print(out)
    print(f"{count(len(rows), 'session')}, {finished} finished", file=sys.stderr)
