"""Encoded clips in tar files: found again as they were, whatever ended the process or became of the files."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from known import LateCodec, StepCodec, register_codecs
from nominal import evaluate

from baselines.codec import Encoded
from evaluation import open_results
from evaluation.datasets.base import Clip
from evaluation.engine.replay import RunAudio
from evaluation.rows import CodedRow, Place
from evaluation.run import encoded as encoded_clips
from evaluation.run.store import RunStore, row_key
from qincodec.core.errors import UserError
from qincodec.core.files import StoreError

NAMES = ["a", "sub/b", "c d'ä→", "long/" + 70 * "é" + 70 * "x", "e"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_clips, "MOST_FILES", 2)


STORED = Path(__file__).parents[1] / "data" / "stored_run" / "run"


def opened(folder: Path, num_clips: int = 3) -> RunStore:
    store = RunStore(folder)
    shutil.copy(STORED / "run.json", folder)
    store.write_clips(
        [Clip(str(i), Path(f"{i}.wav"), str(i), "0" * 16, 1.0, 44100, 1) for i in range(num_clips)]
    )
    return store


def bytes_of(name: str) -> bytes:
    """Of an encoded clip, as many as the name says and no multiple of a block."""
    return Encoded(name.encode() * 99, 44100, 1, 44100).to_bytes()


def add(store: RunStore, names: Sequence[str], confirmed: bool = True) -> list[CodedRow]:
    rows = []
    for name in names:
        key = row_key(clip=name)
        known = store.row(key, CodedRow)
        place = store.write_encoded("c@8", name, bytes_of(name), Place() if known is None else known.place)
        rows.append(
            CodedRow(
                key=key,
                codec="c",
                rate="8",
                clip=name,
                error=None,
                duration_s=1.0,
                delay=0,
                encoded=place.file,
                offset=place.offset,
            )
        )
    if confirmed:
        store.append(rows)
    return rows


def check(folder: Path, names: Sequence[str]) -> None:
    """The rows of these clips, and of no others, find what was written."""
    with RunStore(folder) as store:
        rows = [row for row in store.rows() if isinstance(row, CodedRow)]
        assert sorted(row.clip for row in rows) == sorted(names)
        for row in rows:
            assert store.has_encoded(row)
            assert store.read_encoded(row).to_bytes() == bytes_of(row.clip)


def members(path: Path) -> dict[str, bytes]:
    """What another program for tar files finds."""
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]


def test_a_small_run_has_a_file_for_each_clip(tmp_path: Path) -> None:
    with opened(tmp_path / "run", num_clips=2) as store:
        rows = add(store, NAMES)
    for row in rows:
        assert row.encoded is not None and row.offset is None
        assert (tmp_path / "run" / row.encoded).read_bytes() == bytes_of(row.clip)
        assert b"offset" not in repr(row.to_json()).encode()
    check(tmp_path / "run", NAMES)


def test_a_large_run_has_tar_files(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as store:
        add(store, NAMES[:2])
    with opened(tmp_path / "run") as store:
        add(store, NAMES[2:])
    check(tmp_path / "run", NAMES)
    (path,) = (tmp_path / "run" / "encoded" / "c@8").iterdir()
    found = members(path)
    assert list(found.values()) == [bytes_of(name) for name in NAMES]
    assert list(found) == [f"{name}.enc" for name in NAMES]


def test_points_with_one_folder_do_not_cut_each_other(tmp_path: Path) -> None:
    """Codecs of an earlier run may be named so."""
    with opened(tmp_path / "run") as store:
        points = [("a b@8", "1"), ("a_b@8", "2"), ("a b@8", "3")]
        places = [store.write_encoded(point, name, bytes_of(name), Place()) for point, name in points]
    found = [(tmp_path / "run" / str(place.file)).read_bytes()[place.offset :] for place in places]
    assert all(data.startswith(bytes_of(name)) for data, (_, name) in zip(found, points, strict=True))


def test_a_run_that_grew_continues_its_files(tmp_path: Path) -> None:
    with opened(tmp_path / "run", num_clips=2) as store:
        add(store, NAMES[:2])
    with opened(tmp_path / "run") as store:
        places = [row.place for row in add(store, NAMES)]
    assert [place.offset is None for place in places] == [True, True, False, False, False]
    with opened(tmp_path / "run") as store:
        assert [row.place for row in add(store, NAMES)] == places  # nothing is kept twice
    check(tmp_path / "run", NAMES)


def test_full_files_are_followed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_clips, "FULL", 1024)
    with opened(tmp_path / "run") as store:
        add(store, NAMES[:3])
    with opened(tmp_path / "run") as store:
        add(store, NAMES[3:])
    check(tmp_path / "run", NAMES)
    found = [members(path) for path in sorted((tmp_path / "run" / "encoded" / "c@8").iterdir())]
    assert len(found) > 2 and [data for one in found for data in one.values()] == list(map(bytes_of, NAMES))


def _be_killed(run: Path, written: int | None) -> None:
    """While a clip is written, when another was, but not its row."""
    store, write = opened(run), os.write
    add(store, ["f"], confirmed=False)

    def killed(handle: int, data: bytes) -> int:
        write(handle, data[:written])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    os.write = killed
    add(store, ["e"], confirmed=False)


@pytest.mark.parametrize("written", [0, 100, 700, None])
def test_bytes_without_a_row_are_dropped_after_a_kill(tmp_path: Path, written: int | None) -> None:
    with opened(tmp_path / "run") as store:
        add(store, NAMES[:2])
    child = os.fork()
    if child == 0:
        try:
            _be_killed(tmp_path / "run", written)
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    check(tmp_path / "run", NAMES[:2])
    with opened(tmp_path / "run") as store:
        add(store, ["e", "f"])
    check(tmp_path / "run", [*NAMES[:2], "e", "f"])
    (path,) = (tmp_path / "run" / "encoded" / "c@8").iterdir()
    assert list(members(path)) == ["a.enc", "sub/b.enc", "e.enc", "f.enc"]


@pytest.mark.parametrize("left", [None, 0, 600, -1])
def test_lost_clips_are_reported_and_not_replaced(tmp_path: Path, left: int | None) -> None:
    with opened(tmp_path / "run") as store:
        first, second = add(store, ["a", "b"])
    path = tmp_path / "run" / "encoded" / "c@8" / "clips-00000.tar"
    if left is None:
        path.unlink()
    else:
        os.truncate(path, left if left >= 0 else (second.offset or 0) + 10)
    with opened(tmp_path / "run") as store:
        assert [store.has_encoded(row) for row in (first, second)] == [left == -1, False]
        with pytest.raises(OSError):
            store.read_encoded(second)
        (again,) = add(store, ["b"])
        assert again.encoded == "encoded/c@8/clips-00001.tar"
        assert store.has_encoded(again) and not store.has_encoded(second)


def test_another_clip_in_its_place_is_reported(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as store:
        first, second = add(store, ["a", "b"])
        for row in (first.at(second.place), first.at(Place(first.encoded, 1000))):
            assert not store.has_encoded(row)
            with pytest.raises(UserError, match=r"clips-00000.tar is damaged at byte \d+: .*evaluate again"):
                store.read_encoded(row)


def test_full_disk_keeps_whole_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path / "run") as store:
        add(store, ["a"])
        real = os.write

        def full(handle: int, data: bytes) -> int:
            monkeypatch.setattr(os, "write", refuse)
            return real(handle, data[:600])

        def refuse(handle: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StoreError, match=r"disk full .* run the same command again"):
            add(store, ["b"])
        monkeypatch.setattr(os, "write", real)
        add(store, ["c"])
    check(tmp_path / "run", ["a", "c"])
    assert list(members(tmp_path / "run" / "encoded" / "c@8" / "clips-00000.tar")) == ["a.enc", "c.enc"]


def test_clips_are_on_the_disk_before_rows_speak_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink()))
    with opened(tmp_path / "run") as store:
        add(store, ["a", "b"])
    assert [path.name for path in synced] == ["clips-00000.tar", "rank-0.jsonl"]


def signals(run: Path) -> dict[tuple[str, str], np.ndarray]:
    """All decoded audio of a run."""
    with RunStore(run, write=False) as store:
        audio = RunAudio(store)
        return {
            (condition.point, clip.id): audio.decoded(condition, clip)
            for condition in store.read_run().conditions
            for clip in store.read_clips()
        }


@pytest.mark.slow
def test_a_large_run_is_a_small_one_in_other_files(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_codecs(monkeypatch, StepCodec, LateCodec)

    def run(name: str, metrics: str = "si_sdr") -> Callable[[], object]:
        more = {"metrics": metrics, "limit": 4, "batch_size": 2, "workers": 2}
        evaluate(clip_folder, "steps,late", [4, 8], out=tmp_path / name, **more)
        results = open_results(tmp_path / name)
        return results.clips.drop(columns=["encode_s", "decode_s"]), results.corpus

    large = run("large")
    files = {path.name for path in (tmp_path / "large" / "encoded").rglob("*") if path.is_file()}
    assert files == {"clips-00000.tar"}
    monkeypatch.setattr(encoded_clips, "MOST_FILES", 4)
    small = run("small")
    assert large[0].equals(small[0]) and large[1] == small[1] and large[1][0].kbps_entropy > 0
    wanted, found = signals(tmp_path / "small"), signals(tmp_path / "large")
    assert wanted.keys() == found.keys() and len(found) == 16
    assert all(np.array_equal(wanted[key], found[key]) for key in wanted)

    # What is lost is encoded again where it is needed, and found again at its new place.
    monkeypatch.setattr(encoded_clips, "MOST_FILES", 2)
    (tmp_path / "large" / "encoded" / "late@8" / "clips-00000.tar").unlink()
    with pytest.raises(UserError, match="is gone"):
        signals(tmp_path / "large")
    for name in ("large", "small"):
        last = run(name, "si_sdr,ms_mel")
    assert run("large", "si_sdr,ms_mel")[0].equals(last[0])
    found = signals(tmp_path / "large")
    assert all(np.array_equal(wanted[key], found[key]) for key in wanted)
