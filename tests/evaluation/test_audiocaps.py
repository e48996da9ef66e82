"""AudioCaps' list with folders of audio as people have them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from data_sets import ids, sound

from evaluation.datasets import load_dataset
from qincodec.core.errors import UserError

ROWS = [
    (11, "-abc_DEF-00", 30, "A dog barks"),
    (12, "-abc_DEF-00", 30, 'Barking, "loud"'),
    (21, "_x-YZ012345", 0, "Rain"),
    (22, "_x-YZ012345", 0, "It rains"),
    (31, "7fmOlUlwoNg", 20, "Rattling"),
]
CLIPS = ["-abc_DEF-00_30", "7fmOlUlwoNg_20", "_x-YZ012345_0"]


pytestmark = pytest.mark.usefixtures("own_cache")


def table(path: Path, rows: list[tuple[int, str, int, str]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("audiocap_id", "youtube_id", "start_time", "caption"), *rows])
    return path


def folder(root: Path, *names: str, rate: int = 44100) -> str:
    for seed, name in enumerate(names):
        sound(root / name, 0.01, rate, seed=seed)
    return f"audiocaps:{root}"


@pytest.mark.parametrize(
    "names",
    [
        ["-abc_DEF-00_30.wav", "_x-YZ012345_0.wav", "7fmOlUlwoNg_20.wav"],
        ["-abc_DEF-00.flac", "_x-YZ012345.flac", "7fmOlUlwoNg.flac"],
        ["Y-abc_DEF-00.wav", "Y_x-YZ012345.wav", "Y7fmOlUlwoNg.wav"],
        ["12.wav", "21.wav", "31.wav"],  # by any of a clip's captions
        ["deep/er/12.WAV", "Y_x-YZ012345.wav", "7fmOlUlwoNg_20.wav"],
    ],
)
def test_every_way_of_naming_the_files(names: list[str], tmp_path: Path) -> None:
    table(tmp_path / "test.csv")
    data = folder(tmp_path / "audio", *names, "unrelated.wav")
    dataset = load_dataset(data)
    assert ids(dataset) == CLIPS and dataset.excluded == []
    assert [clip.recording for clip in dataset.clips] == ["-abc_DEF-00", "7fmOlUlwoNg", "_x-YZ012345"]
    assert dataset.name == "audiocaps-test"
    assert dataset.notes == ["3 of the 3 clips of test.csv have audio"]


def test_missing_clips_are_listed(tmp_path: Path) -> None:
    table(tmp_path / "test.csv")
    dataset = load_dataset(folder(tmp_path, "7fmOlUlwoNg_20.wav"))
    assert ids(dataset) == ["7fmOlUlwoNg_20"]
    assert dataset.excluded == [("-abc_DEF-00_30", "no audio file"), ("_x-YZ012345_0", "no audio file")]
    assert dataset.notes == ["1 of the 3 clips of test.csv have audio"]


def test_several_files_of_a_clip(tmp_path: Path) -> None:
    table(tmp_path / "test.csv")
    dataset = load_dataset(folder(tmp_path, "b/31.wav", "a/31.wav", "Y7fmOlUlwoNg.wav", "7fmOlUlwoNg.flac"))
    assert [clip.path for clip in dataset.clips] == [tmp_path / "a" / "31.wav"]
    assert dataset.notes[1].startswith("3 more files of these clips are not used")


def test_names_are_case_sensitive_as_youtube_ids_are(tmp_path: Path) -> None:
    table(tmp_path / "test.csv", [(1, "aaaaaaaaaaa", 0, ""), (2, "AAAAAAAAAAA", 0, "")])
    dataset = load_dataset(folder(tmp_path, "aaaaaaaaaaa.wav", "Yaaaaaaaaaaa.wav"))
    assert ids(dataset) == ["aaaaaaaaaaa_0"]


def test_where_the_list_is_looked_for(tmp_path: Path) -> None:
    data = folder(tmp_path / "audio", "7fmOlUlwoNg_20.wav", "_x-YZ012345_0.wav")
    with pytest.raises(UserError, match=r"neither in .*github.com/cdjkim/audiocaps.*--audiocaps-list"):
        load_dataset(data)
    given = table(tmp_path / "lists" / "mine.csv", ROWS[-1:])
    assert load_dataset(data, audiocaps_list=given).name == "audiocaps-mine"
    table(tmp_path / "test-2.0.csv")
    assert load_dataset(data).name == "audiocaps-test-2.0"
    table(tmp_path / "audio" / "test.csv", ROWS[-1:])
    assert ids(load_dataset(data)) == ["7fmOlUlwoNg_20"]
    assert ids(load_dataset(data, audiocaps_list=str(given))) == ["7fmOlUlwoNg_20"]


@pytest.mark.parametrize("rate", [16000, 32000])
def test_resampled_copies_are_refused(rate: int, tmp_path: Path) -> None:
    table(tmp_path / "test.csv")
    data = folder(tmp_path, *(f"{name}.wav" for name in CLIPS), rate=rate)
    with pytest.raises(UserError, match=rf"^3 of 3 files are below 44100 Hz \(lowest {rate} Hz\).*allow"):
        load_dataset(data)
    allowed = load_dataset(data, allow_resampled=True)
    assert ids(allowed) == CLIPS and all(clip.error is None for clip in allowed.clips)
    assert "allowed on request" in allowed.notes[-1]
    assert all(clip.error is None for clip in load_dataset(data, sample_rate=rate).clips)
    sound(tmp_path / f"{CLIPS[0]}.wav", 0.01, 48000)
    sound(tmp_path / f"{CLIPS[1]}.wav", 0.01)
    mixed = load_dataset(data)
    assert [clip.error is None for clip in mixed.clips] == [True, True, False]
    assert f"resampled copy ({rate} Hz" in (mixed.clips[2].error or "")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no column audiocap_id, youtube_id, start_time among none"),
        ("id,caption\n1,x\n", "no column audiocap_id, youtube_id, start_time among id, caption"),
        ("audiocap_id,youtube_id,start_time,caption\n", "no rows"),
        ("audiocap_id,youtube_id,start_time\n1,#NAME?,30\n", "line 2 .*'#NAME\\?' at '30'"),
        ("audiocap_id,youtube_id,start_time\n1,abc,half\n", "line 2 .*'abc' at 'half'"),
        ("audiocap_id,youtube_id,start_time\n1,../../x,30\n", "line 2 "),
        ("audiocap_id,youtube_id,start_time\n1\n", "line 2 "),
        ("audiocap_id,youtube_id,start_time\n1,nowhere,3\n", "none of the 1 clips .* 'a.wav'.*must be"),
        ("\0\0", "no column|cannot be read"),
        (b"\xff\xfe\0", "cannot be read"),
    ],
)
def test_bad_lists(content: str | bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=says) as raised:
        load_dataset(folder(tmp_path, "a.wav"))
    assert "\n" not in str(raised.value)


def test_a_list_saved_by_a_spreadsheet(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_bytes(
        "\ufeffaudiocap_id,youtube_id,start_time,caption\r\n1,7fmOlUlwoNg,20.0,x\r\n".encode()
    )
    assert ids(load_dataset(folder(tmp_path, "7fmOlUlwoNg_20.wav"))) == ["7fmOlUlwoNg_20"]


def test_other_rubbish(tmp_path: Path) -> None:
    table(tmp_path / "test.csv")
    with pytest.raises(UserError, match="no such folder"):
        load_dataset(f"audiocaps:{tmp_path}/none")
    with pytest.raises(UserError, match="no such list"):
        load_dataset(f"audiocaps:{tmp_path}", audiocaps_list=tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"no audio found .*\.csv \(1\)"):
        load_dataset(f"audiocaps:{tmp_path}")
    sound(tmp_path / "7fmOlUlwoNg.wav")
    with pytest.raises(UserError, match="recording pattern"):
        load_dataset(f"audiocaps:{tmp_path}", recording_pattern="(.*)")


# --- the real list --------------------------------------------------------------------------------------


def real_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("version", ["test.csv", "test-2.0.csv"])
@pytest.mark.parametrize(
    "style", ["{youtube_id}_{start_time}", "{audiocap_id}", "{youtube_id}", "Y{youtube_id}"]
)
def test_the_real_list(style: str, version: str, tmp_path: Path, shared: Callable[[str], Path]) -> None:
    path = shared(f"audiocaps/{version}")
    rows = real_rows(path)
    content = sound(tmp_path / "x.wav", 0.01).read_bytes()
    (tmp_path / "audio").mkdir()
    for stem in {style.format(**row) for row in rows}:  # of captions, all five: a plain loop saves each
        (tmp_path / "audio" / f"{stem}.wav").write_bytes(content)
    dataset = load_dataset(f"audiocaps:{tmp_path}/audio", audiocaps_list=path)
    assert len(dataset.clips) == 975 and dataset.excluded == []
    assert ids(dataset) == sorted({f"{row['youtube_id']}_{row['start_time']}" for row in rows})
    assert sum(clip.id.startswith("-") for clip in dataset.clips) == 19
    assert {clip.content_hash for clip in dataset.clips} == {hashlib.sha256(content).hexdigest()[:16]}
    gone = rows[0]["youtube_id"]
    for stem in {style.format(**row) for row in rows if row["youtube_id"] == gone}:
        (tmp_path / "audio" / f"{stem}.wav").unlink()
    dataset = load_dataset(f"audiocaps:{tmp_path}/audio", audiocaps_list=path)
    assert len(dataset.clips) == 974
    assert dataset.excluded == [(f"{gone}_{rows[0]['start_time']}", "no audio file")]


def test_both_versions_of_the_list_are_the_same_data(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    data = folder(tmp_path, "Y7fmOlUlwoNg.wav")
    old, new = (load_dataset(data, audiocaps_list=shared(f"audiocaps/test{v}.csv")) for v in ("", "-2.0"))
    assert old.hash == new.hash and len(old.excluded) == len(new.excluded) == 974
    assert (old.name, new.name) == ("audiocaps-test", "audiocaps-test-2.0")
