"""`mushra serve` in a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUN = "from mushra.cli.main import app; app()"


def free_port() -> int:
    """A port that the system gives to nobody who asks for any, for a minute.

    A connection to it was just closed from here, so it waits (TIME_WAIT). Servers bind it all the same: they
    set SO_REUSEADDR.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            listener.accept()[0].close()
        return int(listener.getsockname()[1])


class Server:
    """Serves a test until it is stopped or killed.

    Attributes:
        printed: its four lines; it says them once it listens.
        log: its stderr, of all starts.
        said: once it has stopped, the log and what it printed in the end.
    """

    def __init__(self, test: Path, *options: str) -> None:
        self._command = [sys.executable, "-c", RUN, "serve", str(test), "--no-qr", *options]
        self.log = test.with_name(f"{test.name}.log")
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        self.printed = [self._process.stdout.readline() for _ in range(4)]
        assert self.printed[0].startswith("Listeners: "), self.log.read_text()
        self.url = self.printed[0].removeprefix("Listeners: ").rstrip("\n")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def stop(self) -> None:
        assert self._process.poll() is None, self.log.read_text()
        self._process.terminate()
        self.said = self._process.communicate()[0] + self.log.read_text()
        assert self._process.returncode == 0, self.said


@contextmanager
def serving(test: Path, *options: str) -> Iterator[Server]:
    server = Server(test, *options)
    try:
        yield server
    except BaseException:
        server.kill()
        raise
    server.stop()
