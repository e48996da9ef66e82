"""Changed files of every kind that `load` reads: the ratings or one line, never a traceback."""

from __future__ import annotations

import copy
import gc
import json
import random
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mushra.analysis.load import load
from mushra.store.export import export
from mushra.store.pages import Rating
from mushra.store.store import Store
from mushra.store.whole_sessions import WholePage, WholeSession, add_whole
from qincodec.core.errors import UserError

ODD: list[Any] = [
    None,
    "",
    " ",
    "nan",
    "inf",
    "1e999",
    "-1",
    "0x10",
    "reference",
    "'=1+1",
    "a+b",
    "\0",
    "é\u2028",
]
ODD += [
    0,
    -1,
    101,
    2**63,
    -(2**70),
    1e308,
    float("nan"),
    float("inf"),
    True,
    [],
    {},
    [[]],
    {"a": 1},
    "x" * 5000,
]
ODD += ["\ud800", '"', ",", ";", "\r", "\n", "training", "finished", "false"]
FEW, MANY = 60, 2000

CSV = "session_test_id,age,session_uuid,trial_id,rating_stimulus,rating_score,rating_time,rating_comment"
PAGES = [
    (who, item, name) for who in "abc" for item in ("t1", "t2") for name in ("reference", "A", "anchor35")
]


def _webmushra() -> str:
    rows = [
        f"t,30,{who},{item},{name},{len(who + name) * 7},9{n},ok" for n, (who, item, name) in enumerate(PAGES)
    ]
    return "\n".join([CSV, *rows]) + "\n"


def _pymushra() -> str:
    responses = [
        {"stimulus": n, "score": s, "comment": "", "time": 900} for n, s in (("reference", 100), (16, 50))
    ]
    page = {"id": 1, "type": "mushra", "responses": responses, "testId": "d", "questionaire": {"uuid": "u"}}
    return json.dumps({"_default": {}, "d": {"1": page, "2": {**page, "id": "t2"}}})


def _key() -> str:
    signals = {"A": {"condition": "opus@16", "file": "a.wav"}, "reference": {"condition": "reference"}}
    return json.dumps({"format": 1, "trials": {item: {"signals": signals} for item in ("t1", "t2")}})


def _database(folder: Path) -> Path:
    """A data base and its exports."""
    with Store(folder / "results.sqlite") as store:
        for who in "abc":
            pages = [
                WholePage(
                    item,
                    "mushra",
                    False,
                    [
                        Rating(
                            name,
                            score=float(50 + len(name)),
                            time_ms=9000.0,
                            detail='{"plays":1,"moves":2}',
                        )
                        for name in ("reference", "A", "anchor35")
                    ],
                )
                for item in ("t1", "t2")
            ]
            whole = WholeSession("t", "import", who, [("age", "30")], pages)
            store.write(lambda connection, whole=whole: add_whole(connection, whole))  # type: ignore[misc]
        for kind in ("tidy", "json"):
            export(store, folder, kind)  # type: ignore[arg-type]
    return folder / "results.sqlite"


def change_bytes(data: bytes, draw: random.Random) -> bytes:
    """A few places deleted, doubled, overwritten or cut off."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at, length = draw.randrange(len(changed) + 1), draw.choice([1, 1, 2, 8, 40])
        piece = draw.choice(
            [
                b"",
                bytes(draw.randrange(256) for _ in range(length)),
                bytes(changed[at : at + length]) * 3,
                str(draw.choice(ODD)).encode("utf-8", "surrogatepass"),
                b",",
                b'"',
                b"\n",
                b"}",
            ]
        )
        changed[at : at + length] = piece
        if draw.random() < 0.05:
            del changed[at:]
    return bytes(changed)


def change_json(content: Any, draw: random.Random) -> Any:
    """A few values, keys or rows of a document replaced."""
    content = copy.deepcopy(content)
    for _ in range(draw.randint(1, 3)):
        node = content
        while True:
            if not isinstance(node, dict | list) or not node:
                break
            at = draw.choice(list(node)) if isinstance(node, dict) else draw.randrange(len(node))
            if not isinstance(node[at], dict | list) or not node[at] or draw.random() < 0.2:
                what = draw.random()
                if what < 0.6:
                    node[at] = draw.choice(ODD)
                elif what < 0.8:
                    del node[at]
                elif isinstance(node, dict):
                    node[str(draw.choice(ODD))] = node.pop(at)
                else:
                    node.append(copy.deepcopy(node[at]))
                break
            node = node[at]
    return content


def change_database(path: Path, draw: random.Random) -> None:
    """Cells, rows or columns of a data base, as another program might leave them."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    tables = {
        name: [column[1] for column in connection.execute(f'PRAGMA table_info("{name}")')]
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    for _ in range(draw.randint(1, 3)):
        table = draw.choice(["ratings", "ratings", "sessions", "pages", "meta", "tests", "answers"])
        column, value = draw.choice(tables[table]), draw.choice(ODD)
        if isinstance(value, list | dict) or (isinstance(value, int) and abs(value) >= 2**63):
            value = json.dumps(value).encode() if draw.random() < 0.5 else json.dumps(value)
        if value == "\ud800":
            value = b"\xff\xfe"
        where = f"rowid = {draw.randint(1, 6)}" if draw.random() < 0.7 else "1"
        what = draw.random()
        try:
            if what < 0.8:
                connection.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE {where}', (value,))
            elif what < 0.9:
                connection.execute(f'DELETE FROM "{table}" WHERE {where}')
            elif what < 0.95:
                connection.execute(f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "other"')
            else:
                connection.execute(f'DROP TABLE "{table}"')
        except sqlite3.Error:
            pass
    connection.commit()
    connection.close()


def survives(source: Path, **options: Any) -> bool:
    """Whether ratings came of it; anything but a `UserError` of one line fails the test."""
    try:
        ratings = load([source], **options)
    except UserError as error:
        assert "\n" not in str(error)
        return False
    assert ratings.frame["score"].between(0, 100).all()
    return True


Write = Callable[[Path, random.Random], None]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    _database(folder)
    files = {name: (folder / name).read_bytes() for name in ("results.sqlite", "ratings.csv", "results.json")}
    return {
        **files,
        "mushra.csv": _webmushra().encode(),
        "pymushra.json": _pymushra().encode(),
        "key.json": _key().encode(),
    }


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "name", ["mushra.csv", "ratings.csv", "results.json", "pymushra.json", "results.sqlite", "key.json"]
)
def test_changed_files_give_ratings_or_one_line(
    name: str, number: int, originals: dict[str, bytes], tmp_path: Path
) -> None:
    draw = random.Random(f"{name} {number}")
    path = tmp_path / name
    data = originals[name]
    source = path
    if name == "key.json":
        source = tmp_path / "mushra.csv"
        source.write_bytes(originals["mushra.csv"])
    path.write_bytes(data)
    assert survives(source)
    threads = threading.active_count()
    good = 0
    for _ in range(number):
        for rest in tmp_path.glob("results.sqlite*"):
            rest.unlink()
        if name == "results.sqlite" and draw.random() < 0.7:
            path.write_bytes(data)
            change_database(path, draw)
        elif name.endswith(".json") and draw.random() < 0.6:
            text = json.dumps(change_json(json.loads(data), draw))
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
        else:
            path.write_bytes(change_bytes(data, draw))
        good += survives(source)
    assert 0 < good < number
    gc.collect()
    # What could not be opened is closed again.
    assert threading.active_count() <= threads + 2
