"""A hook of MkDocs: `reference/commands.md`, every command and option, from the programs' own parsers.

The page is made while the site is built, so it is never older than the commands.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PAGE = "reference/commands.md"
#: Program -> where its Typer application is.
PROGRAMS = {"evaluate": "evaluation.cli.evaluate", "mushra": "mushra.cli.main", "qincodec": "qincodec.cli"}

_HEAD = """# Commands

Every command with its options, as `--help` shows them. [Exit codes](#exit-codes) are the same for all."""

_END = """## Exit codes

| code | meaning |
| --- | --- |
| 0 | All was done. |
| 2 | The input is wrong; one line says what, and what to do. |
| 3 | The command ended, and some items failed. Each has its reason in the results. |
| 130 | Interrupted. What was finished is kept; run the same command again to continue. |

The result goes to the standard output, progress and messages go to the standard error."""


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=reference()))
    return files


def reference() -> str:
    """The page's text."""
    parts = [_HEAD]
    for program, module in PROGRAMS.items():
        for words, command in commands(program, get_command(importlib.import_module(module).app)):
            parts += described(words, command)
    return "\n\n".join([*parts, _END]) + "\n"


def commands(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command and all below it that are shown: (how it is called, the command)."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from commands(f"{words} {name}", inner)


def described(words: str, command: Any) -> list[str]:
    """Heading, help text and options."""
    context = command.make_context(words, [], resilient_parsing=True)
    usage = " ".join([words, *command.collect_usage_pieces(context)])
    text = (command.help or command.short_help or "").replace("\b\n", "").replace("\f", "").strip()
    records = [parameter.get_help_record(context) for parameter in command.params]
    rows = [_row(*record) for record in records if record and not record[0].startswith("--help")]
    table = "\n".join(["| argument or option | meaning |", "| --- | --- |", *rows])
    level = "##" if " " not in words else "###"
    return [f"{level} {words}", f"`{usage}`", text, table if rows else ""]


def _row(names: str, meaning: str) -> str:
    """A bar ends a cell, unless it is within code: there a backslash before it would be shown."""
    parts = " ".join(meaning.split()).split("`")
    parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
    return f"| `{names}` | {'`'.join(parts)} |"
