"""The listening test's server under 500 listeners at once, and beside pymushra's on the same payloads.

    python benchmarks/mushra_load.py                                  # ours alone, about two minutes
    python -m venv /tmp/pymushra && /tmp/pymushra/bin/pip install pymushra
    python benchmarks/mushra_load.py --pymushra /tmp/pymushra/bin/pymushra

Part 1. Every listener has a timetable, drawn before the run: they begin at even chances within the first
pause, then for each page fetch a sound, ask for it again as a browser does that has it (304), pause, and
save the page. The pause is drawn evenly between none and twice its mean of 20 s, a third of the minute that
a page takes people, so that 500 listeners save as often as 1,500 would. What is simulated: requests over
kept connections on one host, one sound a page instead of all; no line, no browser. An answer's time counts
from when the timetable has the request (open loop), so a request that waits for a slow one before it is
late, too. Reported: the 95th percentile against the limits (50 ms for a page save, 100 ms for a sound), and
whether every confirmed page is in the data base.

Part 2. webMUSHRA submissions of the whole test, from 20 writers at once without pauses, first to pymushra,
then to us: requests per second, and how many of those that were answered with success can be read back.

Client and server share the machine. The load average at the start says whether it was quiet, and the time of
a bare flush to the disk what a save costs at least: every confirmed page is flushed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from qincodec import audio

SAVE_LIMIT_MS, STIMULUS_LIMIT_MS = 50.0, 100.0
CONDITIONS = 8
SERVER = """
import sys
from pathlib import Path
from mushra.config.load import load_config
from mushra.server import Limits, create_app
from mushra.server.connections import make_server
folder, port, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
limits = Limits(*[(1e9, 1e9)] * 4)
app = create_app(load_config(folder), folder / "results.sqlite", submissions=True, limits=limits)
make_server(app, "127.0.0.1", port, threads=threads, max_body_bytes=10**7, behind_proxy=False).run()
"""


def make_test(folder: Path, pages: int, seconds: float) -> None:
    """A test of so many pages of 8 conditions, with noise for stimuli."""
    rng = np.random.default_rng(0)
    names = [f"c{n}" for n in range(CONDITIONS - 1)]
    for name in ("ref", *names):
        samples = rng.normal(0, 0.1, (1, int(44100 * seconds)))
        audio.write(folder / f"{name}.wav", samples, 44100, "pcm16")
    listed = ", ".join(f"{name}: {name}.wav" for name in names)
    trial = "    - {{type: mushra, id: t{}, reference: ref.wav, stimuli: {{{}}}}}\n"
    trials = "".join(trial.format(n, listed) for n in range(pages))
    text = f"testname: Load\ntestId: load\npages:\n  - - random\n{trials}"
    text += "  - {type: finish, id: end, questionnaire: [{type: text, name: who, optional: true}]}\n"
    (folder / "config.yaml").write_text(text, encoding="utf-8")


class Client:
    """One kept connection, from one of a hundred addresses: the server takes 300 connections of each."""

    def __init__(self, port: int, number: int) -> None:
        self._port = port
        self._address = f"127.0.0.{2 + number % 100}"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self, method: str, path: str, body: bytes = b"", *, due: float | None = None, **headers: str
    ) -> tuple[int, bytes, float]:
        """Status, body, and milliseconds to the last byte since it was due, or was sent."""
        start = time.perf_counter() if due is None else due
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                "127.0.0.1", self._port, local_addr=(self._address, 0)
            )
        reader, writer = self._streams
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").lower()
        status = int(head.split(" ", 2)[1])
        if status == 304:
            content = b""
        elif "content-length:" in head:
            content = await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
        else:
            content = await reader.read()
        if "connection: close" in head or ("content-length:" not in head and status != 304):
            await self.close()
        return status, content, 1000 * (time.perf_counter() - start)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def listen(port: int, number: int, pause_s: float, zero: float, log: dict[str, list[Any]]) -> None:
    """One listener's whole test, by a timetable that begins at ``zero``."""
    rng = random.Random(number)
    due = zero + rng.uniform(0, pause_s)
    client = Client(port, number)

    async def at(moment: float) -> float:
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        return moment

    status, content, spent = await client.request("POST", "/api/sessions", b"{}", due=await at(due))
    assert status == 201, content
    log["begin"].append(spent)
    session = json.loads(content)
    url, key = f"/api/sessions/{session['id']}", f"Bearer {session['key']}"
    *trials, last = session["pages"]
    for page in trials:
        signal = rng.choice(page["signals"])
        due += 0.5
        status, content, spent = await client.request("GET", "/" + signal["url"], due=await at(due))
        assert status == 200
        log["sound"].append(spent)
        due += 0.5
        tag = f'"{signal["url"].removeprefix("stimuli/")}"'
        status, content, spent = await client.request(
            "GET", "/" + signal["url"], due=await at(due), If_None_Match=tag
        )
        assert status == 304, status
        log["known"].append(spent)
        body = json.dumps(page_result(page, rng)).encode()
        due += rng.uniform(0, 2 * pause_s)
        status, content, spent = await client.request(
            "PUT", f"{url}/pages/{page['id']}", body, due=await at(due), Authorization=key
        )
        assert status == 200, content
        log["save"].append(spent)
        log["confirmed"].append((session["id"], page["id"]))
    body = b'{"revision": 1, "time_ms": 1}'
    status, content, _ = await client.request("PUT", f"{url}/pages/{last['id']}", body, Authorization=key)
    assert status == 200, content
    status, content, spent = await client.request("POST", f"{url}/finish", b"{}", Authorization=key)
    assert status == 200, content
    log["finish"].append(spent)
    await client.close()


