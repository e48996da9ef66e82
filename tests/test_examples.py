"""The notebooks of examples/: they run as they stand, show what they are kept with, and tell no path."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from notebooks import code_cells, run

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.ipynb"))


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def shows(notebook: dict[str, Any]) -> list[list[tuple[str, list[str]]]]:
    """Of every cell the kinds of its outputs."""
    return [
        [(output["output_type"], sorted(output.get("data", {}))) for output in cell["outputs"]]
        for cell in code_cells(notebook)
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_was_executed_in_order_and_tells_no_path(path: Path) -> None:
    notebook = read(path)
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    text = path.read_text(encoding="utf-8")
    for place in ("/tmp", "/home", "/root", "/Users", "/work"):
        assert place not in text
    assert path.stat().st_size < 300_000


def test_there_is_a_notebook_for_each_use() -> None:
    assert [path.stem for path in EXAMPLES] == ["evaluate", "listening_test", "own_codec"]


@pytest.mark.long
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_is_kept_with(path: Path, tmp_path: Path) -> None:
    kept = read(path)
    again = copy.deepcopy(kept)
    run(again, tmp_path)
    assert shows(again) == shows(kept)
    # Numbers of times differ; tables of tests and means do not.
    for old, new in zip(code_cells(kept), code_cells(again), strict=True):
        if "tests[" in "".join(old["source"]) or "contrasts" in "".join(old["source"]):
            assert new["outputs"][0]["data"]["text/plain"] == old["outputs"][0]["data"]["text/plain"]
