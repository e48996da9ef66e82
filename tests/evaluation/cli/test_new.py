"""`evaluate new codec`: it writes a working codec, and refuses bad names."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from baselines import check_codec
from evaluation.cli.evaluate import app
from qincodec.core.errors import UserError
from qincodec.core.plugins import load_file


def test_the_class_keeps_the_promises_of_a_codec(tmp_path: Path) -> None:
    CliRunner().invoke(
        app, ["new", "codec", "very-own", "--out", str(tmp_path / "own")], catch_exceptions=False
    )
    project = tomllib.loads((tmp_path / "own" / "pyproject.toml").read_text())
    place = project["project"]["entry-points"]["qincodec.codecs"]["very-own"]
    module, _, name = place.partition(":")
    codec = load_file(f"{tmp_path / 'own' / module}.py:{name}").part
    assert codec.name == "very-own"
    measured = check_codec(codec())
    assert {(one.channels, one.rate.kbps) for one in measured} == {(1, 128), (1, 256), (2, 256), (2, 512)}
    assert {one.delay_samples for one in measured} == {0}
    assert [one.kbps for one in measured] == pytest.approx([one.rate.kbps for one in measured], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("opus", "codec 'opus' already exists"),
        ("My Codec", "small letters"),
        ("class", "not a valid name"),
        ("x", "'x' exists"),
    ],
)
def test_bad_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match=said):
        CliRunner().invoke(app, ["new", "codec", name], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]
