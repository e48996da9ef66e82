"""The report on a terminal, or as plain text where the output is piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from evaluation.report.categories import category_note, category_table
from evaluation.report.cells import BOLD, Cell, Table
from evaluation.report.findings import HOW, sentences
from evaluation.report.notes import notes
from evaluation.report.tables import all_tables
from evaluation.results import Results

#: Wide enough for any table: piped output is not wrapped, so that it can be searched and cut.
_UNLIMITED = 10_000
EXPLAIN = "To explain each metric and column: evaluate report RUN --explain"
_ASCII = str.maketrans({"↑": "(up)", "↓": "(down)", "⚠": "!", "†": "+", "×": "x", "–": "-", "…": "..."})


def print_report(results: Results, file: IO[str] | None = None, *, explain: bool = False) -> None:
    """Print the table and its notes to ``file`` (stdout), as wide as the terminal or, piped, as needed.

    Args:
        explain: add what each metric and column is.
    """
    print_wide(render(results, results.summary, explain=explain), file)


def print_wide(renderable: object, file: IO[str] | None = None) -> None:
    """Print something of rich: to the terminal's width there, unwrapped and uncoloured elsewhere."""
    console = Console(file=file or sys.stdout, highlight=False)
    if not console.is_terminal:
        console = Console(file=file or sys.stdout, highlight=False, width=_UNLIMITED, no_color=True)
    # Not cropped: a terminal wraps what is too wide even for the narrowest layout.
    console.print(renderable, crop=False)


def render(results: Results, summary: pd.DataFrame, *, explain: bool = False) -> Report:
    """The report as something rich can print at any width."""
    said = [note for note in notes(results, summary) if explain or note.kind not in ("definition", "reading")]
    lines = [note.text for note in said] + ([] if explain else [EXPLAIN])
    tables = all_tables(results, summary)
    table, line = category_table(results, summary), category_note(results)
    if table is not None:
        tables.insert(1, table)
    return Report(tables, [lines[0], *([line] if line else []), *lines[1:]], sentences(results))


@dataclass(frozen=True)
class Report:
    """Tables and lines, in a layout for the given width; a number is never cut.

    Each row is one line if that fits; otherwise the intervals are below the means; otherwise there are
    several tables, and each repeats the columns that identify a row. Texts of sections are below their table,
    and findings before the other lines.
    """

    tables: Sequence[Table]
    lines: Sequence[str]
    findings: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in self.tables:
            if any(section.rows for section in table.sections):
                yield from _fitted(table, console, options)
            said = [f"{section.heading}: {section.text}" for section in table.sections if section.text]
            yield from _wrapped(said, console, options)
        if self.findings:
            yield from _wrapped([*self.findings, HOW], console, options)
            yield Text()
        lines = list(self.lines)
        if console.is_terminal and any(table.has_best for table in self.tables):
            lines.insert(1, BOLD)
        yield from _wrapped(lines, console, options)


@dataclass(frozen=True)
class Box:
    """Lines in a frame with a title; no frame where the output is piped."""

    title: str
    lines: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.is_terminal:
            yield Panel(Report([], self.lines), title=self.title, title_align="left")
        else:
            yield Text(self.title)
            yield Report([], self.lines)


def _wrapped(lines: Sequence[str], console: Console, options: ConsoleOptions) -> RenderResult:
    for line in lines:
        wrapped = Text(_plain(line, options.ascii_only)).wrap(console, max(options.max_width - 2, 20))
        for part in wrapped:
            part.rstrip()
        yield Text("\n  ").join(wrapped)  # indented: a line without indentation is a new one


def _fitted(source: Table, console: Console, options: ConsoleOptions) -> RenderResult:
    """A table in the first layout that fits."""
    wide = options.update(width=_UNLIMITED)

    def build(columns: Sequence[int], stacked: bool) -> tuple[RichTable, int]:
        table = _rich_table(source, columns, stacked, options.ascii_only)
        return table, Measurement.get(console, wide, table).maximum

    everything = range(source.num_keys, len(source.headings))
    for stacked in (False, True):
        table, width = build(everything, stacked)
        if width <= options.max_width:
            yield from console.render(table, wide.update(width=width))
            yield Text()
            return
    rest = list(everything)
    while rest:
        count = len(rest)
        while count > 1 and build(rest[:count], False)[1] > options.max_width:
            count -= 1
        table, width = build(rest[:count], False)
        yield from console.render(table, wide.update(width=width))
        yield Text()
        rest = rest[count:]


def _plain(text: str, ascii_only: bool) -> str:
    return text.translate(_ASCII).encode("ascii", "replace").decode() if ascii_only else text


def _rich_table(source: Table, columns: Sequence[int], stacked: bool, ascii_only: bool) -> RichTable:
    """The columns that identify a row, then ``columns``."""
    shown = [*range(source.num_keys), *columns]
    table = RichTable(box=box.HORIZONTALS, pad_edge=False, show_edge=False, collapse_padding=True)
    for index in shown:
        table.add_column(
            Text(_plain(source.headings[index], ascii_only)),
            justify="left" if index == 0 else "right",
            no_wrap=True,
        )
    for section in source.sections:
        table.add_section()
        if section.heading and section.rows:
            table.add_row(Text(_plain(section.heading, ascii_only), style="bold cyan"))
        for row in section.rows:
            table.add_row(*(_cell(row[index], stacked, ascii_only) for index in shown))
    return table


def _cell(cell: Cell, stacked: bool, ascii_only: bool) -> Text:
    text = Text(_plain(cell.text, ascii_only), style="bold" if cell.best else "yellow" if cell.warn else "")
    if cell.interval_text:
        text.append(("\n" if stacked else " ") + cell.interval_text, style="not bold dim")
    return text
