"""Sources of ratings that a person may name, and the file or data base behind each.

A source is a test (its folder or its YAML), a data base of ``mushra serve``, a folder that ``mushra export``
or webMUSHRA wrote, or a file. If its names are opaque, ``key.json`` in the same folder has their conditions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mushra.analysis.ratings import Problem
from mushra.config.locate import CONFIG_NAME, YAML_SUFFIXES, database_of, key_beside
from qincodec.core.errors import UserError
from qincodec.core.folders import kind_of

_SQLITE_MAGIC = b"SQLite format 3\0"
#: Files of ratings in a folder, the most complete first.
_EXPORTS = ("results.json", "ratings.csv", "mushra.csv")
_GIVE = "give a test's folder, a data base of `mushra serve`, an export, or a file with ratings"


@dataclass(frozen=True)
class Source:
    """A source of ratings.

    Attributes:
        path: path of a file, or URL of a data base.
        is_database: whether it is a data base of ``mushra serve``, and not a file with ratings.
        key: ``key.json`` in the same folder; None if there is none.
        test: folder or YAML of the test, if that was named.
        problems: notes on the choice.
    """

    path: str | Path
    is_database: bool = False
    key: Path | None = None
    test: Path | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file or the data base without folders, user and password."""
        return database_name(self.path)


def database_name(source: str | Path) -> str:
    """Name of a file or a data base without folders, user and password."""
    if isinstance(source, Path) or source.startswith("sqlite:"):
        return source.name if isinstance(source, Path) else source
    # As SQLAlchemy reads an address: a password may hold a slash, and so may what follows a question mark.
    return re.sub(r"^(\w[\w+.-]*://)(?:[^:/@]*(?::[^@]*)?@)?([^?]*).*$", r"\1\2", source, flags=re.DOTALL)


def find(source: str | Path, database: str | None = None) -> Source:
    """The source that a path or a URL names.

    Args:
        source: a path, or the URL of a data base.
        database: file or URL with a test's results, if not beside it.

    Raises:
        UserError: it does not exist, or the choice is ambiguous.
    """
    path = Path(str(source).removeprefix("sqlite:///"))
    if "://" in str(source) and not path.is_file():
        return Source(str(source), True)
    if path.is_dir():
        return _in_folder(path, database)
    if not path.is_file():
        raise UserError(f"{path} {'is not a file' if path.exists() else 'does not exist'}; {_GIVE}")
    if path.suffix in YAML_SUFFIXES:
        return _of_test(path, database)
    return Source(path, _is_sqlite(path), key_beside(path))


def find_database(given: str | Path, database: str | None = None) -> Source:
    """The data base of a test, or the given data base, for commands that need more than a file of ratings.

    Raises:
        UserError: it does not exist.
    """
    if (Path(given) / CONFIG_NAME).is_file():
        return _of_test(Path(given), database)
    source = find(given, database)
    if not source.is_database:
        raise UserError(
            f"{given} is neither a test nor a data base; give a test's folder or YAML, or a data base of "
            "`mushra serve`"
        )
    return source


def _of_test(test: Path, database: str | None) -> Source:
    target: str | Path = database_of(test)
    if database is not None:
        target = database if "://" in database else Path(database)
    if isinstance(target, Path) and not target.is_file():
        raise UserError(
            f"{test} has no results yet: {target} does not exist; run `mushra serve {test}` first, or name "
            "the data base with --database"
        )
    return Source(target, True, key_beside(test), test)


def _in_folder(folder: Path, database: str | None) -> Source:
    is_test = (folder / CONFIG_NAME).is_file()
    if is_test and (database is not None or database_of(folder).is_file()):
        return _of_test(folder, database)
    if database_of(folder).is_file():  # a backup of a data base alone, or a checkout's results
        return Source(database_of(folder), True, key_beside(folder))
    found = [folder / name for name in _EXPORTS if (folder / name).is_file()]
    # webMUSHRA and `mushra export` write a folder for each test.
    deeper = sorted(folder.glob("*/mushra.csv"))
    if not found and len(deeper) > 1:
        names = ", ".join(path.parent.name for path in deeper)
        raise UserError(f"{folder} holds the results of several tests ({names}); give one of these folders")
    found += deeper
    if not found and is_test:
        return _of_test(folder, database)
    if not found and (kind := kind_of(folder)):
        raise UserError(f"{folder} holds no listeners' ratings: it is {kind}; {_GIVE}")
    if not found:
        raise UserError(
            f"{folder} holds no ratings: neither {database_of(folder).name} nor {', '.join(_EXPORTS)}; "
            f"{_GIVE}"
        )
    problems = []
    if len(found) > 1:
        others = ", ".join(str(path.relative_to(folder)) for path in found[1:])
        detail = (
            f"{folder} holds several exports; {found[0].name} is read, the most complete one, not {others}"
        )
        problems.append(Problem("several exports", detail, 0))
    return Source(found[0], False, key_beside(folder), folder if is_test else None, tuple(problems))


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
