"""Whether the server can do its work, for what watches it: ``/healthz``."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import sqlalchemy as sa
from flask import Blueprint, Response, current_app, jsonify

from mushra.store import schema
from mushra.store.store import Store
from qincodec import __version__

blueprint = Blueprint("health", __name__)

#: Seconds in which the data base has to answer.
WAIT_S = 2.0
#: Seconds for which an answer holds: whoever asks often is not asking the data base.
HOLDS_S = 2.0
_META = "health"


class Health:
    """Asks the data base, one question at a time, in a thread of its own: a locked one answers late."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._asked: Future[None] | None = None
        self._asked_at = 0.0

    def well(self) -> bool:
        """Whether the data base has answered a read and taken a write within `WAIT_S`."""
        with self._lock:
            now = time.monotonic()
            if self._asked is None or (self._asked.done() and now - self._asked_at > HOLDS_S):
                self._asked, self._asked_at = Future(), now
                threading.Thread(target=self._ask, args=(self._asked,), daemon=True).start()
            asked, left_s = self._asked, self._asked_at + WAIT_S - now
        try:
            # Of one question all wait for the same moment: many who ask do not hold the threads of a server
            # whose data base is locked for two seconds each.
            return asked.exception(max(0.0, left_s)) is None
        except TimeoutError:
            return False

    def _ask(self, asked: Future[None]) -> None:
        try:
            self._store.get_meta(_META)
            self._store.write(_note)
        except Exception as error:
            asked.set_exception(error)
        else:
            asked.set_result(None)


def _note(connection: sa.Connection) -> None:
    """Write one row, always the same."""
    table, now = schema.meta, str(round(time.time()))
    if not connection.execute(sa.update(table).where(table.c.key == _META).values(value=now)).rowcount:
        schema.insert_once(connection, table, {"key": _META, "value": now})


@blueprint.get("/healthz")
def healthz() -> tuple[Response, int, dict[str, str]]:
    health: Health = current_app.extensions["mushra-health"]
    if health.well():
        return jsonify({"status": "ok", "version": __version__}), 200, {}
    return jsonify({"status": "unavailable", "version": __version__}), 503, {"Retry-After": "5"}
