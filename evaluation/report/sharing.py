"""Results to send to others: without paths of this machine and without addresses that failed.

The terminal, the rows of a run and run.json give files and addresses in full, because their reader may have
to repair something. CSV, JSON, Markdown, LaTeX and HTML are sent to others, who need only names of files.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeVar, cast

from evaluation.results import Between, Results

T = TypeVar("T")

#: Field of `Results` with messages or a description of the machine -> the fields of its records with such
#: texts; () for all. Names are not changed, because they connect records.
_TEXTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("environment", "unavailable", "skipped", "remarks"), ()),
    "conditions": ("settings", "identity"),
    "dataset": ("disclaimer", "excluded", "notes"),
    "corpus": ("kbps_entropy_reason",),
    "scores": ("reason", "ci_reason"),
}

_NAME = r"[^\s/\\'\"`<>|,;:()\[\]{}]"
# Addresses, then paths from a root; paths in quotes come first, because they may have spaces.
_PLACE = re.compile(
    rf"""
    (?P<address>\b[a-z][a-z0-9+.-]*://[^\s'"`<>]*[^\s'"`<>.,;:)])
  | (?P<quote>['"`])(?P<quoted>(?:~?/|[A-Za-z]:\\|\\\\)[^'"`\n]*)(?P=quote)
  | (?<![\w.~/\\:<)\]}}-])(?P<path>(?:~/|/|[A-Za-z]:\\|\\\\){_NAME}+(?:[/\\]{_NAME}+)*[/\\]?)
    """,
    re.VERBOSE,
)
_HOME = re.compile(r"(?:/(?:home|Users)|[A-Za-z]:\\Users)[/\\][^/\\]+[/\\]?|/root/?|~/?")


def shareable(value: T) -> T:
    """The value with every path and address in its texts reduced to the name at the end: ``…/talk.wav``.

    Mappings, lists, tuples and records are searched for texts. Returns the same object if nothing changes.
    """
    return cast(T, _shareable(value))


def _shareable(value: Any) -> Any:
    if isinstance(value, str):
        text = _PLACE.sub(_cut, value)
        return value if text == value else text
    if isinstance(value, Mapping):
        entries = {name: _shareable(entry) for name, entry in value.items()}
        return entries if any(entries[name] is not value[name] for name in entries) else value
    if isinstance(value, list | tuple):
        parts = [_shareable(entry) for entry in value]
        return type(value)(parts) if any(a is not b for a, b in zip(parts, value, strict=True)) else value
    if is_dataclass(value) and not isinstance(value, type):
        own = {spec.name: getattr(value, spec.name) for spec in fields(value) if spec.init}
        new = {name: other for name, entry in own.items() if (other := _shareable(entry)) is not entry}
        return replace(value, **new) if new else value
    return value


def _cut(found: re.Match[str]) -> str:
    if (address := found["address"]) is not None:
        return _last(PurePosixPath(urllib.parse.urlsplit(address).path).name)
    quote = found["quote"] or ""
    path = found["quoted"] or found["path"]
    if _HOME.fullmatch(path):
        return f"{quote}~{quote}"
    windows = re.match(r"[A-Za-z]:\\|\\\\", path) is not None
    return quote + _last((PureWindowsPath if windows else PurePosixPath)(path).name) + quote


def _last(name: str) -> str:
    return f"…/{name}" if name else "…"


def shareable_results(results: Results) -> Results:
    """The results with all messages and descriptions made `shareable`; the same object if nothing changes.

    Names (clips, recordings, codecs) and numbers are not changed, nor are the definitions of metrics and
    embeddings, which have addresses of papers and licences.
    """
    changed: dict[str, Any] = {}
    texts = {}
    for name in ("error", *(f"{metric.name}_reason" for metric in results.clip_metrics)):
        # Each distinct text is searched once: there may be millions of rows.
        found = {text: _shareable(text) for text in results.clips[name].dropna().unique()}
        if any(text != other for text, other in found.items()):
            texts[name] = results.clips[name].map(lambda text, found=found: found.get(text, text))
    if texts:
        changed["clips"] = results.clips.assign(**texts)
    for name, parts in _TEXTS.items():
        old = getattr(results, name)
        if (value := _messages(old, parts)) is not old:
            changed[name] = value
    between = {key: _between(entry) for key, entry in results.between.items()}
    if any(between[key] is not entry for key, entry in results.between.items()):
        changed["between"] = between
    for name in ("points", "noise_floor"):
        part = getattr(results, name)
        if part is not None and (other := shareable_results(part)) is not part:
            changed[name] = other
    if not changed:
        return results
    copy = replace(results, **changed)
    copy.estimates = results.estimates  # the numbers are the same
    return copy


def _messages(value: Any, parts: tuple[str, ...]) -> Any:
    """A record or a list of records with the fields ``parts`` made `shareable`; with no ``parts``, all."""
    if not parts:
        return _shareable(value)
    if isinstance(value, list):
        records = [_messages(record, parts) for record in value]
        return records if any(a is not b for a, b in zip(records, value, strict=True)) else value
    found = {name: (getattr(value, name), _shareable(getattr(value, name))) for name in parts}
    new = {name: other for name, (old, other) in found.items() if other is not old}
    return replace(value, **new) if new else value


def _between(value: Between) -> Between:
    low, high = (_messages(condition, _TEXTS["conditions"]) for condition in (value.low, value.high))
    same = low is value.low and high is value.high
    return value if same else replace(value, low=low, high=high)
