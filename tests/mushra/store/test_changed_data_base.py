"""Data bases that something else has changed, and addresses with passwords: one line of every command."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mushra.cli.main import app as command_line
from mushra.store.store import Store
from qincodec.core.console import run_command
from qincodec.core.errors import UserError


def run(*arguments: object) -> Any:
    return CliRunner().invoke(command_line, [str(argument) for argument in arguments])


def said(*arguments: object) -> str:
    """What a command that refuses says: one line."""
    error = run(*arguments).exception
    assert isinstance(error, UserError), error
    assert "\n" not in str(error)
    return str(error)


@pytest.fixture
def taken(serve: Any, listener: Any) -> Path:
    """Folder of a test that somebody took; its server is stopped."""
    app = serve()
    listener(app).take()
    store = app.extensions["mushra"].store
    store.close()
    return Path(store.name).parent


def change(folder: Path, statement: str) -> Path:
    path = folder / "results.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    return path


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE ratings SET detail = '{bad'", "does not write .*JSONDecodeError"),
        ("UPDATE ratings SET stimulus = x'00ff'", "does not write .*TypeError"),
        ("UPDATE answers SET value = x'00ff'", "does not write"),
        ("ALTER TABLE ratings DROP COLUMN answer", "no such column"),
        ("DROP TABLE pages", "has no table pages"),
        ("DELETE FROM meta", "something else"),
    ],
)
def test_commands_name_the_file_and_what_is_wrong(taken: Path, statement: str, what: str) -> None:
    path = change(taken, statement)
    formats = ("webmushra", "tidy", "json") if "detail" in statement else ("webmushra",)
    commands = [("export", source, "--format", kind) for source in (taken, path) for kind in formats]
    for command in [*commands, ("analyze", path)]:
        if command[0] == "analyze" and "answer" in statement and "DROP" not in statement:
            continue  # which does not look at it
        message = said(*command)
        assert "results.sqlite" in message
        assert re.search(what, message), message
        assert any(word in message for word in ("give a", "check the file", "put a backup"))


@pytest.mark.parametrize("number", ["0", "-1", "one", "", "²", "1.5", "99999999999"])
def test_a_schema_that_no_version_wrote(taken: Path, number: str) -> None:
    path = change(taken, f"UPDATE meta SET value = '{number}' WHERE key = 'schema_version'")
    for command in (("serve", taken), ("export", path), ("analyze", path), ("invite", taken, "Ada")):
        if command[0] == "invite":
            (taken / "config.yaml").open("a").write("\nqincodec: {identification: invitation}\n")
        message = said(*command)
        assert "results.sqlite' has schema" in message and "put a backup in its place" in message


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:{}@127.0.0.1:1/db",
        "postgresql://user:se/{}@127.0.0.1:1/db",
        "postgresql://user:se?{}@127.0.0.1:1/db",
        "postgresql://user:sp@{}@127.0.0.1:1/db",
        "postgresql://user:{}@127.0.0.1:port/db",
        "postgresql://127.0.0.1:1/db?user=u&password={}",
        "postgresql://127.0.0.1:1/db?sslpassword={}",
        "postgresql+nothing://user:{}@127.0.0.1:1/db",
        "mysql://user:{}@127.0.0.1:1/db",
    ],
)
def test_no_command_prints_the_password_of_an_address(address: str, make_folder: Any, tmp_path: Path) -> None:
    address, folder = address.format("pa55word"), make_folder()
    for command in (
        ("export", address),
        ("backup", address, tmp_path / "kept"),
        ("analyze", address),
        ("plan", "--from", address),
        *[(name, folder, "--database", address) for name in ("serve", "export", "analyze")],
        ("backup", folder, tmp_path / "kept", "--database", address),
        ("import", folder / "config.yaml", "--database", address),
    ):
        message = said(*command)
        assert "pa55word" not in message
        assert "does not exist" not in message


def test_export_and_backup_take_an_address(
    postgresql: str, serve: Any, listener: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from postgresql_server import new_database

    address = new_database(postgresql)
    app = serve(database=address)
    for score in (60, 70, 90):
        listener(app).take(score)
    monkeypatch.chdir(tmp_path)
    done = run("export", address, "--format", "tidy")
    assert (done.exit_code, done.stdout) == (0, "results/ratings.csv\n"), done
    assert len((tmp_path / "results" / "ratings.csv").read_text().splitlines()) == 19
    assert f"pg_dump --format=custom --file=results.dump '{address}'" in said("backup", address, "kept")
    planned = run("plan", "--from", address, "--keep", "all", "--out", "plan", "--simulations", "100")
    assert planned.exit_code == 0, planned
    user, _, rest = address.removeprefix("postgresql://").partition("@")
    assert rest in planned.output and f"{user}@" not in planned.output


def test_a_sqlite_address_is_that_file(taken: Path) -> None:
    path = taken / "results.sqlite"
    done = run("export", f"sqlite:///{path}", "--format", "tidy")
    assert done.stdout == f"{taken}/results/ratings.csv\n"
    assert "does not exist; start the test" in said("export", f"sqlite:///{taken}/none.sqlite")
    with Store(path, create=False) as store:
        assert store.name == str(path)


def test_the_administrator_is_told_what_is_wrong(serve: Any, listener: Any) -> None:
    from mushra.server.sign_in import new_link

    app = serve()
    taken = listener(app).take()
    store = app.extensions["mushra"].store
    client = app.test_client()
    client.post("/admin/sign-in", data={"token": new_link(store)}, headers={"Sec-Fetch-Site": "same-origin"})
    change(Path(store.name).parent, "UPDATE ratings SET detail = '{bad'")
    one = f"sessions/{taken.session['id']}"
    for page in ("", one, "export/tidy", f"{one}/export"):
        answer = client.get(f"/admin/{page}")
        assert answer.status_code == 500
        assert "results.sqlite has content that `mushra serve` does not write" in answer.text, page


def test_a_key_that_is_a_folder_is_no_key(taken: Path, tmp_path: Path) -> None:
    (taken / "key.json").mkdir()
    for command in (("export", taken), ("analyze", taken), ("backup", taken, tmp_path / "kept")):
        assert "key.json'" in said(*command)
    assert "Is a directory" in run("check", taken).output
    (taken / "key.json").rmdir()
    (taken / "key.json").symlink_to("nowhere")
    assert "key.json" in said("export", taken)


def test_a_key_with_one_condition_for_two_signals_is_refused(taken: Path) -> None:
    same = {"reference": {"condition": "opus"}, "A": {"condition": "opus"}, "B": {"condition": "opus"}}
    right = {"reference": {"condition": "reference"}, "A": {"condition": "opus"}, "B": {"condition": "mp3"}}
    for one in (same, {**right, "B": {"condition": "opus"}}):
        (taken / "key.json").write_text(
            json.dumps({"trials": {"one": {"signals": one}, "two": {"signals": right}}})
        )
        for command in (("analyze", taken), ("export", taken)):
            assert "of trial 'one' are both" in said(*command)
    (taken / "key.json").write_text(
        json.dumps({"trials": {"one": {"signals": right}, "two": {"signals": right}}})
    )
    assert run("export", taken).exit_code == 0


def test_a_name_with_a_line_break_keeps_the_message_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("check", "export", "analyze", "serve"):
        with pytest.raises(SystemExit):
            run_command(command_line, [command, "no\nsuch\x1b[2Jtest"], "mushra")
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and "\x1b" not in message and "such" in message


def test_a_folder_that_cannot_be_written_is_said_to_be(taken: Path, tmp_path: Path) -> None:
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override"]
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may write everywhere; needs setpriv of util-linux")
    (taken / "results.sqlite").chmod(0o444)
    taken.chmod(0o555)
    try:
        for command, what in (
            (("export", taken), "read-only"),
            (("import", taken / "config.yaml", "--database", taken / "new.sqlite"), "cannot be written"),
        ):
            line = [sys.executable, "-m", "mushra", *map(str, command)]
            done = subprocess.run(
                [*(drop if os.geteuid() == 0 else []), *line], capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
            assert what in done.stderr and ".sqlite'" in done.stderr
    finally:
        taken.chmod(0o755)
