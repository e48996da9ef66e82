"""webMUSHRA's CSV files: written as PHP writes them, and read again."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from webmushra_client import COMMENT, SESSION, YAML, raw, submit

from mushra.store import export
from mushra.store.pages import Rating
from mushra.store.ratings import read_ratings
from mushra.store.store import Store
from mushra.store.whole_sessions import WholePage, WholeSession, add_whole
from qincodec.core.errors import UserError


def tables(name: str) -> dict[str, list[Any]]:
    """What a data base holds, save what differs by nature: ids, times, how it came."""
    connection = sqlite3.connect(name)
    order = "ORDER BY s.test, s.uuid, p.position, r.position"
    join = "FROM ratings r JOIN pages p USING (session, page) JOIN sessions s ON s.id = r.session"
    columns = (
        "s.test, s.uuid, s.state, p.trial, p.type, p.time_ms, r.position, r.stimulus, r.reference, r.score"
    )
    columns += ", r.reference_score, r.answer, r.time_ms, r.comment"
    named = "FROM answers a JOIN sessions s ON s.id = a.session ORDER BY s.test, s.uuid, a.position"
    return {
        "ratings": connection.execute(f"SELECT {columns} {join} {order}").fetchall(),
        "answers": connection.execute(f"SELECT s.uuid, a.name, a.value {named}").fetchall(),
    }


def test_exporting_and_importing_gives_the_same_rows(classic: Any, checkout: Path, tmp_path: Path) -> None:
    others = ("pair", "graded", "liked")
    lines = [line for line in YAML.splitlines() if not any(f"id: {name}," in line for name in others)]
    (checkout / "configs" / "default.yaml").write_text("\n".join(lines))
    mushra_only = {**SESSION, "trials": SESSION["trials"][:1]}
    for n in range(3):
        assert submit(classic, raw({**mushra_only, "uuid": f"u{n}"})).status_code == 200
    store = classic.extensions["mushra"].store
    done = export.export(store, tmp_path / "out", "webmushra")
    (path,) = done.files
    assert path == tmp_path / "out" / "my-test" / "mushra.csv"
    with Store(tmp_path / "again.sqlite") as again:
        assert export.import_csv(again, path) == (3, 0)
        assert export.import_csv(again, path) == (0, 3)
        export.export(again, tmp_path / "out2", "webmushra")
    assert (tmp_path / "out2" / "my-test" / "mushra.csv").read_bytes() == path.read_bytes()
    assert tables(str(tmp_path / "again.sqlite")) == tables(store.name)


def test_columns_are_webmushras(classic: Any, tmp_path: Path) -> None:
    submit(classic, raw(SESSION))
    done = export.export(classic.extensions["mushra"].store, tmp_path, "webmushra")
    files = {path.name: list(csv.reader(path.open(newline="", encoding="utf-8"))) for path in done.files}
    who, said = ["session_test_id", "age", "e&mail"], ["My Test", "33", "a+b@example.org"]
    assert files["mushra.csv"][0] == [
        *who,
        *("session_uuid", "trial_id", "rating_stimulus", "rating_score", "rating_time", "rating_comment"),
    ]
    assert files["mushra.csv"][1] == [*said, "5b8c-uuid", "drums+saw", "reference", "100", "1234", COMMENT]
    assert files["paired_comparison.csv"] == [
        [
            *who,
            *("trial_id", "choice_reference", "choice_non_reference", "choice_answer", "choice_time"),
            "choice_comment",
        ],
        [*said, "pair", "reference", "C1", "reference", "5", ""],
    ]
    assert files["bs1116.csv"] == [
        [
            *who,
            *("trial_id", "rating_reference", "rating_non_reference", "rating_reference_score"),
            *("rating_non_reference_score", "rating_time", "choice_comment"),
        ],
        [*said, "graded", "reference", "C1", "5", "3.6", "77", "dull"],
    ]
    assert files["lms.csv"] == [
        [*who, "trial_id", "stimuli_rating", "stimuli", "rating_time"],
        [*said, "liked", " 2 ", "C1", "9"],
    ]
    with Store(tmp_path / "again.sqlite") as again:
        for path in done.files:
            assert export.import_csv(again, path) == (1, 0)
        export.export(again, tmp_path / "out2", "webmushra")
    for path in done.files:
        assert (tmp_path / "out2" / "my-test" / path.name).read_bytes() == path.read_bytes()


def test_a_real_test_comes_back_byte_for_byte(shared: Any, tmp_path: Path) -> None:
    source = shared("mushra/AES2023_webmushra_results.csv")
    with Store(tmp_path / "a.sqlite") as store:
        assert export.import_csv(store, source) == (22, 0)
        done = export.export(store, tmp_path / "out", "webmushra")
        frame = read_ratings(store)
    assert done.files[0].read_bytes() == source.read_bytes()
    means = frame.groupby("condition")["score"].mean().round(3)
    assert means[["reference", "FOA", "Param1", "Mono"]].to_list() == [96.385, 78.441, 75.175, 19.549]
    assert frame["listener"].nunique() == 22


#: webMUSHRA's writer of lms.csv, as far as its files show it: a rating stands between blanks.
PHP = """
$out = fopen($argv[1], "w");
foreach (json_decode(stream_get_contents(STDIN)) as $row) fputcsv($out, $row);
"""


@pytest.mark.skipif(shutil.which("php") is None, reason="needs PHP: apt-get install php-cli")
def test_lms_is_what_php_writes_byte_for_byte(classic: Any, tmp_path: Path) -> None:
    assert submit(classic, raw(SESSION)).status_code == 200
    texts = ["2", "very good", "", "NA", "a,b", 'say "x"', "\u00e4", "two\nlines"]
    rows = [Rating(f"C {n}", answer=text, time_ms=9) for n, text in enumerate(texts)]
    page = WholePage("p 1", "likert_multi_stimulus", False, rows)
    store = classic.extensions["mushra"].store
    session = WholeSession("My Test", "webmushra", "u", [("age", "4 5"), ("e&mail", "x")], [page])
    store.write(lambda connection: add_whole(connection, session))
    head = ["session_test_id", "age", "e&mail", "trial_id", "stimuli_rating", "stimuli", "rating_time"]
    expected: list[Any] = [head, ["My Test", "33", "a+b@example.org", "liked", " 2 ", "C1", 9]]
    expected += [["My Test", "4 5", "x", "p 1", f" {text} ", f"C {n}", 9] for n, text in enumerate(texts)]
    by_php = tmp_path / "lms.csv"
    subprocess.run(["php", "-r", PHP, str(by_php)], input=json.dumps(expected).encode(), check=True)
    assert export.render(store, "webmushra")["my-test/lms.csv"].encode() == by_php.read_bytes()
    with Store(tmp_path / "again.sqlite") as again:
        assert export.import_csv(again, by_php) == (2, 0)
        assert export.render(again, "webmushra")["my-test/lms.csv"].encode() == by_php.read_bytes()
        document = export.document(again)
    answers = [rating["answer"] for rating in document["sessions"][1]["pages"][0]["ratings"]]
    assert answers == texts


def test_files_without_session_ids_are_told_apart(tmp_path: Path) -> None:
    header = "session_test_id,age,trial_id,rating_stimulus,rating_score,rating_time,rating_comment\n"
    rows = "t,30,a,X,1,5,\nt,30,a,Y,2,5,\nt,30,b,X,3,5,\nt,30,a,X,4,5,\nt,31,a,X,5,5,\n"
    path = tmp_path / "mushra.csv"
    path.write_text(header + rows)
    with Store(tmp_path / "a.sqlite") as store:
        assert export.import_csv(store, path) == (3, 0)
        assert list(read_ratings(store).groupby("session", sort=False)["score"].agg(list)) == [
            [1, 2, 3],
            [4],
            [5],
        ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "none of webMUSHRA's headers"),
        (
            "session_test_id,trial_id,rating_stimulus,rating_score,rating_time,rating_comment\nt,a,X,1,5\n",
            "row 2 has 5",
        ),
        (
            "session_test_id,trial_id,rating_stimulus,rating_score,rating_time,rating_comment\nt,a,X,ten,5,\n",
            "'ten'",
        ),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_whole(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "mushra.csv"
    path.write_text(text)
    with Store(tmp_path / "a.sqlite") as store:
        with pytest.raises(UserError, match=reason):
            export.import_csv(store, path)
        assert read_ratings(store).empty


@pytest.mark.parametrize("evil", ["=1+1", "+cmd|x", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1", "'=1"])
def test_a_spreadsheet_takes_nothing_for_a_formula(classic: Any, tmp_path: Path, evil: str) -> None:
    page = WholePage(evil, "mushra", False, [Rating(evil, score=-3, comment=evil, time_ms=1)])
    whole = WholeSession("My Test", "webmushra", "u", [(evil, evil), ("n", "-5")], [page])
    store = classic.extensions["mushra"].store
    store.write(lambda connection: add_whole(connection, whole))
    for kind in ("webmushra", "tidy"):
        text = next(iter(export.render(store, kind).values()))  # type: ignore[arg-type]
        for row in csv.reader(io.StringIO(text, newline="")):
            for cell in row:
                assert cell[:1] not in tuple("=@\t\r\uff1d"), cell
                assert cell[:1] not in ("+", "-") or float(cell) in (-3, -5)
    (path,) = export.export(store, tmp_path / "o", "webmushra").files
    with Store(tmp_path / "again.sqlite") as again:
        export.import_csv(again, path)
    assert tables(str(tmp_path / "again.sqlite")) == tables(store.name)


def test_the_key_is_applied(serve: Any, listener: Any, tmp_path: Path) -> None:
    app = serve()
    listener(app).take()
    names = {"A": "qincodec@16", "B": "opus@8", "reference": "reference"}
    signals = {name: {"condition": condition} for name, condition in names.items()}
    key = tmp_path / "key.json"
    key.write_text(
        json.dumps({"format": 1, "trials": {"one": {"signals": signals}, "two": {"signals": signals}}})
    )
    store = app.extensions["mushra"].store
    assert set(read_ratings(store, key=key)["condition"]) == set(names.values())
    text = export.render(store, "webmushra", key=key)["small/mushra.csv"]
    assert "qincodec@16" in text
    assert ",A," not in text
    everything = export.document(store, key=key)
    page = next(page for page in everything["sessions"][0]["pages"] if page["trial"] == "one")
    assert set(page["signals"].values()) == set(names.values())
    with pytest.raises(UserError, match="is not a key"):
        (tmp_path / "bad.json").write_text('{"trials": {"one": 3}}')
        read_ratings(store, key=tmp_path / "bad.json")


def test_unfinished_and_excluded_sessions_are_left_out_and_said(
    serve: Any, listener: Any, tmp_path: Path
) -> None:
    app = serve()
    store = app.extensions["mushra"].store
    listener(app)
    with pytest.raises(UserError, match="not finished or excluded: 1 session, which --all"):
        export.export(store, tmp_path / "o", "tidy")
    listener(app).take()
    done = export.export(store, tmp_path / "o", "tidy")
    assert (done.sessions, done.left_out) == (1, 1)
    assert len(list(csv.reader((tmp_path / "o" / "ratings.csv").open(newline="")))) == 1 + 6
    named = export.export(store, tmp_path / "mine.csv", "tidy", everything=True)
    assert named.files == (tmp_path / "mine.csv",)
    assert "training1" in (tmp_path / "mine.csv").read_text()
