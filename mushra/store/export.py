"""Exports of a data base: webMUSHRA's CSV files, tidy CSV, JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from mushra.config.key import NO_KEY, Key, read_key
from mushra.store import schema
from mushra.store.failures import store_errors
from mushra.store.gold import GoldResult, gold_results
from mushra.store.pages import Rating, pages_from_json
from mushra.store.php_csv import csv_text, number_text
from mushra.store.ratings import read_ratings, stored_ratings
from mushra.store.store import Store
from mushra.store.webmushra_csv import CHOICES, csv_files, rated_rows
from mushra.store.webmushra_csv import import_csv as import_csv
from qincodec import __version__
from qincodec.core.errors import UserError, count
from qincodec.core.files import write_atomic

Format = Literal["webmushra", "tidy", "json"]
EXPORT_FORMAT = 1


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        not_given: number of scores that nobody gave (`mushra.store.given`); the files do not have them.
    """

    files: tuple[Path, ...]
    sessions: int
    left_out: int
    not_given: int = 0


def export(
    store: Store,
    out: Path,
    kind: Format,
    *,
    key: Path | None = None,
    test: str | None = None,
    everything: bool = False,
) -> Exported:
    """Write the results of a data base.

    Args:
        out: folder for the files; for "tidy" and "json" a name that ends in ``.csv`` or ``.json`` is a file.
        kind: "webmushra": ``<test>/<kind>.csv`` for each kind of page, without scores that nobody gave,
            because these files cannot mark them; "tidy": ``ratings.csv``, one row per MUSHRA rating; "json":
            ``results.json``, everything, with the configuration and versions.
        key: ``key.json`` of the test, which replaces opaque names by those of conditions.
        test: export only this test.
        everything: also unfinished and excluded sessions, training, gold ("json" always has them, marked).

    Raises:
        UserError: there is nothing to export, or ``out`` cannot be written.
    """
    contents = render(store, kind, key=key, test=test, everything=everything)
    sessions = schema.sessions
    with store_errors(store.name), store.read() as connection:
        found = connection.execute(sa.select(sessions.c.test, sessions.c.state, sessions.c.excluded_at)).all()
    rows = [row for row in found if test in (None, row.test)]
    if found and not rows:
        held = ", ".join(sorted({row.test for row in found}))
        raise UserError(
            f"'{store.name}' has no sessions of test {test}, only of {held}; name that test, or"
            " its data base with --database"
        )
    counted = sum(row.state == "finished" and row.excluded_at is None for row in rows)
    used = len(rows) if everything or kind == "json" else counted
    if not contents or not used:
        others = f" (not finished or excluded: {count(len(rows), 'session')}, which --all exports)"
        raise UserError(
            f"'{store.name}' has no {'results' if everything else 'finished sessions'} to export"
            + (others if rows and not used else "")
        )
    files = []
    for name, text in contents.items():
        single = kind != "webmushra" and out.suffix == Path(name).suffix
        path = out if single else out / name
        write_atomic(path, text)
        files.append(path)
    not_given = len(rated_rows(store, test, everything)[1]) if kind == "webmushra" else 0
    return Exported(tuple(files), used, len(rows) - used, not_given)


def render(
    store: Store, kind: Format, *, key: Path | None = None, test: str | None = None, everything: bool = False
) -> dict[str, str]:
    """Files of `export`: relative path -> content. Raises `UserError` if the data base cannot be read."""
    with store_errors(store.name):
        return _render(store, kind, key, test, everything)


