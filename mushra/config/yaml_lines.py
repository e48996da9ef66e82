r"""The YAML of webMUSHRA, read with line numbers and within bounds.

The dialect is that of yaml.js, the parser that webMUSHRA's files are written for. It reads line by line:
``key: value`` is split at the first colon before a blank or the line's end. A value without quotes is all the
text up to the line's end. Nothing is converted here: a value without quotes is `mushra.config.yaml_js.Plain`,
the exact text of the file, and the model that knows the type converts it.

Syntax that yaml.js refuses or garbles is read as YAML: lists that begin on another list's line (``- - a``),
``#`` within text blocks, text that begins with ``!``, blank lines and comments anywhere, ``{a key: value}``,
``*alias`` and ``<<`` within brackets, values in brackets over several lines, ``\u00e9``. Tags of objects and
second documents are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from mushra.config.yaml_js import MAX_DEPTH, TOO_DEEP, Block, Map, YamlProblem, is_empty

#: Position of a value in a document: keys and list indices from the top.
Location = tuple[str | int, ...]

MAX_BYTES = 4 * 2**20
#: Limit of values in a document; values repeated by aliases count each time.
MAX_VALUES = 100_000


@dataclass
class Document:
    """A parsed document.

    Attributes:
        value: dicts with text keys, lists, text (`Plain` if it has no quotes), None (nothing, null, ~).
        lines: location -> its line, from 1.
        duplicates: (location, line) of each key that is repeated in its mapping; the first counts.
    """

    value: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    duplicates: list[tuple[Location, int]] = field(default_factory=list)

    def line(self, location: Location) -> int:
        """Line of a location, or of the nearest known location around it."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def parse(data: bytes) -> Document:
    """Parse one document in UTF-8.

    Raises:
        YamlProblem: not UTF-8, not YAML, several documents or none, tags, too large, too deep, or an alias
            that is unknown, refers to itself, or repeats too much.
    """
    if len(data) > MAX_BYTES:
        raise YamlProblem(1, f"the file has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise YamlProblem(number, "the file is not UTF-8; save it as UTF-8") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if control := re.search(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]", text):
        number = text[: control.start()].count("\n") + 1
        raise YamlProblem(number, f"unacceptable character U+{ord(control[0]):04X}; is this a text file?")
    lines = list(enumerate(text.split("\n"), start=1))
    begin = next(
        (index for index, (_, line) in enumerate(lines) if not is_empty(line) and line[0] != "%"), None
    )
    if begin is None:
        raise YamlProblem(1, "the file is empty")
    lines = lines[begin + lines[begin][1].startswith("---") :]
    for index, (number, line) in enumerate(lines):
        if line.startswith("---"):
            raise YamlProblem(number, "a second document begins here ('---'); keep one per file")
        if line.rstrip() == "...":
            if any(not is_empty(after) for _, after in lines[index + 1 :]):
                raise YamlProblem(
                    number, "the document ends here ('...'), and more follows; keep one per file"
                )
            lines = lines[:index]
            break
    document = Document()
    document.value = _Values(document).value(Block(lines, {}, 0).value(), (), 0)
    return document


class _Values:
    """Converts parsed values with lines to plain values; repeats aliases and counts all values."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def value(self, read: Any, location: Location, line: int) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            raise YamlProblem(line, f"more than {MAX_VALUES} values, those of aliases included")
        if len(location) > MAX_DEPTH:
            raise YamlProblem(line, TOO_DEEP)
        if line:
            self._document.lines[location] = line
        if isinstance(read, Map):
            self._document.duplicates += [((*location, key), again) for key, again in read.twice]
            return {key: self.value(inner, (*location, key), at) for key, (at, inner) in read.items()}
        if isinstance(read, list):
            return [self.value(inner, (*location, index), at) for index, (at, inner) in enumerate(read)]
        return read
