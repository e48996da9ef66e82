"""`--help` of every command at 80 columns, which command a line of `evaluate` is, and what it loads first."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.main import get_command

import evaluation.cli.evaluate
import mushra.cli.main
import qincodec.cli
from qincodec.core.console import run_command

APPS: dict[str, typer.Typer] = {
    "evaluate": evaluation.cli.evaluate.app,
    "mushra": mushra.cli.main.app,
    "qincodec": qincodec.cli.app,
}


def commands(words: tuple[str, ...], command: Any) -> dict[tuple[str, ...], Any]:
    found = {words: command}
    for name, inner in getattr(command, "commands", {}).items():
        found |= commands((*words, name), inner)
    return found


COMMANDS = {
    key: one for name, app in APPS.items() for key, one in commands((name,), get_command(app)).items()
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """(exit code, stdout, stderr) of a line."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(program: str, *arguments: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as end:
            run_command(APPS[program], list(arguments), program)
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return call


def test_every_command_is_looked_at() -> None:
    names = {" ".join(words) for words in COMMANDS}
    assert names >= {"evaluate", "evaluate weights fetch", "mushra analyze", "qincodec train all"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_fits_80_columns(words: tuple[str, ...], run: Any) -> None:
    code, out, _ = run(*words, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out, "something is cut off"
    assert not re.search("<bool>|<int range>", out)
    assert not re.search(r"\.\.\.\S?\.\.\.|\[\[", out)  # {RUN...}..., [[TEST]]
    for parameter in COMMANDS[words].params:
        for shown in (*(name for name in parameter.opts if name.startswith("--")), parameter.metavar or ""):
            assert shown in out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lst", "No such command 'lst'. Did you mean 'list'?"),
        ("reprot RUN", "No such command 'reprot'. Did you mean 'report'?"),
        ("--device cpu wieghts", "No such command 'wieghts'. Did you mean 'weights'?"),
        ("weights fecth dac", "No such command 'fecth'. Did you mean 'fetch'?"),
        ("nowhere", "no such data: 'nowhere'; give a folder"),
        (
            "nowhere --codecs opus",
            "or a command: report, html, compare, merge, tokenize, paper, list, weights",
        ),
        ("list.csv", "no such data: 'list.csv'"),
        ("./report", "no such data: './report'"),
        ("--device cpu html nowhere", "nowhere is not a run"),  # --device is an option of html
        ("--kbps 8 report nowhere", "No such option"),  # and --kbps none of report
        ("demo nowhere", "unexpected extra argument"),
        ("--kbps", "--kbps"),
    ],
)
def test_lines_of_evaluate_that_mean_nothing(
    line: str, expected: str, run: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("evaluate", *line.split())
    assert (code, out) == (2, "")
    assert expected in " ".join(err.replace("│", " ").split())


def test_a_folder_named_like_a_command(run: Any, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report").mkdir()
    (tmp_path / "lists").mkdir()
    assert "Missing argument 'RUN'" in run("evaluate", "report")[2]
    assert "no audio found" in run("evaluate", "./report")[2]
    assert "no audio found" in run("evaluate", "lists", "--kbps", "8")[2]  # near a command, but there


@pytest.mark.parametrize("line", ["--version", "--version report", "demo --version"])
def test_version(line: str, run: Any) -> None:
    code, out, _ = run("evaluate", *line.split())
    assert code == 0 and re.fullmatch(r"evaluate \d+\.\d+\.\d+\n", out)


@pytest.mark.parametrize("line", ["report --help", "--help report", "--device cpu --help report"])
def test_help_of_a_command(line: str, run: Any) -> None:
    code, out, _ = run("evaluate", *line.split())
    if "--device" in line:
        assert code == 2
    else:
        assert code == 0 and re.search(r"Usage: evaluate report \[OPTIONS\] {?RUN", out)


@pytest.mark.parametrize(
    ("line", "data"),
    [
        ("", None),
        ("demo", "demo"),
        ("--kbps 8", None),
        ("--kbps 8 demo", "demo"),
        ("demo --kbps=8 --dry-run", "demo"),
        ("--dry-run demo", "demo"),
        ("audiocaps:nowhere --out report", "audiocaps:nowhere"),
        ("--out report", None),  # the value of an option, no command
        ("*.wav", "*.wav"),
        ("-- list", "list"),
    ],
)
def test_everything_else_is_an_evaluation(line: str, data: str | None, run: Any, monkeypatch: Any) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(evaluation.cli.evaluate, "_run", lambda *arguments: asked.append(arguments))
    assert run("evaluate", *line.split())[0] == 0
    ((request, out, dry_run, _),) = asked
    assert request.data == data
    assert request.kbps == ("8" if "--kbps" in line else "8,16")
    assert (str(out) == "report") == ("--out" in line) and dry_run == ("--dry-run" in line)


@pytest.mark.parametrize(
    ("line", "heavy"),
    [
        *(
            (f"evaluate {line}", "torch pandas scipy matplotlib av")
            for line in ("--help", "report --help", "compare --help", "--version")
        ),
        ("evaluate weights --help", "torch pandas transformers av"),
        ("evaluate list", "torch transformers pandas scipy matplotlib h5py"),
        ("import mushra", "pandas numpy sqlalchemy flask"),
        ("import mushra.cli.serve", "flask sqlalchemy torch numpy"),
        ("import evaluation.metrics", "torch"),
        ("import evaluation.datasets as d; d.load_dataset()", "torch"),
    ],
)
def test_nothing_is_loaded_that_takes_seconds(line: str, heavy: str, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path))
    code = line
    if not line.startswith("import "):
        code = f"""
import sys; sys.argv = {line.split()}
from evaluation.cli.evaluate import main
try: main()
except SystemExit as end: assert not end.code, end.code"""
    code += f"\nimport sys; print('loaded:', *set({heavy.split()}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("loaded:\n"), done.stdout
    assert line != "evaluate list" or {"qincodec", "si_sdr"} <= set(done.stdout.split())
