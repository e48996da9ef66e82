"""What is written to files and read again: names and numbers stay what they are."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path

import pytest

from mushra.analysis.load import load
from mushra.store.export import export, import_csv
from mushra.store.pages import Rating
from mushra.store.store import Store
from mushra.store.whole_sessions import WholePage, WholeSession, add_whole

#: Fractions of which 15 digits are too few.
THIRD, SEVENTH = 100 / 3, 400 / 7


def store_sessions(path: Path, scores: dict[str, float]) -> None:
    """A data base with a session of two items for each uuid."""
    with Store(path) as store:
        for uuid, score in scores.items():
            pages = [
                WholePage(
                    item,
                    "mushra",
                    False,
                    [
                        Rating(name, score=value, time_ms=10.0)
                        for name, value in (("reference", 100.0), ("A", score), ("-b", score / 2))
                    ],
                )
                for item in ("one", "two")
            ]
            whole = WholeSession("t", "webmushra", uuid, [], pages)
            store.write(lambda connection, whole=whole: add_whole(connection, whole))  # type: ignore[misc]


def test_scores_have_all_their_digits_in_every_file(tmp_path: Path) -> None:
    store_sessions(tmp_path / "r.sqlite", {"u1": THIRD, "u2": SEVENTH})
    connection = sqlite3.connect(tmp_path / "r.sqlite")
    stored = sorted(row[0] for row in connection.execute("SELECT score FROM ratings"))
    connection.close()
    with Store(tmp_path / "r.sqlite") as store:
        for kind in ("webmushra", "tidy", "json"):
            export(store, tmp_path / kind, kind)  # type: ignore[arg-type]
    for file, column in (("webmushra/t/mushra.csv", "rating_score"), ("tidy/ratings.csv", "score")):
        with (tmp_path / file).open(newline="") as lines:
            cells = [row[column] for row in csv.DictReader(lines)]
        assert sorted(map(float, cells)) == stored
        assert "100" in cells  # as PHP writes a whole number
    content = json.loads((tmp_path / "json" / "results.json").read_text())
    assert sorted(row["score"] for row in content["ratings"]) == stored
    pages = [page for session in content["sessions"] for page in session["pages"]]
    assert sorted(rating["score"] for page in pages for rating in page["ratings"]) == stored
    right = load([tmp_path / "r.sqlite"]).frame[["listener", "item", "condition", "score"]]
    assert set(right["score"]) == set(stored)
    for file in ("webmushra/t/mushra.csv", "tidy/ratings.csv", "json/results.json"):
        found = load([tmp_path / file]).frame[["listener", "item", "condition", "score"]]
        assert found["score"].tolist() == right["score"].tolist(), file
        assert found["condition"].tolist() == right["condition"].tolist(), file


def test_listeners_whose_ids_differ_by_a_blank_are_two(tmp_path: Path) -> None:
    ids = {"u1": 40.0, "u1 ": 0.0, " u1": 10.0}
    store_sessions(tmp_path / "r.sqlite", ids)
    with Store(tmp_path / "r.sqlite") as store:
        for kind in ("webmushra", "tidy", "json"):
            export(store, tmp_path / kind, kind)  # type: ignore[arg-type]
    for file in ("r.sqlite", "webmushra/t/mushra.csv", "tidy/ratings.csv", "json/results.json"):
        frame = load([tmp_path / file]).frame
        found = frame[(frame["condition"] == "A") & (frame["item"] == "one")].set_index("listener")["score"]
        assert found.to_dict() == ids, file
    # Typed by hand, a blank is a slip.
    (tmp_path / "own.csv").write_text("listener,item,condition,score\nu1,one,A,30\nu1 ,one,B,40\n")
    assert load([tmp_path / "own.csv"]).listeners == ("u1",)


def test_what_a_person_of_several_sessions_gave_is_the_same_file_after_an_import(tmp_path: Path) -> None:
    store_sessions(tmp_path / "r.sqlite", {"u1": 40.0, "u2": 30.0, "u3": 20.0})
    connection = sqlite3.connect(tmp_path / "r.sqlite")
    with connection:
        connection.execute("UPDATE sessions SET person = 'p' WHERE uuid != 'u2'")
    connection.close()
    with Store(tmp_path / "r.sqlite") as store:
        export(store, tmp_path / "first", "webmushra")
    with Store(tmp_path / "again.sqlite") as store:
        assert import_csv(store, tmp_path / "first" / "t" / "mushra.csv") == (3, 0)
        assert import_csv(store, tmp_path / "first" / "t" / "mushra.csv") == (0, 3)
        export(store, tmp_path / "second", "webmushra")
    first, second = ((tmp_path / name / "t" / "mushra.csv").read_bytes() for name in ("first", "second"))
    assert first == second
    assert load([tmp_path / "again.sqlite"]).listeners == load([tmp_path / "r.sqlite"]).listeners


def test_tests_whose_folder_is_one_share_its_file(tmp_path: Path) -> None:
    with Store(tmp_path / "r.sqlite") as store:
        for test in ("a b", "A-b"):
            page = WholePage("x", "mushra", False, [Rating("reference", score=100.0, time_ms=1.0)])
            whole = WholeSession(test, "webmushra", f"of {test}", [], [page])
            store.write(lambda connection, whole=whole: add_whole(connection, whole))  # type: ignore[misc]
        done = export(store, tmp_path / "out", "webmushra")
    assert (done.files, done.sessions) == ((tmp_path / "out" / "a-b" / "mushra.csv",), 2)
    for test in ("a b", "A-b"):
        assert load(done.files[0], tests=[test]).listeners == (f"of {test}",)


def test_plots_of_a_postgresql_test_lie_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from mushra.server import _cache

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    url = "postgresql://user@host/name"
    assert _cache(url, SimpleNamespace(root=tmp_path / "test")) == tmp_path / "test" / "cache"  # type: ignore[arg-type]
    assert _cache(url, None) == tmp_path / "user" / "qincodec" / "mushra"
    assert _cache(tmp_path / "results.sqlite", None) == tmp_path / "cache"
