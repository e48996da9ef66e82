"""What walks share: a shell outside of the checkout, and browsers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import take_in_chromium, take_in_firefox
from chromium import chromium as browsers_of_debian
from chromium import watch
from listener import rate_with_keys, rate_with_mouse
from postgresql_server import new_database, postgresql_server
from walking import Ear, Grades, Shell, Take


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file share what its first one made, and go to one process; pages have a folder each.

    xdist's own groups (`--dist loadgroup`) are lost on their way with pytest 9: every process made all again.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return nodeid if path.endswith("test_pages.py") else path

    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def no_proxy() -> None:
    """Listeners talk to this machine only."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Shell:
    """A shell in an empty folder of the module's own: one thread of data."""
    folder = tmp_path_factory.mktemp(request.module.__name__.rpartition(".")[2])
    offline = {"QINCODEC_OFFLINE": "1", "QINCODEC_CACHE": str(folder / "cache")}
    return Shell(folder, {**offline, "OMP_NUM_THREADS": "1", "COLUMNS": "200"})


@pytest.fixture(scope="session")
def chromium() -> Iterator[Callable[[], Any]]:
    """A new page of Chromium in a profile of its own, with a list of what its console calls an error."""
    with browsers_of_debian() as start:

        def new() -> tuple[Any, list[str]]:
            context = start().new_context(viewport={"width": 1280, "height": 860})
            context.set_default_timeout(120_000)
            page = context.new_page()
            errors: list[str] = []
            watch(page, errors)
            return page, errors

        yield new


@pytest.fixture(scope="module")
def postgresql_database(shell: Shell) -> Iterator[str]:
    """URL of an empty data base, and what `mushra` needs for it."""
    with postgresql_server() as cluster:
        shell.run("pip install --quiet 'qincodec[postgresql]'")
        yield new_database(cluster.url)


@pytest.fixture(scope="session")
def browsers(
    chromium: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Take]]:
    """People with a browser each, by the browser and by what their hand is on."""

    def in_chromium(rate: Callable[..., None]) -> Take:
        def take(link: str, ear: Ear, grades: Grades) -> None:
            page, errors = chromium()
            take_in_chromium(page, rate, link, ear, grades)
            page.context.close()
            assert errors == []

        return take

    found = {"chromium, mouse": in_chromium(rate_with_mouse), "chromium, keys": in_chromium(rate_with_keys)}
    if any(shutil.which(program) is None for program in ("firefox-esr", "pulseaudio", "pactl")):
        yield found
        return
    from firefox import Firefox, Sound

    folder = tmp_path_factory.mktemp("firefox")
    sound = Sound(folder / "sound")
    sound.plug()

    def take(link: str, ear: Ear, grades: Grades) -> None:
        browser = Firefox(tmp_path_factory.mktemp("firefox"), sound.environment)
        try:
            take_in_firefox(browser, link, ear, grades)
            assert browser.errors == []
        finally:
            browser.close()

    yield {**found, "firefox, mouse": take}
    sound.close()
