"""What stands in a run folder, checked as it is read: run folders are copied, edited and damaged.

A record is a JSON object; its fields are told by `Field`s. What is not in the table is left alone, so that a
later version may add to it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from evaluation.results import CLIP_COLUMNS, SUMMARY_COLUMNS, metric_columns

_REQUIRED, _ABSENT = object(), object()
# Larger ones would overflow when they are squared and summed.
_LARGEST = 1e100
_LARGEST_COUNT = 2**53


@dataclass(frozen=True)
class Check:
    """What a value must be, for people and as a function."""

    text: str
    holds: Callable[[Any], bool]

    def __or__(self, other: Check) -> Check:
        return Check(f"{self.text} or {other.text}", lambda v: self.holds(v) or other.holds(v))


@dataclass(frozen=True)
class Field:
    """A check, and what stands for a field that earlier versions did not write (`_ABSENT`: nothing)."""

    check: Check
    default: Any = field(default=_REQUIRED)


Fields = Mapping[str, Field]


def loads(text: str | bytes) -> Any:
    """JSON; ValueError for whatever is wrong with it."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def checked(record: Any, fields: Fields, what: str = "") -> dict[str, Any]:
    """The record with defaults for what is absent.

    Args:
        what: names the record in messages ("conditions[2]").

    Raises:
        ValueError: it is no object, or a field is absent or not what it must be.
    """
    if not isinstance(record, dict):
        raise ValueError(f"{what or 'it'} is {_short(record)}; needed is an object")
    result = dict(record)
    for name, spec in fields.items():
        place = f"{what}.{name}" if what else name
        if name not in record:
            if spec.default is _REQUIRED:
                raise ValueError(f"'{place}' is missing")
            if spec.default is not _ABSENT:
                result[name] = spec.default
        elif not spec.check.holds(record[name]):
            raise ValueError(f"'{place}' is {_short(record[name])}; needed is {spec.check.text}")
    return result


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and re.search("[\0\ud800-\udfff]", value) is None


def _is_line(value: str) -> bool:
    return len(value) <= 100 and value.splitlines() in ([], [value])


def is_file_name(name: str) -> bool:
    """Whether a name is a relative path that stays below the folder it is put behind."""
    path = PurePosixPath(name)
    return bool(path.parts) and ".." not in path.parts and not path.is_absolute() and path.as_posix() == name


def _count(least: int = 0, most: int = _LARGEST_COUNT) -> Check:
    return Check(
        f"a whole number from {least} to {most}",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v <= most,
    )


def _list(of: Check) -> Check:
    return Check(f"a list, each {of.text}", lambda v: isinstance(v, list) and all(map(of.holds, v)))


def _table(of: Check) -> Check:
    return Check(
        f"an object, each value {of.text}",
        lambda v: isinstance(v, dict) and all(_is_text(k) and of.holds(e) for k, e in v.items()),
    )


def _record(fields: Fields) -> Check:
    def holds(value: Any) -> bool:
        try:
            checked(value, fields)
        except ValueError:
            return False
        return True

    return Check(f"an object with {', '.join(fields)} as they must be", holds)


ANY = Check("anything", lambda v: True)
NONE = Check("null", lambda v: v is None)
TEXT = Check("text", _is_text)
#: What plug-ins call themselves: it stands in headings.
LINE = Field(Check("text of one line, up to 100 characters", lambda v: _is_text(v) and _is_line(v)))
NAME = Check("text that is not empty", lambda v: _is_text(v) and bool(v.strip()))
FLAG = Check("true or false", lambda v: isinstance(v, bool))
NUMBER = Check("a number", _is_number)
POSITIVE = Check("a number above 0", lambda v: _is_number(v) and v > 1e-9)
AMOUNT = Check("a number, 0 or more", lambda v: _is_number(v) and v >= 0)
#: `evaluation.run.store.number_to_json`.
VALUE = NUMBER | Check('"inf" or "-inf"', lambda v: v in ("inf", "-inf")) | NONE
FILE = Check("a file below the run folder", lambda v: _is_text(v) and is_file_name(v))
PATH = Check("a path", lambda v: isinstance(v, str) and bool(v) and "\0" not in v)
OBJECT = _table(ANY)
#: What keys of rows are made of.
FINITE = Check("an object without infinite numbers", lambda v: isinstance(v, dict) and _is_finite(v))
DELAY = _count(-(2**31), 2**31)

