"""Rows in columns are the rows that were written: against a plain dictionary of them."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation.datasets.base import Clip
from evaluation.records import Condition, DecodedFile, MetricInfo, Settings
from evaluation.rows import CodedRow, FramesRow, LatentsRow, Row, ScoreRow, read_row, read_rows
from evaluation.run import columns
from evaluation.run.columns import Rows
from evaluation.run.keys import Keys, coded_key, coded_keys, row_key, row_keys, score_key, score_keys
from evaluation.run.store import RunStore
from qincodec.core.errors import UserError


def some_row(chance: random.Random, number: int) -> Row:
    """A row of any kind; every third key is one of a few, and some are no hashes."""
    key = row_key(number=chance.randrange(40) if chance.random() < 0.3 else number)
    key = chance.choice((key, key, key, f"by hand {number % 7}", key.upper()))
    error = chance.choice((None, None, "it broke", ""))
    place = {"codec": chance.choice("ab"), "rate": "8", "clip": f"é/{chance.randrange(9)}", "error": error}
    real = chance.choice((None, -0.0, 5e-324, 1e100, chance.gauss(0, 1)))
    whole = chance.choice((None, 0, 2**53, chance.randrange(10**6)))
    usual = columns.encoded_file(f"{place['codec']}@8", str(place["clip"]))
    kinds = {
        CodedRow: {
            **place,
            **{"duration_s": math.nan if error is not None else 4.25, "bytes": whole, "delay": whole and -3},
            **{"gain_db": real, "encode_s": real and abs(real), "decode_s": None, "codebooks": whole or 0},
            **{"encoded": chance.choice((None, usual, "elsewhere")), "note": error, "reference_dbfs": real},
        },
        ScoreRow: {
            **place,
            **{"metric": "m", "delay": -7, "reason": error},
            "value": chance.choice((math.nan, math.inf, -math.inf, 0.1, -0.0)),
        },
        FramesRow: {
            **{"embedding": "e", "file": "f", "offset": 2**40, "frames": 3, "dim": 4, "silent": 0},
            **{"error": None, "crc32": chance.choice((None, 2**32 - 1))},
        },
        LatentsRow: {"frames": 1, "error_sum": 0.5, "x": (0.25,), "squares": 1.0},
        Row: {"kind": "of a later version"},
    }
    kind = chance.choice(list(kinds))
    fields = kinds[kind]
    if kind is CodedRow and error is not None:
        fields = {**place, "delay": fields["delay"]}  # the rest of it is not written
    return kind(key=key, **fields)  # type: ignore[arg-type]


def line_of(row: Row) -> bytes:
    return (json.dumps(row.to_json(), allow_nan=False) + "\n").encode()


@pytest.mark.parametrize("few", [1, 7, 10**6])
def test_every_row_comes_back_as_it_was_written(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_FEW", few)
    chance = random.Random(few)
    rows, known = Rows(), {}
    number = 0
    while number < 600:
        block = [some_row(chance, number + index) for index in range(chance.choice((1, 3, 50)))]
        number += len(block)
        rows.add(block, [line_of(row) for row in block])
        known.update((row.key, row) for row in block)
        for key in (chance.choice(list(known)), row_key(missing=number), "no key"):
            assert repr(rows.get(key)) == repr(known.get(key))
    assert {row.key: repr(row) for row in rows} == {key: repr(row) for key, row in known.items()}
    hashes = [row.key for row in rows if len(row.key) == 24 and row.key.islower()]
    assert hashes == [key for key in known if key in set(hashes)]


def test_many_keys_are_found_in_columns() -> None:
    chance = random.Random(3)
    made = [some_row(chance, number) for number in range(400)]
    coded = [row for row in made if isinstance(row, CodedRow) and len(row.key) == 24 and row.key.islower()]
    coded = list({row.key: row for row in coded}.values())
    rows = Rows()
    rows.add(coded, [line_of(row) for row in coded])
    keys = Keys(bytes.fromhex("".join([coded[5].key, "0" * 24, *(row.key for row in coded)])))
    found, stranger = rows.find(keys, CodedRow)
    expected = [coded[5], None, *coded]
    assert stranger is None and found.there.tolist() == [row is not None for row in expected]
    assert repr(list(found)) == repr([row for row in expected if row])
    for name in ("bytes", "gain_db", "duration_s", "codebooks"):
        values = [None if row is None else getattr(row, name) for row in expected]
        np.testing.assert_array_equal(found.numbers(name), np.array(values, float))
    for name in ("clip", "error", "encoded"):
        values = [None if row is None else getattr(row, name) for row in expected]
        usual = columns.encoded_file
        texts = [
            usual(row.point, row.clip) if row and name == "encoded" and text == "" else text
            for row, text in zip(expected, found.texts(name), strict=True)
        ]
        assert texts == values
    assert isinstance(rows.find(keys, ScoreRow)[1], CodedRow)


def test_keys_with_the_same_first_part_are_distinguished() -> None:
    names = [f"{'a' * 16}{number:08x}" for number in (5, 1, 3)]
    place = {"codec": "c", "rate": "8", "clip": "x", "error": None, "metric": "m", "reason": None}
    made = [ScoreRow(key=key, value=float(i), delay=0, **place) for i, key in enumerate(names)]  # type: ignore[arg-type]
    rows = Rows()
    rows.add(made, list(map(line_of, made)))
    found, _ = rows.find(
        Keys(bytes.fromhex("".join([*names, f"{'a' * 16}{2:08x}", f"{'a' * 16}{9:08x}"]))), ScoreRow
    )
    np.testing.assert_array_equal(found.numbers("value"), [0, 1, 2, math.nan, math.nan])


def test_a_row_of_another_kind_under_a_key_is_reported(tmp_path: Path) -> None:
    key = row_key(number=1)
    with RunStore(tmp_path / "run") as store:
        store.append([LatentsRow(key=key, frames=1, error_sum=0.5, x=(0.25,), squares=1.0)])
        with pytest.raises(UserError, match=rf"the key {key} of a 'coded' row stands one of kind 'latents'"):
            store.find(Keys(bytes.fromhex(key)), CodedRow)


def test_many_keys_are_those_of_each() -> None:
    settings, metric = Settings(), MetricInfo("si_sdr", "x", "2", "", True, "")
    condition = Condition("c", 8, 8.5, {"a%s": [1, None]}, {"z": "100 %", "name": "ü\n", "version": "1"})
    clips = [
        Clip(f'{number}/"é%d"', Path("x"), "r", f"{number:x}", start_s=number, duration_s=number / 3 or 5)
        for number in range(5)
    ]
    files = {clips[1].id: DecodedFile("abc"), clips[2].id: DecodedFile(missing="gone")}
    names = {"clip": "id", "content_hash": "content_hash", "start_s": "start_s", "duration_s": "duration_s"}
    table = {name: pd.Series([getattr(c, of) for c in clips], dtype=object) for name, of in names.items()}
    found = coded_keys(condition, settings, pd.DataFrame(table), files)
    expected = [coded_key(condition, settings, clip, files.get(clip.id)) for clip in clips]
    assert found.hex() == expected
    assert score_keys(found, metric, -3).hex() == [score_key(key, metric, -3) for key in expected]
    assert found.where(np.array([False, True, True, False, False])).hex() == expected[1:3]
    assert row_keys({"b": 1}, {"a": [1, 1.0, True]}).hex() == [row_key(a=a, b=1) for a in (1, 1.0, True)]


@pytest.mark.parametrize(
    "lines",
    [
        [b'{"kind":"x","key":"a"', b'"more":1}'],  # cut at a comma
        [b'{"kind":"x","key":"a","l":[{}', b"{}]}", b'{"kind":"x","key":"b"},{"kind":"x","key":"c"}'],
        [b'{"kind":"x","key":"a"}', b'{"kind":"x","key":"b"}]'],
        [b'{"kind":"score","key":"a"}'],
    ],
)
def test_lines_that_are_rows_only_together_are_refused(lines: list[bytes]) -> None:
    with pytest.raises(ValueError):
        read_rows(lines)
    with pytest.raises(ValueError):
        list(map(read_row, lines))
