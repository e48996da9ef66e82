"""Read listeners' ratings from a data base, for exports, analysis and the admin pages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from mushra.config.key import NO_KEY, read_key
from mushra.store import schema
from mushra.store.given import nobody_gave
from mushra.store.gold import GoldResult, gold_results
from mushra.store.pages import Rating
from mushra.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

#: Columns of `read_ratings`. Those of `GOLD_COLUMNS` follow if a test has gold items, then those of the
#: questionnaire, as ``answer:NAME``.
RATING_COLUMNS = (
    *("listener", "item", "condition", "score", "time_ms", "comment", "session", "test", "order", "position"),
    *("plays", "heard_ms", "moves", "training", "state", "excluded", "excluded_reason", "begun_at"),
)


#: Whether the item is gold, and number of wrong gold grades in the session.
GOLD_COLUMNS = ("gold", "gold_failures")


@dataclass(frozen=True, kw_only=True)
class StoredRating(Rating):
    """A rating with its session and page.

    Attributes:
        session: its id; ``number`` counts those of a test, ``kind`` is how the listener was admitted.
        listener: from `schema.listeners`.
        page: its id in the session; ``page_position`` and ``position`` (on the page) count from 0.
        training: whether it is left out of results: on a training page, or a gold item (`mushra.store.gold`).
        trial: id of the page in the YAML.
    """

    session: str
    test: str
    kind: str
    uuid: str | None
    number: int
    state: str
    excluded_at: float | None
    excluded_reason: str | None
    created_at: float
    finished_at: float | None
    page: str
    page_position: int
    training: bool
    trial: str
    type: str
    position: int
    listener: str

    @cached_property
    def not_given(self) -> bool:
        """Whether it has a score that nobody gave (`mushra.store.given`)."""
        return self.type == "mushra" and nobody_gave(self.score, self.details.get("moves"))


def stored_ratings(
    connection: sa.Connection,
    *,
    test: str | None = None,
    sessions: Collection[str] | None = None,
    everything: bool = True,
) -> list[StoredRating]:
    """Ratings in the order of sessions and pages.

    Args:
        connection: to the data base.
        test: only ratings of this test.
        sessions: only ratings of these sessions.
        everything: also training pages, gold items, unfinished and excluded sessions.
    """
    table, pages, ratings = schema.sessions, schema.pages, schema.ratings
    others = ("training", "page_position", "listener")
    names = [field.name for field in fields(StoredRating) if field.name not in others]
    query = (
        sa.select(*(ratings.c[name] if name in ratings.c else table.c[name] for name in names))
        .add_columns(pages.c.training, pages.c.position.label("page_position"))
        .join(pages, (pages.c.session == ratings.c.session) & (pages.c.page == ratings.c.page))
        .join(table, table.c.id == ratings.c.session)
        .order_by(table.c.test, table.c.number, pages.c.position, ratings.c.position)
    )
    if test is not None:
        query = query.where(table.c.test == test)
    if sessions is not None:
        query = query.where(table.c.id.in_(sorted(sessions)))
    if not everything:
        query = query.where((table.c.state == "finished") & table.c.excluded_at.is_(None))
        query = query.where(pages.c.training.is_(False))
    who = schema.listeners(connection, sessions)
    found = connection.execute(query)
    columns = tuple(found.keys())
    rows = (dict(zip(columns, row, strict=True)) for row in found)
    return [StoredRating(**row, listener=who[row["session"]]) for row in rows]


def stored_answers(connection: sa.Connection, session: str | None = None) -> dict[str, dict[str, str]]:
    """Session -> its questionnaire, in order; for one session or for all."""
    answers = schema.answers
    query = sa.select(answers).order_by(answers.c.session, answers.c.position)
    found: dict[str, dict[str, str]] = {}
    for row in connection.execute(query if session is None else query.where(answers.c.session == session)):
        found.setdefault(row.session, {})[row.name] = row.value
    return found


def read_ratings(
    target: str | Path | Store,
    *,
    key: Path | None = None,
    test: str | None = None,
    session: str | None = None,
    everything: bool = False,
) -> pd.DataFrame:
    """The MUSHRA ratings of a data base, one row each, columns `RATING_COLUMNS` and the questionnaire's.

    ``listener`` is from `schema.listeners`; ``item`` is the trial's id, ``condition`` the signal's name,
    ``order`` the place of the page in the session, ``position`` that of the signal on the page (both from 1),
    ``time_ms`` the time on the page. A missing score (if the rules allow it) is NaN.

    Args:
        target: file, URL, or an open store.
        key: ``key.json`` of `mushra create`; then ``condition`` has the condition behind an opaque name.
        test: only ratings of this test.
        session: only ratings of this session.
        everything: also training pages, gold items, unfinished and excluded sessions; columns mark them.

    Raises:
        UserError: the data base or the key cannot be read.
    """
    if not isinstance(target, Store):
        with Store(target, create=False) as store:
            return read_ratings(store, key=key, test=test, session=session, everything=everything)
    with target.read() as connection:
        only = None if session is None else [session]
        rows = stored_ratings(connection, test=test, sessions=only, everything=everything)
        answers = stored_answers(connection, session)
        gold = gold_results(connection, test=test, sessions=only)
    return ratings_table(rows, answers, gold, key)


def ratings_table(
    rows: Sequence[StoredRating],
    answers: dict[str, dict[str, str]],
    gold: Mapping[str, GoldResult],
    key: Path | None = None,
) -> pd.DataFrame:
    """The MUSHRA ratings among ``rows``, as a table of `read_ratings`."""
    import pandas as pd

    names = NO_KEY if key is None else read_key(key)
    records: list[dict[str, Any]] = []
    for row in rows:
        if row.type != "mushra":
            continue
        details = row.details
        own = gold.get(row.session)
        is_gold = own is not None and row.trial in own.pages
        marks = {"gold": is_gold, "gold_failures": len(own.failed) if own is not None else 0} if gold else {}
        records.append(
            {
                "listener": row.listener,
                "item": row.trial,
                "condition": names.condition(row.trial, row.stimulus),
                "score": row.score,
                "time_ms": row.time_ms,
                "comment": row.comment,
                "session": row.session,
                "test": row.test,
                "order": row.page_position + 1,
                "position": row.position + 1,
                **{name: details.get(name) for name in ("plays", "heard_ms", "moves")},
                "training": row.training and not is_gold,
                "state": row.state,
                "excluded": row.excluded_at is not None,
                "excluded_reason": row.excluded_reason or "",
                "begun_at": datetime.fromtimestamp(row.created_at, UTC).isoformat(timespec="seconds"),
                **marks,
                **{f"answer:{name}": value for name, value in answers.get(row.session, {}).items()},
            }
        )
    extra = dict.fromkeys(name for record in records for name in record if name not in RATING_COLUMNS)
    frame = pd.DataFrame.from_records(records, columns=[*RATING_COLUMNS, *extra])
    return frame.astype({"score": float, "time_ms": float})
