"""Where a test keeps its YAML, its results and its key: said once, for every command that looks for them."""

from __future__ import annotations

import os
from pathlib import Path

#: Name of the YAML file in a test's folder.
CONFIG_NAME = "config.yaml"
#: Name of the file that says what the opaque names of a test stand for. Never served.
KEY_NAME = "key.json"
KEY_FORMAT = 1
#: What a test is called by: its folder, or a YAML file.
YAML_SUFFIXES = (".yaml", ".yml")


def database_of(test: Path) -> Path:
    """The data base of a test unless another was chosen: beside its YAML, also where its folder is named.

    A folder's own YAML has ``results.sqlite``; any other, of which a folder may hold several, its own name.
    """
    if test.is_dir():
        return test / "results.sqlite"
    return test.with_name("results.sqlite") if test.name == CONFIG_NAME else test.with_suffix(".sqlite")


def config_beside(path: Path) -> Path | None:
    """The YAML beside a data base or a file with ratings, or in a folder; None if there is none."""
    folder = path if path.is_dir() else path.parent
    own = [path.with_suffix(suffix) for suffix in YAML_SUFFIXES] if path.suffix == ".sqlite" else []
    return next((file for file in (*own, folder / CONFIG_NAME) if file.is_file()), None)


def key_beside(path: Path) -> Path | None:
    """``key.json`` in a folder, or in the folder of a file; None if there is none.

    Of a folder ``configs`` also in the one above, where the audio paths of its tests begin.
    """
    folder = path if path.is_dir() else path.parent
    keys = [folder / KEY_NAME]
    if folder.resolve().name == "configs":
        keys.append(folder.parent / KEY_NAME)
    # A folder of that name, or a link to nothing, is no key, and `read_key` says so.
    return next((key for key in keys if os.path.lexists(key)), None)
