"""People who take a listening test in a browser, with grades that are known before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from listener import leave, scale, shown, start
from walking import Ear, Grades


def take_in_chromium(page: Any, rate: Callable[..., None], link: str, ear: Ear, grades: Grades) -> None:
    """The whole test, by mouse or by keyboard, until the page shows that everything has arrived."""
    with page.expect_response("**/api/sessions") as begun:
        start(page, link)
    pages = begun.value.json()["pages"]
    for number, described in enumerate(pages, start=1):
        page.wait_for_selector(f".place:text-is('Page {number} of {len(pages)}')")
        shown(page, described["type"])
        if described["type"] == "consent":
            page.locator("#consent").check()
        elif described["type"] == "volume":
            page.locator(".play").click()
        elif described["type"] == "mushra":
            trial, conditions = ear.page(link, described)
            for n, condition in enumerate(conditions, start=1):
                rate(page, n, grades[trial][condition])
                _correct(page, n, grades[trial][condition])
        elif described["type"] == "finish" and described["questionnaire"]:
            page.locator("input[type=radio]").first.check()
        leave(page)
    page.wait_for_selector(".done")


def _correct(page: Any, n: int, wanted: int) -> None:
    """A pixel of the mouse may be a point: the arrow keys do the rest."""
    for _ in range(5):
        off = wanted - int(scale(page, n).get_attribute("aria-valuenow"))
        if off:
            page.keyboard.press("ArrowUp" if off > 0 else "ArrowDown")
    assert int(scale(page, n).get_attribute("aria-valuenow")) == wanted


#: Keeps what the server says when a session begins, for the one who listens to know what plays.
_SPY = """(() => {
  const real = window.fetch;
  window.fetch = async (...given) => {
    const answer = await real(...given);
    if (String(given[0]).endsWith("api/sessions")) window.begun = await answer.clone().json();
    return answer;
  };
  return true;
})()"""
_WAIT_S = 600


def take_in_firefox(browser: Any, link: str, ear: Ear, grades: Grades) -> None:
    """The same in Firefox (`firefox.Firefox`), with the mouse."""
    from listener import HEARD

    browser.goto(link)
    browser.evaluate(_SPY)
    browser.click("button.big")
    pages = browser.wait("window.begun", _WAIT_S)["pages"]
    for number, described in enumerate(pages, start=1):
        kind, place = described["type"], f"Page {number} of {len(pages)}"
        browser.wait(f"document.querySelector('.place')?.textContent === '{place}'", _WAIT_S)
        browser.wait(f"document.querySelector('[data-type={kind}] .next:enabled')", _WAIT_S)
        browser.wait("!document.querySelector('dialog')", _WAIT_S)
        if kind == "consent":
            browser.click("#consent")
        elif kind == "volume":
            browser.click(".play")
        elif kind == "mushra":
            trial, conditions = ear.page(link, described)
            for n, condition in enumerate(conditions):
                wanted = grades[trial][condition]
                browser.click(".item .play", n)
                middle = browser.place(".item .scale-track", n)
                browser.drag(middle, browser.place(".item .scale-track", n, up=wanted / 100))
                shows = (
                    f"Number(document.querySelectorAll('.item .scale')[{n}].getAttribute('aria-valuenow'))"
                )
                while off := wanted - browser.evaluate(shows):
                    browser.press("ArrowUp" if off > 0 else "ArrowDown")
                browser.evaluate(f"({HEARD})(0.6)")
        elif kind == "finish" and described["questionnaire"]:
            browser.click("input[type=radio]")
        browser.click(".next")
    browser.wait("document.querySelector('.done')", _WAIT_S)
