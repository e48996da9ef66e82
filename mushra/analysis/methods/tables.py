"""Content of a method's section in a report: paragraphs, tables and a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mushra.analysis.description import beyond
from mushra.analysis.wording import NOTHING

Row = dict[Hashable, Any]
#: A column of a shown table: its heading, and the text of a row.
Column = tuple[str, Callable[[Row], str]]


@dataclass(frozen=True, eq=False)
class Shown:
    """A table.

    Attributes:
        name: name of its CSV file, after that of the method.
        caption: caption of the table.
        frame: all its columns, as in CSV and JSON.
        columns: shown columns; the first ``num_names`` are names, at the left.
        marked: column of the frame that marks important rows.
    """

    name: str
    caption: str
    frame: pd.DataFrame
    columns: Sequence[Column]
    num_names: int = 1
    marked: str = ""

    @property
    def headings(self) -> list[str]:
        return [heading for heading, _ in self.columns]

    def cells(self, most: int | None = None) -> list[list[str]]:
        """At most ``most`` rows as text; if there are more, marked rows come first."""
        frame = self.frame
        if most is not None and len(frame) > most:
            order = frame[self.marked].to_numpy().argsort(kind="stable")[::-1] if self.marked else slice(None)
            frame = frame.iloc[order].head(most)
        return [[text(row) for _, text in self.columns] for row in frame.to_dict("records")]


@dataclass(frozen=True)
class Marks:
    """A figure of means, or of proportions, with intervals.

    Attributes:
        points: name, value, and ends of the interval; values that are not finite are not drawn.
        label: of the axis. limits: where intervals are cut; None fits the axis to the points.
        line: value without an effect, such as 0 or one half; None draws no line.
    """

    points: tuple[tuple[str, float, float, float], ...]
    label: str
    limits: tuple[float, float] | None = None
    line: float | None = None

    @property
    def cut(self) -> bool:
        """Whether an interval reaches beyond the limits."""
        intervals = np.array([(low, high) for _, _, low, high in self.points]).reshape(-1, 2)
        return self.limits is not None and bool(beyond(intervals, self.limits).any())


@dataclass(frozen=True, eq=False)
class Section:
    """A method's part of a report.

    The first table is the main one; ``facts`` are for ``analysis.json`` alone.
    """

    method: str
    title: str
    paragraphs: tuple[str, ...]
    notes: tuple[str, ...]
    tables: tuple[Shown, ...]
    figure: Marks
    facts: Mapping[str, Any] = field(default_factory=dict)


def text(column: str) -> Callable[[Row], str]:
    return lambda row: str(row[column])


def fixed(column: str, digits: int = 2, sign: bool = False) -> Callable[[Row], str]:
    """A number with so many decimals."""
    return lambda row: _fixed(row[column], digits, sign)


def span(low: str, high: str, digits: int = 2) -> Callable[[Row], str]:
    """The interval between two columns."""
    return lambda row: between(row[low], row[high], digits)


def between(low: float, high: float, digits: int = 2) -> str:
    if math.isnan(low) or math.isnan(high):
        return NOTHING
    return f"{_fixed(low, digits, False)} to {_fixed(high, digits, False)}"


def share(column: str) -> Callable[[Row], str]:
    return lambda row: percent(row[column])


def share_span(low: str, high: str) -> Callable[[Row], str]:
    return lambda row: NOTHING if math.isnan(row[low]) else f"{100 * row[low]:.1f} to {100 * row[high]:.1f} %"


def percent(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{100 * value:.1f} %"


def whole(column: str) -> Callable[[Row], str]:
    """A count, which may be a half."""
    return lambda row: f"{row[column]:g}"


def _fixed(value: float, digits: int, sign: bool) -> str:
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
