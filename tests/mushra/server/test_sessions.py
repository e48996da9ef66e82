"""Listeners' sessions through the API: begun, saved, resumed, finished; never read or written by others."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mushra.config.load import load_config
from mushra.server.session_pages import latin_square, num_slots
from mushra.store.ratings import read_ratings


def database(app: Any) -> Path:
    return Path(app.extensions["mushra"].store.name)


def test_a_whole_test_is_stored_as_it_was_answered(serve: Any, listener: Any) -> None:
    app = serve()
    one = listener(app)
    assert one.status == 201
    one.take()
    assert one.get().get_json()["state"] == "finished"
    rows = sqlite3.connect(database(app)).execute("SELECT type, count(*) FROM pages GROUP BY type").fetchall()
    assert dict(rows) == {
        **dict.fromkeys(["generic", "consent", "volume", "likert_multi_stimulus", "finish"], 1),
        **{"mushra": 3, "bs1116": 2, "paired_comparison": 1},
    }
    frame = read_ratings(database(app), everything=True)
    # Training is there, and told apart.
    assert set(frame[frame["training"]]["item"]) == {"training1"}
    assert set(read_ratings(database(app))["item"]) == {"one", "two"}
    pages = {page["id"]: page for page in one.pages}
    for page_id, saved in one.get().get_json()["saved"].items():
        if pages[page_id]["type"] == "mushra":
            sent = [rating["score"] for rating in saved["result"]["ratings"]]
            assert sent.count(100) == 1
    assert sorted(frame[frame["item"] == "one"]["condition"]) == ["A", "B", "reference"]
    assert sorted(frame[frame["item"] == "one"]["score"]) == [70, 70, 100]


def test_what_the_page_is_told_does_not_tell_the_conditions(
    serve: Any, listener: Any, small_test: str
) -> None:
    yaml = small_test.replace(
        "id: one, reference: ref.wav", "id: one, reference: ref.wav, createAnchor35: true"
    )
    app = serve(yaml)
    one = listener(app)
    text = str(one.session)
    for secret in (".wav", "anchor", "config.yaml", "'one'", "graded", "condition"):
        assert secret not in text, secret
    # The hidden reference is the reference's file under another address, in every pair another one.
    urls = [signal["url"] for page in one.pages for signal in page.get("signals", [])]
    urls += [page["reference"]["url"] for page in one.pages if page.get("reference")]
    bodies = {url: one.client.get("/" + url).data for url in set(urls)}
    for page in one.pages:
        if page["type"] in ("mushra", "bs1116", "paired_comparison"):
            reference = page["reference"]["url"]
            same = [s for s in page["signals"] if bodies[s["url"]] == bodies[reference]]
            assert len(same) == 1
            assert same[0]["url"] != reference
            sizes = {len(bodies[signal["url"]]) for signal in page["signals"]}
            assert len(sizes) == 1  # the anchor made by the server, too
    pairs = [page for page in one.pages if page["type"] == "bs1116"]
    used = Counter(signal["url"] for page in pairs for signal in page["signals"])
    assert set(used.values()) == {1}


def test_a_folder_given_relative_to_where_one_is(
    make_folder: Any, serve: Any, listener: Any, small_test: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    yaml = small_test.replace("id: one,", "id: one, createAnchor35: true,")
    monkeypatch.chdir(make_folder(yaml).parent)
    one = listener(serve(folder=Path("test")))
    urls = {signal["url"] for page in one.pages for signal in page.get("signals", [])}
    assert len(urls) > 5 and {one.client.get("/" + url).status_code for url in urls} == {200}


def test_stimuli_are_cached_and_given_in_parts(serve: Any, listener: Any) -> None:
    app = serve()
    one = listener(app)
    url = "/" + one.page("mushra")["signals"][0]["url"]
    whole = one.client.get(url)
    assert whole.status_code == 200
    assert set(whole.headers["Cache-Control"].split(", ")) == {"private", "immutable", "max-age=31536000"}
    assert "Last-Modified" not in whole.headers
    assert "Content-Disposition" not in whole.headers
    # The tag is no hash of the content: the hidden reference would have that of the reference.
    assert hashlib.sha256(whole.data).hexdigest()[:16] not in whole.headers["ETag"]
    part = one.client.get(url, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206
    assert part.data == whole.data[10:20]
    assert one.client.get(url, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    # Addresses stay over a restart, or half-loaded pages of running listeners would break.
    again = listener(serve(folder=database(app).parent))
    assert again.client.get(url).data == whole.data


def test_saving_is_idempotent_and_later_revisions_win(serve: Any, listener: Any, answer: Any) -> None:
    app = serve()
    one = listener(app)
    page = one.page("mushra")
    first = answer(page, 10)
    assert one.put(page, first).get_json() == {"page": page["id"], "revision": 1}
    assert one.put(page, first).get_json()["revision"] == 1  # the answer was lost, say
    second = {**answer(page, 20), "revision": 3}
    assert one.put(page, second).get_json()["revision"] == 3
    saved = one.get().get_json()["saved"][page["id"]]
    assert saved["revision"] == 3
    assert [rating["score"] for rating in saved["result"]["ratings"]] == [100, 20]
    scores = sqlite3.connect(database(app)).execute("SELECT score FROM ratings ORDER BY position").fetchall()
    assert scores == [(100.0,), (20.0,)]


def test_nothing_is_called_saved_that_another_browser_has_overtaken(
    database: str, serve: Any, listener: Any, answer: Any
) -> None:
    app = serve(section="identification: invitation", database=database)
    token = invited(app, "Ada")["Ada"]
    one, other = listener(app, invitation=token), listener(app, invitation=token)
    page = one.page("mushra")
    kept = {**answer(page, 20), "revision": 2}
    assert one.put(page, kept).status_code == 200
    for late in ({**kept, "time_ms": 1.0}, {**answer(page, 30), "revision": 2}, answer(page, 20)):
        refused = other.put(page, late)
        assert (refused.status_code, refused.get_json()["code"]) == (409, "saved_elsewhere")
    assert other.put(page, kept).status_code == 200  # by whomever it came, that is what is stored
    saved = other.get().get_json()["saved"][page["id"]]
    assert saved["revision"] == 2
    assert [rating["score"] for rating in saved["result"]["ratings"]] == [100, 20]
    assert other.put(page, {**answer(page, 40), "revision": 3}).status_code == 200  # from what is stored
    one.take()
    last = other.put(page, {**answer(page, 50), "revision": 4})
    assert (last.status_code, last.get_json()["code"]) == (409, "finished")


def test_finish_names_the_pages_that_are_missing(serve: Any, listener: Any, answer: Any) -> None:
    one = listener(serve(section="completion: {code: ABC, redirect: 'https://example.org/done'}"))
    optional = [page["id"] for page in one.pages if page["type"] in ("generic", "volume")]
    for page in one.pages[:-1]:
        if page["id"] not in optional:
            one.put(page, answer(page))
    missing = one.finish()
    assert missing.status_code == 409
    assert missing.get_json()["missing"] == [one.pages[-1]["id"]]
    last = one.pages[-1]
    one.put(last, answer(last))
    assert one.finish({last["id"]: 2}).get_json()["missing"] == [last["id"]]  # a later revision is on its way
    done = one.finish({last["id"]: 1})
    assert done.get_json() == {"code": "ABC", "redirect": "https://example.org/done", "results": None}
    assert one.finish().get_json() == done.get_json()
    assert one.get().get_json()["completion"]["code"] == "ABC"
    assert one.put(last, {**answer(last), "revision": 2}).status_code == 409
    assert one.put(last, answer(last)).status_code == 200  # a late repetition of what is there


def test_nobody_gets_at_the_session_of_another(serve: Any, listener: Any, answer: Any) -> None:
    app = serve()
    one, other = listener(app), listener(app)
    page = one.page("mushra")
    for headers in (other.headers, {}, {"Authorization": "Bearer "}, {"Authorization": "Basic eA=="}):
        for call in (
            one.client.get(one.url, headers=headers),
            one.client.put(f"{one.url}/pages/{page['id']}", json=answer(page), headers=headers),
            one.client.post(f"{one.url}/finish", json={}, headers=headers),
        ):
            assert call.status_code == 401
            assert "saved" not in call.get_json()
    assert one.get().get_json()["saved"] == {}
    assert one.client.get("/api/sessions/nobody", headers=one.headers).status_code == 404
    dump = "\n".join(sqlite3.connect(database(app)).iterdump())
    assert one.session["key"] not in dump


@pytest.mark.parametrize(("named", "labels"), [("false", {None}), ("true", {"A", "reference"})])
def test_results_are_shown_if_the_test_says_so(
    serve: Any, listener: Any, named: str, labels: set[str | None]
) -> None:
    yaml = f"""
