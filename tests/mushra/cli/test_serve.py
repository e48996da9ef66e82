"""The commands: serve (as a process), invite, export, import; under a prefix and behind a proxy."""

from __future__ import annotations

import json
import re
import secrets
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import typer
from serving import free_port, serving
from typer.testing import CliRunner

from mushra.cli import serve as cli_serve
from mushra.config.load import load_config
from mushra.server import address, sign_in
from mushra.store.ratings import read_ratings
from mushra.store.store import Store
from qincodec.core.errors import UserError


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
    with serving(folder, "--port", "0", "--prefix", "a/b") as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/a/b/", server.url)
        link = re.search(r"http://127\.0\.0\.1:\d+/a/b/admin/sign-in#([\w-]{43}) ", server.printed[1])
        assert link is not None
        with urllib.request.urlopen(server.url) as answer:
            page = answer.read().decode()
        assert "A small test" in page
        assert answer.headers["Server"] == "mushra"
        for path in re.findall(r'(?:src|href)="([^"]+)"', page):
            with urllib.request.urlopen(server.url + path) as asset:
                assert asset.status == 200
        request = urllib.request.Request(f"{server.url}api/sessions", b"{}", method="POST")
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 201
    assert link[1] not in server.said
    assert "Traceback" not in server.said
    assert (folder / "results.sqlite").is_file()