_RATE = POSITIVE | NONE
CONDITION: Fields = {
    "codec": Field(NAME),
    "kbps": Field(_RATE),
    "nominal": Field(_RATE),
    "settings": Field(FINITE, {}),
    "identity": Field(FINITE, {}),
    "rate_is": Field(
        Check("measured, declared or none", lambda v: v in ("measured", "declared", "none")), "measured"
    ),
    "control": Field(FLAG, False),
}
METRIC: Fields = {
    "name": Field(Check("text that is no other column", lambda v: NAME.holds(v) and v not in CLIP_COLUMNS)),
    "label": Field(TEXT),
    "version": Field(TEXT),
    "unit": Field(TEXT),
    "higher_is_better": Field(FLAG),
    "definition": Field(TEXT),
    "embedding": Field(TEXT, ""),
    "per_clip": Field(FLAG, True),
}
EMBEDDING: Fields = {
    "name": Field(NAME),
    "label": Field(TEXT),
    "dim": Field(_count(1, 2**20)),
    "frame_s": Field(POSITIVE),
    "hop_s": Field(POSITIVE),
    "definition": Field(TEXT),
    "attribution": Field(TEXT),
    "identity": Field(
        Check(
            "an object with version and weights",
            lambda v: FINITE.holds(v) and _is_text(v.get("version")) and _is_text(v.get("weights")),
        )
    ),
}
_PAIR = Check("a name and a reason", lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_text, v)))
_SHARD: Fields = {
    "indices": Field(_list(_count(1, 2**20))),
    "count": Field(_count(1, 2**20)),
    "recordings": Field(_count()),
    "of": Field(TEXT),
}
DATASET: Fields = {
    "name": Field(NAME),
    "n_clips": Field(_count()),
    "n_recordings": Field(_count()),
    "n_lossy": Field(_count(), 0),
    "lossy_formats": Field(_list(TEXT), []),
    "n_excluded": Field(_count(), 0),
    "excluded": Field(_list(_PAIR), []),
    "disclaimer": Field(TEXT | NONE, None),
    "notes": Field(_list(TEXT), []),
    "hash": Field(TEXT),
    "shard": Field(_record(_SHARD), _ABSENT),
}
SETTINGS: Fields = {
    "sample_rate": Field(_count(1, 10**6)),
    "channels": Field(_count(1, 2)),
    "align": Field(FLAG),
    "seed": Field(_count()),
}
_RUN: Fields = {
    "settings": Field(OBJECT),
    "dataset": Field(OBJECT),
    "conditions": Field(_list(OBJECT)),
    "floor": Field(_list(OBJECT), []),
    "metrics": Field(_list(OBJECT)),
    "embeddings": Field(_list(OBJECT), []),
    "unavailable": Field(_table(TEXT), {}),
    "skipped": Field(_table(TEXT), {}),
    "commands": Field(_list(TEXT), []),
}
CLIP: Fields = {
    "id": Field(FILE),
    "path": Field(PATH),
    "recording": Field(TEXT),
    "content_hash": Field(TEXT),
    "start_s": Field(AMOUNT, 0.0),
    "duration_s": Field(AMOUNT, 0.0),
    "sample_rate": Field(_count(0, 10**9), 0),
    "channels": Field(_count(0, 10**6), 0),
    "lossy": Field(TEXT | NONE, None),
    "category": Field(TEXT | NONE, None),
    "error": Field(TEXT | NONE, None),
}
FILES = _table(_table(TEXT))

