"""The pages of other methods than MUSHRA, taken with the keyboard alone; axe-core on each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from accessibility import check
from listener import listen, shown, tab_to
from listening_site import Site

pytestmark = pytest.mark.slow

STIMULI = {"A": "one.wav", "B": "two.wav"}
LABELS = ("Excellent", "Good", "Fair", "Poor", "Bad")
ACR = {
    "type": "likert_single_stimulus",
    "id": "quality",
    "name": "Rate the quality",
    "content": "<p>How good is the quality of what you hear?</p>",
    "mustRate": True,
    "mustPlayback": "ended",
    "stimuli": {"A": "one.wav", "R": "reference.wav"},
    "response": [{"value": value, "label": label} for value, label in zip("54321", LABELS, strict=True)],
}
DCR = {
    "type": "dcr",
    "id": "degraded",
    "name": "Rate the degradation",
    "content": "<p>Listen to the reference and then to its version.</p>",
    "reference": "reference.wav",
    "stimuli": {"A": "one.wav"},
}
AB = {
    "type": "ab",
    "id": "prefer",
    "name": "Compare the two",
    "content": "<p>Listen to both as often as you like.</p>",
    "enableLooping": True,
    "unforced": "No preference",
    "stimuli": STIMULI,
}
CLOSER = {**AB, "id": "closer", "showWaveform": True, "reference": "reference.wav"}
ABX = {
    "type": "abx",
    "id": "x",
    "name": "A, B and X",
    "content": "<p>X is the same as A or the same as B. Listen to all three as often as you like.</p>",
    "enableLooping": True,
    "reference": "reference.wav",
    "stimuli": {"A": "one.wav"},
}
FINISH = {"type": "finish", "id": "end", "name": "Thank you", "showResults": True}


def take(page: Any, kind: str) -> None:
    """Does what lets the page be left."""
    if kind == "likert_single_stimulus":
        for name in ("s1", "s2"):
            page.keyboard.press("Space")
            page.wait_for_selector("section:not([hidden]) .play.current[aria-pressed=false]")  # to the end
            tab_to(page, f"[name=likert-{name}-0]")
            page.keyboard.press("Space")
            if name == "s1":
                tab_to(page, ".choices button:last-child")
                page.keyboard.press("Enter")
    elif kind == "dcr":
        page.keyboard.press("0")
        page.wait_for_selector("[data-signal=s1][aria-pressed=true]")  # follows by itself
        page.wait_for_selector("[data-signal=s1].current[aria-pressed=false]")
        tab_to(page, "[name=grade]")
        page.keyboard.press("Space")
        page.keyboard.press("ArrowDown")
    elif kind in ("ab", "abx"):
        for key in ("1", "2", "3")[: 2 + (kind == "abx")]:
            page.keyboard.press(key)
            listen(page)
        tab_to(page, "[name=answer]")
        page.keyboard.press("Space")


def test_every_method_with_the_keyboard(site: Callable[..., Site], open_page: Callable[..., Any]) -> None:
    served = site([ACR, DCR, AB, CLOSER, ABX, FINISH])
    page = open_page()
    page.goto(served.url)
    tab_to(page, "button.big")
    page.keyboard.press("Enter")
    questions = []
    for number, one in enumerate([ACR, DCR, AB, CLOSER, ABX, FINISH], start=1):
        page.wait_for_selector(f".place:text('{number} of 6')")
        kind = str(one["type"])
        shown(page, kind)
        if one is not FINISH:
            page.keyboard.press("n")
            page.wait_for_selector(".missing li")
        questions += page.locator(".question legend").all_inner_texts()
        take(page, kind)
        check(page)
        page.wait_for_selector(".next.ready")
        tab_to(page, ".next")
        page.keyboard.press("Enter")
    page.wait_for_selector(".done")
    assert questions == [
        "How degraded is the version compared with the reference?",
        *("Which do you prefer?", "Which is closer to the reference?", "Which one is X?"),
    ]
    (plan,) = (json.loads(row["plan"]) for row in served.rows("SELECT plan FROM sessions"))
    conditions = {one["public"]["id"]: one["conditions"] for one in plan}
    rows = served.rows("SELECT page, stimulus, reference, answer, score FROM ratings ORDER BY page, position")
    told = {
        row["page"]: tuple(row[name] for name in ("stimulus", "reference", "answer", "score")) for row in rows
    }
    assert [row["answer"] for row in rows if row["page"] == "p1"] == ["5", "5"]
    assert told["p2"] == ("A", "reference", None, 4)
    for name in ("p3", "p4"):
        assert told[name] == ("A", "B", conditions[name]["s1"], None)
    first, x = conditions["p5"]["s1"], conditions["p5"]["s3"]
    assert told["p5"] == ("A", "reference", first, float(first == x))
