"""What the tests of pretrained codecs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from baselines import weights


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights, nothing given by hand, no downloads."""
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("QINCODEC_OFFLINE", "1")
    monkeypatch.setattr(weights, "_explicit", {})
    return tmp_path / "cache"
