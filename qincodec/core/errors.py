"""Errors for users, and their exit codes."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Sequence

#: Exit codes of every command of the project, other than 0.
EXIT_USER_ERROR = 2
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """Something the user can correct.

    The message is one line: what is wrong, what was given, what is allowed, what to do next. Commands
    print it to stderr without a traceback and exit with 2.
    """


class Unavailable(UserError):
    """A known codec, metric or data set that cannot run here; the message says why and what to do."""


def one_line(text: str, most: int = 5000) -> str:
    """A message that may contain names or foreign text, as one line that any encoding and file can hold."""
    text = " ".join(text[: 4 * most].split()).encode("utf-8", "backslashreplace").decode()
    text = escaped(text)
    return text if len(text) <= most else f"{text[:most]}..."


def escaped(text: str) -> str:
    """``text`` with line ends and control characters of a terminal escaped, as ``\\n`` and the like."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: ascii(match[0])[1:-1], text)


def count(number: int, what: str) -> str:
    """``1 item``, ``2,288 ratings``: a number with its noun."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def said(error: BaseException) -> str:
    """Type and message of an error of a third-party part, as one line."""
    try:
        text = one_line(str(error), 1000)
    except Exception:
        text = "its message cannot be shown"
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def shown(value: object) -> str:
    """Any value from a user's file for a message, cut to a part of a line."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a whole number of thousands of digits
        return f"a {type(value).__name__} too long to show"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Part of a message, such as "did you mean opus or mp3? "; empty if no known name is similar."""
    as_known = {one.lower(): one for one in known}
    close = [as_known[one] for one in difflib.get_close_matches(name.lower(), as_known, n=3, cutoff=0.5)]
    return f"did you mean {' or '.join(close)}? " if close else ""


def unknown(kind: str, name: str, known: Sequence[str]) -> UserError:
    """The error of an unknown name; ``kind`` is the kind of thing it should name ("codec")."""
    return UserError(f"unknown {kind} '{name}': {did_you_mean(name, known)}allowed are {', '.join(known)}")


def check_whole(name: str, value: object, least: int, most: int) -> int:
    """``value``, a whole number from ``least`` to ``most``. Raises UserError, with its name and the range."""
    if type(value) is not int or not least <= value <= most:
        raise UserError(f"{name} must be a whole number from {least} to {most}, got {shown(value)}")
    return value