def page_result(page: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """As large as a real one: 8 ratings, 300 events."""
    ratings = [
        {"signal": s["id"], "score": 100 if n == 0 else rng.randrange(100), "plays": 5, "moves": 1}
        for n, s in enumerate(page["signals"])
    ]
    events = [["play", rng.choice(page["signals"])["id"], 137 * n] for n in range(300)]
    return {"revision": 1, "time_ms": 60000, "ratings": ratings, "events": events}


def submission(number: int, pages: int) -> bytes:
    """A webMUSHRA client's submission of all pages."""
    rng = random.Random(number)
    responses = [
        {"stimulus": name, "score": str(rng.randrange(101)), "comment": "", "time": 60000}
        for name in ("reference", *(f"c{n}" for n in range(CONDITIONS - 1)))
    ]
    session = {
        "testId": "load",
        "participant": {"name": ["who"], "response": [f"u{number}"]},
        "trials": [{"id": f"t{n}", "type": "mushra", "responses": responses} for n in range(pages)],
        "uuid": f"u{number}",
        "config": "configs/load.yaml",
    }
    return b"sessionJSON=" + json.dumps(session).encode()


async def collect(port: int, count: int, writers: int, pages: int) -> tuple[list[str], list[float], float]:
    """Submit; ids that were answered with success, latencies in ms, seconds in all."""
    numbers = iter(range(count))
    done: list[str] = []
    spent: list[float] = []

    async def write(writer: int) -> None:
        client = Client(port, writer)
        for number in numbers:
            try:
                status, _, ms = await client.request(
                    "POST",
                    "/service/write.php",
                    submission(number, pages),
                    Content_Type="application/x-www-form-urlencoded",
                )
            except (OSError, asyncio.IncompleteReadError):
                await client.close()
                continue
            spent.append(ms)
            if status == 200:
                done.append(f"u{number}")
        await client.close()

    start = time.perf_counter()
    await asyncio.gather(*(write(writer) for writer in range(writers)))
    return done, spent, time.perf_counter() - start


def start(command: list[str], port: int, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("wb") as log:
        # In a group of its own: pymushra's development server starts itself a second time.
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.1)
        if process.poll() is not None:
            break
    raise SystemExit(f"the server did not start: {(folder / 'log').read_text()[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server that this benchmark started, with its children."""
    os.killpg(process.pid, 15)
    process.wait(30)


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time of a server and its children, which are of its group."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(fields[2]) == process.pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def flush_ms(folder: Path) -> list[float]:
    """Milliseconds of writing 4 KiB and having them on the disk."""
    spent = []
    with (folder / "flush").open("wb") as file:
        for _ in range(100):
            start = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            spent.append(1000 * (time.perf_counter() - start))
    return spent


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def row(name: str, values: list[float], limit: float | None = None) -> None:
    high = p95(values)
    against = "" if limit is None else f"   limit {limit:g}: {'met' if high < limit else 'NOT met'}"
    print(
        f"  {name:<10} n {len(values):>5}   median {statistics.median(values):7.1f} ms   95 % {high:7.1f} ms"
        f"   max {max(values):7.1f} ms{against}"
    )


def run_listeners(folder: Path, port: int, listeners: int, pause_s: float) -> None:
    names = ("begin", "sound", "known", "save", "finish", "confirmed")
    log: dict[str, list[Any]] = {name: [] for name in names}

    async def all_at_once() -> None:
        zero = time.perf_counter() + 1
        await asyncio.gather(*(listen(port, number, pause_s, zero, log) for number in range(listeners)))

    start_s = time.perf_counter()
    asyncio.run(all_at_once())
    spent = time.perf_counter() - start_s
    print(
        f"{listeners} listeners, {len(log['save'])} pages in {spent:.0f} s ({len(log['save']) / spent:.0f}/s)"
    )
    row("page save", log["save"], SAVE_LIMIT_MS)
    row("sound", log["sound"], STIMULUS_LIMIT_MS)
    row("known", log["known"], STIMULUS_LIMIT_MS)
    row("begin", log["begin"])
    row("finish", log["finish"])
    stored = set(sqlite3.connect(folder / "results.sqlite").execute("SELECT session, page FROM pages"))
    lost = set(log["confirmed"]) - stored
    print(f"  confirmed {len(log['confirmed'])}, lost {len(lost)}")


def report_collector(
    name: str, found: set[str], outcome: tuple[list[str], list[float], float], cpu: float
) -> None:
    done, spent, seconds = outcome
    print(
        f"  {name:<9} {len(done) / seconds:7.1f} confirmed/s   median {statistics.median(spent):7.1f} ms"
        f"   95 % {p95(spent):7.1f} ms   {1000 * cpu / len(spent):.1f} ms of CPU each"
        f"   confirmed {len(done)}, lost {len(set(done) - found)}"
    )


def pymushra_found(path: Path) -> set[str]:
    """Ids that can be read back from pymushra's TinyDB file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        print(f"  pymushra's data base cannot be read any more: {error}")
        return set()
    documents = [document for table in content.values() for document in table.values()]
    return {str(document.get("questionaire", {}).get("who")) for document in documents}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--pages", type=int, default=4)
    parser.add_argument("--pause", type=float, default=20.0, help="mean pause before a page save, seconds")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a stimulus")
    parser.add_argument("--threads", type=int, default=24, help="threads of our server, as in `mushra serve`")
    parser.add_argument("--submissions", type=int, default=400)
    parser.add_argument("--writers", type=int, default=20)
    parser.add_argument("--pymushra", type=Path, help="its command, in an environment of its own")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    quiet = "quiet" if load < 0.3 * (os.cpu_count() or 1) else "NOT quiet"
    print(f"{os.cpu_count()} cores, load average {load:.1f} at the start: the machine was {quiet}")
    with tempfile.TemporaryDirectory() as name:
        folder, other = Path(name) / "ours", Path(name) / "pymushra"
        for made in (folder, other, other / "webmushra"):
            made.mkdir()
        make_test(folder, options.pages, options.seconds)
        row("bare flush", flush_ms(folder))
        port = free_port()
        command = [sys.executable, "-c", SERVER, str(folder), str(port), str(options.threads)]
        server = start(command, port, folder)
        try:
            run_listeners(folder, port, options.listeners, options.pause)
            print(f"  processor time of the server: {cpu_s(server):.1f} s, its start included")
            print(f"webMUSHRA submissions, {options.writers} writers at once")
            if options.pymushra is not None:
                (other / "webmushra" / "index.html").write_text("x")
                other_port = free_port()
                command = [str(options.pymushra.absolute()), "server", "-p", str(other_port)]
                theirs = start(command, other_port, other)
                before = cpu_s(theirs)
                try:
                    outcome = asyncio.run(
                        collect(other_port, options.submissions, options.writers, options.pages)
                    )
                    spent = cpu_s(theirs) - before
                finally:
                    stop(theirs)
                found = pymushra_found(other / "db" / "webmushra.json")
                report_collector("pymushra", found, outcome, spent)
            before = cpu_s(server)
            outcome = asyncio.run(collect(port, options.submissions, options.writers, options.pages))
            spent = cpu_s(server) - before
        finally:
            stop(server)
        connection = sqlite3.connect(folder / "results.sqlite")
        found = {uuid for (uuid,) in connection.execute("SELECT uuid FROM sessions WHERE uuid IS NOT NULL")}
        report_collector("ours", found, outcome, spent)


if __name__ == "__main__":
    main()
