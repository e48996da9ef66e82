"""`mushra demo`: folders it may use, and what an interrupted one leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from mushra.cli import serve as cli_serve
from mushra.config.load import load_config
from mushra.create.demo import make_demo
from qincodec.core.errors import UserError


@pytest.fixture
def no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise AssertionError("encodes before it has looked at the folder")

    monkeypatch.setattr("evaluation.session.evaluate", refuse)


@pytest.mark.parametrize("name", ["test/mine.py", "other.txt"])
def test_a_folder_of_others_is_left_alone(tmp_path: Path, no_evaluation: None, name: str) -> None:
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(UserError, match=r"--out"):
        make_demo(tmp_path / "out")
    assert file.read_text() == "mine"


@pytest.mark.slow
def test_it_continues_after_a_kill_and_serves_an_earlier_demo(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".test.creating-0123abcd" / "stimuli").mkdir(parents=True)  # of a killed one
    folder = make_demo(out)
    assert sorted(path.name for path in out.iterdir()) == ["run", "test"]
    pages = [page.id for page in load_config(folder).flat()]
    assert pages[2:-1] == ["training01", "trial01", "trial02", "trial03"]
    (folder / "results.sqlite").write_text("results")
    before = (folder / "key.json").stat().st_mtime_ns
    assert make_demo(out) == folder
    assert (folder / "key.json").stat().st_mtime_ns == before
    assert (folder / "results.sqlite").read_text() == "results"


def test_help_says_that_results_are_kept() -> None:
    app = typer.Typer()
    cli_serve.register(app)
    option = next(o for o in typer.main.get_command(app).commands["demo"].params if o.name == "out")  # type: ignore[attr-defined]
    assert "served again, with its results" in option.help
    assert "made again" not in option.help
