"""The store on SQLite and on PostgreSQL: concurrent writers, failures, versions, what several hosts share."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from mushra.server.crowd import summary
from mushra.server.progress import list_invitations
from mushra.store import export, records, schema
from mushra.store import store as store_module
from mushra.store.failures import StoreUnavailable
from mushra.store.pages import Rating
from mushra.store.ratings import read_ratings
from mushra.store.records import Arrival, sha256
from mushra.store.store import Store
from mushra.store.whole_sessions import WholePage, WholeSession, add_whole
from qincodec.core.errors import UserError


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Results of ``work`` in so many threads; an exception is one, too."""
    results: list[Any] = [None] * count
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        try:
            results[number] = work(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def count(store: Store, table: sa.Table) -> int:
    with store.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def test_several_hosts_open_a_new_data_base_at_once(database: str) -> None:
    def work(number: int) -> str:
        with Store(database) as store:
            return store.meta("secret", lambda: f"secret {number}")

    found = at_once(6, work)
    assert len(set(found)) == 1, found
    assert found[0].startswith("secret")


def test_a_new_file_that_another_host_is_setting_up_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    again = sqlite3.connect(path, timeout=600)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        again.execute("PRAGMA journal_mode=WAL")  # SQLite refuses this at once, whatever the timeout
    again.close()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            other.execute("ROLLBACK")

    monkeypatch.setattr(store_module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    with Store(path) as store:
        store.set_meta("k", "v")
    assert len(waits) >= 2


def test_a_change_that_fails_leaves_nothing_and_harms_no_other(database: str) -> None:
    with Store(database) as store:

        def work(number: int) -> None:
            def change(connection: sa.Connection) -> None:
                connection.execute(schema.meta.insert().values(key=f"k{number}", value="v"))
                if number % 3 == 0:
                    raise ValueError(number)
                if number % 3 == 1:
                    connection.execute(schema.meta.insert().values(key=f"k{number}", value="again"))

            store.write(change)

        results = at_once(30, work)
        kinds = Counter(type(result).__name__ for result in results)
        assert kinds == {"ValueError": 10, "IntegrityError": 10, "NoneType": 10}
        with store.read() as connection:
            keys = set(connection.execute(sa.select(schema.meta.c.key)).scalars())
        assert keys == {"schema_version", *(f"k{n}" for n in range(30) if n % 3 == 2)}


def test_sessions_through_the_api(database: str, serve: Any, listener: Any, answer: Any) -> None:
    app = serve(database=database)
    store = app.extensions["mushra"].store
    begun = at_once(12, lambda _: listener(app))
    assert [one.status for one in begun] == [201] * 12
    with store.read() as connection:
        rows = connection.execute(sa.select(schema.sessions.c.number, schema.sessions.c.slot)).all()
    assert sorted(row.number for row in rows) == list(range(12))
    assert sorted(row.slot for row in rows) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    results = at_once(12, lambda number: begun[number].take())
    assert all(result is begun[number] for number, result in enumerate(results)), results
    assert count(store, schema.pages) == 12 * 11
    assert len(read_ratings(store)) == 12 * 6
    one = begun[0]
    page = one.page("mushra")
    assert one.put(page, {**answer(page), "revision": 9}).status_code == 409
    files = export.render(store, "webmushra")
    assert len(files["small/mushra.csv"].splitlines()) == 1 + 12 * 6
    json.dumps(export.document(store))
    with store.read() as connection:
        assert summary(connection, "small")["finished"] == 12


def test_strange_addresses_reach_no_data_base(database: str, serve: Any, listener: Any) -> None:
    from mushra.server import sign_in

    app = serve(database=database)
    one = listener(app)
    token = sign_in.new_link(app.extensions["mushra"].store)
    same = {"Sec-Fetch-Site": "same-origin"}
    assert one.client.post("/admin/sign-in", data={"token": token}, headers=same).status_code == 302
    for name in ("%00", "a%00b", "%ff", "%ed%a0%80", "'", "x" * 3000):
        assert one.client.get(f"/api/sessions/{name}", headers=one.headers).status_code in (401, 404)
        assert one.client.get(f"/admin/sessions/{name}").status_code == 404
        assert one.client.get(f"/admin/sessions/{name}/export").status_code == 404
        assert one.client.get(f"/stimuli/{name}").status_code == 404
        erased = one.client.post(f"/admin/sessions/{name}/erase", data={"sure": "erase"}, headers=same)
        assert erased.status_code == 404
        wrong = one.client.post("/admin/sign-in", data={"token": name, "password": "\0"}, headers=same)
        assert wrong.status_code == 403
        withdrawn = one.client.post("/admin/invitations/withdraw", data={"name": "a\0b"}, headers=same)
        assert withdrawn.status_code == 404


def test_one_page_saved_by_many_is_there_once(database: str, serve: Any, listener: Any, answer: Any) -> None:
    app = serve(database=database)
    one = listener(app)
    page = one.page("mushra")
    statuses = at_once(20, lambda n: one.put(page, {**answer(page, n), "revision": 1 + n % 5}).status_code)
    assert set(statuses) == {200, 409}  # no two have the same content: those that came too late are told
    taken = [n for n, status in enumerate(statuses) if status == 200]
    assert len({n % 5 for n in taken}) == len(taken), "of each revision one at most"
    (last,) = [n for n in taken if n % 5 == 4]
    saved = one.get().get_json()["saved"][page["id"]]
    assert (saved["revision"], saved["result"]["ratings"][1]["score"]) == (5, last)
    assert count(app.extensions["mushra"].store, schema.ratings) == 2


def test_an_invitation_is_one_session_however_many_come(database: str, serve: Any, listener: Any) -> None:
    app = serve(section="identification: invitation", database=database)
    store = app.extensions["mushra"].store
    token = store.write(lambda connection: records.invite(connection, "small", ["Ada"]))["Ada"]
    found = at_once(8, lambda _: listener(app, invitation=token).session.get("id"))
    assert len(set(found)) == 1
    assert None not in found
    store.write(lambda connection: records.exclude(connection, found[0], "why not"))
    store.write(lambda connection: records.erase(connection, found[0]))
    for table in (schema.sessions, schema.session_keys, schema.pages):
        assert count(store, table) == 0
    with store.read() as connection:
        (invitation,) = list_invitations(connection, "small")
    assert invitation.name.startswith("erased-")
    assert invitation.used_at is not None
    assert not store.write(lambda connection: records.withdraw(connection, "small", invitation.name))


def test_the_same_names_cannot_be_invited_twice(database: str) -> None:
    with Store(database) as store:
        results = at_once(
            6, lambda _: store.write(lambda connection: records.invite(connection, "t", ["Ada", "Bo"]))
        )
        assert sum(isinstance(result, dict) for result in results) == 1
        assert count(store, schema.invitations) == 2


def whole(number: int) -> WholeSession:
    ratings = [Rating("A", score=50.5, time_ms=3, comment="\u00e4\U0001f3a7")]
    pages = [WholePage("x", "mushra", False, ratings)]
    return WholeSession("T", "webmushra", f"u{number}", [("q", "a")], pages)


def test_a_submission_sent_often_is_stored_once(database: str) -> None:
    with Store(database) as store:
        results = at_once(
            20, lambda number: store.write(lambda connection: add_whole(connection, whole(number % 4)))
        )
        assert sorted(results) == [False] * 16 + [True] * 4
        frame = read_ratings(store)
        assert sorted(frame["listener"]) == ["u0", "u1", "u2", "u3"]
        assert set(frame["answer:q"]) == {"a"}
        assert set(frame["comment"]) == {"\u00e4\U0001f3a7"}


def test_reading_sees_one_state(database: str) -> None:
    with Store(database) as store, store.read() as reader:
        before = reader.execute(sa.select(sa.func.count()).select_from(schema.meta)).scalar_one()
        store.set_meta("new", "x")
        store.set_meta("new", "y")
        if store.is_sqlite:
            assert reader.execute(sa.select(sa.func.count()).select_from(schema.meta)).scalar_one() == before
        assert store.get_meta("new") == "y"


def test_an_older_version_is_migrated_once_and_a_newer_one_refused(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(database) as store:
        store.set_meta("kept", "1")
    runs: list[int] = []

    def migrate(connection: sa.Connection) -> None:
        runs.append(1)
        connection.execute(sa.text("ALTER TABLE sessions ADD COLUMN novelty TEXT"))

    version = schema.SCHEMA_VERSION
    monkeypatch.setattr(schema, "SCHEMA_VERSION", version + 1)
    monkeypatch.setitem(schema.MIGRATIONS, version, migrate)
    for _ in range(2):
        with Store(database) as store:
            assert store.get_meta("kept") == "1"
            assert store.get_meta("schema_version") == str(version + 1)
            with store.read() as connection:
                connection.execute(sa.text("SELECT novelty FROM sessions")).all()
    assert runs == [1]
    monkeypatch.undo()
    with pytest.raises(UserError, match=f"schema {version + 1}, this version reads up to {version}"):
        Store(database)


def test_a_migration_that_fails_changes_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(database).close()

    def migrate(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE sessions ADD COLUMN novelty TEXT"))
        raise UserError("no")

    monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
    monkeypatch.setitem(schema.MIGRATIONS, schema.SCHEMA_VERSION - 1, migrate)
    with pytest.raises(UserError, match="no"):
        Store(database)
    monkeypatch.undo()
    with Store(database) as store, pytest.raises(Exception, match="novelty"), store.read() as connection:
        connection.execute(sa.text("SELECT novelty FROM sessions"))


# SQLite alone


def test_the_file_is_as_safe_as_it_is_said_to_be(tmp_path: Path) -> None:
    with Store(tmp_path / "a.sqlite") as store, store.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_full_disk_says_so_and_keeps_what_was_confirmed(serve: Any, listener: Any, answer: Any) -> None:
    app = serve()
    store = app.extensions["mushra"].store
    one = listener(app)
    first, second = [page for page in one.pages if page["type"] == "mushra"][:2]
    assert one.put(first, answer(first)).status_code == 200
    pages = store.write(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar())
    # Each connection of the pool has a limit of its own.
    limit = [pages]
    sa.event.listen(
        store._engine,
        "begin",
        lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {limit[0]}"),
    )
    comment = {"comment": "x" * 10_000}
    large = {**answer(second), "ratings": [{**r, **comment} for r in answer(second)["ratings"]]}
    full = one.put(second, large)
    assert full.status_code == 503
    assert "disk is full" in full.get_json()["error"]
    assert full.headers["Retry-After"]
    assert list(one.get().get_json()["saved"]) == [first["id"]]
    limit[0] = 1_000_000
    assert one.put(second, large).status_code == 200
    assert list(one.get().get_json()["saved"]) == [first["id"], second["id"]]


def test_another_process_that_writes_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with Store(path) as store:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        writer = threading.Thread(target=lambda: store.set_meta("k", "v"))
        writer.start()
        with store.read() as connection:  # others read meanwhile
            connection.execute(sa.select(schema.meta)).all()
        assert writer.is_alive()
        other.execute("COMMIT")
        writer.join()
        assert store.get_meta("k") == "v"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"hello, this is text", "not a SQLite data base"), (None, "its folder does not exist")],
)
def test_what_is_no_data_base_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / ("x.sqlite" if content else "missing/x.sqlite")
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        Store(path)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE sessions (a)")
    with pytest.raises(UserError, match="something else"):
        Store(other)
    for url in ("mysql://x/y", "nonsense://", ":memory:", "sqlite://", "postgresql://nobody@127.0.0.1:1/x"):
        with pytest.raises(UserError):
            Store(url)
    with pytest.raises(UserError, match="does not exist"):
        read_ratings(tmp_path / "none.sqlite")


def test_a_damaged_name_in_a_data_base_is_said(tmp_path: Path) -> None:
    """SQLite's message then has bytes that are no text."""
    path = tmp_path / "a.sqlite"
    Store(path).close()
    data = path.read_bytes()
    assert b"tablesessionssessions" in data
    data = data.replace(b"CREATE TABLE sessions", b"CREATE TABLX sessions")
    path.write_bytes(data.replace(b"tablesessionssessions", b"table\xcb\xcb\xcbsionssessions"))
    with pytest.raises(UserError, match="damaged: put a backup in its place"):
        Store(path)


def test_nothing_is_written_after_closing(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.sqlite")
    store.close()
    with pytest.raises(StoreUnavailable):
        store.set_meta("k", "v")


def test_keys_are_compared_whole() -> None:
    session = records.Session("s", "t", "en", {}, (sha256("right"), sha256("other")))
    assert session.opened_by("right")
    assert session.opened_by("other")
    for wrong in ("", "righ", "right ", "RIGHT"):
        assert not session.opened_by(wrong)
    assert Arrival.__dataclass_fields__["person"].default is None
