"""The files of docs/hosting for nginx and Caddy, with these programs and TLS in front of the server."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import request
from serving import free_port

from mushra.config.load import load_config
from mushra.server import create_app, sign_in
from mushra.server.connections import make_server

HOSTING = Path(__file__).resolve().parents[3] / "docs" / "hosting"
PREFIX = "/lab/test1"
MEBIBYTE = 1024 * 1024


@dataclass
class Front:
    """A test behind a proxy. ``seen``: of each request address, scheme, host and path of the application."""

    app: Any
    server: int
    seen: list[tuple[str | None, str, str, str]]
    port: int = 0
    plain: int = 0
    trusted: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """The answer, with ``content``."""
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=600, context=self.trusted)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): v for name, v in headers.items()})
            answer = connection.getresponse()
            answer.content = answer.read()  # type: ignore[attr-defined]
            return answer
        finally:
            connection.close()


@pytest.fixture
def front(make_folder: Callable[..., Path]) -> Iterator[Front]:
    folder, seen, port = make_folder(), [], free_port()
    database = folder / "results.sqlite"
    app = create_app(load_config(folder), database, prefix=PREFIX, trusted_proxies=1, submissions=True)

    @app.before_request
    def look() -> None:
        seen.append((request.remote_addr, request.scheme, request.host, request.script_root))

    server = make_server(app, "127.0.0.1", port, threads=2, max_body_bytes=10 * MEBIBYTE, behind_proxy=True)
    threading.Thread(target=server.run, daemon=True).start()
    yield Front(app, port, seen)
    server.close()
    app.extensions["mushra"].store.close()


def until_listening(front: Front, process: subprocess.Popen[bytes], log: Path) -> None:
    while True:  # pytest-timeout ends it
        assert process.poll() is None, log.read_text()
        try:
            front.ask("GET", "/")
            return
        except OSError:
            time.sleep(0.05)


def needs(program: str, package: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"needs {program}: apt-get install {package}")
    return found


def replaced(text: str, **new: Any) -> str:
    """With another machine's ports and files; each must be there."""
    for old, value in new.items():
        assert old in text, old
        text = text.replace(old, str(value))
    return text


@pytest.fixture
def nginx(front: Front, tmp_path: Path) -> Iterator[Front]:
    program, openssl = needs("nginx", "nginx-light"), needs("openssl", "openssl")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    front.port, front.plain = free_port(), free_port()
    new = {
        "/etc/letsencrypt/live/lab.example.org/fullchain.pem": certificate,
        "/etc/letsencrypt/live/lab.example.org/privkey.pem": key,
        "/var/log/nginx/mushra.log": tmp_path / "requests.log",
        "listen 80;": f"listen 127.0.0.1:{front.plain};",
        "listen 443 ssl;": f"listen 127.0.0.1:{front.port} ssl;",
        "127.0.0.1:8000": f"127.0.0.1:{front.server}",
        "lab.example.org": "localhost",
    }
    (tmp_path / "mushra.conf").write_text(replaced((HOSTING / "nginx.conf").read_text(), **new))
    places = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = tmp_path / "nginx.conf"
    whole.write_text(
        f"daemon off;\nuser root;\npid {tmp_path}/nginx.pid;\nerror_log {tmp_path}/errors.log;\nevents {{}}\n"
        f"http {{\n{places}include {tmp_path}/mushra.conf;\n}}\n"
    )
    front.trusted.load_verify_locations(certificate)
    yield from running(front, [program, "-c", str(whole)], tmp_path / "nginx.log")


@pytest.fixture
def caddy(front: Front, tmp_path: Path) -> Iterator[Front]:
    program = needs("caddy", "caddy")
    front.port, front.plain = free_port(), free_port()
    whole = tmp_path / "Caddyfile"
    whole.write_text(
        "{\nadmin off\nskip_install_trust\nlocal_certs\n"
        f"storage file_system {tmp_path}/caddy\nhttp_port {front.plain}\nhttps_port {front.port}\n}}\n"
        f"import {HOSTING}/Caddyfile\n"
    )
    variables = {"SITE": "localhost", "SERVER": f"127.0.0.1:{front.server}", "HOME": str(tmp_path)}
    root = tmp_path / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    command = [program, "run", "--config", str(whole), "--adapter", "caddyfile"]
    yield from running(front, command, tmp_path / "caddy.log", variables, root)


