"""Sessions that come in one piece: from a webMUSHRA client, or from its CSV."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from mushra.server import schema
from mushra.server.records import ensure_test, replace_answers, sha256

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
class WholeSession:
    """A finished session.

    Attributes:
        kind: "webmushra" or "import".
        uuid: what the client called the session; None: nothing.
        pages: (trial, type, what is known of each of its rows of `schema.ratings`).
        content: what tells it from others; the same content is stored once.
    """

    test: str
    kind: str
    uuid: str | None
    answers: list[tuple[str, str]]
    pages: list[tuple[str, str, list[dict[str, Any]]]]
    content: str


def add_whole(connection: sa.Connection, whole: WholeSession) -> bool:
    """Store a session with all its pages; False if it is there already."""
    sessions, tests = schema.sessions, schema.tests
    digest = sha256(f"{whole.test}\0{whole.content}")
    ensure_test(connection, whole.test)
    begun = connection.execute(
        sa.select(tests.c.begun).where(tests.c.test == whole.test).with_for_update()
    ).scalar_one()
    known = sa.select(sessions.c.id).where(sessions.c.content_sha256 == digest)
    if connection.execute(known).first() is not None:
        return False
    connection.execute(sa.update(tests).where(tests.c.test == whole.test).values(begun=begun + 1))
    now = time.time()
    session = str(uuid4())
    connection.execute(
        sessions.insert().values(
            id=session,
            test=whole.test,
            kind=whole.kind,
            number=begun,
            state="finished",
            created_at=now,
            seen_at=now,
            finished_at=now,
            uuid=whole.uuid,
            content_sha256=digest,
        )
    )
    replace_answers(connection, session, whole.answers)
    pages: list[dict[str, Any]] = []
    ratings: list[dict[str, Any]] = []
    for position, (trial, kind, rows) in enumerate(whole.pages):
        here = {"session": session, "page": f"p{position + 1}", "trial": trial, "type": kind}
        spent = max((row["time_ms"] or 0 for row in rows), default=0)
        state = {"training": False, "revision": 1, "result": "{}", "saved_at": now}
        pages.append({**here, **state, "position": position, "time_ms": spent})
        ratings += [{**_EMPTY, **row, **here, "position": n} for n, row in enumerate(rows)]
    if pages:
        connection.execute(schema.pages.insert(), pages)
    if ratings:
        connection.execute(schema.ratings.insert(), ratings)
    return True
