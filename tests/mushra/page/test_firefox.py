"""Whole tests in Firefox, by mouse and by keyboard, and what it does without a sound device."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator

import pytest
from firefox import FIREFOX, Firefox, Sound
from listener import HEARD
from listening_material import FINISH, GENERIC, VOLUME, mushra
from listening_site import Site

PAGES = [VOLUME, mushra("training1"), mushra("piano"), mushra("flute"), FINISH]
SCORES = {"training1": [100, 50, 60, 70], "piano": [64, 12, 100, 87], "flute": [0, 33, 51, 100]}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[Firefox, Sound]]]:
    """Starts Firefox and a sound server."""
    for program, package in ((FIREFOX, FIREFOX), ("pulseaudio", "pulseaudio"), ("pactl", "pulseaudio-utils")):
        if shutil.which(program) is None:
            pytest.skip(f"NOT TESTED IN FIREFOX: needs {program} (apt-get install {package})")
    running: list[Firefox | Sound] = []

    def start(*, device: bool) -> tuple[Firefox, Sound]:
        folder = tmp_path_factory.mktemp("firefox")
        sound = Sound(folder / "sound")
        running.append(sound)
        if device:
            sound.plug()
        browser = Firefox(folder, sound.environment)
        running.append(browser)
        return browser, sound

    yield start
    for one in reversed(running):
        one.close()


@pytest.fixture(scope="module")
def firefox(started: Callable[..., tuple[Firefox, Sound]]) -> Firefox:
    return started(device=True)[0]


def shown(browser: Firefox, kind: str, n: int) -> None:
    """Waits until the n-th page, from 1, is shown and takes input, with sound."""
    place = f"document.querySelector('.place')?.textContent.startsWith('Page {n} ')"
    browser.wait(f"document.querySelector('[data-type={kind}] .next:enabled') && {place}")
    browser.wait("!document.querySelector('dialog')")


def heard(browser: Firefox) -> None:
    browser.evaluate(f"({HEARD})(0.6)")


def scale(browser: Firefox, n: int) -> int:
    value = f"document.querySelectorAll('.item .scale')[{n}].getAttribute('aria-valuenow')"
    return int(browser.evaluate(value))


def check(served: Site, scores: dict[str, list[int]], volume: float) -> None:
    """What the data base and the export have: the scores under the conditions they were given to."""
    plan = json.loads(served.rows("SELECT plan FROM sessions")[0]["plan"])
    trials = {page["trial"]: page["conditions"] for page in plan if page["conditions"]}
    expected = {
        trial: {trials[trial][f"s{n}"]: score for n, score in enumerate(given, start=1)}
        for trial, given in scores.items()
    }
    stored: dict[str, dict[str, float]] = {trial: {} for trial in scores}
    for row in served.rows("SELECT trial, stimulus, score, detail FROM ratings"):
        stored[row["trial"]][row["stimulus"]] = row["score"]
        detail = json.loads(row["detail"])
        assert detail["plays"] >= 1
        assert detail["moves"] >= 1
        assert detail["heard_ms"] >= 500
    assert stored == expected
    assert served.results()["p1"]["volume"] == volume
    assert [row["state"] for row in served.rows("SELECT state FROM sessions")] == ["finished"]
    exported: dict[str, dict[str, float]] = {}
    for line in served.exported("page/mushra.csv"):
        exported.setdefault(line["trial_id"], {})[line["rating_stimulus"]] = float(line["rating_score"])
        assert (line["initials"], line["expert"]) == ("F. F.", "yes")
    assert exported == {trial: expected[trial] for trial in ("piano", "flute")}


def test_a_whole_test_with_the_mouse(site: Callable[..., Site], firefox: Firefox) -> None:
    served = site(PAGES)
    firefox.goto(served.url)
    firefox.click("button.big")
    shown(firefox, "volume", 1)
    firefox.click(".play.wide")
    firefox.drag(firefox.place("#volume"), firefox.place("#volume", across=0.7))
    volume = int(firefox.evaluate("document.querySelector('#volume').value"))
    assert 65 <= volume <= 75
    firefox.click(".next")
    given: dict[str, list[int]] = {}
    for number, (trial, scores) in enumerate(SCORES.items(), start=2):
        shown(firefox, "mushra", number)
        for n, score in enumerate(scores):
            firefox.click(".item .play", n)
            middle = firefox.place(".item .scale-track", n)
            firefox.drag(middle, firefox.place(".item .scale-track", n, up=score / 100))
            heard(firefox)
        given[trial] = [scale(firefox, n) for n in range(4)]
        assert all(abs(one - other) <= 1 for one, other in zip(given[trial], scores, strict=True))
        firefox.click(".next")
    shown(firefox, "finish", 5)
    firefox.click("#question-0")
    firefox.press(*"F. F.")
    firefox.click("[name=question-2]", 1)
    firefox.click(".next")
    firefox.wait("document.querySelector('.done')")
    check(served, given, volume / 100)
    assert firefox.errors == []


def test_a_whole_test_with_the_keyboard_alone(site: Callable[..., Site], firefox: Firefox) -> None:
    served = site(PAGES)
    firefox.goto(served.url)

    def tab_to(selector: str) -> None:
        for _ in range(60):
            if firefox.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                return
            firefox.press("Tab")
        raise AssertionError(f"Tab does not lead to {selector}")

    firefox.wait("document.querySelector('button.big')")
    tab_to("button.big")
    firefox.press("Enter")
    shown(firefox, "volume", 1)
    firefox.press("Space")
    tab_to("#volume")
    firefox.press("ArrowRight", "ArrowRight", "ArrowLeft")
    firefox.press("n")
    for number, scores in enumerate(SCORES.values(), start=2):
        shown(firefox, "mushra", number)
        for n, score in enumerate(scores, start=1):
            tens, ones = divmod(abs(score - 50), 10)
            up, right = ("Up", "Right") if score > 50 else ("Down", "Left")
            firefox.press(str(n), "ArrowUp", *[f"Shift+Arrow{up}"] * tens, *[f"Arrow{right}"] * ones)
            heard(firefox)
        firefox.press("Enter")
    shown(firefox, "finish", 5)
    tab_to("#question-0")
    firefox.press(*"F. F.")
    tab_to("[name=question-2]")
    firefox.press("Space", "ArrowDown")
    tab_to(".next")
    firefox.press("Enter")
    firefox.wait("document.querySelector('.done')")
    check(served, SCORES, 0.51)
    assert firefox.errors == []


def test_without_a_sound_device_it_says_so_and_goes_on_with_one(
    site: Callable[..., Site], started: Callable[..., tuple[Firefox, Sound]]
) -> None:
    served = site([mushra(stimuli={"A": "one.wav"}), GENERIC])
    browser, sound = started(device=False)
    browser.goto(served.url)
    browser.click("button.big")
    browser.wait("document.querySelector('.message h1')?.textContent === 'No sound device'")
    assert served.rows("SELECT * FROM sessions") == [], "nobody has begun"
    sound.plug()
    browser.wait("document.querySelector('button.big')")
    browser.click("button.big")
    shown(browser, "mushra", 1)
    browser.press("1", "ArrowUp")
    heard(browser)
    sound.unplug()
    said = "document.querySelector('dialog[open]')?.textContent.includes('No sound device')"
    browser.wait(said)
    sound.plug()
    browser.wait(f"!{said}")
    for key in ("1", "2"):
        browser.press(key, "End")
        heard(browser)
    browser.press("Enter")
    shown(browser, "generic", 2)
    browser.wait("document.querySelector('.state').textContent === 'Saved'")
    assert [one["score"] for one in served.results()["p1"]["ratings"]] == [100, 100]
    assert browser.errors == []
