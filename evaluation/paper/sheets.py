"""The paper's tables and the numbers of its figures, as tables for `evaluation.report`."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from evaluation.paper.printed import Column
from evaluation.paper.tables import Entry, PaperFigure, PaperTable, Point, Reproduction, Row
from evaluation.report.cells import MISSING, Cell, Section, Table, decimals, kbps_cell

NOT_RUN = "not run"
FIGURE_LOST = f"paper: {MISSING} (our copy does not have the data of its figures)"
_NOTHING = Cell("")


@dataclass(frozen=True)
class Sheet:
    """A table, or the numbers of a figure.

    Attributes:
        missing: (part that could not run, reason).
        ran: whether a part of it was computed here.
        figure: the name of its picture; "" if there is none.
    """

    name: str
    title: str
    table: Table
    notes: list[str]
    missing: list[tuple[str, str]]
    ran: bool
    figure: str = ""


def sheets(found: Reproduction) -> list[Sheet]:
    """Tables, then figures; last, those with only the paper's values."""
    shown = (sheet for sheet in _all(found) if sheet.table.sections)
    return sorted(shown, key=lambda sheet: not sheet.ran)


def not_run(found: Reproduction) -> list[str]:
    """Each reason once, with the parts that could not run and their tables or figures."""
    places: dict[str, dict[str, list[str]]] = {}
    for sheet in _all(found):
        for label, reason in sheet.missing:
            places.setdefault(reason, {}).setdefault(label, []).append(sheet.name)
    lines = []
    for reason, labels in places.items():
        what = "; ".join(f"{label} ({', '.join(names)})" for label, names in labels.items())
        lines.append(f"{what}: {reason}")
    return lines


def _all(found: Reproduction) -> list[Sheet]:
    tables = [table_sheet(table, found.comparable) for table in found.tables]
    return [*tables, *map(figure_sheet, found.figures)]


def table_sheet(table: PaperTable, differences: bool) -> Sheet:
    """A section for each row of the paper, those that ran first. Its lines are the values here, at half the
    data, in the paper and, with ``differences``, the differences."""
    headings = ["", "kbps", *(column.heading for column in table.columns), "n"]
    rows = sorted(table.rows, key=lambda row: bool(row.reason))
    sections = [_section(row, table.columns, differences) for row in rows]
    return Sheet(
        f"Table {table.name}",
        table.title,
        Table(headings, [section for section in sections if section.rows]),
        table.notes,
        [(row.wanted.label, row.reason) for row in table.rows if row.reason] + table.missing,
        any(not row.reason for row in table.rows),
    )


def _section(row: Row, columns: list[Column], with_differences: bool) -> Section:
    entries = [row.entries[column.key] for column in columns]
    forms = [_form(entry, column) for entry, column in zip(entries, columns, strict=True)]

    def line(label: str, values: list[float | None], sign: str = "", kbps: Cell = _NOTHING) -> list[Cell]:
        cells = (Cell(value, sign + form) for value, form in zip(values, forms, strict=True))
        return [Cell(label), kbps, *cells, _NOTHING]

    lines = []
    if not row.reason:
        values = [
            Cell(entry.value, form, (entry.low, entry.high)) if entry.ran else Cell(NOT_RUN)
            for entry, form in zip(entries, forms, strict=True)
        ]
        count = Cell(f"{row.n} ({row.n_failed} failed)", warn=True) if row.n_failed else Cell(row.n)
        lines.append([Cell("here"), kbps_cell(row.kbps_measured), *values, count])
        halves = [entry.half for entry in entries]
        if any(half is not None for half in halves):
            cells = line("at n/2", halves)
            lines.append([_NOTHING if cell.value is None else cell for cell in cells])
    papers = [entry.paper for entry in entries]
    known = any(paper is not None for paper in papers)
    if known or lines:
        lines.append(line("paper", papers, kbps=Cell(row.kbps if known else None, "g")))
    differences = [entry.difference for entry in entries]
    if with_differences and any(difference is not None for difference in differences):
        lines.append(line("difference", differences, sign="+"))
    return Section(row.wanted.label, lines, row.kbps, row.model)


def _form(estimate: Entry | Point, column: Column | None = None) -> str:
    """Format with the decimals of the paper, or with decimals that fit the interval."""
    if column is not None and column.decimals is not None:
        return f".{column.decimals}f"
    value, low, high = pd.Series([estimate.value, estimate.low, estimate.high], dtype=float)
    return f".{decimals(pd.Series([value]), pd.Series([high - low]))}f"


def figure_sheet(figure: PaperFigure) -> Sheet:
    """The numbers of a figure, and its missing parts."""
    most = max((len(series.points) for series in figure.series), default=0)
    headings = {
        "fig2": ["", "condition", "value", "n"],
        "fig3": ["codebook", *map(str, range(1, most + 1)), "n"],
        "fig4": ["", "asked kbps", "measured kbps", "value", "n"],
    }[figure.name]
    sections = []
    for panel in dict.fromkeys(series.panel for series in figure.series):
        rows = []
        for series in figure.series:
            if series.panel != panel:
                continue
            label = Cell(series.label)
            if figure.name == "fig3":
                values = [Cell(point.value, ".0f") for point in series.points]
                blank = [_NOTHING] * (most - len(values))
                rows.append([label, *values, *blank, Cell(series.points[0].n)])
                continue
            for point in series.points:
                place = Cell(point.x) if isinstance(point.x, str) else kbps_cell(point.x)
                asked = [Cell(point.asked, "g")] if figure.name == "fig4" else []
                value = Cell(point.value, _form(point), (point.low, point.high))
                rows.append([label, *asked, place, value, Cell(point.n)])
        sections.append(Section(panel, rows))
    return Sheet(
        f"Fig. {figure.name.removeprefix('fig')}",
        figure.title,
        Table(headings, sections, num_keys=1 if figure.name == "fig3" else 2),
        [FIGURE_LOST, *figure.notes],
        figure.missing,
        bool(figure.series),
        figure.name if figure.series else "",
    )
