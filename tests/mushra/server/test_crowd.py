"""Many listeners: blocks, quotas, who a panel sends, how long they must listen, gold items and payments."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa

from mushra.cli.main import main
from mushra.config.load import load_config
from mushra.server.files import Stimuli
from mushra.server.session_pages import num_slots, session_pages
from mushra.store import records, schema
from mushra.store.store import Store
from qincodec.core.errors import UserError

TRIAL = "{{type: mushra, id: {}, reference: ref.wav, stimuli: {{A: a.wav, B: b.wav}}}}"


def lists(*sizes: int) -> str:
    """A test of random lists of so many trials each."""
    text = "testname: T\ntestId: t\npages:\n"
    for name, size in zip("abcdef", sizes, strict=False):
        text += "  - - random\n" + "".join(f"    - {TRIAL.format(f'{name}{n}')}\n" for n in range(size))
    return text


class Addresses:
    """In place of `Stimuli`."""

    def url(self, page: str, place: str) -> str:
        return f"{page}/{place}"


def plans(folder: Path, yaml: str, section: str) -> list[list[str]]:
    """The trials of each slot, in their order."""
    (folder / "config.yaml").write_text(f"{yaml}qincodec: {{{section}}}\n")
    config = load_config(folder)
    stimuli = cast(Stimuli, Addresses())
    return [
        [page.trial for page in session_pages(config, stimuli, slot, slot)]
        for slot in range(num_slots(config))
    ]


# Blocks


@pytest.mark.parametrize(("sizes", "blocks"), [((12,), 3), ((12,), 4), ((7, 5), 3), ((5, 5, 4), 2)])
def test_blocks_part_the_items_and_are_balanced_inside(
    tmp_path: Path, sizes: tuple[int, ...], blocks: int
) -> None:
    found = plans(tmp_path, lists(*sizes), f"blocks: {blocks}")
    trials = {f"{name}{n}" for name, size in zip("abcdef", sizes, strict=False) for n in range(size)}
    of = [{frozenset(plan) for plan in found[block::blocks]} for block in range(blocks)]
    assert {len(one) for one in of} == {1}, "all rows of a block have the same items"
    parts = [next(iter(one)) for one in of]
    assert sorted(trial for part in parts for trial in part) == sorted(trials), "each item is in one block"
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for block, part in enumerate(parts):
        rows = found[block::blocks]
        for name in "abcdef"[: len(sizes)]:
            inside = [[trial for trial in row if trial.startswith(name)] for row in rows]
            for place in range(len(inside[0])):
                counts = Counter(row[place] for row in inside)
                assert counts == dict.fromkeys(counts, len(rows) // len(inside[0])), "closed form"
                assert set(counts) == {trial for trial in part if trial.startswith(name)}


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("", "509796b546721500"),
        ("items_per_listener: 3, seed: 5", "7d8fff79e765b238"),
        ("order: random", "1f37d10b41104527"),
    ],
)
def test_tests_without_blocks_deal_out_what_they_always_did(
    tmp_path: Path, section: str, expected: str
) -> None:
    """Hashes of what the version before blocks gave for the first 30 sessions."""
    inner = "    -\n      - random\n" + "".join(f"      - {TRIAL.format(f'b{n}')}\n" for n in range(3))
    text = lists(5) + inner + "  - - random\n"
    text += "".join(f"    - {TRIAL.format(f'c{n}')}\n" for n in range(4)) + f"qincodec: {{{section}}}\n"
    text = text.replace("ref.wav", "r.wav")
    (tmp_path / "config.yaml").write_text(text)
    config, stimuli = load_config(tmp_path), cast(Stimuli, Addresses())
    assert num_slots(config) == 12
    found = [[(p.trial, p.conditions) for p in session_pages(config, stimuli, n, n)] for n in range(30)]
    assert hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16] == expected


def places_taken(app: Any) -> list[tuple[int, str]]:
    """(slot, state) of all sessions."""
    with app.extensions["mushra"].store.read() as connection:
        query = sa.select(schema.sessions.c.slot, schema.sessions.c.state).order_by(schema.sessions.c.number)
        return [(slot, state) for slot, state in connection.execute(query)]


def test_quotas_hold_when_twenty_begin_at_once(serve: Any, database: str) -> None:
    app = serve(lists(12), "{blocks: 4, quota: 3}", database=database)
    barrier = threading.Barrier(20)
    codes: list[tuple[int, str]] = []

    def arrive() -> None:
        client = app.test_client()
        barrier.wait()
        answer = client.post("/api/sessions", json={})
        codes.append((answer.status_code, answer.get_json().get("code", "")))

    threads = [threading.Thread(target=arrive) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(codes) == {(201, ""): 12, (403, "full"): 8}
    slots = [slot for slot, _ in places_taken(app)]
    assert Counter(slot % 4 for slot in slots) == dict.fromkeys(range(4), 3)
    assert len(set(slots)) == 12, "no row of a block is given twice while others are free"


def test_whoever_drops_out_is_replaced_and_the_full_test_takes_nobody(serve: Any, listener: Any) -> None:
    app = serve(lists(6), "{blocks: 2, quota: 2, drop_after_min: 5}")
    store = app.extensions["mushra"].store
    begun = [listener(app) for _ in range(4)]
    assert listener(app).session["code"] == "full"
    slots = [slot for slot, _ in places_taken(app)]
    assert Counter(slot % 2 for slot in slots) == {0: 2, 1: 2}
    # One is not seen for longer than the test allows, one is excluded, one has finished, one is still there.
    table = schema.sessions
    late = sa.update(table).where(table.c.number == 1).values(seen_at=table.c.seen_at - 6 * 60)
    store.write(lambda connection: connection.execute(late))
    begun[2].take()
    store.write(lambda connection: records.exclude(connection, begun[2].session["id"], "slept"))
    begun[3].take()
    assert [listener(app).status for _ in range(3)] == [201, 201, 403]
    refilled = [slot for slot, _ in places_taken(app)][4:]
    assert sorted(refilled) == sorted([slots[1], slots[2]]), "the same blocks, and the same rows of them"
    begun[1].take()  # nobody who comes back is thrown out
    assert listener(app).session["code"] == "full"


# Panels

PANEL = "{identification: panel, panel: {person: PID, session: SID}, completion: {code: C1, redirect: '%s'}}"


@pytest.mark.parametrize("names", ["person: P, session: P", "session: person", "person: P, sign: P"])
def test_each_of_a_panels_parameters_has_a_name_of_its_own(make_folder: Any, names: str) -> None:
    folder = make_folder(section=f"{{identification: panel, panel: {{{names}}}}}")
    with pytest.raises(UserError, match="the same parameter; give each its own"):
        load_config(folder)


def test_a_panel_says_who_comes_and_gets_them_back(serve: Any, listener: Any) -> None:
    address = "https://panel.example/done?p={person}&s={session}&c={code}&x={other}"
    app = serve(lists(1) + "  - {type: finish}\n", PANEL % address)
    one = listener(app, parameters={"PID": "a b&c=1/é", "SID": "s 1", "lang": "de", "more": ["x"]})
    done = one.take().finish().get_json()
    assert done["redirect"] == "https://panel.example/done?p=a%20b%26c%3D1%2F%C3%A9&s=s%201&c=C1&x={other}"
    assert one.get().get_json()["completion"]["redirect"] == done["redirect"]
    with app.extensions["mushra"].store.read() as connection:
        (row,) = connection.execute(sa.select(schema.sessions)).all()
    assert (row.kind, row.person, json.loads(row.prolific)) == (
        "panel",
        "a b&c=1/é",
        {"person": "a b&c=1/é", "session": "s 1"},
    )


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        [],
        "PID=a",
        {"PID": "a"},
        {"PID": "", "SID": "s"},
        {"PID": ["a"], "SID": "s"},
        {"PID": {"a": 1}, "SID": "s"},
        {"PID": 7, "SID": "s"},
        {"PID": "a" * 129, "SID": "s"},
        {"PID": "a\u0000", "SID": "s"},
        {"PID": "a\ud800", "SID": "s"},
        {"PID": "a\u202eb", "SID": "s"},
        {"PID": "a\n", "SID": "s"},
    ],
)
def test_parameters_that_name_nobody_begin_nothing(serve: Any, parameters: Any) -> None:
    app = serve(lists(1), PANEL % "https://panel.example")
    body = json.dumps({"parameters": parameters})
    answer = app.test_client().post("/api/sessions", data=body, content_type="application/json")
    assert (answer.status_code, answer.get_json()["code"]) == (403, "panel_needed")
    assert places_taken(app) == []


def test_a_forged_name_gets_at_nobodys_session(serve: Any, listener: Any) -> None:
    app = serve(lists(2), PANEL % "https://panel.example")
    who = {"PID": "ada", "SID": "1"}
    ada, forger = listener(app, parameters=who), listener(app, parameters=who)
    assert forger.status == 201 and forger.session["id"] != ada.session["id"]
    for method, url in (("get", ada.url), ("post", f"{ada.url}/finish")):
        assert getattr(forger.client, method)(url, headers=forger.headers, json={}).status_code == 401
    # Other parameters, those of other ways to be known and a state of one's own choosing are not looked at.
    more = {"PID": "eve", "SID": "2", "state": "finished", "slot": "3", "test": "x", "SIG": "00"}
    eve = listener(app, parameters=more, prolific={"pid": "p", "study": "s", "session": "x"}, invitation="i")
    assert eve.status == 201 and eve.session["state"] == "running"
    assert [state for _, state in places_taken(app)] == ["running"] * 3


def test_one_person_of_a_panel_has_one_session(serve: Any, listener: Any) -> None:
    section = PANEL.replace("{id", "{one_session_per_person: true, id", 1) % "https://panel.example"
    app = serve(lists(1) + "  - {type: finish}\n", section)
    one = listener(app, parameters={"PID": "ada", "SID": "1"})
    assert listener(app, parameters={"PID": "ada", "SID": "2"}).session["code"] == "elsewhere"
    one.take()
    assert listener(app, parameters={"PID": "ada", "SID": "3"}).session["code"] == "already_done"
    assert listener(app, parameters={"PID": "bob", "SID": "3"}).status == 201


def test_a_signed_link_is_asked_for_and_opens_the_same_session(serve: Any, listener: Any) -> None:
    section = "{identification: panel, panel: {person: PID, session: SID, sign: SIG}}"
    app = serve(lists(1), section, panel_secret="s3cret")
    # printf 't\nada\n1' | openssl dgst -sha256 -hmac s3cret
    right = "fc86a243a20d419517a846090689851b0930a0fa33be52494ae8007def076b6f"
    who = {"PID": "ada", "SID": "1"}
    for wrong in (None, "", "0" * 64, right[:-1], right + "0", "é" * 64, [right]):
        signed = who if wrong is None else {**who, "SIG": wrong}
        assert listener(app, parameters=signed).session["code"] == "panel_unsigned"
    for forged in ({"PID": "eve"}, {"SID": "2"}, {"PID": "ada\n1", "SID": "1"}):
        answer = listener(app, parameters={**who, "SIG": right, **forged})
        assert answer.session["code"] in ("panel_unsigned", "panel_needed")
    one = listener(app, parameters={**who, "SIG": right})
    assert one.status == 201
    assert listener(app, parameters={**who, "SIG": right}).session["id"] == one.session["id"]


# How long to listen


def test_so_many_seconds_of_every_signal_must_have_been_heard(serve: Any, listener: Any, answer: Any) -> None:
    app = serve(section="{rules: {min_heard_s: 1.5}}")
    one = listener(app)
    for kind in ("mushra", "bs1116", "paired_comparison", "likert_multi_stimulus"):
        page = one.page(kind)
        signals = [signal["id"] for signal in page["signals"]]
        result = {"ratings": [], **answer(page)}
        known = {rating["signal"]: rating for rating in result["ratings"]}
        result["ratings"] = [{**known.get(s, {"signal": s}), "heard_ms": 1500} for s in signals]
        result["ratings"][-1]["heard_ms"] = 1499
        refused = one.put(page, result)
        assert (refused.status_code, refused.get_json()["code"]) == (400, "heard_too_short"), kind
        assert f"1 of {len(signals)} signals" in refused.get_json()["error"]
        result["ratings"][-1]["heard_ms"] = 1500
        assert one.put(page, result).status_code == 200, kind


# Gold and payments

GOLD = """
testname: Gold
testId: gold
pages:
  - {type: mushra, id: trap, reference: ref.wav, stimuli: {A: a.wav, B: b.wav}}
  - {type: mushra, id: one, reference: ref.wav, stimuli: {A: a.wav, B: b.wav}}
  - type: likert_multi_stimulus
    id: word
    stimuli: {A: a.wav}
    response: [{value: good}, {value: poor}]
  - {type: finish}
