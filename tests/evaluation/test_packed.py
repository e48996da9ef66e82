"""Audio in tars and in data sets of the library `datasets`: the clips of a folder of the same files."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from evaluation.datasets import load_dataset
from evaluation.datasets.base import Clip
from qincodec import audio
from qincodec.core.errors import UserError


def sound(seed: int) -> bytes:
    data = io.BytesIO()
    soundfile.write(data, np.random.default_rng(seed).uniform(-0.5, 0.5, 4410), 44100, format="FLAC")
    return data.getvalue()


SOUNDS = {"dog/1": sound(1), "dog/2": sound(2), "cat/3": sound(3)}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))


def pack(tar: Path, files: dict[str, bytes]) -> Path:
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return tar


def said(clips: list[Clip]) -> list[tuple[Any, ...]]:
    return [(c.id, c.content_hash, c.duration_s, c.recording, c.category) for c in clips]


def test_a_tar_is_its_files(tmp_path: Path) -> None:
    files = {f"./{key}.flac": content for key, content in SOUNDS.items()}
    tar = pack(tmp_path / "set.tar", files | {"dog/1.txt": b"a dog", "dog/.hidden.flac": b""})
    for key, content in SOUNDS.items():
        path = tmp_path / "set" / f"{key}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    packed, plain = load_dataset(tar), load_dataset(tmp_path / "set")
    assert said(packed.clips) == said(plain.clips) and packed.hash == plain.hash
    for one, other in zip(packed.clips, plain.clips, strict=True):
        np.testing.assert_array_equal(audio.read(one.path)[0], audio.read(other.path)[0])
    # Only what is drawn is unpacked, and a tar that has changed is another one.
    (tmp_path / "cache").rename(tmp_path / "old")
    assert len(load_dataset(tar, limit=1).clips) == 1
    assert len([path for path in (tmp_path / "cache" / "tars").rglob("*") if path.is_file()]) == 1
    pack(tar, {"dog/1.flac": SOUNDS["cat/3"]})
    assert [clip.content_hash for clip in load_dataset(tar).clips] == [plain.clips[0].content_hash]


def test_shards_and_what_their_json_says(tmp_path: Path) -> None:
    about = json.dumps({"category": "animal", "recording": "tape", "text": "a dog"}).encode()
    for number in range(2):
        key = f"{number}-a"
        pack(tmp_path / f"s-{number}.tar", {f"{key}.flac": sound(number), f"{key}.json": about})
    for data in (tmp_path, f"{tmp_path}/s-*.tar"):
        clips = load_dataset(data).clips
        assert [clip.id for clip in clips] == ["s-0/0-a", "s-1/1-a"]
        assert {(clip.recording, clip.category) for clip in clips} == {("tape", "animal")}


def test_names_that_no_file_could_have(tmp_path: Path) -> None:
    animal, deaf = (
        json.dumps({"category": "animal"}).encode(),
        b'{"category": "\\ud800", "recording": "\\udfff"}',
    )
    names = ("a\nb", "c\udcff", "d", "d.flac/e", "x" * 300, "1.left", "1.right")
    files = {f"{name}.flac": sound(number) for number, name in enumerate(names)}
    tar = pack(tmp_path / "t.tar", files | {"1.json": animal, "d.json": deaf, "d.wav": sound(9)})
    clips = {clip.id: clip for clip in load_dataset(tar).clips}
    ids = ["a%0Ab", "c%FF", "d.flac", "d.flac/e", f"{'x' * 40}-000004", "1.left", "1.right"]
    assert clips.keys() == {*ids, "d.wav"} and not any(clip.error for clip in clips.values())
    assert [clips[name].path.read_bytes() for name in ids] == list(files.values())
    assert {name for name in clips if clips[name].category == "animal"} == {"1.left", "1.right"}
    assert (clips["d.flac"].recording, clips["d.flac"].category) == ("d.flac", None)


def test_tars_that_are_refused(tmp_path: Path) -> None:
    good = pack(tmp_path / "good.tar", {"a.flac": SOUNDS["dog/1"]}).read_bytes()
    for name, content, why in (
        ("zipped", gzip.compress(good), "whole tar that is not compressed"),
        ("cut", good[:700], "whole tar that is not compressed"),
        ("text", pack(tmp_path / "t", {"a.txt": b"x"}).read_bytes(), "no audio in 1 tar files"),
        ("out", pack(tmp_path / "o", {"../a.flac": SOUNDS["dog/1"]}).read_bytes(), "names a file outside"),
        (
            "json",
            pack(tmp_path / "j", {"a.flac": SOUNDS["dog/1"], "a.json": b"{"}).read_bytes(),
            "is not JSON",
        ),
        (
            "deep",
            pack(tmp_path / "d", {"a.flac": SOUNDS["dog/1"], "a.json": b"[" * 100000}).read_bytes(),
            "is not JSON: it is nested too deeply",
        ),
    ):
        tar = tmp_path / f"{name}.tar"
        tar.write_bytes(content)
        with pytest.raises(UserError, match=why):
            load_dataset(tar)


def test_a_data_set_of_the_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    rows = {
        "audio": [{"bytes": content, "path": "x.flac"} for content in SOUNDS.values()],
        "label": [0, 0, 1],
        "youtube_id": ["v1", "v2", "-3"],
        "text": ["a", "b", "c"],
    }
    kinds = {
        "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
        "label": datasets.ClassLabel(names=["dog", "cat"]),
        "youtube_id": datasets.Value("string"),
        "text": datasets.Value("string"),
    }
    # As a column of audio, the library would encode it with torchcodec; it stores the same.
    written = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    written = written.cast_column("audio", datasets.Audio())
    both = datasets.DatasetDict({"train": written, "test": written.select([2])})
    both.save_to_disk(str(tmp_path / "disk"))
    (tmp_path / "parquet" / "data").mkdir(parents=True)
    written.to_parquet(str(tmp_path / "parquet" / "data" / "train-00000-of-00001.parquet"))

    whole = load_dataset(f"hf:{tmp_path / 'disk'}:train")
    assert [(c.id, c.recording, c.category) for c in whole.clips] == [
        ("000000", "v1", "dog"),
        ("000001", "v2", "dog"),
        ("000002", "-3", "cat"),
    ]
    assert [clip.path.read_bytes() for clip in whole.clips] == list(SOUNDS.values())
    assert whole.name == "disk-train" and not any(clip.error for clip in whole.clips)
    assert said(load_dataset(f"hf:{tmp_path / 'parquet'}").clips) == said(whole.clips)
    (one,) = load_dataset(f"hf:{tmp_path / 'disk'}:test").clips
    assert one.path.read_bytes() == SOUNDS["cat/3"]
    for data, why in (
        (f"hf:{tmp_path / 'disk'}", "has splits train, test; give one"),
        (f"hf:{tmp_path / 'disk'}@all:test", "has no configurations; leave out @all"),
        (f"hf:{tmp_path / 'disk'}:dev", "has no split 'dev'; it has train, test"),
        ("hf:", "give hf:NAME"),
        (f"hf:{tmp_path / 'nowhere'}", "cannot be loaded"),
    ):
        with pytest.raises(UserError, match=why):
            load_dataset(data)


def test_plain_parquet_and_ids_that_no_file_could_have(tmp_path: Path) -> None:
    """Written without the library, of whose types the files say nothing then."""
    pytest.importorskip("datasets", reason="the extra hf is not installed")
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    sounds = [{"bytes": content, "path": "x.flac"} for content in SOUNDS.values()]
    ids = ["語" * 67, "語" * 66, "a"]
    for name, columns in {
        "whole": {"image": sounds[::-1], "audio": sounds, "id": ids, "text": ids},
        "bare": {"audio": [{"bytes": content} for content in SOUNDS.values()], "id": ids},
        "none": {"text": ids, "audio": [{"array": [0.5], "path": "x"}] * 3},
    }.items():
        (tmp_path / name).mkdir()
        pq.write_table(pa.table(columns), tmp_path / name / "train.parquet")
    for name in ("whole", "bare"):
        clips = load_dataset(f"hf:{tmp_path / name}").clips
        assert [clip.id for clip in clips] == ["000000", "a", "語" * 66]
        assert [clip.path.read_bytes() for clip in clips] == [SOUNDS[n] for n in ("dog/1", "cat/3", "dog/2")]
    with pytest.raises(UserError, match=r"among text \(string\), audio \(struct of array, path\); it needs"):
        load_dataset(f"hf:{tmp_path / 'none'}")


def test_ids_that_are_there_twice_give_way_to_numbers(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    kinds = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    for ids, shown in ((["a", "a"], ["000000", "000001"]), (["a", None], ["000001", "a"])):
        rows = {"audio": [{"bytes": SOUNDS[f"dog/{n}"], "path": "x.flac"} for n in (1, 2)], "id": ids}
        features = datasets.Features({"audio": kinds, "id": datasets.Value("string")})
        written = datasets.Dataset.from_dict(rows, features=features).cast_column("audio", datasets.Audio())
        written.save_to_disk(str(tmp_path / shown[1]))
        assert [clip.id for clip in load_dataset(f"hf:{tmp_path / shown[1]}").clips] == shown


def parquet(folder: Path, **columns: Any) -> str:
    pytest.importorskip("datasets", reason="the extra hf is not installed")
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "train.parquet")
    return f"hf:{folder}"


def files(*contents: bytes) -> list[dict[str, Any]]:
    return [{"bytes": content, "path": None} for content in contents]


def test_the_column_that_holds_audio(tmp_path: Path) -> None:
    one, two = SOUNDS["dog/1"], SOUNDS["dog/2"]
    images = files(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0JFIF")
    # The first row is empty, and so says nothing.
    mixed = load_dataset(parquet(tmp_path / "mixed", image=images, sound=files(b"", two)))
    assert mixed.clips[1].path.read_bytes() == two and not mixed.clips[1].error
    assert mixed.notes == ["the audio is column 'sound', of 2"]
    both = load_dataset(parquet(tmp_path / "both", target=files(one), audio=files(two)))
    assert [clip.path.read_bytes() for clip in both.clips] == [two]
    assert both.notes == ["the audio is column 'audio', of 2 with audio: 'target', 'audio'"]
    for name, columns, why in (
        (
            "none",
            {"image": images, "photo": images},
            "column 'image', of 2; no known audio file is at the beginning of 'image', 'photo'",
        ),
        ("cut", {"image": images, "sound": files(one[:50], b"")}, r"the audio is column 'sound', of 2$"),
    ):
        with pytest.raises(UserError, match=f"none of the 2 clips .*{why}"):
            load_dataset(parquet(tmp_path / name, **columns))


def test_rows_without_audio_say_why(tmp_path: Path) -> None:
    rows = [{"bytes": None, "path": None}, {"bytes": None, "path": "/nope/x.wav"}, None]
    data = parquet(tmp_path / "rows", audio=files(SOUNDS["dog/1"]) + rows)
    empty = "has no audio in column 'audio'"
    reasons = [None, f"row 1 {empty}", f"row 2 {empty}: '/nope/x.wav' is missing", f"row 3 {empty}"]
    assert [clip.error for clip in load_dataset(data).clips] == reasons


def test_data_without_rows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    parquet(tmp_path / "group", audio=pa.array([], kind))
    (tmp_path / "bare").mkdir()
    pq.ParquetWriter(tmp_path / "bare" / "train.parquet", pa.schema([("audio", kind)])).close()
    datasets.Dataset.from_dict({"audio": []}).save_to_disk(str(tmp_path / "disk"))
    for name in ("group", "bare", "disk"):
        with pytest.raises(UserError, match=f"{name}' has no rows"):
            load_dataset(f"hf:{tmp_path / name}")


@pytest.mark.parametrize(
    ("ids", "shown", "counts"),
    [
        # Marks: a Latin letter in two forms, Devanagari and Thai. Composed, é is one letter.
        (["e\u0301", "हिन्दी", "ที่", "b"], ["é", "हिन्दी", "ที่", "b"], []),
        (["\u00e9", "e\u0301", "\u212b", "b"], ["\u00e9", "000001", "\u212b", "b"], [1]),
        (["a/b", "../x", "a\nb", "b"], ["000000", "000001", "000002", "b"], [3]),
        (["a", "a", "b", None], ["000000", "000001", "b", "000003"], [2]),
        # A given id is the number of a row that has none, and its own number is a given one.
        (["000002", "b", "a/b", "000000"], ["000000", "b", "000002", "000003"], [1, 2]),
    ],
)
def test_only_ids_that_cannot_be_used_give_way(
    tmp_path: Path, ids: list[str | None], shown: list[str], counts: list[int]
) -> None:
    contents = [sound(number) for number in range(4)]
    found = load_dataset(parquet(tmp_path / "ids", audio=files(*contents), id=ids))
    assert {clip.id: clip.path.read_bytes() for clip in found.clips} == dict(
        zip(shown, contents, strict=True)
    )
    assert [int(note.split(" row")[0]) for note in found.notes] == counts


def test_any_text_is_a_category_or_recording(tmp_path: Path) -> None:
    contents = files(*(sound(number) for number in range(4)))
    words = ["rock, pop", "a/b", "e\u0301\n", " "]
    data = parquet(tmp_path / "words", audio=contents, category=words, speaker_id=words)
    found = [(clip.category, clip.recording) for clip in load_dataset(data).clips]
    assert found == [("rock, pop",) * 2, ("a/b",) * 2, ("é%0A",) * 2, (None, "000003")]
    lists = load_dataset(parquet(tmp_path / "lists", audio=contents, category=[["a", "b"]] * 3 + [None]))
    assert not any(clip.category for clip in lists.clips)
    assert lists.notes == ["3 rows with a category that is not text: ['a', 'b']; left out"]


def test_an_import_that_the_library_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")

    def fails(*_: object) -> None:
        raise RuntimeError("building failed") from ModuleNotFoundError("No module named 'torchcodec'")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    with pytest.raises(UserError, match="in Parquet or Arrow, not folders of audio or tars"):
        load_dataset(f"hf:{tmp_path}")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'qincodec\[hf\]'"):
        load_dataset("hf:somebody/something:test")
