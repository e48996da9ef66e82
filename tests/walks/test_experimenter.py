"""From recordings to results without opening a YAML file: options of commands, the experimenter's page."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from walking import Ear, Grades, Shell, take_by_http

pytestmark = pytest.mark.walk

DEMO = Path(__file__).resolve().parents[2] / "evaluation" / "datasets" / "demo"
PASSWORD = "a long password"
CREATE = (
    "mushra create --reference ref --condition mine=mine --items 1 --training 0 --duration 2 --out TEST"
    " --instructions hello.md --languages en,de --completion-code CODE-7"
)


@pytest.fixture(scope="module")
def made(shell: Shell) -> Path:
    for name in ("ref", "mine"):
        (shell.folder / name).mkdir()
    for clip in ("speech_english", "music_piano"):
        shutil.copy(DEMO / f"{clip}.flac", shell.folder / "ref")
        sound, rate = soundfile.read(DEMO / f"{clip}.flac")
        noise = 0.01 * np.random.default_rng(0).standard_normal(sound.shape)
        soundfile.write(shell.folder / "mine" / f"{clip}.wav", sound + noise, rate)
    (shell.folder / "hello.md").write_text("# Hello\n\nListen *closely*.\n")
    shell.run(CREATE)
    return shell.folder / "TEST"


def test_a_test_is_set_up_run_and_closed(shell: Shell, made: Path, chromium: Callable[[], Any]) -> None:
    shell = replace(shell, variables={**shell.variables, "MUSHRA_ADMIN_PASSWORD": PASSWORD})
    ear = Ear(made)
    (trial,) = ear.trials
    grades: Grades = {trial: {name: 100 - 20 * n for n, name in enumerate(sorted(ear.signals[trial]))}}
    grades[trial]["reference"] = 100
    page, errors = chromium()
    with shell.serving("mushra serve TEST --port 0 --closed") as link:
        page.goto(f"{link}admin/sign-in")
        page.get_by_label("Or the admin password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").last.click()
        page.get_by_role("link", name="Test", exact=True).click()
        # A preview shows the Markdown as a listener sees it, in a tab of its own.
        with page.expect_popup() as opened:
            page.get_by_role("link", name="Welcome").click()
        preview = opened.value
        preview.locator("button.big").click()
        assert preview.locator("em").inner_text() == "closely"
        preview.close()
        # Texts and options are edited where they stand.
        welcome = page.locator("details", has=page.get_by_text("Page 1: Welcome")).get_by_label("Text")
        welcome.fill("<p>Listen <em>very</em> closely.</p>")
        page.get_by_label("Title").fill("My codec")
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Saved.").wait_for()
        assert page.get_by_text("Closed", exact=True).is_visible()
        page.get_by_role("button", name="Open the test").click()
        page.get_by_text("Open", exact=True).wait_for()
        take_by_http(link, ear, grades)
        page.get_by_role("button", name="Close the test").click()
        page.get_by_text("Closed", exact=True).wait_for()
        page.get_by_role("link", name="Sessions", exact=True).first.click()
        with page.expect_download() as saved:
            page.get_by_role("link", name="Tidy CSV", exact=True).click()
        rows = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text(encoding="utf-8"))))
    assert {row["condition"]: float(row["score"]) for row in rows} == grades[trial]
    assert errors == []
    page.context.close()
    assert "no errors" in shell.run("mushra check TEST")
