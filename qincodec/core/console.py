"""Parts that all commands share: errors in one line, exit codes, progress on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from qincodec.core.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, escaped

if TYPE_CHECKING:
    from typer import Typer

#: Callback of long work: name of the step, amount done, and total (0: unknown).
Progress = Callable[[str, int, int], None]


def run_command(app: Typer, arguments: list[str], program: str, interrupted: str | None = None) -> None:
    """Run a Typer application and exit: 2 with one line for a `UserError`, 130 when interrupted.

    Args:
        app: the application.
        arguments: of the command line.
        program: name in messages. Under torchrun only rank 0 writes them.
        interrupted: message when Ctrl-C ends it; None if the command writes it itself.
    """
    from typer.main import get_command

    command = get_command(app)
    _hide_values_of_flags(command)
    try:
        command(arguments, prog_name=program)
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"{program}: {escaped(str(error))}", file=sys.stderr)  # file names may contain anything
        raise SystemExit(EXIT_USER_ERROR) from None
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        print(
            f"{program}: this needs PyTorch (package 'torch'), which is not installed; a listening test's "
            "server does not need it. Install the whole program: `pip install .` in the checkout",
            file=sys.stderr,
        )
        raise SystemExit(EXIT_USER_ERROR) from None
    except SystemExit as end:
        # Typer turns Ctrl-C into exit code 130 without a message.
        if end.code == EXIT_INTERRUPTED and interrupted is not None:
            print(f"\n{program}: {interrupted}", file=sys.stderr)
        raise


def plug_in_option(add: Callable[[str], object], help: str) -> Any:
    """The option ``--plug-in``: hands each ``FILE.py:CLASS`` to ``add`` before the command begins."""
    import typer

    def add_all(texts: list[str] | None) -> list[str] | None:
        for text in texts or []:
            add(text)
        return texts

    return typer.Option("--plug-in", metavar="FILE.py:CLASS", help=help, callback=add_all)


def version_option(program: str) -> Any:
    """``--version`` of a Typer application: prints the program's name and version and ends it."""
    import typer

    from qincodec import __version__

    def show(value: bool) -> None:
        if value:
            print(f"{program} {__version__}")
            raise typer.Exit

    return typer.Option("--version", callback=show, is_eager=True, help="Print the version.")


def _hide_values_of_flags(command: Any) -> None:
    """For --help: a flag has no value, but Typer from 0.29 on shows ``<bool>``."""
    for parameter in command.get_params(command.context_class(command)):
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        _hide_values_of_flags(inner)


class ProgressLine:
    """Progress of long work on stderr: a bar with time left on a terminal, elsewhere a line now and then.

    Call it with (what, done, total) and optionally a changing detail, from any thread.
    """

    #: Seconds between two lines if stderr is not a terminal.
    INTERVAL_S = 10.0

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._bar: Any = None
        self._task: Any = None
        self._detail = self._below = ""
        self._shown = ("", False)
        self._last_line = time.monotonic()

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.done()

    def note(self, text: str) -> None:
        """Write a line that stays."""
        if self._enabled:
            self._show(self._print, text)

    def _print(self, text: str) -> None:
        self.done()
        print(text, file=sys.stderr)

    def _show(self, function: Callable[..., None], *arguments: Any) -> None:
        """A failure of the display (stderr is closed) must not end the work: then nothing is shown."""
        try:
            function(*arguments)
        except Exception:
            self._enabled = False

    def done(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._shown = ("", False)

    def below(self, text: str) -> None:
        """Set the text under the bar, from the next call on; only on a terminal."""
        self._below = text

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        if self._enabled:
            self._show(self._progress, what, done, total, detail)

    def _progress(self, what: str, done: int, total: int, detail: str) -> None:
        self._detail = detail or self._detail
        if sys.stderr.isatty():
            self._draw(what, done, total)
        elif time.monotonic() - self._last_line >= self.INTERVAL_S:
            self._last_line = time.monotonic()
            more = f" ({self._detail})" if self._detail else ""
            print(f"{what}: {done} of {total}{more}", file=sys.stderr, flush=True)

    def _draw(self, what: str, done: int, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.text import Text

        line = self

        class Bar(Progress):
            def get_renderables(self) -> Iterator[Any]:
                yield self.make_tasks_table(self.tasks)
                if line._below:
                    yield Text(line._below)

        counted = done > 0 or total > 0
        if (what, counted) != self._shown:
            self.done()
            self._shown = what, counted
            of_how_much = [MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left")] if counted else []
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                *of_how_much,
                TextColumn("{task.fields[detail]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(what, total=total or None, detail=self._detail)
        self._bar.update(self._task, completed=done, total=total or None, detail=self._detail)


def starting(*, enabled: bool = True) -> ProgressLine:
    """A context for imports and models, which take seconds: a terminal shows that the program has begun."""
    line = ProgressLine(enabled=enabled)
    line("starting", 0, 0)
    return line
