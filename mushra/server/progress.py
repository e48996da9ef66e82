"""State of a running test: its sessions, and the progress and flags of each.

Flags do not exclude listeners. They depend on finished MUSHRA pages without training, and need more than half
of them (for the hidden reference, more than the 15 % of BS.1534-3). One failed gold item is enough for a
flag.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mushra.config.pages import HIDDEN_REFERENCE
from mushra.standard import MAX_SHARE, MIN_SCREENED_ITEMS, THRESHOLD
from mushra.store import schema
from mushra.store.gold import gold_results
from mushra.store.records import DROPPED_AFTER_S
from qincodec.core.errors import count

#: Seconds per signal; a listener who leaves a page earlier has hardly listened to it.
HASTY_S_PER_SIGNAL = 2.0


@dataclass(frozen=True)
class Look:
    """Flags of a session.

    Attributes:
        not_given: number of scores that nobody gave, without training; no result counts them.
        flags: in words.
    """

    not_given: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class SessionState:
    """One session for the admin's list.

    Attributes:
        name: of the invitation, the panel's id, or the number of the session.
        listener: name of the listener in `mushra analyze`, see `schema.listeners`.
        slot: block and row of the order; None for a session that was submitted whole.
        state: "finished", "running", or "dropped": running, but not seen for longer than the test allows.
        done, total: numbers of pages.
        time_s: on all pages together.
        look: flags.
    """

    id: str
    test: str
    kind: str
    name: str
    listener: str
    number: int
    slot: int | None
    state: str
    excluded_reason: str | None
    begun_at: float
    seen_at: float
    done: int
    total: int
    time_s: float
    look: Look

    @property
    def flags(self) -> tuple[str, ...]:
        return self.look.flags

    @property
    def not_given(self) -> int:
        return self.look.not_given


def list_sessions(
    connection: sa.Connection,
    test: str | None,
    only: Collection[str] | None = None,
    *,
    dropped_after_s: float = DROPPED_AFTER_S,
    looks: Mapping[str, Look] | None = None,
) -> list[SessionState]:
    """Sessions of a test (None: of all tests), or of these only the ones in ``only``, the newest first.

    ``looks`` are checks of the current data base, which are not repeated.
    """
    sessions, pages, invitations = schema.sessions, schema.pages, schema.invitations
    counts = (
        sa.select(
            pages.c.session, sa.func.count().label("done"), sa.func.sum(pages.c.time_ms).label("time_ms")
        )
        .where(sa.true() if only is None else pages.c.session.in_(sorted(only)))
        .group_by(pages.c.session)
        .subquery()
    )
    query = (
        sa.select(sessions, counts.c.done, counts.c.time_ms, invitations.c.name)
        .join(counts, counts.c.session == sessions.c.id, isouter=True)
        .join(invitations, invitations.c.session == sessions.c.id, isouter=True)
        .order_by(sessions.c.created_at.desc(), sessions.c.number.desc())
    )
    if test is not None:
        query = query.where(sessions.c.test == test)
    if only is not None:
        query = query.where(sessions.c.id.in_(sorted(only)))
    rows = connection.execute(query).all()
    looks = looks or {}
    looks = {**looks, **look_at(connection, [row.id for row in rows if row.id not in looks])}
    who = schema.listeners(connection, only)
    now = time.time()
    found = []
    for row in rows:
        panel = json.loads(row.prolific) if row.prolific else {}
        total = len(json.loads(row.plan)) if row.plan else row.done or 0
        found.append(
            SessionState(
                id=row.id,
                test=row.test,
                kind=row.kind,
                name=row.name or panel.get("pid") or panel.get("person") or f"Listener {row.number + 1}",
                listener=who[row.id],
                number=row.number,
                slot=row.slot,
                state=_state(row, now - dropped_after_s),
                excluded_reason=row.excluded_reason if row.excluded_at is not None else None,
                begun_at=row.created_at,
                seen_at=row.seen_at,
                done=row.done or 0,
                total=total,
                time_s=(row.time_ms or 0) / 1000,
                look=looks[row.id],
            )
        )
    return found


def _state(row: Any, dropped_before: float) -> str:
    return "dropped" if row.state == "running" and row.seen_at <= dropped_before else str(row.state)


def look_at(connection: sa.Connection, sessions: Collection[str]) -> dict[str, Look]:
    """Flags of each of these sessions."""
    pages = defaultdict(list)
    for row in connection.execute(_page_figures(sessions)).all():
        if row.broken:
            raise ValueError("the detail of a rating is not a JSON object")
        pages[row.session].append(row)
    gold = gold_results(connection, sessions=sessions)
    looks = {}
    for session in sessions:
        flags = _flags(pages[session])
        if session in gold and (failed := gold[session].failed):
            flags.append(f"gold: {len(failed)} of {gold[session].asked} wrong")
        looks[session] = Look(sum(page.not_given for page in pages[session]), tuple(flags))
    return looks


def _page_figures(sessions: Collection[str]) -> sa.Select[Any]:
    """Figures of each MUSHRA page that counts.

    Columns: the session; the number of ratings (n); time_ms; the numbers of ratings with an invalid detail
    (broken), with a known number of slider moves (moves_known) and with at least one move (moved); the number
    of scores that nobody gave (not_given, see `mushra.store.given`); and of the given scores the number, the
    lowest, the highest and the hidden reference's.
    """
    ratings, pages = schema.ratings, schema.pages
    detail = sa.func.coalesce(ratings.c.detail, "")
    known = detail.like('%"moves":%')
    unmoved = detail.like('%"moves":0%') | detail.like('%"moves": 0%')
    given = sa.case((~unmoved, ratings.c.score))

    def number(of: sa.ColumnElement[bool], label: str) -> sa.Label[int]:
        return sa.func.sum(sa.case((of, 1), else_=0)).label(label)

    return (
        sa.select(
            ratings.c.session,
            sa.func.count().label("n"),
            sa.func.max(ratings.c.time_ms).label("time_ms"),
            number((detail != "") & ~detail.like("{%}"), "broken"),
            number(known, "moves_known"),
            number(known & ~unmoved, "moved"),
            number(unmoved & ratings.c.score.is_not(None), "not_given"),
            sa.func.count(given).label("given"),
            sa.func.min(given).label("least"),
            sa.func.max(given).label("highest"),
            sa.func.max(sa.case((ratings.c.stimulus == HIDDEN_REFERENCE, given))).label("reference"),
        )
        .join(pages, (pages.c.session == ratings.c.session) & (pages.c.page == ratings.c.page))
        .where(ratings.c.session.in_(sorted(sessions)))
        .where((ratings.c.type == "mushra") & pages.c.training.is_(False))
        .group_by(ratings.c.session, ratings.c.page)
    )


def _flags(pages: Sequence[Any]) -> list[str]:
    n = len(pages)
    if n == 0:
        return []
    flags = []
    hasty = sum((page.time_ms or 0) < 1000 * HASTY_S_PER_SIGNAL * page.n for page in pages)
    if hasty > n / 2:
        flags.append(f"too fast on {hasty} of {n} pages")
    still = sum(_never_moved(page) for page in pages)
    if still > n / 2:
        flags.append(f"never moved on {still} of {n} pages")
    judged = [page.reference for page in pages if page.reference is not None]
    low = sum(score < THRESHOLD for score in judged)
    if judged and low / len(judged) > MAX_SHARE:
        few = " (few items: says little)" if len(judged) < MIN_SCREENED_ITEMS else ""
        flags.append(f"reference under 90 on {low} of {len(judged)} items{few}")
    not_given = sum(page.not_given for page in pages)
    if not_given:
        flags.append(f"{count(not_given, 'score')} nobody gave")
    return flags


def _never_moved(page: Any) -> bool:
    """Whether no slider was moved; without counts (webMUSHRA): whether all scores are equal."""
    if page.moves_known:
        return not page.moved
    return page.given > 2 and page.least == page.highest


def list_invitations(connection: sa.Connection, test: str | None) -> list[Any]:
    """Invitations, (name, test, session, used_at, created_at, state), by name."""
    table, sessions = schema.invitations, schema.sessions
    query = (
        sa.select(
            table.c.name, table.c.test, table.c.session, table.c.used_at, table.c.created_at, sessions.c.state
        )
        .join(sessions, sessions.c.id == table.c.session, isouter=True)
        .order_by(table.c.name)
    )
    if test is not None:
        query = query.where(table.c.test == test)
    return list(connection.execute(query).all())
