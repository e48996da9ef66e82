"""The page's words in four languages, and its scripts as text."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import mushra.server

STATIC = Path(mushra.server.__file__).parent / "static"
SCRIPTS = sorted((STATIC / "js").rglob("*.js"))
LANGUAGES = ("en", "de", "fr", "es")


def texts(language: str) -> dict[str, str]:
    source = (STATIC / "js" / "texts" / f"{language}.js").read_text(encoding="utf-8")
    entries = re.findall(r'^  (\w+): "((?:[^"\\]|\\.)*)",$', source, re.MULTILINE)
    lines = re.findall(r"^  \w", source, re.MULTILINE)
    assert len(entries) == len(lines), "an entry is not on a line of its own"
    assert max(Counter(key for key, _ in entries).values()) == 1
    return dict(entries)


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_language_says_everything(language: str) -> None:
    english, other = texts("en"), texts(language)
    assert list(other) == list(english)
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", other[key])) == sorted(re.findall(r"\{\w+\}", text)), key
        assert other[key].strip()
    same = [key for key in english if english[key] == other[key] and re.search(r"[a-z]{4}", english[key])]
    assert len(same) < 12, f"not translated? {same}"


def test_every_text_is_used_and_every_used_text_is_there() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS if path.parent.name != "texts")
    # Keys also stand in lists and come from the server's codes, so any quoted word counts as a use.
    quoted = set(re.findall(r'"(\w+)"', source))
    english = texts("en")
    assert set(english) - quoted - {"language"} == {"keyNext", "keyHelp"} - quoted
    called = set(re.findall(r'\bt\("(\w+)"', source))
    assert called - set(english) == set()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_plain_and_parse(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.startswith("// @ts-check\n")
    assert len(source.splitlines()) < 500
    for forbidden in (
        "createScriptProcessor",
        "eval(",
        "new Function",
        "insertAdjacentHTML",
        "outerHTML",
        "http://",
    ):
        assert forbidden not in source
    if path.name != "dom.js":
        assert "innerHTML" not in source
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node to check the syntax: apt-get install nodejs")
    checked = subprocess.run([node, "--check", path], capture_output=True, text=True, check=False)
    assert checked.stderr == ""


def test_nothing_comes_from_elsewhere() -> None:
    page = (STATIC.parent / "templates" / "listen.html").read_text(encoding="utf-8")
    assert "http" not in page
    assert "<style" not in page
    assert " style=" not in page
    assert re.findall(r"<script[^>]*>(.*?)</script>", page) == [""]
    assert "url(" not in (STATIC / "listen.css").read_text(encoding="utf-8")
