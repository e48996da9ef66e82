"""Names that no table can hold and headers that no audio has: such a file does not end an evaluation."""

from __future__ import annotations

import csv
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import soundfile
from known import RATE, tone_and_noise
from nominal import evaluate

from evaluation import open_results
from evaluation.datasets import load_dataset
from evaluation.report import write_all
from evaluation.report.html import write_html
from evaluation.run.merge import merge_runs

#: Name of a file, and what stands for it.
NAMES = {
    b"a\nb.wav": "a%0Ab",
    b"tab\there.wav": "tab%09here",
    b"latin-\xe9.wav": "latin-%E9",
    "line\u2028separator.wav".encode(): "line\u2028separator",
    b"plain.wav": "plain",
}


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a\nfolder"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        path = Path(os.fsdecode(bytes(folder) + b"/" + name))
        soundfile.write(os.fsencode(path), tone_and_noise(seed, 0.5), RATE, format="WAV", subtype="FLOAT")
    return folder


def test_any_name_is_evaluated(odd_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    results = evaluate(odd_folder, "mp3", [32], metrics="si_sdr,logmel", out=run)
    assert sorted(results.clips["clip"]) == sorted(NAMES.values())
    assert results.clips["error"].isna().all() and results.clips["si_sdr"].notna().all()
    before = (run / "rows" / "rank-0.jsonl").read_bytes()
    again = evaluate(odd_folder, "mp3", [32], metrics="si_sdr,logmel", out=run)
    assert (run / "rows" / "rank-0.jsonl").read_bytes() == before  # nothing was computed anew
    assert again.clips.equals(results.clips)
    write_all(results, run)
    with (run / "clips.csv").open(newline="") as file:
        assert sorted(row["clip"] for row in csv.DictReader(file)) == sorted(NAMES.values())
    assert write_html(run, clips=5).num_clips == 5
    merge_runs(tmp_path / "merged", [run])
    assert open_results(tmp_path / "merged").clips["si_sdr"].equals(results.clips["si_sdr"])


def test_a_file_that_cannot_be_read_fails_in_one_line(odd_folder: Path, tmp_path: Path) -> None:
    broken = Path(os.fsdecode(bytes(odd_folder) + b"/\xffbro\nken.wav"))
    broken.write_bytes(b"no audio")
    results = evaluate(odd_folder, "mp3", [32], metrics="si_sdr", out=tmp_path / "run")
    clips = results.clips.set_index("clip")
    assert clips["error"].notna().sum() == 1
    assert "\n" not in clips.loc["%FFbro%0Aken", "error"]
    assert "%FFbro%0Aken" in (tmp_path / "run" / "clips.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("rate", [1, 3_999, 768_001])
def test_a_rate_that_no_audio_has_fails_its_clip(rate: int, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    soundfile.write(folder / "good.wav", tone_and_noise(0, 0.5), RATE)
    soundfile.write(folder / "odd.wav", tone_and_noise(1, 0.5), RATE)
    content = bytearray((folder / "odd.wav").read_bytes())
    at = content.index(b"fmt ") + 12
    assert struct.unpack_from("<I", content, at) == (RATE,)
    struct.pack_into("<I", content, at, rate)
    (folder / "odd.wav").write_bytes(content)
    clips = {clip.id: clip for clip in load_dataset(folder).clips}
    assert clips["good"].error is None
    assert "sample rate" in (clips["odd"].error or ""), clips["odd"]


def test_the_file_of_one_hertz(tmp_path: Path, shared: object) -> None:
    path = shared("cases/train-one-hertz/onehz.wav")  # type: ignore[operator]
    (tmp_path / "odd.wav").write_bytes(path.read_bytes())
    soundfile.write(tmp_path / "good.wav", tone_and_noise(0, 0.5), RATE)
    clips = {clip.id: clip for clip in load_dataset(tmp_path).clips}
    assert "1 Hz" in (clips["odd"].error or "") and clips["good"].error is None


def test_excerpts_of_files_of_the_longest_names(tmp_path: Path) -> None:
    """Their names are too long for a file: they have what excerpts of files of short names have."""
    found = {}
    for kind, names in {"long": ["語" * 83 + "a", "語" * 83 + "b"], "short": ["a", "b"]}.items():
        for number, name in enumerate(names):
            (tmp_path / kind).mkdir(exist_ok=True)
            soundfile.write(tmp_path / kind / f"{name}.flac", tone_and_noise(number, 2.0), RATE)
        run = tmp_path / f"run-{kind}"
        options: dict[str, Any] = {"chunk_s": 1.0, "chunks": "all", "save_audio": True, "out": run}
        clips = evaluate(tmp_path / kind, "mp3", [32], metrics="si_sdr", **options).clips
        saved = sorted((run / "decoded" / "mp3@32").iterdir())
        found[kind] = sorted(clips.si_sdr), [soundfile.read(path)[0].tolist() for path in saved]
        assert len(saved) == 4 and all(len(path.name.encode()) <= 255 for path in saved)
    assert found["long"][0] == found["short"][0]
    assert sorted(found["long"][1]) == sorted(found["short"][1])
