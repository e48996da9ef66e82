"""What is listed for training: folders, manifests, WavCaps, AudioCaps' clips left out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qincodec.core.errors import UserError
from qincodec.training.sources import list_source, recording_of


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def names(root: Path, audiocaps: Path | None = None) -> list[str]:
    return [candidate.path for candidate in list_source(root, audiocaps).candidates]


def wavcaps(root: Path) -> Path:
    ids: dict[str, list[str | int]] = {
        "AudioSet_SL/as_final.json": ["Yb0RFKhbpFJA.wav", "Y7fmOlUlwoNg.wav", "Y-0123456789.wav"],
        "BBC_Sound_Effects/bbc_final.json": ["NHU05093027"],
        "FreeSound/fsd_final.json": [180913, "575"],
        "SoundBible/sb_final.json": ["2219"],
    }
    for name, part in ids.items():
        path = root / "json_files" / name
        path.parent.mkdir(parents=True)
        rows = [{"id": i, "caption": "A sound.", "duration": 10.0} for i in part]
        path.write_text(json.dumps({"num_captions_per_audio": 1, "data": rows}))
    touch(root, "json_files/blacklist/blacklist_exclude_all_ac.json")
    # Unpacked as the archives have it, and by hand.
    deep = "mnt/data/waveforms/AudioSet_SL_flac"
    touch(root, f"{deep}/Yb0RFKhbpFJA.flac", f"{deep}/Y7fmOlUlwoNg.flac", f"{deep}/Y-0123456789.flac")
    touch(root, "BBC_Sound_Effects/NHU05093027.flac", "FreeSound_flac/180913.flac", "FreeSound_flac/999.flac")
    touch(root, "other/2219.flac", "copy/FreeSound/180913.flac")
    return root


def audiocaps(folder: Path, **lists: list[str]) -> Path:
    folder.mkdir()
    for name, ids in lists.items():
        rows = "".join(f"{number},{i},20,A caption.\n" for number, i in enumerate(ids))
        (folder / f"{name}.csv").write_text(f"audiocap_id,youtube_id,start_time,caption\n{rows}")
    return folder


def test_a_folder_gives_its_audio_sorted_by_bytes(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.wav", "b/10.FLAC", "a.ogg", "é.mp3", "c.txt", ".hidden.wav", ".git/x.wav", "x.npy")
    assert names(tmp_path) == ["a.ogg", "b/10.FLAC", "b/2.wav", "é.mp3"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / "data", "a.wav")
    touch(tmp_path / "elsewhere", "b.wav")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "self").symlink_to("self")
    (tmp_path / "data" / "gone.wav").symlink_to("nothing")
    assert names(tmp_path / "data") == ["a.wav", "gone.wav", "linked/b.wav"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9 \n.wav")).write_bytes(b"x")
    assert [os.fsencode(name) for name in names(tmp_path)] == [b"caf\xe9 \n.wav"]


def test_a_manifest_gives_paths_and_recordings(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.wav", "out/b.wav")
    lines = ['{"path": "a.wav", "duration_s": 3}', "", '{"path": "./a.wav", "recording": "r"}']
    lines.append(json.dumps({"path": str(tmp_path / "out" / "b.wav"), "recording": "r"}))
    (tmp_path / "in" / "list.jsonl").write_text("﻿" + "\n".join(lines))
    listing = list_source(tmp_path / "in" / "list.jsonl")
    assert [(c.path, c.recording) for c in listing.candidates] == [
        (str(tmp_path / "out" / "b.wav"), "r"),
        ("a.wav", "r"),
    ]
    assert listing.excluded == {"named twice in the manifest": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 of manifest .* is not JSON"),
        ("[1]", "line 2 of manifest .* has no 'path'"),
        ('{"path": ""}', "has no 'path'"),
        ('{"path": 3}', "has no 'path'"),
        ('{"path": "."}', "not a possible file name"),
        ('{"path": "a/../.."}', "not a possible file name"),
        ('{"path": "/"}', "not a possible file name"),
        ('{"path": "a\\u0000.wav"}', "not a possible file name"),
        ('{"path": "a\\ud800.wav"}', "not a possible file name"),
        ('{"path": "a.wav", "recording": 3}', "'recording' is 3"),
        ('{"path": "a.wav", "start_s": 2.5}', "training takes whole files"),
    ],
)
def test_bad_lines_of_a_manifest_are_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "list.jsonl").write_text(f'{{"path": "x.wav"}}\n{line}\n')
    with pytest.raises(UserError, match=message) as caught:
        list_source(tmp_path / "list.jsonl")
    assert "\n" not in str(caught.value)


def test_sources_that_are_none(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "empty/b.txt", "bad.jsonl")
    (tmp_path / "bad.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.jsonl").write_text("\n")
    for name, message in [
        ("missing", "no such training data"),
        ("a.txt", "not a source of training audio"),
        ("empty", "no audio to train on"),
        ("empty.jsonl", "no audio to train on"),
        ("bad.jsonl", "cannot be read"),
    ]:
        with pytest.raises(UserError, match=message):
            list_source(tmp_path / name)


@pytest.mark.parametrize(
    ("path", "recording"),
    [
        ("esc/1-100032-A-0.wav", "freesound-100032"),
        ("esc/rain-5-181766-B.ogg", "freesound-181766"),
        ("speech/181766__someone__a-title.flac", "freesound-181766"),
        ("effects/hurt__hurt_1.ogg", "effects/hurt__hurt"),
        ("effects/hurt__hurt_2.ogg", "effects/hurt__hurt"),
        ("beats/beat_a.flac", "beats/beat"),
        ("music/track_001.mp3", "music/track_001"),
        ("music/12345.flac", "music/12345"),
    ],
)
def test_recordings_by_name(path: str, recording: str) -> None:
    assert recording_of(path) == recording


def test_no_recording_of_the_validation_files_is_one_of_training(shared: Callable[[str], Path]) -> None:
    """The two sets are known to share none: the rule must not find any."""
    lists = {name: list_source(shared(f"audio/{name}.jsonl")) for name in ("train", "valid")}
    freesound = [
        {c.recording for c in listing.candidates if c.recording.startswith("freesound-")}
        for listing in lists.values()
    ]
    assert len(freesound[0]) > 100 and len(freesound[1]) > 20
    assert not freesound[0] & freesound[1]


def test_wavcaps_is_recognised(tmp_path: Path) -> None:
    listing = list_source(wavcaps(tmp_path))
    assert listing.kind == "wavcaps"
    deep = "mnt/data/waveforms/AudioSet_SL_flac"
    assert {c.recording: c.path for c in listing.candidates if "180913" not in c.path} == {
        "BBC_Sound_Effects/NHU05093027": "BBC_Sound_Effects/NHU05093027.flac",
        "AudioSet_SL/Yb0RFKhbpFJA": f"{deep}/Yb0RFKhbpFJA.flac",
        "AudioSet_SL/Y7fmOlUlwoNg": f"{deep}/Y7fmOlUlwoNg.flac",
        "AudioSet_SL/Y-0123456789": f"{deep}/Y-0123456789.flac",
    }
    assert len(listing.candidates) == 5
    assert listing.excluded == {"not in WavCaps' lists": 2, "a second file of an id of WavCaps": 1}
    assert "WavCaps FreeSound: 1 of the 2 listed files are there" in listing.notes
    assert "WavCaps SoundBible: 0 of the 1 listed files are there" in listing.notes
    assert any("--exclude-audiocaps" in note for note in listing.notes)


def test_which_of_two_copies_counts_does_not_depend_on_the_folder_order(tmp_path: Path) -> None:
    found = names(wavcaps(tmp_path))
    assert [name for name in found if "180913" in name] == ["FreeSound_flac/180913.flac"]


def test_audiocaps_is_left_out_of_wavcaps(tmp_path: Path) -> None:
    lists = audiocaps(tmp_path / "ac", train=["b0RFKhbpFJA"], val=["-0123456789"], test=["7fmOlUlwoNg"])
    listing = list_source(wavcaps(tmp_path / "wc"), lists)
    assert not any("AudioSet" in candidate.path for candidate in listing.candidates)
    assert listing.excluded["listed by AudioCaps"] == 3
    assert any("3 videos of test.csv, train.csv, val.csv" in note for note in listing.notes)
    assert not any("not left out" in note for note in listing.notes)


def test_missing_lists_of_audiocaps_are_reported(tmp_path: Path) -> None:
    lists = audiocaps(tmp_path / "ac", test=["7fmOlUlwoNg"])
    listing = list_source(wavcaps(tmp_path / "wc"), lists / "test.csv")
    assert listing.excluded["listed by AudioCaps"] == 1
    assert any("train and val lists are not given" in note for note in listing.notes)


def test_audiocaps_is_left_out_of_any_source(tmp_path: Path) -> None:
    lists = audiocaps(tmp_path / "ac", test=["7fmOlUlwoNg", "Y_23456789a", "abcdefgh_30"])
    touch(
        tmp_path / "d", "7fmOlUlwoNg.wav", "7fmOlUlwoNg_20.wav", "Y7fmOlUlwoNg_20.0.wav", "YY_23456789a.wav"
    )
    touch(
        tmp_path / "d",
        "abcdefgh_30.wav",
        "Yabcdefgh_30_10.wav",
        "7fmOlUlwoNg_20_louder.wav",
        "hjklmnopqrs.wav",
    )
    assert names(tmp_path / "d", lists) == ["7fmOlUlwoNg_20_louder.wav", "hjklmnopqrs.wav"]


def test_the_real_test_lists_of_audiocaps(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    folder = shared("audiocaps")
    touch(tmp_path, "Y7fmOlUlwoNg.flac", "Y6BJ455B1aAs.flac", "Yxxxxxxxxxxx.flac")
    assert names(tmp_path, folder) == ["Yxxxxxxxxxxx.flac"]


def test_lists_that_are_none_of_audiocaps(tmp_path: Path) -> None:
    touch(tmp_path / "d", "a.wav")
    (tmp_path / "no").mkdir()
    for text, message in [
        ("id,caption\n1,x\n", "no column youtube_id"),
        (
            "audiocap_id,youtube_id,start_time,caption\n1,#NAME?,2,x\n",
            "line 2 .*'#NAME\\?' is not a YouTube id",
        ),
        ("", "no column youtube_id"),
    ]:
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(UserError, match=message):
            list_source(tmp_path / "d", tmp_path / "l.csv")
    for missing in ("no", "nowhere.csv"):
        with pytest.raises(UserError, match="no lists of AudioCaps"):
            list_source(tmp_path / "d", tmp_path / missing)


@pytest.mark.parametrize("text", ["", "[]", '{"data": [{"caption": "x"}]}', '{"data": 3}', '{"data": ["a"]}'])
def test_bad_lists_of_wavcaps(tmp_path: Path, text: str) -> None:
    wavcaps(tmp_path)
    (tmp_path / "json_files" / "FreeSound" / "fsd_final.json").write_text(text)
    with pytest.raises(UserError, match=r"fsd_final.json' is not a list of WavCaps") as caught:
        list_source(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_json_files_without_lists(tmp_path: Path) -> None:
    touch(tmp_path, "json_files/readme.txt", "a.wav")
    with pytest.raises(UserError, match="none of WavCaps' lists"):
        list_source(tmp_path)