"""
KNOWN = (
    "{identification: panel, completion: {code: '=C'}, gold: [{page: trap, stimulus: reference, low: 90},"
    " {page: word, stimulus: A, answers: [poor]}]}"
)


@pytest.fixture
def golden(serve: Any, listener: Any, answer: Any) -> Any:
    """A test with gold items: Ada got all right, Eve all wrong, Bob has begun."""
    app = serve(GOLD, KNOWN)
    here = app.extensions["mushra"]

    def take(person: str, right: bool) -> Any:
        one = listener(app, parameters={"person": person})
        with here.store.read() as connection:
            session = records.load_session(connection, one.session["id"])
        for page in one.pages:
            result = answer(page)
            names = session.pages[page["id"]].conditions
            for rating in result.get("ratings", []):
                if page["type"] == "mushra":
                    best = "reference" if right or session.pages[page["id"]].trial == "one" else "A"
                    name = names[rating["signal"]]
                    others = {"A": 50, "B": 60, "reference": 70}
                    rating["score"] = 100 if name == best else others[name] - 10 * (not right)
                else:
                    rating["score"] = "poor" if right else "good"
            assert one.put(page, result).status_code == 200
        assert one.finish().status_code == 200
        return one

    take("ada", True)
    take("=cmd|' /C calc'!A0", False)
    listener(app, parameters={"person": "bob"})
    return app


def test_gold_is_flagged_and_counts_nowhere(golden: Any) -> None:
    from mushra import load
    from mushra.analysis.methods.load import page_types
    from mushra.analysis.screening import doubtful, listener_figures
    from mushra.server.progress import list_sessions
    from mushra.store.export import document, render
    from mushra.store.ratings import read_ratings

    store: Store = golden.extensions["mushra"].store
    with store.read() as connection:
        bob, eve, ada = list_sessions(connection, "gold")
    assert (ada.flags, bob.flags) == ((), ())
    assert "gold: 2 of 2 wrong" in eve.flags
    text = render(store, "tidy", everything=True)["ratings.csv"]
    rows = list(csv.DictReader(io.StringIO(text)))
    failures = {(row["session"], row["gold_failures"]) for row in rows}
    assert failures == {(ada.id, "0"), (eve.id, "2")}
    assert {(row["item"], row["gold"], row["training"]) for row in rows} == {
        ("trap", "true", "false"),
        ("one", "false", "false"),
    }
    assert set(read_ratings(store)["item"]) == {"one"}
    assert "trap" not in "".join(render(store, "webmushra").values())
    failed = {one["session"]: one["gold_failed"] for one in document(store)["sessions"]}
    assert failed[eve.id] == [["trap", "reference"], ["word", "A"]] and failed[ada.id] == []
    # A data base and a tidy export give the same; nobody is excluded silently.
    folder = Path(store.name).parent
    (folder / "ratings.csv").write_text(text)
    for source in (folder, folder / "ratings.csv"):
        ratings = load(source)
        assert ratings.items == ("one",)
        assert ratings.gold_failures == {eve.listener: 2}
        assert doubtful(listener_figures(ratings)) == {eve.listener: "2 gold items wrong"}
        assert len(ratings.listeners) == 2
    assert page_types(folder) == {"mushra"}
    # webMUSHRA's CSV says nothing of gold; the YAML beside it does, of the MUSHRA pages that it has.
    (folder / "mushra.csv").write_text(render(store, "webmushra", everything=True)["gold/mushra.csv"])
    ratings = load(folder / "mushra.csv")
    assert (ratings.items, ratings.gold_failures) == (("one",), {eve.listener: 1})


FIVE = "response: [{value: 5}, {value: 4}, {value: 3}, {value: 2}, {value: 1}]"
QUALITY = f"""
testname: Quality
testId: quality
pages:
  - {{type: likert_single_stimulus, id: one, stimuli: {{A: a.wav, B: b.wav}}, {FIVE}}}
  - {{type: likert_single_stimulus, id: trap, stimuli: {{A: a.wav, B: b.wav}}, {FIVE}}}
  - {{type: ab, id: quiet, stimuli: {{A: a.wav, B: b.wav}}}}
  - {{type: dcr, id: same, reference: ref.wav, stimuli: {{A: a.wav}}}}
  - {{type: finish}}
