"""Progress on a terminal of 80 columns, and where there is none."""

from __future__ import annotations

import io
import re

import pytest

from qincodec.core.console import ProgressLine, starting

SPEEDS = "× real time: " + ", ".join(f"codec-{number}@16=153/900" for number in range(12))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stderr", stderr)
    with ProgressLine() as progress:
        progress.below(SPEEDS)
        progress("scoring at each codec's delay", 1000, 123456)
        progress("scoring at each codec's delay", 2000, 123456)
    return stderr.getvalue()


def test_a_terminal_of_80_columns_shows_the_bar_and_what_is_below(monkeypatch: pytest.MonkeyPatch) -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(Terminal(), monkeypatch))
    lines = text.replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 80
    assert any("scoring at each codec's delay" in line and "2000/123456" in line for line in lines)
    assert all(f"codec-{number}@16=153/900" in text for number in range(12))  # none is broken or cut off


def test_a_pipe_gets_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), monkeypatch) == ""


def test_steps_without_a_total_are_shown_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stderr", stderr)
    with starting() as progress:
        before = stderr.getvalue()
        progress("reading data", 1, 3)
    assert "starting" in before and "0/" not in before and "left" not in before
    assert "1/3" in stderr.getvalue() and "left" in stderr.getvalue()
