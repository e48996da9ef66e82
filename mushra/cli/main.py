"""The command ``mushra``: listening tests, from the stimuli to the plots."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mushra.cli import (
    analyze as cli_analysis,
)
from mushra.cli import (
    create as cli_create,
)
from mushra.cli import (
    serve as cli_serve,
)
from mushra.cli import (
    study as cli_study,
)
from qincodec.core.console import run_command, version_option

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def mushra(
    version: Annotated[bool, version_option("mushra")] = False,
) -> None:
    """Listening tests by ITU-R BS.1534-3 (MUSHRA): make, host, analyse."""


for part in (cli_create, cli_serve, cli_analysis, cli_study):
    part.register(app)


def main() -> None:
    """Entry point of the command."""
    run_command(app, sys.argv[1:], "mushra", interrupted="interrupted")
