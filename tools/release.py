"""Check that version, changelog, citation and tag agree, and print the notes: `tools/release.py [vX.Y.Z]`."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def notes(root: Path, tag: str | None) -> str:
    """The changelog's section of the version that pyproject.toml names.

    Raises:
        ValueError: the files or the tag disagree; says which and what to change.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    log = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(
        rf"^## \[{re.escape(version)}\] - (\S+)\n(.*?)(?=^## \[|\Z)", log, flags=re.MULTILINE | re.DOTALL
    )
    if found is None:
        raise ValueError(
            f"CHANGELOG.md has no section '## [{version}] - DATE', the version of pyproject.toml"
        )
    if (str(cited["version"]), str(cited["date-released"])) != (version, found[1]):
        raise ValueError(
            f"CITATION.cff has version {cited['version']} of {cited['date-released']}, CHANGELOG.md {version}"
            f" of {found[1]}; write the same in both"
        )
    if tag is not None and tag != f"v{version}":
        raise ValueError(f"the tag is '{tag}', but pyproject.toml has version {version}; tag it v{version}")
    return found[2].strip() + "\n"


if __name__ == "__main__":
    try:
        print(notes(ROOT, sys.argv[1] if len(sys.argv) > 1 else None), end="")
    except ValueError as error:
        sys.exit(str(error))