testname: T
testId: t
pages:
  - type: mushra
    id: x
    name: Piano
    showConditionNames: {named}
    reference: ref.wav
    stimuli: {{A: a.wav}}
  - {{type: finish, showResults: true}}
"""
    one = listener(serve(yaml)).take(40)
    (shown,) = one.finish().get_json()["results"]
    assert shown["name"] == "Piano"
    assert {rating["label"] for rating in shown["ratings"]} == labels, "no names that the page did not show"
    assert {rating["score"] for rating in shown["ratings"]} == {100, 40}


# Who may begin


def invited(app: Any, *names: str) -> dict[str, str]:
    from mushra.store import records

    tokens: dict[str, str] = app.extensions["mushra"].store.write(
        lambda connection: records.invite(connection, "small", names)
    )
    return tokens


def test_an_invitation_works_once_and_resumes_until_then(serve: Any, listener: Any, answer: Any) -> None:
    app = serve(section="identification: invitation")
    token = invited(app, "Ada")["Ada"]
    for refused in (listener(app), listener(app, invitation="x"), listener(app, invitation=None)):
        assert (refused.status, refused.session["code"]) == (403, "invitation_unknown")
    one = listener(app, invitation=token)
    page = one.page("mushra")
    one.put(page, answer(page))
    elsewhere = listener(app, invitation=token)  # another browser
    assert elsewhere.session["id"] == one.session["id"]
    assert list(elsewhere.session["saved"]) == [page["id"]]
    assert one.get().status_code == elsewhere.get().status_code == 200  # the first browser goes on, too
    elsewhere.take()
    again = listener(app, invitation=token)
    assert (again.status, again.session["code"]) == (403, "invitation_used")
    assert token not in "\n".join(sqlite3.connect(database(app)).iterdump())


def test_prolific_listeners_are_recorded_and_come_once(serve: Any, listener: Any) -> None:
    section = "identification: prolific\n  one_session_per_person: true"
    app = serve(section=section)
    assert listener(app).session["code"] == "prolific_needed"
    assert listener(app, prolific={"pid": "p", "study": "s"}).session["code"] == "prolific_needed"
    who = {"pid": "p1", "study": "st", "session": "a"}
    one = listener(app, prolific=who)
    back = listener(app, prolific={**who, "session": "b"})
    assert back.session["id"] == one.session["id"]
    back.take()
    assert listener(app, prolific={**who, "session": "c"}).session["code"] == "already_done"
    assert listener(app, prolific={**who, "pid": "p2"}).status == 201
    stored = sqlite3.connect(database(app)).execute("SELECT prolific FROM sessions").fetchone()[0]
    assert '"session": "a"' in stored


def test_one_session_per_person_without_names(serve: Any, listener: Any) -> None:
    app = serve(section="one_session_per_person: true")
    one = listener(app)
    cookie = next(c for c in [one.client.get_cookie("listener")] if c is not None)
    assert cookie.http_only
    again = one.client.post("/api/sessions", json={})
    assert again.get_json()["id"] == one.session["id"]
    one.take()
    done = one.client.post("/api/sessions", json={})
    assert (done.status_code, done.get_json()["code"]) == (403, "already_done")
    assert listener(app).session["id"] != one.session["id"]  # another browser, another person


def test_a_closed_test_takes_nobody_new(serve: Any, listener: Any) -> None:
    from mushra.store import records

    app = serve()
    one = listener(app)
    app.extensions["mushra"].store.write(lambda connection: records.set_closed(connection, "small", True))
    assert listener(app).session["code"] == "closed"
    one.take()


# Order


@pytest.mark.parametrize("n", range(2, 13))
def test_latin_squares_are_balanced(n: int) -> None:
    square = latin_square(n)
    assert all(sorted(row) == list(range(n)) for row in square)
    for place in range(n):
        assert len(set(Counter(row[place] for row in square).values())) == 1
    after = Counter(pair for row in square for pair in itertools.pairwise(row))
    assert len(after) == n * (n - 1)
    assert len(set(after.values())) == 1


def trials(number: int) -> str:
    one = "    - {{type: mushra, id: t{}, reference: ref.wav, stimuli: {{A: a.wav, B: b.wav}}}}\n"
    pages = "".join(one.format(n) for n in range(number))
    return f"testname: T\ntestId: t\npages:\n  - - random\n{pages}"


def orders(app: Any, listener: Any, count: int) -> list[list[str]]:
    """Trials of listeners who come one after the other and finish."""
    for _ in range(count):
        listener(app).take()
    frame = read_ratings(database(app))
    pages = frame.drop_duplicates(["session", "order"]).groupby("session", sort=False)["item"].agg(list)
    return [list(items) for items in pages]


def test_every_item_is_equally_often_at_every_place(serve: Any, listener: Any) -> None:
    app = serve(trials(4))
    found = orders(app, listener, 8)
    for place in range(4):
        assert set(Counter(order[place] for order in found).values()) == {2}


def test_a_long_test_is_shared_evenly(serve: Any, listener: Any) -> None:
    app = serve(trials(6), section="items_per_listener: 2")
    found = orders(app, listener, 12)
    assert {len(order) for order in found} == {2}
    assert set(Counter(item for order in found for item in order).values()) == {4}
    assert set(Counter(order[0] for order in found).values()) == {2}


def test_the_place_of_someone_who_drops_out_is_given_again(serve: Any, listener: Any) -> None:
    app = serve(trials(4))
    listener(app)
    with sqlite3.connect(database(app)) as connection:
        connection.execute("UPDATE sessions SET seen_at = 0")
    found = orders(app, listener, 4)
    for place in range(4):
        assert len({order[place] for order in found}) == 4


def test_orders_follow_from_the_seed(serve: Any, make_folder: Any, listener: Any) -> None:
    def pages(name: str, seed: int) -> list[list[tuple[str, str]]]:
        app = serve(folder=make_folder(trials(5), f"seed: {seed}", name))
        for _ in range(3):
            listener(app).take()
        frame = read_ratings(database(app))
        return [
            list(zip(f["item"], f["condition"], strict=True)) for _, f in frame.groupby("session", sort=False)
        ]

    first = pages("one", 3)
    assert pages("two", 3) == first
    assert pages("three", 4) != first
    assert len({tuple(order) for order in first}) == 3


def test_signals_are_shuffled_evenly(serve: Any) -> None:
    from mushra.server.session_pages import session_pages

    app = serve(trials(1))
    here = app.extensions["mushra"]
    firsts = Counter(
        session_pages(here.config, here.stimuli, number, 0)[0].conditions["s1"] for number in range(600)
    )
    assert set(firsts) == {"A", "B", "reference"}
    assert all(150 < count < 250 for count in firsts.values())  # 200 expected, 4 standard deviations


def test_the_order_survives_a_refresh_a_restart_and_a_changed_test(serve: Any, listener: Any) -> None:
    app = serve(trials(5))
    one = listener(app)
    folder = database(app).parent
    (folder / "config.yaml").write_text(trials(4), encoding="utf-8")
    other = serve(folder=folder)
    again = other.test_client().get(one.url, headers=one.headers).get_json()
    assert again["pages"] == one.session["pages"]
    assert num_slots(load_config(folder)) == 4
