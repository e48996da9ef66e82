"""webMUSHRA's endpoint, its CSV files, and a checkout's own pages."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from yaml_js import read_all

from mushra.server import create_app
from mushra.server.submission import as_sent
from mushra.store import export, records
from mushra.store.pages import Rating
from mushra.store.ratings import read_ratings
from mushra.store.store import Store
from mushra.store.whole_sessions import WholePage, WholeSession, add_whole
from qincodec.core.errors import UserError

COMMENT = 'A & B + C = 100% "fine" %41 \u00e4\U0001f3a7'
SESSION = {
    "testId": "My Test",
    "participant": {"name": ["age", "e&mail"], "response": ["33", "a+b@example.org"]},
    "trials": [
        {
            "id": "drums+saw",
            "type": "mushra",
            "responses": [
                {"stimulus": "reference", "score": "100", "comment": COMMENT, "time": 1234},
                {"stimulus": "C1", "score": "40", "comment": "", "time": 1234},
            ],
        },
        {
            "id": "pair",
            "type": "paired_comparison",
            "responses": [
                {
                    "reference": "reference",
                    "nonReference": "C1",
                    "answer": "reference",
                    "comment": "",
                    "time": 5,
                }
            ],
        },
        {
            "id": "graded",
            "type": "bs1116",
            "responses": [
                {
                    "reference": "reference",
                    "nonReference": "C1",
                    "referenceScore": "5.0",
                    "nonReferenceScore": "3.6",
                    "comment": "dull",
                    "time": 77,
                }
            ],
        },
        {
            "id": "liked",
            "type": "likert_multi_stimulus",
            "responses": [{"stimulus": "C1", "stimulusRating": "2", "time": 9}],
        },
    ],
    "uuid": "5b8c-uuid",
    "config": "configs/default.yaml",
}


#: What SESSION is a session of.
YAML = """
testname: x
testId: My Test
pages:
  - {type: mushra, id: drums+saw, reference: r.wav, stimuli: {C1: a.wav}}
  - {type: paired_comparison, id: pair, reference: r.wav, stimuli: {C1: a.wav}}
  - {type: bs1116, id: graded, reference: r.wav, stimuli: {C1: a.wav}}
  - {type: likert_multi_stimulus, id: liked, stimuli: {C1: a.wav}, response: [{value: "1"}, {value: "2"}]}
  - type: finish
    questionnaire: [{type: text, name: age}, {type: text, name: e&mail}]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "webMUSHRA"
    for path, text in {
        "index.html": "<html><script>1</script></html>",
        "lib/app.js": "var a;",
        "configs/default.yaml": YAML,
        "service/write.php": "<?php secret",
        "results/x/mushra.csv": "private",
        ".git/config": "private",
        "key.json": "private",
        "cache/plots/means.png": "private",
        "x.sqlite-wal": "private",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    return folder


@pytest.fixture
def classic(checkout: Path, tmp_path: Path) -> Any:
    app = create_app(None, tmp_path / "classic.sqlite", webmushra_folder=checkout)
    yield app
    app.extensions["mushra"].store.close()


def raw(session: Any) -> bytes:
    """As the original client sends it: JSON, not encoded."""
    return b"sessionJSON=" + json.dumps(session, ensure_ascii=False).encode()


def encoded(session: Any) -> bytes:
    return b"sessionJSON=" + quote(json.dumps(session)).encode()


def encoded_with_plus(session: Any) -> bytes:
    return b"sessionJSON=" + quote(json.dumps(session)).replace("%20", "+").encode()


def with_score(score: Any) -> dict[str, Any]:
    trial = {**TRIALS[0], "responses": [TRIALS[0]["responses"][0], {"stimulus": "C1", "score": score}]}
    return {**SESSION, "trials": [trial, *TRIALS[1:]]}


def changed(number: int, **values: Any) -> dict[str, Any]:
    """One of SESSION's trials, its last response changed."""
    trial = TRIALS[number]
    return {**trial, "responses": [*trial["responses"][:-1], {**trial["responses"][-1], **values}]}


TRIALS: Any = SESSION["trials"]
#: Trials that the test of SESSION could not have led to.
FOREIGN_TRIALS: list[Any] = [
    [{**TRIALS[0], "id": "other"}],
    [{**TRIALS[0], "type": "bs1116"}],
    [TRIALS[0], TRIALS[0]],
    [{**TRIALS[0], "responses": TRIALS[0]["responses"][:1]}],
    [{**TRIALS[0], "responses": TRIALS[0]["responses"] * 2}],
    [changed(0, stimulus="C2")],
    [changed(0, stimulus="reference")],
    [changed(1, nonReference="C2")],
    [changed(1, reference="C1")],
    [changed(2, nonReferenceScore="5.1")],
    [changed(2, referenceScore="0.9")],
    [changed(3, stimulusRating="3")],
    [changed(3, stimulus="reference")],
    [changed(3, stimulusRating=["1", "2"])],
    *([changed(1, answer=answer)] for answer in ("whatever", "", None, "undecided", "Neither", "C2")),
    *([changed(2, nonReferenceScore=score)] for score in (3.33333, "3.33333", "3.65", "3e0", " 3.5")),
    *([changed(0, time=time)] for time in (-5, "-5", "1e3", "5_0")),
    *([{**trial, "responses": []}] for trial in TRIALS[:3]),
    [{"id": "page5", "type": "finish", "responses": []}],
    [1],
    "x",
]


def with_the_others(trials: Any) -> dict[str, Any]:
    """SESSION with these trials instead of its own of the same ids, so that nothing else is wrong with it."""
    ids = {trial["id"] for trial in trials if isinstance(trial, dict)} if isinstance(trials, list) else set()
    others = [trial for trial in TRIALS if trial["id"] not in ids]
    return {**SESSION, "trials": [*trials, *others] if ids else trials}


FORM = "application/x-www-form-urlencoded"


def submit(app: Any, body: bytes, mimetype: str = f"{FORM}; charset=UTF-8") -> Any:
    return app.test_client().post("/service/write.php", data=body, content_type=mimetype)


@pytest.mark.parametrize("encode", [raw, encoded, encoded_with_plus])
def test_nothing_is_lost_however_the_client_encodes(classic: Any, encode: Callable[[Any], bytes]) -> None:
    done = submit(classic, encode(SESSION))
    assert (done.status_code, done.data) == (200, b"")
    store = classic.extensions["mushra"].store
    connection = sqlite3.connect(store.name)
    found = connection.execute("SELECT trial, stimulus, score, comment FROM ratings WHERE type = 'mushra'")
    assert found.fetchall() == [("drums+saw", "reference", 100.0, COMMENT), ("drums+saw", "C1", 40.0, "")]
    assert connection.execute("SELECT name, value FROM answers").fetchall() == [
        ("age", "33"),
        ("e&mail", "a+b@example.org"),
    ]
    assert connection.execute("SELECT uuid, test, state FROM sessions").fetchall() == [
        ("5b8c-uuid", "My Test", "finished")
    ]


def test_a_double_click_stores_once(classic: Any) -> None:
    for encode in (raw, raw, encoded):
        assert submit(classic, encode(SESSION)).status_code == 200
    name = classic.extensions["mushra"].store.name
    assert sqlite3.connect(name).execute("SELECT count(*) FROM sessions").fetchone() == (1,)


def test_multipart_forms_are_read_too(classic: Any) -> None:
    done = classic.test_client().post("/service/write.php", data={"sessionJSON": json.dumps(SESSION)})
    multipart = classic.test_client().post(
        "/service/write.php",
        data={"sessionJSON": json.dumps({**SESSION, "uuid": "other"})},
        content_type="multipart/form-data",
    )
    assert (done.status_code, multipart.status_code) == (200, 200)
    assert set(read_ratings(classic.extensions["mushra"].store)["comment"]) == {COMMENT, ""}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"sessionJSON=",
        b"other={}",
        b"sessionJSON={",
        b"sessionJSON=%7B",
        b"sessionJSON=[]",
        b"sessionJSON={}",
        b"sessionJSON=" + b"[" * 100_000,
        b'sessionJSON={"a":' * 50_000,
        b"sessionJSON=\xff\xfe",
        raw({**SESSION, "trials": []}),
        raw({**SESSION, "trials": [{"id": "drums+saw", "type": "mushra", "responses": [1]}]}),
        *(raw(with_score(score)) for score in ("ten", float("nan"), 10**400, None, "101", -1, "1e999", True)),
        *(
            raw(with_score(score))
            for score in (100 / 3, "33.333333333333336", "33.5", "5_0", "1e2", "\u0665\u0660")
        ),
        *(raw(with_score(score)) for score in (" 50", "50 ", "+50", "50.", "5\n")),
        *(raw({**SESSION, "trials": TRIALS[:n]}) for n in (1, 2, 3)),
        *(raw({**SESSION, "uuid": uuid}) for uuid in ("u\u200b1", "\uff55\uff11", "u\n1")),
        raw(with_score(50)).replace(b"50", b"1e999"),
        *(raw(with_the_others(trials)) for trials in FOREIGN_TRIALS),
        raw({**SESSION, "participant": {"name": ["shoe size"], "response": ["44"]}}),
        raw({**SESSION, "testId": "Your Test"}),
        raw({**SESSION, "participant": {"name": ["a"], "response": []}}),
        raw({**SESSION, "testId": ""}),
        raw({**SESSION, "testId": {"a": 1}}),
    ],
)
def test_a_bad_submission_is_refused_with_a_reason_and_nothing_stored(classic: Any, body: bytes) -> None:
    answer = submit(classic, body)
    assert answer.status_code == 400
    assert answer.data  # the client shows any body as an error
    name = classic.extensions["mushra"].store.name
    for table in ("sessions", "pages", "ratings", "answers"):
        assert sqlite3.connect(name).execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


