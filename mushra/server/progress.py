"""How a running test stands: its sessions, how far each is, and what stands out about it.

Flags exclude nobody. They look at finished MUSHRA pages, training apart, and need more than half of them
(or, for the hidden reference, more than the 15 % of BS.1534-3).
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mushra.config.pages import HIDDEN_REFERENCE
from mushra.standard import MAX_SHARE, MIN_SCREENED_ITEMS, THRESHOLD
from mushra.store import schema
from mushra.store.ratings import StoredRating, stored_ratings
from mushra.store.records import DROPPED_AFTER_S
from qincodec.core.errors import count

#: A page left after less than this for each of its signals was hardly listened to.
HASTY_S_PER_SIGNAL = 2.0


@dataclass(frozen=True)
class SessionState:
    """One session for the admin's list.

    Attributes:
        name: of the invitation, Prolific's id, or the number of the session.
        listener: what `mushra analyze` calls who it is, see `schema.listeners`.
        state: "finished", "running", or "dropped": running without a sign of life for two hours.
        done, total: pages.
        time_s: on all pages together.
        not_given: scores that nobody gave, training apart; no result counts them.
        flags: what stands out, in words.
    """

    id: str
    test: str
    kind: str
    name: str
    listener: str
    number: int
    state: str
    excluded_reason: str | None
    begun_at: float
    seen_at: float
    done: int
    total: int
    time_s: float
    not_given: int
    flags: tuple[str, ...]


#: The ratings of a MUSHRA page, one at least.
_Page = list[StoredRating]


def list_sessions(
    connection: sa.Connection, test: str | None, session: str | None = None
) -> list[SessionState]:
    """Sessions of a test (None: of all), the newest first; or one of them."""
    sessions, pages, invitations = schema.sessions, schema.pages, schema.invitations
    counts = (
        sa.select(
            pages.c.session, sa.func.count().label("done"), sa.func.sum(pages.c.time_ms).label("time_ms")
        )
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
    if session is not None:
        query = query.where(sessions.c.id == session)
    rows = connection.execute(query).all()
    rated = _rated(connection, test, session)
    who = schema.listeners(connection)
    now = time.time()
    found = []
    for row in rows:
        dropped = row.state == "running" and now - row.seen_at > DROPPED_AFTER_S
        prolific = json.loads(row.prolific) if row.prolific else {}
        total = len(json.loads(row.plan)) if row.plan else row.done or 0
        found.append(
            SessionState(
                id=row.id,
                test=row.test,
                kind=row.kind,
                name=row.name or prolific.get("pid") or f"Listener {row.number + 1}",
                listener=who[row.id],
                number=row.number,
                state="dropped" if dropped else row.state,
                excluded_reason=row.excluded_reason if row.excluded_at is not None else None,
                begun_at=row.created_at,
                seen_at=row.seen_at,
                done=row.done or 0,
                total=total,
                time_s=(row.time_ms or 0) / 1000,
                not_given=_num_not_given(rated.get(row.id, [])),
                flags=tuple(_flags(rated.get(row.id, []))),
            )
        )
    return found


def _rated(connection: sa.Connection, test: str | None, session: str | None) -> dict[str, list[_Page]]:
    """Session -> its MUSHRA pages, training apart."""
    found: dict[str, dict[str, _Page]] = defaultdict(lambda: defaultdict(list))
    for rating in stored_ratings(connection, test=test, session=session):
        if rating.type == "mushra" and not rating.training:
            found[rating.session][rating.page].append(rating)
    return {session: list(pages.values()) for session, pages in found.items()}


def _num_not_given(pages: list[_Page]) -> int:
    return sum(rating.not_given for page in pages for rating in page)


def _scores(page: _Page) -> dict[str, float]:
    """Scores that somebody gave, by stimulus."""
    return {r.stimulus: r.score for r in page if r.score is not None and not r.not_given}


def _flags(pages: list[_Page]) -> list[str]:
    n = len(pages)
    if n == 0:
        return []
    flags = []
    hasty = sum(max(r.time_ms or 0 for r in page) < 1000 * HASTY_S_PER_SIGNAL * len(page) for page in pages)
    if hasty > n / 2:
        flags.append(f"too fast on {hasty} of {n} pages")
    still = sum(_never_moved(page) for page in pages)
    if still > n / 2:
        flags.append(f"never moved on {still} of {n} pages")
    judged = [scores[HIDDEN_REFERENCE] for page in pages if HIDDEN_REFERENCE in (scores := _scores(page))]
    low = sum(score < THRESHOLD for score in judged)
    if judged and low / len(judged) > MAX_SHARE:
        few = " (few items: says little)" if len(judged) < MIN_SCREENED_ITEMS else ""
        flags.append(f"reference under 90 on {low} of {len(judged)} items{few}")
    not_given = _num_not_given(pages)
    if not_given:
        flags.append(f"{count(not_given, 'score')} nobody gave")
    return flags


def _never_moved(page: _Page) -> bool:
    """No slider was touched; without counts (webMUSHRA), all scores are the same."""
    moves = [rating.details.get("moves") for rating in page]
    if any(number is not None for number in moves):
        return not any(moves)
    scores = _scores(page)
    return len(scores) > 2 and len(set(scores.values())) == 1


def summary(sessions: list[SessionState]) -> dict[str, int]:
    """Numbers for the head of the page."""
    counted = [session for session in sessions if session.excluded_reason is None]
    states = {name: sum(s.state == name for s in counted) for name in ("finished", "running", "dropped")}
    flagged = sum(bool(session.flags) for session in counted)
    not_given = sum(session.not_given for session in counted)
    return {**states, "excluded": len(sessions) - len(counted), "flagged": flagged, "not_given": not_given}


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
