"""The command ``mushra``: listening tests, from the stimuli to the plots."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mushra.cli import analyze, create, payments, serve, study
from qincodec.core.console import run_command, version_option

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def mushra(version: Annotated[bool, version_option("mushra")] = False) -> None:
    """Make, host and analyze listening tests by ITU-R BS.1534-3 (MUSHRA)."""


for part in (create, serve, payments, analyze, study):
    part.register(app)


def main() -> None:
    """Entry point of the command."""
    run_command(app, sys.argv[1:], "mushra", interrupted="interrupted")
