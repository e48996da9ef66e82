"""webMUSHRA's endpoint, and a checkout's own pages."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from webmushra_client import COMMENT, FORM, OWN, SESSION, YAML, raw, submit
from yaml_js import read_all

from mushra.server import create_app
from mushra.server.submission import as_sent
from mushra.store import records
from mushra.store.ratings import read_ratings
from qincodec.core.errors import UserError


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


TRIALS = SESSION["trials"]
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
    liked: Any = OWN["trials"][-1]
    for n, status in ((0, 400), (1, 200)):
        trials = [*OWN["trials"][:-1], {**liked, "responses": liked["responses"][:n]}]
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
    training = {**OWN["trials"][0], "id": "training1"}
    training["responses"] = [{"stimulus": name, "score": 5, "time": 1} for name in ("A", "reference")]
    assert submit(app, raw({**OWN, "trials": [training, *OWN["trials"]]})).status_code == 200
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
            *("../outside.txt", "lib/../../outside.txt", "..%2foutside.txt", "%2e%2e/outside.txt"),
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
