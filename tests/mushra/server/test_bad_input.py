"""Bad input: whatever is sent, the server answers with a reason and stores whole pages or nothing."""

from __future__ import annotations

import html.parser
import json
import logging
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from webmushra_client import OWN, raw, submit

from mushra.server import Limits
from mushra.server.security import RateLimit, parse_json
from mushra.store import export
from mushra.store.pages import storable

TEXTS = [
    "",
    "x",
    "x" * 12_000,
    *("\ud800", "\0", "'; DROP TABLE pages; --", "<script>", "\u202e", "=1+1", "NaN"),
]
NUMBERS = [0, -1, 1, 2, 101, 1e308, -1e308, 10**30, 0.5, 70.5, True, False, None]
STRANGE: list[Any] = [*TEXTS, *NUMBERS, [], {}, [[]], {"a": {}}, [None] * 3000, {"__proto__": 1}]


def mutated(value: Any, rng: random.Random) -> Any:
    """``value`` with something wrong at a random place: replaced, removed, doubled, renamed, added."""
    places: list[tuple[Any, Any]] = []

    def walk(inside: Any) -> None:
        keys = inside.keys() if isinstance(inside, dict) else range(len(inside))
        for key in list(keys):
            places.append((inside, key))
            if isinstance(inside[key], dict | list):
                walk(inside[key])

    value = json.loads(json.dumps(value))
    walk(value)
    if not places:
        return rng.choice(STRANGE)
    inside, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del inside[key]
    elif kind == 1 and isinstance(inside, list):
        inside.append(inside[key])
    elif kind == 2 and isinstance(inside, dict):
        inside[rng.choice(["x", "stimulus", "id", "", "\ud800", "revision"])] = inside.pop(key)
    elif kind == 3 and isinstance(inside, dict):
        inside[f"extra{rng.randrange(9)}"] = rng.choice(STRANGE)
    elif kind == 4 and isinstance(inside[key], str):
        at = rng.randrange(len(inside[key]) + 1)
        inside[key] = (
            inside[key][:at] + rng.choice(["\0", "&", "+", "%", "\ud83d", '"', "\\"]) + inside[key][at:]
        )
    else:
        inside[key] = rng.choice(STRANGE)
    return value


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes with a few changed, cut or repeated."""
    data = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + rng.randrange(1, 30)]
        elif kind == 2:
            data[at:at] = data[at : at + 20]
        else:
            data[at:at] = rng.choice(
                [b"\\u0000", b"NaN", b"1e999", b"&a=b", b"\xff", b"[" * 50, b"%00", b"\\ud800"]
            )
    return bytes(data)


def body_of(value: Any, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(1, 4)):
        value = mutated(value, rng) if isinstance(value, dict | list) and value else rng.choice(STRANGE)
    data = json.dumps(value).encode()
    return damaged(data, rng) if rng.random() < 0.25 and data else data


def consistent(path: str) -> None:
    """No rating without its page, and no page with half of its ratings."""
    connection = sqlite3.connect(path)
    orphans = "SELECT count(*) FROM ratings LEFT JOIN pages p USING (session, page) WHERE p.page IS NULL"
    assert connection.execute(orphans).fetchone() == (0,)
    pages = "SELECT session, page, result, type, (SELECT count(*) FROM ratings r WHERE r.session = p.session"
    pages += " AND r.page = p.page) FROM pages p"
    plans = {
        session: {page["public"]["id"]: page for page in json.loads(plan)}
        for session, plan in connection.execute("SELECT id, plan FROM sessions WHERE plan IS NOT NULL")
    }
    expected = {"bs1116": 1, "paired_comparison": 1, "generic": 0, "consent": 0, "volume": 0, "finish": 0}
    for session, page, result, kind, ratings in connection.execute(pages):
        json.loads(result)
        if session in plans:
            planned = plans[session][page]["conditions"]
            assert ratings == expected.get(kind, len(planned)), (kind, ratings)
    scores = "SELECT count(*) FROM ratings WHERE type = 'mushra' AND (score < 0 OR score > 100)"
    native = f"{scores} AND session IN (SELECT id FROM sessions WHERE plan IS NOT NULL)"
    assert connection.execute(native).fetchone() == (0,)


def attack(serve: Any, listener: Any, answer: Any, count: int, seed: int) -> None:
    rng = random.Random(seed)
    app = serve(submissions=True)
    path = app.extensions["mushra"].store.name
    one = listener(app)
    session = {**OWN, "participant": {"name": ["age", "years"], "response": ["33", 4]}, "config": "x"}
    whole = submit(app, raw(session))
    assert whole.status_code == 200, whole.data
    session["uuid"] = "v"
    accepted = 0
    for number in range(count):
        if number % 250 == 249:
            one = listener(app)
        page = rng.choice(one.pages)
        kind = rng.randrange(10)
        if kind < 6:
            result = {
                **answer(page),
                "revision": number + 1,
                "events": [["play", "s1", 12], ["stop", None, 13]],
            }
            url = f"{one.url}/pages/{page['id']}"
            reply = one.client.put(url, data=body_of(result, rng), headers=one.headers)
        elif kind < 8:
            data = b"sessionJSON=" + body_of(session, rng)
            data = damaged(data, rng) if rng.random() < 0.2 else data
            reply = one.client.post(
                "/service/write.php", data=data, content_type="application/x-www-form-urlencoded"
            )
            assert (reply.status_code == 200) == (reply.data == b"")
        elif kind == 8:
            arrival = {
                "invitation": "x",
                "prolific": {"pid": "1"},
                "language": "en",
                "client": {"sample_rate": 1},
            }
            reply = one.client.post("/api/sessions", data=body_of(arrival, rng))
        else:
            reply = one.client.post(
                f"{one.url}/finish", data=body_of({"revision_of": {"p1": 99}}, rng), headers=one.headers
            )
        assert reply.status_code < 500, (kind, reply.data)
        assert reply.status_code in (200, 201, 400, 403, 409, 413), (kind, reply.status_code)
        accepted += reply.status_code in (200, 201)
        if number % 500 == 499:
            consistent(path)
    consistent(path)
    assert count // 50 < accepted < count


def test_mutated_submissions(serve: Any, listener: Any, answer: Any) -> None:
    attack(serve, listener, answer, 600, seed=1)


@pytest.mark.long
def test_ten_thousand_mutated_submissions(serve: Any, listener: Any, answer: Any) -> None:
    attack(serve, listener, answer, 10_000, seed=2)


@pytest.mark.parametrize(
    ("kind", "change", "code"),
    [
        ("mushra", {"ratings": []}, "not_rated"),
        ("mushra", {"revision": 0}, "invalid"),
        ("mushra", {"revision": True}, "invalid"),
        ("mushra", {"time_ms": -1}, "invalid"),
        ("mushra", {"time_ms": "5"}, "invalid"),
        ("mushra", {"score": 70.5}, "score"),
        ("mushra", {"score": 101}, "score"),
        ("mushra", {"score": "70"}, "score"),
        ("mushra", {"score": None}, "not_rated"),
        ("mushra", {"plays": 0}, "not_heard"),
        ("mushra", {"signal": "s9"}, "signal_unknown"),
        ("mushra", {"signal": "s1"}, "signal_twice"),
        ("mushra", {"all": 99}, "no_100"),
        ("mushra", {"moves": 0}, "not_moved"),
        ("bs1116", {"moves": 0}, "not_moved"),
        ("likert_multi_stimulus", {"moves": 0}, "not_moved"),
        ("bs1116", {"score": 0.9}, "score"),
        ("bs1116", {"score": 3.75}, "score"),
        ("bs1116", {"ratings": []}, "not_rated"),
        ("bs1116", {"plays": 0}, "not_heard"),
        ("bs1116", {"all": 4.9}, "no_5"),
        ("paired_comparison", {"plays": 0}, "not_heard"),
        ("paired_comparison", {"ratings": []}, "not_heard"),
        ("paired_comparison", {"answer": None}, "not_answered"),
        ("paired_comparison", {"answer": "A"}, "not_answered"),
        ("likert_multi_stimulus", {"score": "3"}, "score"),
        ("likert_multi_stimulus", {"ratings": []}, "not_rated"),
        ("consent", {"consent": {"given": False}}, "no_consent"),
        ("consent", {"consent": None}, "no_consent"),
        ("consent", {"consent": {"given": True, "text_sha256": "0" * 64}}, "consent_text"),
        ("finish", {"responses": {}}, "not_answered"),
        ("finish", {"responses": {"age": ["x"]}}, "invalid"),
        ("finish", {"responses": {"age": "x", "years": 100}}, "invalid"),
        ("finish", {"responses": {"age": "x", "years": "many"}}, "invalid"),
        ("finish", {"responses": {"age": "x", "ears": "none"}}, "invalid"),
    ],
)
def test_what_is_wrong_is_said(
    serve: Any, listener: Any, answer: Any, kind: str, change: dict[str, Any], code: str
) -> None:
    one = listener(serve())
    page = one.page(kind)
    result = answer(page)
    for key, value in change.items():
        if key == "all":
            for rating in result["ratings"]:
                rating["score"] = value
        elif key in ("score", "plays", "moves", "signal"):
            result["ratings"][-1][key] = value
        else:
            result[key] = value
    reply = one.put(page, result)
    assert (reply.status_code, reply.get_json()["code"]) == (400, code)
    assert one.get().get_json()["saved"] == {}


SPATIAL = """
testname: S
testId: s
pages:
  - {type: spatial, id: where, stimuli: {A: a.wav}}
  - {type: finish, id: end, questionnaire: [{type: number, name: years, optional: true}]}
