"""Tables as Markdown and as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluation.report.tables import BOLD, Cell, Table


def markdown(tables: Sequence[Table], lines: list[str]) -> str:
    """GitHub tables, one row per condition, the notes as a list below."""

    def row(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    def text(cell: Cell) -> str:
        mean = f"**{cell.text}**" if cell.best else _markdown_text(cell.text)
        return f"{mean} {_markdown_text(cell.interval_text)}".strip()

    out = []
    for table in tables:
        headings = [_markdown_text(title) for title in table.headings]
        out += [row(headings), row(["---", *["---:"] * (len(table.headings) - 1)])]
        for section in table.sections:
            out.append(row([f"**{section.heading}**", *[""] * (len(table.headings) - 1)]))
            out += [row([text(cell) for cell in cells]) for cells in section.rows]
        out.append("")
    return "\n".join([*out, *(f"- {_markdown_text(line)}" for line in [BOLD, *lines])]) + "\n"


def _markdown_text(text: str) -> str:
    for sign in "\\`*_|<>#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


_LATEX: dict[str, str | int | None] = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "×": r"$\times$",
    "⚠": r"$\ast$",
    "†": r"$\dagger$",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}


def latex_text(text: str) -> str:
    """Text with everything escaped that LaTeX would take as a command."""
    unjoined = re.split("(?<=-)(?=-)", " ".join(text.split()))  # of two hyphens it would make a dash
    return "{}".join(part.translate(str.maketrans(_LATEX)) for part in unjoined)


def latex(tables: Sequence[Table], lines: list[str], name: str) -> str:
    r"""A ``table`` for ``\usepackage{booktabs}``: the best values in bold, the notes below."""
    out = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{Codecs on {latex_text(name)}. {BOLD}.}}",
    ]
    for table in tables:
        out += [*tabular(table), "", r"\medskip"]
    out.append(r"\footnotesize\raggedright")
    out += [rf"{latex_text(line)}\par" for line in lines]
    return "\n".join([*out, r"\end{table}"]) + "\n"


def tabular(table: Table, columns: str = "") -> list[str]:
    """Lines of a ``tabular`` whose columns are ``columns``; "": names at the left, numbers at the right."""

    def text(cell: Cell) -> str:
        mean = latex_text(cell.text)
        mean = rf"\textbf{{{mean}}}" if cell.best else mean
        interval = latex_text(cell.interval_text)
        return rf"{mean} {{\scriptsize {interval}}}" if interval else mean

    width = len(table.headings)
    out = [
        rf"\begin{{tabular}}{{{columns or 'l' + 'r' * (width - 1)}}}",
        r"\toprule",
        rf"{' & '.join(latex_text(title) for title in table.headings)} \\",
    ]
    for section in table.sections:
        out.append(r"\midrule")
        said = rf"\emph{{{latex_text(section.heading)}}}" if section.heading else ""
        if section.text:  # long: it must not widen the table
            said = rf"\parbox{{0.95\linewidth}}{{\raggedright {said}: {latex_text(section.text)}}}"
        if said:
            out.append(rf"\multicolumn{{{width}}}{{l}}{{{said}}} \\")
        out += [rf"{' & '.join(text(cell) for cell in cells)} \\" for cells in section.rows]
    return [*out, r"\bottomrule", r"\end{tabular}"]
