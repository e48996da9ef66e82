"""A PostgreSQL server of our own, and empty data bases in it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _program(name: str) -> str:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which(name) or next((str(folder / name) for folder in folders[::-1]), "")
    if not found or not Path(found).exists():
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    return found


@contextmanager
def postgresql_server() -> Iterator[str]:
    """URL of a server, without the name of a data base; skips the test where there is no PostgreSQL."""
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    # PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if as_user:
            shutil.chown(folder, "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        data, log = str(folder / "data"), str(folder / "log")

        def run(*command: str) -> None:
            subprocess.run([*as_user, *command], check=True, cwd="/", stdout=subprocess.DEVNULL)

        run(initdb, "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -F"
        # A busy machine may take longer than pg_ctl's minute.
        run(pg_ctl, "-D", data, "-l", log, "-o", options, "-w", "-t", "300", "start")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}"
        finally:
            run(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")


def new_database(server: str) -> str:
    """URL of an empty data base."""
    import psycopg

    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
    return f"{server}/{name}"
