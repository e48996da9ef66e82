"""What the guides show is true: their codec and their embedding pass, the files of a run exist."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from known import announce
from pages import ROOT, blocks, code

from baselines import check_codec
from baselines.registry import CODECS
from evaluation import evaluate

RUN_FOLDER = ROOT / "docs" / "reference" / "run-folder.md"


def declared(name: str) -> str:
    """Where an entry point of the guide to plug-ins leads."""
    (found,) = re.findall(
        rf'^{name} = "(.*)"', "\n".join(blocks("docs/how-to/extend.md", "toml")), flags=re.MULTILINE
    )
    return str(found)


@pytest.fixture
def mulaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """The codec of the tutorial, in a package of its own that an entry point announces."""
    (tmp_path / "my_package.py").write_text(code("docs/tutorials/own-codec.md", "MuLaw"))
    monkeypatch.syspath_prepend(tmp_path)
    announce(monkeypatch, EntryPoint("mulaw", declared("mulaw"), "qincodec.codecs"))
    codec = CODECS.load("mulaw")
    assert isinstance(codec, type)
    return codec


def test_the_codec_of_the_tutorial_passes_and_is_evaluated(mulaw: type, tmp_path: Path) -> None:
    check_codec(mulaw())
    results = evaluate("demo", "mulaw", [64], limit=2, out=tmp_path / "run")
    assert results.clips["error"].isna().all()
    assert results.clips["kbps_measured"].round(3).tolist() == [64, 64]


def test_the_files_of_a_run_are_the_ones_named(tmp_path: Path) -> None:
    evaluate("demo", "opus,mp3", [8, 16, 24, 32], limit=2, out=tmp_path / "run", save_audio=True)
    listed = RUN_FOLDER.read_text(encoding="utf-8").split("\n## ")[0]
    names = set(re.findall(r"`([\w./]+)`", listed))
    found = {path.name + "/" * path.is_dir() for path in (tmp_path / "run").iterdir()}
    # These need an interpolated row, curves that overlap, and a codec with codebooks.
    assert names - found <= {
        "points.csv",
        "bd_rate.csv",
        "tokens.csv",
        "mutual_information.csv",
        *(f"perplexity.{kind}" for kind in ("csv", "png", "svg")),
    }
    assert found - names <= {".lock", "files.json"}


def test_the_embedding_of_the_guide_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_embeddings.py").write_text(code("docs/how-to/extend.md", "Loudness"))
    monkeypatch.syspath_prepend(tmp_path)
    place = declared("loudness").replace("my_package:", "my_embeddings:")
    announce(monkeypatch, EntryPoint("loudness", place, "qincodec.embeddings"))
    results = evaluate("demo", "opus", [16], metrics="loudness", limit=2, out=tmp_path / "run")
    assert results.summary["fd_loudness"].notna().all() and results.clips["fm_loudness"].notna().all()
