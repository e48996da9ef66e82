"""`mushra create` and `mushra check` on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import typer
from listening import RATE, recording
from typer.testing import CliRunner

from mushra.cli.create import register
from mushra.study.components import count_systems
from qincodec.core.errors import UserError


@pytest.fixture
def invoke() -> Callable[..., Any]:
    app = typer.Typer()
    register(app)

    def call(*arguments: object) -> Any:
        return CliRunner().invoke(app, list(map(str, arguments)))

    return call


def test_commands(run: Path, tmp_path: Path, invoke: Callable[..., Any]) -> None:
    out = tmp_path / "test"
    result = invoke("create", "--run", run, "--kbps", "16", "--items", 2, "--out", out, "--training", 0)
    assert result.exit_code == 0, result.output
    assert "2 items, seed 0: mp3@16; hidden reference, anchor35, anchor70" in result.output
    assert "warning: 2 items for 1 system under test" in result.output
    assert count_systems(out) == 1  # without hidden reference and anchors, by the key
    assert count_systems(run) == 2  # mp3 at two rates; pcm16 is a control
    assert invoke("check", out).exit_code == 0
    stimulus = next((out / "stimuli").iterdir())
    stimulus.write_bytes(next(p for p in (out / "stimuli").iterdir() if p != stimulus).read_bytes())
    result = invoke("check", out)
    assert result.exit_code == 2
    assert "was changed after `create`" in result.output


def test_preset_of_the_paper(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    for name in ("ref", "x"):
        (tmp_path / name).mkdir()
    for seed in range(13):
        for name in ("ref", "x"):
            soundfile.write(tmp_path / name / f"r{seed}.wav", recording(seed, 5.5), RATE, subtype="FLOAT")
    out = tmp_path / "test"
    options = ["create", "--reference", tmp_path / "ref", "--condition", f"x={tmp_path / 'x'}", "--out", out]
    result = invoke(*options, "--preset", "paper", "--training", 0)
    assert result.exit_code == 0, result.output
    key = json.loads((out / "key.json").read_text())
    assert len(key["trials"]) == 12
    assert {trial["duration_s"] for trial in key["trials"].values()} == {5.0}
    conditions = {entry["condition"] for entry in key["trials"]["trial01"]["signals"].values()}
    assert conditions == {"reference", "anchor35", "x"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --run RUN"),
        (["--run", "a", "--reference", "b"], "give --run RUN"),
        (["--run", "/nowhere"], "is not a run"),
        (["--run", "a", "--sample-rate", "44100"], "has the run's sample rate"),
        (["--reference", "a", "--codecs", "mp3"], "--codecs goes with --run"),
        (["--reference", "a"], "needs at least one --condition"),
        (["--reference", "a", "--condition", "x"], "--condition takes NAME=DIR"),
        (["--reference", "a", "--condition", "x=/nowhere"], "no such folder"),
        (["--run", "a", "--anchors", "50"], "--anchors is '50'; allowed: 35, 70"),
        (["--run", "a", "--loudness", "loud"], "--loudness is 'loud'"),
        (["--run", "a", "--bits", "20"], "--bits is 20"),
    ],
)
def test_command_line_errors(invoke: Callable[..., Any], arguments: list[str], message: str) -> None:
    result = invoke("create", "--out", "/nowhere/test", *arguments)
    assert isinstance(result.exception, UserError), result.output
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
