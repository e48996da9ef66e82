"""The headphone check: its tones, and that its outcome is stored with the first trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from browser_audio import ENCODE, samples
from listener import leave, rate_with_keys, shown
from listening_material import GENERIC, mushra
from listening_site import Site

ROUND = """
async ({ rate, soft, opposed }) => {
  const { round } = await import("./static/js/pages/headphones.js");
  const buffer = round(new OfflineAudioContext(2, 1, rate), soft, opposed);
  return [0, 1].map((channel) => ENCODE(buffer.getChannelData(channel)));
}
""".replace("ENCODE", ENCODE)


@pytest.mark.parametrize(("soft", "opposed"), [(0, 1), (2, 0)])
def test_a_round_is_the_published_one(
    site: Callable[..., Site], open_page: Callable[..., Any], soft: int, opposed: int
) -> None:
    rate = 44100
    page = open_page()
    page.goto(site([GENERIC]).url)
    page.wait_for_selector("button.big")
    answer = page.evaluate(ROUND, {"rate": rate, "soft": soft, "opposed": opposed})
    left, right = (samples(text) for text in answer)
    assert left.size == right.size == round(4.0 * rate)
    for which in range(3):
        begin = round(which * 1.5 * rate)
        tone = slice(begin + rate // 10, begin + rate - rate // 10)
        sign = -1 if which == opposed else 1
        assert np.array_equal(right[tone], sign * left[tone])
        peak = 0.3 * (10 ** (-6 / 20) if which == soft else 1)
        t = np.arange(rate)[rate // 10 : -rate // 10] / rate
        assert left[tone] == pytest.approx(peak * np.sin(2 * np.pi * 200 * t), abs=1e-6)
        if which < 2:
            assert np.abs(left[begin + rate : begin + round(1.5 * rate)]).max() == 0
    assert np.abs(np.diff(left)).max() < 0.3 * 2 * np.pi * 200 / rate * 1.05, "no clicks"


@pytest.mark.long
def test_who_fails_may_go_on_and_the_experimenter_sees_it(begin: Callable[..., tuple[Any, Site]]) -> None:
    page, served = begin(
        [mushra(stimuli={"A": "one.wav"}), GENERIC], first="headphones", qincodec={"headphone_check": True}
    )
    assert page.locator(".place").inner_text() == "Page 1 of 3"
    leave(page)
    assert "Do the headphone check first" in page.get_by_role("alert").inner_text()
    for attempt in range(2):
        for _ in range(6):
            page.get_by_role("button", name="Play the tones").click()
            page.wait_for_selector(".choices button:enabled >> nth=2")
            page.keyboard.press("1")
        if attempt == 0:
            leave(page)
            assert page.get_by_role("alert").inner_text() != ""
            page.get_by_role("button", name="Repeat the check").click()
    leave(page)
    shown(page, "mushra")
    rate_with_keys(page, 1, 100)
    rate_with_keys(page, 2, 40)
    leave(page)
    shown(page, "generic")
    page.wait_for_selector(".state:text-is('Saved')")
    check = served.results()["p1"]["headphone_check"]
    assert check["passed"] is False
    assert len(check["answers"]) == 6
    assert sum(check["answers"]) == 2
