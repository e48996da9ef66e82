"""The page for those who do not see it, do not use a mouse, need large letters or have a phone in hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from listener import leave, listen, rate_with_keys, shown
from listening_material import BS1116, FINISH, GENERIC, LIKERT_MULTI, PAIRED, SPATIAL, VOLUME, mushra
from listening_site import Site

#: Every visible element with text of its own: its colours and size, from what the browser computed.
COLOURS = """
() => {
  const found = [];
  const opaque = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const box = element.getBoundingClientRect();
    if (!own || box.width < 2 || element.closest(".hidden, :disabled, option")) continue;
    const style = getComputedStyle(element);
    found.push({ text: element.textContent.trim().slice(0, 40), fore: style.color, back: opaque(element) });
  }
  return found;
}
"""
#: Controls without a name, and what is too small to hit with a finger.
CONTROLS = """
() => [...document.querySelectorAll("button, input, select, textarea, a, [role=slider], [tabindex='0']")]
  .filter((element) => element.getClientRects().length)
  .map((element) => {
    const labels = [...(element.labels ?? [])].map((label) => label.textContent).join(" ");
    const box = element.closest("label")?.getBoundingClientRect() ?? element.getBoundingClientRect();
    return {
      html: element.outerHTML.slice(0, 90),
      name: (element.getAttribute("aria-label") ?? labels ?? "").trim() || element.textContent.trim(),
      value: element.getAttribute("role") !== "slider" || Boolean(element.getAttribute("aria-valuetext")),
      width: box.width,
      height: box.height,
    };
  })
"""
#: What sticks out on the right; a table may, inside a frame that scrolls.
WIDE = """
() => [...document.querySelectorAll("body *:not(.table *)")]
  .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((element) => element.outerHTML.slice(0, 90))
