"""Errors meant for the person at the keyboard, and the exit codes that go with them."""

from __future__ import annotations

import reprlib

#: Exit codes of every command of the project.
EXIT_OK = 0
EXIT_USER_ERROR = 2
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """Something the user can mend.

    The message is one line: what is wrong, what was given, what is allowed, what to do next. Commands
    print it to stderr without a traceback and exit with 2.
    """


class Unavailable(UserError):
    """A known codec, metric or data set that cannot run here; the message says why and what mends it."""


def shown(value: object) -> str:
    """A value out of somebody's file for a message: cut to a line's part, whatever it is."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a whole number of thousands of digits
        return f"a {type(value).__name__} too long to show"


def check_whole(name: str, value: object, least: int, most: int) -> int:
    """``value``, a whole number from ``least`` to ``most``. Raises UserError, with its name and the range."""
    if type(value) is not int or not least <= value <= most:
        raise UserError(f"{name} must be a whole number from {least} to {most}, got {shown(value)}")
    return value
