"""Imports only go down: qincodec <- baselines <- evaluation <- mushra, without a circle of files or folders.

Imports inside functions count, for they are how a circle hides. Those for the type checker alone do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Each imports from those in front of it only.
PACKAGES = ("qincodec", "baselines", "evaluation", "mushra")


@cache
def _modules() -> dict[str, Path]:
    """Dotted name -> file, of all modules of the packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if _is_for_types(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield other
                yield from _statements(other)
        else:
            yield child
            yield from _statements(child)


def _imports(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names that a module imports: ``a.b`` of ``from a import b`` if that is a module, else ``a``."""
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = module.split(".")[: len(module.split(".")) - node.level + is_package]
            base = ".".join([*(here if node.level else []), *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from (name for name in names if name in _modules())
            if not all(name in _modules() for name in names):
                yield base


@cache
def _arrows() -> dict[str, frozenset[str]]:
    """Module -> modules of the packages that it imports."""
    return {
        module: frozenset(
            name
            for name in _imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
            if name in _modules() and name != module
        )
        for module, path in _modules().items()
    }


def _circle(arrows: dict[str, frozenset[str]]) -> list[str]:
    """A shortest circle, its first member again at its end; empty if there is none."""
    best: list[str] = []
    for start in arrows:
        came: dict[str, str] = {}
        todo = [start]
        while todo and start not in came:
            todo = [
                after
                for here in todo
                for after in sorted(arrows[here])
                if after not in came and came.setdefault(after, here)
            ]
        if start in came:
            path = [start, came[start]]
            while path[-1] != start:
                path.append(came[path[-1]])
            best = min(best or path, path[::-1], key=len)
    return best


def test_packages_import_downwards() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, names in _arrows().items()
        for name in names
        if PACKAGES.index(name.split(".")[0]) > PACKAGES.index(module.split(".")[0])
    ]
    assert not wrong


def test_no_circle_of_files() -> None:
    assert " -> ".join(_circle(_arrows())) == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_folders(package: str) -> None:
    """Rooms are what lies directly in a package: a folder with all in it, or a file."""

    def room(module: str) -> str:
        return ".".join(module.split(".")[:2])

    arrows: dict[str, set[str]] = {}
    for module, names in _arrows().items():
        if module.startswith(f"{package}."):
            others = {room(name) for name in names if name.startswith(f"{package}.")}
            arrows.setdefault(room(module), set()).update(others - {room(module)})
    assert " -> ".join(_circle({name: frozenset(others) for name, others in arrows.items()})) == ""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import evaluation.session", {"evaluation.session"}),
        ("from evaluation import session", {"evaluation.session"}),
        ("from evaluation import evaluate", {"evaluation"}),
        ("def f():\n    from evaluation.session import evaluate", {"evaluation.session"}),
        ("from . import runner", {"evaluation.engine.runner"}),
        ("from ..session import evaluate", {"evaluation.session"}),
        ("if TYPE_CHECKING:\n    import evaluation.session\nelse:\n    import mushra", {"mushra"}),
    ],
)
def test_imports_are_seen(source: str, expected: set[str]) -> None:
    assert set(_imports(source, "evaluation.engine.coding", False)) == expected


def test_circles_are_seen() -> None:
    arrows = {"a": frozenset("b"), "b": frozenset("cd"), "c": frozenset("a"), "d": frozenset("b")}
    assert _circle(arrows) in (["b", "d", "b"], ["d", "b", "d"])
    assert _circle({**arrows, "c": frozenset(), "d": frozenset()}) == []
