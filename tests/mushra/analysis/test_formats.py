"""Files of ratings: webMUSHRA's, pymushra's, tables of one's own, and what is none of them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from rating_files import kinds, page, pymushra, session, tidy, webmushra, write

from mushra.analysis.load import load
from qincodec.core.errors import UserError


def test_webmushra_with_session_ids(tmp_path: Path) -> None:
    text = webmushra([session("a", comment='said "good", and\nleft'), session("b", 70)])
    ratings = load([write(tmp_path, text)])
    assert ratings.listeners == ("a", "b")
    assert ratings.conditions == ("reference", "codec@16", "anchor35")
    assert ratings.anchors == ("anchor35",)
    assert ratings.mid_anchor is None
    assert ratings.problems == ()
    assert ratings.matrix().loc["b", "codec@16"] == 62.5
    assert set(ratings.frame["comment"]) == {'said "good", and\nleft', ""}


def test_a_folder_names_its_mushra_csv(tmp_path: Path) -> None:
    write(tmp_path, webmushra([session("a")]))
    assert load([tmp_path]).listeners == ("a",)


def test_sessions_without_ids_are_distinguished(tmp_path: Path) -> None:
    """Two people with the same answers: the second starts where a trial comes again."""
    people = [session("-", 60), session("-", 61), session("-", 62, answers=["31"])]
    ratings = load([write(tmp_path, webmushra(people, uuid=False))])
    assert ratings.listeners == ("session-1", "session-2", "session-3")
    assert len(ratings.frame) == 18
    assert kinds(ratings) == {"no session ids": 18}


def test_without_questions_too(tmp_path: Path) -> None:
    text = webmushra([session("a", answers=[]), session("b", 70, answers=[])], questions=())
    assert load([write(tmp_path, text)]).listeners == ("a", "b")


def test_column_map_names_the_listener_in_webmushra(tmp_path: Path) -> None:
    """One person in two sessions, known by an answer."""
    first = {"uuid": "a", "answers": ["ann"], "scores": {"t1": page(100, 20, 50)}}
    second = {"uuid": "b", "answers": ["ann"], "scores": {"t2": page(100, 20, 50)}}
    text = webmushra([first, second], questions=("email",))
    ratings = load([write(tmp_path, text)], columns={"listener": "email"})
    assert ratings.listeners == ("ann",)


def test_repeated_headers_also_with_another_questionnaire(tmp_path: Path) -> None:
    text = webmushra([session("a")]) + webmushra(
        [session("b", answers=["3", "4"])], questions=("years", "hours")
    )
    ratings = load([write(tmp_path, text)])
    assert ratings.listeners == ("a", "b")
    assert kinds(ratings) == {"repeated header": 1}


def test_shifted_rows_are_read_from_the_right(tmp_path: Path) -> None:
    """The questionnaire got a question and the file kept its header."""
    added = webmushra([session("b", answers=["3", "4"])], questions=("age", "hours"))
    text = webmushra([session("a")]) + added.split("\n", 1)[1]
    ratings = load([write(tmp_path, text)])
    assert ratings.listeners == ("a", "b")
    assert kinds(ratings) == {"shifted rows": 6}


def test_broken_rows_are_reported(tmp_path: Path) -> None:
    ratings = load([write(tmp_path, webmushra([session("a")]) + "test,30\n")])
    assert len(ratings.frame) == 6
    assert kinds(ratings) == {"broken rows": 1}


def test_tidy_csv_with_column_map_and_semicolons(tmp_path: Path) -> None:
    text = "Subject;Track;System;Rating\np1;s1;ref;99,5\np1;s1;B;10\n"
    columns = {"listener": "Subject", "item": "Track", "condition": "System", "score": "Rating"}
    ratings = load([write(tmp_path, text)], columns=columns)
    assert ratings.frame["score"].tolist() == [10, 99.5]
    assert ratings.reference == "ref"
    assert kinds(ratings) == {"delimiter": 0}


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    text = "listener,item,condition,score\r\na,x,A,1\r\n".encode("utf-8-sig")
    assert len(load([write(tmp_path, text)]).frame) == 1


def test_tidy_json(tmp_path: Path) -> None:
    rows = [{"listener": "a", "item": "x", "condition": c, "score": s} for c, s in (("A", 1), ("B", 22.5))]
    for content in (rows, {"ratings": rows}):
        ratings = load([write(tmp_path, json.dumps(content), "export.json")])
        assert ratings.frame["score"].tolist() == [1, 22.5]


def test_pymushra(tmp_path: Path) -> None:
    ratings = load([pymushra(tmp_path)])
    assert ratings.listeners == ("u1", "u2")
    assert ratings.conditions == ("reference", "16", "anchor35")
    assert ratings.matrix().loc["u2", "16"] == 53.5
    assert kinds(ratings) == {"other pages": 1}


def test_pymushras_table_needs_no_column_map(tmp_path: Path) -> None:
    """As `pymushra df` writes: one row per response, columns of three levels joined; as from JSON."""
    content = json.loads(pymushra(tmp_path).read_text())["demo"].values()
    rows = [
        {
            "questionaire_age": page["questionaire"]["age"],
            "questionaire_uuid": page["questionaire"]["uuid"],
            **{f"responses_{name}": value for name, value in response.items()},
            **{f"wm_{name}": page[name] for name in ("id", "type", "testId")},
        }
        for page in content
        for response in page["responses"]
    ]
    table = pd.DataFrame(rows).rename_axis("index").reset_index()
    ratings = load([write(tmp_path, table.to_csv(index=False), "table.csv")])
    pd.testing.assert_frame_equal(ratings.frame, load([pymushra(tmp_path)]).frame)
    assert kinds(ratings) == {"other pages": 3}
    with pytest.raises(UserError, match="has no column listener, item"):
        load([write(tmp_path, table.drop(columns="wm_id").to_csv(index=False), "less.csv")])


@pytest.mark.parametrize("own", [False, True])
def test_one_name_under_two_ids_is_reported_without_the_name(tmp_path: Path, own: bool) -> None:
    answers = ["Jo  Doe", "Kim", "jo doe"]
    if own:
        content = json.loads(pymushra(tmp_path).read_text())
        for page in content["demo"].values():
            page["questionaire"]["Name"] = "Jo"
        path = write(tmp_path, json.dumps(content), "named.json")
    else:
        people = [session(uuid, 60, answers=["30", name]) for uuid, name in zip("abc", answers, strict=True)]
        path = write(tmp_path, webmushra(people, questions=("age", "your_name")))
    told = [problem for problem in load([path]).problems if problem.kind == "same name"]
    (problem,) = told
    assert problem.detail.startswith("u1 and u2 gave" if own else "a and c gave")
    assert problem.rows == 12 and "jo" not in problem.detail.lower()


def test_formats_can_be_mixed(tmp_path: Path) -> None:
    one = write(tmp_path, webmushra([{"uuid": "a", "scores": {"1": {"reference": 100, "16": 3}}}]))
    ratings = load([one, pymushra(tmp_path)], tests=["demo", "test"])
    assert ratings.listeners == ("a", "u1", "u2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("listener,item,condition,score\n", "a header and no rows"),
        ("listener;item;condition;score\na,x,A,5\n", "no row can be read: .* delimiter"),
        ('listener,item,condition,score\n"a,x,A,5\n', "no row can be read"),
        ("just some words\nand more\n", "no commas, semicolons or tabs"),
        ("a,b,c\n1,2,3\n", "has no column listener, item, condition, score; it has a, b, c; .*--columns"),
        ("listener,item,condition,score,score\na,x,A,1,2\n", "'score' is in the file or in --columns twice"),
        ("listener,item,condition,score\na,x,A,good\n", "no usable rating is left"),
        ("listener,item,condition,score\n,x,A,1\n", "no usable rating is left"),
        ("listener,item,condition,score\na,x,A,1".encode("utf-16"), "is not UTF-8"),
        (
            "listener,item,condition,score\nJosé,x,A,1".encode("latin1"),
            "is not UTF-8: byte 33 is 0xe9.*iconv",
        ),
        (b"\x89PNG\r\n", "is not UTF-8"),
        (b"a,b\0c\n", "zero bytes"),
        ("session_test_id,trial_id,choice_reference\nt,x,A\n", "paired comparisons"),
        ("session_test_id,trial_id,rating_reference_score\nt,x,1\n", "BS.1116"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "holds no ratings"),
        ("[]", "empty list"),
        ("[1, 2]", "not a list of rows"),
        ('[{"listener": "a"}]', "has no column item, condition, score"),
        ('{"t": {"1": {"responses": [], "id": "x"}}}', "has no questionaire.uuid|unknown"),
        (
            '{"t": {"1": {"responses": [], "id": "x", "questionaire": {"uuid": "u"}}}}',
            "no page of type mushra",
        ),
        ('{"t": {"1": {"responses": [3], "questionaire": {"uuid": "u"}}}}', "response that is not an object"),
        (b"SQLite format 3\0rest", "file is not a database; the file is damaged"),
    ],
)
def test_bad_files_give_one_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load([write(tmp_path, content)])
    assert "\n" not in str(caught.value)


def test_missing_files_and_columns(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load([tmp_path / "nope.csv"])
    with pytest.raises(UserError, match="holds no ratings"):
        load([tmp_path])
    with pytest.raises(UserError, match="no source"):
        load([])
    path = write(tmp_path, tidy([("1", "x", "A", 10)]))
    with pytest.raises(UserError, match="no column 'who'"):
        load([path], columns={"listener": "who"})
    with pytest.raises(UserError, match="no column 'who'"):
        load([write(tmp_path, webmushra([session("a")]))], columns={"listener": "who"})
