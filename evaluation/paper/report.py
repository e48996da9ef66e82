"""The reproduction on the terminal and as files: LaTeX, HTML, JSON, figures."""

from __future__ import annotations

import base64
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from evaluation.paper import printed as content
from evaluation.paper.figures import draw
from evaluation.paper.listening import OWN_TEST
from evaluation.paper.sheets import Line, Sheet, figure_sheet, table_sheet
from evaluation.paper.tables import Reproduction
from evaluation.report.markup import latex_text
from qincodec.core.files import write_atomic

SCHEMA_VERSION = 1
PAGE, TABLES, NUMBERS = "paper.html", "tables.tex", "paper.json"
_SUFFIXES = ("png", "svg", "pdf")
_ASCII = str.maketrans({"↑": "(up)", "↓": "(down)", "–": "-"})


def sheets(found: Reproduction) -> list[Sheet]:
    """All tables, then all figures."""
    return [*map(table_sheet, found.tables), *map(figure_sheet, found.figures)]


def write_all(found: Reproduction, folder: Path) -> list[Path]:
    """Write all files; returns their paths. The same bytes for the same numbers.

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
        for suffix in _SUFFIXES:
            if f"{name}.{suffix}" not in contents:
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)  # of an earlier call
    return [folder / name for name in contents]


def _json(found: Reproduction) -> str:
    plain = asdict(found)
    for table, source in zip(plain["tables"], found.tables, strict=True):
        for row, original in zip(table["rows"], source.rows, strict=True):
            for name, entry in row["entries"].items():
                entry["difference"] = original.entries[name].difference
    document: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "paper": content.CITATION, **plain}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


# Terminal


def print_paper(found: Reproduction, file: IO[str] | None = None) -> None:
    """Print all tables and the numbers of all figures: to the terminal's width there, unwrapped elsewhere."""
    from rich.console import Console

    file = file or sys.stdout
    console = Console(file=file, highlight=False)
    width = console.width if console.is_terminal else 10_000
    lines = [
        part for text in (content.CITATION, found.data_note, found.summary) for part in _wrapped(text, width)
    ]
    lines.append("")
    for sheet in sheets(found):
        lines += [*text_sheet(sheet, width), ""]
    lines += [part for note in found.notes for part in _wrapped(note, width)]
    text = "\n".join(lines) + "\n"
    if "utf" not in (getattr(file, "encoding", None) or "utf-8").lower():
        text = text.translate(_ASCII).encode("ascii", "replace").decode()
    file.write(text)


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, max(width, 20), initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
    )


def text_sheet(sheet: Sheet, width: int) -> list[str]:
    """A sheet as lines of text; one that is too wide as several blocks that repeat the labels."""
    rows = [line for line in sheet.lines if line.cells]
    columns = len(sheet.headings) - 1
    first = max([len(sheet.headings[0]), *(len(line.label) + 2 for line in sheet.lines if line.cells)])
    widths = (
        [
            max(len(sheet.headings[index + 1]), *(len(line.cells[index]) for line in rows))
            for index in range(columns)
        ]
        if rows
        else []
    )
    out = _wrapped(f"{sheet.name}. {sheet.title}", width)
    begin = 0
    while begin < len(widths):
        end, used = begin + 1, first + 2 + widths[begin]
        while end < len(widths) and used + 2 + widths[end] <= width:
            used += 2 + widths[end]
            end += 1
        out += _block(sheet, first, widths, begin, end, width)
        begin = end
    if not widths:
        out += [part for line in sheet.lines for part in _spanning(line, width)]
    return out + [part for note in sheet.notes for part in _wrapped(note, width, "  ")]


def _block(sheet: Sheet, first: int, widths: Sequence[int], begin: int, end: int, width: int) -> list[str]:
    def joined(label: str, cells: Sequence[str]) -> str:
        parts = (f"{cell:>{wide}}" for cell, wide in zip(cells[begin:end], widths[begin:end], strict=True))
        return "  ".join([f"{label:<{first}}", *parts]).rstrip()

    out = [joined(sheet.headings[0], sheet.headings[1:])]
    out.append("-" * (first + sum(2 + wide for wide in widths[begin:end])))
    for line in sheet.lines:
        if line.cells:
            if any(line.cells[begin:end]):
                out.append(joined(f"  {line.label}", line.cells))
        elif begin == 0:
            out += _spanning(line, width)
        elif line.kind == "head":
            out.append(line.label)
    return out


def _spanning(line: Line, width: int) -> list[str]:
    if line.kind == "head":
        return _wrapped(f"{line.label}: {line.text}" if line.text else line.label, width)
    return _wrapped(f"{line.label}: {line.text}", width, "  ")


# LaTeX


def latex(everything: Sequence[Sheet], found: Reproduction) -> str:
    r"""A ``table`` per sheet, for ``\usepackage{booktabs}``, with all notes in the last one."""
    out = [r"% needs \usepackage{booktabs,graphicx}", f"% {content.CITATION}"]
    for sheet in everything:
        width = len(sheet.headings)
        out += [
            "",
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{latex_text(f'{sheet.name}: {sheet.title}. Here: {found.data_note}.')}}}",
        ]
        if sheet.figure:
            out.append(rf"\includegraphics[width=0.8\linewidth]{{{sheet.figure}.pdf}}\par\medskip")
        out += [
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
            r"\toprule",
            rf"{' & '.join(latex_text(title) for title in sheet.headings)} \\",
        ]
        out += [_latex_line(line, width) for line in sheet.lines]
        out += [r"\bottomrule", r"\end{tabular}}", r"\par\footnotesize\raggedright"]
        out += [rf"{latex_text(note)}\par" for note in sheet.notes]
        out.append(r"\end{table*}")
    out += ["", r"\begin{footnotesize}", *(rf"\noindent {latex_text(note)}\par" for note in found.notes)]
    return "\n".join([*out, r"\end{footnotesize}"]) + "\n"


def _latex_line(line: Line, width: int) -> str:
    if line.cells:
        return rf"\quad {latex_text(line.label)} & {' & '.join(latex_text(cell) for cell in line.cells)} \\"
    label = (
        rf"\emph{{{latex_text(line.label)}}}" if line.kind == "head" else rf"\quad {latex_text(line.label)}"
    )
    text = f": {latex_text(line.text)}" if line.text else ""
    # A long reason must not widen the table.
    box = rf"\multicolumn{{{width}}}{{l}}{{\parbox{{0.95\linewidth}}{{\raggedright {label}{text}}}}} \\"
    return rf"\midrule {box}" if line.kind == "head" else box


# HTML


def _html(everything: Sequence[Sheet], found: Reproduction, pictures: dict[str, dict[str, bytes]]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("evaluation.paper", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    images = {
        name: "data:image/svg+xml;base64," + base64.b64encode(files["svg"]).decode()
        for name, files in pictures.items()
        if files
    }
    return environment.get_template("paper.html.j2").render(
        citation=content.CITATION, found=found, sheets=everything, images=images
    )
