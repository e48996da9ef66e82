"""The experimenter's pages: who gets in, what can be changed and how, what is told about listeners."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from mushra.analysis.wording import condition_rows
from mushra.cli.main import main
from mushra.server import Limits, sign_in
from mushra.server.plots import draw, look
from mushra.server.progress import list_sessions
from mushra.store import schema
from mushra.store.ratings import read_ratings

SAME = {"Sec-Fetch-Site": "same-origin"}


def store(app: Any) -> Any:
    return app.extensions["mushra"].store


def forget_moves(store: Any, session: str, stimulus: str | None = None) -> None:
    """As an older page stored swipes over unset sliders: a score, and no move of the slider."""
    ratings = schema.ratings
    detail = json.dumps({"plays": 1, "heard_ms": 900, "moves": 0})
    change = sa.update(ratings).where(ratings.c.session == session).where(ratings.c.type == "mushra")
    if stimulus is not None:
        change = change.where(ratings.c.stimulus == stimulus)
    store.write(lambda connection: connection.execute(change.values(detail=detail)))


def test_a_link_signs_in_once(serve: Any) -> None:
    app = serve()
    token = sign_in.new_link(store(app))
    client = app.test_client()
    assert client.get("/admin/").headers["Location"].endswith("/admin/sign-in")
    assert client.post("/admin/sign-in", data={"token": token}, headers=SAME).status_code == 302
    cookie = client.get_cookie("mushra_admin", path="/admin/")
    assert cookie.http_only
    assert cookie.same_site == "Strict"
    assert client.get("/admin/").status_code == 200
    other = app.test_client()
    assert other.post("/admin/sign-in", data={"token": token}, headers=SAME).status_code == 403
    assert other.get("/admin/").status_code == 302
    dump = "\n".join(sqlite3.connect(store(app).name).iterdump())
    assert token not in dump
    assert cookie.value not in dump
    client.post("/admin/sign-out", headers=SAME)
    client.set_cookie("mushra_admin", cookie.value, path="/admin/")
    assert client.get("/admin/").status_code == 302  # the cookie is worth nothing any more


def test_the_password_is_kept_hashed_and_guessing_is_slow(serve: Any) -> None:
    app = serve(limits=Limits(sign_in=(5, 0.001)))
    sign_in.set_password(store(app), "correct horse")
    client = app.test_client()
    good = {"password": "correct horse"}
    assert client.post("/admin/sign-in", data=good, headers=SAME).status_code == 302
    kept = sqlite3.connect(store(app).name).execute("SELECT value FROM meta WHERE key = 'admin_password'")
    assert kept.fetchone()[0].startswith("scrypt:")
    answers = [
        app.test_client().post("/admin/sign-in", data={"password": f"guess {n}"}, headers=SAME)
        for n in range(6)
    ]
    assert [answer.status_code for answer in answers] == [403] * 4 + [429] * 2
    assert int(answers[-1].headers["Retry-After"]) > 100
    # A new password signs everybody out.
    sign_in.set_password(store(app), "another horse")
    assert client.get("/admin/").status_code == 302


def test_a_neighbour_who_guesses_does_not_lock_the_administrator_out(serve: Any) -> None:
    """All behind one address, as in a lab: whoever has signed in before still can, and so can a link."""
    app = serve(limits=Limits(sign_in=(3, 1e-9)))
    sign_in.set_password(store(app), "correct horse")
    good = {"password": "correct horse"}

    def status(client: Any, data: dict[str, str]) -> int:
        return int(client.post("/admin/sign-in", data=data, headers=SAME).status_code)

    own, neighbour = app.test_client(), app.test_client()
    assert status(own, good) == 302
    own.post("/admin/sign-out", headers=SAME)
    guessed = [status(neighbour, {"password": f"guess {n}"}) for n in range(9)]
    assert guessed[-1] == 429 and 302 not in guessed
    assert status(neighbour, good) == 429, "the right one among too many guesses is not told either"
    assert status(own, good) == 302
    assert status(app.test_client(), {"token": sign_in.new_link(store(app))}) == 302
    # A browser's own guesses are counted, too, and its cookie cannot be made up.
    assert [status(own, {"password": f"guess {n}"}) for n in range(4)] == [403, 403, 403, 429]
    name, _, signature = own.get_cookie("mushra_device", path="/admin/").value.partition(".")
    for made_up in (f"{name}x.{signature}", f"{name}.{signature[:-1]}", f"{name}.", "."):
        neighbour.set_cookie("mushra_device", made_up, path="/admin/")
        assert status(neighbour, good) == 429, made_up
    assert sign_in.known_device(store(app), f"{name}.{signature}") == name
    other = app.test_client()
    other.set_cookie("mushra_device", f"{name}.{signature}", path="/admin/")
    assert other.get("/admin/").status_code == 302, "it signs nobody in"


def test_every_admin_page_needs_signing_in_and_every_change_our_own_page(
    serve: Any, listener: Any, signed_in: Any
) -> None:
    app = serve()
    one = listener(app).take()
    inside, outside = signed_in(app), app.test_client()
    for rule in app.url_map.iter_rules():
        if not rule.rule.startswith("/admin/") or "sign-in" in rule.rule:
            continue
        url = (
            rule.rule.replace("<session>", one.session["id"])
            .replace("<kind>", "json")
            .replace("<name>", "means")
        )
        if "GET" in rule.methods:
            assert outside.get(url).status_code == 302, url
        if "POST" in rule.methods:
            assert outside.post(url, headers=SAME).status_code == 403, url
            for headers in (
                {},
                {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"},
                {"Sec-Fetch-Site": "none"},
                {"Origin": "https://evil.example"},
                {"Origin": "null"},
                {"Origin": "http://localhost.evil.example"},
            ):
                assert (
                    inside.post(url, headers=headers, data={"reason": "x", "sure": "erase"}).status_code
                    == 403
                )
            assert inside.get(url).status_code in (200, 404, 405), url  # and changes nothing:
    assert one.get().get_json()["state"] == "finished"
    assert inside.get("/admin/").status_code == 200
    excluded = inside.post(
        f"/admin/sessions/{one.session['id']}/exclude",
        data={"reason": "x"},
        headers={"Origin": "http://localhost"},
    )
    assert excluded.status_code == 302


def test_excluding_needs_a_reason_and_can_be_undone(serve: Any, listener: Any, signed_in: Any) -> None:
    app = serve()
    one = listener(app).take()
    client = signed_in(app)
    url = f"/admin/sessions/{one.session['id']}"
    assert client.post(f"{url}/exclude", data={"reason": " "}, headers=SAME).status_code == 400
    client.post(f"{url}/exclude", data={"reason": "fell <i>asleep</i>"}, headers=SAME)
    assert read_ratings(store(app)).empty
    every = read_ratings(store(app), everything=True)
    assert set(every["excluded_reason"]) == {"fell <i>asleep</i>"}
    assert "fell &lt;i&gt;asleep" in client.get(url).get_data(as_text=True)
    client.post(f"{url}/include", headers=SAME)
    assert len(read_ratings(store(app))) == 6


def test_a_listener_has_the_name_that_analyze_uses(serve: Any, listener: Any, signed_in: Any) -> None:
    app = serve()
    url = f"/admin/sessions/{listener(app).take().session['id']}"
    (who,) = set(read_ratings(store(app))["listener"])
    client = signed_in(app)
    assert f">{who[:8]}</code>" in client.get("/admin/").get_data(as_text=True)
    assert f"<code>{who}</code>" in client.get(url).get_data(as_text=True)


def test_quality_flags(serve: Any, listener: Any, answer: Any) -> None:
    app = serve()

    def take(change: Any) -> str:
        one = listener(app)
        for page in one.pages:
            result = answer(page)
            if page["type"] == "mushra" and not page["training"]:
                change(page, result)
            assert one.put(page, result).status_code == 200
        one.finish()
        return str(one.session["id"])

    def conditions(page: dict[str, Any]) -> dict[str, str]:
        plan = json.loads(
            sqlite3.connect(store(app).name)
            .execute("SELECT plan FROM sessions ORDER BY number DESC LIMIT 1")
            .fetchone()[0]
        )
        return next(dict(p["conditions"]) for p in plan if p["public"]["id"] == page["id"])

    def careful(page: dict[str, Any], result: dict[str, Any]) -> None:
        names = conditions(page)
        for rating in result["ratings"]:
            rating["score"] = 100 if names[rating["signal"]] == "reference" else 60

    def hasty(page: dict[str, Any], result: dict[str, Any]) -> None:
        careful(page, result)
        result["time_ms"] = 4000

    def deaf(page: dict[str, Any], result: dict[str, Any]) -> None:
        names = conditions(page)
        for rating in result["ratings"]:
            rating["score"] = 20 if names[rating["signal"]] == "reference" else 100

    found = {
        name: take(change) for name, change in {"c": careful, "h": hasty, "d": deaf, "i": careful}.items()
    }
    forget_moves(store(app), found["i"])
    with store(app).read() as connection:
        flags = {state.id: state.flags for state in list_sessions(connection, "small")}
    assert flags[found["c"]] == ()
    assert flags[found["h"]] == ("too fast on 2 of 2 pages",)
    assert flags[found["i"]] == ("never moved on 2 of 2 pages", "6 scores nobody gave")
    (low,) = flags[found["d"]]
    assert low.startswith("reference under 90 on 2 of 2 items (few items")


def test_scores_nobody_gave_are_told_with_whose_they_are(serve: Any, listener: Any, signed_in: Any) -> None:
    app = serve()
    one, other = listener(app).take(), listener(app).take()
    client = signed_in(app)
    assert "nobody gave" not in client.get("/admin/").get_data(as_text=True)

    def marked(session: str) -> int:
        page = client.get(f"/admin/sessions/{session}").get_data(as_text=True)
        return int(page.count("nobody gave it"))

    before = marked(one.session["id"])
    forget_moves(store(app), one.session["id"], "A")
    text = client.get("/admin/").get_data(as_text=True)
    # Two items; what is given in the training counts nowhere anyhow.
    assert "2 scores were stored without a move of the slider" in text
    assert text.count("2 scores nobody gave") == 1
    assert marked(one.session["id"]) == before + 3
    assert marked(other.session["id"]) == before


@pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True
)
def test_the_page_and_analyze_give_the_same_means(
    serve: Any,
    listener: Any,
    answer: Any,
    signed_in: Any,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One data base with all that makes a rating count or not; the right means worked out beside it."""
    monkeypatch.chdir(tmp_path)
    app = serve(section="identification: prolific\n  one_session_per_person: false", database=database)
    random = np.random.default_rng(4)
    given: list[tuple[str, str, str, float]] = []

    def come(who: str, visit: str = "a") -> Any:
        return listener(app, prolific={"pid": who, "study": "s", "session": visit})

    def conditions(one: Any) -> dict[str, Any]:
        with store(app).read() as connection:
            query = sa.select(schema.sessions.c.plan).where(schema.sessions.c.id == one.session["id"])
            plan = json.loads(connection.execute(query).scalar_one())
        return {page["public"]["id"]: page for page in plan}

    def rate(one: Any, pages: list[Any], who: str = "", revision: int = 1) -> None:
        plan = conditions(one)
        for page in pages:
            result = {**answer(page), "revision": revision}
            if page["type"] == "mushra":
                scores = [100, *random.integers(0, 100, len(result["ratings"]) - 1)]
                for rating, score in zip(result["ratings"], random.permutation(scores), strict=True):
                    rating["score"] = int(score)
                    name = plan[page["id"]]["conditions"][rating["signal"]]
                    if who and not page["training"]:
                        given.append((who, plan[page["id"]]["trial"], name, float(score)))
            assert one.put(page, result).status_code == 200

    def finish(one: Any) -> str:
        assert one.finish().status_code == 200
        return str(one.session["id"])

    # A repeat: the mean of a person's ratings counts, whatever the session.
    for visit in ("a", "b", "c"):
        one = come("twice", visit)
        rate(one, one.pages, "twice")
        finish(one)
    # Broken off, come back, and a page filled in again: its last revision counts.
    one = come("back")
    half = len(one.pages) // 2
    rate(one, [page for page in one.pages[:half] if page["type"] != "mushra"], "back")
    rate(one, [page for page in one.pages[:half] if page["type"] == "mushra"])
    one = come("back")
    rate(one, [page for page in one.pages[:half] if page["type"] == "mushra"], "back", revision=2)
    rate(one, one.pages[half:], "back")
    finish(one)
    # One more who counts; one who went away; one who is excluded; one whose slider for A never moved.
    for who in ("plain", "swiped"):
        one = come(who)
        rate(one, one.pages, who)
        finish(one)
    forget_moves(store(app), one.session["id"], "A")
    given = [row for row in given if (row[0], row[2]) != ("swiped", "A")]
    one = come("gone")
    rate(one, one.pages[:-1])
    one = come("out")
    rate(one, one.pages)
    client = signed_in(app)
    client.post(f"/admin/sessions/{finish(one)}/exclude", data={"reason": "spoke"}, headers=SAME)

    frame = pd.DataFrame(given, columns=["who", "item", "condition", "score"])
    by_item = frame.groupby(["who", "item", "condition"])["score"].mean()
    expected = by_item.groupby(["who", "condition"]).mean().groupby("condition").mean()

    config = app.extensions["mushra"].config
    arguments = ["--permutations", "100", "--no-plots", "--quiet", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(
        "sys.argv", ["mushra", "analyze", str(config.path), "--database", database, *arguments]
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    table = pd.read_csv(tmp_path / "out" / "conditions.csv", dtype=str).set_index("condition")
    analysis = look(store(app).target, "small", config.path)
    on_page = {row["condition"]: f"{row['mean']:.10g}" for row in analysis.conditions.to_dict("records")}
    assert on_page == table["mean"].to_dict()
    assert {name: float(mean) for name, mean in on_page.items()} == pytest.approx(expected.to_dict())
    assert list(analysis.loaded.not_given.values()) == [2]
    # What a person sees in the browser is that analysis, drawn in a process of its own.
    assert client.post("/admin/analysis", headers=SAME).status_code == 302
    app.extensions["mushra"].plots._process.wait()
    text = client.get("/admin/analysis").get_data(as_text=True)
    for row in condition_rows(analysis):
        assert f'<td data-label="Mean">{row["mean"]}</td>' in text, text
        assert f'<td data-label="Median">{row["median"]}</td>' in text
    assert "not given: 2 scores stored without a move of the slider" in text
    assert "rated twice" in text and "their mean is used" in text
    assert client.get("/admin/analysis/means.png").status_code == 200


def test_scores_that_look_like_another_scale_are_analysed(
    serve: Any, listener: Any, answer: Any, tmp_path: Path
) -> None:
    """The sliders go from 0 to 100, so 1 to 5 are points; `mushra analyze` would ask."""
    app = serve(section="rules: {one_at_100: false}")
    one = listener(app)
    for page in one.pages:
        result = answer(page)
        if page["type"] == "mushra":
            for place, rating in enumerate(result["ratings"]):
                rating["score"] = 5 - place
        assert one.put(page, result).status_code == 200
    assert one.finish().status_code == 200
    done = draw(store(app).target, "small", app.extensions["mushra"].config.path, tmp_path)
    means = [float(row["mean"]) for row in done["conditions"]]  # not stretched
    assert all(3 <= mean <= 5 for mean in means), means
    assert any("all scores are within 1 to 5 and count as points of 0 to 100" in p for p in done["problems"])


def test_progress_tells_finished_running_dropped(serve: Any, listener: Any, signed_in: Any) -> None:
    app = serve()
    listener(app).take()
    dropped, running = listener(app), listener(app)
    with sqlite3.connect(store(app).name) as connection:
        connection.execute("UPDATE sessions SET seen_at = 0 WHERE id = ?", (dropped.session["id"],))
    text = signed_in(app).get("/admin/").get_data(as_text=True)
    numbers = dict(re.findall(r"<dt>(\w+)</dt><dd>(\d+)</dd>", text))
    assert numbers == {"Finished": "1", "Running": "1", "Dropped": "1", "Excluded": "0", "Flagged": "1"}
    assert running.session["id"] in text


def test_exports_are_those_of_the_command(serve: Any, listener: Any, signed_in: Any) -> None:
    app = serve()
    client = signed_in(app)
    assert client.get("/admin/export/tidy").status_code == 404
    listener(app).take()
    archive = zipfile.ZipFile(io.BytesIO(client.get("/admin/export/webmushra").data))
    assert set(archive.namelist()) == {
        f"small/{n}.csv" for n in ("mushra", "paired_comparison", "bs1116", "lms")
    }
    tidy = client.get("/admin/export/tidy")
    assert tidy.headers["Content-Disposition"].startswith("attachment")
    assert len(tidy.get_data(as_text=True).splitlines()) == 1 + 6
    everything = client.get("/admin/export/json").get_json()
    assert everything["tests"][0]["configs"][0]["yaml"].startswith("\ntestname: A small test")
    assert client.get("/admin/export/../../etc/passwd").status_code == 404


def test_a_closed_test_and_invitations_from_the_page(serve: Any, listener: Any, signed_in: Any) -> None:
    app = serve(section="identification: invitation")
    client = signed_in(app)
    made = client.post("/admin/invitations", data={"names": "Ada\nBo <b>\n"}, headers=SAME)
    text = made.get_data(as_text=True)
    links = re.findall(r"http://localhost/\?t=([\w-]+)", text)
    assert len(links) == 2
    assert "Bo &lt;b&gt;" in text
    assert listener(app, invitation=links[0]).status == 201
    assert client.post("/admin/invitations", data={"names": "Ada"}, headers=SAME).status_code == 400
    assert client.post("/admin/invitations/withdraw", data={"name": "Ada"}, headers=SAME).status_code == 404
    withdrawn = client.post("/admin/invitations/withdraw", data={"name": "Bo <b>"}, headers=SAME)
    assert withdrawn.status_code == 302
    assert listener(app, invitation=links[1]).session["code"] == "invitation_unknown"
    client.post("/admin/closed", data={"closed": "1"}, headers=SAME)
    more = client.post("/admin/invitations", data={"names": "Cy"}, headers=SAME).get_data(as_text=True)
    token = re.findall(r"\?t=([\w-]+)", more)[0]
    assert listener(app, invitation=token).session["code"] == "closed"


def test_what_listeners_write_is_shown_as_text(
    serve: Any, listener: Any, answer: Any, signed_in: Any
) -> None:
    app = serve()
    one = listener(app)
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    for page in one.pages:
        result = answer(page)
        for rating in result.get("ratings", []):
            rating["comment"] = evil
        if page["type"] == "finish":
            result["responses"]["age"] = evil
        one.put(page, result)
    one.finish()
    text = signed_in(app).get(f"/admin/sessions/{one.session['id']}").get_data(as_text=True)
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text


def test_no_address_and_no_browser_name_is_kept(serve: Any, listener: Any) -> None:
    app = serve()
    one = app.test_client().post(
        "/api/sessions",
        json={"client": {"sample_rate": 44100, "screen": "1920x1080", "user_agent": "Secret/1.0"}},
        environ_base={"REMOTE_ADDR": "203.0.113.77"},
        headers={"User-Agent": "Secret/1.0"},
    )
    assert one.status_code == 201
    dump = "\n".join(sqlite3.connect(store(app).name).iterdump())
    assert "1920x1080" in dump
    assert "203.0.113" not in dump
    assert "Secret" not in dump
