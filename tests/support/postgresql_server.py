"""A PostgreSQL server of our own, and empty data bases in it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def program(name: str) -> str:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which(name) or next((str(folder / name) for folder in folders[::-1]), "")
    if not found or not Path(found).exists():
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    return found


class Cluster:
    """A server that can be stopped, killed and started again.

    Attributes:
        url: without the name of a data base.
    """

    def __init__(self, folder: Path) -> None:
        # PostgreSQL refuses to run as root.
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as_user:
            shutil.chown(folder, "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{port}"
        self._data, self._log = folder / "data", folder / "log"
        # -F (no flushing) is about the end of the whole system; what it was given outlives a process.
        self._options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -F"
        make = ["-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C"]
        self._run(program("initdb"), "-D", str(self._data), *make)

    def _run(self, *command: str, check: bool = True) -> int:
        return subprocess.run(
            [*self._as_user, *command], check=check, cwd="/", stdout=subprocess.DEVNULL
        ).returncode

    def start(self, *, patient: bool = False) -> None:
        """Until it takes connections. ``patient``: processes of one that was killed may have to end first."""
        # A busy machine may take longer than pg_ctl's minute.
        command = [program("pg_ctl"), "-D", str(self._data), "-l", str(self._log), "-o", self._options]
        deadline = time.monotonic() + 300
        while self._run(*command, "-w", "-t", "300", "start", check=not patient) != 0:
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """Does nothing if it does not run."""
        self._run(program("pg_ctl"), "-D", str(self._data), "-m", "immediate", "-w", "stop", check=False)

    def kill(self) -> None:
        """The server's first process, at once; the others notice."""
        os.kill(int((self._data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


@contextmanager
def postgresql_server() -> Iterator[Cluster]:
    """A server that runs; skips the test where there is no PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        cluster = Cluster(Path(name))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


def new_database(server: str) -> str:
    """URL of an empty data base."""
    import psycopg

    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
    return f"{server}/{name}"