def test_options_are_written_into_the_yaml(make_folder: Any, command: Any) -> None:
    folder = make_folder()
    options = ("--identification", "invitation", "--completion-code", "C-1", "--languages", "de,en")
    with serving(folder, "--port", "0", "--closed", *options) as server:
        section = load_config(folder).section
        token = command("invite", folder, "Ann").split("?t=")[1].strip()
        body = json.dumps({"invitation": token}).encode()
        request = urllib.request.Request(f"{server.url}api/sessions", body, method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert json.loads(refused.value.read())["code"] == "closed"
    assert (section.identification, section.completion.code) == ("invitation", "C-1")
    assert section.languages == ["de", "en"]
    text = (folder / "config.yaml").read_bytes()
    with pytest.raises(UserError, match="must begin with https://"):
        command("serve", folder, "--redirect", "nowhere")
    assert (folder / "config.yaml").read_bytes() == text
    with pytest.raises(UserError, match="give TEST, too"):
        command("serve", "--webmushra", folder, "--closed")


def status(url: str) -> int:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    try:
        with urllib.request.build_opener(Stay).open(url, timeout=600) as answer:
            found: int = answer.status
            return found
    except urllib.error.HTTPError as error:
        return error.code


def test_one_public_address_is_printed_everywhere_and_nothing_answers_outside_the_prefix(
    make_folder: Any, command: Any
) -> None:
    folder, port = make_folder(section="identification: invitation"), free_port()
    public = "https://lab.example.org/lab/test1/"
    options = ["--port", str(port), "--prefix", "lab/test1/", "--public-url", "https://lab.example.org"]
    with serving(folder, *options) as server:
        assert server.url == public
        assert server.printed[1].startswith(f"Admin:     {public}admin/sign-in#")
        ((name, link),) = [line.split("\t") for line in command("invite", folder, "Ada").splitlines()]
        assert (name, link.partition("?t=")[0]) == ("Ada", public)
        inside, top = f"http://127.0.0.1:{port}/lab/test1", f"http://127.0.0.1:{port}"
        paths = ("/", "/admin/sign-in", "/static/icon.svg")
        assert [status(inside + path) for path in paths] == [200, 200, 200]
        outside = (
            *paths,
            *("/api/sessions", "/lab", "/lab/", "/lab/test", "/lab/test12/", "/LAB/TEST1/", "/admin/"),
        )
        assert {path: status(top + path) for path in outside} == dict.fromkeys(outside, 404)
        assert status(inside) == 308
        with urllib.request.urlopen(inside + "?t=x") as answer:
            assert answer.url == f"{inside}/?t=x"
    assert "this machine only" not in server.said


def test_the_administrators_page_gives_the_same_links(serve: Any) -> None:
    app = serve(section="identification: invitation", prefix="/lab")
    here = app.extensions["mushra"]
    same = {"Sec-Fetch-Site": "same-origin"}

    def links() -> str:
        client = app.test_client()
        token = sign_in.new_link(here.store)
        client.post("/lab/admin/sign-in", data={"token": token}, headers=same)
        names = {"names": secrets.token_hex(4)}
        page: str = client.post("/lab/admin/invitations", data=names, headers=same).get_data(as_text=True)
        return page

    assert "http://localhost/lab/?t=" in links()
    here.public_address = "https://lab.example.org/lab/"
    assert "https://lab.example.org/lab/?t=" in links()
    assert "this machine only" not in links()
    here.public_address = "http://127.0.0.1:8000/lab/"
    assert "this machine only" in links()


def test_a_loopback_address_is_warned_of(make_folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_folder(section="identification: invitation")
    with Store(folder / "results.sqlite") as store:
        for kept, warned in (
            (None, "not served yet"),
            ("http://127.0.0.1:8123/", "http://127.0.0.1:8123/ can be opened on this machine only"),
            ("http://[::1]:8000/", "this machine only"),
            ("http://localhost:8000/", "this machine only"),
            ("http://192.168.1.7:8000/", None),
            ("https://lab.example.org/t/", None),
        ):
            if kept is not None:
                address.keep_address(store, "small", kept, "")
            cli_serve.invite(folder, [f"name {kept}"])
            printed = capsys.readouterr()
            assert printed.out.startswith(f"name {kept}\t{kept or 'http://127.0.0.1:8000/'}?t=")
            assert (warned or "warning") in printed.err or warned is None, printed.err
            assert bool(printed.err) == (warned is not None)


@pytest.mark.parametrize(
    ("public_url", "prefix", "made"),
    [
        (None, "", "http://127.0.0.1:8000/"),
        (None, "/a", "http://127.0.0.1:8000/a/"),
        ("https://x.org", "/a/b", "https://x.org/a/b/"),
        ("https://x.org/", "/a/b", "https://x.org/a/b/"),
        ("https://x.org/a/b/", "/a/b", "https://x.org/a/b/"),
        ("https://x.org:8443/t", "", "https://x.org:8443/t/"),
        ("https://lab", "/lab", "https://lab/lab/"),
        ("https://x.org", "/x.org", "https://x.org/x.org/"),
        ("https://lab/lab", "/lab", "https://lab/lab/"),
    ],
)
def test_the_address_has_the_prefix_once(public_url: str | None, prefix: str, made: str) -> None:
    assert address.public_address(public_url, "127.0.0.1", 8000, prefix) == made


@pytest.mark.parametrize(
    "wrong", ["lab.example.org", "ftp://x.org", "https://", "https://x.org/?a=b", "http://a b/"]
)
def test_an_address_that_is_none_is_refused(make_folder: Any, command: Any, wrong: str) -> None:
    folder = make_folder(section="identification: invitation")
    for arguments in (("serve", folder, "--port", "0"), ("invite", folder, "Ada")):
        with pytest.raises(UserError, match="is not the address of a page; give one such as https://"):
            command(*arguments, "--public-url", wrong)
    with pytest.raises(UserError, match="not a path; give one such as /lab/test1"):
        command("serve", folder, "--port", "0", "--prefix", "/a/../b")


def test_a_qr_code_has_the_whole_address(monkeypatch: pytest.MonkeyPatch, make_folder: Any) -> None:
    from mushra.server import connections

    drawn: list[str] = []
    monkeypatch.setattr(cli_serve, "_print_qr", drawn.append)
    monkeypatch.setattr(connections._Server, "run", lambda self: None)
    options: dict[str, Any] = {"port": 0, "qr": True, "prefix": "/lab/test1"}
    cli_serve.serve(make_folder(), **options, public_url="https://lab.example.org")
    assert drawn == ["https://lab.example.org/lab/test1/"]
    cli_serve.serve(make_folder(name="loop"), **options)
    assert len(drawn) == 1


def test_each_test_of_a_data_base_has_its_own_address(
    monkeypatch: pytest.MonkeyPatch, make_folder: Any, command: Any, small_test: str, database: str
) -> None:
    from mushra.server import connections

    monkeypatch.setattr(connections._Server, "run", lambda self: None)
    folders = {}
    for name in ("two", "three", "never" * 30):
        yaml = small_test.replace("testId: small", f"testId: {name}")
        folders[name] = make_folder(yaml, "identification: invitation", name)
    public = "https://lab.example.org"
    for name in ("two", "three"):
        options: dict[str, Any] = {"port": 0, "qr": False, "database": database, "public_url": public}
        cli_serve.serve(folders[name], **options, prefix=f"/lab/{name}")

    def invited(name: str, *options: str) -> str:
        person = secrets.token_hex(4)
        printed: str = command("invite", folders[name], person, "--database", database, *options)
        return printed.partition("\t")[2].partition("?t=")[0]

    for name in ("two", "three"):
        assert invited(name) == f"{public}/lab/{name}/"
        # The same option means the same as with `serve`, which needs no prefix in it and may have it.
        for given in (public, f"{public}/lab/{name}"):
            assert invited(name, "--public-url", given) == f"{public}/lab/{name}/"
    assert invited("never" * 30) == "http://127.0.0.1:8000/"


def test_a_folder_and_its_yaml_are_one_test_with_one_data_base(
    make_folder: Any, command: Any, serve: Any, listener: Any, tmp_path: Path
) -> None:
    folder = make_folder()
    listener(serve(folder=folder)).take()
    made = [Path(path) for path in command("export", folder / "config.yaml").split()]
    assert folder / "results" / "small" / "mushra.csv" in made
    command("backup", folder / "config.yaml", tmp_path / "kept")
    assert len(read_ratings(tmp_path / "kept" / "results.sqlite")) == 6
    assert not list(tmp_path.rglob("config.sqlite"))


def test_a_port_that_is_taken_is_said(make_folder: Any, command: Any) -> None:
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
    with pytest.raises(UserError, match=r"is not a checkout of webMUSHRA"):
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
    with pytest.raises(UserError, match="--identification invitation"):
        command("invite", make_folder(name="other"), "Ada")


def test_a_new_administrators_link_needs_no_restart(make_folder: Any, command: Any, serve: Any) -> None:
    app = serve(folder=make_folder(), prefix="/lab")
    address.keep_address(app.extensions["mushra"].store, "small", "https://lab.example/lab/", "/lab")
    folder = Path(app.extensions["mushra"].store.name).parent
    link = command("sign-in", folder).strip()
    before, _, token = link.partition("#")
    assert before == "https://lab.example/lab/admin/sign-in"
    same = {"Sec-Fetch-Site": "same-origin"}
    for status in (302, 403):
        answer = app.test_client().post("/lab/admin/sign-in", data={"token": token}, headers=same)
        assert answer.status_code == status
    with pytest.raises(UserError, match="does not exist; start the test"):
        command("sign-in", make_folder(name="never served"))


def test_a_listener_is_forgotten_with_all_their_sessions(
    make_folder: Any, command: Any, serve: Any, listener: Any
) -> None:
    app = serve(folder=make_folder(section="identification: prolific"))
    store = app.extensions["mushra"].store
    who = {"pid": "Ada_of_Prolific", "study": "s"}
    first, again = (listener(app, prolific={**who, "session": number}).take() for number in "12")
    other = listener(app, prolific={**who, "pid": "Bo_of_Prolific", "session": "3"}).take()
    folder, name = Path(store.name).parent, first.session["id"]
    with pytest.raises(UserError, match=f"2 sessions of {name} would be erased for good; --yes erases them"):
        command("forget", folder, name[:8])
    assert again.get().status_code == 200
    with pytest.raises(UserError, match=rf"2 sessions of {name} would be erased"):
        command("forget", folder, "Ada_of_Prolific")
    assert f"2 sessions of {name} erased" in command("forget", folder, name[:8], "--yes")
    assert {one.get().status_code for one in (first, again)} == {404}  # while it is served
    assert other.get().status_code == 200
    raw = b"".join(path.read_bytes() for path in folder.glob("results.sqlite*"))
    assert b"Bo_of_Prolific" in raw and b"Ada_of_Prolific" not in raw
    with pytest.raises(UserError, match=name[:8]):
        command("forget", folder, name[:8], "--yes")


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
