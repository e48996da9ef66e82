"""What a listener and the administrator wait for in a test of 5,000 sessions, beside the same in one of few.

    python benchmarks/crowd.py                              # SQLite
    python benchmarks/crowd.py --database postgresql://...  # an empty data base that may be filled

One listener takes the test through the server; the sessions of the others are copies of theirs, written into
the data base. Reported for each request at either size: the median of its wall time and of the CPU time of
the server's process (client and server share it; PostgreSQL works in others), and the ratio of the large test
to the small one. "first" is the first view after the start of the server, before anything is remembered. The
list of sessions shows 50 at most, so that a test of 10 has fewer rows to show: compare with --few 50, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import sqlalchemy as sa
from flask import Flask

from mushra.config.load import load_config
from mushra.server import Limits, create_app, sign_in
from mushra.server.session_pages import num_slots
from mushra.store import schema
from mushra.store.store import Store
from qincodec import audio

CONDITIONS = 6
BLOCKS = 4
NO_LIMITS = Limits(*[(1e9, 1e9)] * 4)
Timed = dict[str, tuple[float, float]]


def make_test(folder: Path, pages: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"c{n}" for n in range(CONDITIONS - 1)]
    for name in ("ref", *names):
        audio.write(folder / f"{name}.wav", rng.normal(0, 0.1, (1, 4410)), 44100, "pcm16")
    listed = ", ".join(f"{name}: {name}.wav" for name in names)
    trial = "    - {{type: mushra, id: t{}, reference: ref.wav, stimuli: {{{}}}}}\n"
    trials = "".join(trial.format(n, listed) for n in range(BLOCKS * pages))
    own = (
        f"{{blocks: {BLOCKS}, quota: 100000, identification: panel, one_session_per_person: true,"
        " gold: [{page: trap, stimulus: reference, low: 90}]}"
    )
    trap = f"  - {{type: mushra, id: trap, reference: ref.wav, stimuli: {{{listed}}}}}\n"
    text = f"testname: Crowd\ntestId: crowd\npages:\n{trap}  - - random\n{trials}qincodec: {own}\n"
    (folder / "config.yaml").write_text(text, encoding="utf-8")


def result(page: dict[str, Any], revision: int = 1) -> dict[str, Any]:
    ratings = [
        {
            "signal": signal["id"],
            "score": 100 - 7 * n,
            "plays": 3,
            "heard_ms": 9000,
            "moves": 2,
            "first_ms": 90,
        }
        for n, signal in enumerate(page["signals"])
    ]
    events = [[round(100.5 * n, 1), "play", "s1"] for n in range(100)]
    return {"revision": revision, "time_ms": 60000, "ratings": ratings, "events": events}


class Listener:
    def __init__(self, app: Flask, person: str) -> None:
        self.client = app.test_client()
        answer = self.client.post("/api/sessions", json={"parameters": {"person": person}})
        assert answer.status_code == 201, answer.get_json()
        self.session = answer.get_json()
        self.headers = {"Authorization": f"Bearer {self.session['key']}"}
        self.url = f"/api/sessions/{self.session['id']}"

    def save(self, page: dict[str, Any], revision: int) -> None:
        url = f"{self.url}/pages/{page['id']}"
        answer = self.client.put(url, json=result(page, revision), headers=self.headers)
        assert answer.status_code == 200, answer.get_json()

    def take(self) -> str:
        for page in self.session["pages"]:
            self.save(page, 1)
        assert self.client.post(f"{self.url}/finish", json={}, headers=self.headers).status_code == 200
        return str(self.session["id"])


def copy_sessions(store: Store, session: str, sessions: int, slots: int) -> None:
    """Have that many sessions, all as that one is."""

    def change(connection: sa.Connection) -> None:
        table = schema.sessions
        own = dict(connection.execute(sa.select(table).where(table.c.id == session)).one()._mapping)
        first = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        ids = {number: str(uuid4()) for number in range(first, sessions)}
        rows = [
            {**own, "id": id, "number": number, "slot": number % slots, "person": f"p{number}"}
            for number, id in ids.items()
        ]
        if rows:
            connection.execute(table.insert(), rows)
        for inner in (schema.pages, schema.ratings):
            found = connection.execute(sa.select(inner).where(inner.c.session == session)).all()
            for id in ids.values():
                connection.execute(inner.insert(), [{**row._mapping, "session": id} for row in found])
        begun = sa.update(schema.tests).values(begun=sessions)
        connection.execute(begun)

    store.write(change)


def spent(call: Callable[[int], object], times: int) -> tuple[float, float]:
    """Medians of wall and CPU time in milliseconds."""
    walls, cpus = [], []
    for turn in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        call(turn)
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    return statistics.median(walls), statistics.median(cpus)


def measure(folder: Path, database: str, sessions: int, times: int) -> Timed:
    """The requests of a server that is started on a test of so many sessions."""
    config = load_config(folder)
    app = create_app(config, database, limits=NO_LIMITS)
    store = app.extensions["mushra"].store
    try:
        with store.read() as connection:
            first = sa.select(schema.sessions.c.id).where(schema.sessions.c.number == 0)
            session = connection.execute(first).scalar()
        if session is None:
            session = Listener(app, "first").take()
        copy_sessions(store, session, sessions, num_slots(config))
        admin = app.test_client()
        link = {"token": sign_in.new_link(store)}
        admin.post("/admin/sign-in", data=link, headers={"Sec-Fetch-Site": "same-origin"})

        def get(path: str) -> Callable[[int], object]:
            def call(_: int) -> None:
                answer = admin.get(path)
                assert answer.status_code == 200, answer.status

            return call

        found: Timed = {"sessions, first": spent(get("/admin/"), 1)}
        while "have not been looked at" in admin.get("/admin/").get_data(as_text=True):
            pass
        found["sessions"] = spent(get("/admin/"), times)
        found["one session"] = spent(get(f"/admin/sessions/{session}"), times)
        found["test"] = spent(get("/admin/test"), times)
        listeners: list[Listener] = []
        found["begin"] = spent(lambda turn: listeners.append(Listener(app, f"{sessions}-{turn}")), times)
        one, page = listeners[0], listeners[0].session["pages"][1]
        found["page save"] = spent(lambda turn: one.save(page, turn + 1), times)
        found["resume"] = spent(lambda _: one.client.get(one.url, headers=one.headers), times)
        return found
    finally:
        store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--many", type=int, default=5000)
    parser.add_argument("--pages", type=int, default=8, help="trials of a session")
    parser.add_argument("--times", type=int, default=15, help="repetitions of each request")
    parser.add_argument("--database", help="address of an empty PostgreSQL data base; default: SQLite")
    parser.add_argument("--json", type=Path, help="also write what was measured to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_test(folder, options.pages)
        database = options.database or str(folder / "results.sqlite")
        few = measure(folder, database, options.few, options.times)
        many = measure(folder, database, options.many, options.times)
    print(f"{'ms (wall, CPU)':<16}{options.few:>8} sessions{options.many:>16} sessions{'ratio':>16}")
    for what, (wall, cpu) in few.items():
        more_wall, more_cpu = many[what]
        ratio = f"{more_wall / wall:8.2f} {more_cpu / max(cpu, 1e-3):7.2f}"
        print(f"{what:<16}{wall:8.1f} {cpu:8.1f}{more_wall:16.1f} {more_cpu:8.1f}{ratio:>16}")
    if options.json is not None:
        options.json.write_text(json.dumps({"few": few, "many": many}, indent=1))


if __name__ == "__main__":
    main()
