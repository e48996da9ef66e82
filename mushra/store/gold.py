"""Gold items of stored sessions: the grades known beforehand, and the sessions that failed them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sqlalchemy as sa

from mushra.config.crowd import Expected, expected
from mushra.config.load import own_section
from mushra.store import schema


@dataclass(frozen=True)
class GoldResult:
    """A session's results on its gold items.

    Attributes:
        asked: number of gold grades that it has given or left out.
        failed: (item, condition) of the wrong ones.
        pages: ids of all gold pages of its test.
    """

    asked: int
    failed: tuple[tuple[str, str], ...]
    pages: frozenset[str]


@lru_cache(maxsize=64)
def expected_in(yaml: str) -> Expected:
    """Expected grades in the text of a configuration. Raises `ConfigError` if it cannot be read."""
    if "gold" not in yaml:
        return {}
    section = own_section(Path("the configuration in the data base"), yaml=yaml)
    return {} if section is None else expected(section.gold)


def gold_results(
    connection: sa.Connection, *, test: str | None = None, sessions: Collection[str] | None = None
) -> dict[str, GoldResult]:
    """Session -> result, for sessions of tests with gold items.

    Args:
        connection: to the data base.
        test: only sessions of this test.
        sessions: only these.
    """
    configs, table, pages, ratings = schema.configs, schema.sessions, schema.pages, schema.ratings
    by_config: dict[str | None, Expected] = {}
    latest: dict[str, Expected] = {}
    for row in connection.execute(sa.select(configs).order_by(configs.c.served_at)):
        if test in (None, row.test):
            by_config[row.sha256] = latest[row.test] = expected_in(row.yaml)
    trials = {item for known in by_config.values() for item, _ in known}
    if not trials:
        return {}
    query = sa.select(table.c.id, table.c.test, table.c.config, table.c.state)
    said = (
        sa.select(pages.c.session, pages.c.trial, ratings.c.stimulus, ratings.c.score, ratings.c.answer)
        .join(table, table.c.id == pages.c.session)
        .join(
            ratings, (ratings.c.session == pages.c.session) & (ratings.c.page == pages.c.page), isouter=True
        )
        .where(pages.c.trial.in_(sorted(trials)))
    )
    if test is not None:
        query, said = query.where(table.c.test == test), said.where(table.c.test == test)
    if sessions is not None:
        query = query.where(table.c.id.in_(sorted(sessions)))
        said = said.where(pages.c.session.in_(sorted(sessions)))
    given: dict[str, dict[tuple[str, str | None], tuple[float | None, str | None]]] = {}
    for row in connection.execute(said):
        given.setdefault(row.session, {})[row.trial, row.stimulus] = row.score, row.answer
    results = {}
    for row in connection.execute(query):
        # A session that was submitted whole does not have its own configuration.
        gold = by_config[row.config] if row.config in by_config else latest.get(row.test, {})
        if gold:
            own = given.get(row.id, {})
            results[row.id] = _result(gold, own, finished=row.state == "finished")
    return results


def _result(
    gold: Expected,
    given: dict[tuple[str, str | None], tuple[float | None, str | None]],
    *,
    finished: bool,
) -> GoldResult:
    shown = {trial for trial, _ in given}
    # On a page with one pair after the other, the pair may not have been shown yet.
    asked = [place for place in gold if place in given or (finished and place[0] in shown)]
    failed = tuple(place for place in asked if not gold[place].is_met(*given.get(place, (None, None))))
    return GoldResult(len(asked), failed, frozenset(item for item, _ in gold))
