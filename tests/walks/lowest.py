"""The lower bounds of pyproject.toml as a file of pip constraints: `python lowest.py pyproject.toml`.

What our dependencies depend on stays newest: those versions are not ours to promise.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

#: Below 2.13 torch is a CUDA build of gigabytes on PyPI, too much for every run of CI: its lower bound was
#: tested by hand, and the environment of the lowest versions has the torch that pip takes without one.
LEFT_OUT = {"torch"}


def constraints(pyproject: Path) -> list[str]:
    """``name==lowest`` of each dependency, those of the extras that users install included."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    given = [*project["dependencies"], *(line for name in ("faiss", "postgresql") for line in extras[name])]
    lowest = []
    for requirement in given:
        found = re.match(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", requirement)
        if found is None:
            raise SystemExit(f"'{requirement}' has no lower bound; write NAME>=VERSION, which is tested")
        if found[1] not in LEFT_OUT:
            lowest.append(f"{found[1]}=={found[2]}")
    return lowest


if __name__ == "__main__":
    print("\n".join(constraints(Path(sys.argv[1]))))
