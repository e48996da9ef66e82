"""What `load_dataset` remembers of files it has read before."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from data_sets import sound

from evaluation.datasets import load_dataset
from evaluation.datasets.files import cache_file
from qincodec import audio

pytestmark = pytest.mark.usefixtures("own_cache")


def old(path: Path) -> Path:
    """Dated back: files changed in the last two seconds are not remembered."""
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return path


def test_known_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        old(sound(tmp_path / f"{number}.wav", seed=number))
    before = load_dataset(tmp_path)

    def info(path: Path) -> audio.AudioInfo:
        raise AssertionError("read again")

    monkeypatch.setattr(audio, "info", info)
    assert load_dataset(tmp_path).clips == before.clips


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = old(sound(tmp_path / "a.wav", seed=0))
    before = load_dataset(tmp_path)
    old(sound(path, seed=1))  # the same size, and the same modification time
    assert load_dataset(tmp_path).hash != before.hash


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"reader": 1}', '{"files": []}', "\0" * 100, None]
)
def test_a_damaged_cache_is_no_matter(content: str | None, tmp_path: Path) -> None:
    old(sound(tmp_path / "a.wav"))
    before = load_dataset(tmp_path)
    assert cache_file().exists()
    if content is None:  # plausible, but changed by someone else
        stored = json.loads(cache_file().read_text())
        next(iter(stored["files"].values()))["hash"] = "f" * 16
        content = json.dumps(stored)
    cache_file().write_text(content)
    assert load_dataset(tmp_path).clips == before.clips
    assert json.loads(cache_file().read_text())["files"]


def test_a_cache_that_cannot_be_written_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old(sound(tmp_path / "data" / "a.wav"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path / "file" / "below"))
    assert len(load_dataset(tmp_path / "data").clips) == 1


def test_the_cache_lies_in_the_user_s_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("QINCODEC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_file().is_relative_to(tmp_path) and "qincodec" in cache_file().parts


def test_progress(tmp_path: Path) -> None:
    for number in range(5):
        sound(tmp_path / f"{number}.wav", seed=number)
    calls: list[tuple[int, int]] = []
    load_dataset(tmp_path, progress=lambda _, done, total: calls.append((done, total)))
    assert calls == [(n, 5) for n in range(6)]
