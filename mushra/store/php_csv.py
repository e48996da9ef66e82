"""CSV as PHP writes it.

Text that a spreadsheet would read as a formula gets an apostrophe in front. Text that begins with such an
apostrophe gets one, too, so that a reader can remove it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


def neutral(text: str) -> str:
    """``text`` so that spreadsheets do not read it as a formula; numbers are unchanged."""
    if re.match(r"'*[=+\-@\t\r\n\uff0b\uff0d\uff1d\uff20]", text) and not _is_number(text):
        return f"'{text}"
    return text


def neutral_cell(value: object) -> object:
    """`neutral` for the cells of a table, which may be numbers."""
    return neutral(value) if isinstance(value, str) else value


def original(cell: str) -> str:
    """The text before `neutral`."""
    return cell[1:] if cell.startswith("'") and neutral(cell[1:]) == cell else cell


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?", text) is not None


def csv_text(rows: Iterable[Iterable[str]]) -> str:
    """CSV as PHP's ``fputcsv`` writes it: fields with blanks, commas, quotes or backslashes in quotes."""
    return "".join(",".join(_field(neutral(cell)) for cell in row) + "\n" for row in rows)


def _field(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if re.search(r'[,"\\\n\r\t ]', cell) else cell


def number_text(value: float | None) -> str:
    """A number with all its digits, an integer without a decimal point; "" for None."""
    if value is None:
        return ""
    number = float(value)
    return str(int(number)) if number.is_integer() else repr(number)
