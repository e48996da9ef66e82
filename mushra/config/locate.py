"""Where a test keeps its YAML, its results and its key: said once, for every command that looks for them."""

from __future__ import annotations

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


def key_beside(path: Path) -> Path | None:
    """``key.json`` in a folder, or in the folder of a file; None if there is none.

    Of a folder ``configs`` also in the one above, where the audio paths of its tests begin.
    """
    folder = path if path.is_dir() else path.parent
    keys = [folder / KEY_NAME]
    if folder.resolve().name == "configs":
        keys.append(folder.parent / KEY_NAME)
    return next((key for key in keys if key.is_file()), None)
