"""Commands that get another command's folder say what it is and which commands take it."""

from __future__ import annotations

from pathlib import Path

import pytest

import evaluation.cli.evaluate
import mushra.cli.main
import qincodec.cli
from qincodec.core.console import run_command
from qincodec.core.folders import instead, kind_of
from qincodec.model_folder import PRETRAINED

APPS = {"evaluate": evaluation.cli.evaluate.app, "mushra": mushra.cli.main.app, "qincodec": qincodec.cli.app}
RUN = "it is a run of `evaluate`, for `evaluate report`, `evaluate html` and `mushra create --run`"
TEST = "it is a listening test, for `mushra check`, `mushra serve` and `mushra analyze`"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mushra check run", f"run is not a test: {RUN}; give a webMUSHRA YAML file"),
        ("mushra serve run", f"run is not a test: {RUN}"),
        ("mushra payments run", f"run is not a test: {RUN}"),
        ("mushra analyze run", f"run holds no listeners' ratings: {RUN}"),
        ("mushra export analysis", "analysis holds no listeners' ratings: it is an analysis of a test"),
        ("mushra correlate run", "cannot read key 'run/key.json': No such file or directory; run is a run"),
        ("mushra create --run test --codecs opus --kbps 8 --out new", f"test is not a run: {TEST}; give"),
        ("evaluate report test", f"test is not a run: {TEST}; give the folder that `evaluate --out` wrote"),
        ("evaluate html empty", "empty is not a run: it has no run.json"),
        ("evaluate report nowhere", "nowhere is not a run: it does not exist"),
        ("evaluate compare test/config.yaml run", "config.yaml is not a run: it is not a folder"),
        ("evaluate test --out new", "no audio found in 'test', which is a listening test, for"),
        ("evaluate paper --data empty --listening test --out new", f"test has no conditions.csv: {TEST}"),
        ("qincodec decode run -o x.wav", "'run' is a run of `evaluate`"),
        ("qincodec decode empty -o x.wav", "'empty' is a folder: give .qnc files, such as empty/*"),
        ("qincodec encode empty -o x.qnc", "'empty' is a folder: give audio files, such as empty/*"),
        ("qincodec info test", f"'test' is not a model, {TEST}: give a folder with config.json"),
    ],
)
def test_another_commands_folder_is_named(
    line: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("run/run.json", "test/config.yaml", "analysis/analysis.json", "empty/x.txt"):
        Path(file).parent.mkdir()
        Path(file).write_text("{}")
    program, *arguments = line.split()
    with pytest.raises(SystemExit) as end:
        run_command(APPS[program], arguments, program)
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "") and message in err and err.count("\n") == 1
    assert not Path("new").exists()


def test_what_the_commands_write_is_known(tmp_path: Path) -> None:
    assert kind_of(PRETRAINED / "small").startswith("a model, for")
    assert kind_of(tmp_path) == "" and instead(tmp_path, "run.json") == "has no run.json"
