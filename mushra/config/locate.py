"""Locations of a test's YAML, results and key, for all commands."""

from __future__ import annotations

import os
from pathlib import Path

#: Name of the YAML file in a test's folder.
CONFIG_NAME = "config.yaml"
#: Name of the file that maps the opaque names of a test to conditions. Never served.
KEY_NAME = "key.json"
KEY_FORMAT = 1
#: Suffixes of a YAML file that names a test.
YAML_SUFFIXES = (".yaml", ".yml")


def database_of(test: Path) -> Path:
    """Default data base of a test, given by its folder or its YAML: a file beside the YAML.

    It is ``results.sqlite`` for ``config.yaml``, and ``NAME.sqlite`` for any other ``NAME.yaml``.
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

    For a folder ``configs`` the folder above is tried, too: audio paths of its tests are relative to it.
    """
    folder = path if path.is_dir() else path.parent
    keys = [folder / KEY_NAME]
    if folder.resolve().name == "configs":
        keys.append(folder.parent / KEY_NAME)
    # `read_key` reports a folder of that name, or a link to nothing.
    return next((key for key in keys if os.path.lexists(key)), None)
