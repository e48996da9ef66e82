"""A copy of a test with its results, made while the test is served."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mushra.config import load_config
from mushra.server.stimuli import files
from mushra.server.store import Store
from qincodec.errors import UserError


def make_backup(store: Store, test: Path | None, key: Path | None, out: Path) -> list[Path]:
    """Make the folder ``out``, whole or not at all.

    The data base is copied as it is at one moment. A test's other files do not change while it is served.

    Args:
        store: the test's data base.
        test: folder or YAML file; None: the data base and the key only.
        key: its key.json, if it has one.
        out: has the files of the test's folder afterwards, the data base where `mushra serve` looks for it.

    Returns:
        Files that the test names and that are not there.

    Raises:
        UserError: ``out`` is there already or cannot be written, or the test cannot be read.
    """
    if out.exists():
        raise UserError(f"'{out}' is there already; give the backup another name")
    config = load_config(test) if test is not None else None
    database, wanted, root = Path("results.sqlite"), [] if key is None else [key], key.parent if key else None
    missing: list[Path] = []
    if config is not None:
        root = config.root
        if test is not None and not test.is_dir():
            database = config.path.resolve().relative_to(root).with_suffix(".sqlite")
        named = files(config)
        missing = [path for path in named if not path.is_file()]
        wanted += [config.path, *(path for path in named if path.is_file())]
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as name:
            made = Path(name) / "backup"
            (made / database).parent.mkdir(parents=True)
            store.backup(made / database)
            for path in wanted:
                assert root is not None
                copy = made / (path.parent.resolve() / path.name).relative_to(root.resolve())
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
            made.rename(out)
    except OSError as error:
        raise UserError(f"cannot write '{out}': {error.strerror or error}; give another folder") from error
    return missing
