"""Copy of a test with its results, made while the test is served."""

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
    """Write the folder ``out`` completely or not at all.

    The data base is copied at one moment. A test's other files do not change while it is served.

    Args:
        store: the test's data base.
        test: folder or YAML file; None: copy only the data base and the key.
        key: the test's key.json, if it has one.
        out: gets the files of the test's folder, with the data base where `mushra serve` looks for it.

    Returns:
        Files that the test names but that do not exist, or are outside its folder behind a link.

    Raises:
        UserError: ``out`` exists already or cannot be written, the test cannot be read, or the data base
            belongs to another test.
    """
    if out.exists():
        raise UserError(f"'{out}' exists already; give the backup another name")
    wanted: dict[Path, Path] = {}  # place in the backup -> file
    missing: list[Path] = []
    place = Path(CONFIG_NAME)
    if test is not None:
        config = load_config(test)
        with store.read() as connection:
            held = connection.execute(sa.select(schema.tests.c.test)).scalars().all()
        if held and config.test_id not in held:
            raise UserError(
                f"'{store.name}' has no sessions of test {config.test_id}, only of {', '.join(sorted(held))};"
                " name that test, or its data base with --database"
            )
        beside = config.path.parent.resolve() == config.root  # otherwise in its folder "configs"
        place = Path(config.path.name) if beside else Path("configs") / config.path.name
        wanted[place] = config.path
        for path in files(config):
            # Files outside the test behind a link are not served either.
            if path.is_file() and path.resolve().is_relative_to(config.root):
                # The test's YAML looks for it there.
                wanted[(path.resolve() if ".." in path.parts else path).relative_to(config.root)] = path
            else:
                missing.append(path)
    if key is not None:
        if not key.is_file():
            raise UserError(
                f"'{key}' is not a file; replace it by the key that was made with the test, or remove it"
            )
        wanted[place.with_name(key.name)] = key
    # `qincodec.core.files` replaces files, not folders: write it beside its place and rename it.
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
