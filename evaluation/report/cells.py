"""Cells and tables, independent of their content and of how they are drawn; formats of rates and means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from evaluation.records import MetricInfo, label_of

MISSING = "–"
BOLD = "Bold: the best mean at that rate among codecs that meet it"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        value: a number or a text; None or NaN without one.
        form: format specification of a number.
        interval: ends of the interval, written like ``value``; None or NaN without one.
        marks: signs before the value, which notes explain.
        best: whether it is the best of the values that compete.
        warn: whether a reader should take notice.
    """

    value: float | str | None
    form: str = ""
    interval: tuple[float | None, float | None] = (None, None)
    marks: str = ""
    best: bool = False
    warn: bool = False

    @property
    def missing(self) -> bool:
        return self.value is None or self.value != self.value

    @property
    def text(self) -> str:
        value = MISSING if self.missing else format(self.value, self.form)
        return " ".join([*self.marks, value])

    @property
    def interval_text(self) -> str:
        """ "[6.92, 7.70]", or nothing."""
        return self._interval(self.form.removeprefix("+"))

    def _interval(self, form: str) -> str:
        known = [end for end in self.interval if end is not None and not math.isnan(end)]
        return f"[{', '.join(format(end, form) for end in known)}]" if len(known) == 2 else ""

    @property
    def order(self) -> str:
        """Sort key of a page: a number, a text, or nothing if the value is missing."""
        if self.missing:
            return ""
        return self.value if isinstance(self.value, str) else repr(float(self.value or 0))


@dataclass(frozen=True)
class Section:
    """Rows under one heading ("16 kbps"), which may be "".

    Attributes:
        kbps: the asked rate of its rows, if they have one.
        text: a note on all its rows.
    """

    heading: str
    rows: list[list[Cell]]
    kbps: float | None = None
    text: str = ""

    @property
    def asked(self) -> Cell:
        return Cell(self.kbps, "g")


@dataclass(frozen=True)
class Table:
    """A table for terminal, Markdown, LaTeX and HTML. The first ``num_keys`` columns identify a row."""

    headings: list[str]
    sections: list[Section]
    title: str = ""
    num_keys: int = 2

    @property
    def has_best(self) -> bool:
        return any(cell.best for section in self.sections for row in section.rows for cell in row)


def kbps_cell(kbps: float | None, marks: str = "", warn: bool = False) -> Cell:
    """A measured rate with two decimals, or one from 100 kbit/s."""
    return Cell(kbps, ".2f" if kbps is None or kbps < 100 else ".1f", marks=marks, warn=warn)


def kbps_text(kbps: float) -> str:
    return kbps_cell(kbps).text


def measured_heading(rates: Sequence[float]) -> str:
    """Heading for measured rates: "7.54 kbps", "7.98 to 8.03 kbps"."""
    ends = [kbps_text(rate) for rate in (min(rates), max(rates))]
    return f"{' to '.join(dict.fromkeys(ends))} kbps"


def rate_heading(kbps: float | None) -> str:
    """Heading for an asked rate."""
    return "no rate asked" if kbps is None else f"{kbps:g} kbps"


def percent(ratio: float) -> str:
    """ "5.4%", "20%"."""
    return f"{100 * ratio:.0f}%" if ratio >= 0.0995 else f"{100 * ratio:.1f}%".replace(".0%", "%")


def row_label(codec: str, kbps: float | None) -> str:
    """`label_of` for a row of a table, whose rate is NaN if none was asked for."""
    return label_of(codec, None if kbps is None or math.isnan(kbps) else kbps)


def heading(metric: MetricInfo) -> str:
    """ "SI-SDR (dB) ↑"."""
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.label}{unit} {'↑' if metric.higher_is_better else '↓'}"


def decimals(means: pd.Series, widths: pd.Series) -> int:
    """Decimals of a column: two significant digits of a typical interval, from two to five decimals.

    Without intervals: three significant digits of the largest mean.
    """
    wide = widths[np.isfinite(widths) & (widths > 0)]
    if len(wide):
        return int(np.clip(1 - math.floor(math.log10(wide.median())), 2, 5))
    sizes = means[np.isfinite(means) & (means != 0)].abs()
    return int(np.clip(2 - math.floor(math.log10(sizes.max())), 2, 5)) if len(sizes) else 2
