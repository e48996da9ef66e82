"""Ctrl-C while a program begins: no traceback, exit code 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPT = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


def python(folder: Path, *words: str, ignored: bool = False) -> subprocess.CompletedProcess[str]:
    """Python with modules of ``folder`` before all others; SIGINT may be ``ignored``, as with `nohup`."""
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        cwd=folder,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler
        ),
    )


@pytest.mark.parametrize("program", ["evaluation", "qincodec", "mushra"])
def test_ctrl_c_during_the_imports_ends_in_silence(program: str, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(INTERRUPT)
    ended = python(tmp_path, "-m", program, "--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_where_it_is_ignored_it_stays_so(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text(f"{INTERRUPT}main = lambda: print('done')\n")
    ended = python(tmp_path, "-c", "from qincodec.start import start; start('part')", ignored=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


@pytest.mark.parametrize(
    ("then", "code"),
    [("raise RecursionError", 130), ("raise SystemExit(2)", 130), ("raise", 130), ("raise SystemExit(0)", 0)],
)
def test_an_interruption_turned_into_another_error_is_still_one(then: str, code: int, tmp_path: Path) -> None:
    body = f"import os, signal\ndef main():\n try: os.kill(os.getpid(), 2)\n except KeyboardInterrupt: {then}"
    (tmp_path / "part.py").write_text(body)
    ended = python(tmp_path, "-c", "from qincodec.start import start; start('part')")
    assert (ended.returncode, ended.stderr) == (code, "")


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("def main(): raise RecursionError")
    ended = python(tmp_path, "-c", "from qincodec.start import start; start('part')")
    assert ended.returncode == 1 and "RecursionError" in ended.stderr
