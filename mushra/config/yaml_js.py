"""Line-by-line reading of YAML as in yaml.js, for `mushra.config.yaml_lines`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 40
TOO_DEEP = f"lists and mappings are nested more than {MAX_DEPTH} deep"
#: Characters that JavaScript trims.
_SPACES = " \t\n\v\f\r\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff"
_SPACES += "".join(map(chr, range(0x2000, 0x200B)))
_ITEM = re.compile(r"-(?:(\s+)(.*))?$", re.DOTALL)
_ANCHOR = re.compile(r"&([^ ]+) *(.*)", re.DOTALL)
_TAG = re.compile(r"!!?(?:str|int|float|bool)(?:\s+|$)")
#: Tags of objects and of text blocks; any other text may begin with an exclamation mark.
_OBJECT = re.compile(r"!(!\w|<|\w+/|\S*\s+[|>][-+\d]*$)")
_TEXT_BLOCK = re.compile(r"([|>])([+-]?\d*[+-]?)(?: +#.*)?$")
_FLOW_KEY = re.compile(r"[^:,}]+(?=:)|[^:, ]+(?= )")
_FLOW_END = re.compile(r"[,\]}]")
_DOUBLE = re.compile(r'(?:[^"\\]|\\.?)*')
_ESCAPE = re.compile(
    r'\\(?:([0abt\tnvfre "/\\N_LP])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|\n)'
)
_ESCAPED = dict(zip('0abt\tnvfre "/\\N_LP', '\0\a\b\t\t\n\v\f\r\x1b "/\\\x85\xa0\u2028\u2029', strict=True))
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


class YamlProblem(Exception):
    """The text is not valid YAML. ``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Plain(str):
    """A value without quotes."""

    __slots__ = ()


