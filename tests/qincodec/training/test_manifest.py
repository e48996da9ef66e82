"""The manifest: built once, resumed, kept up to date, opened in no time."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import encode
from audio_files import signal as noise

from qincodec import audio
from qincodec.core.errors import UserError
from qincodec.training import manifest as module
from qincodec.training.config import load_config
from qincodec.training.manifest import Manifest
from qincodec.training.run import TrainingRun
from qincodec.training.sources import Candidate, Listing


def sound(path: Path, samples: int = 800, rate: int = 44100, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(channels, samples).T, rate)
    return path


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose headers are read."""
    seen: list[str] = []
    real = audio.info

    def info(path: str) -> audio.AudioInfo:
        seen.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(audio, "info", info)
    return seen


def test_a_manifest_has_the_values_of_the_headers(tmp_path: Path) -> None:
    data = tmp_path / "data"
    sound(data / "b.wav", 1000, 48000, 2)
    sound(data / "a.flac", 44100)
    sound(data / "sub" / "c.ogg", 20000, 22050)
    encode(data / "d.mp3", "libmp3lame", noise(1, 30000), 44100)
    manifest = Manifest.build(data, tmp_path / "m")
    assert [manifest.id(i) for i in range(4)] == ["a.flac", "b.wav", "d.mp3", "sub/c.ogg"]
    assert manifest.path(3) == data / "sub" / "c.ogg"
    assert manifest.files["num_samples"].tolist() == [
        44100,
        1000,
        audio.info(data / "d.mp3").num_samples,
        20000,
    ]
    assert manifest.files["sample_rate"].tolist() == [44100, 48000, 44100, 22050]
    assert manifest.files["channels"].tolist() == [1, 2, 1, 1]
    assert manifest.files["seekable"].tolist() == [True, True, False, False]
    summary = manifest.summary()
    assert summary["files"] == len(manifest) == 4
    assert summary["sample_rates"] == {"22050": 1, "44100": 2, "48000": 1}
    assert summary["channels"] == {"1": 3, "2": 1}
    assert summary["not_seekable"] == 2
    assert json.loads(json.dumps(summary)) == summary


