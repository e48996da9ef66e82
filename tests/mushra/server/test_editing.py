"""The experimenter's page of a test: edit, preview, open and close."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from mushra.config.load import load_config
from mushra.server import api
from mushra.server.sign_in import new_link, set_password

OURS = {"Origin": "http://localhost"}


class Experimenter:
    """Signed in, with a form that holds what the page shows."""

    def __init__(self, app: Flask) -> None:
        self.client = app.test_client()
        token = new_link(app.extensions["mushra"].store)
        assert self.client.post("/admin/sign-in", data={"token": token}, headers=OURS).status_code == 302

    def get(self, path: str = "/admin/test") -> str:
        answer = self.client.get(path)
        assert answer.status_code == 200
        return answer.get_data(as_text=True)

    def save(self, **entered: Any) -> Any:
        """Send only these controls; "__" stands for ".", True and False switch."""
        version = self.get().split('name="version" value="')[1].split('"')[0]
        return self.send(version, entered)

    def send(self, version: str, entered: dict[str, Any]) -> Any:
        data: dict[str, Any] = {"version": version}
        for name, value in entered.items():
            key = name.replace("__", ".")
            data[f"{key}:shown"] = "1"
            if value is not False:
                data[key] = "on" if value is True else value
        return self.client.post("/admin/test", data=data, headers=OURS)


@pytest.fixture
def app(serve: Callable[..., Flask]) -> Flask:
    return serve()


def folder(app: Flask) -> Path:
    path: Path = app.extensions["mushra"].config.path.parent
    return path


def rows(app: Flask) -> dict[str, int]:
    with app.extensions["mushra"].store.read() as connection:
        tables = ("sessions", "pages", "ratings", "answers", "configs")
        return {
            name: connection.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar_one() for name in tables
        }


def test_a_text_is_changed_for_who_begins_then(app: Flask, listener: Any) -> None:
    before = load_config(folder(app))
    answer = Experimenter(app).save(
        pages__1__content="<p>Hello again: <b>you</b></p>\r\n<p># 2</p>",
        testname="It's new",
        qincodec__completion__code="ABC-1",
        qincodec__languages=["en", "de"],
        qincodec__rules__one_at_100=False,
    )
    assert answer.status_code == 302, answer.get_data(as_text=True)
    after = load_config(folder(app))
    assert after.testname == "It's new"
    assert after.section.completion.code == "ABC-1" and after.section.languages == ["en", "de"]
    assert not after.section.rules.one_at_100
    assert after.pages[1:] == before.pages[1:]
    session = listener(app).session
    assert session["test"]["name"] == "It's new"
    assert 'data-languages="en de"' in app.test_client().get("/").get_data(as_text=True)
    assert session["pages"][0]["content"] == "<p>Hello again: <b>you</b></p>\n<p># 2</p>"
    assert session["rules"]["one_at_100"] is False
    assert rows(app)["configs"] == 2  # what is served is kept, as at the start


def test_errors_stand_beside_their_fields_and_nothing_is_lost(app: Flask) -> None:
    text = (folder(app) / "config.yaml").read_bytes()
    answer = Experimenter(app).save(
        qincodec__completion__redirect='x"><b>', qincodec__items_per_listener="many", testname="Kept <i>"
    )
    page = answer.get_data(as_text=True)
    assert answer.status_code == 400
    for name, message in (
        ("qincodec.completion.redirect", "must begin with https://"),
        ("qincodec.items_per_listener", "it must be a whole number"),
    ):
        error = page.split(f'id="{name}-error">')[1].split("</p>")[0]
        assert message in error
    assert 'value="Kept &lt;i&gt;"' in page and "<b>" not in page.split("</nav>")[1].replace("</b>", "")
    assert (folder(app) / "config.yaml").read_bytes() == text
    assert app.extensions["mushra"].config.testname == "A small test"


def test_a_test_that_somebody_takes_keeps_its_comparison(app: Flask, listener: Any) -> None:
    experimenter = Experimenter(app)
    version = experimenter.get().split('name="version" value="')[1].split('"')[0]
    listener(app)
    text = (folder(app) / "config.yaml").read_bytes()
    # The form was shown before somebody began.
    for name, value in (("qincodec.rules.one_at_100", False), ("pages.5.content", "Only noise.")):
        answer = experimenter.send(version, {name: value})
        assert answer.status_code == 409
        assert "Not saved: a session has begun" in answer.get_data(as_text=True)
        assert (folder(app) / "config.yaml").read_bytes() == text
    assert "Only noise." in answer.get_data(as_text=True)
    # Fields that decide the comparison are locked; others stay open.
    page = experimenter.get()
    locked = page.split('name="qincodec.headphone_check" value="on"')[1].split(">")[0]
    assert "disabled" in locked
    assert experimenter.save(qincodec__completion__code="late", pages__1__content="Hi").status_code == 302
    assert listener(app).session["pages"][0]["content"] == "Hi"


def test_what_was_edited_by_hand_meanwhile_is_not_overwritten(app: Flask) -> None:
    experimenter = Experimenter(app)
    version = experimenter.get().split('name="version" value="')[1].split('"')[0]
    path = folder(app) / "config.yaml"
    path.write_text(path.read_text().replace("A small test", "By hand"))
    answer = experimenter.send(version, {"qincodec.completion.code": "mine"})
    page = answer.get_data(as_text=True)
    assert answer.status_code == 409 and "changed meanwhile" in page and 'value="mine"' in page
    assert "By hand" in path.read_text() and "mine" not in path.read_text()
    assert experimenter.save(qincodec__completion__code="mine").status_code == 302
    assert load_config(path).testname == "By hand"
    assert app.extensions["mushra"].config == load_config(path)
    path.write_text("testname: [")
    assert "The file has errors" in experimenter.get()


def test_questions_come_and_go(app: Flask) -> None:
    experimenter = Experimenter(app)
    assert experimenter.save(questionnaire=["years", "remarks"]).status_code == 302
    finish = load_config(folder(app)).flat()[-1]
    assert [one.name for one in finish.questionnaire] == ["years", "remarks"]  # type: ignore[union-attr]
    assert finish.questionnaire[0].max == 99  # type: ignore[union-attr, index]


def test_every_page_is_previewed_and_nothing_is_stored(
    app: Flask, answer: Callable[..., dict[str, Any]]
) -> None:
    experimenter, before = Experimenter(app), rows(app)
    client = experimenter.client
    numbers = [str(number) for number in range(1, len(app.extensions["mushra"].config.flat()) + 1)]
    for which in ["all", *numbers]:
        at = f"/admin/preview/{which}"
        assert "Preview: A small test" in experimenter.get(f"{at}/")
        assert client.get(f"{at}/static/js/main.js").status_code == 200
        session = client.post(f"{at}/api/sessions", json={}, headers=OURS).get_json()
        place = f"{at}/api/sessions/{session['id']}"
        assert session["pages"] and (which == "all" or len({page["type"] for page in session["pages"]}) == 1)
        for page in session["pages"]:
            for sound in [*page.get("signals", []), *([page["reference"]] if page.get("reference") else [])]:
                assert client.get(f"{at}/{sound['url']}").status_code == 200
            sent = client.put(f"{place}/pages/{page['id']}", json=answer(page), headers=OURS)
            assert sent.get_json() == {"page": page["id"], "revision": 1}
            assert client.put(f"{place}/pages/{page['id']}", json=[], headers=OURS).status_code == 400
        assert client.post(f"{place}/finish", json={}, headers=OURS).status_code == 200
        assert client.get(place).status_code == 404
    assert rows(app) == before
    for which in ("0", "99", "x", "²"):
        assert client.get(f"/admin/preview/{which}/").status_code == 404


def test_only_for_who_is_signed_in(app: Flask) -> None:
    stranger = app.test_client()
    for path in ("/admin/test", "/admin/preview/all/", "/admin/preview/1/static/js/main.js"):
        assert stranger.get(path).headers["Location"].endswith("/admin/sign-in")
    assert stranger.post("/admin/test", data={}, headers=OURS).status_code == 403
    assert stranger.post("/admin/preview/all/api/sessions", json={}, headers=OURS).status_code == 403
    set_password(app.extensions["mushra"].store, "0123456789")
    assert Experimenter(app).client.post("/admin/test", headers={"Origin": "http://evil"}).status_code == 403


def test_who_begins_while_the_test_is_changed_gets_it_whole(
    app: Flask, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is made of one configuration, the one that is stored with the session."""
    real, texts = api._arrival, iter(["First.", "Second."])

    def arrival(*given: Any) -> Any:
        made = real(*given)
        if text := next(texts, None):
            assert Experimenter(app).save(pages__1__content=text).status_code == 302
        return made

    monkeypatch.setattr(api, "_arrival", arrival)
    session = listener(app).session
    assert session["pages"][0]["content"] == "Second."
    with app.extensions["mushra"].store.read() as connection:
        query = "SELECT yaml FROM sessions JOIN configs ON configs.sha256 = sessions.config"
        (yaml,) = connection.execute(sa.text(query)).scalars()
    assert yaml == (folder(app) / "config.yaml").read_text()


def test_a_file_that_cannot_be_written_changes_nothing(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before, text = app.extensions["mushra"].config, (folder(app) / "config.yaml").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    answer = Experimenter(app).save(testname="Not kept", pages__1__content="Typed for an hour.")
    page = answer.get_data(as_text=True)
    assert answer.status_code == 503
    assert "Not saved: cannot write" in page and "No space left" in page and "Typed for an hour." in page
    assert app.extensions["mushra"].config == before
    assert (folder(app) / "config.yaml").read_bytes() == text