"""


def test_opinions_are_without_gold_and_without_who_got_it_wrong(
    serve: Any, listener: Any, answer: Any
) -> None:
    from mushra.analysis.methods.load import load, page_types
    from mushra.analysis.methods.pipeline import analyze
    from mushra.store.export import document

    gold = "{page: trap, stimulus: A, answers: ['2']}, {page: quiet, stimulus: A, answers: [B]}"
    app = serve(QUALITY, f"{{gold: [{gold}, {{page: same, stimulus: A, low: 5}}]}}")
    store: Store = app.extensions["mushra"].store
    for given, said in ((5, 2), (4, 2), (3, 4)):  # the same answers would be a session stored twice
        one = listener(app)
        with store.read() as connection:
            session = records.load_session(connection, one.session["id"])
        for page in one.pages:
            result = answer(page)
            for rating in result.get("ratings", []):
                if page["type"] == "likert_single_stimulus":
                    rating["score"] = str(said if session.pages[page["id"]].trial == "trap" else given)
            if page["type"] == "ab":  # in a noisy place the worse of two sounds better
                names = {name: id for id, name in session.pages[page["id"]].conditions.items()}
                result["answer"] = names["B" if said == 2 else "A"]
            assert one.put(page, result).status_code == 200
        assert one.finish().status_code == 200
    folder = Path(store.name).parent
    (folder / "results.json").write_text(json.dumps(document(store)))
    for source in (folder, folder / "results.json"):
        judgements = load(source)
        assert page_types(source) == {"likert_single_stimulus"}
        assert set(judgements.frame["item"]) == {"one"} and len(judgements.frame) == 6
        result: Any = analyze(judgements).results["acr"]
        assert len(result.everybody.ratings.listeners) == 3 and len(result.screened.ratings.listeners) == 2
        assert set(result.listeners["reason"]) == {"", "2 gold items wrong"}


def test_payments_list_everybody_and_no_cell_is_a_formula(
    golden: Any, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    store: Store = golden.extensions["mushra"].store
    out = tmp_path / "paid.csv"
    monkeypatch.setattr("sys.argv", ["mushra", "payments", str(Path(store.name).parent), "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert "3 sessions, 2 finished" in capsys.readouterr().err
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(row["person"], row["state"], row["gold_failed"], row["gold_asked"]) for row in rows] == [
        ("ada", "finished", "0", "2"),
        ("'=cmd|' /C calc'!A0", "finished", "2", "2"),
        ("bob", "running", "0", "0"),
    ]
    assert [row["completion_code"] for row in rows] == ["'=C", "'=C", ""]
    assert all(float(row["minutes"]) >= 0 and row["begun_at"] for row in rows)
    assert [bool(row["finished_at"]) for row in rows] == [True, True, False]


def test_an_older_data_base_gets_the_index_that_came_later(tmp_path: Path) -> None:
    stored = Path(__file__).parents[1] / "stored" / "results.sqlite"
    (tmp_path / "results.sqlite").write_bytes(stored.read_bytes())
    name = "SELECT name FROM sqlite_master WHERE name = 'sessions_state'"
    for create, there in ((False, []), (True, [("sessions_state",)])):
        Store(tmp_path / "results.sqlite", create=create).close()
        assert sqlite3.connect(tmp_path / "results.sqlite").execute(name).fetchall() == there


def test_the_list_is_shown_a_page_at_a_time_and_can_be_narrowed(
    serve: Any, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mushra.server import crowd, sign_in

    monkeypatch.setattr(crowd, "ROWS", 3)
    monkeypatch.setattr(crowd, "LOOKED_AT", 2)
    app = serve(lists(4) + "  - {type: finish}\n", "{blocks: 2, quota: 4}")
    store = app.extensions["mushra"].store
    begun = [listener(app) for _ in range(7)]
    for number in (0, 1, 2):  # who gave the hidden reference 70 on some of four items
        begun[number].take()
    store.write(lambda connection: records.exclude(connection, begun[0].session["id"], "slept"))
    admin = app.test_client()
    token = {"token": sign_in.new_link(store)}
    admin.post("/admin/sign-in", data=token, headers={"Sec-Fetch-Site": "same-origin"})

    def shown(query: str = "") -> tuple[list[int], str]:
        text = admin.get(f"/admin/{query}").get_data(as_text=True)
        return [int(n) for n in re.findall(r">Listener (\d+)</a>", text)], text

    assert shown()[0] == [7, 6, 5]
    text = shown("?page=3")[1]
    assert shown("?page=3")[0] == [1] and "Page 3 of 3" in text
    assert shown("?page=99")[0] == [1]
    assert shown("?which=finished")[0] == [3, 2] and shown("?which=excluded")[0] == [1]
    assert shown("?which=flagged")[0] == [3, 2], "of all that were looked at by now"
    assert "not been checked" not in shown()[1]
    for wrong in ("?page=0", "?page=x", "?page=-1", "?which=all", "?page=" + "9" * 30):
        assert admin.get(f"/admin/{wrong}").status_code == 404
    # Of blocks of 4 places each: 3 + 3 sessions are there that count.
    rows = re.findall(r'data-label="(?:Finished|Running|Open)">(\w+)<', text)
    assert sum(map(int, rows[0::3])) == 2 and sum(map(int, rows[1::3])) == 4
    assert [sum(map(int, rows[at : at + 3])) for at in (0, 3)] == [4, 4]
    begun[0].client.get(begun[0].url)
    store.write(lambda connection: records.erase(connection, begun[6].session["id"]))
    assert shown()[0] == [6, 5, 4]


def test_what_is_asked_of_every_session_is_read_from_an_index(serve: Any) -> None:
    from mushra.server import crowd

    store = serve(lists(4), "{blocks: 2, quota: 4}").extensions["mushra"].store
    places = records.Places(8, 2, 4)
    asked: list[tuple[str, Any]] = []

    def remember(connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    with store.read() as connection:
        sa.event.listen(connection, "before_cursor_execute", remember)
        records._free_slot(connection, "t", places)
        crowd.summary(connection, "t", places)
        crowd._rows(connection, "t", places)
        sa.event.remove(connection, "before_cursor_execute", remember)
        asked = [one for one in asked if one[0].startswith("SELECT")]
        assert len(asked) == 3
        for statement, values in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            reads = [row[3] for row in plan if "sessions" in row[3]]
            assert reads and all("COVERING INDEX sessions_state" in read for read in reads), plan
