"""The run folder: nothing lost, nothing doubled, one clear line for what cannot be written."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.datasets.base import Clip
from evaluation.records import Condition, DecodedFile, Settings, number_from_json, number_to_json
from evaluation.rows import ScoreRow
from evaluation.run.store import RunStore, coded_key, condition_delay, row_key
from qincodec.core.errors import UserError
from qincodec.core.files import StoreError


def rows(count: int, start: int = 0) -> list[ScoreRow]:
    names = {"codec": "c", "rate": "8", "clip": "a", "metric": "m", "reason": None, "error": None}
    return [
        ScoreRow(key=f"k{index}", value=float(index), delay=0, **names)
        for index in range(start, start + count)
    ]


STORED = Path(__file__).parents[1] / "data" / "stored_run" / "run"


def test_rows_come_back_in_another_process(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        store.append(rows(3))
        store.append(rows(2, start=3))
    with RunStore(tmp_path / "run") as store:
        assert [store.row(f"k{index}", ScoreRow) for index in range(5)] == rows(5)
        assert store.row("k5", ScoreRow) is None


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_last_line_is_dropped_and_later_rows_survive(tmp_path: Path, cut: int) -> None:
    with RunStore(tmp_path / "run") as store:
        store.append(rows(3))
    path = tmp_path / "run" / "rows" / "rank-0.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    complete = path.read_bytes().count(b"\n")
    with RunStore(tmp_path / "run") as store:
        assert [store.row(f"k{index}", ScoreRow) is not None for index in range(3)] == [
            i < complete for i in range(3)
        ]
        store.append(rows(1, start=7))
    with RunStore(tmp_path / "run") as store:
        assert store.row("k7", ScoreRow) == rows(1, start=7)[0]
    assert path.read_bytes().endswith(b"\n")


def test_a_torn_line_longer_than_the_search_block_is_found(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        store.append(rows(1))
    path = tmp_path / "run" / "rows" / "rank-0.jsonl"
    with path.open("ab") as file:
        file.write(b'{"key": "' + b"x" * 200_000)
    with RunStore(tmp_path / "run") as store:
        assert store.row("k0", ScoreRow) == rows(1)[0]
    assert path.read_bytes().count(b"\n") == 1


def test_a_line_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        store.append(rows(2))
    path = tmp_path / "run" / "rows" / "rank-0.jsonl"
    path.write_bytes(b"\x00garbage\n" + path.read_bytes())
    with pytest.raises(UserError, match="damaged at byte 0"):
        RunStore(tmp_path / "run")


def test_rows_that_earlier_versions_wrote_side_by_side_are_read(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        store.append(rows(1))
    lines = [json.dumps(row.to_json()) + "\n" for row in rows(3, start=1)]
    (tmp_path / "run" / "rows" / "rank-1.jsonl").write_text("".join(lines)[:-20])  # killed in its last row
    before = (tmp_path / "run" / "rows" / "rank-1.jsonl").read_bytes()
    with RunStore(tmp_path / "run") as store:
        assert list(store.rows()) == rows(3)
        store.append(rows(1, start=3))
    assert (tmp_path / "run" / "rows" / "rank-1.jsonl").read_bytes() == before
    with RunStore(tmp_path / "run") as store:
        assert sorted(store.rows(), key=lambda row: row.key) == rows(4)


def test_two_evaluations_cannot_write_to_one_run(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from evaluation.run.store import RunStore\n"
        "RunStore(Path(sys.argv[1]))"
    )
    with RunStore(tmp_path / "run"):
        child = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True
        )
    assert "another evaluation is writing" in child.stderr
    RunStore(tmp_path / "run").close()  # and the lock ends with its holder


def test_full_disk_keeps_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunStore(tmp_path / "run") as store:
        store.append(rows(1))
        real = os.write

        def full(handle: int, data: bytes) -> int:
            monkeypatch.setattr(os, "write", refuse)
            return real(handle, data[:5])  # what a full disk does: a short write, then the error

        def refuse(handle: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StoreError, match=r"disk full .* run the same command again"):
            store.append(rows(1, start=1))
        monkeypatch.setattr(os, "write", real)
        store.append(rows(1, start=2))
    with RunStore(tmp_path / "run") as store:
        assert [store.row(f"k{index}", ScoreRow) is not None for index in range(3)] == [True, False, True]


def test_after_a_kill_before_the_first_run_json_the_folder_is_usable(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run") as store:
        store.write_clips([])
        store.write_files({})
        store.write_environment({})
    with RunStore(tmp_path / "run") as store:
        assert store.find_run() is None
    # Files of these names that no store has written are somebody's.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "clips.jsonl").write_text("")
    with pytest.raises(UserError, match=r"it holds clips.jsonl"):
        RunStore(tmp_path / "mine")


def test_what_is_not_a_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"not empty and not a run \(it holds thesis.tex\)"):
        RunStore(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="is not a run"):
        RunStore(tmp_path, write=False)
    with pytest.raises(UserError, match="a file is in the way"):
        RunStore(tmp_path / "thesis.tex")
    with pytest.raises(UserError, match="cannot write"):
        RunStore(Path("/proc/run"))


@pytest.mark.parametrize("schema", [99, True, 1.0, "1", None])
def test_a_run_of_another_schema_is_refused(tmp_path: Path, schema: object) -> None:
    RunStore(tmp_path / "run").close()
    sound = json.loads((STORED / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(sound))
    RunStore(tmp_path / "run").close()
    (tmp_path / "run" / "run.json").write_text(json.dumps({**sound, "schema_version": schema}))
    with pytest.raises(UserError, match=f"has run schema {schema!r}, this version reads 1; use"):
        RunStore(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        RunStore(tmp_path / "run")


@pytest.mark.parametrize("value", [1.5, -0.0, math.inf, -math.inf, math.nan])
def test_numbers_survive_json(value: float) -> None:
    back = number_from_json(number_to_json(value))
    assert back == value or (math.isnan(back) and math.isnan(value))


def test_keys_depend_on_what_decides_the_score_and_on_nothing_else() -> None:
    clip = Clip("a", Path("/x/a.wav"), "a", "00ff", duration_s=5.0)
    settings = Settings()
    condition = Condition("opus", 8.0, 8.0, identity={"name": "opus", "weights": ""})
    key = coded_key(condition, settings, clip)
    same = [
        coded_key(Condition("other label", 8.0, 8.0, identity=condition.identity), settings, clip),
        coded_key(Condition("opus", 9.0, 8.0, identity=condition.identity), settings, clip),
        coded_key(condition, settings, Clip("a", Path("/y/a.wav"), "b", "00ff", duration_s=5.0)),
        coded_key(condition, Settings(seed=1), clip),
    ]
    other = [
        coded_key(Condition("opus", 8.0, 8.0, identity={"name": "opus", "weights": "1"}), settings, clip),
        coded_key(Condition("opus", 8.0, 9.0, identity=condition.identity), settings, clip),
        coded_key(
            Condition("opus", 8.0, 8.0, settings={"beam": 2}, identity=condition.identity), settings, clip
        ),
        coded_key(condition, Settings(channels=2), clip),
        coded_key(condition, settings, Clip("a", Path("/x/a.wav"), "a", "00fe", duration_s=5.0)),
        coded_key(condition, settings, Clip("a", Path("/x/a.wav"), "a", "00ff", 1.0, duration_s=5.0)),
        coded_key(condition, settings, clip, file=DecodedFile("abc")),
    ]
    assert set(same) == {key}
    assert len({key, *other}) == len(other) + 1
    assert row_key(a=1, b=2) == row_key(b=2, a=1)


def test_the_delay_of_a_condition_is_an_integer_some_clip_has() -> None:
    delays = [3, None, 0, 7, 3, 100, None, 4]
    found = condition_delay(delays, align=True)
    assert found == 3  # the lower of the two in the middle, never 3.5
    assert condition_delay(delays, align=False) == 0
    assert condition_delay(iter([None, None]), align=True) == 0
