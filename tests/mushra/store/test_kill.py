"""The server is killed at random while listeners work: what it confirmed is there, exactly once."""

from __future__ import annotations

import http.client
import json
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import Server, free_port

YAML = """
testname: T
testId: t
pages:
  - - random
""" + "".join(
    f"    - {{type: mushra, id: t{n}, reference: ref.wav, stimuli: {{A: a.wav, B: b.wav}}}}\n"
    for n in range(20)
)
LISTENERS = 20


class Stopped(Exception):
    """The test is over."""


class Worker(threading.Thread):
    """A listener who takes one test after the other, and tries each step again until it is confirmed."""

    def __init__(self, port: int, seed: int, stop: threading.Event) -> None:
        super().__init__()
        self._port = port
        self._rng = random.Random(seed)
        self._stop_asked = stop
        self.confirmed: dict[tuple[str, str], tuple[int, list[int]]] = {}
        self.begun: list[str] = []
        self.finished: list[str] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                self._one()
        except Stopped:
            pass
        except Exception as error:
            self.wrong.append(repr(error))

    def _one(self) -> None:
        session = self._until_answered("POST", "/api/sessions", {})[1]
        self.begun.append(session["id"])
        url, key = f"/api/sessions/{session['id']}", session["key"]
        for page in session["pages"]:
            if self._stop_asked.is_set():
                return
            time.sleep(self._rng.uniform(0, 0.05))
            for revision in range(1, self._rng.choice((2, 2, 3))):
                scores = [100] + [self._rng.randrange(100) for _ in page["signals"][1:]]
                ratings = [
                    {"signal": signal["id"], "score": score, "plays": 1, "moves": 1}
                    for signal, score in zip(page["signals"], scores, strict=True)
                ]
                body = {"revision": revision, "time_ms": 1000, "ratings": ratings}
                status, _ = self._until_answered("PUT", f"{url}/pages/{page['id']}", body, key)
                if status != 200:
                    self.wrong.append(f"page: {status}")
                self.confirmed[session["id"], page["id"]] = revision, scores
        # As the page does after a refresh: is what was confirmed still there?
        status, now = self._until_answered("GET", url, None, key)
        if status != 200 or len(now["saved"]) != len(session["pages"]):
            self.wrong.append(f"resume: {status} {len(now.get('saved', {}))}")
        status, _ = self._until_answered("POST", f"{url}/finish", {}, key)
        if status != 200:
            self.wrong.append(f"finish: {status}")
        self.finished.append(session["id"])

    def _until_answered(self, method: str, path: str, body: Any, key: str = "") -> tuple[int, Any]:
        deadline = time.monotonic() + 600
        seen: Counter[str] = Counter()
        while time.monotonic() < deadline:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
            try:
                headers = {"Authorization": f"Bearer {key}"}
                data = None if body is None else json.dumps(body)
                connection.request(method, path, data, headers)
                response = connection.getresponse()
                content = response.read()
                if response.status not in (429, 503):
                    return response.status, json.loads(content)
                seen[str(response.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                seen[type(error).__name__] += 1
            finally:
                connection.close()
            if self._stop_asked.is_set():
                raise Stopped
            time.sleep(0.05)
        raise AssertionError(f"no answer for ten minutes: {method} {path}: {seen}")


def wait_for(workers: list[Worker], done: Callable[[], bool]) -> None:
    """Until it is so, or something is wrong."""
    deadline = time.monotonic() + 600
    while not done() and not any(worker.wrong for worker in workers):
        assert time.monotonic() < deadline, "no progress in ten minutes"
        time.sleep(0.003)


def confirmed(workers: list[Worker]) -> int:
    return sum(len(worker.confirmed) for worker in workers)


def run(folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    port = free_port()
    server = Server(folder, "--port", str(port))
    stop = threading.Event()
    workers = [Worker(port, seed * 1000 + n, stop) for n in range(LISTENERS)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(kills):
            # Somewhere in the work, however fast the machine is just now.
            enough = confirmed(workers) + rng.randrange(1, 120)
            wait_for(workers, lambda enough=enough: confirmed(workers) >= enough)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.02))
            server.kill()
            server.start()
        wait_for(workers, lambda: any(worker.finished for worker in workers))
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        server.stop()
    assert [wrong for worker in workers for wrong in worker.wrong] == []
    check(folder / "results.sqlite", workers)


def check(database: Path, workers: list[Worker]) -> None:
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    pages = connection.execute("SELECT session, page, revision FROM pages").fetchall()
    stored = {(session, page): revision for session, page, revision in pages}
    assert len(stored) == len(pages)
    promised = {place: saved for worker in workers for place, saved in worker.confirmed.items()}
    assert len(promised) > 100
    for (session, page), (revision, scores) in promised.items():
        # The page in hand may be stored without a confirmation that arrived; never less than confirmed.
        assert stored[session, page] >= revision
        found = connection.execute(
            "SELECT score FROM ratings WHERE session = ? AND page = ? ORDER BY position", (session, page)
        ).fetchall()
        assert len(found) == len(scores)
        if stored[session, page] == revision:
            assert [score for (score,) in found] == scores
    sessions = dict(connection.execute("SELECT id, state FROM sessions").fetchall())
    assert {session for worker in workers for session in worker.begun} <= set(sessions)
    assert all(sessions[session] == "finished" for worker in workers for session in worker.finished)
    assert any(worker.finished for worker in workers)
    orphans = "SELECT count(*) FROM ratings r LEFT JOIN pages p USING (session, page) WHERE p.page IS NULL"
    assert connection.execute(orphans).fetchone() == (0,)
    numbers = [number for (number,) in connection.execute("SELECT number FROM sessions ORDER BY number")]
    assert numbers == list(range(len(numbers)))


def test_five_kills_lose_nothing_that_was_confirmed(make_folder: Any) -> None:
    run(make_folder(YAML), kills=5, seed=1)


@pytest.mark.long
def test_fifty_kills_lose_nothing_that_was_confirmed(make_folder: Any) -> None:
    run(make_folder(YAML), kills=50, seed=2)
