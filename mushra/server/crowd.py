"""Sessions of a test that may have thousands: numbers, blocks, and one page of the list at a time.

A view does not read all sessions. It counts with an index (`sessions_state`), reads the rows that it shows,
and remembers each session's flags until the session is active again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mushra.config.crowd import block_of
from mushra.server.progress import Look, SessionState, list_sessions, look_at
from mushra.store import schema
from mushra.store.records import Places

#: Sessions on one page of the list.
ROWS = 50
#: Most sessions that one view checks besides those that it shows, because they were active since their check.
LOOKED_AT = 200
#: States of a session by which the list can be filtered.
STATES = ("finished", "running", "dropped", "excluded", "flagged")
EXCLUDED = "excluded"


@dataclass(frozen=True)
class Block:
    """Numbers of sessions of a block.

    Attributes:
        number: from 1.
        open: number of sessions that may still begin; None: any number.
    """

    number: int
    finished: int
    running: int
    open: int | None


@dataclass(frozen=True)
class Overview:
    """A page of the list of sessions.

    Attributes:
        summary: numbers for the head of the page.
        blocks: of a test with blocks or a quota.
        sessions: on this page, the newest first.
        page: number of this page, from 1; pages: number of pages.
        unseen: number of sessions that are not checked yet, so that their flags are missing.
    """

    summary: dict[str, int]
    blocks: tuple[Block, ...]
    sessions: list[SessionState]
    page: int
    pages: int
    unseen: int


class Crowd:
    """Flags of a test's sessions, from their last check. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks: dict[str, Look] = {}
        #: `seen_at` of each session at its check.
        self._seen: dict[str, float] = {}

    def overview(
        self, connection: sa.Connection, test: str | None, places: Places, which: str = "", page: int = 1
    ) -> Overview:
        """A page of the list.

        Args:
            connection: to the data base.
            test: id; None: all tests.
            places: of the test.
            which: filter, one of `STATES`; "": all sessions.
            page: from 1; a number that is too high selects the last page.
        """
        counts = _counts(connection, test, places)
        rows = _rows(connection, test, places)
        seen = {session: seen_at for session, _, seen_at in rows}
        with self._lock:
            unseen = [session for session, seen_at in seen.items() if self._seen.get(session) != seen_at]
        fresh = look_at(connection, unseen[:LOOKED_AT]) if unseen else {}
        looks = self._keep(fresh, seen)
        chosen = [session for session, state, _ in rows if _is(state, which, looks.get(session))]
        pages = max(1, -(-len(chosen) // ROWS))
        page = min(max(page, 1), pages)
        shown = chosen[ROWS * (page - 1) : ROWS * page]
        after_s = places.dropped_after_s
        sessions = list_sessions(connection, test, shown, dropped_after_s=after_s, looks=fresh)
        # Shown sessions were checked again, because another program may have changed the data base.
        looks = self._keep({one.id: one.look for one in sessions}, seen)
        counted = [look for session, state, _ in rows if state != EXCLUDED and (look := looks.get(session))]
        numbers = {
            **_numbers(counts),
            "flagged": sum(bool(look.flags) for look in counted),
            "not_given": sum(look.not_given for look in counted),
        }
        return Overview(numbers, _blocks(counts, places), sessions, page, pages, len(seen) - len(looks))

    def _keep(self, found: Mapping[str, Look], seen: Mapping[str, float]) -> dict[str, Look]:
        """Remember these; return the checks of all sessions that still exist."""
        with self._lock:
            self._looks |= found
            self._seen |= {session: seen[session] for session in found}
            for erased in self._looks.keys() - seen.keys():
                del self._looks[erased], self._seen[erased]
            return dict(self._looks)


def summary(connection: sa.Connection, test: str, places: Places | None = None) -> dict[str, int]:
    """Numbers of a test's sessions: finished, running, dropped, excluded, and all."""
    counts = _counts(connection, test, places or Places(1))
    return {**_numbers(counts), "sessions": counts.total()}


def _state(places: Places) -> sa.ColumnElement[str]:
    table = schema.sessions
    dropped = (table.c.state == "running") & (table.c.seen_at <= time.time() - places.dropped_after_s)
    return sa.case((table.c.excluded_at.is_not(None), EXCLUDED), (dropped, "dropped"), else_=table.c.state)


def _counts(connection: sa.Connection, test: str | None, places: Places) -> Counter[tuple[int | None, str]]:
    """Sessions by slot and state."""
    table = schema.sessions
    query = sa.select(table.c.slot, _state(places).label("now"))
    if test is not None:
        query = query.where(table.c.test == test)
    inner = query.subquery()
    query = sa.select(inner.c.slot, inner.c.now, sa.func.count()).group_by(inner.c.slot, inner.c.now)
    return Counter({(slot, now): number for slot, now, number in connection.execute(query)})


def _rows(connection: sa.Connection, test: str | None, places: Places) -> Sequence[Any]:
    """(id, state, seen_at) of all sessions, the newest first."""
    table = schema.sessions
    query = sa.select(table.c.id, _state(places), table.c.seen_at)
    if test is not None:
        query = query.where(table.c.test == test)
    # A term, not the column: for a term SQLite sorts the index; for the column it would read every row.
    return connection.execute(query.order_by(-table.c.number)).all()


def _is(state: str, which: str, look: Look | None) -> bool:
    if which == "flagged":
        return state != EXCLUDED and look is not None and bool(look.flags)
    return which in ("", state)


def _numbers(counts: Counter[tuple[int | None, str]]) -> dict[str, int]:
    return {name: sum(n for (_, state), n in counts.items() if state == name) for name in STATES[:-1]}


def _blocks(counts: Counter[tuple[int | None, str]], places: Places) -> tuple[Block, ...]:
    """Numbers of each block; empty for a test without blocks and quota."""
    if places.blocks == 1 and places.quota is None:
        return ()
    found = []
    for block in range(places.blocks):
        own = Counter[str]()
        for (slot, state), number in counts.items():
            if slot is not None and block_of(slot, places.blocks) == block:
                own[state] += number
        open = None if places.quota is None else max(0, places.quota - own["finished"] - own["running"])
        found.append(Block(block + 1, own["finished"], own["running"], open))
    return tuple(found)