def _render(
    store: Store, kind: Format, key: Path | None, test: str | None, everything: bool
) -> dict[str, str]:
    if kind == "webmushra":
        return csv_files(store, read_key(key) if key else NO_KEY, test, everything)
    if kind == "json":
        content = document(store, key=key, test=test)
        return {"results.json": json.dumps(content, indent=1, ensure_ascii=False) + "\n"}
    frame = read_ratings(store, key=key, test=test, everything=everything)
    if frame.empty:
        return {}
    cells = [list(frame.columns)]
    cells += [[_cell(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    return {"ratings.csv": csv_text(cells)}


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return number_text(value) if isinstance(value, float | int) else str(value)


# JSON

#: Fields of a rating in a session's page, if known.
_SAID = tuple(field.name for field in fields(Rating))


def document(
    store: Store, *, key: Path | None = None, test: str | None = None, session: str | None = None
) -> dict[str, Any]:
    """Everything about tests and their sessions (or one session), for `json.dumps`.

    ``ratings`` has the tidy rows of all MUSHRA pages; ``sessions`` has each session with its pages as they
    were sent. Keys and tokens are left out.
    """
    names = read_key(key) if key is not None else NO_KEY
    tests, configs, sessions = schema.tests, schema.configs, schema.sessions
    with store.read() as connection:
        test_rows = connection.execute(sa.select(tests).order_by(tests.c.test)).all()
        config_rows = connection.execute(sa.select(configs).order_by(configs.c.served_at)).all()
        chosen = sa.select(sessions).order_by(sessions.c.test, sessions.c.number)
        if session is not None:
            chosen = chosen.where(sessions.c.id == session)
        if test is not None:
            chosen = chosen.where(sessions.c.test == test)
        session_rows = connection.execute(chosen).all()
        gold = gold_results(connection, test=test, sessions=None if session is None else [session])
        described = [_session(connection, row, names, gold.get(row.id)) for row in session_rows]
    ratings = read_ratings(store, key=key, test=test, session=session, everything=True)
    used = {row.test for row in session_rows}
    return {
        "format": EXPORT_FORMAT,
        "program": f"qincodec {__version__}",
        "exported_at": _time(datetime.now(UTC).timestamp()),
        "tests": [
            {
                "test": row.test,
                "name": row.name,
                "configs": [
                    {
                        "sha256": config.sha256,
                        "served_at": _time(config.served_at),
                        "yaml": config.yaml,
                        "versions": json.loads(config.versions),
                    }
                    for config in config_rows
                    if config.test == row.test
                ],
            }
            for row in test_rows
            if row.test in used
        ],
        "sessions": described,
        "ratings": [
            {name: None if value != value else value for name, value in record.items()}
            for record in ratings.astype(object).to_dict("records")
        ],
    }


def _session(connection: sa.Connection, row: Any, key: Key, gold: GoldResult | None) -> dict[str, Any]:
    pages, answers = schema.pages, schema.answers
    saved = connection.execute(
        sa.select(pages).where(pages.c.session == row.id).order_by(pages.c.position)
    ).all()
    rated = stored_ratings(connection, sessions=[row.id])
    asked = connection.execute(
        sa.select(answers).where(answers.c.session == row.id).order_by(answers.c.position)
    )
    own, panel = pages_from_json(row.plan), json.loads(row.prolific or "null")
    marks = {"gold_asked": gold.asked, "gold_failed": [list(one) for one in gold.failed]} if gold else {}
    gold_pages = gold.pages if gold else frozenset()
    return {
        "session": row.id,
        "test": row.test,
        "kind": row.kind,
        "person": row.person if row.kind != "anonymous" else None,
        "panel" if row.kind == "panel" else "prolific": panel,
        "uuid": row.uuid,
        "number": row.number,
        "slot": row.slot,
        "language": row.language,
        "state": row.state,
        "begun_at": _time(row.created_at),
        "finished_at": _time(row.finished_at),
        "config": row.config,
        "client": json.loads(row.client or "{}"),
        "excluded": row.excluded_at is not None,
        "excluded_reason": row.excluded_reason,
        **marks,
        "answers": [{"name": answer.name, "value": answer.value} for answer in asked],
        "pages": [
            {
                "page": page.page,
                "trial": page.trial,
                "type": page.type,
                "training": page.training and page.trial not in gold_pages,
                **({"gold": page.trial in gold_pages} if gold else {}),
                "revision": page.revision,
                "time_ms": page.time_ms,
                "saved_at": _time(page.saved_at),
                "signals": {
                    signal: key.condition(page.trial, name)
                    for signal, name in (own[page.page].conditions if page.page in own else {}).items()
                },
                # Version 1 stored numbers that JSON cannot represent.
                "result": json.loads(page.result, parse_constant=str),
                "ratings": [
                    {
                        **{name: v for name in _SAID if (v := getattr(rating, name)) is not None},
                        **_opened(page.type, page.trial, rating, key),
                    }
                    for rating in rated
                    if rating.page == page.page
                ],
            }
            for page in saved
        ],
    }


def _opened(kind: str, trial: str, rating: Rating, key: Key) -> dict[str, str]:
    """Fields of a rating that name signals, with the names in the key."""
    names: dict[str, str | None] = {"stimulus": rating.stimulus}
    if kind in CHOICES:
        names |= {"reference": rating.reference, "answer": rating.answer}
    return {what: key.condition(trial, name) for what, name in names.items() if name is not None}


def _time(seconds: float | None) -> str | None:
    return (
        None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    )
