"""A copy of a test with its results, made while the test is served."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import sqlalchemy as sa

from mushra.config.load import load_config
from mushra.config.locate import CONFIG_NAME, database_of
from mushra.server.files import files
from mushra.store import schema
from mushra.store.store import Store
from qincodec.core.errors import UserError


def make_backup(store: Store, test: Path | None, key: Path | None, out: Path) -> list[Path]:
    """Make the folder ``out``, whole or not at all.

    The data base is copied as it is at one moment. A test's other files do not change while it is served.

    Args:
        store: the test's data base.
        test: folder or YAML file; None: the data base and the key only.
        key: its key.json, if it has one.
        out: has the files of the test's folder afterwards, the data base where `mushra serve` looks for it.

    Returns:
        Files that the test names and that are not there, or outside its folder, where a link leads to.

    Raises:
        UserError: ``out`` is there already or cannot be written, the test cannot be read, or the data base is
            another's.
    """
    if out.exists():
        raise UserError(f"'{out}' is there already; give the backup another name")
    wanted: dict[Path, Path] = {}  # place in the backup -> file
    missing: list[Path] = []
    place = Path(CONFIG_NAME)
    if test is not None:
        config = load_config(test)
        with store.read() as connection:
            held = connection.execute(sa.select(schema.tests.c.test)).scalars().all()
        if held and config.test_id not in held:
            raise UserError(
                f"'{store.name}' holds nothing of test {config.test_id}; it holds {', '.join(sorted(held))};"
                " name that test, or its data base with --database"
            )
        beside = config.path.parent.resolve() == config.root  # else in a folder "configs" of it
        place = Path(config.path.name) if beside else Path("configs") / config.path.name
        wanted[place] = config.path
        for path in files(config):
            # What a link leads out of the test to is not served either.
            if path.is_file() and path.resolve().is_relative_to(config.root):
                # Where the test's YAML looks for it.
                wanted[(path.resolve() if ".." in path.parts else path).relative_to(config.root)] = path
            else:
                missing.append(path)
    if key is not None:
        if not key.is_file():
            raise UserError(
                f"'{key}' is no file; put the key that was made with the test there, or remove it"
            )
        wanted[place.with_name(key.name)] = key
    # A folder, so not `qincodec.core.files`: made beside its place and renamed.
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as name:
            made = Path(name) / "backup"
            (made / place).parent.mkdir(parents=True)
            store.backup(database_of(made / place))
            for to, path in wanted.items():
                (made / to).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, made / to)
            made.rename(out)
    except OSError as error:
        raise UserError(f"cannot write '{out}': {error.strerror or error}; give another folder") from error
    return missing
