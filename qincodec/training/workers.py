"""Worker processes that read audio."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def prepare_worker(number: int = 0) -> None:
    """Called first in a worker: end with the parent process, and leave Ctrl-C to it.

    A pool does not notice the parent's death. Neither does a PyTorch loader whose workers a server forks: the
    workers wait for the server to end, and the server waits for the workers.

    Args:
        number: of the worker, from a loader; it is not used.
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
