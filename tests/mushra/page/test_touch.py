"""A finger that scrolls, zooms or rests stores nothing; one that sets a control does. Real touch events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fingers import Fingers, state
from listener import leave, listen, results_when_saved, shown
from listening_material import BS1116, GENERIC, LIKERT_MULTI, PAIRED, SPATIAL, VOLUME, mushra
from listening_site import Site

pytestmark = pytest.mark.slow

PHONE, TABLET = (390, 844), (820, 1180)
TALL = {"content": "<p>What is below the screen.</p>" * 30}
RULES = dict.fromkeys(["must_hear_all", "must_rate_all", "one_at_100"], False)
#: What can be set on each type of page.
CONTROLS = {
    "volume": [".volume-box"],
    "mushra": [".scale", ".wave-box", ".wave-handle.start", ".wave-handle.end", "button.comment", "textarea"],
    "bs1116": [".scale", ".wave-handle.end"],
    "paired_comparison": ["label.choice", "textarea"],
    "likert_multi_stimulus": ["label.choice"],
    "spatial": [".dial"],
}


@pytest.fixture
def touched(site: Callable[..., Site], open_page: Callable[..., Any]) -> Callable[..., Any]:
    def begin(size: tuple[int, int], *pages: dict[str, Any]) -> tuple[Any, Fingers, Site]:
        served = site([*pages, GENERIC], qincodec={"rules": RULES})
        viewport = {"width": size[0], "height": size[1]}
        page = open_page(viewport=viewport, has_touch=True, is_mobile=True)
        page.goto(served.url)
        page.get_by_role("button", name="Start", exact=True).tap()
        return page, Fingers(page), served

    return begin


def scrolls(kind: str, control: str, size: tuple[int, int]) -> tuple[int, int]:
    """(sideways, up and down): the direction in which a swipe over a control is the browser's."""
    return (1, 0) if control == ".scale" and size == TABLET else (0, 1)


def gestures(fingers: Fingers, control: Any, along: tuple[int, int]) -> list[tuple[str, Callable[[], bool]]]:
    """Everything that sets nothing, as (name, gesture)."""
    dx, dy = 120 * along[0], 120 * along[1]
    # Not in the middle: a slider that jumps to the finger would be seen.
    return [
        ("a swipe", lambda: fingers.swipe(fingers.on(control, 0.3, 0.3), dx, dy)),
        ("a swipe back", lambda: fingers.swipe(fingers.on(control, 0.7, 0.7), -dx, -dy)),
        ("a pinch", lambda: fingers.two(fingers.on(control, 0.3, 0.3), 0, 0, apart=60)),
        ("two fingers", lambda: fingers.two(fingers.on(control, 0.7, 0.7), dx / 2, dy / 2)),
        ("a long press", lambda: fingers.hold(fingers.on(control, 0.3, 0.3))),
    ]


# What differs on a tablet are the scales: upright, where a swipe sideways is the browser's.
@pytest.mark.parametrize(
    ("size", "kinds"),
    [
        (PHONE, [*CONTROLS]),
        (TABLET, ["mushra", "bs1116"]),
        pytest.param(TABLET, [*CONTROLS], marks=pytest.mark.long),
    ],
)
def test_a_gesture_of_the_browser_changes_nothing(
    touched: Callable[..., Any], size: tuple[int, int], kinds: list[str]
) -> None:
    free = {"mustRate": False, "mustPlayback": None}
    pages = (VOLUME, mushra(), BS1116, PAIRED, LIKERT_MULTI | free, SPATIAL)
    page, fingers, _ = touched(size, *({**page, **TALL} for page in pages if page["type"] in kinds))
    for kind in kinds:
        controls = CONTROLS[kind]
        shown(page, kind)
        page.locator("button.play[data-signal=s1], .play.wide").first.tap()
        for name in controls:
            if name == "textarea" and kind == "mushra":
                page.locator("button.comment").first.tap()
            control = page.locator(name).first
            before = state(page)
            for what, gesture in gestures(fingers, control, scrolls(kind, name, size)):
                taken = gesture()
                assert state(page) == before, f"{what} over {name} of {kind}"
                if "swipe" in what:
                    assert taken, f"{what} over {name} of {kind} should scroll"
        if kind == "bs1116":
            for key in ("1", "ArrowUp", "2", "ArrowUp"):
                page.keyboard.press(key)
        elif kind == "paired_comparison":
            page.locator("label.choice").first.tap()
        leave(page)


