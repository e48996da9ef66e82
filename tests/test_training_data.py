"""What is fetched to train weights on: packages made here, no network."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import attribution
import numpy as np
import packages
import pytest
import scores
import soundfile as sf
import training_data
from packages import DataError, Package, Stanza
from training_data import Pick, Source

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Source: https://example.org/game

Files: *
Copyright: 2020, The Game
License: GPL-2+

Files: data/*.wav
Copyright: © 2019 Ann Free <ann@example.org>
           2018 Bob Free
License: GPL-3 or CC-BY-3.0

Files: data/cello solo.wav
Copyright: Eve
License: CC-BY-SA-3.0

Files: data/horn.wav
Copyright: Carl
License: CC0-1.0

License: CC0-1.0
 The text of it.
"""


def wav(rate: int = 44100, channels: int = 1) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (rate // 2, channels))
    sf.write(stream, noise, rate, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def tgz(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def package(out: Path, registry: str, file: str, content: bytes) -> Package:
    """One that lies where a fetch would leave it."""
    (out / "packages").mkdir(exist_ok=True)
    (out / "packages" / file).write_bytes(content)
    return Package(registry, file.partition("_")[0], "1", file, hashlib.sha256(content).hexdigest())


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    speech = Source(
        "speech",
        "speech",
        package(
            tmp_path,
            "pypi",
            "voices_1.tar.gz",
            tgz({"v-1/LJ1.wav": wav(22050), "v-1/low.wav": wav(16000), "v-1/a.txt": b""}),
        ),
        (Pick("*.wav", "Linda", "public domain", "https://example.org/lj"),),
    )
    found = [speech]
    if shutil.which("dpkg-deb"):
        files = tmp_path / "tree" / "usr/share"
        for name in ("violin", "cello solo", "horn"):
            (files / "game/data").mkdir(parents=True, exist_ok=True)
            (files / f"game/data/{name}.wav").write_bytes(wav(48000, 2))
        (files / "doc/game").mkdir(parents=True)
        (files / "doc/game/copyright").write_text(COPYRIGHT, encoding="utf-8")
        (tmp_path / "tree/DEBIAN").mkdir()
        control = (
            "Package: game\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: b\n"
        )
        (tmp_path / "tree/DEBIAN/control").write_text(control)
        subprocess.run(
            ["dpkg-deb", "-Znone", "-b", str(tmp_path / "tree"), str(tmp_path / "game.deb")],
            check=True,
            capture_output=True,
        )
        game = package(tmp_path, "debian", "game_1_all.deb", (tmp_path / "game.deb").read_bytes())
        found.append(Source("game", "effects", game, held_out=("Carl",)))
    monkeypatch.setattr(training_data, "SOURCES", tuple(found))
    return tmp_path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_manifests_name_author_licence_and_package_of_each_file(sources: Path) -> None:
    only = [argument for source in training_data.SOURCES for argument in ("--only", source.name)]
    training_data.main([str(sources), *only])
    train, held_out = lines(sources / "train.jsonl"), lines(sources / "held_out.jsonl")
    assert train[0] == {
        "path": "audio/speech/v-1__LJ1.flac",
        "source": "speech: Linda",
        "sample_rate": 22050,
        "channels": 1,
        "duration_s": 0.5,
        "kind": "speech",
        "licence": "public domain",
        "author": "Linda",
        "url": "https://example.org/lj",
        "package": "pypi: voices 1",
    }
    expected, _ = sf.read(io.BytesIO(wav(22050)), dtype="int16")
    np.testing.assert_array_equal(sf.read(sources / str(train[0]["path"]), dtype="int16")[0], expected)
    if shutil.which(
        "dpkg-deb"
    ):  # the file under share-alike alone is out, the one whose author is held out apart
        assert [(line["path"], line["author"], line["licence"]) for line in train[1:]] == [
            ("audio/game/game__data__violin.flac", "Ann Free <ann@example.org>; Bob Free", "CC-BY-3.0")
        ]
        assert [(line["author"], line["licence"], line["channels"]) for line in held_out] == [
            ("Carl", "CC0-1.0", 2)
        ]
    assert not {line["source"] for line in train} & {line["source"] for line in held_out}
    stream = io.StringIO()
    attribution.write_manifest(sources / "train.jsonl", stream)
    table = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [row["file"] for row in table] == [line["path"] for line in train]
    assert (table[0]["author"], table[0]["source"], table[0]["package"]) == (
        "Linda",
        "https://example.org/lj",
        "pypi: voices 1",
    )


def test_a_source_in_both_lists_is_refused(tmp_path: Path) -> None:
    one = training_data.Record("a.flac", "s", 44100, 1, 1.0, "music", "CC0", "Ann", "u", "p")
    with pytest.raises(DataError, match="in both lists: s"):
        training_data.write([one, one._replace(author="Bob")], tmp_path, ["Bob"])


def test_a_cap_keeps_the_files_whose_paths_have_the_lowest_hashes(tmp_path: Path) -> None:
    """In the order of `printf audio/s/N.flac | sha256sum`: 4, 3, 2, 0, 1, 5."""
    record = training_data.Record("", "s: Ann", 44100, 1, 60.0, "music", "CC0", "Ann", "u", "p")
    records = [record._replace(path=f"audio/s/{n}.flac") for n in range(6)]
    records += [record._replace(path=f"audio/real/{n}.flac", source="real: s") for n in range(9)]
    records[2] = records[2]._replace(source="s: Bob", author="Bob")  # the source is the package
    held_out = [record._replace(path=f"audio/h/{n}.flac", source="h: Eve", author="Eve") for n in range(9)]
    for minutes, kept in ((1, "4"), (2.5, "234"), (3, "234"), (3.01, "0234"), (100, "012345")):
        training_data.write([*held_out, *records[::-1]], tmp_path, ["Eve"], minutes)
        paths = [line["path"] for line in lines(tmp_path / "train.jsonl")]
        assert paths == [*(f"audio/real/{n}.flac" for n in range(9)), *(f"audio/s/{n}.flac" for n in kept)]
        assert len(lines(tmp_path / "held_out.jsonl")) == 9


@pytest.mark.parametrize("minutes", ["0", "-3", "nan", "inf", "many"])
def test_a_cap_that_is_no_length_is_refused(
    minutes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        training_data.main([str(tmp_path), f"--at-most={minutes}"])
    assert "no number of minutes above 0; give one, such as 25" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_summary_counts_files_and_minutes(tmp_path: Path) -> None:
    one = training_data.Record("a.ogg", "g: A", 44100, 1, 90.0, "music", "CC-BY-3.0", "A", "u", "debian: g 1")
    records = [
        one,
        one._replace(source="g: B", author="B", licence="CC BY 3.0", duration_s=30.0),
        one._replace(licence="CC0-1.0"),
        one._replace(source="real: x", kind="effects", licence="CC 0", duration_s=6.0, package=""),
        one._replace(kind="speech", licence="PD"),
    ]
    training_data.write(records, tmp_path, [])
    stream = io.StringIO()
    attribution.summarize(tmp_path / "train.jsonl", stream)
    assert stream.getvalue().splitlines()[2:] == [
        "| effects | real: x | CC0 | 1 | 0.1 |",
        "| music | debian: g 1 | CC BY 3.0 | 2 | 2.0 |",
        "| music | debian: g 1 | CC0 | 1 | 1.5 |",
        "| speech | debian: g 1 | public domain | 1 | 1.5 |",
        "| effects | all | all | 1 | 0.1 |",
        "| music | all | all | 3 | 3.5 |",
        "| speech | all | all | 1 | 1.5 |",
        "| all | all | CC BY 3.0 | 2 | 2.0 |",
        "| all | all | CC0 | 2 | 1.6 |",
        "| all | all | public domain | 1 | 1.5 |",
        "| all | all | all | 5 | 5.1 |",
    ]
    for nobody in (" ", None):
        training_data.write([one._replace(author=nobody)], tmp_path, [])
        with pytest.raises(KeyError, match=r"a\.ogg"):
            attribution.summarize(tmp_path / "train.jsonl", stream)


def test_another_checksum_is_refused(tmp_path: Path) -> None:
    known = package(tmp_path, "npm", "sounds_1.tgz", tgz({"a.wav": wav()}))
    assert packages.fetch(known, tmp_path / "packages").is_file()
    with pytest.raises(DataError, match=r"SHA-256 .*, not the pinned 0000"):
        packages.fetch(known._replace(sha256="0000"), tmp_path / "packages")


@pytest.mark.parametrize("path", ["../../etc/a.wav", "/etc/a.wav", "a/../../b.wav", "..\\a.wav"])
def test_a_path_that_leads_out_of_an_archive_is_refused(path: str) -> None:
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr(path, b"x")
    for name, content in (("a.tgz", tgz({path: b"x"})), ("a.whl", wheel.getvalue())):
        with pytest.raises(DataError, match="leads out of it"):
            list(packages.members(name, content))


def test_the_last_stanza_that_fits_decides() -> None:
    known = [
        Stanza(("*",), "A", "CC0"),
        Stanza(("base/music/*",), "B", "GPL-2"),
        Stanza(("base/music/x.ogg",), "C", "MIT"),
    ]
    assert packages.licensed("a.ogg", [Stanza(("*",), "A", "GPL-2 or CC-BY-3.0")]) == ("A", "CC-BY-3.0")
    assert packages.licensed("a.ogg", [Stanza(("*",), "A", "CC-BY-3.0, and GPL-2")]) is None
    paths = ("./p.pk3/music/x.ogg", "./p.pk3/music/y.ogg", "./p.pk3/z.ogg")
    assert [packages.licensed(path, known, "base/") for path in paths] == [
        ("C", "MIT"),
        None,
        ("A", "CC0"),
    ]


def test_pieces_that_are_held_out_play_instruments_of_their_own() -> None:
    def programs(score: bytes) -> set[int]:
        return {score[at + 1] for at in range(22, len(score) - 1) if 0xC0 <= score[at] <= 0xC4}

    train = set().union(*(scores.programs(number, False) for number in range(96)))
    assert len(train) == 112
    assert not train & set(scores.programs(0, True))
    score = scores.midi(3, 8.0, True)
    assert score[:4] == b"MThd"
    assert score == scores.midi(3, 8.0, True)
    assert len(score) == 22 + int.from_bytes(score[18:22], "big")
    assert programs(score) & set(scores.HELD_OUT_PROGRAMS)
