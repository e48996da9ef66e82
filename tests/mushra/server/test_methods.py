"""The page types of our own (`ab`, `abx`, `dcr`): what a listener is sent, what is taken, what is stored."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from mushra.server import sign_in
from mushra.server.session_pages import session_pages
from mushra.server.submission import parse_submission
from mushra.store.export import render
from mushra.store.ratings import stored_ratings

YAML = """
testname: Methods
testId: methods
pages:
  - {type: ab, id: prefer, unforced: No preference, stimuli: {C: a.wav, A: b.wav, B: ref.wav}}
  - {type: ab, id: closer, reference: ref.wav, stimuli: {A: a.wav, B: b.wav}}
  - {type: abx, id: x, reference: ref.wav, trials: 4, stimuli: {A: a.wav, B: b.wav}}
  - {type: abx, id: systems, stimuli: {A: a.wav, B: b.wav, C: ref.wav}}
  - {type: dcr, id: degraded, reference: ref.wav, stimuli: {A: a.wav, B: b.wav}}
  - {type: finish, id: end}
"""
PAGES = {"prefer": 3, "closer": 1, "x": 8, "systems": 3, "degraded": 2, "end": 1}


@pytest.fixture
def app(serve: Any) -> Any:
    return serve(YAML)


def plans(app: Any, listeners: int) -> list[list[Any]]:
    served = app.extensions["mushra"]
    return [session_pages(served.config, served.stimuli, number, 0) for number in range(listeners)]


def result(page: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What the listening page sends."""
    rating = {"score": 4 if page["type"] == "dcr" else None, "plays": 2, "moves": 1, "heard_ms": 900}
    ratings = [{**rating, "signal": signal["id"]} for signal in page["signals"]]
    answer = None if page["type"] == "dcr" else "s1"
    return {"revision": 1, "time_ms": 1500, "ratings": ratings, "answer": answer, **changes}


def test_so_many_seconds_must_have_been_heard_on_these_pages_too(serve: Any, listener: Any) -> None:
    one = listener(serve(YAML, "{rules: {min_heard_s: 1}}"))
    for kind in ("ab", "abx", "dcr"):
        page = one.page(kind)
        refused = one.put(page, result(page))  # 900 ms each
        assert (refused.status_code, refused.get_json()["code"]) == (400, "heard_too_short"), kind
        ratings = [{**rating, "heard_ms": 1000} for rating in result(page)["ratings"]]
        assert one.put(page, result(page, ratings=ratings)).status_code == 200, kind


def test_a_listener_gets_every_pair(app: Any) -> None:
    (plan,) = plans(app, 1)
    assert Counter(page.trial for page in plan) == PAGES
    pairs = {trial: Counter(p.pair for p in plan if p.trial == trial) for trial in PAGES if trial != "end"}
    assert pairs["prefer"] == dict.fromkeys([("C", "A"), ("C", "B"), ("A", "B")], 1)  # the order of the YAML
    assert pairs["x"] == {("A", "reference"): 4, ("B", "reference"): 4}
    assert pairs["systems"] == dict.fromkeys(combinations("ABC", 2), 1)
    assert pairs["degraded"] == {("A", "reference"): 1, ("B", "reference"): 1}
    for page in plan[:-1]:
        signals = [signal.id for signal in page.public.signals]
        assert signals == list(page.conditions) == ["s1", "s2", "s3"][: len(signals)]
        assert (page.public.reference is None) == (page.trial in ("prefer", "x", "systems"))
        assert set(list(page.conditions.values())[:2]) == set(page.pair) or page.type == "dcr"


def test_x_is_drawn_anew_and_balanced(app: Any) -> None:
    """Over 100 listeners of 8 presentations X is A as often as B, and each system as often as the reference:
    within four standard deviations of a fair coin."""
    taken = [page for plan in plans(app, 100) for page in plan if page.trial == "x"]
    is_a = sum(page.conditions["s3"] == page.conditions["s1"] for page in taken)
    is_reference = sum(page.conditions["s3"] == "reference" for page in taken)
    reference_is_a = sum(page.conditions["s1"] == "reference" for page in taken)
    for count, deviation in ((is_a, 14.1), (is_reference, 14.1), (reference_is_a, 4 * 14.1 / 2)):
        assert abs(count - len(taken) / 2) < 4 * deviation
    # What X was says nothing about what it is next.
    plan = [[page for page in one if page.trial == "x" and page.pair[0] == "A"] for one in plans(app, 100)]
    assert {len({page.conditions["s3"] for page in four}) for four in plan} == {1, 2}
    # A and B stay what they are for one listener.
    assert all(len({page.conditions["s1"] for page in four}) == 1 for four in plan)


def test_nothing_in_the_browser_tells_what_x_is(
    app: Any, make_folder: Any, serve: Any, listener: Any
) -> None:
    one = listener(app)
    pages = [page for page in one.pages if page["type"] == "abx"]
    urls = [signal["url"] for page in pages for signal in page["signals"]]
    xs = [page["signals"][2]["url"] for page in pages]
    assert len(set(xs)) == len(xs)
    assert not set(xs) & {signal["url"] for page in pages for signal in page["signals"][:2]}
    answers = [one.client.get("/" + url) for url in urls]
    assert len({(answer.status_code, answer.mimetype, answer.content_length) for answer in answers}) == 1
    for page in pages:
        assert set(page) <= {
            *("id", "type", "training", "name", "content", "enableLooping", "reference", "signals"),
        }
        assert page["reference"] is None
        assert all(set(signal) == {"id", "url", "label"} for signal in page["signals"])
        assert {signal["label"] for signal in page["signals"]} == {None}
    # A server of the same test with the same seed draws otherwise.
    other = serve(folder=make_folder(YAML, name="other"))
    drawn = [
        [page.conditions["s3"] for plan in plans(app, 10) for page in plan if page.type == "abx"]
        for app in (app, other)
    ]
    assert drawn[0] != drawn[1]