@pytest.mark.parametrize("size", [PHONE, TABLET])
@pytest.mark.parametrize("kind", [mushra(), BS1116], ids=lambda page: page["type"])
def test_a_tap_and_a_drag_rate(
    touched: Callable[..., Any], size: tuple[int, int], kind: dict[str, Any]
) -> None:
    page, fingers, served = touched(size, {**kind, **TALL})
    shown(page, kind["type"])
    page.locator("button.play[data-signal=s1]").tap()
    slider = page.locator(".scale").first
    track = page.locator(".scale-track").first
    upright = size == TABLET
    assert slider.get_attribute("aria-orientation") == ("vertical" if upright else "horizontal")
    low, high = (1.0, 5.0) if kind is BS1116 else (0, 100)

    def fraction() -> float:
        return (float(slider.get_attribute("aria-valuenow")) - low) / (high - low)

    fingers.tap(fingers.on(track, *((0.5, 0.25) if upright else (0.25, 0.5))))
    assert fraction() == pytest.approx(0.25, abs=0.02)
    box = track.bounding_box()
    reach = (0, -box["height"] / 2) if upright else (box["width"] / 2, 0)
    assert not fingers.swipe(fingers.on(track, *((0.5, 0.25) if upright else (0.25, 0.5))), *reach)
    assert fraction() == pytest.approx(0.75, abs=0.02)
    # A rated one keeps its value when a swipe across it scrolls, and when fingers of a pinch land on it.
    value = slider.get_attribute("aria-valuenow")
    for what, gesture in gestures(fingers, slider, (1, 0) if upright else (0, 1)):
        gesture()
        assert slider.get_attribute("aria-valuenow") == value, what
    rating = state(page)["ratings"][0]
    assert (rating["score"], rating["moves"]) == (float(value), 2)
    if kind is not BS1116:
        leave(page)
        shown(page, "generic")
        results_when_saved(page)
        stored = served.results()["p1"]["ratings"]
        assert [(one.get("score"), one.get("moves")) for one in stored] == [
            (float(value), 2),
            *[(None, None)] * 3,
        ]


def test_an_item_that_no_longer_plays_is_not_rated_by_a_tap(touched: Callable[..., Any]) -> None:
    page, fingers, _ = touched(PHONE, mushra())
    shown(page, "mushra")
    page.keyboard.press("1")
    fingers.tap(fingers.on(page.locator(".scale-track").first), lambda: page.keyboard.press("2"))
    assert page.locator(".play[data-signal=s2][aria-pressed=true]").count()
    assert [(one["score"], one["moves"]) for one in state(page)["ratings"]] == [(None, 0)] * 4


def tap_until(done: Callable[[], bool], fingers: Fingers, control: Any, across: float = 0.5) -> None:
    """Taps until it shows: on a busy machine a tap may last as long as a long press, which sets nothing."""
    while not done():
        fingers.tap(fingers.on(control, across))


def choose(fingers: Fingers, label: Any) -> None:
    tap_until(label.locator("input").is_checked, fingers, label)


def test_other_controls_are_set_by_a_finger(touched: Callable[..., Any]) -> None:
    page, fingers, served = touched(PHONE, VOLUME, mushra(), PAIRED, LIKERT_MULTI, SPATIAL)
    shown(page, "volume")
    page.locator(".play").tap()
    fingers.tap(fingers.on(page.locator("#volume"), 0.2))
    fingers.swipe(fingers.on(page.locator("#volume"), 0.2), 30, 0)
    volume = int(page.locator("#volume").input_value())
    assert 22 < volume < 45
    leave(page)
    shown(page, "mushra")
    end = page.locator(".wave-handle.end")
    fingers.swipe(fingers.on(end), -60, 0)
    assert 0.5 < float(end.get_attribute("aria-valuenow")) < 1.9
    leave(page)
    shown(page, "paired_comparison")
    choose(fingers, page.locator("label.choice").first)
    leave(page)
    shown(page, "likert_multi_stimulus")
    for row in page.locator(".likert-row").all():
        fingers.tap(fingers.on(row.locator(".play")))
        choose(fingers, row.locator("label.choice").nth(1))
    leave(page)
    shown(page, "spatial")
    for n, dial in enumerate(page.locator(".dial").all()):
        fingers.tap(fingers.on(page.locator(".spatial-item .play").nth(n)))
        listen(page)
        tap_until(lambda dial=dial: "unset" not in dial.get_attribute("class"), fingers, dial, 0.1)
    page.wait_for_selector(".next.ready")
    leave(page)
    shown(page, "generic")
    results_when_saved(page)
    results = served.results()
    assert results["p1"]["volume"] == volume / 100
    assert results["p3"]["answer"] in ("s1", "s2")
    assert [one["moves"] for one in results["p3"]["ratings"]] == [1, 1]
    assert [(one["score"], one["moves"]) for one in results["p4"]["ratings"]] == [("2", 1)] * 2
    assert [one["moves"] for one in results["p5"]["ratings"]] == [1, 1]
    assert {one["azimuth"] for one in results["p5"]["responses"].values()} == {90}
