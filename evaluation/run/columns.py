"""Rows in columns, which take a fifth of the memory of their lines and are read by the million in seconds.

The log of rows on the disk (`evaluation.run.store`) is authoritative; this is one process's copy of it. Kinds
with a row per clip are typed columns, with texts as whole numbers. Other kinds, and rows whose key is not a
hash, are kept as lines.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import numpy as np

from evaluation.rows import CodedRow, FramesRow, Row, ScoreRow, read_row, read_rows
from evaluation.run.keys import SIZE, Keys
from qincodec.core.files import fitting, safe_name

R = TypeVar("R", bound=Row)

# Columns by the type of their values, and their values for None.
_TEXTS, _WHOLE, _REAL = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.float64)
_NO_TEXT, _NO_NUMBER = -1, np.iinfo(np.int64).min
_Dtypes = dict[str, np.dtype[Any]]
_OF_CLIPS: _Dtypes = {"codec": _TEXTS, "rate": _TEXTS, "clip": _TEXTS, "error": _TEXTS}
_CODED: _Dtypes = {
    **_OF_CLIPS,
    **dict.fromkeys(("duration_s", "gain_db", "encode_s", "decode_s", "reference_dbfs"), _REAL),
    **dict.fromkeys(("bytes", "delay", "codebooks", "offset"), _WHOLE),
    **dict.fromkeys(("encoded", "note"), _TEXTS),
}
_SCORES: _Dtypes = {**_OF_CLIPS, "metric": _TEXTS, "delay": _WHOLE, "value": _REAL, "reason": _TEXTS}
_FRAMES: _Dtypes = {
    **dict.fromkeys(("embedding", "file", "error"), _TEXTS),
    **dict.fromkeys(("offset", "frames", "dim", "silent", "crc32"), _WHOLE),
}
#: Fields whose NaN is a value, not None.
_NAN = ("value", "duration_s")
#: Kinds of rows by number; 0: rows that are kept as lines; 255: rows that others have replaced.
_KINDS: list[tuple[type[Row], _Dtypes]] = [
    (CodedRow, _CODED),
    (ScoreRow, _SCORES),
    (FramesRow, _FRAMES),
]
_LINE, _REPLACED = 0, 255
#: Value for the usual place of an encoded clip.
_USUAL = ""
# Number of new rows, or their share of all, that are kept as lines before they become columns.
_FEW, _SHARE = 2**14, 1 / 16

_safe_name = cache(safe_name)
_is_hash = re.compile(f"[0-9a-f]{{{2 * SIZE}}}").fullmatch


def encoded_folder(point: str) -> str:
    """Folder of the encoded clips of an operating point (`Condition.point`), below the run folder."""
    return f"encoded/{_safe_name(point)}"


def encoded_file(point: str, clip: str) -> str:
    """File of an encoded clip with a file of its own, below the run folder."""
    return f"{encoded_folder(point)}/{fitting(f'{clip}.enc')}"


class _Texts:
    """Texts, each with a number."""

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = {None: _NO_TEXT}
        self.texts: list[str] = []

    def numbers(self, texts: list[str | None]) -> list[int]:
        numbers = self._numbers
        for text in set(texts) - numbers.keys():
            numbers[text] = len(self.texts)
            self.texts.append(str(text))
        return [numbers[text] for text in texts]

    def text(self, number: int) -> str | None:
        return None if number == _NO_TEXT else self.texts[number]


class _Grown:
    """An array that grows by appending."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._parts = [np.empty(0, dtype)]
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, values: np.ndarray) -> None:
        self._parts.append(values.astype(self._parts[0].dtype, copy=False))
        self._size += len(values)

    def all(self) -> np.ndarray:
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def set(self, values: np.ndarray) -> None:
        self._parts, self._size = [values], len(values)


class _Table:
    """Rows of one kind; appended to, never changed."""

    def __init__(self, kind: type[Row], dtypes: _Dtypes, texts: _Texts) -> None:
        self.kind = kind
        self.dtypes = dtypes
        self.texts = texts
        self.size = 0
        self._columns = {name: _Grown(dtype) for name, dtype in dtypes.items()}

    def add(self, rows: Sequence[Any]) -> None:
        for name, dtype in self.dtypes.items():
            values = [getattr(row, name) for row in rows]
            if name == "encoded":
                usual = (encoded_file(row.point, row.clip) for row in rows)
                values = [
                    _USUAL if value == place else value for value, place in zip(values, usual, strict=True)
                ]
            if dtype is _TEXTS:
                values = self.texts.numbers(values)
            elif dtype is _WHOLE and None in values:
                values = [_NO_NUMBER if value is None else value for value in values]
            # As float64, None is NaN.
            self._columns[name].append(np.array(values, dtype))
        self.size += len(rows)

    def column(self, name: str) -> np.ndarray:
        return self._columns[name].all()

    def row(self, place: int, key: str) -> Row:
        values: dict[str, Any] = {}
        for name, dtype in self.dtypes.items():
            value = self._columns[name].all().item(place)
            if dtype is _TEXTS:
                value = self.texts.text(value)
            elif (dtype is _WHOLE and value == _NO_NUMBER) or (value != value and name not in _NAN):
                value = None
            values[name] = value
        if values.get("encoded") == _USUAL:
            values["encoded"] = encoded_file(f"{values['codec']}@{values['rate']}", values["clip"])
        return self.kind(key=key, **values)


