"""The commands: serve (as a process), invite, export, import; under a prefix and behind a proxy."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mushra import cli_serve
from mushra.server.store import read_ratings
from qincodec.errors import UserError

RUN = "import typer, mushra.cli_serve as c; app = typer.Typer(); c.register(app); app()"


@pytest.fixture
def command() -> Any:
    """(arguments) -> what the command printed; raises what it raises."""
    app = typer.Typer()
    cli_serve.register(app)

    def run(*arguments: str | Path) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return run


def test_a_served_test_says_where_it_is_and_stops_cleanly(make_folder: Any) -> None:
    folder = make_folder()
    command = [sys.executable, "-c", RUN, "serve", str(folder), "--port", "0", "--prefix", "a/b"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        base = re.fullmatch(r"Listeners: (http://127\.0\.0\.1:\d+/a/b/)\n", lines[0])
        assert base is not None, lines
        link = re.search(r"http://127\.0\.0\.1:\d+/a/b/admin/sign-in#([\w-]{43}) ", lines[1])
        assert link is not None
        with urllib.request.urlopen(base[1]) as answer:
            page = answer.read().decode()
        assert "A small test" in page
        assert answer.headers["Server"] == "mushra"
        for address in re.findall(r'(?:src|href)="([^"]+)"', page):
            with urllib.request.urlopen(base[1] + address) as asset:
                assert asset.status == 200
        request = urllib.request.Request(f"{base[1]}api/sessions", b"{}", method="POST")
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 201
        process.send_signal(signal.SIGTERM)
        rest, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert link[1] not in log
    assert "Traceback" not in rest + log
    assert (folder / "results.sqlite").is_file()


def test_a_port_that_is_taken_is_said(make_folder: Any, command: Any) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=r"cannot listen at 127\.0\.0\.1:.*another --port"):
            command("serve", make_folder(), "--port", str(taken.getsockname()[1]))


def test_a_test_with_errors_is_not_served(make_folder: Any, command: Any) -> None:
    folder = make_folder()
    (folder / "a.wav").unlink()
    with pytest.raises(UserError, match=r"config\.yaml:\d+: error: page 4: 'a\.wav'"):
        command("serve", folder, "--port", "0")
    with pytest.raises(UserError, match="no test given"):
        command("serve")
    with pytest.raises(UserError, match=r"no checkout of webMUSHRA"):
        command("serve", "--webmushra", folder, "--port", "0")


def test_invitations_from_the_command_work(make_folder: Any, command: Any, serve: Any, listener: Any) -> None:
    folder = make_folder(section="identification: invitation")
    printed = command("invite", folder, "Ada", "Bo", "--public-url", "https://lab.example/test/")
    links = dict(line.split("\t") for line in printed.splitlines())
    assert list(links) == ["Ada", "Bo"]
    token = re.fullmatch(r"https://lab\.example/test/\?t=([\w-]+)", links["Bo"])
    assert token is not None
    assert listener(serve(folder=folder), invitation=token[1]).status == 201
    with pytest.raises(UserError, match="'Ada' has an invitation"):
        command("invite", folder, "Ada")
    with pytest.raises(UserError, match="identification: invitation"):
        command("invite", make_folder(name="other"), "Ada")


def test_export_applies_the_key_beside_the_test(
    make_folder: Any, command: Any, serve: Any, listener: Any
) -> None:
    folder = make_folder()
    listener(serve(folder=folder)).take()
    signals = {name: {"condition": f"codec-{name}"} for name in ("A", "B", "reference")}
    key = {"format": 1, "trials": {"one": {"signals": signals}, "two": {"signals": signals}}}
    (folder / "key.json").write_text(json.dumps(key))
    printed = command("export", folder).split()
    names = {Path(path).name for path in printed}
    assert names == {"mushra.csv", "bs1116.csv", "paired_comparison.csv", "lms.csv"}
    text = (folder / "results" / "small" / "mushra.csv").read_text()
    assert "codec-A" in text
    command("export", folder, "--no-key")
    assert "codec-A" not in (folder / "results" / "small" / "mushra.csv").read_text()
    with pytest.raises(UserError, match="exclude each other"):
        command("export", folder, "--no-key", "--key", folder / "key.json")
    (path,) = command("export", folder / "results.sqlite", "--format", "json", "--out", folder / "o").split()
    assert "codec-A" in Path(path).read_text()


def test_import_from_the_command(shared: Any, command: Any, tmp_path: Path) -> None:
    source = shared("mushra/AES2023_webmushra_results.csv")
    database = tmp_path / "x.sqlite"
    assert "22 sessions stored, 0 were" in command("import", source, "--database", database)
    assert "0 sessions stored, 22 were" in command("import", source, "--database", database)
    assert len(read_ratings(database)) == 2288


def test_behind_a_proxy_links_are_those_of_the_proxy(serve: Any) -> None:
    headers = {"X-Forwarded-Host": "lab.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/t"}
    behind = serve(trusted_proxies=1).test_client().get("/admin/", headers=headers)
    assert behind.headers["Location"] == "/t/admin/sign-in"


def test_headers_of_a_proxy_are_not_believed_unasked(serve: Any) -> None:
    headers = {"X-Forwarded-Prefix": "/evil", "X-Forwarded-Host": "evil.example"}
    answer = serve().test_client().get("/admin/", headers=headers)
    assert answer.headers["Location"] == "/admin/sign-in"


def test_the_commands_import_nothing_heavy_before_they_run() -> None:
    code = "import sys, mushra.cli_serve;"
    code += "print([m for m in ('flask', 'sqlalchemy', 'torch', 'numpy') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
