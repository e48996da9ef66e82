"""Every public name has an example in its docstring, and every example of a docstring runs as it is."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("qincodec", "baselines", "evaluation", "mushra")


def public_names() -> list[str]:
    """What the packages export, what the page of the API shows, and the functions of `qincodec.audio`."""
    shown = re.findall(
        r"^::: ([\w.]+)$", (ROOT / "docs/reference/api.md").read_text("utf-8"), flags=re.MULTILINE
    )
    modules = ["qincodec.audio", *PACKAGES]
    exported = [
        f"{name}.{one}" for name in modules for one in getattr(importlib.import_module(name), "__all__", ())
    ]
    return sorted({*shown, *exported} - {"qincodec.audio", "qincodec.audio.EXTENSIONS"})


def examples() -> dict[str, list[tuple[str, str]]]:
    """Module -> (name, docstring) of each docstring with an example."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if ">>> " not in text:
            continue
        kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
        docs = [
            (getattr(node, "name", "module"), ast.get_docstring(node) or "")
            for node in ast.walk(ast.parse(text))
            if isinstance(node, kinds)
        ]
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[module] = [(name, doc) for name, doc in docs if ">>> " in doc]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all examples: those that ask for the same run find it."""
    return tmp_path_factory.mktemp("examples")


def test_every_public_name_has_an_example() -> None:
    names = public_names()
    assert len(names) > 30
    lacking = []
    for name in names:
        module, _, attribute = name.rpartition(".")
        if ">>> " not in (inspect.getdoc(getattr(importlib.import_module(module), attribute)) or ""):
            lacking.append(name)
    assert not lacking


@pytest.mark.parametrize("module", examples())
def test_the_examples_of_a_module(module: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names = vars(importlib.import_module(module))
    for name, doc in examples()[module]:
        test = doctest.DocTestParser().get_doctest(doc, dict(names), f"{module}.{name}", None, None)
        printed: list[str] = []
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=printed.append)
        assert result.attempted and not result.failed, "".join(printed)
