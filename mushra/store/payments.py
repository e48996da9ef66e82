"""Payments of a test: a table with one row per session."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime

import sqlalchemy as sa

from mushra.config.crowd import block_of
from mushra.store import schema
from mushra.store.gold import gold_results
from mushra.store.php_csv import csv_text
from mushra.store.records import CODE, Places


@dataclass(frozen=True)
class Payment:
    """One session, with every field as text for the CSV.

    Attributes:
        person: the listener's id at the panel or Prolific, or the name of the invitation; "" for others.
        panel_session: the session's id at the panel or Prolific.
        state: finished, running or dropped.
        block: from 1; "" in a test without blocks.
        completion_code: code that was shown.
        minutes: from the beginning to the end, or to the last saved page.
        gold_failed, gold_asked: numbers of failed and of all gold items; "" in a test without gold items.
        excluded_reason: the experimenter's reason to exclude it from the results; "" if it is not excluded.
    """

    person: str
    panel_session: str
    session: str
    state: str
    block: str
    completion_code: str
    begun_at: str
    finished_at: str
    minutes: str
    gold_failed: str
    gold_asked: str
    excluded_reason: str


def list_payments(connection: sa.Connection, test: str, places: Places) -> list[Payment]:
    """All sessions of a test that began on our own page, in the order of their start."""
    table, invitations = schema.sessions, schema.invitations
    columns = [table.c[name] for name in ("id", "kind", "slot", "state", "prolific", "client")]
    columns += [table.c[name] for name in ("created_at", "seen_at", "finished_at")]
    columns += [table.c[name] for name in ("excluded_reason", "excluded_at")]
    query = (
        sa.select(*columns, invitations.c.name)
        .join(invitations, invitations.c.session == table.c.id, isouter=True)
        .where((table.c.test == test) & table.c.slot.is_not(None))
        .order_by(table.c.number)
    )
    gold = gold_results(connection, test=test)
    dropped_before = time.time() - places.dropped_after_s
    payments = []
    for row in connection.execute(query):
        panel = json.loads(row.prolific) if row.prolific else {}
        dropped = row.state == "running" and row.seen_at <= dropped_before
        own = gold.get(row.id)
        payments.append(
            Payment(
                person=panel.get("pid") or panel.get("person") or row.name or "",
                panel_session=panel.get("session", ""),
                session=row.id,
                state="dropped" if dropped else row.state,
                block=str(block_of(row.slot, places.blocks) + 1) if places.blocks > 1 else "",
                completion_code=json.loads(row.client or "{}").get(CODE, ""),
                begun_at=_time(row.created_at),
                finished_at=_time(row.finished_at),
                minutes=f"{((row.finished_at or row.seen_at) - row.created_at) / 60:.1f}",
                gold_failed="" if own is None else str(len(own.failed)),
                gold_asked="" if own is None else str(own.asked),
                excluded_reason=(row.excluded_reason or "") if row.excluded_at is not None else "",
            )
        )
    return payments


def payments_csv(payments: Iterable[Payment]) -> str:
    """The rows as CSV with the field names as header; spreadsheets do not read any cell as a formula."""
    header = [field.name for field in fields(Payment)]
    return csv_text([header, *(astuple(payment) for payment in payments)])


def _time(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
