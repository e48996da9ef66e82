"""Errors meant for the person at the keyboard, and the exit codes that go with them."""

from __future__ import annotations

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
