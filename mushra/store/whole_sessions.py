"""Sessions that come in one piece: from a webMUSHRA client, or from its CSV."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from mushra.store import schema
from mushra.store.records import Refused, ensure_test, replace_answers, sha256

_EMPTY: dict[str, Any] = {
    "reference": None,
    "score": None,
    "reference_score": None,
    "answer": None,
    "time_ms": None,
    "comment": "",
    "detail": None,
}


@dataclass(frozen=True)
class WholePage:
    """One page of a finished session; ``rows`` is what is known of each of its rows of `schema.ratings`."""

    trial: str
    type: str
    training: bool
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class WholeSession:
    """A finished session.

    Attributes:
        kind: "webmushra" or "import".
        uuid: what the client called the session; None: nothing.
        content: what tells it from others; the same content is stored once.
    """

    test: str
    kind: str
    uuid: str | None
    answers: list[tuple[str, str]]
    pages: list[WholePage]
    content: str


def add_submission(connection: sa.Connection, whole: WholeSession, person: str | None) -> bool:
    """Store what a webMUSHRA client sent, as `records.begin` admits listeners; False if it is there already.

    Args:
        person: what the listener is known by, where one session is all that each gets.

    Raises:
        Refused: the test is closed, the person has had their session, or another session has that uuid.
    """
    sessions, tests = schema.sessions, schema.tests
    ensure_test(connection, whole.test)
    closed = connection.execute(
        sa.select(tests.c.closed).where(tests.c.test == whole.test).with_for_update()
    ).scalar_one()
    if _is_known(connection, whole):
        return False
    if closed:
        raise Refused("closed", "This listening test is closed. Thank you for your interest.")
    theirs = (sessions.c.test == whole.test) & (sessions.c.person == person)
    if person is not None and connection.execute(sa.select(sessions.c.id).where(theirs)).first() is not None:
        raise Refused("already_done", "You have already taken this listening test. Thank you!")
    # Listeners are told apart by these: a submission must not become part of another's results.
    same = (sessions.c.uuid == whole.uuid) | (sessions.c.id == whole.uuid)
    if (
        whole.uuid is not None
        and connection.execute(sa.select(sessions.c.id).where(same)).first() is not None
    ):
        raise Refused("uuid_taken", "Other results are stored under this session's uuid already.")
    return add_whole(connection, whole, person)


def add_whole(connection: sa.Connection, whole: WholeSession, person: str | None = None) -> bool:
    """Store a session with all its pages; False if it is there already."""
    sessions, tests = schema.sessions, schema.tests
    ensure_test(connection, whole.test)
    begun = connection.execute(
        sa.select(tests.c.begun).where(tests.c.test == whole.test).with_for_update()
    ).scalar_one()
    if _is_known(connection, whole):
        return False
    connection.execute(sa.update(tests).where(tests.c.test == whole.test).values(begun=begun + 1))
    now = time.time()
    session = str(uuid4())
    connection.execute(
        sessions.insert().values(
            id=session,
            test=whole.test,
            kind=whole.kind,
            person=person,
            number=begun,
            state="finished",
            created_at=now,
            seen_at=now,
            finished_at=now,
            uuid=whole.uuid,
            content_sha256=_digest(whole),
        )
    )
    replace_answers(connection, session, whole.answers)
    pages: list[dict[str, Any]] = []
    ratings: list[dict[str, Any]] = []
    for position, page in enumerate(whole.pages):
        here = {"session": session, "page": f"p{position + 1}", "trial": page.trial, "type": page.type}
        spent = max((row["time_ms"] or 0 for row in page.rows), default=0)
        state = {"training": page.training, "revision": 1, "result": "{}", "saved_at": now}
        pages.append({**here, **state, "position": position, "time_ms": spent})
        ratings += [{**_EMPTY, **row, **here, "position": n} for n, row in enumerate(page.rows)]
    if pages:
        connection.execute(schema.pages.insert(), pages)
    if ratings:
        connection.execute(schema.ratings.insert(), ratings)
    return True


def _digest(whole: WholeSession) -> str:
    return sha256(f"{whole.test}\0{whole.content}")


def _is_known(connection: sa.Connection, whole: WholeSession) -> bool:
    known = sa.select(schema.sessions.c.id).where(schema.sessions.c.content_sha256 == _digest(whole))
    return connection.execute(known).first() is not None
