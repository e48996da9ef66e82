"""Changes of sessions for `Store.write`: begin, save, finish, erase.

Every function takes a connection inside a transaction, and either does all of its work or raises.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from mushra.config.crowd import block_of
from mushra.store import schema
from mushra.store.pages import Checked, Rating, SessionPage, pages_from_json, pages_to_json, storable

#: Seconds after which a session that is not seen counts as dropped, unless its test sets another time. Its
#: place in the balanced order is then given to another listener.
DROPPED_AFTER_S = 2 * 3600.0

#: Key of the shown completion code, in the session's data about the browser.
CODE = "completion_code"
#: Types of pages without a result that a finished session needs.
_OPTIONAL = ("generic", "volume")


class Refused(Exception):
    """The listener cannot have a session. ``code`` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unknown(Exception):
    """The session does not exist; it may have been erased."""


class Conflict(Exception):
    """A change that contradicts the stored data. ``code`` is for programs, the message for people.

    "finished": the session is finished. "missing": it cannot be finished yet; ``missing`` has the pages.
    "saved_elsewhere": another browser has saved the page.
    """

    def __init__(self, code: str, message: str, missing: list[str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.missing = missing or []


@dataclass(frozen=True)
class Places:
    """Planned sessions of a test.

    Attributes:
        slots: number of slots; a slot is a block and a row of the balanced order, see
            `mushra.config.crowd.block_of`.
        blocks: number of blocks.
        quota: most sessions of each block, finished or running; None: any number.
        dropped_after_s: seconds after which a session that is not seen counts as dropped.
    """

    slots: int
    blocks: int = 1
    quota: int | None = None
    dropped_after_s: float = DROPPED_AFTER_S


@dataclass(frozen=True)
class Arrival:
    """A listener who wants to begin a test.

    Attributes:
        test: its id.
        kind: "anonymous", "invitation", "prolific" or "panel".
        person: identifies the listener on later visits; None: unknown.
        key_sha256: hash of the key that the browser will send.
        invitation: hash of the token.
        panel: parameters of Prolific (pid, study, session) or of another panel (person, session).
        known: whether the identity is proved, so that the listener may continue a running session.
        once: whether a person who has finished cannot begin again.
        places: planned sessions.
    """

    test: str
    kind: str
    key_sha256: str
    config: str
    places: Places
    language: str
    client: dict[str, Any] = field(default_factory=dict)
    person: str | None = None
    invitation: str | None = None
    panel: dict[str, str] | None = None
    known: bool = True
    once: bool = False


def sha256(text: str) -> str:
    """Hash under which a key or token is stored."""
    return hashlib.sha256(text.encode()).hexdigest()


def ensure_test(connection: sa.Connection, test: str, name: str | None = None) -> None:
    """Make the row of a test. Its name is the last one that was given, or its id if there was none."""
    table = schema.tests
    known = connection.execute(sa.select(table.c.name).where(table.c.test == test)).scalar()
    if known is not None:
        if name not in (None, known):
            connection.execute(sa.update(table).where(table.c.test == test).values(name=name))
        return
    values = {"test": test, "name": name or test, "closed": False, "begun": 0, "created_at": time.time()}
    schema.insert_once(connection, table, values)


def ensure_config(connection: sa.Connection, test: str, yaml: str, versions: Mapping[str, Any]) -> str:
    """Store a configuration that is served now; returns its hash."""
    content = json.dumps(versions, sort_keys=True)
    digest = hashlib.sha256(f"{yaml}\0{content}".encode()).hexdigest()
    table = schema.configs
    if connection.execute(sa.select(table.c.sha256).where(table.c.sha256 == digest)).first() is None:
        values = {"sha256": digest, "test": test, "yaml": yaml, "versions": content, "served_at": time.time()}
        schema.insert_once(connection, table, values)
    return digest


# Sessions of our own page


def begin(
    connection: sa.Connection, arrival: Arrival, pages_of: Callable[[int, int], list[SessionPage]]
) -> tuple[str, bool]:
    """Session of an arriving listener: the running one or a new one.

    Args:
        pages_of: (number, slot) -> the session's pages.

    Returns:
        Id of the session; whether it is new.

    Raises:
        Refused: the test is closed or full, the invitation is unknown or used, or the listener has had the
            only session that each person gets.
    """
    tests, sessions = schema.tests, schema.sessions
    # Locks the test's row, so that numbers, slots and invitations are assigned one after the other.
    row = connection.execute(
        sa.select(tests.c.closed, tests.c.begun).where(tests.c.test == arrival.test).with_for_update()
    ).one()
    running = _running(connection, arrival)
    if running is not None:
        _add_key(connection, running, arrival.key_sha256)
        return running, False
    if row.closed:
        raise Refused("closed", "This listening test is closed. Thank you for your interest.")
    slot = _free_slot(connection, arrival.test, arrival.places)
    pages = pages_of(row.begun, slot)
    now = time.time()
    session = str(uuid4())
    connection.execute(sa.update(tests).where(tests.c.test == arrival.test).values(begun=row.begun + 1))
    connection.execute(
        sessions.insert().values(
            id=session,
            test=arrival.test,
            kind=arrival.kind,
            person=arrival.person,
            number=row.begun,
            slot=slot,
            language=arrival.language,
            state="running",
            created_at=now,
            seen_at=now,
            config=arrival.config,
            plan=pages_to_json(pages),
            client=json.dumps(arrival.client),
            prolific=json.dumps(arrival.panel) if arrival.panel else None,
        )
    )
    _add_key(connection, session, arrival.key_sha256)
    if arrival.invitation is not None:
        table = schema.invitations
        where = table.c.token_sha256 == arrival.invitation
        connection.execute(sa.update(table).where(where).values(session=session, used_at=now))
    return session, True


def _running(connection: sa.Connection, arrival: Arrival) -> str | None:
    """The person's running session, if any."""
    if arrival.kind == "invitation":
        table = schema.invitations
        where = (table.c.token_sha256 == arrival.invitation) & (table.c.test == arrival.test)
        invitation = connection.execute(sa.select(table).where(where)).first()
        if invitation is None:
            raise Refused("invitation_unknown", "This invitation is unknown. Please ask for a new link.")
        if invitation.used_at is None:
            return None
        if invitation.session is None or _state(connection, invitation.session) == "finished":
            raise Refused("invitation_used", "This invitation has been used: the test was taken. Thank you!")
        return str(invitation.session)
    if arrival.person is None:
        return None
    sessions = schema.sessions
    columns = (sessions.c.number, sessions.c.id, sessions.c.state, sessions.c.seen_at, sessions.c.prolific)
    theirs = (sessions.c.test == arrival.test) & (sessions.c.person == arrival.person)
    # Sorted here: to sort them, SQLite would read the whole test by its numbers.
    found = sorted(connection.execute(sa.select(*columns).where(theirs)), key=lambda row: -row.number)
    for row in found:
        # A panel gives a returning person a new session id. The old session continues only if it is the only
        # one.
        same = arrival.once or json.loads(row.prolific or "{}") == (arrival.panel or {})
        if row.state == "finished" and same:
            raise Refused("already_done", "You have already taken this listening test. Thank you!")
        if row.state != "running" or not same:
            continue
        if arrival.known:
            return str(row.id)
        # A listener with another's name in the address must not see the other's answers. The browser that
        # began the session has its key and does not come here.
        if arrival.once and row.seen_at > time.time() - arrival.places.dropped_after_s:
            raise Refused("elsewhere", "You have begun this test in another browser; please continue there.")
    return None


def _state(connection: sa.Connection, session: str, *, lock: bool = False) -> str:
    """Raises `Unknown`."""
    table = schema.sessions
    query = sa.select(table.c.state).where(table.c.id == session)
    state = connection.execute(query.with_for_update() if lock else query).scalar()
    if state is None:
        raise Unknown
    return str(state)


def _add_key(connection: sa.Connection, session: str, key_sha256: str) -> None:
    connection.execute(schema.session_keys.insert().values(key_sha256=key_sha256, session=session))


def _free_slot(connection: sa.Connection, test: str, places: Places) -> int:
    """Slot of the block with the fewest finished or running sessions, and in it of the row with the fewest.

    The first one if there are several. Raises `Refused` if all blocks have their quota.
    """
    table = schema.sessions
    counted = (table.c.state == "finished") | (table.c.seen_at > time.time() - places.dropped_after_s)
    rows = connection.execute(
        sa.select(table.c.slot, sa.func.count())
        .where((table.c.test == test) & table.c.slot.is_not(None) & table.c.excluded_at.is_(None) & counted)
        .group_by(table.c.slot)
    ).all()
    counts = {int(slot): int(count) for slot, count in rows}
    taken = [0] * places.blocks
    for slot, number in counts.items():
        taken[block_of(slot, places.blocks)] += number
    block = min(range(places.blocks), key=lambda block: taken[block])
    if places.quota is not None and taken[block] >= places.quota:
        raise Refused("full", "This listening test has all the listeners it needs. Thank you!")
    own = range(block, places.slots, places.blocks)
    free = next((slot for slot in own if slot not in counts), None)
    return min(own, key=lambda slot: counts[slot]) if free is None else free


def is_session_id(text: str) -> bool:
    """Whether ``text`` can be an id; other texts (NUL in a path) must not reach a data base."""
    return re.fullmatch(r"[0-9a-f-]{36}", text) is not None


@dataclass(frozen=True)
class Session:
    """The constant part of a session: its pages and keys.

    ``keys`` are the hashes of all keys of the session, ``panel`` has the panel's parameters of the listener.
    """

    id: str
    test: str
    language: str
    pages: dict[str, SessionPage]
    keys: tuple[str, ...]
    panel: dict[str, str] = field(default_factory=dict)

    def opened_by(self, key: str) -> bool:
        """Whether ``key`` belongs to the session; takes the same time for any key."""
        digest = sha256(key)
        return True in [hmac.compare_digest(digest, known) for known in self.keys]


def load_session(connection: sa.Connection, session: str) -> Session:
    """Session of our own page. Raises `Unknown` if it does not exist."""
    if not is_session_id(session):
        raise Unknown
    table, keys = schema.sessions, schema.session_keys
    row = connection.execute(sa.select(table).where(table.c.id == session)).first()
    if row is None or row.plan is None:
        raise Unknown
    found = connection.execute(sa.select(keys.c.key_sha256).where(keys.c.session == session)).scalars()
    panel = json.loads(row.prolific) if row.prolific else {}
    return Session(row.id, row.test, row.language, pages_from_json(row.plan), tuple(found), panel)


def saved_pages(connection: sa.Connection, session: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """State of a session and its saved results: page -> revision and result. Raises `Unknown`."""
    state = _state(connection, session)
    table = schema.pages
    rows = connection.execute(sa.select(table).where(table.c.session == session).order_by(table.c.position))
    return state, {row.page: {"revision": row.revision, "result": json.loads(row.result)} for row in rows}


def save_page(connection: sa.Connection, session: Session, page: SessionPage, checked: Checked) -> int:
    """Store a page's result unless the same one is stored already; returns its revision.

    Raises:
        Unknown: the session was erased.
        Conflict: the session is finished; or the page is stored with this revision and another content, or
            with a later revision, because another browser has the session open. The result is not stored.
    """
    sessions, pages, ratings = schema.sessions, schema.pages, schema.ratings
    state = _state(connection, session.id, lock=True)
    here = (pages.c.session == session.id) & (pages.c.page == page.id)
    stored = connection.execute(sa.select(pages.c.revision, pages.c.result).where(here)).first()
    result = json.dumps(checked.result, separators=(",", ":"), ensure_ascii=False)
    again = stored is not None and stored.revision == checked.revision
    if stored is not None and again and json.loads(stored.result) == json.loads(result):
        return checked.revision
    if state == "finished":
        raise Conflict("finished", "the session is finished")
    if stored is not None and stored.revision >= checked.revision:
        raise Conflict(
            "saved_elsewhere",
            "Another window or browser has saved this page, and its answers count; reload to continue.",
        )
    now = time.time()
    if stored is not None:
        connection.execute(sa.delete(pages).where(here))
        connection.execute(
            sa.delete(ratings).where((ratings.c.session == session.id) & (ratings.c.page == page.id))
        )
    connection.execute(
        pages.insert().values(
            session=session.id,
            page=page.id,
            position=list(session.pages).index(page.id),
            trial=page.trial,
            type=page.type,
            training=page.kept_apart,
            revision=checked.revision,
            time_ms=checked.time_ms,
            result=result,
            saved_at=now,
        )
    )
    add_ratings(connection, session.id, page.id, page.trial, page.type, checked.ratings)
    if checked.answers is not None:
        replace_answers(connection, session.id, checked.answers)
    connection.execute(sa.update(sessions).where(sessions.c.id == session.id).values(seen_at=now))
    return checked.revision


def add_ratings(
    connection: sa.Connection, session: str, page: str, trial: str, type: str, given: Sequence[Rating]
) -> None:
    here = {"session": session, "page": page, "trial": trial, "type": type}
    rows = [{**here, "position": position, **asdict(rating)} for position, rating in enumerate(given)]
    if rows:
        connection.execute(schema.ratings.insert(), rows)


def replace_answers(connection: sa.Connection, session: str, given: Iterable[tuple[str, str]]) -> None:
    table = schema.answers
    connection.execute(sa.delete(table).where(table.c.session == session))
    rows = [
        {"session": session, "position": position, "name": name, "value": value}
        for position, (name, value) in enumerate(given)
    ]
    if rows:
        connection.execute(table.insert(), rows)


def finish(
    connection: sa.Connection, session: Session, revision_of: Mapping[str, int], code: str | None = None
) -> None:
    """Finish a session that has all its pages. A repetition changes nothing.

    Args:
        connection: in a transaction.
        session: to be finished.
        revision_of: page -> revision that the browser has sent.
        code: completion code to show to the listener.

    Raises:
        Unknown: the session was erased.
        Conflict: pages are missing, or older than the browser's.
    """
    sessions, pages = schema.sessions, schema.pages
    if _state(connection, session.id, lock=True) == "finished":
        return
    rows = connection.execute(sa.select(pages.c.page, pages.c.revision).where(pages.c.session == session.id))
    stored = {saved.page: saved.revision for saved in rows}
    missing = [
        page.id
        for page in session.pages.values()
        if stored.get(page.id, 0) < max(revision_of.get(page.id, 0), 0 if _optional(page) else 1)
    ]
    if missing:
        raise Conflict("missing", "pages are missing", missing)
    now = time.time()
    values = {"state": "finished", "finished_at": now, "seen_at": now}
    here = sessions.c.id == session.id
    if code is not None:
        client = connection.execute(sa.select(sessions.c.client).where(here)).scalar()
        values["client"] = json.dumps({**json.loads(client or "{}"), CODE: code})
    connection.execute(sa.update(sessions).where(here).values(values))


def _optional(page: SessionPage) -> bool:
    return page.type in _OPTIONAL or (page.type == "finish" and not page.public.questionnaire)


# Actions of the experimenter


def exclude(connection: sa.Connection, session: str, reason: str | None) -> None:
    """Exclude a session from results with a reason, or include it again (None). Raises `Unknown`."""
    table = schema.sessions
    values = {"excluded_reason": reason, "excluded_at": None if reason is None else time.time()}
    if not connection.execute(sa.update(table).where(table.c.id == session).values(values)).rowcount:
        raise Unknown


def erase(connection: sa.Connection, *ids: str) -> None:
    """Remove everything about a listener's sessions: pages, answers, and the name of the invitation.

    The invitation remains used. Raises `Unknown` unless all sessions exist.
    """
    invitations, sessions = schema.invitations, schema.sessions
    anonymous = sa.literal("erased-").concat(sa.func.substr(invitations.c.token_sha256, 1, 12))
    connection.execute(
        sa.update(invitations).where(invitations.c.session.in_(ids)).values(name=anonymous, session=None)
    )
    if connection.execute(sa.delete(sessions).where(sessions.c.id.in_(ids))).rowcount < len(ids):
        raise Unknown


def invite(connection: sa.Connection, test: str, names: Iterable[str]) -> dict[str, str]:
    """Make an invitation for each name: name -> token, which is stored as a hash and cannot be shown again.

    Raises `Refused` for a name that has an invitation already, is empty, or has over 100 characters.
    """
    table = schema.invitations
    ensure_test(connection, test)
    tokens = {storable(name).strip(): secrets.token_urlsafe(20) for name in names}
    if not tokens or not all(0 < len(name) <= 100 for name in tokens):
        raise Refused("name", "give each invitation a name of 1 to 100 characters")
    taken = connection.execute(
        sa.select(table.c.name).where((table.c.test == test) & table.c.name.in_(list(tokens)))
    ).scalars()
    for name in taken:
        raise Refused("name_taken", f"'{name}' has an invitation already; withdraw it or give another name")
    rows = [
        {"token_sha256": sha256(token), "test": test, "name": name, "created_at": time.time()}
        for name, token in tokens.items()
    ]
    connection.execute(table.insert(), rows)
    return tokens


def withdraw(connection: sa.Connection, test: str, name: str) -> bool:
    """Withdraw an unused invitation; False if there is none."""
    table = schema.invitations
    where = (table.c.test == test) & (table.c.name == name) & table.c.used_at.is_(None)
    return bool(connection.execute(sa.delete(table).where(where)).rowcount)


def count_sessions(connection: sa.Connection, test: str) -> int:
    """Number of sessions of a test; none begins before the transaction ends."""
    tests, sessions = schema.tests, schema.sessions
    connection.execute(sa.select(tests.c.begun).where(tests.c.test == test).with_for_update()).one()
    count = sa.select(sa.func.count()).select_from(sessions).where(sessions.c.test == test)
    return int(connection.execute(count).scalar_one())


def is_closed(connection: sa.Connection, test: str) -> bool:
    """Whether a test is closed to new listeners."""
    return bool(
        connection.execute(sa.select(schema.tests.c.closed).where(schema.tests.c.test == test)).scalar()
    )


def set_closed(connection: sa.Connection, test: str, closed: bool) -> None:
    """Close a test to new listeners, or open it again; those who have begun can finish."""
    table = schema.tests
    connection.execute(sa.update(table).where(table.c.test == test).values(closed=closed))
