"""Tables and figures as lines of text cells: what the terminal, LaTeX and HTML all show."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from evaluation.paper.printed import Column
from evaluation.paper.tables import Entry, PaperFigure, PaperTable, Row, Series
from evaluation.report.tables import MISSING, decimals, kbps_text

NOT_RUN = "not run"
FIGURE_LOST = f"paper: {MISSING} (the data of its figures are lost in our copy)"


@dataclass(frozen=True)
class Line:
    """A line of a sheet: cells below the headings, or a text across all of them.

    Attributes:
        kind: "head" begins a row of the paper, "here", "interval", "half", "paper" and "difference" are its
            lines, "missing" says why it was not run.
    """

    kind: str
    label: str
    cells: list[str]
    text: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table, or the numbers of a figure; ``figure``: the name of its picture, "" if there is none."""

    name: str
    title: str
    headings: list[str]
    lines: list[Line]
    notes: list[str]
    figure: str = ""


def table_sheet(table: PaperTable) -> Sheet:
    """Each row of the paper as lines: here, its interval, the paper, the difference."""
    headings = ["", "kbps", *(column.heading for column in table.columns), "n"]
    lines = [line for row in table.rows for line in _row_lines(row, table.columns)]
    return Sheet(f"Table {table.name}", table.title, headings, lines, table.notes)


def _row_lines(row: Row, columns: list[Column]) -> list[Line]:
    entries = [(row.entries[column.key], column) for column in columns]
    lines = [Line("head", row.wanted.label, [], row.model)]
    if row.reason:
        lines.append(Line("missing", "here", [], f"{NOT_RUN}: {row.reason}"))
    else:
        measured = math.nan if row.kbps_measured is None else row.kbps_measured
        count = f"{row.n}" + (f" ({row.n_failed} failed)" if row.n_failed else "")
        values = [_text(entry, entry.value, column) if entry.ran else NOT_RUN for entry, column in entries]
        lines.append(Line("here", "here", [kbps_text(measured), *values, count]))
        intervals = [_interval(entry, column) for entry, column in entries]
        if any(intervals):
            lines.append(Line("interval", "95% interval", ["", *intervals, ""]))
        if any(entry.half is not None for entry, _ in entries):
            halves = [
                "" if entry.half is None else _text(entry, entry.half, column) for entry, column in entries
            ]
            lines.append(Line("half", "at n/2", ["", *halves, ""]))
    lines.append(_paper_line(row, entries))
    if any(entry.difference is not None for entry, _ in entries):
        differences = [
            MISSING if entry.difference is None else _text(entry, entry.difference, column, sign="+")
            for entry, column in entries
        ]
        lines.append(Line("difference", "difference", ["", *differences, ""]))
    return lines


def _paper_line(row: Row, entries: list[tuple[Entry, Column]]) -> Line:
    known = any(entry.paper is not None for entry, _ in entries)
    values = [
        MISSING if entry.paper is None else _text(entry, entry.paper, column) for entry, column in entries
    ]
    return Line("paper", "paper", [f"{row.kbps:g}" if known else MISSING, *values, ""])


def _places(entry: Entry, column: Column) -> int:
    if column.decimals is not None:
        return column.decimals
    value = math.nan if entry.value is None else entry.value
    width = math.nan if entry.low is None or entry.high is None else entry.high - entry.low
    return decimals(pd.Series([value]), pd.Series([width]))


def _text(entry: Entry, value: float | None, column: Column, sign: str = "") -> str:
    return MISSING if value is None else f"{value:{sign}.{_places(entry, column)}f}"


def _interval(entry: Entry, column: Column) -> str:
    if entry.low is None or entry.high is None:
        return ""
    places = _places(entry, column)
    return f"[{entry.low:.{places}f}, {entry.high:.{places}f}]"


def figure_sheet(figure: PaperFigure) -> Sheet:
    """The numbers of a figure, and what is not in it."""
    if figure.name == "fig3":
        headings, lines = _codebook_lines(figure.series)
    else:
        x = "condition" if figure.name == "fig2" else "kbps"
        headings = ["", x, "value", "95% interval", "n"]
        lines = [line for series in figure.series for line in _point_lines(series)]
    lines += [Line("missing", label, [], f"{NOT_RUN}: {reason}") for label, reason in figure.missing]
    picture = figure.name if figure.series else ""
    return Sheet(
        f"Fig. {figure.name.removeprefix('fig')}",
        figure.title,
        headings,
        lines,
        [FIGURE_LOST, *figure.notes],
        picture,
    )


def _codebook_lines(series: list[Series]) -> tuple[list[str], list[Line]]:
    most = max((len(entry.points) for entry in series), default=0)
    lines: list[Line] = []
    for panel in dict.fromkeys(entry.panel for entry in series):
        lines.append(Line("head", panel, []))
        for entry in series:
            if entry.panel == panel:
                cells = [f"{point.value:.0f}" for point in entry.points] + [""] * (most - len(entry.points))
                lines.append(Line("here", entry.label, [*cells, f"{entry.points[0].n}"]))
    return ["codebook", *map(str, range(1, most + 1)), "n"], lines


def _point_lines(series: Series) -> list[Line]:
    lines = [Line("head", series.panel, [], series.label)]
    for point in series.points:
        known = point.low is not None and point.high is not None
        width = point.high - point.low if point.low is not None and point.high is not None else math.nan
        places = decimals(pd.Series([point.value]), pd.Series([width]))
        interval = f"[{point.low:.{places}f}, {point.high:.{places}f}]" if known else MISSING
        x = point.x if isinstance(point.x, str) else kbps_text(point.x)
        count = MISSING if point.n is None else f"{point.n}"
        label = "here" if point.asked is None else f"{point.asked:g} kbps asked"
        lines.append(Line("here", label, [x, f"{point.value:.{places}f}", interval, count]))
    return lines
