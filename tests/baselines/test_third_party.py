"""The codec of the tutorial as a package of somebody else's, found by its entry point alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_package_adds_its_codec(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tutorials" / "own-codec.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(python|toml)\n(.*?)```", page, flags=re.DOTALL)
    code = next(text for kind, text in blocks if kind == "python" and "class MuLaw" in text)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    table = next(text for kind, text in blocks if kind == "toml" and "mulaw" in text)
    # What pip would leave behind for such a pyproject.toml.
    installed = tmp_path / "site" / "my_package-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    group = re.search(r'entry-points\."(.*)"\]\n(\w+) = "(.*)"', table)
    assert group is not None
    (installed / "entry_points.txt").write_text(f"[{group[1]}]\n{group[2]} = {group[3]}\n")
    (tmp_path / "site" / "my_package.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    program = (
        "from baselines import check_codec\n"
        "from baselines.registry import CODECS, unavailable\n"
        "assert unavailable('mulaw') is None\n"
        "codec = CODECS.load('mulaw')()\n"
        "print(type(codec).__module__, len(check_codec(codec)), 'mulaw' in CODECS.names())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == "my_package 2 True\n", done.stderr
