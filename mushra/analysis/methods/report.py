"""Write a `MethodsAnalysis` as files: CSV, JSON, LaTeX, figures and one HTML page.

If a test also has MUSHRA pages, one report has all: MUSHRA's report with a section for each other method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from evaluation.report.cells import Cell, Table
from evaluation.report.cells import Section as Rows
from evaluation.report.drawing import data_uri, templates
from evaluation.report.markup import latex_text, tabular
from mushra.analysis import report
from mushra.analysis.methods.pipeline import MethodsAnalysis
from mushra.analysis.methods.tables import Section
from mushra.analysis.pipeline import Analysis
from qincodec import __version__
from qincodec.core.files import write_atomic

#: Limit of rows of a table that the page shows.
_MOST_ROWS = 200


def write_all(
    analysis: MethodsAnalysis,
    folder: Path,
    *,
    mushra: Analysis | None = None,
    style: str | Path | None = None,
    plots: bool = True,
    captions: bool = False,
) -> list[Path]:
    """Write the results into ``folder``, which is made if needed; other files in it are kept.

    Each method has ``METHOD_TABLE.csv``, ``METHOD.tex`` and ``plots/METHOD.*``; ``analysis.json`` and
    ``report.html`` are for all.

    Args:
        mushra: analysis of the same test's MUSHRA pages; its files are also written, with one report for all.
        style: matplotlib style for the plots.
        plots: whether to draw.
        captions: whether MUSHRA's figures have their captions inside.

    Returns:
        Paths of all files written.

    Raises:
        UserError: the folder cannot be written, or the style does not exist.
    """
    if plots:
        from mushra.analysis.figures import check_style

        check_style(style)
    sections = analysis.sections
    files = {}
    for section in sections:
        for shown in section.tables:
            files[f"{section.method}_{shown.name}.csv"] = report.table_csv(shown.frame)
        files[f"{section.method}.tex"] = latex(section)
    paths = []
    for name, content in files.items():
        write_atomic(folder / name, content)
        paths.append(folder / name)
    pictures: dict[str, list[Path]] = {section.method: [] for section in sections}
    if plots:
        from mushra.analysis.methods.figures import draw

        for section in sections:
            pictures[section.method] = draw(section.figure, folder / "plots", section.method, style=style)
    paths += [path for drawn in pictures.values() for path in drawn]
    content = fragment(analysis, sections, pictures, mushra)
    others = [_facts(section) for section in sections]
    if mushra is not None:
        own = report.write_all(
            mushra, folder, style=style, plots=plots, captions=captions, beside=content, others=others
        )
        return [*own, *paths]
    sources = [report.described(source) for source in analysis.judgements.sources]
    whole = {
        "schema_version": report.SCHEMA_VERSION,
        "program": f"mushra {__version__}",
        "sources": sources,
        "settings": {"seed": analysis.seed},
        "problems": [asdict(problem) for problem in analysis.problems],
        "other_methods": others,
    }
    write_atomic(folder / "analysis.json", report.json_text(whole))
    page = templates("mushra.analysis").get_template("methods_report.html.j2")
    html = page.render(
        titles="; ".join(section.title for section in sections),
        content=content,
        version=__version__,
        seed=analysis.seed,
        sources=sources,
    )
    write_atomic(folder / "report.html", html)
    return [folder / "report.html", folder / "analysis.json", *paths]


def fragment(
    analysis: MethodsAnalysis,
    sections: Sequence[Section],
    pictures: Mapping[str, Sequence[Path]],
    mushra: Analysis | None = None,
) -> Markup:
    """The sections of a report; every name in them is escaped."""
    in_mushra = set() if mushra is None else set(mushra.loaded.problems)
    uris = {
        method: [data_uri("svg", path.read_bytes()) for path in paths if path.name == f"{method}.svg"]
        for method, paths in pictures.items()
    }
    return Markup(
        templates("mushra.analysis")
        .get_template("methods.html.j2")
        .render(
            sections=sections,
            pictures=uris,
            problems=[problem for problem in analysis.problems if problem not in in_mushra],
            beside_mushra=mushra is not None,
            most_rows=_MOST_ROWS,
        )
    )


def _facts(section: Section) -> dict[str, Any]:
    return {
        "method": section.method,
        "title": section.title,
        "methods": list(section.paragraphs),
        "notes": list(section.notes),
        **section.facts,
        "tables": {shown.name: shown.frame.to_dict("records") for shown in section.tables},
    }


def latex(section: Section) -> str:
    r"""The main table of a method, for ``\usepackage{booktabs}``."""
    shown = section.tables[0]
    rows = [[Cell(text) for text in row] for row in shown.cells()]
    columns = "l" * shown.num_names + "r" * (len(shown.headings) - shown.num_names)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(f'{section.title}. {shown.caption}')}}}",
        *tabular(Table(shown.headings, [Rows("", rows)]), columns),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def summary(analysis: MethodsAnalysis) -> str:
    """The main tables for a terminal."""
    return "\n\n".join(_plain_table(section) for section in analysis.sections)


def _plain_table(section: Section) -> str:
    shown = section.tables[0]
    rows = [shown.headings, *shown.cells()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([section.title, *lines])
