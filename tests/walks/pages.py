"""README and guides as a reader has them: their commands in order, and the code they tell to copy."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]

# `qincodec` begins rows of tables, too.
_COMMAND = re.compile(
    r"(?:\$ )?"
    r"((?:evaluate|mushra|make|pip|torchrun|python3?)(?: .*)?|qincodec (?:encode|decode|info|train)\b.*)"
)


def blocks(page: str, language: str | None = None) -> list[str]:
    """Fenced blocks, those of one language or all."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [body for name, body in found if language in (None, name)]


def commands(page: str) -> list[str]:
    """Every command of a page's fenced blocks, without its comment."""
    lines = [
        line
        for block in blocks(page)
        for line in block.replace("\\\n", " ").splitlines()
        if _COMMAND.fullmatch(line)
    ]
    return [_COMMAND.fullmatch(line)[1].split(" #")[0].strip() for line in lines]  # type: ignore[index]


def code(page: str, name: str) -> str:
    """The block of Python that defines a class."""
    return next(block for block in blocks(page, "python") if f"class {name}" in block)


def my_package() -> tuple[dict[str, str], str]:
    """`my_package` of the guides: its module, and its entry points, as they are on the pages."""
    classes = [
        ("docs/tutorials/own-codec.md", "MuLaw"),
        ("docs/how-to/extend.md", "Loudness"),
        ("docs/how-to/extend.md", "Uniform"),
        ("docs/how-to/extend.md", "Loudest"),
    ]
    module = "\n\n".join(code(page, name) for page, name in classes)
    return {"__init__": module}, "\n".join(blocks("docs/how-to/extend.md", "toml"))
