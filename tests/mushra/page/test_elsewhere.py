"""One session in two browsers, and a data base that is away: what the page says, and what it goes on with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from listener import leave, rate_with_keys, results_when_saved, shown, start
from listening_material import GENERIC, mushra
from listening_site import Site

from mushra.store import records

pytestmark = pytest.mark.slow

Start = Callable[..., Site]
Open = Callable[..., Any]

EXPECTED = ("Failed to load resource",)


def test_two_browsers_that_save_the_same_page(site: Start, open_page: Open) -> None:
    """Who comes second is told, stores nothing over the first, and goes on from what is stored."""
    served = site(
        [mushra(stimuli={"A": "one.wav"}), GENERIC, GENERIC | {"id": "last"}],
        qincodec={"identification": "invitation"},
    )
    test = served.rows("SELECT test FROM tests")[0]["test"]
    token = served.store.write(lambda connection: records.invite(connection, test, ["Ada"]))["Ada"]
    first, second = open_page(), open_page(expected=EXPECTED)
    for page, score in ((first, 40), (second, 70)):
        start(page, f"{served.url}?t={token}")
        shown(page, "mushra")
        rate_with_keys(page, 1, 100)
        rate_with_keys(page, 2, score)
    leave(first)
    results_when_saved(first)
    kept = served.results()
    leave(second)
    second.wait_for_selector("h1:text-is('This session was continued in another window or browser')")
    assert second.locator(".next").count() == 0
    assert second.locator(".state").inner_text() == "", "nothing says that it was saved"
    assert served.results() == kept and [one["score"] for one in kept["p1"]["ratings"]] == [100, 40]
    second.get_by_role("button", name="Continue here").click()  # reads the session anew
    second.get_by_role("button", name="Continue").click()
    second.wait_for_selector(".place:text-is('Page 2 of 3')")
    shown(second, "generic")
    leave(second)
    results_when_saved(second)
    assert served.results()["p1"] == kept["p1"] and sorted(served.results()) == ["p1", "p2"]


def test_a_server_that_cannot_store_is_said_and_asked_again(site: Start, open_page: Open) -> None:
    """What the server answers while its data base is away is tried in tests/mushra/server/test_health.py."""
    served = site([GENERIC])
    page = open_page(expected=EXPECTED)
    page.clock.install()
    away = {"error": "Nothing can be stored now.", "code": "unavailable"}
    page.route("**/api/sessions", lambda route: route.fulfill(status=503, json=away))
    page.goto(served.url)
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_selector("text=cannot store answers right now")
    page.wait_for_selector("text=tries again automatically")
    page.unroute("**/api/sessions")
    page.clock.run_for(6_000)
    shown(page, "generic")
    assert len(served.rows("SELECT * FROM sessions")) == 1
