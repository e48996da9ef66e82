"""A listener who is erased is gone, also from what SQLite keeps beside the data base."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mushra.store import records

SAME = {"Sec-Fetch-Site": "same-origin"}


def store(app: Any) -> Any:
    return app.extensions["mushra"].store


def test_erasing_leaves_nothing_of_a_listener(serve: Any, listener: Any, signed_in: Any) -> None:
    app = serve(section="identification: invitation")
    tokens = store(app).write(lambda connection: records.invite(connection, "small", ["Ada Lovelace", "Bo"]))
    one, other = listener(app, invitation=tokens["Ada Lovelace"]), listener(app, invitation=tokens["Bo"])
    for taker, comment in ((one, "I am Ada, of course"), (other, "I am Bo")):
        page = taker.page("mushra")
        signals = [signal["id"] for signal in page["signals"]]
        ratings = [{"signal": s, "score": 100, "plays": 1, "moves": 1, "comment": comment} for s in signals]
        taker.put(page, {"revision": 1, "time_ms": 1, "ratings": ratings})
    client = signed_in(app)
    url = f"/admin/sessions/{one.session['id']}"
    exported = client.get(f"{url}/export").get_json()
    assert "I am Ada" in json.dumps(exported)
    assert "I am Bo" not in json.dumps(exported)
    assert client.post(f"{url}/erase", headers=SAME).status_code == 400
    assert client.post(f"{url}/erase", data={"sure": "erase"}, headers=SAME).status_code == 302
    name = Path(store(app).name)
    for table in ("sessions", "session_keys", "pages", "ratings", "answers"):
        column = "id" if table == "sessions" else "session"
        query = f"SELECT count(*) FROM {table} WHERE {column} = ?"
        assert sqlite3.connect(name).execute(query, (one.session["id"],)).fetchone() == (0,)
    assert one.get().status_code == 404
    page = one.page("mushra")
    assert one.put(page, {"revision": 2, "time_ms": 1, "ratings": []}).status_code in (400, 404)
    assert listener(app, invitation=tokens["Ada Lovelace"]).session["code"] == "invitation_used"
    assert other.get().status_code == 200
    # Not even in what SQLite keeps of deleted rows, or in its log.
    files = [path for path in name.parent.iterdir() if path.name.startswith(name.name)]
    raw = b"".join(path.read_bytes() for path in files)
    assert b"I am Bo" in raw
    assert b"I am Ada" not in raw
    assert b"Lovelace" not in raw


def test_erasing_says_when_the_log_has_it_still(
    serve: Any, listener: Any, signed_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody reads the data base's past, which only the log has: until they end, it cannot be emptied."""
    monkeypatch.setattr("mushra.store.store.BUSY_TIMEOUT_S", 0.2)
    app = serve()
    one = listener(app)
    page = one.page("mushra")
    ratings = [
        {"signal": s["id"], "score": 100, "plays": 1, "moves": 1, "comment": "Ada"} for s in page["signals"]
    ]
    one.put(page, {"revision": 1, "time_ms": 1, "ratings": ratings})
    name = Path(store(app).name)
    log = Path(f"{name}-wal")
    reader = sqlite3.connect(name, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM ratings WHERE comment = 'Ada'").fetchone() == (len(ratings),)
    url = f"/admin/sessions/{one.session['id']}/erase"
    answer = signed_in(app).post(url, data={"sure": "erase"}, headers=SAME)
    assert answer.status_code == 200
    assert "results.sqlite-wal”, the log of the data base, still has it" in answer.get_data(as_text=True)
    assert one.get().status_code == 404
    reader.close()
    while log.exists() and log.stat().st_size:  # by itself, without another write
        time.sleep(0.05)
    assert b"Ada" not in name.read_bytes()


def test_erasing_waits_for_another_checkpoint(serve: Any) -> None:
    """For which SQLite itself does not wait."""
    app = serve()
    stop = threading.Event()

    def bring_in() -> None:
        connection = sqlite3.connect(store(app).name)
        while not stop.is_set():
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        connection.close()

    other = threading.Thread(target=bring_in)
    other.start()
    try:
        for number in range(20):
            store(app).set_meta("note", f"{number}")
            assert store(app).forget_erased() is None
            assert Path(f"{store(app).name}-wal").stat().st_size == 0
    finally:
        stop.set()
        other.join()