"""


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" by WCAG 2.2."""
    channels = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def check(page: Any) -> None:
    """Names, contrast and fit of what is shown now, at the sizes people use."""
    assert page.locator("main h1").count() == 1
    for entry in page.evaluate(COLOURS):
        assert contrast(entry["fore"], entry["back"]) >= 4.5, entry
    for control in page.evaluate(CONTROLS):
        assert control["name"], control
        assert control["value"], control
        assert min(control["width"], control["height"]) >= 20, control
    before = page.viewport_size
    # A desktop at 200 %, phones, and the 320 pixels of WCAG's criterion on reflow.
    for width, height in ((640, 430), (390, 844), (320, 640)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate(WIDE) == [], f"wider than {width} pixels"
    page.set_viewport_size(before)


@pytest.mark.slow
def test_every_page_is_named_readable_and_fits(
    site: Callable[..., Site], open_page: Callable[..., Any]
) -> None:
    pages = [GENERIC, VOLUME, mushra(), BS1116, PAIRED, LIKERT_MULTI, SPATIAL, FINISH]
    served = site(pages, showButtonPreviousPage=True, qincodec={"languages": ["de", "en"]})
    page = open_page()
    page.goto(served.url + "?lang=de")
    page.wait_for_selector("button.big")
    check(page)
    page.get_by_role("button", name="Starten").click()
    for kind in [one["type"] for one in pages]:
        shown(page, kind)
        if kind != "generic":
            leave(page)  # says what is missing
        check(page)
        if kind == "finish":
            page.get_by_label("Your initials").fill("x")
        answer(page, kind)
        leave(page)
    page.wait_for_selector(".done")
    check(page)
    answers = {
        row["type"]: row for row in served.rows("SELECT type, answer, score, reference_score FROM ratings")
    }
    assert answers["bs1116"]["score"] == answers["bs1116"]["reference_score"] == 5
    assert answers["paired_comparison"]["answer"] in ("A", "reference")
    assert answers["likert_multi_stimulus"]["answer"] == "1"
    assert answers["spatial"]["answer"] == '{"azimuth":0}'


def answer(page: Any, kind: str) -> None:
    """Does what lets the page be left."""
    keys = {"mushra": 4, "bs1116": 2, "paired_comparison": 2, "likert_multi_stimulus": 2, "spatial": 2}
    if kind == "volume":
        page.locator("button.play").click()
    for n in range(1, keys.get(kind, 0) + 1):
        page.keyboard.press(str(n))
        listen(page)
        if kind in ("mushra", "bs1116"):
            page.keyboard.press("ArrowUp")
            page.locator(".item").nth(n - 1).get_by_role("slider").press("End")
            if n == 1:
                check(page)
    for group in page.locator("fieldset").all():
        group.get_by_role("radio").first.check()
    for dial in page.locator(".dial").all():
        dial.focus()
        page.keyboard.press("ArrowLeft")


def test_tab_leads_through_the_page_in_its_order(begin: Callable[..., tuple[Any, Site]]) -> None:
    page, _ = begin([mushra(stimuli={"A": "one.wav"}), GENERIC])
    page.keyboard.press("2")
    name = "() => document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
    assert page.evaluate(name) == "Rating of Item 2"
    page.evaluate("document.querySelector('main h1').focus()")
    order = []
    for _ in range(14):
        page.keyboard.press("Tab")
        order.append(page.evaluate(name))
        ring = "() => getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(ring) == "solid", f"no focus is seen on {order[-1]}"
        if order[-1] == "Next":
            break
    assert order == [
        *("Play the reference", "Pause", "Start of the loop", "End of the loop", "Loop from here"),
        *("Loop to here", "Whole excerpt", "Play Item 1", "Play Item 2", "Rating of Item 2"),
        *("Comments", "Next"),
    ]
    # Only the scale of the item that plays can be reached, and it says its value.
    slider = page.get_by_role("slider", name="Rating of Item 2")
    slider.press("Home")
    assert slider.get_attribute("aria-valuetext") == "0, Bad"
    slider.press("PageUp")
    assert slider.get_attribute("aria-valuetext") == "10, Bad"
    assert page.locator("#announcements").inner_text().strip() == "Item 2 is playing"


def test_the_loop_is_set_from_the_keyboard(begin: Callable[..., tuple[Any, Site]]) -> None:
    page, _ = begin([mushra(stimuli={"A": "one.wav"}), GENERIC])
    begin = page.get_by_role("slider", name="Start of the loop")
    end = page.get_by_role("slider", name="End of the loop")
    assert (begin.get_attribute("aria-valuenow"), end.get_attribute("aria-valuenow")) == ("0.00", "2.00")
    begin.press("Shift+ArrowRight")
    end.press("ArrowLeft")
    assert (begin.get_attribute("aria-valuenow"), end.get_attribute("aria-valuenow")) == ("0.50", "1.95")
    begin.press("End")
    assert (begin.get_attribute("aria-valuenow"), end.get_attribute("aria-valuenow")) == ("1.50", "2.00")
    page.keyboard.press("A")
    page.keyboard.press("B")
    page.keyboard.press("0")
    listen(page, 0.7)  # from 1.5 s, where the loop began before: over its edge
    page.keyboard.press("a")
    assert 0.1 < float(begin.get_attribute("aria-valuenow")) < 1.5
    page.get_by_role("button", name="Whole excerpt").click()
    assert (begin.get_attribute("aria-valuenow"), end.get_attribute("aria-valuenow")) == ("0.00", "2.00")


def test_keys_are_shown_and_can_be_turned_off(begin: Callable[..., tuple[Any, Site]]) -> None:
    page, _ = begin([mushra(stimuli={"A": "one.wav"}), GENERIC])
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    assert "Play item 1 to 9" in dialog.inner_text()
    dialog.get_by_label("Use these keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    assert page.locator(".play[aria-pressed=true]").count() == 0
    page.get_by_role("button", name="Play Item 1").press("Enter")
    assert page.locator(".play[aria-pressed=true]").count() == 1


def test_twelve_items_have_twelve_keys(begin: Callable[..., tuple[Any, Site]]) -> None:
    """BS.1534 allows 12 signals, the hidden reference among them."""
    page, _ = begin([mushra(stimuli={f"S{n}": "one.wav" for n in range(11)}), GENERIC])
    for n, key in enumerate("123456789xyz", start=1):
        page.keyboard.press(key)
        assert page.locator(".item .play[aria-pressed=true]").get_attribute("aria-label") == f"Play Item {n}"
        assert page.evaluate("document.activeElement.ariaLabel") == f"Rating of Item {n}"
        assert page.locator(".item .play").nth(n - 1).get_attribute("aria-keyshortcuts") == key
    page.keyboard.press("?")
    assert "Play item 10, 11, 12" in page.get_by_role("dialog", name="Keys").inner_text()


def test_graded_items_look_graded(begin: Callable[..., tuple[Any, Site]]) -> None:
    """A grade stays to be seen when another item plays."""
    page, _ = begin([mushra(stimuli={"A": "one.wav"}), GENERIC])
    rate_with_keys(page, 1, 70)
    page.keyboard.press("2")
    assert page.locator(".item .scale-thumb:visible").count() == 1
    assert page.locator(".item .value").all_inner_texts() == ["70", "–"]
