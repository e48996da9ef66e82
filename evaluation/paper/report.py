"""The reproduction on the terminal, and as files: LaTeX, HTML, JSON, figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.text import Text

from evaluation.paper import printed as content
from evaluation.paper.figures import draw
from evaluation.paper.listening import OWN_TEST
from evaluation.paper.sheets import Sheet, not_run, sheets
from evaluation.paper.tables import NOT_RUN_HERE, Reproduction
from evaluation.report.drawing import FORMATS, data_uri
from evaluation.report.html.page import fill_in, flat, static
from evaluation.report.markup import latex_text, tabular
from evaluation.report.terminal import Box, Report, print_wide
from qincodec.core.files import write_atomic

SCHEMA_VERSION = 1
PAGE, TABLES, NUMBERS = "paper.html", "tables.tex", "paper.json"


def write_all(found: Reproduction, folder: Path) -> list[Path]:
    """Write all files; return their paths. The same numbers give the same bytes.

    Raises:
        UserError: a file cannot be written.
    """
    source = found.data_note.partition(";")[0]
    pictures = {
        figure.name: draw(figure, OWN_TEST if figure.name == "fig2" else source) for figure in found.figures
    }
    everything = sheets(found)
    contents: dict[str, str | bytes] = {
        NUMBERS: _json(found),
        TABLES: latex(everything, found),
        PAGE: _html(everything, found, pictures),
    }
    contents |= {
        f"{name}.{suffix}": data for name, files in pictures.items() for suffix, data in files.items()
    }
    for name, data in contents.items():
        write_atomic(folder / name, data)
    for name in pictures:
        for suffix in FORMATS:
            if f"{name}.{suffix}" not in contents:
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)  # an earlier call may have left it
    return [folder / name for name in contents]


def _json(found: Reproduction) -> str:
    plain = {**asdict(found), "data": found.data.to_json()}
    for table, source in zip(plain["tables"], found.tables, strict=True):
        for row, original in zip(table["rows"], source.rows, strict=True):
            for name, entry in row["entries"].items():
                entry["difference"] = original.entries[name].difference if found.comparable else None
    document: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "paper": content.CITATION, **plain}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


# Terminal


def print_paper(found: Reproduction) -> None:
    """Print all tables and the numbers of all figures: to the terminal's width there, unwrapped elsewhere."""
    parts: list[RenderableType] = [Report([], [content.CITATION, found.data_note, found.summary]), Text()]
    everything = sheets(found)
    for sheet in (sheet for sheet in everything if sheet.ran):
        parts += _printed(sheet)
    if missing := not_run(found):
        parts += [Box(NOT_RUN_HERE, missing), Text()]
    for sheet in (sheet for sheet in everything if not sheet.ran):
        parts += _printed(sheet)
    print_wide(Group(*parts, Report([], found.notes)))


def _printed(sheet: Sheet) -> list[RenderableType]:
    return [Report([], [f"{sheet.name}. {sheet.title}"]), Report([sheet.table], sheet.notes), Text()]


# LaTeX


def latex(everything: Sequence[Sheet], found: Reproduction) -> str:
    r"""A ``table`` per sheet, for ``\usepackage{booktabs}``, with all notes in the last one."""
    out = [r"% needs \usepackage{booktabs,graphicx}", f"% {content.CITATION}"]
    for sheet in everything:
        out += [
            "",
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{latex_text(f'{sheet.name}: {sheet.title}. Here: {found.data_note}.')}}}",
        ]
        if sheet.figure:
            out.append(rf"\includegraphics[width=0.8\linewidth]{{{sheet.figure}.pdf}}\par\medskip")
        out += [r"\resizebox{\linewidth}{!}{%", *tabular(sheet.table), r"}\par\footnotesize\raggedright"]
        out += [rf"{latex_text(note)}\par" for note in sheet.notes]
        out.append(r"\end{table*}")
    notes = [*(f"{NOT_RUN_HERE}: {line}" for line in not_run(found)), *found.notes]
    out += ["", r"\begin{footnotesize}", *(rf"\noindent {latex_text(note)}\par" for note in notes)]
    return "\n".join([*out, r"\end{footnotesize}"]) + "\n"


# HTML


def _html(everything: Sequence[Sheet], found: Reproduction, pictures: dict[str, dict[str, bytes]]) -> str:
    """The page as one file with its style and pictures."""
    data = {name: value for name, value in found.data.to_json().items() if isinstance(value, str | int)}
    return fill_in(
        "paper.html.j2",
        generator="evaluate paper",
        style=Markup(static("report.css").decode()),
        citation=content.CITATION,
        found=found,
        facts=[(name.replace("_", " "), value) for name, value in flat(data | found.environment)],
        sheets=everything,
        box=(NOT_RUN_HERE, not_run(found)),
        images={name: data_uri("svg", files["svg"]) for name, files in pictures.items() if files},
    )
