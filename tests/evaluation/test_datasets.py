"""`load_dataset` on folders, globs, files and manifests."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from data_sets import RATE, ids, recordings, sound
from hypothesis import given
from hypothesis import strategies as st

from evaluation.datasets import load_dataset
from evaluation.datasets.files import File, ListedFile, cut
from evaluation.datasets.folder import recording_of
from qincodec import audio
from qincodec.core.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


# --- folders, globs, files ------------------------------------------------------------------------------


def test_folder(tmp_path: Path) -> None:
    sound(tmp_path / "b" / "two.WAV", 0.3, channels=2)
    one = sound(tmp_path / "b" / "one.flac", 7.0, rate=48000)
    sound(tmp_path / "a.Ogg", 1.0)
    sound(tmp_path / ".hidden.wav")
    sound(tmp_path / ".git" / "x.wav")
    (tmp_path / "b" / "._one.flac").write_bytes(b"\0\5\x16\7")
    (tmp_path / "notes.txt").write_text("no audio")
    dataset = load_dataset(tmp_path)
    assert dataset.name == tmp_path.name
    assert ids(dataset) == ["a", "b/one", "b/two"]
    assert dataset.excluded == []
    lossy, first, stereo = dataset.clips
    assert lossy.lossy == "Vorbis" and lossy.category is None
    assert (first.start_s, first.duration_s, first.sample_rate, first.channels) == (0.0, 5.0, 48000, 1)
    assert first.lossy is None and first.category == "b" and first.error is None
    assert first.path == one and first.path.is_absolute()
    assert first.content_hash == hashlib.sha256(one.read_bytes()).hexdigest()[:16]
    assert stereo.channels == 2 and stereo.duration_s == pytest.approx(0.3)


def test_names_that_clash_keep_their_extensions(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "B.wav", "b.flac", "c.d.wav", "e.wav", "e@5s.wav"):
        sound(tmp_path / name, seed=len(name))
    assert ids(load_dataset(tmp_path)) == ["B.wav", "a.flac", "a.wav", "b.flac", "c.d", "e", "e@5s.wav"]


def test_relative_folder_gives_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path / "x" / "a.wav")
    absolute = load_dataset(tmp_path / "x")
    monkeypatch.chdir(tmp_path / "x")
    assert load_dataset(".").clips == load_dataset("../x/").clips == absolute.clips
    assert load_dataset(".").name == "x"


def test_unicode_names_are_the_same_on_every_machine(tmp_path: Path) -> None:
    sound(tmp_path / "decomposed" / "Frühstück.wav")
    sound(tmp_path / "composed" / "Frühstück.wav")
    assert load_dataset(tmp_path / "decomposed").hash == load_dataset(tmp_path / "composed").hash


def test_glob(tmp_path: Path) -> None:
    for name in ("one/a.wav", "one/b.flac", "two/a.wav", "two/deep/c.wav"):
        sound(tmp_path / name)
    assert ids(load_dataset(f"{tmp_path}/*/a.wav")) == ["one/a", "two/a"]
    assert ids(load_dataset(f"{tmp_path}/**/*.wav")) == ["one/a", "two/a", "two/deep/c"]
    assert ids(load_dataset(f"{tmp_path}/t*")) == ["two/a", "two/deep/c"]  # folders: what is below
    sound(tmp_path / "[x]" / "d.wav")
    assert ids(load_dataset(f"{tmp_path}/[x]")) == ["d"]  # an existing name is no pattern


def test_single_file(tmp_path: Path) -> None:
    dataset = load_dataset(sound(tmp_path / "only.wav"))
    assert ids(dataset) == ["only"] and dataset.name == "only"


def test_links_to_folders_end_and_double_nothing(tmp_path: Path) -> None:
    sound(tmp_path / "data" / "real" / "a.wav")
    (tmp_path / "data" / "real" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data" / "real")
    sound(tmp_path / "elsewhere" / "b.wav")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    assert ids(load_dataset(tmp_path / "data")) == ["link/b", "real/a"]


def test_unreadable_files_are_clips_with_an_error(tmp_path: Path) -> None:
    good = sound(tmp_path / "good.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.mp3").write_text("this is no audio, whatever its name says\n" * 100)
    (tmp_path / "cut.wav").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "self.wav").symlink_to(tmp_path / "self.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    sound(tmp_path / "folder.wav" / "inner.wav")
    dataset = load_dataset(tmp_path)
    errors = {clip.id: clip.error for clip in dataset.clips}
    assert [name for name, error in errors.items() if error is None] == ["folder.wav/inner", "good"]
    assert set(errors) == {"cut", "empty", "folder.wav/inner", "gone", "good", "pipe", "self", "text"}
    assert all(error is None or f"{name}." in error for name, error in errors.items())
    assert all(error is None or "\n" not in error for error in errors.values())
    text = next(clip for clip in dataset.clips if clip.id == "text")
    assert text.content_hash == hashlib.sha256((tmp_path / "text.mp3").read_bytes()).hexdigest()[:16]
    assert text.duration_s == 0.0


def test_a_decoder_that_breaks_fails_its_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path / "a.wav")
    sound(tmp_path / "b.wav", seed=1)
    real = audio.info

    def info(path: Path) -> audio.AudioInfo:
        if Path(path).name == "a.wav":
            raise ZeroDivisionError("inside the decoder")
        return real(path)

    monkeypatch.setattr(audio, "info", info)
    assert [clip.error is None for clip in load_dataset(tmp_path).clips] == [False, True]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("nothing", r"no such data.*give a folder"),
        ("", r"empty"),
        ("texts", r"no audio found.*3 files, extensions seen: \.txt \(2\), none \(1\); allowed are \.aac"),
        ("void", r"no audio found.*no files"),
        ("texts/a.txt", r"neither a folder"),
        ("texts/*.wav", r"nothing matches"),
        ("broken", r"none of the 2 clips.*can be read; the first: .*a\.wav"),
        ("x" * 5000, r"cannot be read"),
        ("list.csv", r"audiocaps:FOLDER"),
        ("audiocaps", r"audiocaps:FOLDER"),
        ("audiocaps:", r"audiocaps:FOLDER"),
    ],
)
def test_rubbish(data: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("texts/a.txt", "texts/b.TXT", "texts/c", "broken/a.wav", "broken/b.wav", "list.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("x")
    Path("void").mkdir()
    with pytest.raises(UserError, match=says) as raised:
        load_dataset(data)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"chunk_s": 0},
        {"chunk_s": -1.0},
        {"chunk_s": math.nan},
        {"chunks": "some"},
        {"limit": 0},
        {"audiocaps_list": "test.csv"},
        {"allow_resampled": True},
        {"recording_pattern": "("},
        {"recording_pattern": "no group"},
        {"recording_pattern": "(two)(groups)"},
        {"recording_pattern": "(in no name)"},
    ],
)
def test_meaningless_arguments(arguments: dict[str, Any], tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    with pytest.raises(UserError):
        load_dataset(tmp_path, **arguments)


def test_low_sample_rates_are_noted(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", rate=16000)
    sound(tmp_path / "b.wav", rate=22050)
    sound(tmp_path / "c.wav")
    (note,) = load_dataset(tmp_path).notes
    assert note.startswith("2 of 3 files are below 44100 Hz (lowest 16000 Hz)")
    assert load_dataset(tmp_path, sample_rate=16000).notes == []
    assert all(clip.error is None for clip in load_dataset(tmp_path).clips)


# --- excerpts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration_s", "chunk_s", "clips", "tails"),
    [
        (12.0, 5.0, {"x": 5.0, "x@5s": 5.0, "x@10s": 2.0}, []),
        (10.9, 5.0, {"x": 5.0, "x@5s": 5.0}, ["x@10s"]),
        (11.0, 5.0, {"x": 5.0, "x@5s": 5.0, "x@10s": 1.0}, []),
        (5.0, 5.0, {"x": 5.0}, []),
        (0.4, 5.0, {"x": 0.4}, []),
        (1.2, 0.5, {"x": 0.5, "x@0.5s": 0.5}, ["x@1s"]),
        (3.0, math.inf, {"x": 3.0}, []),
    ],
)
def test_all_chunks(
    duration_s: float, chunk_s: float, clips: dict[str, float], tails: list[str], tmp_path: Path
) -> None:
    sound(tmp_path / "x.wav", duration_s)
    dataset = load_dataset(tmp_path, chunk_s=chunk_s, chunks="all")
    assert {clip.id: pytest.approx(clip.duration_s) for clip in dataset.clips} == clips
    assert {clip.recording for clip in dataset.clips} == {"x"}
    assert [name for name, _ in dataset.excluded] == tails
    assert all("shorter than 1 s" in reason for _, reason in dataset.excluded)
    first = load_dataset(tmp_path, chunk_s=chunk_s)
    assert [clip.duration_s for clip in first.clips] == [clips["x"]] and first.excluded == []


def test_chunks_put_together_are_the_file(tmp_path: Path) -> None:
    path = sound(tmp_path / "x.flac", 4.7, channels=2)
    clips = load_dataset(path, chunk_s=1 / 3, chunks="all").clips
    clips.sort(key=lambda clip: clip.start_s)
    parts = [audio.read(clip.path, clip.start_s, clip.duration_s)[0] for clip in clips]
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    joined = np.concatenate(parts, axis=1).T
    assert np.array_equal(joined, whole[: len(joined)])
    assert len(whole) - len(joined) < RATE / 3


@given(
    num_samples=st.integers(1, 2_000_000),
    rate=st.sampled_from([8000, 44100, 48000, 96000]),
    chunk_s=st.floats(0.1, 20),
)
def test_chunks_and_tail_tile_the_file(num_samples: int, rate: int, chunk_s: float) -> None:
    path = Path("/x.wav")
    file = File("0" * 16, audio.AudioInfo(rate, 1, num_samples, "WAV", "PCM_16", None))
    clips, excluded = cut([ListedFile("x", "x", path, "x")], {path: file}, chunk_s, "all")
    spans = sorted((round(c.start_s * rate), round((c.start_s + c.duration_s) * rate)) for c in clips)
    assert spans[0][0] == 0
    assert all(end == start for (_, end), (start, _) in pairwise(spans))
    left = num_samples - spans[-1][1]
    assert (left == 0) if not excluded else (0 < left < min(rate, chunk_s * rate + 1))
    assert len({clip.id for clip in clips}) == len(clips)


# --- recordings, categories, subsets --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("audio/1-100032-A-0", "freesound-100032"),
        ("audio/5-9032-B-49", "freesound-9032"),
        ("rain/rain-5-181766-A", "freesound-181766"),
        ("sea_waves-1-28135-B", "freesound-28135"),
        ("127389__acclivity__thetimehascome", "freesound-127389"),
        ("127389__some_body__a__b.wav", "freesound-127389"),
        ("radio__inaudible_chatter_1", "radio__inaudible_chatter_1"),
        ("take-1-2", "take-1-2"),
        ("6-100032-A-0", "6-100032-A-0"),
        ("1-100032-A-0-extra", "1-100032-A-0-extra"),
        ("1__2", "1__2"),
        ("speaker1/1", "speaker1/1"),
    ],
)
def test_recordings_by_name(name: str, recording: str) -> None:
    assert recording_of(name) == (recording if recording.startswith("freesound") else name)


def test_takes_share_their_recording_and_chunks_too(tmp_path: Path) -> None:
    for name in ("rain-5-181766-A", "rain-5-181766-B", "rain-4-1234-A"):
        sound(tmp_path / f"{name}.wav", 2.0)
    dataset = load_dataset(tmp_path, chunk_s=1, chunks="all")
    assert len(dataset.clips) == 6
    assert {c.recording for c in dataset.clips} == {"freesound-181766", "freesound-1234"}
    assert {c.category for c in dataset.clips} == {"rain"}


def test_recording_pattern(tmp_path: Path) -> None:
    for name in ("p1/u_mic1", "p1/u_mic2", "p2/u_mic1", "p2/1-100032-A-0", "rest"):
        sound(tmp_path / f"{name}.wav")
    assert recordings(load_dataset(tmp_path, recording_pattern=r"^(p\d/u)_mic")) == {
        "p1/u_mic1": "p1/u",
        "p1/u_mic2": "p1/u",
        "p2/u_mic1": "p2/u",
        "p2/1-100032-A-0": "p2/1-100032-A-0",
        "rest": "rest",
    }


def test_categories(tmp_path: Path) -> None:
    sound(tmp_path / "set" / "rain" / "deep" / "a.wav")
    sound(tmp_path / "set" / "dog" / "1-100032-A-10.wav")
    sound(tmp_path / "set" / "b.wav")
    sound(tmp_path / "esc" / "audio" / "1-100032-A-10.wav")
    sound(tmp_path / "esc" / "audio" / "1-100032-A-0.wav")
    assert [c.category for c in load_dataset(tmp_path / "set").clips] == [None, "dog", "rain"]
    assert [c.category for c in load_dataset(tmp_path / "esc").clips] == ["dog", "rain"]


def test_limit_draws_recordings_and_is_nested(tmp_path: Path) -> None:
    for number in range(20):
        for take in "AB":
            sound(tmp_path / f"rain-1-{number:03}-{take}.wav", 0.01)
    drawn = {(seed, n): load_dataset(tmp_path, limit=n, seed=seed) for seed in range(3) for n in range(1, 21)}
    for (seed, n), dataset in drawn.items():
        assert len({c.recording for c in dataset.clips}) == n and len(dataset.clips) == 2 * n
        assert ids(dataset) == sorted(ids(dataset))
        assert n == 1 or set(ids(drawn[seed, n - 1])) < set(ids(dataset))
        assert dataset.notes == ([] if n == 20 else [f"{n} of 20 recordings, drawn with seed {seed}"])
    assert len({tuple(ids(drawn[seed, 5])) for seed in range(3)}) == 3
    first = {ids(drawn[seed, 1])[0] for seed in range(3)}
    assert first != {ids(load_dataset(tmp_path))[0]}
    before = set(recordings(drawn[0, 10]).values())
    sound(tmp_path / "rain-1-999-A.wav", 0.01)
    after = set(recordings(load_dataset(tmp_path, limit=10)).values())
    assert len(before - after) <= 1  # one may give way to the newcomer


def test_limit_beyond_the_data_takes_all(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    assert len(load_dataset(tmp_path, limit=99).clips) == 1


# --- manifests ------------------------------------------------------------------------------------------


def manifest(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def test_manifest(tmp_path: Path) -> None:
    a, b = sound(tmp_path / "x" / "a.wav", 9.0), sound(tmp_path / "y" / "b.wav", 3.0)
    digest = hashlib.sha256(b.read_bytes()).hexdigest()
    lists = manifest(
        tmp_path / "list.jsonl",
        "\ufeff" + json.dumps({"path": "x/a.wav", "unknown": [1]}),
        {"path": "x/a.wav", "start_s": 2.5, "duration_s": 4, "recording": "tape", "category": "c"},
        "\r",
        {"path": str(b), "id": "named/b", "duration_s": 3.004, "sha256": digest, "start_s": None},
    )
    dataset = load_dataset(lists)
    assert dataset.name == "list"
    got = [(c.id, c.path, c.start_s, c.duration_s, c.recording, c.category) for c in dataset.clips]
    assert got == [
        ("named/b", b, 0.0, 3.0, "y/b", "y"),
        ("x/a", a, 0.0, 5.0, "x/a", "x"),
        ("x/a@2.5s", a, 2.5, 4.0, "tape", "c"),
    ]
    tiles = load_dataset(lists, chunk_s=2, chunks="all")
    starts = ["", "@2.5s", "@2s", "@4.5s", "@4s", "@6s", "@8s"]
    assert ids(tiles) == ["named/b", "named/b@2s", *(f"x/a{start}" for start in starts)]
    patterned = load_dataset(lists, recording_pattern="^(.)/")
    assert {c.recording for c in patterned.clips} == {"x", "tape", "y"}


def test_manifest_of_files_elsewhere(tmp_path: Path) -> None:
    sound(tmp_path / "data" / "one" / "a.wav")
    sound(tmp_path / "data" / "two" / "b.wav")
    lists = manifest(
        tmp_path / "lists" / "l.jsonl", {"path": "../data/one/a.wav"}, {"path": "../data/two/b.wav"}
    )
    dataset = load_dataset(lists)
    assert ids(dataset) == ["one/a", "two/b"]
    assert [clip.category for clip in dataset.clips] == ["one", "two"]


def test_a_run_s_manifest_gives_the_same_data_again(tmp_path: Path) -> None:
    for name in ("rain/a.wav", "rain/b.flac", "rain-5-181766-A.wav", "a.b/c.wav"):
        sound(tmp_path / "data" / name, 7.0, seed=len(name))
    dataset = load_dataset(tmp_path / "data", chunks="all")
    again = load_dataset(manifest(tmp_path / "run" / "c.jsonl", *(c.to_json() for c in dataset.clips)))
    assert again.clips == dataset.clips and again.hash == dataset.hash


def test_manifest_rows_that_cannot_be_kept_are_failed_clips(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 3.0)
    dataset = load_dataset(
        manifest(
            tmp_path / "l.jsonl",
            {"path": "a.wav", "id": "1", "start_s": 2.9999},
            {"path": "a.wav", "id": "2", "start_s": 3.0},
            {"path": "a.wav", "id": "3", "start_s": 1, "duration_s": 2.5},
            {"path": "gone.wav", "id": "4"},
            {"path": "a.wav", "id": "5", "sha256": "0" * 64},
        )
    )
    errors = [clip.error or "" for clip in dataset.clips]
    assert errors[0] == ""
    assert "starts at 3 s" in errors[1] and "ends at 3.5 s" in errors[2]
    assert "gone.wav" in errors[3] and "is not the file of the manifest" in errors[4]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "empty"),
        (["{"], "line 1 .*not JSON"),
        (["[]"], "line 1 .*no 'path'"),
        (["null"], "line 1 .*no 'path'"),
        ([{"path": "a.wav"}, {"file": "a.wav"}], "line 2 .*no 'path'"),
        ([{"path": 3}], "no 'path'"),
        ([{"path": "a.wav", "start_s": -1}], "'start_s' is -1"),
        ([{"path": "a.wav", "start_s": "1"}], "'start_s' is '1'"),
        ([{"path": "a.wav", "start_s": math.nan}], "'start_s' is nan"),
        ([{"path": "a.wav", "duration_s": 0}], "'duration_s' is 0"),
        ([{"path": "a.wav", "duration_s": True}], "'duration_s' is True"),
        ([{"path": "a.wav", "recording": 7}], "'recording' is 7"),
        ([{"path": "a.wav", "id": "../a"}], "id '../a'"),
        ([{"path": "a.wav", "id": "/a"}], "id '/a'"),
        ([{"path": "a.wav", "id": "."}], "id '.'"),
        ([{"path": "a.wav", "id": "a\nb"}], "id 'a"),
        ([{"path": "a.wav"}, {"path": "a.wav", "duration_s": 0.1}], "two clips have the id 'a'"),
        (["\xff"], "cannot be read"),
    ],
)
def test_bad_manifests(rows: list[dict[str, Any] | str], says: str, tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    path = manifest(tmp_path / "l.jsonl", *rows)
    if rows == ["\xff"]:
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=says) as raised:
        load_dataset(path)
    assert "\n" not in str(raised.value)


# --- real data ------------------------------------------------------------------------------------------


def test_real_folder_and_its_manifest_agree(shared: Callable[[str], Path]) -> None:
    listed = [json.loads(line) for line in shared("audio/valid.jsonl").read_text().splitlines()]
    from_list = load_dataset(shared("audio/valid.jsonl"))
    from_folder = load_dataset(shared("audio/valid"))
    assert len(from_folder.clips) == len(from_list.clips) == len(listed) == 129
    assert [f"valid/{c.id}" for c in from_folder.clips] == [c.id for c in from_list.clips]
    stated = {row["path"]: row for row in listed}
    for one, other in zip(from_folder.clips, from_list.clips, strict=True):
        row = stated[str(one.path.relative_to(shared("audio").resolve()))]
        assert (one.content_hash, one.duration_s) == (other.content_hash, other.duration_s)
        assert one.category == other.category == row["source"]
        assert (one.sample_rate, one.channels) == (row["sample_rate"], row["channels"])
        assert one.duration_s == pytest.approx(min(5.0, row["duration_s"]), abs=1e-4)


def test_no_recording_of_the_real_training_data_is_in_its_validation_data(
    shared: Callable[[str], Path],
) -> None:
    # The data's own description promises it; wrong grouping of takes would show here.
    valid, train = load_dataset(shared("audio/valid")), load_dataset(shared("audio/train"))
    assert not {c.recording for c in valid.clips} & {c.recording for c in train.clips}
    takes = [c for c in valid.clips if "esc10/" in c.id]
    assert (len(takes), len({c.recording for c in takes})) == (80, 57)
    rng = random.Random(0)
    one, other = rng.sample(takes, 2)
    assert (one.recording == other.recording) == (one.id.split("-")[2] == other.id.split("-")[2])