@dataclass(frozen=True)
class Found(Generic[R]):
    """Rows of many keys.

    Attributes:
        keys: the keys that were looked up.
        places: of their rows in the table, -1 for a missing row.
    """

    keys: Keys
    places: np.ndarray
    _table: _Table

    @property
    def there(self) -> np.ndarray:
        return self.places >= 0

    def where(self, chosen: np.ndarray) -> Found[R]:
        """The entries where the mask is true."""
        return Found(self.keys.where(chosen), self.places[chosen], self._table)

    def numbers(self, name: str) -> np.ndarray:
        """A field as float64, NaN if the row is missing or the field is None."""
        values = self._table.column(name)[self.places[self.there]]
        found = np.full(len(self.places), np.nan)
        missing = values == _NO_NUMBER if values.dtype == _WHOLE else False
        found[self.there] = np.where(missing, np.nan, values.astype(float))
        return found

    def texts(self, name: str) -> np.ndarray:
        """A field as objects, None if the row is missing or the field is None."""
        numbers = np.full(len(self.places), _NO_TEXT)
        numbers[self.there] = self._table.column(name)[self.places[self.there]]
        different, places = np.unique(numbers, return_inverse=True)
        found = np.empty(len(different), dtype=object)
        found[:] = [self._table.texts.text(number) for number in different.tolist()]
        return found[places]

    def __iter__(self) -> Iterator[R]:
        """The rows that exist."""
        for place, key in zip(self.places.tolist(), self.keys.hex(), strict=True):
            if place >= 0:
                yield self._table.row(place, key)  # type: ignore[misc]


