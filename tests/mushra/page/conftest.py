"""A real browser on a real server: fixtures of the listening page's tests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--mute-audio"]


@pytest.fixture(scope="session")
def launch() -> Iterator[Callable[..., Any]]:
    """Chromium, started once for each set of extra arguments."""
    if not CHROMIUM.exists():
        pytest.skip(
            f"needs {CHROMIUM}: the listening page is tested in a real browser (apt-get install chromium)"
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browsers: dict[tuple[str, ...], Any] = {}

        def start(*extra: str) -> Any:
            if extra not in browsers:
                browsers[extra] = playwright.chromium.launch(
                    executable_path=str(CHROMIUM), args=[*ARGUMENTS, *extra]
                )
            return browsers[extra]

        yield start
        for browser in browsers.values():
            browser.close()


@pytest.fixture
def open_page(launch: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """A page of its own browser profile; the test fails if the page logs an error it does not expect."""
    contexts: list[Any] = []
    problems: list[str] = []

    def start(
        *,
        autoplay: str | None = "user-gesture-required",
        init: str = "",
        expected: tuple[str, ...] = (),
        **options: Any,
    ) -> Any:
        browser = launch(*([f"--autoplay-policy={autoplay}"] if autoplay else []))
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        context.set_default_timeout(600_000)  # ends a test that hangs; a busy machine may be slow
        contexts.append(context)
        if init:
            context.add_init_script(init)

        def watch(page: Any) -> None:
            page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
            page.on(
                "console",
                lambda message: (
                    problems.append(message.text)
                    if message.type == "error" and not any(text in message.text for text in expected)
                    else None
                ),
            )

        context.on("page", watch)
        return context.new_page()

    yield start
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def begin(site: Callable[..., Any], open_page: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """Serves pages and begins their test: the browser's page once it takes input, and the site."""
    from listener import shown, start

    def run(
        pages: list[Any], *, first: str = "", browser: dict[str, Any] | None = None, **general: Any
    ) -> Any:
        served = site(pages, **general)
        page = open_page(**(browser or {}))
        start(page, served.url)
        shown(page, first or pages[0]["type"])
        return page, served

    return run


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """The real application, serving a test folder."""
    from listening_site import Site

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    sites: list[Site] = []

    def start(pages: list[dict[str, Any]], **general: Any) -> Site:
        sites.append(Site(tmp_path / f"site{len(sites)}", pages, **general))
        return sites[-1]

    yield start
    for one in sites:
        one.close()
