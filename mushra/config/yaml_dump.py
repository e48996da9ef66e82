"""Write YAML that yaml.js, webMUSHRA's parser, reads as the same values as every other parser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from mushra.config.yaml_js import Plain


def dump(value: dict[str, Any]) -> str:
    """A document that yaml.js and every YAML parser read as ``value``.

    yaml.js takes a list that begins on another list's line for text, does not fold lines, and does not know
    escapes of characters beyond U+007F. So every list begins on a line of its own, and text that is not
    plainly a word is quoted on one line.

    Args:
        value: dicts with text keys, lists, text (`Plain` as it was read), numbers, bool, None.
    """
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _entry(f"{_scalar(key)}:", inner)
    elif isinstance(value, list) and value:
        for inner in value:
            if isinstance(inner, dict) and inner:
                first, *rest = _lines(inner)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)
            else:
                yield from _entry("-", inner)
    else:
        yield _scalar(value)


def _entry(head: str, inner: Any) -> Iterator[str]:
    if isinstance(inner, dict | list) and inner:
        yield head
        yield from (f"  {line}" for line in _lines(inner))
    else:
        yield f"{head} {_scalar(inner)}"


#: Text that needs no quotes: not a number, a date, or a word that YAML 1.1 takes for a value.
_WORD = re.compile(
    r"(?!(?:y|n|yes|no|on|off|true|false|null|nan|inf|infinity)$)[a-z](?:[\w ,.()/+-]*[\w)])?",
    re.IGNORECASE | re.ASCII,
)


#: A value without quotes that stays one wherever it is written: `true`, `yes`, `1.50`, `007`.
_BARE = re.compile(r"[+-]?[\w.]*\w", re.ASCII)


def _scalar(value: Any) -> str:
    if isinstance(value, Plain) and _BARE.fullmatch(value):
        return str(value)
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, float) and "." not in text:
            return text.replace("e", ".0e")  # without a point it is text in YAML 1.1
        # "#" would be a comment to yaml.js even in a quoted key; the others are line breaks to YAML 1.1.
        for character, escape in (
            ("#", "x23"),
            ("\x7f", "x7f"),
            ("\x85", "N"),
            ("\u2028", "L"),
            ("\u2029", "P"),
        ):
            text = text.replace(character, f"\\{escape}")
        return text
    return value
