"""kill -9 at random moments, then the same command again: the same summary, byte for byte."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import evaluation.cli.evaluate  # noqa: F401  what a process of the command would import
from evaluation import load
from evaluation.__main__ import main
from evaluation.statistics.recordings import TIMING_COLUMNS

COMMAND = [sys.executable, "-m", "evaluation"]


def arguments(clip_folder: Path, out: Path) -> list[str]:
    options = ["--codecs", "opus,mp3,pcm16", "--kbps", "8,16,24", "--batch-size", "2", "--workers", "2"]
    return [*COMMAND, str(clip_folder), *options, "--out", str(out)]


def started(command: list[str]) -> multiprocessing.process.BaseProcess:
    """A process of the command that has all its imports behind it, which are most of a short one."""

    def run() -> None:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        sys.argv = ["evaluate", *command[len(COMMAND) :]]
        main()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def finished(command: list[str]) -> None:
    process = started(command)
    process.join()
    assert process.exitcode == 0


def lines(run: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (run / "rows").glob("*.jsonl"))


def without_timings(run: Path) -> str:
    frame = pd.read_csv(run / "summary.csv", dtype=str)
    return frame.drop(columns=[c for c in TIMING_COLUMNS if c in frame]).to_csv(index=False)


@pytest.fixture(scope="module")
def whole(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process that nothing interrupted, only to be read."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finished(arguments(clip_folder, out))
    return out


def kill_and_resume(clip_folder: Path, tmp_path: Path, whole: Path, kills: int) -> None:
    killed = tmp_path / "killed"
    total = lines(whole)
    chance = random.Random(kills)
    for target in sorted(chance.sample(range(total), kills)):
        have = lines(killed)
        process = started(arguments(clip_folder, killed))
        while process.is_alive() and lines(killed) <= target:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.02)
        process.kill()
        process.join()
        assert lines(killed) >= have
    finished(arguments(clip_folder, killed))

    assert without_timings(killed) == without_timings(whole)
    keys = [
        json.loads(line)["key"]
        for path in (killed / "rows").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert len(keys) == len(set(keys)) == total


def test_ctrl_c_shows_how_to_continue(clip_folder: Path, tmp_path: Path) -> None:
    # So many rates that the signal comes in the midst of the work, however fast the machine.
    rates = ",".join(map(str, range(8, 128, 4)))
    command = [*arguments(clip_folder, tmp_path / "run"), "--kbps", rates, "--match", "nominal"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs tests in the background has its children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not lines(tmp_path / "run"):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert "run the same command again to continue" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_ctrl_c_with_workers_leaves_no_process_and_the_run_continues(
    clip_folder: Path, tmp_path: Path
) -> None:
    """As from a terminal: all processes of the command get it. What they started is known by a variable."""
    pytest.importorskip("ray")
    rates = ["--kbps", ",".join(map(str, range(8, 128, 8))), "--match", "nominal", "--metrics", "si_sdr"]
    command = [*arguments(clip_folder, tmp_path / "run"), *rates, "--cluster", "local"]
    mark = f"OF_THIS_TEST={tmp_path}"

    def left() -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text())
        return found

    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options["env"] = {**os.environ, "OF_THIS_TEST": str(tmp_path)}
    process = subprocess.Popen(
        command,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )
    while process.poll() is None and not lines(tmp_path / "run"):
        time.sleep(0.01)
    assert any("raylet" in name for name in left())
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130 and "Traceback" not in stderr, stderr
    while left():  # they may be at their end
        time.sleep(0.1)
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "run").n_pending == 0


@pytest.mark.slow
def test_killed_three_times(clip_folder: Path, tmp_path: Path, whole: Path) -> None:
    kill_and_resume(clip_folder, tmp_path, whole, 3)


@pytest.mark.long
def test_killed_thirty_times(clip_folder: Path, tmp_path: Path, whole: Path) -> None:
    kill_and_resume(clip_folder, tmp_path, whole, 30)


def test_a_run_survives_being_moved(tmp_path: Path, whole: Path) -> None:
    moved, before = tmp_path / "moved", (whole / "summary.csv").read_bytes()
    shutil.copytree(whole, moved)
    # What is read from where the run was must fail.
    away = whole.rename(whole.with_name("away"))
    try:
        finished([*COMMAND, "report", str(moved)])
    finally:
        away.rename(whole)
    assert (moved / "summary.csv").read_bytes() == before
