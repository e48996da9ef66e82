"""Sessions that are submitted whole: from a webMUSHRA client, or from its CSV."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from mushra.store import schema
from mushra.store.pages import Rating
from mushra.store.records import Refused, add_ratings, ensure_test, replace_answers, sha256

#: Fields of a rating by type of page (all others: an answer); they are part of a session's digest.
_KNOWN: dict[str, tuple[str, ...]] = {
    "mushra": ("score",),
    "paired_comparison": ("reference", "answer"),
    "bs1116": ("reference", "score", "reference_score"),
}


@dataclass(frozen=True)
class WholePage:
    """One page of a finished session."""

    trial: str
    type: str
    training: bool
    ratings: list[Rating]


@dataclass(frozen=True)
class WholeSession:
    """A finished session.

    Attributes:
        kind: "webmushra" or "import".
        uuid: the client's name for the session; None: none.
        place: in the imported file; distinguishes the session from an equal one without uuid.
    """

    test: str
    kind: str
    uuid: str | None
    answers: list[tuple[str, str]]
    pages: list[WholePage]
    place: int | None = None

    def digest(self) -> str:
        """Hash that identifies the session, so that it is stored once. Stored, so it must not change."""
        listed = []
        for page in self.pages:
            known = ("stimulus", "time_ms", "comment", *_KNOWN.get(page.type, ("answer",)))
            rows = [{name: getattr(rating, name) for name in known} for rating in page.ratings]
            listed.append((page.trial, page.type, rows))
        who = ["import", self.uuid or self.place] if self.kind == "import" else [self.uuid]
        return sha256(f"{self.test}\0{json.dumps([*who, self.answers, listed], sort_keys=True)}")


def add_submission(connection: sa.Connection, whole: WholeSession, person: str | None) -> bool:
    """Store a webMUSHRA client's session if the test admits it; False if it is stored already.

    Args:
        person: identifies the listener, if each person gets one session only.

    Raises:
        Refused: the test is closed, the person has had a session, or another session has this uuid.
    """
    sessions = schema.sessions
    test = _locked_test(connection, whole.test)
    if _is_there(connection, sessions.c.content_sha256 == whole.digest()):
        return False
    if test.closed:
        raise Refused("closed", "This listening test is closed. Thank you for your interest.")
    theirs = (sessions.c.test == whole.test) & (sessions.c.person == person)
    if person is not None and _is_there(connection, theirs):
        raise Refused("already_done", "You have already taken this listening test. Thank you!")
    # The uuid identifies the listener: a submission must not become part of another's results.
    same = (sessions.c.uuid == whole.uuid) | (sessions.c.id == whole.uuid)
    if whole.uuid is not None and _is_there(connection, same):
        raise Refused("uuid_taken", "Other results are stored under this session's uuid already.")
    return add_whole(connection, whole, person)


def add_whole(connection: sa.Connection, whole: WholeSession, person: str | None = None) -> bool:
    """Store a session with all its pages; False if it is stored already."""
    sessions, tests = schema.sessions, schema.tests
    begun = _locked_test(connection, whole.test).begun
    if _is_there(connection, sessions.c.content_sha256 == whole.digest()):
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
            content_sha256=whole.digest(),
        )
    )
    replace_answers(connection, session, whole.answers)
    pages: list[dict[str, Any]] = []
    for position, page in enumerate(whole.pages):
        here = {"session": session, "page": f"p{position + 1}", "trial": page.trial, "type": page.type}
        spent = max((rating.time_ms or 0 for rating in page.ratings), default=0)
        state = {"training": page.training, "revision": 1, "result": "{}", "saved_at": now}
        pages.append({**here, **state, "position": position, "time_ms": spent})
    if pages:
        connection.execute(schema.pages.insert(), pages)
    for position, page in enumerate(whole.pages):
        add_ratings(connection, session, f"p{position + 1}", page.trial, page.type, page.ratings)
    return True


def _locked_test(connection: sa.Connection, test: str) -> sa.Row[Any]:
    """The row of a test, made if there is none; no other session begins until this transaction ends."""
    ensure_test(connection, test)
    tests = schema.tests
    return connection.execute(sa.select(tests).where(tests.c.test == test).with_for_update()).one()


def _is_there(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> bool:
    return connection.execute(sa.select(schema.sessions.c.id).where(condition)).first() is not None
