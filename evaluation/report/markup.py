"""Tables as Markdown and as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluation.report.cells import BOLD, Cell, Table


def markdown(tables: Sequence[Table], lines: list[str]) -> str:
    """GitHub tables with one row per condition, then the notes as a list."""

    def row(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    def text(cell: Cell) -> str:
        mean = f"**{cell.text}**" if cell.best else _markdown_text(cell.text)
        return f"{mean} {_markdown_text(cell.interval_text)}".strip()

    out = []
    lines = [BOLD, *lines] if any(table.has_best for table in tables) else lines
    for table in tables:
        headings = [_markdown_text(title) for title in table.headings]
        out += [row(headings), row(["---", *["---:"] * (len(table.headings) - 1)])]
        for section in table.sections:
            if section.heading:
                out.append(row([f"**{section.heading}**", *[""] * (len(table.headings) - 1)]))
            out += [row([text(cell) for cell in cells]) for cells in section.rows]
        out.append("")
    return "\n".join([*out, *(f"- {_markdown_text(line)}" for line in lines)]) + "\n"


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
    "±": r"$\pm$",
    "…": r"\ldots{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}


def latex_text(text: str) -> str:
    """Text with all LaTeX commands escaped."""
    unjoined = re.split("(?<=-)(?=-)", " ".join(text.split()))  # LaTeX makes a dash of two hyphens
    return "{}".join(part.translate(str.maketrans(_LATEX)) for part in unjoined)


# Comments are ASCII, with the marks that the table has instead of these signs.
_PLAIN = str.maketrans({"⚠": "*", "†": "dagger:", "×": "x", "–": "-", "…": "...", "↑": "up", "↓": "down"})
#: Metrics side by side in a table over two columns of a page; more metrics go below.
METRICS_PER_TABULAR = 6


def latex(table: Table, caption: str, lines: Sequence[str]) -> str:
    r"""A ``table*`` for ``\usepackage{booktabs}``: the best in bold, intervals as ±, notes in comments.

    Args:
        table: if it is too wide for one ``tabular``, each repeats its first ``num_keys`` columns.
    """
    out = [
        r"% needs \usepackage{booktabs}; over both columns of a page",
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
    ]
    rest = range(table.num_keys, len(table.headings))
    for start in rest[::METRICS_PER_TABULAR]:
        columns = [*range(table.num_keys), *rest[start - table.num_keys :][:METRICS_PER_TABULAR]]
        out += ["", r"\medskip"] if start != rest[0] else []
        out += _compact(table, columns)
    out.append(r"\end{table*}")
    comments = [f"% {' '.join(line.translate(_PLAIN).split())}" for line in lines]
    return "\n".join([*out, *comments]) + "\n"


def _compact(table: Table, columns: Sequence[int]) -> list[str]:
    """A ``tabular`` of these columns with rules between the groups; the rates in the rows name the groups."""

    def text(cell: Cell) -> str:
        low, high = cell.interval
        value = latex_text(cell.text)
        value = rf"\textbf{{{value}}}" if cell.best else value
        if not cell.interval_text or low is None or high is None:
            return value
        return rf"{value} $\pm$ {(high - low) / 2:{cell.form}}"

    out = [
        rf"\begin{{tabular}}{{@{{}}l{'r' * (len(columns) - 1)}@{{}}}}",
        r"\toprule",
        rf"{' & '.join(latex_text(table.headings[index]) for index in columns)} \\",
    ]
    for section in table.sections:
        out.append(r"\midrule")
        out += [rf"{' & '.join(text(row[index]) for index in columns)} \\" for row in section.rows]
    return [*out, r"\bottomrule", r"\end{tabular}"]


def tabular(table: Table, columns: str = "") -> list[str]:
    """Lines of a ``tabular``.

    Args:
        columns: LaTeX's column specification; "" for names at the left and numbers at the right.
    """

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
        if section.text:  # in a box, because a long text would widen the table
            said = rf"\parbox{{0.95\linewidth}}{{\raggedright {said}: {latex_text(section.text)}}}"
        if said:
            out.append(rf"\multicolumn{{{width}}}{{l}}{{{said}}} \\")
        out += [rf"{' & '.join(text(cell) for cell in cells)} \\" for cells in section.rows]
    return [*out, r"\bottomrule", r"\end{tabular}"]