class Rows:
    """All rows of a run folder by key; the last one under a key counts. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        #: The newest rows, as lines.
        self._recent: dict[str, bytes] = {}
        texts = _Texts()
        self._tables = {kind: _Table(kind, dtypes, texts) for kind, dtypes in _KINDS}
        self._numbers = {kind: number for number, (kind, _) in enumerate(_KINDS, 1)}
        self._lines: list[bytes] = []
        #: Rows under keys that are not hashes.
        self._others: dict[str, bytes] = {}
        # Kind of each row in the order of arrival, and its place among rows of its kind.
        self._kinds, self._places = _Grown(np.dtype(np.uint8)), _Grown(np.dtype(np.int64))
        # The two parts of their keys; the first `_sorted` are in the order of keys, and `_order` has the row
        # of each.
        self._high, self._low = _Grown(np.dtype(np.uint64)), _Grown(np.dtype(np.uint32))
        self._order = _Grown(np.dtype(np.int64))
        self._sorted = 0

    def add(self, rows: Sequence[Row], lines: Sequence[bytes]) -> None:
        """Add rows, with the lines that they were read from or written as."""
        with self._lock:
            if len(rows) < _FEW:
                self._recent.update(zip((row.key for row in rows), lines, strict=True))
                if len(self._recent) > max(_FEW, _SHARE * len(self._kinds)):
                    self._settle()
            else:
                self._settle()
                self._add(rows, lines)

    def get(self, key: str) -> Row | None:
        with self._lock:
            line = self._recent.get(key) or self._others.get(key)
            if line is not None:
                return read_row(line)
            if not _is_hash(key):
                return None
            self._sort()
            highs, lows = self._high.all(), self._low.all()
            high, low = np.uint64(int(key[:16], 16)), int(key[16:], 16)
            for place in range(int(highs.searchsorted(high)), len(highs)):
                if highs[place] != high:
                    break
                if lows[place] == low:
                    return self._row(self._order.all().item(place), key)
            return None

    def find(self, keys: Keys, kind: type[R]) -> tuple[Found[R], Row | None]:
        """Rows of the keys, and a row of another kind, if any."""
        with self._lock:
            self._settle()
            numbers = self._find(keys)
            there = numbers >= 0
            places = np.full(len(keys), -1)
            places[there] = self._places.all()[numbers[there]]
            wrong = np.flatnonzero(there)[self._kinds.all()[numbers[there]] != self._numbers[kind]]
            stranger = self._row(int(numbers[wrong[0]]), keys.hex()[wrong[0]]) if len(wrong) else None
            return Found(keys, places, self._tables[kind]), stranger

    def last_offsets(self) -> dict[str, int]:
        """The largest ``offset`` of coded rows, by file."""
        with self._lock:
            self._settle()
            table = self._tables[CodedRow]
            inside = table.column("offset") != _NO_NUMBER
            files, places = np.unique(table.column("encoded")[inside], return_inverse=True)
            largest = np.full(len(files), -1)
            np.maximum.at(largest, places, table.column("offset")[inside])
            names = map(table.texts.text, files.tolist())
            return {str(name): last for name, last in zip(names, largest.tolist(), strict=True)}

    def __iter__(self) -> Iterator[Row]:
        """All rows, in the order in which their keys arrived."""
        with self._lock:
            self._settle()
            self._sort()
            parts = np.empty(len(self._kinds), [("high", ">u8"), ("low", ">u4")])
            parts["high"][self._order.all()] = self._high.all()
            parts["low"][self._order.all()] = self._low.all()
            kept = np.flatnonzero(self._kinds.all() != _REPLACED)
        for start in range(0, len(kept), _FEW):
            numbers = kept[start : start + _FEW]
            for number, key in zip(numbers.tolist(), Keys(parts[numbers].tobytes()).hex(), strict=True):
                yield self._row(number, key)
        yield from map(read_row, list(self._others.values()))

    def _row(self, number: int, key: str) -> Row:
        kind, place = self._kinds.all().item(number), self._places.all().item(number)
        return (
            read_row(self._lines[place])
            if kind == _LINE
            else self._tables[_KINDS[kind - 1][0]].row(place, key)
        )

    def _settle(self) -> None:
        """Turn the newest rows into columns."""
        if self._recent:
            lines = list(self._recent.values())
            self._recent = {}
            self._add(read_rows(lines), lines)

    def _add(self, rows: Sequence[Row], lines: Sequence[bytes]) -> None:
        keys = [row.key for row in rows]
        if not all(map(_is_hash, keys)):
            pairs = list(zip(rows, lines, strict=True))
            self._others.update((row.key, line) for row, line in pairs if not _is_hash(row.key))
            rows = [row for row in rows if _is_hash(row.key)]
            lines = [line for row, line in pairs if _is_hash(row.key)]
            keys = [row.key for row in rows]
        kinds = np.array([self._numbers.get(type(row), _LINE) for row in rows], np.uint8)
        places = np.empty(len(rows), np.int64)
        for kind, table in self._tables.items():
            chosen = kinds == self._numbers[kind]
            places[chosen] = np.arange(table.size, table.size + chosen.sum())
            table.add([row for row in rows if type(row) is kind])
        chosen = kinds == _LINE
        places[chosen] = np.arange(len(self._lines), len(self._lines) + chosen.sum())
        self._lines += [lines[number] for number in np.flatnonzero(chosen).tolist()]
        high, low = Keys(bytes.fromhex("".join(keys))).parts
        self._high.append(high)
        self._low.append(low)
        self._order.append(np.arange(len(self._kinds), len(self._kinds) + len(rows)))
        self._kinds.append(kinds)
        self._places.append(places)

    def _sort(self) -> None:
        """Sort the keys; of rows under one key keep the last, in the place of the first."""
        if self._sorted == len(self._order):
            return
        high, low, order = self._high.all(), self._low.all(), self._order.all()
        by_key = np.lexsort((low, high))  # rows of one key stay in the order of arrival
        high, low, order = high[by_key], low[by_key], order[by_key]
        first = np.concatenate([[True], (high[1:] != high[:-1]) | (low[1:] != low[:-1])])
        if not first.all():
            starts = np.flatnonzero(first)
            last = order[np.append(starts[1:], len(order)) - 1]
            replaced, kinds, places = order[~first], self._kinds.all(), self._places.all()
            new = kinds[last], places[last]
            kinds[replaced] = _REPLACED
            kinds[order[starts]], places[order[starts]] = new
        self._high.set(high[first])
        self._low.set(low[first])
        self._order.set(order[first])
        self._sorted = len(self._order)

    def _find(self, keys: Keys) -> np.ndarray:
        """Row of each key, -1 for a missing row."""
        self._sort()
        high, low = keys.parts
        first = np.searchsorted(self._high.all(), high)
        found = np.full(len(keys), -1)
        # Keys with the same first part are adjacent.
        open_ = np.arange(len(keys))
        while len(open_):
            open_ = open_[first[open_] < len(self._order)]
            open_ = open_[self._high.all()[first[open_]] == high[open_]]
            same = self._low.all()[first[open_]] == low[open_]
            found[open_[same]] = self._order.all()[first[open_[same]]]
            open_ = open_[~same]
            first[open_] += 1
        return found