_KEY = {"key": Field(NAME), "error": Field(TEXT | NONE)}
_CODED = {
    **_KEY,
    "codec": Field(TEXT),
    "rate": Field(TEXT),
    "clip": Field(TEXT),
    "delay": Field(DELAY | NONE),
}
_CODED_WELL = {
    **_CODED,
    "duration_s": Field(POSITIVE),
    "bytes": Field(_count() | NONE),
    "gain_db": Field(NUMBER | NONE),
    "encode_s": Field(AMOUNT | NONE),
    "decode_s": Field(AMOUNT | NONE),
    "encoded": Field(FILE | NONE),
    "codebooks": Field(_count(), 0),
    "note": Field(TEXT | NONE, None),
}
_SCORE = {
    **_KEY,
    "codec": Field(TEXT),
    "rate": Field(TEXT),
    "clip": Field(TEXT),
    "metric": Field(TEXT),
    "delay": Field(DELAY),
    "value": Field(VALUE),
    "reason": Field(TEXT | NONE),
}
_FRAMES = {
    **_KEY,
    "file": Field(FILE),
    "offset": Field(_count()),
    "frames": Field(_count(1)),
    "dim": Field(_count(1, 2**20)),
    "silent": Field(_count()),
}
DISTANCE: Fields = {
    "value": Field(VALUE),
    "sizes": Field(_list(_count(1)), []),
    "left_out": Field(_list(NUMBER), []),
    **{name: Field(NUMBER, math.nan) for name in ("low", "high", "half", "limit", "half_frames")},
    **{name: Field(TEXT, "") for name in ("reason", "ci_reason")},
}
_GROUPED = Check(
    "an object with value, sizes and, if any, as many left_out as there are sizes",
    lambda v: _record(DISTANCE).holds(v) and len(v.get("left_out", [])) in (0, len(v.get("sizes", []))),
)
_CORPUS = {"key": Field(NAME), "fd": Field(_GROUPED), "kad": Field(_GROUPED)}
_BOOK: Fields = {
    "size": Field(_count(1)),
    "used": Field(_count()),
    "frames": Field(_count()),
    "usage": Field(AMOUNT),
    "perplexity": Field(AMOUNT),
    "perplexity_miller_madow": Field(AMOUNT),
    "entropy_bits": Field(AMOUNT),
    "entropy_bits_miller_madow": Field(AMOUNT),
    "kbps_entropy": Field(AMOUNT),
}
_CODES = {
    "key": Field(NAME),
    "codec": Field(TEXT),
    "rate": Field(TEXT),
    "kbps_entropy": Field(AMOUNT),
    "frames": Field(_count()),
    "codebooks": Field(
        Check(
            "a list of one codebook or more",
            lambda v: isinstance(v, list) and bool(v) and all(map(_record(_BOOK).holds, v)),
        )
    ),
    "usage": Field(AMOUNT),
    **{
        f"perplexity{name}": Field(AMOUNT)
        for name in ("", "_miller_madow", "_of_mean", "_of_mean_miller_madow")
    },
}
_LATENTS = {
    "key": Field(NAME),
    "frames": Field(_count(1)),
    "error_sum": Field(AMOUNT),
    "x": Field(_list(NUMBER)),
    "squares": Field(AMOUNT),
}
_ROWS: Mapping[str, Fields] = {
    "score": _SCORE,
    "frames": _FRAMES,
    "corpus": _CORPUS,
    "codes": _CODES,
    "latents": _LATENTS,
}


def checked_row(row: Any) -> dict[str, Any]:
    """A row of a run, by its kind; of a kind that is not known here only the key counts."""
    row = checked(row, {"key": Field(NAME)})
    if row.get("kind") == "coded":
        return checked(row, _CODED if row.get("error") is not None else _CODED_WELL)
    fields = _ROWS.get(row["kind"]) if isinstance(row.get("kind"), str) else None
    return row if fields is None else checked(row, fields)


def checked_run(run: Any) -> dict[str, Any]:
    """The content of run.json.

    Raises:
        ValueError: a field is absent or not what it must be, or two entries have one name.
    """
    run = checked(run, _RUN)
    run["settings"] = checked(run["settings"], SETTINGS, "settings")
    run["dataset"] = checked(run["dataset"], DATASET, "dataset")
    names = {
        "conditions": (CONDITION, ("codec", "kbps")),
        "floor": (CONDITION, ("codec",)),
        "metrics": (METRIC, ("name",)),
        "embeddings": (EMBEDDING, ("name",)),
    }
    for part, (fields, label) in names.items():
        run[part] = [checked(entry, fields, f"{part}[{i}]") for i, entry in enumerate(run[part])]
        seen = set()
        for entry in run[part]:
            labels = tuple(entry[key] for key in label)
            if labels in seen:
                raise ValueError(f"'{part}' has two entries {' at '.join(map(_short, labels))}")
            seen.add(labels)
    columns = {*CLIP_COLUMNS, *SUMMARY_COLUMNS}
    for name in (metric["name"] for metric in run["metrics"]):
        if columns & {*metric_columns(name)}:
            raise ValueError(f"metric {_short(name)} has a column of the name of another's column")
        columns |= {*metric_columns(name)}
    for metric in run["metrics"]:
        name = _short(metric["name"])
        if metric["embedding"] not in ("", *(entry["name"] for entry in run["embeddings"])):
            raise ValueError(f"metric {name} is of embedding {_short(metric['embedding'])}, not listed")
        kinds = {"fm": True, "cos": True, "fd": False, "kad": False} if metric["embedding"] else {}
        kind = metric["name"].removesuffix(f"_{metric['embedding']}")
        if metric["per_clip"] != kinds.get(kind, not metric["embedding"]):
            raise ValueError(f"metric {name} is no such one as its embedding and 'per_clip' say")
    return run


def only(record: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """The fields of the table, for a record's class, which knows no others."""
    return {name: record[name] for name in fields}
