"""The page fits its window: what is always in view, and how the scales stand to their lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from listener import leave, rate_with_keys, results_when_saved, shown, start
from listening_material import GENERIC, mushra
from listening_site import Site

pytestmark = pytest.mark.slow

LANGUAGES = ["en", "de", "fr", "es"]
#: Six items: the hidden reference is one.
SIX = {"stimuli": dict.fromkeys("ABCDE", "one.wav")}
FREE = dict.fromkeys(["must_hear_all", "must_rate_all", "one_at_100"], False)
RECT = "element => element.getBoundingClientRect().toJSON()"
#: Nothing lies on it where it is.
ON_TOP = """
element => {
  const { left, top, width, height } = element.getBoundingClientRect();
  return element.contains(document.elementFromPoint(left + width / 2, top + height / 2));
}
"""
BOTTOM = "scrollTo(0, document.documentElement.scrollHeight)"


def rects(page: Any, selector: str) -> list[dict[str, float]]:
    return [one.evaluate(RECT) for one in page.locator(selector).all()]


def in_view(page: Any, selector: str) -> bool:
    """Whether all of it is inside the window, and seen."""
    (box,) = rects(page, selector)
    size = page.viewport_size
    inside = box["left"] >= 0 and box["top"] >= 0
    inside = inside and box["right"] <= size["width"] and box["bottom"] <= size["height"]
    return inside and box["height"] > 0 and page.locator(selector).evaluate(ON_TOP)


@pytest.mark.parametrize("size", [(1280, 720), (1440, 900)])
def test_a_trial_of_six_items_needs_no_scrolling(
    site: Callable[..., Site], open_page: Callable[..., Any], size: tuple[int, int]
) -> None:
    served = site([mushra("training1", **SIX), mushra(**SIX), GENERIC], qincodec={"languages": LANGUAGES})
    page = open_page(viewport={"width": size[0], "height": size[1]})
    start(page, served.url)
    shown(page, "mushra")
    for language in LANGUAGES:
        page.locator("select.language").select_option(language)
        shown(page, "mushra")
        for told in (False, True):
            if told:
                leave(page)
                page.wait_for_selector(".missing li")
            height = page.evaluate("document.documentElement.scrollHeight")
            assert height <= size[1], (language, told)
            assert in_view(page, ".next"), (language, told)
            assert min(box["height"] for box in rects(page, ".scale-track")) >= 150, (language, told)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("size", [(1280, 720), (1440, 900), (820, 1180)])
def test_lines_run_across_all_scales(
    site: Callable[..., Site], open_page: Callable[..., Any], size: tuple[int, int], labels: bool
) -> None:
    conditions = {f"a name of {word} codec at 16 kbit/s": "one.wav" for word in ("one", "another", "the")}
    items = {"stimuli": conditions, "showConditionNames": True} if labels else SIX
    served = site([mushra(**items), GENERIC])
    page = open_page(viewport={"width": size[0], "height": size[1]})
    start(page, served.url)
    shown(page, "mushra")
    lines, tracks = rects(page, ".lines span"), rects(page, ".scale-track")
    (words,) = rects(page, ".board .legend-labels")
    assert len(lines) == 6
    for n, line in enumerate(lines):  # 100, 80, ..., 0
        assert line["left"] <= words["left"]
        assert line["right"] >= max(track["right"] for track in tracks)
        for track in tracks:
            assert line["top"] == pytest.approx(track["top"] + n / 5 * track["height"], abs=1.5)
    ticks = rects(page, ".board .legend-ticks span")
    for tick, line in zip(ticks, lines, strict=True):
        assert (tick["top"] + tick["bottom"]) / 2 == pytest.approx(line["top"], abs=1.5)


# 1280 x 720 and 1440 x 900 at 200 %, a phone upright and lying, and the 320 pixels of WCAG's reflow.
@pytest.mark.parametrize("size", [(640, 360), (720, 450), (390, 844), (844, 390), (320, 640)])
def test_the_reference_and_the_scale_stay_in_view(
    site: Callable[..., Site], open_page: Callable[..., Any], size: tuple[int, int]
) -> None:
    served = site([mushra(**SIX), GENERIC], qincodec={"rules": FREE})
    page = open_page(viewport={"width": size[0], "height": size[1]})
    start(page, served.url)
    shown(page, "mushra")
    assert page.evaluate("document.documentElement.scrollHeight") > size[1]
    # Up and down: the scale that gets the focus is not hidden by what stays in view.
    for key in "123456654321":
        page.keyboard.press(key)
        assert in_view(page, ".scale:focus"), key
        assert in_view(page, ".play.reference"), key
    ticks = rects(page, ".transport .legend-ticks span")
    track = rects(page, ".scale-track")[0]
    for n, tick in enumerate(reversed(ticks)):
        assert tick["left"] == pytest.approx(track["left"] + n / 5 * track["width"], abs=2)
    page.evaluate(BOTTOM)
    assert in_view(page, ".next")
    for selector in (".play.reference", ".transport .legend-labels", ".transport .legend-ticks"):
        assert in_view(page, selector), selector
    page.locator(".play.reference").click()
    assert page.locator(".play.reference[aria-pressed=true]").count() == 1


def test_rules_are_in_full_in_training_and_behind_the_help_later(
    site: Callable[..., Site], open_page: Callable[..., Any]
) -> None:
    served = site(
        [mushra("training1", stimuli={"A": "one.wav"}), mushra("a", stimuli={"A": "one.wav"}), GENERIC],
        qincodec={"training": ["training1"]},
    )
    page = open_page()
    start(page, served.url)
    shown(page, "mushra")
    full = page.get_by_role("list", name="Rules of this page").inner_text()
    assert full.count("100") == 1
    assert page.locator("main").inner_text().count("100: ") == 1, "said once"
    for n in (1, 2):
        rate_with_keys(page, n, 100)
    leave(page)
    page.wait_for_selector(".place:text-is('Page 2 of 3')")
    shown(page, "mushra")
    assert page.get_by_role("list", name="Rules of this page").count() == 0
    page.get_by_role("button", name="Rules and keys").click()
    shown_there = page.get_by_role("dialog", name="Rules and keys").get_by_role("list").inner_text()
    assert shown_there == full


def test_the_language_is_chosen_on_the_start_page(
    site: Callable[..., Site], open_page: Callable[..., Any]
) -> None:
    served = site([GENERIC, GENERIC | {"id": "two"}], qincodec={"languages": LANGUAGES})
    page = open_page()
    page.goto(served.url)
    choice = page.get_by_label("Language")
    choice.wait_for()
    assert choice.locator("option").all_inner_texts() == ["English", "Deutsch", "Français", "Español"]
    choice.select_option("fr")
    page.get_by_role("button", name="Commencer").click()
    shown(page, "generic")
    assert [row["language"] for row in served.rows("SELECT language FROM sessions")] == ["fr"]
    page.reload()
    page.get_by_role("button", name="Reprendre").wait_for()  # as it was chosen, not the test's own


def test_one_language_is_no_choice(site: Callable[..., Site], open_page: Callable[..., Any]) -> None:
    page = open_page()
    start(page, site([GENERIC]).url)
    shown(page, "generic")
    assert page.locator("select").count() == 0


def test_a_dark_window_gets_a_dark_page(site: Callable[..., Site], open_page: Callable[..., Any]) -> None:
    served = site([mushra(**SIX), GENERIC])
    page = open_page(color_scheme="dark")
    start(page, served.url)
    shown(page, "mushra")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    pixels = "document.querySelector('canvas').getContext('2d').getImageData(0, 0, 200, 40).data"
    drawn = "document.querySelector('canvas').toDataURL()"
    dark = page.evaluate(ground), page.evaluate(drawn)
    assert page.evaluate(f"new Set({pixels}).size") > 1
    page.emulate_media(color_scheme="light")
    page.wait_for_function("before => document.querySelector('canvas').toDataURL() !== before", arg=dark[1])
    assert page.evaluate(ground) != dark[0]


def test_comments_lie_behind_one_control(site: Callable[..., Site], open_page: Callable[..., Any]) -> None:
    served = site([mushra(**SIX), GENERIC], qincodec={"rules": FREE})
    page = open_page()
    start(page, served.url)
    shown(page, "mushra")
    control = page.get_by_role("button", name="Comments")
    assert page.locator("textarea:visible").count() == 0
    page.keyboard.press("4")
    control.click()
    assert page.locator("textarea:visible").count() == 6
    page.keyboard.type("a little rough")
    assert control.inner_text() == "Comments (1)"
    control.click()
    assert page.locator("textarea:visible").count() == 0
    leave(page)
    shown(page, "generic")
    results_when_saved(page)
    comments = [one.get("comment", "") for one in served.results()["p1"]["ratings"]]
    assert comments == ["", "", "", "a little rough", "", ""]
