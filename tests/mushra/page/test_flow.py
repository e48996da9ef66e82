"""Whole tests in a real browser, and what must not get lost on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fingers import state
from listener import (
    leave,
    listen,
    rate_with_keys,
    rate_with_mouse,
    results_when_saved,
    scale,
    shown,
    start,
    tab_to,
)
from listening_material import CONSENT, DURATION_S, FINISH, GENERIC, mushra
from listening_site import Site

Start = Callable[..., Site]
Open = Callable[..., Any]
Begin = Callable[..., tuple[Any, Site]]

OFFLINE = ("Failed to load resource", "ERR_INTERNET_DISCONNECTED", "ERR_CONNECTION")
SHORT = [GENERIC, mushra(stimuli={"A": "one.wav"}), {**FINISH, "showResults": False, "popupContent": None}]


def check_results(served: Site, trial: str, scores: list[int]) -> None:
    """What is stored: the scores under the conditions they were given to, everything heard."""
    ratings = served.rows("SELECT stimulus, score, detail FROM ratings ORDER BY position")
    conditions = served.conditions()[trial]
    expected = {conditions[f"s{n}"]: score for n, score in enumerate(scores, start=1)}
    assert {row["stimulus"]: row["score"] for row in ratings} == expected
    for row in ratings:
        detail = json.loads(row["detail"])
        assert detail["plays"] >= 1
        assert detail["moves"] >= 1
        assert detail["heard_ms"] >= 500
        assert detail["first_ms"] > 0


def test_a_whole_test_with_the_mouse(begin: Begin) -> None:
    page, served = begin([GENERIC, mushra(), FINISH], qincodec={"completion": {"code": "XYZ7"}})
    assert page.locator(".place").inner_text() == "Page 1 of 3"
    leave(page)
    shown(page, "mushra")
    scores = [64, 12, 100, 87]
    for n, score in enumerate(scores, start=1):
        rate_with_mouse(page, n, score)
    given = [int(scale(page, n).get_attribute("aria-valuenow")) for n in range(1, 5)]
    assert all(abs(one - other) <= 1 for one, other in zip(given, scores, strict=True))
    leave(page)
    shown(page, "finish")
    page.get_by_label("Your initials").fill("J. D.")
    page.get_by_role("textbox", name="Age (optional)").fill("31")
    page.get_by_label("Yes").check()
    leave(page)
    page.wait_for_selector(".done")
    assert page.get_by_role("dialog").inner_text().startswith("Thank you\n")
    page.get_by_role("button", name="Close").click()
    assert page.locator(".code").inner_text() == "XYZ7"
    rows = page.get_by_role("table", name="Your ratings").locator("tbody tr").all_inner_texts()
    # Under the names they were rated by: conditions would tell what was hidden, opaque names nothing.
    title = "How close is it to the reference?"
    assert [row.split("\t") for row in rows] == [[title, f"Item {n}", str(g)] for n, g in enumerate(given, 1)]
    check_results(served, "p2", given)
    assert served.results()["p3"]["responses"] == {
        "initials": "J. D.",
        "age": "31",
        "expert": "yes",
        "remarks": "",
    }
    assert [row["state"] for row in served.rows("SELECT state FROM sessions")] == ["finished"]


def test_a_whole_test_with_the_keyboard_alone(site: Start, open_page: Open) -> None:
    served = site([CONSENT, mushra(), FINISH])
    page = open_page(autoplay=None)
    page.goto(served.url)
    page.wait_for_selector("button.big")
    tab_to(page, "button.big")
    page.keyboard.press("Enter")
    shown(page, "consent")
    page.keyboard.press("Enter")
    assert "Tick the box" in page.get_by_role("alert").inner_text()
    tab_to(page, "#consent")
    page.keyboard.press("Space")
    page.keyboard.press("n")
    shown(page, "mushra")
    page.keyboard.press("r")
    listen(page, 0.2)
    scores = [37, 100, 58, 5]
    for n, score in enumerate(scores, start=1):
        rate_with_keys(page, n, score)
    page.keyboard.press("Enter")
    shown(page, "finish")
    tab_to(page, "#question-0")
    page.keyboard.type("K")
    tab_to(page, "[name=question-2]")
    page.keyboard.press("Space")
    tab_to(page, ".next")
    page.keyboard.press("Enter")
    page.wait_for_selector(".done")
    check_results(served, "p2", scores)
    assert served.results()["p3"]["responses"]["expert"] == "no"
    consent = served.results()["p1"]["consent"]
    assert consent["given"] is True
    assert len(consent["text_sha256"]) == 64


def test_an_item_that_no_longer_plays_is_not_rated(begin: Begin) -> None:
    page, _ = begin([mushra(), GENERIC])
    for key, plays in (("2", "s2"), (" ", None)):  # another item is played, all is paused
        page.keyboard.press("1")
        box = page.locator(".item .scale-track").first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        assert scale(page, 1).get_attribute("aria-valuenow") == "50"
        page.keyboard.press(key)
        page.mouse.move(x, y - box["height"] / 5)
        assert scale(page, 1).get_attribute("aria-valuetext") == "not rated yet"
        page.mouse.up()
        pressed = page.locator(".play[aria-pressed=true]")
        assert [one.get_attribute("data-signal") for one in pressed.all()] == ([plays] if plays else [])
        assert "Play Item 1 first" in page.locator(".hint").inner_text()
        assert [(one["score"], one["moves"]) for one in state(page)["ratings"]] == [(None, 0)] * 4


def test_an_excerpt_without_a_loop_is_heard_again(begin: Begin) -> None:
    page, _ = begin([mushra(enableLooping=False)])
    page.keyboard.press("1")
    listen(page, DURATION_S + 0.3)
    assert page.locator("[data-signal=s1][aria-pressed=true]").count() == 1


def test_the_rules_hold_and_say_what_is_missing(begin: Begin) -> None:
    page, _ = begin([mushra(stimuli={"A": "one.wav"}), GENERIC])
    rules = page.get_by_role("list", name="Rules of this page").inner_text()
    assert rules.count("\n") == 3
    first, second = scale(page, 1), scale(page, 2)
    assert first.get_attribute("aria-valuetext") == "not rated yet"
    assert page.locator(".item .scale-thumb:visible").count() == 0
    leave(page)
    alert = page.get_by_role("alert")
    assert "Not heard yet: Item 1, Item 2." in alert.inner_text()
    assert "Not rated yet: Item 1, Item 2." in alert.inner_text()

    page.keyboard.press("1")
    page.locator(".item").nth(1).locator(".scale-track").click()
    assert second.get_attribute("aria-valuetext") == "not rated yet"
    assert "Play Item 2 first" in page.locator(".hint").inner_text()
    page.keyboard.press("ArrowUp")
    assert first.get_attribute("aria-valuetext") == "50, Fair"
    listen(page)
    page.keyboard.press("Space")
    page.keyboard.press("ArrowUp")
    assert first.get_attribute("aria-valuenow") == "50", "paused: nothing plays, nothing can be rated"
    page.keyboard.press("2")
    assert page.locator(".hint").inner_text() == "", "it plays now"
    listen(page)
    page.keyboard.press("ArrowDown")
    leave(page)
    assert alert.get_by_role("listitem").all_inner_texts() == ["No item is rated 100 yet."]
    second.press("End")
    assert second.get_attribute("aria-valuetext") == "100, Excellent"
    leave(page)
    shown(page, "generic")


def test_each_rule_can_be_turned_off(begin: Begin) -> None:
    rules = dict.fromkeys(["must_hear_all", "must_rate_all", "one_at_100", "only_playing_rated"], False)
    page, served = begin([mushra(), GENERIC], qincodec={"rules": rules})
    assert page.get_by_role("list", name="Rules of this page").count() == 0
    page.locator(".item").nth(2).locator(".scale-track").click()
    leave(page)
    shown(page, "generic")
    results_when_saved(page)
    scores = [rating["score"] for rating in served.results()["p1"]["ratings"] if "score" in rating]
    assert scores == [50]


def test_a_reload_goes_on_where_it_was(begin: Begin) -> None:
    page, served = begin([GENERIC, mushra(), GENERIC | {"id": "end"}])
    leave(page)
    shown(page, "mushra")
    rate_with_keys(page, 1, 70)
    page.get_by_role("button", name="Comments").click()
    assert page.evaluate("document.activeElement.labels[0].textContent") == "Comment on Item 1", "it plays"
    page.get_by_label("Comment on Item 1").fill("a little <b>rough</b>")
    assert page.get_by_role("button", name="Comments").inner_text() == "Comments (1)"
    page.reload()
    page.wait_for_selector("text=page 2 of 3")
    page.get_by_role("button", name="Continue").click()
    shown(page, "mushra")
    assert scale(page, 1).get_attribute("aria-valuetext") == "70, Good"
    assert scale(page, 2).get_attribute("aria-valuetext") == "not rated yet"
    assert page.get_by_label("Comment on Item 1").input_value() == "a little <b>rough</b>"
    for n, score in ((2, 100), (3, 20), (4, 10)):
        rate_with_keys(page, n, score)
    leave(page)
    shown(page, "generic")
    results_when_saved(page)
    rating = served.results()["p2"]["ratings"][0]
    assert rating["score"] == 70
    assert rating["comment"] == "a little <b>rough</b>"
    assert rating["heard_ms"] >= 500, "what was heard before the reload counts"


def test_a_lost_server_loses_nothing(begin: Begin) -> None:
    page, served = begin(SHORT, browser={"expected": OFFLINE})
    served.stop()
    leave(page)
    shown(page, "mushra")
    page.wait_for_selector(".state.waiting")
    warns = "() => !dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    assert page.evaluate(warns) is True
    rate_with_keys(page, 1, 100)
    rate_with_keys(page, 2, 40)
    leave(page)
    shown(page, "finish")
    served.start()
    page.evaluate("dispatchEvent(new Event('online'))")
    results_when_saved(page)
    assert page.evaluate(warns) is False
    assert sorted(served.results()) == ["p1", "p2"]
    page.get_by_label("Your initials").fill("x")
    page.get_by_label("No", exact=True).check()
    leave(page)
    page.wait_for_selector(".done")
    check_results(served, "p2", [100, 40])
    assert len(served.rows("SELECT * FROM sessions")) == 1


def test_unconfirmed_pages_outlive_a_closed_window(begin: Begin) -> None:
    page, served = begin(
        [GENERIC, GENERIC | {"id": "two"}, GENERIC | {"id": "three"}], browser={"expected": OFFLINE}
    )
    page.context.route("**/api/sessions/*/pages/*", lambda route: route.abort())
    leave(page)
    page.wait_for_selector(".place:text-is('Page 2 of 3')")
    page.wait_for_selector(".state.waiting")
    page.close(run_before_unload=False)
    page.context.unroute("**/api/sessions/*/pages/*")
    assert served.results() == {}
    again = page.context.new_page()
    again.goto(served.url)
    again.get_by_role("button", name="Continue").click()
    again.wait_for_selector(".place:text-is('Page 2 of 3')")
    results_when_saved(again)
    assert sorted(served.results()) == ["p1"]


def test_a_double_click_stores_once_and_skips_nothing(site: Start, open_page: Open) -> None:
    served = site([GENERIC | {"id": f"g{n}"} for n in range(3)])
    page = open_page()
    puts: list[str] = []
    page.on("request", lambda request: puts.append(request.url) if request.method == "PUT" else None)
    start(page, served.url)
    shown(page, "generic")
    page.locator(".next").dblclick()
    page.wait_for_selector(".place:text-is('Page 2 of 3')")
    shown(page, "generic")  # from here on a click counts
    results_when_saved(page)
    assert page.locator(".place").inner_text() == "Page 2 of 3"
    assert len(puts) == 1


def test_a_second_tab_is_told(begin: Begin) -> None:
    page, served = begin([GENERIC, GENERIC | {"id": "two"}])
    second = page.context.new_page()
    second.goto(served.url)
    second.get_by_role("button", name="Continue").click()
    second.wait_for_selector("text=open in another tab")
    assert page.locator(".next").count() == 1
    second.get_by_role("button", name="Continue here").click()
    shown(second, "generic")
    page.wait_for_selector("text=continues in another tab")
    assert page.locator(".next").count() == 0


def test_the_tab_that_stops_writes_its_draft_first(begin: Begin) -> None:
    page, served = begin([{"type": "consent", "content": "<p>We keep it.</p>"}])
    second = page.context.new_page()
    second.goto(served.url)
    second.get_by_role("button", name="Continue").click()
    second.wait_for_selector("text=open in another tab")
    # As if it were taken over before the time after which a change is written.
    page.evaluate(
        "() => { const later = setTimeout; window.setTimeout = (f, ms) => ms === 300 ? 0 : later(f, ms); }"
    )
    page.get_by_role("checkbox").check()
    second.get_by_role("button", name="Continue here").click()
    shown(second, "consent")
    assert second.get_by_role("checkbox").is_checked()


def test_a_page_that_was_left_does_not_look_open(begin: Begin) -> None:
    page, _ = begin([GENERIC, GENERIC | {"id": "two"}])
    # In one go, before the next page has its draft and can take the place of this one.
    told = "[document.querySelector('.place').innerText, document.querySelector('.next').disabled]"
    assert page.evaluate(f"() => {{ document.querySelector('.next').click(); return {told}; }}") == [
        "Page 2 of 2",
        True,
    ]


@pytest.mark.slow
def test_a_tab_that_takes_over_goes_on_where_the_other_was(begin: Begin) -> None:
    page, served = begin([GENERIC, GENERIC | {"id": "two"}, GENERIC | {"id": "three"}])
    second, third = (page.context.new_page() for _ in range(2))
    for tab in (second, third):  # both have read the session before a page was saved
        tab.goto(served.url)
        tab.wait_for_selector("text=page 1 of 3")
    second.get_by_role("button", name="Continue").click()
    second.wait_for_selector("text=open in another tab")
    leave(page)
    page.wait_for_selector(".place:text-is('Page 2 of 3')")
    results_when_saved(page)
    second.get_by_role("button", name="Continue here").click()
    second.wait_for_selector(".place:text-is('Page 2 of 3')")
    shown(second, "generic")
    leave(second)
    results_when_saved(second)
    page.close()
    second.close()
    third.get_by_role("button", name="Continue").click()
    third.wait_for_selector(".place:text-is('Page 3 of 3')")


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        ("missing", ("the file does not exist", "HTTP 404")),
        ("broken", ("this browser cannot decode the file", "20 bytes")),
        ("longer", ("differ in length", "2.5000 s", "2.0000 s")),
    ],
)
def test_a_bad_sound_is_named_but_not_its_condition(
    site: Start, open_page: Open, break_it: str, said: tuple[str, ...]
) -> None:
    stimuli = {"Opus": "longer.wav" if break_it == "longer" else "one.wav"}
    served = site([mushra(stimuli=stimuli), GENERIC], stopOnErrors=True)
    page = open_page(expected=("Failed to load resource",))

    def tamper(route: Any) -> None:
        wanted = next(s["url"] for s in plan["pages"][0]["signals"] if s["id"] == "s1")
        if wanted not in route.request.url:
            route.continue_()
        elif break_it == "missing":
            route.fulfill(status=404)
        else:
            route.fulfill(body="RIFF no sound at all", content_type="audio/wav")

    plan: dict[str, Any] = {}
    page.on(
        "response",
        lambda response: plan.update(response.json()) if response.request.method == "POST" else None,
    )
    if break_it != "longer":
        page.route("**/stimuli/*", tamper)
    start(page, served.url)
    page.wait_for_selector(".message.bad")
    text = page.locator("main").inner_text()
    assert "page p1" in text
    for part in said:
        assert part in text
    assert "Opus" not in text
    if break_it == "missing":
        page.unroute("**/stimuli/*")
        page.get_by_role("button", name="Try again").click()
        shown(page, "mushra")


def test_a_browser_without_web_audio_is_told(site: Start, open_page: Open) -> None:
    page = open_page(init="delete window.AudioContext")
    page.goto(site([GENERIC]).url + "?lang=en")
    page.wait_for_selector("text=no Web Audio")


def test_an_unknown_invitation_is_said_in_the_listeners_language(site: Start, open_page: Open) -> None:
    served = site([GENERIC], qincodec={"identification": "invitation", "languages": ["de"]})
    page = open_page(expected=("Failed to load resource",))
    page.goto(served.url + "?lang=de&t=nobody")
    page.get_by_role("button", name="Starten").click()
    page.wait_for_selector("text=persönliche Einladung")


def test_the_language_can_be_changed_on_the_way(begin: Begin) -> None:
    page, _ = begin([mushra(), GENERIC], qincodec={"languages": ["en", "fr"]})
    rate_with_keys(page, 1, 60)
    page.get_by_label("Language").select_option("fr")
    shown(page, "mushra")
    assert page.locator("html").get_attribute("lang") == "fr"
    assert scale(page, 1).get_attribute("aria-valuetext") == "60, Bon"


def test_going_back_changes_a_page_without_doubling_it(begin: Begin) -> None:
    page, served = begin(
        [mushra(stimuli={"A": "one.wav"}), GENERIC, GENERIC | {"id": "end"}], showButtonPreviousPage=True
    )
    rate_with_keys(page, 1, 100)
    rate_with_keys(page, 2, 30)
    leave(page)
    shown(page, "generic")
    page.get_by_role("button", name="Previous").click()
    shown(page, "mushra")
    assert scale(page, 2).get_attribute("aria-valuenow") == "30"
    page.keyboard.press("2")
    page.keyboard.press("Shift+ArrowDown")
    leave(page)
    shown(page, "generic")
    results_when_saved(page)
    ratings = served.rows("SELECT score FROM ratings ORDER BY position")
    assert [row["score"] for row in ratings] == [100, 20]
    assert [row["revision"] for row in served.rows("SELECT revision FROM pages")] == [2]


def test_sounds_are_fetched_one_page_ahead_and_no_further(site: Start, open_page: Open) -> None:
    served = site([GENERIC, mushra("a"), mushra("b"), mushra("c"), GENERIC | {"id": "end"}])
    page = open_page()
    fetched: list[str] = []
    plan: list[Any] = []
    here: set[str] = set()
    page.on(
        "request", lambda one: fetched.append(one.url.rsplit("/", 1)[1]) if "/stimuli/" in one.url else None
    )
    page.on("requestfinished", lambda one: here.add(one.url.rsplit("/", 1)[1]))
    page.on(
        "response",
        lambda response: plan.extend(response.json()["pages"]) if response.request.method == "POST" else None,
    )
    start(page, served.url)
    shown(page, "generic")

    def urls(number: int) -> set[str]:
        sounds = [plan[number]["reference"], *plan[number]["signals"]]
        return {sound["url"].rsplit("/", 1)[1] for sound in sounds}

    def check(wanted: set[str]) -> None:
        """Once the last of what is wanted is here, whatever was asked for with it has been asked for, too."""
        while not wanted <= here:
            page.wait_for_event("requestfinished")
        assert set(fetched) == wanted

    check(urls(1))
    leave(page)
    shown(page, "mushra")
    check(urls(1) | urls(2))
    assert len(fetched) == len(set(fetched)), "nothing is fetched twice"


def lose_the_lift(page: Any, x: float, y: float) -> None:
    moved = {"type": "mouseMoved", "x": x, "y": y + 60, "buttons": 0}
    page.context.new_cdp_session(page).send("Input.dispatchMouseEvent", moved)


def lift_with_another_button_held(page: Any, x: float, y: float) -> None:
    page.mouse.down(button="right")
    page.mouse.up()
    page.mouse.move(x, y + 60)
    page.mouse.up(button="right")


def move_the_page(page: Any, x: float, y: float) -> None:
    page.evaluate("document.body.style.paddingTop = '60px'")
    page.mouse.up()


@pytest.mark.parametrize(
    ("end", "given"), [(lose_the_lift, False), (lift_with_another_button_held, True), (move_the_page, True)]
)
def test_what_a_slider_shows_when_the_mouse_is_let_go_is_the_grade(
    begin: Begin, end: Callable[[Any, float, float], None], given: bool
) -> None:
    page, _ = begin([mushra(), GENERIC])
    page.keyboard.press("1")
    box = page.locator(".scale-track").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 0.4 * box["height"]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 5)
    dragged = page.locator(".scale").first.get_attribute("aria-valuenow")
    end(page, x, y + 5)
    held = state(page)
    rating = held["ratings"][0]
    assert (rating["score"], rating["moves"]) == ((float(dragged), 1) if given else (None, 0))
    assert held["texts"][0] == (dragged if given else "\u2013")
