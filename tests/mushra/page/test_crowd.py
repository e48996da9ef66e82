"""Whom a panel sends, how long they must listen, and a test that is full, in a browser."""

from __future__ import annotations

from typing import Any

import pytest
from listener import leave, listen, results_when_saved, shown, start
from listening_material import GENERIC, mushra

pytestmark = pytest.mark.slow


def test_a_panels_listener_hears_for_so_long_and_the_next_is_told_the_test_is_full(
    begin: Any, site: Any, open_page: Any
) -> None:
    rules = {"must_hear_all": False, "must_rate_all": False, "one_at_100": False, "min_heard_s": 1}
    own = {"identification": "panel", "panel": {"person": "PID"}, "quota": 1, "languages": ["de"]}
    served = site([mushra(stimuli={"A": "one.wav"}), GENERIC], qincodec={**own, "rules": rules})
    page = open_page()
    start(page, f"{served.url}?PID=ada")
    shown(page, "mushra")
    rule = "Listen to every item for at least 1 s in total."
    assert rule in page.get_by_role("list", name="Rules of this page").all_inner_texts()[0]
    leave(page)
    assert page.locator(".missing li").all_inner_texts() == ["Not heard for 1 s yet: Item 1, Item 2."]
    for number in (0, 1):
        page.locator(".item .play").nth(number).click()
        listen(page, 1.2)
    leave(page)
    shown(page, "generic")
    results_when_saved(page)
    assert {row["person"] for row in served.rows("SELECT person FROM sessions")} == {"ada"}
    other = open_page(expected=("Failed to load resource",))
    other.goto(f"{served.url}?PID=bob&lang=de")
    other.get_by_role("button", name="Starten").click()
    other.wait_for_selector("text=alle Hörerinnen und Hörer")
    assert len(served.rows("SELECT id FROM sessions")) == 1
