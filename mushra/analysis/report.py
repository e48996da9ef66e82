"""Write an `Analysis` as files: CSV, JSON, LaTeX, plots and one self-contained HTML page.

The same input and seed give the same bytes: no times, no absolute paths, numbers to ten digits.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evaluation.report.cells import Cell, Section, Table
from evaluation.report.drawing import data_uri, templates
from evaluation.report.markup import latex_text, tabular
from mushra.analysis import wording
from mushra.analysis.description import bounds, caption_beyond
from mushra.analysis.mixed import MixedModel
from mushra.analysis.pipeline import REFERENCE, SYSTEMS, WILCOXON, Analysis
from mushra.analysis.sources import database_name
from mushra.store.php_csv import neutral_cell
from qincodec import __version__
from qincodec.core.errors import count
from qincodec.core.files import file_sha256, write_atomic

SCHEMA_VERSION = 1
_DIGITS = 10
#: A picture whose SVG is larger is embedded as PNG.
_MAX_SVG_BYTES = 1_000_000
#: Limit of rows of items and conditions in the page; items.csv has all.
_MAX_ITEM_ROWS = 1000
_MAX_LISTENER_ROWS = 200


def write_all(
    analysis: Analysis,
    folder: Path,
    *,
    style: str | Path | None = None,
    plots: bool = True,
    captions: bool = False,
    beside: str = "",
    others: Sequence[dict[str, Any]] = (),
) -> list[Path]:
    """Write the results into ``folder``, which is made if needed; other files in it are kept.

    ``conditions.csv, conditions_all.csv, screening.csv, listeners.csv, intervals.csv, items.csv,
    differences.csv, tests.csv, means.csv, contrasts.csv, sensitivity.csv, analysis.json, table.tex,
    report.html`` and ``plots/``.

    Args:
        style: matplotlib style for the plots.
        plots: whether to draw.
        captions: whether figures have their captions inside; the report has them below.
        beside: HTML of the test's other methods for the report (`mushra.analysis.methods.report`).
        others: their results, for ``analysis.json``.

    Returns:
        Paths of all files written.

    Raises:
        UserError: the folder cannot be written, or the style does not exist.
    """
    if plots:
        from mushra.analysis.figures import style_context

        # A wrong style is reported before anything is written.
        with style_context(style):
            pass
    tables = {
        "conditions": analysis.conditions,
        "conditions_all": analysis.conditions_all,
        "screening": analysis.screening.listeners,
        "listeners": analysis.listeners,
        "intervals": analysis.intervals,
        "items": analysis.items,
        "differences": analysis.differences,
        "tests": analysis.tests,
        "means": analysis.primary.means,
        "contrasts": analysis.primary.contrasts,
        "sensitivity": analysis.sensitivity,
    }
    files = {f"{name}.csv": table_csv(table) for name, table in tables.items()}
    sources = [described(source) for source in analysis.loaded.sources]
    files["analysis.json"] = _json(analysis, tables, sources, others)
    files["table.tex"] = latex(analysis)
    paths = []
    for name, content in files.items():
        write_atomic(folder / name, content)
        paths.append(folder / name)
    pictures: list[Path] = []
    if plots:
        from mushra.analysis.plots import draw_all

        letters = analysis.letters or None
        pictures = draw_all(
            analysis.ratings,
            analysis.in_order(analysis.conditions),
            folder / "plots",
            style=style,
            letters=letters,
            population=analysis.primary.population,
            captions=captions,
        )
    write_atomic(folder / "report.html", html(analysis, sources, pictures, beside))
    return [*paths, folder / "report.html", *pictures]


def described(source: str | Path) -> dict[str, str]:
    """Name and hash of a source; the URL of a data base has no hash, and its password is left out."""
    path = Path(source)
    if not path.is_file():
        return {"name": database_name(str(source)), "sha256": ""}
    return {"name": path.name, "sha256": file_sha256(path)}


def table_csv(table: pd.DataFrame) -> str:
    text = io.StringIO()
    table.map(neutral_cell).to_csv(text, index=False, float_format=f"%.{_DIGITS}g", lineterminator="\n")
    return text.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def json_text(content: dict[str, Any]) -> str:
    """JSON with NaN as null and numbers to ten digits, without numpy types."""
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _json(
    analysis: Analysis,
    tables: dict[str, pd.DataFrame],
    sources: list[dict[str, str]],
    others: Sequence[dict[str, Any]],
) -> str:
    loaded = analysis.loaded
    content = {
        "schema_version": SCHEMA_VERSION,
        "program": f"mushra {__version__}",
        "sources": sources,
        "settings": {
            "seed": analysis.seed,
            "num_permutations": analysis.num_permutations,
            "num_resamples": analysis.num_resamples,
        },
        "scale": list(loaded.scale),
        "reference": loaded.reference,
        "anchors": list(loaded.anchors),
        "mid_anchor": loaded.mid_anchor,
        "systems": list(loaded.systems),
        "items": list(loaded.items),
        "n_ratings": len(loaded.frame),
        "not_given": dict(loaded.not_given),
        "problems": [asdict(problem) for problem in loaded.problems],
        "exempt_items": list(analysis.screening.exempt_items),
        "notes": list(analysis.notes),
        "methods": wording.methods(analysis),
        "primary": {
            "method": analysis.primary.method,
            "why": analysis.primary.why,
            "population": analysis.primary.population,
        },
        "letters": analysis.letters,
        "mixed_model": {**asdict(analysis.mixed), "contrasts": _by_pair(analysis.mixed)},
        "tables": {name: table.to_dict("records") for name, table in tables.items()},
        **({"other_methods": list(others)} if others else {}),
    }
    return json_text(content)


def _by_pair(mixed: MixedModel) -> list[dict[str, Any]]:
    return [{"a": a, "b": b, **asdict(difference)} for (a, b), difference in mixed.contrasts.items()]


def latex(analysis: Analysis) -> str:
    r"""A ``table`` for ``\usepackage{booktabs}``: mean with interval, median with quartiles, letters."""
    names = ["condition", "mean", "interval", "median", "quartiles"] + ["letters"] * bool(analysis.letters)
    headings = ["Condition", "Mean", "95 % CI", "Median", "Quartiles", "Groups"][: len(names)]
    rows = [[Cell(row[name]) for name in names] for row in wording.condition_rows(analysis)]
    n = len(analysis.ratings.listeners)
    caption = (
        f"MUSHRA scores of {count(n, 'listener')} on "
        f"{count(len(analysis.ratings.items), 'item')}: means with 95 % confidence intervals over "
        "listeners, medians with quartiles of the ratings."
    )
    caption += caption_beyond(bounds(analysis.conditions, "ci"), analysis.ratings.ends)
    if analysis.letters:
        caption += f" {wording.letters_caption(analysis.primary)}"
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        *tabular(Table(headings, [Section("", rows)]), "lrcrcl"[: len(names)]),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def html(
    analysis: Analysis, sources: list[dict[str, str]], pictures: Sequence[Path], beside: str = ""
) -> str:
    """The report as one page without links to other files; all names in it are escaped.

    Args:
        sources: name and sha256 of each source.
        pictures: files of the plots; SVGs are embedded, or PNGs if an SVG is large.
        beside: HTML of other methods.
    """
    environment = templates("mushra.analysis")
    environment.filters |= {
        "points": wording.points,
        "p": wording.p_value,
        "number": wording.number,
        "share": lambda value: wording.NOTHING if math.isnan(value) else f"{100 * value:.1f} %",
    }
    environment.globals |= {
        "interval": wording.interval,
        "degrees": wording.degrees,
        "count": count,
        "names": wording,
    }
    tests = analysis.tests
    pairs = tests["a"] != ""
    item_rows = analysis.items.to_dict("records")
    listeners = analysis.screening.listeners.merge(analysis.listeners, on="listener").to_dict("records")
    # With many listeners only excluded ones are listed.
    excluded = [row for row in listeners if row["excluded"]]
    shown = listeners if len(listeners) <= _MAX_LISTENER_ROWS else excluded[:_MAX_LISTENER_ROWS]
    return environment.get_template("report.html.j2").render(
        version=__version__,
        analysis=analysis,
        sources=sources,
        methods=wording.methods(analysis),
        conditions=wording.condition_rows(analysis),
        listeners=shown,
        num_listeners=len(listeners),
        num_excluded=len(excluded),
        intervals=analysis.in_order(analysis.intervals).to_dict("records"),
        overall=tests[~pairs].to_dict("records"),
        families=[
            (title, _pair_records(tests[pairs & (tests["family"] == family)]))
            for family, title in (
                (SYSTEMS, "Pairs of systems"),
                (REFERENCE, "Systems against the hidden reference"),
            )
        ],
        differences=analysis.differences[analysis.differences["item"] == ""].to_dict("records"),
        items=item_rows if len(item_rows) <= _MAX_ITEM_ROWS else [],
        num_item_rows=len(item_rows),
        means=analysis.in_order(analysis.primary.means).to_dict("records"),
        contrasts=analysis.primary.contrasts.to_dict("records"),
        sensitivity=analysis.sensitivity.to_dict("records"),
        components=analysis.mixed.components,
        pictures=_embedded(analysis, pictures),
        beside=beside,
    )


def _pair_records(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per pair: Wilcoxon's test with the permutation test beside it."""
    both = pairs[pairs["test"] == WILCOXON].merge(
        pairs[pairs["test"] != WILCOXON], on=["a", "b"], suffixes=("", "_permutation")
    )
    return both.to_dict("records")  # type: ignore[return-value]


_TITLES = {
    "means": "Scores",
    "box": "Quartiles",
    "violin": "Distributions",
    "items": "Items",
    "listeners": "Agreement of the listeners",
}


def _embedded(analysis: Analysis, paths: Sequence[Path]) -> list[dict[str, str]]:
    """Data URIs of the wide version of each picture."""
    from mushra.analysis.plots import caption

    by_stem: dict[str, dict[str, Path]] = {}
    for path in paths:
        by_stem.setdefault(path.stem, {})[path.suffix] = path
    pictures = []
    for stem, formats in by_stem.items():
        if stem.endswith("_one_column"):
            continue
        path = formats.get(".svg", formats[".png"])
        if path.stat().st_size > _MAX_SVG_BYTES:
            path = formats[".png"]
        name = stem.split("_")[0]
        title = _TITLES.get(name, stem)
        if below := caption(name, analysis.ratings, analysis.letters, analysis.primary.population):
            title += f": {'; '.join(below.splitlines())}"
        pictures.append({"title": title, "uri": data_uri(path.suffix[1:], path.read_bytes())})
    return pictures