def test_the_shared_hour(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    source = shared("audio/train.jsonl")
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    manifest = Manifest.build(source, tmp_path)
    assert len(manifest) == len(rows)
    assert manifest.total_s == pytest.approx(sum(row["duration_s"] for row in rows), abs=0.1)
    by_path = {row["path"]: row for row in rows}
    for index in range(len(manifest)):
        row, file = by_path[manifest.id(index)], manifest.files[index]
        assert (row["sample_rate"], row["channels"]) == (file["sample_rate"], file["channels"])


def test_a_header_that_cannot_be_decides_nothing(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    """Its "11 h" of 40,000 samples once sent all other files to the held-out side."""
    for number in range(8):
        sound(tmp_path / "d" / f"clip{number}" / "a.wav", 44100)
    expected = [view.total_s for view in Manifest.build(tmp_path / "d", tmp_path / "m").split(0.25, 0)]
    shutil.copy(shared("cases/train-one-hertz/onehz.wav"), tmp_path / "d")
    manifest = Manifest.build(tmp_path / "d", tmp_path / "m")
    assert (len(manifest), manifest.summary()["unreadable"]) == (8, 1)
    (row,) = map(json.loads, (tmp_path / "m" / "unreadable.jsonl").read_text().splitlines())
    assert row["path"] == "onehz.wav" and "sample rate of 1 Hz" in row["reason"]
    assert [view.total_s for view in manifest.split(0.25, 0)] == expected == [6.0, 2.0]


def test_a_name_may_hold_any_character(tmp_path: Path) -> None:
    names = ["a\nb.wav", "$x_$.wav", os.fsdecode(b"caf\xe9.wav"), "tab\t.wav"]
    for name in names:
        sound(tmp_path / "d" / "made.wav", 4000).rename(tmp_path / "d" / name)
    sound(tmp_path / "d" / "bro\nken.wav").write_bytes(b"no audio")
    manifest = Manifest.build(tmp_path / "d", tmp_path / "m")
    assert sorted(manifest.id(index) for index in range(4)) == sorted(names)
    (row,) = map(json.loads, (tmp_path / "m" / "unreadable.jsonl").read_text().splitlines())
    assert row["path"] == "bro\nken.wav" and "\n" not in row["reason"]
    lines = "".join(json.dumps({"path": f"d/{name}"}) + "\n" for name in names)
    (tmp_path / "list.jsonl").write_text(lines)
    again = Manifest.build(tmp_path / "list.jsonl", tmp_path / "m2")
    assert {again.id(index) for index in range(4)} == {f"d/{name}" for name in names}


def test_the_hash_is_of_the_content_not_of_the_place_or_the_order(tmp_path: Path) -> None:
    for name, order in (("one", "abc"), ("two", "cab")):
        for letter in order:
            sound(tmp_path / name / f"{letter}.wav", 800 + ord(letter))
    first = Manifest.build(tmp_path / "one", tmp_path / "m1")
    second = Manifest.build(tmp_path / "two", tmp_path / "m2")
    assert first.hash == second.hash
    os.utime(tmp_path / "two" / "a.wav", (1, 1))
    assert Manifest.build(tmp_path / "two", tmp_path / "m2").hash == first.hash
    for change in (
        lambda: sound(tmp_path / "two" / "d.wav"),
        lambda: sound(tmp_path / "two" / "a.wav", 950),
        lambda: (tmp_path / "two" / "b.wav").rename(tmp_path / "two" / "e.wav"),
        lambda: (tmp_path / "two" / "c.wav").unlink(),
    ):
        before = Manifest.open(tmp_path / "m2").hash
        change()
        assert Manifest.build(tmp_path / "two", tmp_path / "m2").hash != before
    assert len(list((tmp_path / "m2").glob("files-*.npy"))) == 1


def test_only_what_changed_is_read_again(tmp_path: Path, probed: list[str]) -> None:
    for letter in "abc":
        sound(tmp_path / "d" / f"{letter}.wav")
    Manifest.build(tmp_path / "d", tmp_path / "m")
    assert probed == ["a.wav", "b.wav", "c.wav"]
    probed.clear()
    Manifest.build(tmp_path / "d", tmp_path / "m")
    assert probed == []
    sound(tmp_path / "d" / "b.wav", 4000)
    assert Manifest.build(tmp_path / "d", tmp_path / "m").files["num_samples"].tolist() == [800, 4000, 800]
    assert probed == ["b.wav"]


def test_unreadable_files_are_counted_with_reasons(tmp_path: Path) -> None:
    data = tmp_path / "d"
    sound(data / "good.wav")
    (data / "empty.wav").write_bytes(b"")
    (data / "text.mp3").write_text("not audio at all\n" * 100)
    (data / "gone.flac").symlink_to("nowhere")
    (data / "folder.wav").mkdir()
    whole = sound(data / "cut.wav", 20000).read_bytes()
    (data / "cut.wav").write_bytes(whole[:9000])
    (data / "noise.ogg").write_bytes(np.random.default_rng(0).bytes(5000))
    (data / os.fsdecode(b"\xff\xfe.wav")).write_bytes(b"RIFF")
    manifest = Manifest.build(data, tmp_path / "m")
    assert [manifest.id(i) for i in range(len(manifest))] == ["good.wav"]
    assert manifest.summary()["unreadable"] == 6
    log = [json.loads(line) for line in (tmp_path / "m" / "unreadable.jsonl").read_text().splitlines()]
    reasons = {row["path"]: row["reason"] for row in log}
    assert "is empty" in reasons["empty.wav"]
    assert "truncated" in reasons["cut.wav"]
    assert "no such audio file" in reasons["gone.flac"]
    assert set(reasons) == {"empty.wav", "text.mp3", "gone.flac", "cut.wav", "noise.ogg", "\udcff\udcfe.wav"}
    # What was mended is read.
    (data / "empty.wav").unlink()
    sound(data / "empty.wav")
    assert Manifest.build(data, tmp_path / "m").summary()["unreadable"] == 5


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match="none of the 1 audio files") as caught:
        Manifest.build(tmp_path / "d", tmp_path / "m")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no finished manifest"):
        Manifest.open(tmp_path / "m")


def test_a_library_that_fails_in_its_own_way_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound(tmp_path / "d" / "a.wav")
    sound(tmp_path / "d" / "b.wav")
    real = audio.info

    def info(path: str) -> audio.AudioInfo:
        if path.endswith("a.wav"):
            raise RuntimeError("boom")
        return real(path)

    monkeypatch.setattr(audio, "info", info)
    manifest = Manifest.build(tmp_path / "d", tmp_path / "m")
    assert [manifest.id(i) for i in range(len(manifest))] == ["b.wav"]
    assert "RuntimeError: boom" in (tmp_path / "m" / "unreadable.jsonl").read_text()


def test_manifests_that_are_damaged_or_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished manifest"):
        Manifest.open(tmp_path)
    sound(tmp_path / "d" / "a.wav")
    folder = tmp_path / "m"
    good = Manifest.build(tmp_path / "d", folder).hash
    for damage, message in [
        (lambda: (folder / "manifest.json").write_text("{"), "cannot be read"),
        (lambda: (folder / "manifest.json").write_text('{"format": 99}'), "not a manifest of this version"),
        (lambda: next(folder.glob("paths-*")).write_bytes(b"abcdefghi"), "damaged"),
        (lambda: next(folder.glob("files-*")).write_bytes(b""), "damaged"),
        (lambda: next(folder.glob("files-*")).unlink(), "damaged"),
    ]:
        damage()
        with pytest.raises(UserError, match=message):
            Manifest.open(folder)
        assert Manifest.build(tmp_path / "d", folder).hash == good
    with pytest.raises(UserError, match="0 workers"):
        Manifest.build(tmp_path / "d", folder, workers=0)
    with pytest.raises(UserError, match="cannot write the manifest"):
        Manifest.build(tmp_path / "d", tmp_path / "d" / "a.wav")


KILLED = """
import os, signal, sys
from qincodec.training.manifest import Manifest

def progress(what, done, total):
    print(os.getpid(), *[open(f"/proc/self/task/{t}/children").read() for t in os.listdir("/proc/self/task")])
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    Manifest.build(sys.argv[1], sys.argv[2], workers=2, progress=progress)
"""


@pytest.mark.timeout(1800)
def test_a_killed_build_continues(tmp_path: Path, probed: list[str]) -> None:
    data, folder = tmp_path / "d", tmp_path / "m"
    content = sound(data / "0.wav").read_bytes()
    for number in range(1, 2200):
        (data / f"{number}.wav").write_bytes(content)
    script = tmp_path / "build.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(data), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (folder / "manifest.json").exists()
    with (folder / "scan.jsonl").open("a") as log:
        log.write('["7.wav", 16')  # a line cut short
    resumed = Manifest.build(data, folder, workers=1)
    assert 0 < 2200 - len(probed) < 1500
    probed.clear()
    assert Manifest.build(data, tmp_path / "fresh", workers=1).hash == resumed.hash
    assert len(resumed) == len(probed) == 2200
    # The processes that worked for the killed one do not stay.
    children = [int(pid) for pid in ended.stdout.split()[1:]]
    assert len(children) >= 2
    while any(_runs(pid) for pid in children):  # until the test's own time limit
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_processes_and_progress(tmp_path: Path) -> None:
    data = tmp_path / "d"
    content = sound(data / "0.wav").read_bytes()
    for number in range(1, 2100):
        (data / f"{number}.wav").write_bytes(content if number % 100 else b"rubbish")
    calls: list[tuple[int, int]] = []
    manifest = Manifest.build(
        data, tmp_path / "m", workers=2, progress=lambda what, done, total: calls.append((done, total))
    )
    assert manifest.hash == Manifest.build(data, tmp_path / "one", workers=1).hash
    assert len(manifest) == 2080 and manifest.summary()["unreadable"] == 20
    assert calls[-1] == (2100, 2100) and calls == sorted(calls)


def test_many_files_open_at_once_and_in_little_memory(tmp_path: Path) -> None:
    count = 100_000
    candidates = [Candidate(f"{i // 1000:03}/{i:08}.flac", 10**6, i, f"r{i // 2}") for i in range(count)]
    headers: dict[str, module.Header] = {
        c.path: (44100 * (1 + i % 9), 44100, 1, True) for i, c in enumerate(candidates)
    }
    (tmp_path / "m").mkdir()
    module._write(Listing(tmp_path, "folder", candidates), tmp_path / "m", headers, "state", "source")
    Manifest.open(tmp_path / "m")
    tracemalloc.start()
    start = time.process_time()
    manifest = Manifest.open(tmp_path / "m")
    assert (len(manifest), manifest.id(99_999)) == (count, "099/00099999.flac")
    elapsed, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert elapsed < 0.1 and peak < 500_000
    assert len(pickle.dumps(manifest)) < 1000
    train, dev = manifest.split(0.01, seed=0)
    assert dev.total_s == pytest.approx(0.01 * manifest.total_s, rel=0.01)
    assert len(train) + len(dev) == count


def test_split_by_recording(tmp_path: Path) -> None:
    rows = [(f"{i}.wav", f"r{i // 3}") for i in range(60)]
    for name, _ in rows:
        sound(tmp_path / name)
    lines = [json.dumps({"path": name, "recording": recording}) for name, recording in rows]
    (tmp_path / "l.jsonl").write_text("\n".join(lines))
    whole = Manifest.build(tmp_path / "l.jsonl", tmp_path / "m")
    recording = dict(rows)
    parts = {}
    for seed in (0, 1):
        train, dev = whole.split(0.2, seed)
        ids = [{part.id(i) for i in range(len(part))} for part in (train, dev)]
        assert ids[0] | ids[1] == set(recording) and not ids[0] & ids[1]
        assert not {recording[i] for i in ids[0]} & {recording[i] for i in ids[1]}
        assert dev.total_s == pytest.approx(0.2 * whole.total_s)
        assert len({whole.hash, train.hash, dev.hash}) == 3
        parts[seed] = ids[1], dev.hash
    assert parts[0][0] != parts[1][0] and parts[0][1] != parts[1][1]
    again = Manifest.open(tmp_path / "m").split(0.2, 0)[1]
    copied = pickle.loads(pickle.dumps(again))
    for dev in (again, copied):
        assert ({dev.id(i) for i in range(len(dev))}, dev.hash) == parts[0]
    # What is added takes the place of one recording at the most: the order of the others stays.
    sound(tmp_path / "new.wav", 8)
    (tmp_path / "l.jsonl").write_text("\n".join([*lines, '{"path": "new.wav", "recording": "new"}']))
    grown = Manifest.build(tmp_path / "l.jsonl", tmp_path / "m").split(0.2, 0)[1]
    kept = {grown.id(i) for i in range(len(grown))} - {"new.wav"}
    assert kept <= parts[0][0] and len(kept) >= len(parts[0][0]) - 3
    with pytest.raises(UserError, match="built again while it was in use"):
        pickle.loads(pickle.dumps(again))
    # A part of a part.
    inner, outer = train.split(0.5, 0)
    assert len(inner) + len(outer) == len(train)


def test_splits_that_cannot_be(tmp_path: Path) -> None:
    for name in "ab":
        sound(tmp_path / f"{name}x.wav", 44100)
    manifest = Manifest.build(tmp_path, tmp_path / "m")
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="more than 0, less than 1"):
            manifest.split(fraction, 0)
    with pytest.raises(UserError, match=r"no recording fits into 0\.1 of 2 s: all 2 have 1 s or more"):
        manifest.split(0.1, 0)


def test_a_moved_data_set_keeps_its_manifest(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "a.wav")
    before = Manifest.build(tmp_path / "d", tmp_path / "m").hash
    shutil.move(tmp_path / "d", tmp_path / "e")
    manifest = Manifest.build(tmp_path / "e", tmp_path / "m")
    assert manifest.hash == before and manifest.path(0).exists()


def test_a_folder_without_data_to_train_on_is_not_a_run(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no audio to train on"):
        TrainingRun.create(tmp_path / "run", load_config("small"), tmp_path / "empty")
    assert not (tmp_path / "run" / "training.json").exists()
