"""``/healthz``: whether the server works, for monitoring."""

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

#: Seconds in which the data base must answer.
WAIT_S = 2.0
#: Seconds for which an answer is reused, so that frequent requests do not load the data base.
HOLDS_S = 2.0
_META = "health"


class Health:
    """Checks the data base, one check at a time, in its own thread, because a locked one answers late."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._asked: Future[None] | None = None
        self._asked_at = 0.0

    def well(self) -> bool:
        """Whether the data base has done a read and a write within `WAIT_S`."""
        with self._lock:
            now = time.monotonic()
            if self._asked is None or (self._asked.done() and now - self._asked_at > HOLDS_S):
                self._asked, self._asked_at = Future(), now
                threading.Thread(target=self._ask, args=(self._asked,), daemon=True).start()
            asked, left_s = self._asked, self._asked_at + WAIT_S - now
        try:
            # All requests share one deadline. Otherwise, with a locked data base, each of many requests would
            # hold a thread of the server for two seconds.
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
    """Write one row, the same one each time."""
    table, now = schema.meta, str(round(time.time()))
    if not connection.execute(sa.update(table).where(table.c.key == _META).values(value=now)).rowcount:
        schema.insert_once(connection, table, {"key": _META, "value": now})


@blueprint.get("/healthz")
def healthz() -> tuple[Response, int, dict[str, str]]:
    health: Health = current_app.extensions["mushra-health"]
    if health.well():
        return jsonify({"status": "ok", "version": __version__}), 200, {}
    return jsonify({"status": "unavailable", "version": __version__}), 503, {"Retry-After": "5"}
