"""A run folder that an earlier version wrote: it is read as it was, and gone on with.

``data/stored_run`` holds two clips and one that is no audio, coded by QINCODEC, Opus and the control, and a
condition decoded elsewhere that lacks two files; with what that version computed from it.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from nominal import evaluate

from baselines.codec import Codec, Encoded, Rate
from baselines.registry import CODECS
from evaluation import open_results
from evaluation.cli.evaluate import main
from evaluation.embeddings.logmel import LogMel
from evaluation.report import write_all
from evaluation.statistics.recordings import TIMING_COLUMNS

STORED = Path(__file__).parents[1] / "data" / "stored_run"


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.report.files.write_plots", lambda *_: [])


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, and its conditions by codecs that only say who they are: nothing can be coded again."""
    shutil.copytree(STORED, tmp_path, dirs_exist_ok=True)
    conditions = json.loads((STORED / "run" / "run.json").read_text())["conditions"]
    load = CODECS.load

    def load_stored(name: str) -> Any:
        entries = [entry for entry in conditions if entry["codec"] == name]

        class Stored(Codec):
            sample_rate = 44100
            control = entries[0]["control"]

            def __init__(self, **_: Any) -> None:
                self.name, self.version = name, entries[0]["identity"]["version"]

            def identity(self) -> dict[str, Any]:
                return dict(entries[0]["identity"])

            def rates(self, channels: int = 1) -> Sequence[Rate]:
                return [Rate(entry["nominal"], entry["settings"]) for entry in entries]

            def encode(self, audio: Any, rate: Rate) -> list[Encoded]:
                raise AssertionError("coded again")

            def decode(self, encoded: Sequence[Encoded]) -> Any:
                raise AssertionError("decoded again")

        return Stored if entries else load(name)

    monkeypatch.setattr(CODECS, "load", load_stored)
    monkeypatch.setattr(LogMel, "embed", lambda *_: pytest.fail("embedded again"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def same(folder: Path) -> None:
    """A summary's values are the stored ones, apart from times, to the last digit."""
    mine = pd.read_csv(folder / "summary.csv", dtype=str)
    stored = pd.read_csv(STORED / "run" / "summary.csv", dtype=str)
    times = [name for name in TIMING_COLUMNS if name in stored]
    pd.testing.assert_frame_equal(mine.drop(columns=times), stored.drop(columns=times))


def test_a_stored_run_is_read_as_it_was(tmp_path: Path) -> None:
    results = open_results(STORED / "run")
    write_all(results, tmp_path)
    same(tmp_path)
    clips = results.clips.set_index(["codec", "kbps", "clip"])
    assert clips.loc[("opus", 8.0, "torn"), "error"].endswith("or is damaged")
    assert "nothing for clip 'high'" in clips.loc[("mine", 8.0, "high"), "error"]
    assert results.noise_floor is not None and len(results.noise_floor.summary) == 2
    assert results.n_pending == results.n_failed_scores == 0
    # One clip of 0.2 s was decoded, one frame of a second: too few for a distance, and still there.
    few = [score for score in results.scores if score.codec == "mine"]
    assert {(math.isnan(s.value), s.n_clips, s.n_recordings, s.n_frames) for s in few} == {(True, 1, 1, 1)}


def test_a_stored_run_is_gone_on_with(stored: Path) -> None:
    before = (stored / "rows" / "rank-0.jsonl").read_bytes()
    evaluate(
        "audio",
        "qincodec,opus,reference",
        [8, 16],
        conditions={"mine@8": "decoded"},
        metrics="si_sdr,ms_mel,logmel",
        sample_rate=16000,
        out="run",
    )
    same(stored)
    after = (stored / "rows" / "rank-0.jsonl").read_bytes()
    assert after.startswith(before)
    # The reason why the torn clip failed names its file, which lies elsewhere now; statistics of codes have
    # learnt of codebooks together since.
    added = [json.loads(line) for line in after[len(before) :].splitlines()]
    assert {(row["kind"], row.get("clip")) for row in added} <= {("coded", "torn"), ("codes", None)}
    # What two clips lack of a condition is part of the keys of their rows.
    assert (stored / "files.json").read_bytes() == (STORED / "run" / "files.json").read_bytes()


def test_a_run_that_cannot_be_written_is_shown_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("qincodec.core.files.whole_file", refuse)
    monkeypatch.setattr("sys.argv", ["evaluate", "report", str(STORED / "run")])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    assert end.value.code == 2 and "SI-SDR (dB)" in shown.out and "26.24" in shown.out
    assert shown.err == (
        f"evaluate: cannot write {STORED / 'run' / 'clips.csv'}: Read-only file system; copy the run folder"
        " to a place where you may write, and report on the copy\n"
    )
