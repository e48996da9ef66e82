"""All sample files of a webMUSHRA checkout, by its own page on our server, beside PHP."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium
from webmushra_walk import SERVICE, compare, take

from mushra.config.load import load_config
from qincodec.core.errors import UserError

CHECKOUT = os.environ.get("WEBMUSHRA", "")
CONFIGS = sorted(path.name for path in Path(CHECKOUT, "configs").glob("*.y*ml")) if CHECKOUT else []

pytestmark = [
    pytest.mark.webmushra,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not CHECKOUT,
        reason="WEBMUSHRA'S OWN PAGE NOT TESTED: make test-webmushra WEBMUSHRA=PATH of a checkout",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as start:
        yield start("--autoplay-policy=no-user-gesture-required")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_sample_file_is_taken_and_stored_as_php_stores_it(browser: Any, name: str, tmp_path: Path) -> None:
    try:
        config = load_config(Path(CHECKOUT, "configs", name))
    except UserError as error:
        pytest.fail(f"{name} cannot be read here: {error}")
    if not (config.general.remote_service or "").endswith(SERVICE):
        pytest.skip(f"{name} sends its results nowhere: no remoteService {SERVICE}")
    page = browser.new_page()
    try:
        taken = take(page, Path(CHECKOUT), name, tmp_path)
    finally:
        page.close()
    if shutil.which("php") is None:
        pytest.skip("taken and stored; NOT COMPARED WITH PHP: apt-get install php-cli")
    compare(taken, Path(CHECKOUT), tmp_path / "php")
