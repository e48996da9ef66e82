"""The report in a real browser, from the disk: it asks for nothing else, sorts, plays, keeps the position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from chromium import chromium, watch
from known import RATE, tone_and_noise
from nominal import evaluate

from evaluation.report.html import write_html

pytestmark = pytest.mark.slow

#: Presses a key and says where both signals were at the moment another one took over.
_SWITCH = """
(key) => new Promise((resolve) => {
  const { pause } = HTMLMediaElement.prototype;
  const finish = (value) => {
    HTMLMediaElement.prototype.pause = pause;
    resolve(value);
  };
  // Whoever takes over ends the one before it in the same step; looking a moment later would say less.
  HTMLMediaElement.prototype.pause = function () {
    const now = [...document.querySelectorAll("audio")].find((a) => a !== this && !a.paused && !a.muted);
    const where = { before: this.currentTime, after: now?.currentTime };
    const shown = now?.closest(".signal").querySelector(".choose").dataset.codec;
    pause.call(this);
    finish({ ...where, shown });
  };
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
})
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, own_codecs: None) -> Path:
    """Two codecs at two rates on clips of four seconds."""
    clips = tmp_path_factory.mktemp("long")
    for seed in range(2):
        samples = tone_and_noise(seed, 4.0)
        soundfile.write(clips / f"clip {seed}.wav", samples / np.abs(samples).max() / 2, RATE)
    run = tmp_path_factory.mktemp("runs") / "run"
    evaluate(clips, "steps,late", "4,8", out=run, metrics="si_sdr", workers=1)
    return write_html(run).page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as start:
        yield start("--autoplay-policy=no-user-gesture-required")


@pytest.fixture
def open_report(browser: Any, report: Path) -> Iterator[Callable[..., Any]]:
    """Opens the report; the test fails on any console error and on any request that leaves its folder."""
    contexts: list[Any] = []
    problems: list[str] = []

    def start(**options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        watch(page, problems)
        page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
        folder = report.parent.as_uri()
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((folder, "data:")) else problems.append(request.url)
            ),
        )
        page.goto(report.as_uri())
        return page

    yield start
    for context in contexts:
        context.close()
    # Closing a page breaks off the loading of sounds.
    assert [problem for problem in problems if not problem.endswith(".flac")] == []


def test_headings_sort_within_their_groups(open_report: Callable[..., Any]) -> None:
    page = open_report()
    table = page.locator("#scores table").first
    column = table.locator("thead th").all_inner_texts().index("SI-SDR (dB) ↑")

    def values() -> list[list[float]]:
        bodies = table.locator("tbody").all()
        rows = [body.locator("tr:not(.group)").all() for body in bodies]
        return [
            [float(r.locator("th, td").nth(column).inner_text().split()[0]) for r in group] for group in rows
        ]

    heading = table.locator("thead th").nth(column)
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    ascending = values()
    assert ascending == [sorted(group) for group in ascending] and len(ascending) == 2
    heading.get_by_role("button").press("Enter")
    assert values() == [group[::-1] for group in ascending]
    assert table.locator("tbody tr:first-child").all_inner_texts() == ["4 kbps", "8 kbps"]


def test_switching_keeps_the_position(open_report: Callable[..., Any]) -> None:
    page = open_report()
    assert page.locator("audio").count() == 0  # opening the page loads no sound
    card = page.locator(".clip").first
    card.locator(".play").click()
    page.wait_for_function("[...document.querySelectorAll('audio')].some((a) => a.currentTime > 0.3)")
    for key, codec in (("2", "steps"), ("3", "late"), ("1", "reference"), ("3", "late")):
        found = page.evaluate(_SWITCH, key)
        assert found["shown"] == codec
        # Around the end of the loop, too.
        assert abs((found["after"] - found["before"] + 2) % 4 - 2) < 0.05, found
    found = page.evaluate(_SWITCH, "]")  # the other rate, the same codec
    assert found["shown"] == "late" and abs((found["after"] - found["before"] + 2) % 4 - 2) < 0.05
    sounding = "[...document.querySelectorAll('audio')].filter((a) => !a.paused).length"
    assert page.evaluate(sounding) == 1
    page.keyboard.press("l")
    assert not card.locator(".loop").is_checked()
    assert page.evaluate("[...document.querySelectorAll('audio')].every((a) => !a.loop)")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")
    assert page.evaluate(sounding) == 0


def test_it_plays_to_the_end_and_stops_without_loop(open_report: Callable[..., Any]) -> None:
    page = open_report()
    card = page.locator(".clip").first
    card.locator(".loop").uncheck()
    card.locator(".position").fill("3.7")
    card.locator(".play").click()
    page.wait_for_function("document.querySelector('.clip .time').textContent === '0.00 s'")
    assert card.locator(".play").inner_text() == "▶"


def test_a_picture_is_a_place_to_go_to(open_report: Callable[..., Any]) -> None:
    page = open_report()
    card = page.locator(".clip").first
    picture = card.locator(".signal:not([hidden]) .picture").nth(1)
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] / 4, "y": 20})
    assert abs(float(card.locator(".time").inner_text().split()[0]) - 1.0) < 0.02
    assert card.locator(".choose[aria-pressed=true]").get_attribute("data-codec") == "steps"


def test_only_one_clip_plays(open_report: Callable[..., Any]) -> None:
    page = open_report()
    plays = page.locator(".play")
    plays.nth(0).click()
    plays.nth(1).click()
    page.wait_for_function(
        "[...document.querySelectorAll('.clip')][1].querySelector('audio')?.currentTime > 0"
    )
    assert page.evaluate("[...document.querySelectorAll('audio')].filter((a) => !a.paused).length") == 1


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (820, "light")])
def test_only_tables_scroll_sideways(open_report: Callable[..., Any], width: int, scheme: str) -> None:
    page = open_report(viewport={"width": width, "height": 740}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.querySelectorAll('svg text')].every((t) => t.getBBox().width < 330)")


def test_it_prints(open_report: Callable[..., Any]) -> None:
    page = open_report()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print")
    assert not page.locator(".transport").first.is_visible() and not page.locator("nav").is_visible()
    assert page.locator("#scores table").first.is_visible()