def running(
    front: Front,
    command: list[str],
    log: Path,
    variables: dict[str, str] | None = None,
    root: Path | None = None,
) -> Iterator[Front]:
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, env=variables, stdout=errors, stderr=errors) as one,
    ):
        try:
            while root is not None and not (root.is_file() and root.stat().st_size):
                assert one.poll() is None, log.read_text()
                time.sleep(0.05)
            if root is not None:
                front.trusted.load_verify_locations(root)
            until_listening(front, one, log)
            yield front
        finally:
            one.terminate()


@pytest.mark.parametrize("proxy", ["nginx", "caddy"])
def test_a_test_behind_a_proxy(proxy: str, request: pytest.FixtureRequest, answer: Any) -> None:
    front: Front = request.getfixturevalue(proxy)
    here = f"localhost:{front.port}"
    front.seen.clear()
    # What a client says of itself is not believed.
    lies = {"X_Forwarded_For": "192.0.2.1", "X_Forwarded_Prefix": "/evil", "X_Forwarded_Proto": "ftp"}
    page = front.ask("GET", f"{PREFIX}/", X_Forwarded_Host="evil.example", **lies)
    assert page.status == 200 and b"A small test" in page.content
    assert front.seen == [("127.0.0.1", "https", here, PREFIX)]
    moved = front.ask("GET", PREFIX)
    assert moved.status == 308 and moved.headers["Location"].removeprefix(f"https://{here}/lab/") == "test1/"
    assert front.ask("GET", "/").status == front.ask("GET", "/lab/").status == 404
    assert json.loads(front.ask("GET", f"{PREFIX}/healthz").content)["status"] == "ok"
    plain = http.client.HTTPConnection("127.0.0.1", front.plain, timeout=600)
    plain.request("GET", f"{PREFIX}/?t=secret", headers={"Host": "localhost"})
    secure = plain.getresponse()
    assert secure.status in (301, 308) and secure.headers["Location"].startswith("https://localhost")
    plain.close()

    # A listener: begins, hears a part of a sound, saves a page.
    begun = front.ask("POST", f"{PREFIX}/api/sessions", b"{}", Content_Type="application/json")
    session = json.loads(begun.content)
    assert begun.status == 201
    rated = next(one for one in session["pages"] if one["type"] == "mushra")
    sound = f"{PREFIX}/{rated['signals'][0]['url']}"
    whole, part = front.ask("GET", sound), front.ask("GET", sound, Range="bytes=100-299")
    assert (whole.status, part.status, part.content) == (200, 206, whole.content[100:300])
    assert front.ask("GET", sound, If_None_Match=whole.headers["ETag"]).status == 304
    saved = front.ask(
        "PUT",
        f"{PREFIX}/api/sessions/{session['id']}/pages/{rated['id']}",
        json.dumps(answer(rated)).encode(),
        Authorization=f"Bearer {session['key']}",
    )
    assert saved.status == 200

    # The administrator, in a browser that says no more than where its page is from.
    link = f"token={sign_in.new_link(front.app.extensions['mushra'].store)}".encode()
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    for origin, status in (("https://evil.example", 403), (f"https://{here}", 302)):
        signed = front.ask("POST", f"{PREFIX}/admin/sign-in", link, Origin=origin, **form)
        assert signed.status == status, signed.content
    cookies = signed.headers.get_all("Set-Cookie")
    assert cookies and all("Secure" in one and f"Path={PREFIX}/admin/" in one for one in cookies)
    assert signed.headers["Location"].removeprefix(f"https://{here}") == f"{PREFIX}/admin/"

    # As much as webMUSHRA's client sends, and no more.
    fits = front.ask("POST", f"{PREFIX}/service/write.php", b"sessionJSON=" + b"x" * 7 * MEBIBYTE, **form)
    assert fits.status == 400 and b"not valid JSON" in fits.content
    if proxy == "nginx":
        requests = (Path(front.app.extensions["mushra"].store.name).parents[1] / "requests.log").read_text()
        assert f"GET {PREFIX}/ 200" in requests and "secret" not in requests
