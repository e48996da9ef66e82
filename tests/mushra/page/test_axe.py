"""axe-core on every page, light and dark; the listener's way through them is that of the keyboard alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from accessibility import check
from listener import leave, listen, rate_with_keys, results_when_saved, shown, start, tab_to
from listening_material import (
    BS1116,
    CONSENT,
    FINISH,
    GENERIC,
    LIKERT_MULTI,
    PAIRED,
    SPATIAL,
    VOLUME,
    mushra,
)
from listening_site import Site

from mushra.server import sign_in

pytestmark = pytest.mark.slow

SHORT = {"stimuli": {"A": "one.wav"}}
LIKERT_SINGLE = {**LIKERT_MULTI, "type": "likert_single_stimulus", "id": "single"}
ONE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_every_page_of_a_listener(site: Callable[..., Site], open_page: Callable[..., Any]) -> None:
    training = mushra("training1", **SHORT)
    pages = [CONSENT, VOLUME, GENERIC, training, mushra(**SHORT), BS1116, PAIRED, LIKERT_MULTI]
    served = site(
        [*pages, LIKERT_SINGLE, SPATIAL, FINISH],
        showButtonPreviousPage=True,
        qincodec={"completion": {"code": "XYZ7"}, "languages": ["en", "fr"]},
    )
    page = open_page()
    page.goto(served.url)
    page.wait_for_selector("button.big")
    check(page)
    tab_to(page, "button.big")
    page.keyboard.press("Enter")
    for kind in [one["type"] for one in [*pages, LIKERT_SINGLE, SPATIAL, FINISH]]:
        shown(page, kind)
        check(page)
        page.keyboard.press("?")
        check(page)
        page.keyboard.press("Escape")
        if kind not in ("generic", "volume"):
            page.keyboard.press("n")  # says what is missing
            page.wait_for_selector(".missing li")
            check(page)
        answer(page, kind)
        check(page)
        page.wait_for_selector(".next.ready")
        tab_to(page, ".next")
        page.keyboard.press("Enter")
    page.wait_for_selector(".done")
    check(page)
    page.keyboard.press("Enter")  # closes what the experimenter says
    check(page)
    assert [row["state"] for row in served.rows("SELECT state FROM sessions")] == ["finished"]


def answer(page: Any, kind: str) -> None:
    """Does what lets the page be left, with the keyboard."""
    if kind == "consent":
        tab_to(page, "#consent")
        page.keyboard.press("Space")
    elif kind == "volume":
        page.keyboard.press("Space")
    elif kind in ("mushra", "bs1116"):
        for n in (1, 2):
            page.keyboard.press(str(n))
            page.keyboard.press("End")
            listen(page)
        if kind == "mushra":
            tab_to(page, "button.comment")
            page.keyboard.press("Enter")
            page.keyboard.type("a little rough")
    elif kind == "finish":
        tab_to(page, "#question-0")
        page.keyboard.type("K")
        tab_to(page, "[name=question-2]")
        page.keyboard.press("Space")
    elif kind == "likert_single_stimulus":
        for name in ("s1", "s2"):
            page.keyboard.press("Space")
            listen(page)
            tab_to(page, f"[name=likert-{name}-0]")
            page.keyboard.press("Space")
            if name == "s1":
                tab_to(page, ".choices button:last-child")
                page.keyboard.press("Enter")
    elif kind != "generic":
        for n, name in ((1, "s1"), (2, "s2")):
            page.keyboard.press(str(n))
            listen(page)
            if kind == "likert_multi_stimulus":
                tab_to(page, f"[name=likert-{name}-0]")
                page.keyboard.press("Space")
            elif kind == "spatial":
                tab_to(page, f".spatial-item:nth-child({n}) .dial")
                page.keyboard.press("ArrowLeft")
        if kind == "paired_comparison":
            tab_to(page, "[name=answer]")
            page.keyboard.press("Space")


def test_what_else_a_listener_may_see(site: Callable[..., Site], open_page: Callable[..., Any]) -> None:
    served = site([mushra(), GENERIC], qincodec={"headphone_check": True, "identification": "invitation"})
    page = open_page(expected=("Failed to load resource",))
    start(page, served.url + "?t=nobody")
    page.wait_for_selector(".message.bad")
    check(page)
    served = site([mushra(), GENERIC], qincodec={"headphone_check": True})
    start(page, served.url)
    shown(page, "headphones")
    check(page)
    page.reload()
    page.get_by_role("button", name="Continue").wait_for()
    check(page)


def test_every_page_of_an_administrator(site: Callable[..., Site], open_page: Callable[..., Any]) -> None:
    questions = {**FINISH, "showResults": False, "popupContent": None}
    served = site([CONSENT, mushra(**SHORT), questions])
    page = open_page(expected=("Failed to load resource",))
    page.goto(served.url + "admin/")
    check(page)
    page.locator("#token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    check(page)
    page.goto(served.url + "admin/sign-in#" + sign_in.new_link(served.store))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("Nobody has begun yet").wait_for()
    check(page)

    listener = open_page()
    start(listener, served.url)
    shown(listener, "consent")
    listener.locator("#consent").check()
    leave(listener)
    shown(listener, "mushra")
    rate_with_keys(listener, 1, 100)
    rate_with_keys(listener, 2, 30)
    leave(listener)
    shown(listener, "finish")
    results_when_saved(listener)
    page.reload()
    check(page)
    page.locator("table a").first.click()
    page.get_by_role("heading", name="Questionnaire").or_(page.get_by_text("Erase for good")).first.wait_for()
    check(page)
    page.get_by_label("Reason for the exclusion").fill("They had no headphones.")
    page.get_by_role("button", name="Exclude").click()
    page.get_by_role("button", name="Include again").wait_for()
    check(page)
    page.get_by_role("link", name="Test", exact=True).click()
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    check(page)  # a session has begun: some fields are locked
    page.get_by_label("Address at the end").fill("nowhere")
    page.get_by_role("button", name="Save").click()
    page.locator(".error").wait_for()
    check(page)
    page.get_by_label("Address at the end").fill("https://example.org")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved.").wait_for()
    check(page)
    page.get_by_role("button", name="Close the test").click()
    page.get_by_text("New listeners cannot begin; those who have begun").wait_for()
    check(page)
    page.get_by_role("navigation").get_by_role("link", name="Sessions").click()
    page.get_by_text("The test is closed").wait_for()
    check(page)
    page.get_by_role("link", name="Invitations").click()
    check(page)
    page.get_by_label("Names of the invited listeners").fill("Ada\nBob")
    page.get_by_role("button", name="Make links").click()
    page.get_by_text("Copy them now").wait_for()
    check(page)
    page.get_by_role("link", name="Analysis").click()
    check(page)
    plots = served.folder.parent / "cache" / "plots"
    plots.mkdir(parents=True)
    (plots / "means.png").write_bytes(base64.b64decode(ONE_PIXEL))
    names = ("condition", "role", "mean", "interval", "median", "quartiles", "n")
    row = dict(zip(names, ("A", "", "30.0", "20 to 40", "30.0", "25 to 35", "3"), strict=True))
    done = {"error": None, "drawn_at": 0, "conditions": [row], "figures": ["means"]}
    lines = {"problems": ["twice: a page"], "notes": ["a note"], "screened_out": ["x: why"]}
    (plots / "done.json").write_text(json.dumps(done | lines), encoding="utf-8")
    page.reload()
    page.get_by_role("heading", name="Screened out").wait_for()
    check(page)
    (plots / "done.json").write_text(json.dumps(done | {"error": "There is nothing."}), encoding="utf-8")
    page.reload()
    check(page)
