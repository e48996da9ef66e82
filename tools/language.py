"""Refuse turns that the style page rules out: `python tools/language.py [FILE...]`, by default in all files.

The list is `refused.txt` beside the style page. A space in one of its expressions also matches the end of a
line with the signs around it, so that a turn is found across the lines of a comment, a docstring or a string.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = "docs/contributing/refused.txt"
#: The rules quote what they refuse, and the changelog is history.
LEFT_OUT = {"docs/contributing/style.md", "CHANGELOG.md"}
READ = {".py", ".md", ".html", ".js", ".j2", ".yaml", ".yml", ".toml", ".cff"}
_GAP = r"(?:[\s\"'#*>|]|//|(?<=\s)f(?=[\"']))+"


def refused(text: str) -> dict[str, str]:
    """Regular expression -> what to write instead, from lines ``EXPRESSION => ADVICE``.

    Raises:
        ValueError: a line is neither that nor blank nor a comment (#).
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            expression, arrow, advice = line.partition(" => ")
            if not arrow:
                raise ValueError(f"line {number} is '{line}'; write EXPRESSION => ADVICE")
            found[expression] = advice
    return found


def findings(text: str, turns: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    """(line number, what is written there, what to write instead) of each refused turn in a text."""
    for expression, advice in turns.items():
        for match in re.finditer(expression.replace(" ", _GAP), text, flags=re.IGNORECASE):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), advice


def main(names: list[str]) -> int:
    turns = refused((ROOT / LIST).read_text(encoding="utf-8"))
    if not names:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        names = listed.stdout.split("\0")
    count = 0
    for name in filter(None, names):
        path = ROOT / name
        if sys.argv[1:] and not path.is_file():
            print(f"{name} is not a file", file=sys.stderr)
            return 2
        if path.suffix in READ and os.path.relpath(path, ROOT) not in LEFT_OUT and path.is_file():
            for line, written, advice in findings(path.read_text(encoding="utf-8"), turns):
                print(f"{name}:{line}: '{written}': {advice}")
                count += 1
    if count:
        print(f"{count} refused by {LIST}; docs/contributing/style.md has the rules", file=sys.stderr)
    return int(bool(count))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
