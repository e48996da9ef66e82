"""A checkout of webMUSHRA, and a server for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from webmushra_client import YAML

from mushra.server import create_app, sign_in


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "webMUSHRA"
    for path, text in {
        "index.html": "<html><script>1</script></html>",
        "lib/app.js": "var a;",
        "configs/default.yaml": YAML,
        "service/write.php": "<?php secret",
        "results/x/mushra.csv": "private",
        ".git/config": "private",
        "key.json": "private",
        "cache/plots/means.png": "private",
        "x.sqlite-wal": "private",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    return folder


@pytest.fixture
def classic(checkout: Path, tmp_path: Path) -> Any:
    app = create_app(None, tmp_path / "classic.sqlite", webmushra_folder=checkout)
    yield app
    app.extensions["mushra"].store.close()


@pytest.fixture
def signed_in() -> Any:
    """(app) -> a client that has used the admin link."""

    def sign(app: Any) -> Any:
        client = app.test_client()
        token = sign_in.new_link(app.extensions["mushra"].store)
        answer = client.post(
            "/admin/sign-in", data={"token": token}, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert answer.status_code == 302
        return client

    return sign