def test_what_is_stored_and_exported(app: Any, listener: Any, tmp_path: Path) -> None:
    one = listener(app)
    service = app.extensions["mushra"]
    plan = service.session(one.session["id"], one.session["key"]).pages
    chosen: dict[str, tuple[Any, ...]] = {}
    for page in one.pages:
        names = plan[page["id"]].conditions
        said = "s2" if page["type"] == "abx" else "s1"
        undecided = plan[page["id"]].trial == "prefer" and page["id"] == "p1"
        if page["type"] != "finish":
            reply = one.put(page, result(page, answer="undecided" if undecided else said))
            assert reply.status_code == 200, reply.get_json()
            saved = one.get().get_json()["saved"][page["id"]]["result"]
            assert not {"reference", "right"} & set(saved) and {r.get("score") for r in saved["ratings"]} <= {
                None,
                4,
            }
        else:
            one.put(page, {"revision": 1, "time_ms": 1})
        first, second = plan[page["id"]].pair or ("", "")
        kind = page["type"]
        answer = "" if undecided else names.get(said)
        score = {"dcr": 4.0, "abx": float(names.get("s3") == answer)}.get(kind)
        chosen[page["id"]] = (kind, first, second, None if kind == "dcr" else answer, score)
    assert one.finish().status_code == 200
    with service.store.read() as connection:
        rows = stored_ratings(connection)
    found = {row.page: (row.type, row.stimulus, row.reference, row.answer, row.score) for row in rows}
    assert found == {page: row for page, row in chosen.items() if row[0] != "finish"}
    assert {row.details["plays"] for row in rows} == {2}

    files = {
        name: list(csv.DictReader(io.StringIO(text)))
        for name, text in render(service.store, "webmushra").items()
    }
    assert {name: len(rows) for name, rows in files.items()} == {
        **{"methods/ab.csv": 4, "methods/abx.csv": 11, "methods/dcr.csv": 2}
    }
    for row in files["methods/abx.csv"]:
        assert row["choice_right"] in ("0", "1") and row["choice_answer"] in (
            row["choice_first"],
            row["choice_second"],
        )
    assert {row["rating_score"] for row in files["methods/dcr.csv"]} == {"4"}
    assert Counter(row["choice_answer"] for row in files["methods/ab.csv"])[""] == (
        plan["p1"].trial == "prefer"
    )

    # With a key names are opened, in the answers, too; the administrator reads the same.
    trials = {"x": {"signals": {"A": {"condition": "codec"}, "B": {"condition": "other"}}}}
    (tmp_path / "key.json").write_text(json.dumps({"trials": trials}))
    document = json.loads(render(service.store, "json", key=tmp_path / "key.json")["results.json"])
    opened = [page["ratings"][0] for page in document["sessions"][0]["pages"] if page["trial"] == "x"]
    assert {rating["stimulus"] for rating in opened} == {"codec", "other"}
    assert {rating["answer"] for rating in opened} <= {"codec", "other", "reference"}
    admin = app.test_client()
    token = {"token": sign_in.new_link(service.store)}
    admin.post("/admin/sign-in", data=token, headers={"Sec-Fetch-Site": "same-origin"})
    text = admin.get(f"/admin/sessions/{one.session['id']}").get_data(as_text=True)
    assert "(right)" in text and "(wrong)" in text and "C or A" in text and "no preference" in text


@pytest.mark.parametrize(
    ("trial", "changes", "code"),
    [
        ("prefer", {"answer": None}, "not_answered"),
        ("prefer", {"answer": "A"}, "not_answered"),
        ("prefer", {"answer": ""}, "not_answered"),
        ("prefer", {"ratings": []}, "not_heard"),
        ("prefer", {"moves": 0}, "not_moved"),
        ("closer", {"answer": "undecided"}, "not_answered"),
        ("closer", {"plays": 0}, "not_heard"),
        ("x", {"answer": "s3"}, "not_answered"),
        ("x", {"answer": "reference"}, "not_answered"),
        ("x", {"answer": "undecided"}, "not_answered"),
        ("x", {"signal": "s4"}, "signal_unknown"),
        ("degraded", {"score": 4.5}, "score"),
        ("degraded", {"score": 0}, "score"),
        ("degraded", {"score": 6}, "score"),
        ("degraded", {"score": "4"}, "score"),
        ("degraded", {"score": None}, "not_rated"),
        ("degraded", {"moves": 0}, "not_moved"),
        ("degraded", {"plays": 0}, "not_heard"),
    ],
)
def test_what_is_refused(app: Any, listener: Any, trial: str, changes: dict[str, Any], code: str) -> None:
    one = listener(app)
    plan = app.extensions["mushra"].session(one.session["id"], one.session["key"]).pages
    page = next(page for page in one.pages if plan[page["id"]].trial == trial)
    sent = result(page, **{name: changes[name] for name in ("answer", "ratings") if name in changes})
    for rating in sent["ratings"]:
        rating.update({name: value for name, value in changes.items() if name not in ("answer", "ratings")})
        if "signal" in changes:
            break
    reply = one.put(page, sent)
    assert (reply.status_code, reply.get_json()["code"]) == (400, code)


def test_webmushra_itself_cannot_have_shown_it(app: Any) -> None:
    from mushra.server.incoming import BadResult

    sent = {"testId": "methods", "participant": {}, "trials": [{"id": "x", "type": "abx", "responses": []}]}
    with pytest.raises(BadResult, match="webMUSHRA cannot show this test: it has pages of type 'ab'"):
        parse_submission(sent, app.extensions["mushra"].config)