#: What the page of the test "small" would send.
OWN = {
    "testId": "small",
    "trials": [
        {
            "id": trial,
            "type": "mushra",
            "responses": [{"stimulus": name, "score": "50", "time": 1} for name in ("A", "B", "reference")],
        }
        for trial in ("one", "two")
    ]
    + [
        {
            "id": "graded",
            "type": "bs1116",
            "responses": [
                {
                    "reference": "reference",
                    "nonReference": name,
                    "referenceScore": "5.0",
                    "nonReferenceScore": "3.4",
                }
                for name in ("A", "B")
            ],
        },
        {
            "id": "pairs",
            "type": "paired_comparison",
            "responses": [{"reference": "reference", "nonReference": "A", "answer": "reference", "time": 5}],
        },
        {
            "id": "liked",
            "type": "likert_multi_stimulus",
            "responses": [{"stimulus": name, "stimulusRating": "2", "time": 9} for name in ("A", "B")],
        },
    ],
    "uuid": "of-this-session",
}


def test_a_scale_of_the_page_is_taken_whole(serve: Any) -> None:
    app = serve(submissions=True)
    store = app.extensions["mushra"].store
    for number, answer in enumerate(("reference", "A", "nonReference", "undecided", "Neither")):
        text = json.dumps({**OWN, "uuid": f"u{number}"}).replace(
            '"answer": "reference"', f'"answer": "{answer}"'
        )
        assert submit(app, raw(json.loads(text))).status_code == 200, answer
    every = [*range(101), *(str(score) for score in range(101))]
    for score in every[:: len(every) // 8]:
        text = json.dumps({**OWN, "uuid": f"m{score!r}"}).replace('"50"', json.dumps(score))
        assert submit(app, raw(json.loads(text))).status_code == 200, score
    for tenths in range(10, 51):
        text = json.dumps({**OWN, "uuid": f"b{tenths}"}).replace('"3.4"', f'"{tenths / 10}"')
        assert submit(app, raw(json.loads(text))).status_code == 200, tenths
    with store.read() as connection:
        graded = connection.exec_driver_sql("SELECT DISTINCT score FROM ratings WHERE type = 'bs1116'").all()
    assert sorted(score for (score,) in graded) == [tenths / 10 for tenths in range(10, 51)]


def test_questions_that_may_be_left_open_may(make_folder: Any, serve: Any, small_test: str) -> None:
    spatial = "  - {type: spatial, id: where, stimuli: {A: a.wav}}\n  - type: finish"
    yaml = small_test.replace("mustRate: true", "mustRate: false").replace("  - type: finish", spatial)
    app = serve(folder=make_folder(yaml), submissions=True)
    trials: Any = [{**trial, "responses": []} if trial["id"] == "liked" else trial for trial in OWN["trials"]]
    where: Any = {"id": "where", "type": "spatial", "responses": []}
    assert submit(app, raw({**OWN, "trials": [*trials, where]})).status_code == 400
    assert submit(app, raw({**OWN, "trials": trials})).status_code == 400
    where["responses"] = [{"name": "A", "position": [0, 1]}]
    assert submit(app, raw({**OWN, "trials": [*trials, where]})).status_code == 200


def test_a_drawn_part_of_the_stimuli_is_whole(make_folder: Any, serve: Any, small_test: str) -> None:
    app = serve(
        folder=make_folder(small_test.replace("mustRate: true", "mustRate: true\n    maxStimuli: 1")),
        submissions=True,
    )
    liked: Any = OWN["trials"][-1]  # type: ignore[index]
    for n, status in ((0, 400), (1, 200)):
        trials = [*OWN["trials"][:-1], {**liked, "responses": liked["responses"][:n]}]  # type: ignore[index]
        assert submit(app, raw({**OWN, "trials": trials})).status_code == status


def test_submissions_are_taken_where_they_were_asked_for(make_folder: Any, serve: Any) -> None:
    folder = make_folder()
    unasked = submit(serve(folder=folder), raw(OWN))
    assert (unasked.status_code, b"--submissions" in unasked.data) == (404, True)
    app = serve(folder=folder, submissions=True)
    assert submit(app, raw(SESSION)).status_code == 400
    assert submit(app, raw(OWN)).status_code == 200
    assert len(read_ratings(app.extensions["mushra"].store)) == 6


def test_a_closed_test_takes_no_submission_but_confirms_one_it_has(serve: Any) -> None:
    app = serve(submissions=True)
    store = app.extensions["mushra"].store
    assert submit(app, raw(OWN)).status_code == 200
    store.write(lambda connection: records.set_closed(connection, "small", True))
    refused = submit(app, raw({**OWN, "uuid": "late"}))
    assert (refused.status_code, b"closed" in refused.data) == (403, True)
    assert submit(app, raw(OWN)).status_code == 200
    assert len(read_ratings(store)) == 6


@pytest.mark.parametrize("who", ["invitation", "prolific"])
def test_a_test_that_asks_who_one_is_takes_no_submissions(
    make_folder: Any, serve: Any, checkout: Path, who: str
) -> None:
    with pytest.raises(UserError, match="identification: anonymous"):
        serve(folder=make_folder(section=f"identification: {who}"), submissions=True)
    (checkout / "configs" / "default.yaml").write_text(f"{YAML}qincodec: {{identification: {who}}}")
    app = create_app(None, checkout / "a.sqlite", webmushra_folder=checkout)
    assert submit(app, raw(SESSION)).status_code == 403
    app.extensions["mushra"].store.close()


def test_one_session_per_person_holds_for_submissions(make_folder: Any, serve: Any) -> None:
    app = serve(folder=make_folder(section="one_session_per_person: true"), submissions=True)
    client = app.test_client()

    def send(uuid: str) -> int:
        data = raw({**OWN, "uuid": uuid})
        status: int = client.post("/service/write.php", data=data, content_type=FORM).status_code
        return status

    assert [send("u1"), send("u1"), send("u2")] == [200, 200, 403]
    assert client.post("/api/sessions", json={}).get_json()["code"] == "already_done"
    assert submit(app, raw({**OWN, "uuid": "u3"})).status_code == 200  # another browser


BLANKS = [("", " "), (" ", ""), ("\t", "\n"), ("", "\u00a0"), ("\u3000", "")]


@pytest.mark.parametrize("finished", [True, False])
def test_a_submission_never_becomes_part_of_another_listeners_results(
    serve: Any, listener: Any, finished: bool
) -> None:
    app = serve(submissions=True)
    store = app.extensions["mushra"].store
    one = listener(app)
    if finished:
        one.take()
    assert submit(app, raw(OWN)).status_code == 200
    stored = read_ratings(store, everything=True)
    ids = (one.session["id"], "of-this-session")
    # A reader strips blanks around names: with them it would be the same listener.
    for uuid in (*ids, *(f"{before}{uuid}{after}" for uuid in ids for before, after in BLANKS)):
        changed = json.loads(json.dumps({**OWN, "uuid": uuid}).replace('"50"', '"51"'))
        assert submit(app, raw(changed)).status_code == 403
    assert read_ratings(store, everything=True).equals(stored)
    # Without an id each is a listener of their own.
    for score in ("52", "53"):
        changed = json.loads(json.dumps({**OWN, "uuid": None}).replace('"50"', f'"{score}"'))
        assert submit(app, raw(changed)).status_code == 200
    assert read_ratings(store)["listener"].nunique() == 3 + finished


def test_grades_of_training_pages_are_kept_apart(serve: Any) -> None:
    app = serve(submissions=True)
    training = {**OWN["trials"][0], "id": "training1"}  # type: ignore[index]
    training["responses"] = [{"stimulus": name, "score": 5, "time": 1} for name in ("A", "reference")]
    assert submit(app, raw({**OWN, "trials": [training, *OWN["trials"]]})).status_code == 200  # type: ignore[misc]
    assert set(read_ratings(app.extensions["mushra"].store)["item"]) == {"one", "two"}


#: Names without quotes that webMUSHRA's parser makes values of, and what is none.
NUMBERED = """
testname: x
testId: 2024-01-02
pages:
  - type: mushra
    id: 01
    reference: r.wav
    stimuli:
      1.50: a.wav
      010: b.wav
      True: c.wav
      18_27: d.wav
  - type: paired_comparison
    id: 1e3
    reference: r.wav
    stimuli:
      0x10: a.wav
  - type: likert_multi_stimulus
    id: true
    stimuli:
      007: a.wav
    response: [{value: 010}, {value: 1:30}]
  - {type: finish, questionnaire: [{type: text, name: 02}]}
"""


def test_names_that_look_like_numbers_stay_those_of_the_file(classic: Any, checkout: Path) -> None:
    (checkout / "configs" / "numbered.yaml").write_text(NUMBERED)
    (read,) = read_all([NUMBERED])
    # What the client knows: its parser's values, a date as JSON has it.
    mushra, pair, likert, finish = read["typed"]["pages"]
    assert (mushra["id"], list(pair["stimuli"])) == (1, ["16"])
    rated = [{"stimulus": name, "score": 50} for name in (*mushra["stimuli"], "reference")]
    chosen = {"reference": "reference", "nonReference": "16", "answer": "16"}
    liked = {"stimulus": next(iter(likert["stimuli"])), "stimulusRating": str(likert["response"][0]["value"])}
    session = {
        "testId": "2024-01-02T00:00:00.000Z",
        "participant": {"name": [finish["questionnaire"][0]["name"]], "response": ["me"]},
        "trials": [
            {"id": mushra["id"], "type": "mushra", "responses": rated},
            {"id": pair["id"], "type": "paired_comparison", "responses": [chosen]},
            {"id": likert["id"], "type": "likert_multi_stimulus", "responses": [liked]},
        ],
        "uuid": "u",
    }
    done = submit(classic, raw(session))
    assert (done.status_code, done.data) == (200, b"")
    with classic.extensions["mushra"].store.read() as connection:
        rows = connection.exec_driver_sql("SELECT trial, stimulus, answer FROM ratings").all()
        (answer,) = connection.exec_driver_sql("SELECT name, value FROM answers").all()
        (test,) = connection.exec_driver_sql("SELECT test FROM sessions").all()
    assert (tuple(answer), tuple(test)) == (("02", "me"), ("2024-01-02",))
    assert {tuple(row) for row in rows} == {
        *(("01", name, None) for name in ("1.50", "010", "True", "18_27", "reference")),
        ("1e3", "0x10", "0x10"),
        ("true", "007", "010"),
    }


def test_a_name_that_could_be_two_is_the_one_that_stands_so() -> None:
    assert as_sent(["01", "1", "x"]) == {"01": "01", "1": "1", "x": "x"}
    assert as_sent(["01", "1.0"]) == {"01": "01", "1.0": "1.0"}


def test_a_checkouts_test_is_read_anew_when_it_changes(classic: Any, checkout: Path) -> None:
    assert submit(classic, raw(SESSION)).status_code == 200
    (checkout / "configs" / "default.yaml").write_text(YAML.replace("id: pair,", "id: pair2,"))
    assert submit(classic, raw({**SESSION, "uuid": "2"})).status_code == 400


def test_a_checkout_is_served_without_what_is_private(classic: Any, checkout: Path) -> None:
    client = classic.test_client()
    assert client.get("/").data == (checkout / "index.html").read_bytes()
    assert client.get("/?config=default.yaml").status_code == 200
    assert client.get("/configs/default.yaml").data == YAML.encode()
    assert "'unsafe-inline'" in client.get("/lib/app.js").headers["Content-Security-Policy"]
    for path in (
        *("service/write.php", "results/x/mushra.csv", ".git/config", "key.json", "link.txt", "lib", "lib/"),
        *("cache/plots/means.png", "x.sqlite-wal"),
        *(
            "../outside.txt",
            "lib/../../outside.txt",
            "..%2foutside.txt",
            "%2e%2e/outside.txt",
            "%2fetc/passwd",
        ),
        *("lib/%00", "//etc/passwd", "lib/..%5c..%5coutside.txt", "RESULTS/x/mushra.csv", "a" * 5000),
    ):
        answer = client.get("/" + path)
        assert answer.status_code in (301, 302, 308, 404, 405), path
        assert b"private" not in answer.data
        assert b"outside" not in answer.data
    assert client.get("/admin/").status_code == 302


def test_folders_given_relative_to_where_one_is(
    make_folder: Any, serve: Any, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder()
    monkeypatch.chdir(folder.parent)
    client = serve(folder=Path(folder.name), webmushra_folder=Path(os.path.relpath(checkout))).test_client()
    assert client.get("/configs/config.yaml").data == (folder / "config.yaml").read_bytes()
    assert client.get("/ref.wav").data == (folder / "ref.wav").read_bytes()
    assert client.get("/configs/default.yaml").data == YAML.encode()


def test_a_test_of_ours_in_a_checkout(serve: Any, checkout: Path, tmp_path: Path) -> None:
    app = serve(webmushra_folder=checkout)
    folder = Path(app.extensions["mushra"].store.name).parent
    (folder / "key.json").write_text("{}")
    client = app.test_client()
    assert client.get("/configs/config.yaml").data == (folder / "config.yaml").read_bytes()
    assert client.get("/ref.wav").data == (folder / "ref.wav").read_bytes()
    for path in ("key.json", "config.yaml", "results.sqlite", "../outside.txt"):
        assert client.get(f"/{path}").status_code == 404


# CSV


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
    with pytest.raises(UserError, match="no key"):
        (tmp_path / "bad.json").write_text('{"trials": {"one": 3}}')
        read_ratings(store, key=tmp_path / "bad.json")


def test_unfinished_and_excluded_sessions_are_left_out_and_said(
    serve: Any, listener: Any, tmp_path: Path
) -> None:
    app = serve()
    store = app.extensions["mushra"].store
    listener(app)
    with pytest.raises(UserError, match="1 sessions do not count: --all"):
        export.export(store, tmp_path / "o", "tidy")
    listener(app).take()
    done = export.export(store, tmp_path / "o", "tidy")
    assert (done.sessions, done.left_out) == (1, 1)
    assert len(list(csv.reader((tmp_path / "o" / "ratings.csv").open(newline="")))) == 1 + 6
    named = export.export(store, tmp_path / "mine.csv", "tidy", everything=True)
    assert named.files == (tmp_path / "mine.csv",)
    assert "training1" in (tmp_path / "mine.csv").read_text()
