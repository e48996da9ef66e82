"""webMUSHRA's YAML from `mushra serve` through a browser to the exported CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from listener import leave, listen, rate_with_mouse, shown, start
from listening_material import SPATIAL
from listening_site import Site
from serving import Server
from typer.testing import CliRunner
from webmushra_cases import SCALES, VALUES, write_case

from mushra.cli.main import app

pytestmark = pytest.mark.slow


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Writes a case and serves it with `mushra serve` in a process of its own; its address."""
    servers: list[Server] = []

    def begin(text: str) -> str:
        servers.append(Server(write_case(tmp_path, text), "--port", "0"))
        return servers[-1].url

    yield begin
    for server in servers:
        server.stop()


def exported(folder: Path, name: str) -> list[list[str]]:
    done = CliRunner().invoke(app, ["export", str(folder / "t.yaml"), "--out", str(folder / "out")])
    assert done.exit_code == 0, done.output
    with (folder / "out" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_scales_through_a_browser(
    serve: Callable[[str], str], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    page = open_page()
    start(page, serve(SCALES))
    shown(page, "likert_single_stimulus")
    # The waveform of the stimulus is drawn.
    assert page.evaluate(
        "() => { const c = document.querySelector('.wave:not(.plain) canvas');"
        " return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(Boolean); }"
    )
    for n, choices in ((1, ("Good", "Dull")), (2, ("Bad", "Bright"))):
        row = page.get_by_role("region", name=f"Item {n}")
        row.locator(".play").click()
        row.get_by_label(choices[0]).check()
        leave(page)  # one scale has no answer yet
        assert f"Item {n}" in page.get_by_role("alert").inner_text()
        row.get_by_label(choices[1]).check()
        if n == 1:
            page.get_by_role("button", name="Next item").click()
    leave(page)
    shown(page, "finish")
    leave(page)
    page.wait_for_selector(".done")
    header, *rows = exported(tmp_path, "multi/lss.csv")
    assert header == [
        *("session_test_id", "trial_id", "stimuli_rating1", "stimuli_rating2", "stimuli", "rating_time")
    ]
    assert [row[:4] for row in rows] == [["multi", "l1", "good", "dull"], ["multi", "l1", "bad", "bright"]]
    assert {row[4] for row in rows} == {"a", "b"}


def test_values_through_a_browser(
    serve: Callable[[str], str], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    page = open_page()
    start(page, serve(VALUES))
    shown(page, "mushra")
    for n, score in ((1, 100), (2, 40), (3, 60)):
        rate_with_mouse(page, n, score)
    leave(page)
    shown(page, "finish")
    for label in ("18 to 27", "yes", "half past one"):
        page.get_by_label(label).last.check()
    leave(page)
    page.wait_for_selector(".done")
    header, *rows = exported(tmp_path, "2024_01/mushra.csv")
    assert header[:5] == ["session_test_id", "age", "trained", "time", "session_uuid"]
    assert {tuple(row[:4]) for row in rows} == {("2024_01", "18_27", "yes", "1:30")}
    assert {row[5] for row in rows} == {"1_2"}
    assert {row[6] for row in rows} == {"reference", "a", "010"}


def test_directions_of_several_objects(begin: Callable[..., tuple[Any, Site]]) -> None:
    page, served = begin([{**SPATIAL, "stimuli": {"A": "one.wav"}, "numberofLocObj": 2}, {"type": "finish"}])
    page.locator(".play").first.click()
    listen(page)
    first, second = page.get_by_role("slider", name="Direction of").all()
    first.press("End")
    leave(page)
    assert "No direction yet" in page.get_by_role("alert").inner_text()
    # A gesture that the browser takes over is no answer.
    box = second.bounding_box()
    at = {"clientX": box["x"] + 5, "clientY": box["y"] + box["height"] / 2, "button": 0, "pointerId": 1}
    at["isPrimary"] = True
    second.evaluate("(dial) => { dial.setPointerCapture = () => {}; }")
    second.dispatch_event("pointerdown", at)
    assert second.get_attribute("aria-valuenow") == "90"
    second.dispatch_event("pointercancel", at)
    assert "unset" in (second.get_attribute("class") or "")
    leave(page)
    assert "No direction yet" in page.get_by_role("alert").inner_text()
    second.click(position={"x": 5, "y": box["height"] / 2})
    leave(page)
    shown(page, "finish")
    leave(page)
    page.wait_for_selector(".done")
    (row,) = served.rows("SELECT answer FROM ratings")
    assert row["answer"] in ('{"azimuths":[180,90]}', '{"azimuths":[180,91]}')
