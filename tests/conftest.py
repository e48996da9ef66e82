"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

# Several test processes with several threads each would spend their time waiting for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Weights that lie about must not decide what is tested, and none are to be downloaded.
os.environ["QINCODEC_OFFLINE"] = "1"

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of a file or folder of real data beside the repository; the test is skipped where it is absent."""

    def find(relative: str) -> Path:
        path = (REPOSITORY.parent / "shared" / relative).resolve()
        if not path.exists():
            pytest.skip(f"needs {path}: golden values and real audio that are not part of the repository")
        return path

    return find


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # As a job in the background, from which programs inherit it: those that tests interrupt would go on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