"""


@pytest.mark.parametrize("number", ["1e999", "-1e999", "Infinity", "NaN", "1" + "0" * 400])
def test_answers_are_finite_numbers(serve: Any, listener: Any, tmp_path: Path, number: str) -> None:
    app = serve(SPATIAL)
    one = listener(app)
    for page, response in (("spatial", '"s1": {"azimuth": %s}'), ("finish", '"years": %s')):
        body = '{"revision": 1, "time_ms": 1, "responses": {%s}}' % (response % number)
        url = f"{one.url}/pages/{one.page(page)['id']}"
        refused = one.client.put(url, data=body, headers=one.headers)
        assert (refused.status_code, refused.get_json()["code"]) == (400, "invalid")
        fine = body.replace(number, "1e300")
        assert one.client.put(url, data=fine, headers=one.headers).status_code == 200
    # What version 1 stored is exported as JSON, too.
    with sqlite3.connect(app.extensions["mushra"].store.name) as connection:
        connection.execute("UPDATE pages SET result = replace(result, '1e+300', 'Infinity')")
    text = export.render(app.extensions["mushra"].store, "json")["results.json"]
    json.loads(text, parse_constant=pytest.fail)
    assert '"azimuth": "Infinity"' in text


def test_rules_that_are_off_are_not_asked_for(serve: Any, listener: Any, answer: Any) -> None:
    rules = (
        "rules: {must_hear_all: false, must_rate_all: false, one_at_100: false, only_playing_rated: false}"
    )
    one = listener(serve(section=rules))
    page = one.page("mushra")
    result = answer(page)
    result["ratings"] = [{"signal": "s1", "score": None}, {"signal": "s2", "score": 3, "moves": 1}]
    assert one.put(page, result).status_code == 200


def test_what_is_too_large_is_refused(serve: Any, listener: Any, answer: Any) -> None:
    one = listener(serve(submissions=True))
    page = one.page("mushra")
    result = {**answer(page), "comment": "x" * 300_000}
    assert one.put(page, result).status_code == 413
    events = {**answer(page), "events": [["play", "s1", 1]] * 2001}
    assert one.put(page, events).status_code == 400
    big = one.client.post("/service/write.php", data=b"sessionJSON=" + b"x" * 9_000_000)
    assert big.status_code == 413
    assert one.put(page, {**answer(page), "events": [["play", "s1", 1]] * 2000}).status_code == 200


def test_half_an_emoji_does_not_cost_the_page(serve: Any, listener: Any, answer: Any) -> None:
    one = listener(serve())
    page = one.page("mushra")
    result = answer(page)
    result["ratings"][0]["comment"] = "cut \ud83d and nul \0 and whole \U0001f3a7"
    assert one.put(page, result).status_code == 200
    saved = one.get().get_json()["saved"][page["id"]]["result"]["ratings"][0]["comment"]
    assert saved == "cut \ufffd and nul \ufffd and whole \U0001f3a7"
    assert storable("\ud83c\udfa7") == "\U0001f3a7"
    assert parse_json(b'"\\ud83c\\udfa7"') == "\U0001f3a7"


def test_paths_lead_nowhere_else(serve: Any, listener: Any) -> None:
    app = serve()
    one = listener(app)
    folder = Path(app.extensions["mushra"].store.name).parent
    (folder / "key.json").write_text("{}")
    for path in (
        *("key.json", "config.yaml", "results.sqlite", "stimuli/../key.json", "stimuli/ref.wav", "ref.wav"),
        *(
            "stimuli/..%2fkey.json",
            "static/../config.yaml",
            "static/..%2f..%2f__init__.py",
            "static/%2e%2e/api.py",
        ),
        *(
            *("stimuli/%00", "templates/listen.html", "static//etc/passwd", ".git/config"),
            "api/sessions/..%2f..",
        ),
    ):
        reply = one.client.get("/" + path, headers=one.headers)
        assert reply.status_code in (404, 401, 405, 308), path
        assert b"testname" not in reply.data
    assert one.client.put(f"{one.url}/pages/..%2f..%2fx", json={}, headers=one.headers).status_code in (
        404,
        405,
    )


def test_every_answer_has_the_headers(serve: Any, listener: Any) -> None:
    one = listener(serve())
    for path in ("/", "/admin/sign-in", "/nothing", "/static/admin/admin.js", one.url, "/admin/"):
        headers = one.client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert one.client.get(one.url, headers=one.headers).headers["Cache-Control"] == "no-store"


def test_no_page_of_ours_breaks_its_own_policy(serve: Any) -> None:
    folder = Path(__file__).parents[3] / "mushra" / "server" / "templates"
    templates = list(folder.rglob("*.html"))
    assert len(templates) >= 6

    class Checker(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            names = [name for name, _ in attrs]
            assert tag != "style"
            assert tag != "script" or "src" in names
            assert not [name for name in names if name.startswith("on") or name == "style"], (tag, names)

    for path in templates:
        checker = Checker()
        checker.feed(path.read_text(encoding="utf-8"))


def test_too_many_requests(serve: Any, listener: Any, answer: Any) -> None:
    app = serve(limits=Limits(begin=(3, 0.01), save=(2, 0.01), submit=(1, 0.01)))
    ones = [listener(app) for _ in range(4)]
    assert [one.status for one in ones] == [201, 201, 201, 429]
    page = ones[0].page("mushra")
    replies = [ones[0].put(page, {**answer(page), "revision": n}) for n in (1, 2, 3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert int(replies[2].headers["Retry-After"]) > 0
    assert ones[1].put(page, answer(page)).status_code in (200, 400)  # another session has its own


def test_the_limit_recovers_and_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("mushra.server.security.time.monotonic", lambda: now[0])
    limit = RateLimit(2, 0.5)
    assert [limit.wait_s("a") for _ in range(3)] == [0, 0, 2]
    now[0] = 2.0
    assert limit.wait_s("a") == 0
    monkeypatch.setattr(RateLimit, "MAX_KEYS", 10)
    for n in range(50):
        limit.wait_s(f"address-{n}")
    assert len(limit._buckets) == 10
    assert "address" not in str(limit._buckets)


def test_secrets_are_in_no_log(serve: Any, caplog: Any, monkeypatch: Any) -> None:
    app = serve(section="identification: invitation")
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("mushra.server.api._language", lambda *_: 1 / 0)
    reply = app.test_client().get("/?t=very-secret-token")
    assert reply.status_code == 500
    assert "ZeroDivisionError" in caplog.text
    assert "ZeroDivisionError" not in reply.get_data(as_text=True)
    assert "very-secret-token" not in caplog.text
    monkeypatch.undo()
    one = app.test_client().post("/api/sessions", json={"invitation": "very-secret-token"})
    assert one.status_code == 403
    assert "very-secret-token" not in caplog.text
    assert app.debug is False
