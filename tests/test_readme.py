"""What README shows is true: its codec passes, its commands parse, its files exist."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from known import announce

from baselines import check_codec
from baselines.registry import CODECS
from evaluation import evaluate

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def mulaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """The codec of README, in a package of its own that an entry point announces."""
    code = next(block for block in blocks("python") if "class MuLaw" in block)
    (tmp_path / "my_package.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    declared = re.search(r'mulaw = "(.*)"', next(block for block in blocks("toml")))
    assert declared is not None
    announce(monkeypatch, EntryPoint("mulaw", declared.group(1), "qincodec.codecs"))
    codec = CODECS.load("mulaw")
    assert isinstance(codec, type)
    return codec


def test_the_codec_of_readme_passes_and_is_evaluated(mulaw: type, tmp_path: Path) -> None:
    check_codec(mulaw())
    results = evaluate("demo", "mulaw", [64], limit=2, out=tmp_path / "run")
    assert results.clips["error"].isna().all()
    assert results.clips["kbps_measured"].round(3).tolist() == [64, 64]


def test_the_files_of_a_run_are_the_ones_named(tmp_path: Path) -> None:
    evaluate("demo", "opus,mp3", [8, 16, 24, 32], limit=2, out=tmp_path / "run", save_audio=True)
    listed = README.split("A run folder holds:")[1].split("From Python:")[0]
    names = set(re.findall(r"`([\w./]+)`", listed))
    found = {path.name + "/" * path.is_dir() for path in (tmp_path / "run").iterdir()}
    # These need curves that overlap, and a codec with codebooks.
    assert names - found <= {"bd_rate.csv", *(f"perplexity.{kind}" for kind in ("csv", "png", "svg"))}
    assert found - names <= {".lock", "files.json"}


def test_the_embedding_of_readme_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = next(block for block in blocks("python") if "class Loudness" in block)
    (tmp_path / "my_embeddings.py").write_text(code.replace("my_package", "my_embeddings"))
    monkeypatch.syspath_prepend(tmp_path)
    declared = re.search(r'loudness = "my_package:(.*)"', next(b for b in blocks("toml") if "loudness" in b))
    assert declared is not None
    point = EntryPoint("loudness", f"my_embeddings:{declared.group(1)}", "qincodec.embeddings")
    announce(monkeypatch, point)
    results = evaluate("demo", "opus", [16], metrics="loudness", limit=2, out=tmp_path / "run")
    assert results.summary["fd_loudness"].notna().all() and results.clips["fm_loudness"].notna().all()
