"""What tests of the engine share."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def _undrawn(undrawn: None) -> None:
    """No figure is looked at here."""
