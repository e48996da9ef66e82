"""Processes that read audio for another one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def prepare_worker(number: int = 0) -> None:
    """First thing in a worker: end with the process worked for, and leave Ctrl-C to it.

    A pool does not notice that it was killed. Nor does a PyTorch loader whose workers a server forks: the
    workers wait for the server to end, and the server waits for the workers.

    Args:
        number: of the worker, which a loader gives and a pool does not; it changes nothing.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
