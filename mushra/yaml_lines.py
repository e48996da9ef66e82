"""YAML with line numbers, read safely: no objects, no expansion bombs, no key that silently wins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

#: Where a value stands in a document: keys and list indices from the top.
Location = tuple[str | int, ...]

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 40
#: Values in a document, those that aliases repeat counted as often as they are repeated.
MAX_VALUES = 100_000

_TAG = "tag:yaml.org,2002:"
_TOO_DEEP = f"lists and mappings are nested more than {MAX_DEPTH} deep"
#: libyaml where PyYAML was built with it, ten times as fast.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlProblem(Exception):
    """The text is no YAML that can be used. ``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class Document:
    """A parsed document.

    Attributes:
        value: dicts with text keys, lists, text, int, float, bool, None.
        lines: location -> line on which it stands, from 1.
        duplicates: (location, line) of each key that stands twice in its mapping; the first counts.
    """

    value: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    duplicates: list[tuple[Location, int]] = field(default_factory=list)

    def line(self, location: Location) -> int:
        """Line of a location, or of the nearest thing around it that is there."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def parse(data: bytes) -> Document:
    """Parse one YAML document.

    Keys are taken as they are written (``1:`` and ``no:`` are "1" and "no"), dates as text. Anchors, aliases
    and merge keys work, as long as the document they stand for has at most `MAX_VALUES` values.

    Raises:
        YamlProblem: not UTF-8, not YAML, several documents or none, tags, too large, too deep, or an alias
            that is unknown, stands for itself, or makes too much.
    """
    if len(data) > MAX_BYTES:
        raise YamlProblem(1, f"the file has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise YamlProblem(line, "the file is not UTF-8; save it as UTF-8") from error
    return _Builder(text).document


class _Builder:
    """Builds the document from the parser's events. An alias replays those of its anchor."""

    def __init__(self, text: str) -> None:
        self.document = Document()
        self._resolver = yaml.SafeLoader("")
        self._anchors: dict[str, list[yaml.Event]] = {}
        self._count = 0
        events = self._parse(text)
        self._expect(events, yaml.StreamStartEvent)
        first = next(events)
        if not isinstance(first, yaml.DocumentStartEvent):
            raise YamlProblem(1, "the file is empty")
        self.document.value = self._value(next(events), events, (), 0)
        self._expect(events, yaml.DocumentEndEvent)
        last = next(events)
        if not isinstance(last, yaml.StreamEndEvent):
            raise YamlProblem(_line(last), "a second document begins here ('---'); keep one per file")

    @staticmethod
    def _parse(text: str) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = 1 if mark is None else mark.line + 1
            problem = " ".join(filter(None, (error.problem, error.context))) or "no valid YAML"
            if "nesting depth" in problem:  # libyaml's own limit, of brackets, since 0.2.6
                problem = _TOO_DEEP
            raise YamlProblem(line, problem) from error
        except yaml.YAMLError as error:  # characters that YAML does not allow
            raise YamlProblem(1, " ".join(str(error).split())) from error

    @staticmethod
    def _expect(events: Iterator[yaml.Event], kind: type[yaml.Event]) -> None:
        event = next(events)
        assert isinstance(event, kind), event

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], location: Location, depth: int) -> Any:
        """The value that ``event`` begins; what it holds is taken from ``events``."""
        self._count += 1
        if self._count > MAX_VALUES:
            raise YamlProblem(_line(event), f"more than {MAX_VALUES} values, those of aliases included")
        if depth > MAX_DEPTH:
            raise YamlProblem(_line(event), _TOO_DEEP)
        self.document.lines.setdefault(location, _line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, location, depth)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        anchor = event.anchor
        if anchor is not None:
            recorded: list[yaml.Event] = [event]
            self._anchors.pop(anchor, None)  # not known inside itself
            events = _record(events, recorded)
        value = self._content(event, events, location, depth)
        if anchor is not None:
            self._anchors[anchor] = recorded
        return value

    def _alias(self, event: yaml.AliasEvent, location: Location, depth: int) -> Any:
        recorded = self._anchors.get(event.anchor or "")
        if recorded is None:
            raise YamlProblem(_line(event), f"alias '*{event.anchor}' has no complete anchor before it")
        replayed = iter(recorded)
        first = next(replayed)
        assert isinstance(first, yaml.ScalarEvent | yaml.CollectionStartEvent)
        return self._content(first, replayed, location, depth)

    def _content(
        self,
        event: yaml.ScalarEvent | yaml.CollectionStartEvent,
        events: Iterator[yaml.Event],
        location: Location,
        depth: int,
    ) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        kind = "map" if isinstance(event, yaml.MappingStartEvent) else "seq"
        if event.tag not in (None, "!", _TAG + kind):
            raise YamlProblem(_line(event), f"tag '{event.tag}' is not allowed")
        if kind == "map":
            return self._mapping(events, location, depth)
        items: list[Any] = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            items.append(self._value(item, events, (*location, len(items)), depth + 1))
        return items

    def _mapping(self, events: Iterator[yaml.Event], location: Location, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        while not isinstance(key := next(events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                raise YamlProblem(_line(key), "a key must be text")
            if key.value == "<<" and key.implicit[0]:
                merged += self._merge(next(events), events, location, depth)
                continue
            name = key.value
            if name in entries:
                self.document.duplicates.append(((*location, name), _line(key)))
                self._value(next(events), events, (*location, name), depth + 1)
                continue
            self.document.lines[*location, name] = _line(key)
            entries[name] = self._value(next(events), events, (*location, name), depth + 1)
        for source in merged:
            entries = {**entries, **{name: value for name, value in source.items() if name not in entries}}
        return entries

    def _merge(
        self, event: yaml.Event, events: Iterator[yaml.Event], location: Location, depth: int
    ) -> list[dict[str, Any]]:
        value = self._value(event, events, location, depth + 1)
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            raise YamlProblem(_line(event), "'<<' takes a mapping or a list of mappings")
        return sources

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag == _TAG + "timestamp":
            return event.value
        if tag.removeprefix(_TAG) not in ("str", "int", "float", "bool", "null"):
            raise YamlProblem(_line(event), f"tag '{tag}' is not allowed")
        try:
            if len(event.value) > 100 and tag in (_TAG + "int", _TAG + "float"):
                raise ValueError("more digits than a number has")
            return self._resolver.construct_object(yaml.ScalarNode(tag, event.value))
        except (yaml.YAMLError, ValueError, KeyError) as error:
            raise YamlProblem(_line(event), f"'{event.value[:40]}' is no {tag.removeprefix(_TAG)}") from error


def _record(events: Iterator[yaml.Event], into: list[yaml.Event]) -> Iterator[yaml.Event]:
    for event in events:
        into.append(event)
        yield event


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return 1 if mark is None else int(mark.line) + 1
