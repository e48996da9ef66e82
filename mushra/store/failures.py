"""Failures of a data base, in words, and whether they may be temporary."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from qincodec.core.errors import UserError, one_line, said

LOCKED = "another program has locked the data base"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
#: Errors that foreign content of a data base may cause.
_STRANGE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, OSError)


class StoreUnavailable(UserError):
    """Nothing can be stored now: disk full, data base unavailable or locked. Keep the data and try again.

    Attributes:
        summary: text that everybody may read; the message has the data base's own words, if there are any.
        passing: whether it may end without an action of the experimenter.
    """

    def __init__(self, summary: str, detail: str = "", *, passing: bool = True) -> None:
        super().__init__(detail or summary)
        self.summary = summary
        self.passing = passing


@contextmanager
def store_errors(name: str) -> Iterator[None]:
    """Convert errors of a data base that another program has changed to one line.

    Raises:
        StoreUnavailable: it cannot be read now.
        UserError: it cannot be read, or has content that this package does not write.
    """
    try:
        yield
    except (SQLAlchemyError, StoreUnavailable) as error:
        cause = one_line(str(getattr(error, "orig", error)))
        if isinstance(error, StoreUnavailable) and error.passing:
            raise StoreUnavailable(error.summary, f"{name} cannot be read now: {cause}") from error
        raise UserError(
            f"{name} cannot be read as a data base of `mushra serve`: {cause}; check the file"
        ) from error
    except _STRANGE as error:
        raise UserError(
            f"{name} has content that `mushra serve` does not write ({said(error)}); give a data base"
            " that no other program has changed"
        ) from error


def worth_a_retry(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    return error.connection_invalidated or state in ("40001", "40P01") or state is None


def sqlite_code(error: Exception) -> int:
    """SQLite's primary code of an error; 0 if it has none."""
    return int(getattr(getattr(error, "orig", error), "sqlite_errorcode", 0)) & 0xFF


def explained(error: SQLAlchemyError | sqlite3.Error) -> Exception:
    """The error to raise for an error of the data base; the same one if it is not a failure of it."""
    text = one_line(str(getattr(error, "orig", error)).strip().partition("\n")[0])
    lower = text.lower()
    state = str(getattr(getattr(error, "orig", None), "sqlstate", "") or "")
    if "full" in lower or "no space" in lower or state == "53100":
        return StoreUnavailable("the disk is full; free some space; confirmed answers are not lost")
    if sqlite_code(error) == sqlite3.SQLITE_READONLY:
        return StoreUnavailable(
            "the file or its folder is read-only, but SQLite needs to write beside the file; copy it to a"
            " folder in which you may write, or change its permissions",
            passing=False,
        )
    if sqlite_code(error) in _DAMAGED:
        return StoreUnavailable(f"{text}; the file is damaged: put a backup in its place", passing=False)
    if sqlite_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or state == "55P03":
        return StoreUnavailable(LOCKED, text)
    # 25006: a replica that does not (yet) accept writes.
    if isinstance(error, OperationalError | sqlite3.Error) or state.startswith(("08", "53", "57", "25006")):
        return StoreUnavailable(
            "the data base cannot be used", text, passing=sqlite_code(error) != sqlite3.SQLITE_ERROR
        )
    return error
