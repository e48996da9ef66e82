"""Parts out of Python files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qincodec.core.plugins import load_file


def test_what_runs_is_what_was_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that is edited twice within a second, to the same size: Python's cache takes it for one."""
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    file = tmp_path / "part.py"
    digests = set()
    for value in (1, 2):
        file.write_text(f"PART = {value}\n")
        os.utime(file, (1e9, 1e9))
        loaded = load_file(f"{file}:PART")
        assert loaded.part == value
        digests.add(loaded.source.digest)
    assert len(digests) == 2