def resolve(value: Any) -> Any:
    """``value`` with all values without quotes converted as in yaml.js: true, false and finite numbers."""
    if isinstance(value, dict):
        return {key: resolve(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [resolve(inner) for inner in value]
    if not isinstance(value, Plain):
        return value
    text = value.lower()
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"0x[0-9a-f]{1,13}", text):
        return int(text, 16)
    if re.fullmatch(r"-?0[0-7]{1,17}", text):
        return int(text, 8)
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number.is_integer() and abs(number) < 2**53:
            return int(number)
        return number if math.isfinite(number) else str(value)
    return str(value)


class Map(dict[str, tuple[int, Any]]):
    """Key -> (line, value); a key keeps its first value."""

    def __init__(self) -> None:
        super().__init__()
        self.twice: list[tuple[str, int]] = []
        self._merged: set[str] = set()

    def add(self, line: int, key: str, value: Any) -> None:
        if key == "<<":
            self._merge(line, value)
        elif key in self and key not in self._merged:
            self.twice.append((key, line))
        else:
            self._merged.discard(key)
            self[key] = (line, value)

    def _merge(self, line: int, value: Any) -> None:
        sources = [one for _, one in value] if isinstance(value, list) else [value]
        if not all(isinstance(source, Map) for source in sources):
            raise YamlProblem(line, "'<<' takes a mapping or a list of mappings")
        for source in sources:
            for key in source.keys() - self.keys():
                self[key] = source[key]
                self._merged.add(key)


class Block:
    """Lines (number, text) of one value, without their common indentation."""

    def __init__(self, lines: list[tuple[int, str]], anchors: dict[str, Any], depth: int) -> None:
        margin = min((_indent(text) for _, text in lines if not is_empty(text)), default=0)
        self._lines = [(number, text[min(margin, _indent(text)) :]) for number, text in lines]
        self._at = 0
        self.anchors = anchors
        self.depth = depth
        if depth > MAX_DEPTH:
            raise YamlProblem(lines[0][0], TOO_DEEP)

    def value(self) -> Any:
        line = self._next()
        if line is None:
            return None
        number, text = line
        if _ITEM.match(text):
            return self._list(number, text)
        if _split(text):
            return self._map(number, text)
        if text[0] not in "[{\"'*|>":
            while line := self._next():
                text += "\n" + line[1]
        value = self._value(number, text.rstrip(_SPACES))
        if line := self._next():
            raise YamlProblem(line[0], "this line is neither 'key: value' nor '- entry'")
        return value

    def next_line(self) -> tuple[int, str] | None:
        """The next line, blank lines included."""
        if self._at == len(self._lines):
            return None
        self._at += 1
        return self._lines[self._at - 1]

    def _next(self) -> tuple[int, str] | None:
        while (line := self.next_line()) and is_empty(line[1]):
            pass
        return line

    def _list(self, number: int, text: str) -> list[tuple[int, Any]]:
        items = []
        line: tuple[int, str] | None = (number, text)
        while line:
            number, text = line
            item = _ITEM.match(text)
            if not item:
                raise YamlProblem(number, f"{_fault(text)}; entries of this list begin with '- '")
            anchor, value = _anchor(item[2] or "")
            if is_empty(value):
                inner = self._deeper()
                entry = self._nested(inner) if inner else None
            elif _ITEM.match(value) or _split(value):
                entry = self._nested([(number, value), *self._deeper(1 + len(item[1]))])
            else:
                entry = self._value(number, value)
            items.append((number, entry))
            if anchor:
                self.anchors[anchor] = entry
            line = self._next()
        return items

    def _map(self, number: int, text: str) -> Map:
        entries = Map()
        line: tuple[int, str] | None = (number, text)
        while line:
            number, text = line
            parts = None if _ITEM.match(text) else _split(text)
            if not parts:
                raise YamlProblem(number, f"{_fault(text)}; 'key: value' is expected here")
            anchor, value = _anchor(parts[1])
            if is_empty(value):
                inner = self._deeper() or self._entries()
                entry = self._nested(inner) if inner else None
            else:
                entry = self._value(number, value)
            entries.add(number, parts[0], entry)
            if anchor:
                self.anchors[anchor] = entry
            line = self._next()
        return entries

    def _nested(self, lines: list[tuple[int, str]]) -> Any:
        return Block(lines, self.anchors, self.depth + 1).value()

    def _deeper(self, least: int = 0) -> list[tuple[int, str]]:
        """The next lines that are indented by at least ``least`` (0: as the first); [] if there are none."""
        end = filled = self._at
        while end < len(self._lines):
            number, text = self._lines[end]
            indent = _indent(text)
            if not is_empty(text):
                if indent == 0:
                    break
                least = least or indent
                if indent < least:
                    raise YamlProblem(number, "this line's indentation matches no line above it")
                filled = end + 1
            elif text.strip(_SPACES) and 0 < least <= indent:
                filled = end + 1  # a comment, or a line of a text block
            end += 1
        if filled == self._at:
            return []
        while filled < end and not self._lines[filled][1].strip(_SPACES):
            filled += 1
        taken, self._at = self._lines[self._at : filled], end
        return [(number, text[min(least, _indent(text)) :]) for number, text in taken]

    def _entries(self) -> list[tuple[int, str]]:
        """The next lines if they are a list with the indentation of the key above."""
        end = filled = self._at
        while end < len(self._lines):
            text = self._lines[end][1]
            if not is_empty(text):
                if not _indent(text) and not _ITEM.match(text):
                    break
                filled = end + 1
            end += 1
        if filled == self._at:
            return []
        taken, self._at = self._lines[self._at : end], end
        return taken

    def _value(self, number: int, text: str) -> Any:
        """The value that begins with ``text``; more lines are read as needed."""
        text = text[tag.end() :] if (tag := _TAG.match(text)) else text
        if _OBJECT.match(text):
            raise YamlProblem(number, f"tag '{text.split()[0][:40]}' is not allowed; put text in quotes")
        if text.startswith("*"):
            name = text[1:].split("#")[0].rstrip()
            if name not in self.anchors:
                raise YamlProblem(
                    number, f"alias '*{name[:40]}' has no complete anchor before it; put text in quotes"
                )
            return self.anchors[name]
        if header := _TEXT_BLOCK.match(text):
            return self._text_block(header[1] == ">", header[2])
        if text and text[0] in "[{\"'":
            return _Flow(self, number, text).whole()
        parts = [text, *self._continued()]
        return _plain("\n".join(parts).split(" #")[0])

    def _continued(self) -> Iterator[str]:
        """The further lines of a value without quotes."""
        margin = 0
        while self._at < len(self._lines):
            text = self._lines[self._at][1]
            indent = _indent(text)
            if not is_empty(text):
                if indent == 0:
                    break
                margin = margin or indent
            if margin and not (is_empty(text) and text.strip(_SPACES)):  # not a comment
                yield text[min(indent, margin) :]
            self._at += 1

    def _text_block(self, folded: bool, modifiers: str) -> str:
        """The lines of ``|`` or ``>``: up to one with less indentation than the first."""
        digits = modifiers.strip("+-")
        indent = int(digits[:9]) if digits else 0
        taken: list[str] = []
        while self._at < len(self._lines):
            text = self._lines[self._at][1]
            if text.strip(" "):
                indent = indent or _indent(text)
                if not indent or _indent(text) < indent:
                    break
            taken.append(text[indent:] if indent else "")
            self._at += 1
        if self._at < len(self._lines):
            taken += [""] if indent else ["", ""]
        if folded:
            pieces: list[str] = []
            for line in taken:
                if not line or line[0] == " ":
                    if pieces:
                        pieces[-1] = pieces[-1].rstrip(" ")
                    pieces.append(line + "\n")
                else:
                    pieces.append(line + " ")
            joined = "".join(pieces)
        else:
            joined = "\n".join(taken)
        if "+" in modifiers:
            return joined
        joined = joined.rstrip(_SPACES)
        return joined if "-" in modifiers or not taken else joined + "\n"


class _Flow:
    """A value in brackets or quotes, over one or more lines."""

    def __init__(self, block: Block, number: int, text: str) -> None:
        self._block = block
        self._number = self._first = number
        self._text = text
        self._pos = 0

    def whole(self) -> Any:
        value = self._value("", self._block.depth)
        rest = self._text[self._pos :].strip(_SPACES)
        if rest and not rest.startswith("#"):
            raise YamlProblem(
                self._number, f"'{rest[:40]}' follows the end of the value; put all of it in quotes"
            )
        return value

    def _more(self) -> None:
        line = self._block.next_line()
        if line is None:
            raise YamlProblem(
                self._first, f"what begins with {self._text[:1] or 'a bracket'} here is never closed"
            )
        self._number, self._text, self._pos = line[0], line[1].strip(" \t"), 0

    def _skip(self, characters: str) -> str:
        """The next character that is not one of those; skips line breaks and whole-line comments."""
        while True:
            while self._pos < len(self._text) and self._text[self._pos] in characters:
                self._pos += 1
            if self._pos < len(self._text):
                first = self._text[self._pos]
                if first != "#" or _FLOW_END.search(self._text, self._pos):
                    return first
            self._more()

    def _value(self, ends: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise YamlProblem(self._number, TOO_DEEP)
        first = self._text[self._pos]
        if first == "[":
            return self._list(depth)
        if first == "{":
            return self._map(depth)
        if first in "\"'":
            text = self._quoted(first)
            if ends and self._skip(" \t") not in ends:
                raise YamlProblem(self._number, f"after the quoted text one of '{ends}' must follow")
            return text
        return self._unquoted(ends)

    def _list(self, depth: int) -> list[tuple[int, Any]]:
        items: list[tuple[int, Any]] = []
        self._pos += 1
        while self._skip(" \t,") != "]":
            items.append((self._number, self._value(",]", depth + 1)))
        self._pos += 1
        return items

    def _map(self, depth: int) -> Map:
        entries = Map()
        self._pos += 1
        while (first := self._skip(" \t,")) != "}":
            number = self._number
            if first in "\"'":
                key = self._quoted(first)
                if self._skip(" \t") != ":":
                    raise YamlProblem(number, f"key '{key[:40]}' has no ':'")
            else:
                # "{a key: value}"; without a colon a blank ends the key: "{key value}".
                found = _FLOW_KEY.match(self._text, self._pos)
                if found is None:
                    raise YamlProblem(number, f"'{self._text[self._pos :][:40]}' is not a 'key: value'")
                key, self._pos = found[0].strip(_SPACES), found.end()
            empty = self._skip(" \t:") in ",}"
            entries.add(number, key, None if empty else self._value(",}", depth + 1))
        self._pos += 1
        return entries

    def _quoted(self, quote: str) -> str:
        parts: list[str] = []
        self._pos += 1
        while True:
            if quote == '"':
                found = _DOUBLE.match(self._text, self._pos)
                end = found.end() if found else self._pos
            else:
                end = self._pos
                while (end := self._text.find("'", end)) >= 0 and self._text[end : end + 2] == "''":
                    end += 2
                end = len(self._text) if end < 0 else end
            parts.append(self._text[self._pos : end])
            if end < len(self._text):
                self._pos = end + 1
                text = "\n".join(parts)
                return _unescape(text) if quote == '"' else text.replace("''", "'")
            self._more()

    def _unquoted(self, ends: str) -> Any:
        parts = []
        while True:
            found = re.compile(f"[^{re.escape(ends)}]*").match(self._text, self._pos)
            end = found.end() if found else self._pos
            part = self._text[self._pos : end]
            self._pos = end
            if end < len(self._text):
                break
            parts.append(part.split(" #")[0])
            self._more()
        text = "\n".join([*parts, part]).strip(_SPACES)
        if text.startswith("*") and text[1:] in self._block.anchors:
            return self._block.anchors[text[1:]]
        return _plain(text[tag.end() :] if (tag := _TAG.match(text)) else text)


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip(" "))


def is_empty(text: str) -> bool:
    """Whether a line or a value is blank or a comment."""
    rest = text.strip(_SPACES)
    return not rest or rest[0] == "#"


def _fault(text: str) -> str:
    """Error message for a line that begins neither an entry nor a key."""
    if text[0] == "\t":
        return "this line begins with a tab; indent with blanks"
    return f"'{text.strip()[:40]}' is neither a key nor an entry"


def _split(text: str) -> tuple[str, str] | None:
    """(key, rest) of a line that begins with a key."""
    if text[:1] in ("", " ", "\t", "[", "{"):
        return None
    if text[0] in "\"'":
        pattern = r'"((?:[^"\\]|\\.)*)" *:(?=\s|$)' if text[0] == '"' else r"'((?:[^']|'')*)' *:(?=\s|$)"
        quoted = re.match(pattern, text)
        if quoted is None:
            return None
        key = _unescape(quoted[1]) if text[0] == '"' else quoted[1].replace("''", "'")
        return key, text[quoted.end() :].strip(_SPACES)
    colon = re.compile(r":(?=\s|$)").search(text, 1)
    if colon is None or " #" in text[: colon.start()]:
        return None
    return text[: colon.start()].strip(_SPACES), text[colon.end() :].strip(_SPACES)


def _anchor(value: str) -> tuple[str, str]:
    """(name of the anchor or nothing, what follows it)."""
    found = _ANCHOR.match(value.strip(_SPACES))
    return (found[1], found[2]) if found else ("", value.strip(_SPACES))


def _plain(text: str) -> Plain | None:
    text = text.strip(_SPACES)
    return None if text.lower() in ("", "~", "null") else Plain(text)


def _unescape(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        if found[1]:
            return _ESCAPED[found[1]]
        digits = found[2] or found[3] or found[4]
        code = int(digits, 16) if digits else None
        return "" if code is None else chr(code) if code < 0x110000 else found[0]

    # Characters beyond U+FFFF may be written as two, as JSON has them.
    text = _ESCAPE.sub(character, text)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
