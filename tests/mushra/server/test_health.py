"""A data base that is locked, away or lost: what is answered meanwhile, and afterwards without a restart."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from postgresql_server import Cluster, new_database, postgresql_server

from mushra.server import health, sign_in
from mushra.store import store as store_module
from qincodec import __version__

SAME = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with postgresql_server() as found:
        yield found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that are waited through here."""
    monkeypatch.setattr(health, "HOLDS_S", 0.0)
    monkeypatch.setattr(health, "WAIT_S", 0.5)


def is_well(client: Any, path: str = "/healthz") -> bool:
    answer = client.get(path)
    status = "ok" if answer.status_code == 200 else "unavailable"
    assert answer.get_json() == {"status": status, "version": __version__}
    assert (answer.status_code, answer.headers.get("Retry-After")) in ((200, None), (503, "5"))
    return status == "ok"


def until_well(client: Any) -> None:
    while not is_well(client):  # pytest-timeout ends it
        time.sleep(0.05)


@pytest.mark.parametrize("prefix", ["", "/lab/test1"])
def test_a_server_that_can_store_is_well(database: str, serve: Any, prefix: str) -> None:
    app = serve(database=database, prefix=prefix)
    store = app.extensions["mushra"].store
    assert is_well(app.test_client(), f"{prefix}/healthz")
    first = store.get_meta("health")
    assert first and abs(time.time() - float(first)) < 1200, "it has written"
    assert is_well(app.test_client(), f"{prefix}/healthz")


def test_a_locked_file_is_said_to_be_and_waited_for(
    serve: Any, listener: Any, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PATIENCE_S", 0.2)
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_S", 1.0)
    app = serve()
    one = listener(app)
    page = one.page("mushra")
    lock = sqlite3.connect(app.extensions["mushra"].store.name, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    assert not is_well(one.client)
    refused = one.put(page, answer(page))
    assert (refused.status_code, refused.get_json()["code"]) == (503, "unavailable")
    assert "locked" in refused.get_json()["error"] and refused.headers["Retry-After"] == "5"
    assert one.get().get_json()["saved"] == {}  # reading goes on
    lock.execute("ROLLBACK")
    until_well(one.client)
    assert one.put(page, answer(page)).status_code == 200


def test_who_asks_while_the_data_base_does_not_answer_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else those who watch would hold all threads of the server for as long as the data base is away."""
    monkeypatch.setattr(health, "WAIT_S", 0.2)
    answers = threading.Event()

    class Away:
        def get_meta(self, _: str) -> None:
            answers.wait()

        def write(self, _: object) -> None:
            pass

    asked = health.Health(cast(Any, Away()))
    began = time.monotonic()
    assert not any(asked.well() for _ in range(50))
    assert time.monotonic() - began < 50 * health.WAIT_S / 2
    answers.set()
    while not asked.well():
        time.sleep(0.01)


def test_who_waits_behind_a_write_that_hangs_is_told_soon(
    serve: Any, listener: Any, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real timeout of ten seconds a lock would hold every thread of the server."""
    monkeypatch.setattr(store_module, "PATIENCE_S", 0.2)
    app = serve()
    one = listener(app)
    page = one.page("mushra")
    lock = sqlite3.connect(app.extensions["mushra"].store.name, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    assert not is_well(one.client)  # its write is the one that hangs
    for _ in range(3):
        assert one.put(page, answer(page)).status_code == 503
    assert not is_well(one.client)
    lock.execute("ROLLBACK")  # still hanging: it was no timeout that ended those
    until_well(one.client)
    assert one.get().get_json()["saved"] == {}, "what was refused was not stored afterwards"


def test_a_file_that_is_gone_takes_nothing_until_it_is_back(serve: Any, listener: Any, answer: Any) -> None:
    app = serve()
    one = listener(app)
    path = Path(app.extensions["mushra"].store.name)
    page, aside = one.page("mushra"), path.with_name("aside")
    path.rename(aside)
    refused = one.put(page, answer(page))
    assert refused.status_code == 503 and "moved or replaced" in refused.get_json()["error"]
    assert not is_well(one.client) and not path.exists()
    aside.rename(path)
    until_well(one.client)
    assert one.put(page, answer(page)).status_code == 200
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM pages").fetchone() == (1,)


def test_postgresql_away_and_back(cluster: Cluster, serve: Any, listener: Any, answer: Any) -> None:
    app = serve(database=new_database(cluster.url))
    one = listener(app)
    page = one.page("mushra")
    assert one.put(page, answer(page)).status_code == 200
    link = {"token": sign_in.new_link(app.extensions["mushra"].store)}
    admin = app.test_client()
    assert admin.post("/admin/sign-in", data=link, headers=SAME).status_code == 302
    cluster.stop()
    changed = {**answer(page, 20), "revision": 2}
    assert one.client.get("/").status_code == 200  # the page itself comes, and asks again for the rest
    for refused in (
        one.put(page, changed),
        one.get(),
        one.finish(),
        one.client.post("/api/sessions", json={}),
    ):
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert refused.get_json()["code"] == "unavailable"
        assert "127.0.0.1" not in refused.text, "where the data base is, is nobody's business"
    looked = admin.get("/admin/")
    assert (looked.status_code, looked.headers["Retry-After"]) == (503, "5")
    assert "The data base cannot be used now" in looked.text and 'http-equiv="refresh"' in looked.text
    changing = admin.post("/admin/closed", data={"closed": "1"}, headers=SAME)
    assert changing.status_code == 503 and "Nothing was changed" in changing.text
    assert not is_well(one.client)
    cluster.start()
    until_well(one.client)
    assert one.put(page, changed).status_code == 200
    assert admin.get("/admin/").status_code == 200
    assert one.get().get_json()["saved"][page["id"]]["revision"] == 2


def test_a_table_that_is_locked_in_postgresql(
    cluster: Cluster, serve: Any, listener: Any, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_S", 0.5)
    database = new_database(cluster.url)
    one = listener(serve(database=database))
    page = one.page("mushra")
    with psycopg.connect(database) as lock:
        lock.execute("LOCK TABLE pages")
        refused = one.put(page, answer(page))
        assert refused.status_code == 503 and "locked" in refused.get_json()["error"]
    assert one.put(page, answer(page)).status_code == 200
