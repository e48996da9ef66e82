"""Debian's Chromium under Playwright, and what a page complains of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--mute-audio"]


@contextmanager
def chromium() -> Iterator[Callable[..., Any]]:
    """(more arguments) -> a browser, started once for each set of them; skips where there is none."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}: pages are tested in a real browser (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browsers: dict[tuple[str, ...], Any] = {}

        def start(*more: str) -> Any:
            if more not in browsers:
                arguments = [*ARGUMENTS, *more]
                browsers[more] = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
            return browsers[more]

        yield start
        for browser in browsers.values():
            browser.close()


def watch(page: Any, problems: list[str], expected: tuple[str, ...] = ()) -> None:
    """Adds what the page throws, and what its console calls an error and a test does not expect."""

    def said(message: Any) -> None:
        if message.type == "error" and not any(text in message.text for text in expected):
            problems.append(message.text)

    page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
    page.on("console", said)
