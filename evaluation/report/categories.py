"""Tables and curves of each category of a data set (`evaluation.results.Results.categories`)."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from evaluation.report.cells import Cell, Table, decimals, heading
from evaluation.report.tables import metric_cell, rate_cell, rate_sections
from evaluation.results import MAX_CATEGORIES, Results
from qincodec.core.errors import count

#: A terminal does not show more columns well.
MAX_COLUMNS = 8
_ALL = "summary_by_category.csv and the HTML report"


@dataclass(frozen=True)
class Category:
    """One category: its name to show, and its results."""

    name: str
    results: Results

    @property
    def text(self) -> str:
        """ "speech: 3 clips of 2 recordings"."""
        clips = self.results.clips.drop_duplicates("clip")
        return (
            f"{self.name}: {count(len(clips), 'clip')} of {count(clips['recording'].nunique(), 'recording')}"
        )


def categories(results: Results) -> list[Category]:
    return [Category(name or "no category", part) for name, part in results.categories.items()]


def category_frame(results: Results) -> pd.DataFrame:
    """The summaries of all categories below each other, for ``summary_by_category.csv``."""
    parts = [part.summary.assign(category=name) for name, part in results.categories.items()]
    if not parts:
        return pd.DataFrame()
    frame = pd.concat(parts, ignore_index=True)
    return frame[["category", *frame.columns.drop("category")]]


def category_table(results: Results, summary: pd.DataFrame) -> Table | None:
    """The first metric of every condition, with a column per category; None without categories, or with more
    than `MAX_COLUMNS`.

    The rates are those of all clips, as in the main table.
    """
    metric = next((metric for metric in results.clip_metrics if not metric.embedding), None)
    parts = [part.results for part in categories(results)]
    if metric is None or not 0 < len(parts) <= MAX_COLUMNS:
        return None
    tables = [part.summary for part in parts]
    ends = pd.concat([table[~table["control"].astype(bool)] for table in tables])
    rows = [dict(table.iterrows()) for table in tables]
    places = decimals(ends[metric.name], ends[f"{metric.name}_ci_high"] - ends[f"{metric.name}_ci_low"])

    def cells(row: pd.Series, _: set[str]) -> list[Cell]:
        own = zip(parts, rows, strict=True)
        values = [metric_cell(part, of[row.name], metric, places, best=False) for part, of in own]
        return [Cell(row["codec"]), rate_cell(row), *values]

    headings = ["codec", "kbps", *(part.name for part in categories(results))]
    sections = rate_sections(results, summary, [], cells)
    return Table(headings, sections, f"{heading(metric)} by category")


def category_note(results: Results) -> str | None:
    """A note on `category_table`, or why there is no table; None without categories."""
    found = categories(results)
    if not found:
        different = results.clips["category"].nunique()
        if different <= MAX_CATEGORIES:
            return None
        at_most = f"{different} categories, too many for tables (at most {MAX_CATEGORIES})"
        return f"{at_most}; a manifest can group them"
    if len(found) > MAX_COLUMNS:
        return f"By category ({len(found)}), every metric: {_ALL}"
    metric = next((metric for metric in results.clip_metrics if not metric.embedding), None)
    # Semicolons, because a user's category may have a comma.
    clips = "; ".join(f"{part.name} {part.results.clips['clip'].nunique()}" for part in found)
    shown = f"{metric.label}, mean [95% interval over recordings], n = " if metric else "n = "
    return f"By category: {shown}{clips}. Every metric: {_ALL}"
