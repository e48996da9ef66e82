"""Debian's Chromium under Playwright, and what a page complains of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
MUTE = "--mute-audio"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", MUTE]


#: Playwright while somebody uses it: (what ends it, itself, number of users).
_RUNNING: list[Any] = []


@contextmanager
def _playwright() -> Iterator[Any]:
    """One for all in this process: a second one is refused beside it, and modules overlap in it."""
    from playwright.sync_api import sync_playwright

    if not _RUNNING:
        manager = sync_playwright()
        _RUNNING[:] = manager, manager.__enter__(), 0
    _RUNNING[2] += 1
    try:
        yield _RUNNING[1]
    finally:
        _RUNNING[2] -= 1
        if not _RUNNING[2]:
            _RUNNING[0].__exit__(None, None, None)
            _RUNNING.clear()


@contextmanager
def chromium() -> Iterator[Callable[..., Any]]:
    """(more arguments) -> a browser, started once for each set of them; skips where there is none.

    With the ``environment`` of a sound server it plays there; else it plays nowhere.
    """
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}: pages are tested in a real browser (apt-get install chromium)")
    with _playwright() as playwright:
        browsers: dict[tuple[str, ...], Any] = {}

        def start(*more: str, environment: dict[str, str] | None = None) -> Any:
            key = (*more, (environment or {}).get("PULSE_SERVER", ""))
            if key not in browsers:
                arguments = [one for one in ARGUMENTS if environment is None or one != MUTE]
                browsers[key] = playwright.chromium.launch(
                    executable_path=str(CHROMIUM),
                    args=[*arguments, *more],
                    env=environment,
                    ignore_default_args=[MUTE] if environment else None,  # Playwright's own
                )
            return browsers[key]

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
