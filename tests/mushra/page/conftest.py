"""A real browser on a real server: fixtures of the listening page's tests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium, watch


@pytest.fixture(scope="session")
def launch() -> Iterator[Callable[..., Any]]:
    with chromium() as start:
        yield start


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

        context.on("page", lambda page: watch(page, problems, expected))
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
