"""Copies of a data base that is in use: plain ones, and those of `mushra backup`."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mushra.cli.main import app as command_line
from mushra.store import store as store_module
from mushra.store.ratings import read_ratings
from mushra.store.store import Store
from qincodec.core.errors import UserError


def until(condition: Any) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def copied(path: Path, to: Path) -> int:
    """Number of finished sessions in a plain copy of the file, without its log."""
    to.unlink(missing_ok=True)
    shutil.copy(path, to)
    try:
        with sqlite3.connect(to) as connection:
            found: int = connection.execute(
                "SELECT count(*) FROM sessions WHERE state='finished'"
            ).fetchone()[0]
            return found
    except sqlite3.DatabaseError:
        return -1


def test_a_plain_copy_of_a_running_data_base_becomes_current_and_its_log_short(
    serve: Any, listener: Any, tmp_path: Path
) -> None:
    app = serve()
    path = Path(app.extensions["mushra"].store.name)
    log = Path(f"{path}-wal")
    for _ in range(3):
        listener(app).take()
    until(lambda: copied(path, tmp_path / "copy.sqlite") == 3)
    until(lambda: log.stat().st_size == 0)
    listener(app).take()
    until(lambda: copied(path, tmp_path / "copy.sqlite") == 4)
    assert len(read_ratings(tmp_path / "copy.sqlite")) == 4 * 6


def test_the_log_is_brought_in_while_somebody_writes_and_somebody_reads(
    serve: Any, listener: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHECKPOINT_AFTER_S", 0.01)
    app = serve()
    store = app.extensions["mushra"].store
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store.set_meta("k", str(number))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        listener(app).take()
        until(lambda: copied(Path(store.name), tmp_path / "copy.sqlite") == 1)
        with store.read() as connection:
            connection.exec_driver_sql("SELECT * FROM meta").all()
            listener(app).take()
    finally:
        stop.set()
        writer.join()
    assert read_ratings(store)["session"].nunique() == 2


def test_an_empty_copy_says_which_file_is_missing(
    serve: Any, listener: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(store_module, "CHECKPOINT_AFTER_S", 3600.0)
    app = serve()
    listener(app).take()
    path, copy = Path(app.extensions["mushra"].store.name), tmp_path / "copy.sqlite"
    shutil.copy(path, copy)
    assert copy.stat().st_size == 4096
    with pytest.raises(UserError, match=r"copy\.sqlite' is empty\. .*copy\.sqlite-wal': copy that file, too"):
        read_ratings(copy)
    shutil.copy(f"{path}-wal", f"{copy}-wal")
    assert len(read_ratings(copy)) == 6
    other = tmp_path / "other.sqlite"
    shutil.copy(path, other)
    Store(other).close()  # goes on, so that a start that was interrupted can be repeated
    assert "other.sqlite-wal" in caplog.text


def run(*arguments: object) -> Any:
    return CliRunner().invoke(command_line, [str(argument) for argument in arguments])


def test_a_backup_while_listeners_save_is_a_whole_test(
    make_folder: Any, serve: Any, listener: Any, tmp_path: Path
) -> None:
    folder = make_folder()
    signals = {name: {"condition": f"codec-{name}"} for name in ("A", "B", "reference")}
    key = {"format": 1, "trials": {"one": {"signals": signals}, "two": {"signals": signals}}}
    (folder / "key.json").write_text(json.dumps(key))
    app = serve(folder=folder)
    listener(app).take()
    running, stop = threading.Event(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            listener(app).take()
            running.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        running.wait()
        made = run("backup", folder, tmp_path / "kept")
    finally:
        stop.set()
        writer.join()
    assert (made.exit_code, made.stdout) == (0, f"{tmp_path / 'kept'}\n"), made
    kept = tmp_path / "kept"
    assert {path.name for path in kept.iterdir()} == {
        *("config.yaml", "key.json", "results.sqlite", "ref.wav", "a.wav", "b.wav")
    }
    connection = sqlite3.connect(kept / "results.sqlite")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()
    frame = read_ratings(kept / "results.sqlite", key=kept / "key.json")
    counts = frame.groupby("session").size()
    assert len(counts) >= 2 and set(counts) == {6}
    assert "codec-A" in set(frame["condition"])
    # It goes on where the copy was made.
    again = serve(folder=kept)
    listener(again).take()
    assert read_ratings(kept / "results.sqlite")["session"].nunique() == len(counts) + 1
    assert isinstance(run("backup", folder, kept).exception, UserError)


def test_a_backup_of_a_yaml_file_and_of_a_data_base(
    make_folder: Any, serve: Any, listener: Any, tmp_path: Path
) -> None:
    folder = make_folder()
    (folder / "configs").mkdir()
    yaml = (folder / "config.yaml").rename(folder / "configs" / "mine.yaml")
    (folder / "b.wav").unlink()
    (folder / "key.json").write_text('{"trials": {}}')  # of the tests in `configs`, too
    with Store(folder / "configs" / "mine.sqlite") as store:
        store.set_meta("k", "v")
    made = run("backup", yaml, tmp_path / "kept")
    assert made.exit_code == 0, made
    assert "b.wav' is not in the backup" in made.stderr
    found = {path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("*.*")}
    assert found == {"ref.wav", "a.wav", "configs/mine.yaml", "configs/mine.sqlite", "configs/key.json"}
    assert run("backup", folder / "configs" / "mine.sqlite", tmp_path / "alone").exit_code == 0
    with Store(tmp_path / "alone" / "results.sqlite", create=False) as store:
        assert store.get_meta("k") == "v"
    assert "has no results yet" in str(run("backup", make_folder(name="new"), tmp_path / "none").exception)
    for command in (["backup", "nothere", tmp_path / "none"], ["export", "nothere"]):
        assert str(run(*command).exception).startswith("nothere does not exist; give a test's folder")
    (tmp_path / "notes.txt").write_text("none")
    notes = run("backup", tmp_path / "notes.txt", tmp_path / "none").exception
    assert "notes.txt is neither a test nor a data base; give a test's folder" in str(notes)
    assert not (tmp_path / "none").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_backup_has_no_results_of_another_test(
    make_folder: Any, serve: Any, listener: Any, small_test: str, tmp_path: Path
) -> None:
    listener(serve()).take()
    other = make_folder(small_test.replace("testId: small", "testId: other"), name="other")
    database = tmp_path / "test" / "results.sqlite"
    made = run("backup", other, tmp_path / "kept", "--database", database)
    assert "has no sessions of test other, only of small; name that test" in str(made.exception)
    assert not (tmp_path / "kept").exists()


def test_a_backup_of_a_test_with_links(make_folder: Any, serve: Any, listener: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "there").mkdir(parents=True)
    folder = make_folder()
    yaml = (
        (folder / "config.yaml")
        .read_text()
        .replace("a.wav", "linked/a.wav")
        .replace("ref.wav", "own/ref.wav")
    )
    (folder / "config.yaml").write_text(yaml)
    (folder / "real").mkdir()
    (folder / "ref.wav").rename(folder / "real" / "ref.wav")
    (folder / "own").symlink_to("real")  # stays in the test, which serves it
    shutil.copy(folder / "a.wav", outside / "there" / "a.wav")
    (folder / "linked").mkdir()
    (folder / "a.wav").rename(folder / "linked" / "a.wav")
    listener(serve(folder=folder)).take()
    shutil.rmtree(folder / "linked")
    (folder / "linked").symlink_to(outside / "there")
    (folder / "b.wav").rename(outside / "b.wav")
    (folder / "b.wav").symlink_to(outside / "b.wav")
    made = run("backup", folder, tmp_path / "kept")
    assert made.exit_code == 0, made
    assert (
        "linked/a.wav' is not in the backup" in made.stderr and "/b.wav' is not in the backup" in made.stderr
    )
    kept = tmp_path / "kept"
    found = {path.relative_to(kept).as_posix() for path in kept.rglob("*.*")}
    assert found == {"config.yaml", "results.sqlite", "own/ref.wav"}
    assert len(read_ratings(kept / "results.sqlite")) == 6


def test_a_backup_of_postgresql_says_what_to_run(postgresql: str, make_folder: Any, tmp_path: Path) -> None:
    folder, database = make_folder(), f"{postgresql}/postgres"
    empty = run("backup", folder, tmp_path / "kept", "--database", database)
    assert "is empty; `mushra serve` fills it" in str(empty.exception)
    Store(database).close()
    made = run("backup", folder, tmp_path / "kept", "--database", database)
    assert f"pg_dump --format=custom --file=results.dump '{database}'" in str(made.exception)
