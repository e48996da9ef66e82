"""Clients that open many connections or do not read: whoever else comes is answered."""

from __future__ import annotations

import http.client
import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from serving import serving

from mushra.config.load import load_config
from mushra.server import Limits, connections, create_app
from mushra.server.connections import make_server

#: Opens connections from one address, sends one text on each, reads nothing; until its input ends.
ATTACK = """
import resource, socket, sys
port, count, request = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 4096, hard))
opened = []
for _ in range(count):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.settimeout(120)
    one.connect(("127.0.0.1", port))
    one.sendall(request)
    opened.append(one)
print("open", flush=True)
sys.stdin.read()
"""
YAML = """
testname: T
testId: t
pages:
  - {type: mushra, id: one, reference: ref.wav, stimuli: {A: long.wav, B: b.wav}}
"""


@pytest.fixture
def folder(make_folder: Callable[..., Path]) -> Path:
    import numpy as np

    from qincodec import audio

    made = make_folder(YAML)
    audio.write(made / "long.wav", np.zeros((1, 1_000_000)), 44100, "pcm16")
    return made


@pytest.fixture
def served(folder: Path) -> Iterator[int]:
    """Port of `mushra serve`."""
    with serving(folder, "--port", "0") as server:
        yield int(server.url.rpartition(":")[2].rstrip("/"))


def ask(port: int, method: str, path: str, source: str = "127.0.0.1", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600, source_address=(source, 0))
    try:
        connection.request(method, path, b"{}" if method == "POST" else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def stimulus(port: int) -> str:
    """Address of the long one."""
    session = json.loads(ask(port, "POST", "/api/sessions")[1])
    signals = [f"/{signal['url']}" for signal in session["pages"][0]["signals"]]
    return max(signals, key=lambda path: len(ask(port, "GET", path)[1]))


@pytest.mark.parametrize("attack", ["unread downloads", "half a request"])
def test_one_client_shuts_out_nobody(served: int, attack: str) -> None:
    resource = pytest.importorskip("resource")
    if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2000:
        pytest.skip("needs 2000 open files")
    path = stimulus(served)
    count, ending = (950, "\r\n\r\n") if attack == "unread downloads" else (1050, "\r\n")
    request = f"GET {path} HTTP/1.1\r\nHost: x{ending}"
    command = [sys.executable, "-c", ATTACK, str(served), str(count), request]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "open\n"
        for source in ("127.0.0.1", "127.0.0.2"):
            assert ask(served, "GET", "/", source)[0] == 200
            assert ask(served, "POST", "/api/sessions", source)[0] == 201
            assert len(ask(served, "GET", path, source)[1]) > 2_000_000
        process.stdin.close()
    assert ask(served, "GET", "/")[0] == 200


@contextmanager
def run(folder: Path, *, behind_proxy: bool = False, **options: Any) -> Iterator[Any]:
    app = create_app(load_config(folder), folder / "results.sqlite", **options)
    server = make_server(app, "127.0.0.1", 0, threads=2, max_body_bytes=10_000, behind_proxy=behind_proxy)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server
    server.asyncore.close_all(server._map)
    thread.join()
    server.task_dispatcher.shutdown()
    app.extensions["mushra"].store.close()


@pytest.fixture
def running(folder: Path) -> Iterator[Any]:
    """A server in a thread of this process."""
    with run(folder) as server:
        yield server


@pytest.mark.parametrize(
    ("limit", "request_text"),
    [
        ("UNREAD_S", "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("REQUEST_S", "GET {} HTTP/1.1\r\nHost: x\r\n"),
        ("REQUEST_S", ""),
        ("IDLE_S", "HEAD {} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ],
)
def test_a_connection_on_which_nothing_moves_goes(
    running: Any, monkeypatch: pytest.MonkeyPatch, limit: str, request_text: str
) -> None:
    path = stimulus(running.effective_port)
    monkeypatch.setattr(connections, limit, 0.0)
    with socket.create_connection(("127.0.0.1", running.effective_port)) as one:
        one.sendall(request_text.format(path).encode())
        deadline = time.monotonic() + 600
        if limit != "UNREAD_S":
            while one.recv(10_000):  # ends when the server closes
                pass
        while running.active_channels and time.monotonic() < deadline:
            select.select([], [], [], 0.05)
        assert not running.active_channels


def test_a_part_of_a_file_is_that_part_and_holds_up_no_thread(
    folder: Path, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HELD_UP_S", 600.0)
    port = int(running.effective_port)
    path = stimulus(port)
    with (folder / "long.wav").open("ab") as file:
        file.write(bytes(20_000_000))  # over what waitress keeps for one client
    whole = ask(port, "GET", path)[1]
    for text, part in (
        ("bytes=0-", whole),
        ("bytes=1000000-1000009", whole[1_000_000:1_000_010]),
        ("bytes=-44", whole[-44:]),
    ):
        status, body = ask(port, "GET", path, Range=text)
        assert (status, body == part) == (206, True)
    unread = []
    for _ in range(6):  # there are two threads
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", port))
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=1-\r\n\r\n".encode())
        unread.append(one)
    assert ask(port, "GET", "/")[0] == 200
    for one in unread:
        one.close()


def channel(address: str, last: float) -> Any:
    """What `_Server` looks at of one."""
    return SimpleNamespace(addr=(address, 1), last_activity=last)


def room_after(most: int, most_each: int, channels: dict[str, Any]) -> str:
    """Names of the channels that are left."""
    server = SimpleNamespace(most=most, most_each=most_each, active_channels=dict(channels))
    for name, one in channels.items():
        one.handle_close = lambda name=name: server.active_channels.pop(name)
    connections._Server._make_room(server)  # type: ignore[arg-type]
    return "".join(server.active_channels)


def test_who_makes_room() -> None:
    many = {name: channel("1.1.1.1", last) for last, name in enumerate("abcd")}
    assert room_after(10, 2, {**many, "x": channel("2.2.2.2", 0)}) == "cdx"
    assert room_after(3, 3, {**many, "x": channel("2.2.2.2", 0)}) == "cdx"
    assert room_after(4, 4, many) == "abcd"
    subscriber = {n: channel(f"2001:db8:0:1::{n}", int(n)) for n in "123"}
    assert room_after(9, 2, {**subscriber, "9": channel("2001:db8:0:2::1", 0)}) == "239"


def test_listeners_behind_a_proxy_have_limits_of_their_own(folder: Path) -> None:
    with run(folder, behind_proxy=True, trusted_proxies=1, limits=Limits(begin=(1, 1e-9))) as server:

        def begin(forwarded: str) -> int:
            headers = {"X-Forwarded-For": forwarded}
            return ask(int(server.effective_port), "POST", "/api/sessions", **headers)[0]

        assert [begin("192.0.2.1"), begin("192.0.2.2"), begin("192.0.2.1")] == [201, 201, 429]
        # What stands left of the proxy's own word came from the listener.
        assert begin("192.0.2.3, 192.0.2.2") == 429
