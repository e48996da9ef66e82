"""Weights that are not here: one message for all codecs before anything is downloaded, and a way on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from baselines import weights
from baselines.download import DownloadFailed
from evaluation import open_results
from evaluation.cli.evaluate import main

FILES = ("dac-8kbps", "dac-16kbps", "encodec-48khz")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that a download was tried of; there is no network."""
    tried: list[str] = []

    def obtain(name: str, progress: Any = None) -> Path:
        tried.append(name)
        raise DownloadFailed(f"cannot download {name}; run it again", "Name or service not known")

    monkeypatch.delenv("QINCODEC_OFFLINE")
    monkeypatch.setattr(weights, "obtain", obtain)
    return tried


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    standard = ("--kbps", "8,16", "--limit", "2", "--metrics", "si_sdr", "--out", "run")
    monkeypatch.setattr("sys.argv", ["evaluate", *words, *standard])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.mark.parametrize("offline", [True, False])
def test_one_message_names_all_that_is_missing(
    offline: bool,
    own_cache: Path,
    downloads: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if offline:
        monkeypatch.setenv("QINCODEC_OFFLINE", "1")
    assert run(monkeypatch, "--codecs", "opus,dac,encodec") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    for name in FILES:
        file = weights.entry(name)
        assert f"'{file.filename}' ({file.url})" in message
    assert f"'{own_cache}'" in message and "--skip-unavailable evaluates opus now" in message
    if offline:
        assert f"run `evaluate weights fetch {' '.join(FILES)}` where downloads are allowed" in message
    else:  # what has just failed is not advised
        assert "the download failed (Name or service not known)" in message and "fetch" not in message
    assert len(downloads) == (0 if offline else 1) and not Path("run").exists()


def test_nothing_is_downloaded_for_a_request_that_cannot_run(
    downloads: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "baselines.ffmpeg.Opus.unavailable", classmethod(lambda cls, weights=None: "no libopus")
    )
    for words, expected in (
        (("--codecs", "opus,dac"), "opus: no libopus; dac lacks"),
        (("--codecs", "dac,dacc"), "unknown codec 'dacc'"),
        (("--codecs", "dac", "--chunk", "0"), "--chunk is 0.0"),
        (("--codecs", "dac", "--condition", "x"), "--condition takes"),
        (("nowhere", "--codecs", "dac"), "no such data: 'nowhere'"),
        (("--codecs", "dac", "--shard", "3/2"), "shard"),
        (("--codecs", "dac", "--recording-pattern", "("), "pattern"),
    ):
        assert run(monkeypatch, *words) == 2
        assert expected in capsys.readouterr().err
    assert downloads == []


def test_nothing_is_downloaded_for_a_folder_that_cannot_take_it(
    downloads: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run").mkdir()
    Path("run/mine.txt").write_text("")
    assert run(monkeypatch, "--codecs", "dac") == 2
    assert "run is not empty and not a run (it holds mine.txt)" in capsys.readouterr().err
    Path("run/mine.txt").unlink()
    assert run(monkeypatch, "--codecs", "mp3") == 0
    soundfile.write("other.wav", np.zeros(44100), 44100)
    for words, what in (
        (("--seed", "5"), "seed was 0, now 5"),
        (("other.wav",), "the data was demo (2 clips"),
    ):
        capsys.readouterr()
        assert run(monkeypatch, *words, "--codecs", "dac") == 2
        assert f"run holds a run of another configuration: {what}" in capsys.readouterr().err
    assert downloads == []
    assert run(monkeypatch, "--codecs", "dac") == 2 and downloads == ["dac-8kbps"]


def test_the_rest_runs_and_the_table_says_what_was_left_out(
    downloads: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--codecs", "mp3,dac", "--skip-unavailable") == 0
    shown = capsys.readouterr()
    assert (
        "Left out, cannot run here: dac: weights dac-8kbps and dac-16kbps are not in the cache" in shown.out
    )
    assert "fetch" not in shown.out + shown.err.replace("run it again", "")
    file = weights.entry("dac-8kbps")
    assert f"'{file.filename}' ({file.url})" in " ".join(shown.err.split())
    assert "Name or service not known" not in shown.out and "cannot download dac-8kbps" in shown.err
    results = open_results("run")
    assert set(results.clips["codec"]) == {"mp3"} and list(results.skipped) == ["dac"]
    table = Path("run/table.md").read_text()
    assert "Left out, cannot run here: dac" in table

    # A codec that can run later joins the run and is no longer said to be left out.
    assert run(monkeypatch, "--codecs", "mp3,dac=dac:untrained:tiny") == 0
    assert open_results("run").skipped == {}


def test_a_message_names_the_one_of_two_models_that_works_alone(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "find", lambda name: Path("here") if name == "dac-16kbps" else None)
    assert run(monkeypatch, "--codecs", "dac") == 2
    message = capsys.readouterr().err
    assert "dac lacks 'weights_44khz_8kbps_0.0.1.pth'" in message
    assert "weights_44khz_16kbps" not in message and "dac:16kbps is here and works alone" in message
