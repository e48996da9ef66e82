"""Load ratings from one or several sources into one tidy table, and report all problems.

Everything that is dropped or changed gives a `Problem`: rows that are not ratings, sessions stored twice,
ratings given twice, missing conditions and items.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from mushra.analysis.formats import Rows, as_text, own_rows, read_rows
from mushra.analysis.gold import count_gold, without_gold
from mushra.analysis.ratings import Problem, Ratings, natural_key, with_roles
from mushra.analysis.sources import Source, find
from mushra.analysis.tidy import (
    SCALE,
    average_repeats,
    drop_not_given,
    drop_repeats,
    missing_ratings,
    numbers,
    one_name,
    ranks,
    some,
)
from mushra.config.key import NO_KEY, Key, read_key
from mushra.config.load import load_config, named_training
from mushra.config.locate import config_beside
from mushra.config.pages import is_training
from mushra.store.failures import store_errors
from mushra.store.gold import GoldResult, gold_results
from mushra.store.ratings import StoredRating, ratings_table, stored_answers, stored_ratings
from mushra.store.store import Store
from qincodec.core.errors import UserError, count

ListenerIds = Literal["global", "per-file"]
#: webMUSHRA's names of the controls; a key may lack them.
_CONTROLS = ("reference", "anchor35", "anchor70")
#: Pattern of the opaque names of `mushra create`.
_OPAQUE = re.compile("[a-z]{8}")


@contextmanager
def in_one_line() -> Iterator[None]:
    """Raise every `UserError` with a message in one line: names from files may hold any character."""
    try:
        yield
    except UserError as error:
        text = "".join(character if character.isprintable() else " " for character in str(error))
        raise UserError(" ".join(text.split())) from error


@in_one_line()
def load(
    sources: str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str] | None = None,
    key: Path | None = None,
    key_of_test: Path | None = None,
    database: str | None = None,
    reference: str | None = None,
    anchors: Sequence[str] = (),
    systems: Sequence[str] = (),
    scale: tuple[float, float] | None = None,
    tests: Sequence[str] = (),
    drop_items: Sequence[str] = (),
    keep_training: bool = False,
    listener_ids: ListenerIds | None = None,
) -> Ratings:
    """Read the ratings of one test, as every command and the administrator's page show them.

    In our own data bases and exports only finished sessions that are not excluded count, without training. A
    score whose slider was never moved does not count (`mushra.store.given`). If a listener rated a condition
    of an item several times, in one session or in several, the mean counts.

    Args:
        sources: sources of `mushra.analysis.sources`: tests, data bases, exports, files of any format of
            `mushra.analysis.formats`. Several are read as one test.
        columns: names in CSVs of the columns ``listener``, ``item``, ``condition``, ``score`` and so on.
        key: ``key.json`` of ``mushra create``; it must have the conditions of all opaque names.
            Default: the key in the folder of each source; names that it lacks are kept.
        key_of_test: key for sources without one in their folder.
        database: file or URL with the results of those ``sources`` that are tests.
        reference: name of the hidden reference; found by its name if not given.
        anchors: names of the anchors, lowest first; found by their names if not given.
        systems: systems whose names look like controls (not needed for conditions that a key has); ``all``
            for every such name.
        scale: lowest and highest score, if not 0 and 100; scores are stretched to 0 to 100.
        tests: test ids to use; needed if the sources hold several.
        drop_items: items to leave out.
        keep_training: whether training pages count (`mushra.config.pages.is_training`); BS.1534-3 discards
            their grades. The YAML beside a file of ratings may name them.
        listener_ids: whether a listener id in two files is one listener ("global") or two ("per-file");
            needed only if the files do not decide it.

    Raises:
        UserError: a source cannot be read or holds no ratings, its names need a missing key, or an argument
            above is needed.

    Examples:
        >>> grades = {"reference": 100, "opus": 60, "anchor35": 9}
        >>> rows = [("ada", "song", condition, score) for condition, score in grades.items()]
        >>> table = pd.DataFrame(rows, columns=["listener", "item", "condition", "score"])
        >>> table.to_csv("ratings.csv", index=False)
        >>> ratings = load("ratings.csv")
        >>> ratings.reference, ratings.systems, ratings.anchors
        ('reference', ('opus',), ('anchor35',))
    """
    if isinstance(sources, str | Path):
        sources = [sources]
    if not sources:
        raise UserError("no source given; give a file with ratings")
    gathered = gather(
        [find(source, database) for source in sources],
        lambda source: (
            read_database(source, tests) if source.is_database else read_rows(Path(source.path), columns)
        ),
        key=key,
        key_of_test=key_of_test,
        tests=tests,
        drop_items=drop_items,
        keep_training=keep_training,
        listener_ids=listener_ids,
    )
    problems = gathered.problems
    frame = numbers(gathered.frame, problems, scale)
    frame = drop_repeats(frame, problems)
    frame = one_name(frame, problems)
    gold_failures = count_gold(frame)
    frame, not_given = drop_not_given(frame, problems)
    frame = average_repeats(frame, problems)
    problems += missing_ratings(frame)
    order = np.lexsort([ranks(frame[name]) for name in ("condition", "item", "listener")])
    frame = frame.iloc[order].reset_index(drop=True)
    # All conditions of a key except its controls are systems, even if a name looks like a control.
    known = gathered.known & set(frame["condition"]) - {*_CONTROLS, reference, *anchors}
    ratings = with_roles(
        frame, reference=reference, anchors=anchors, systems=[*systems, *sorted(known)], problems=problems
    )
    ratings = replace(ratings, not_given=not_given, gold_failures=gold_failures)
    return replace(ratings, sources=gathered.sources, scale=scale or SCALE)


@dataclass(frozen=True)
class Gathered:
    """Rows of all sources as text, under the names of their conditions.

    Attributes:
        known: conditions that keys name.
        sources: files that were read, and URLs of data bases.
    """

    frame: pd.DataFrame
    problems: list[Problem]
    known: frozenset[str]
    sources: tuple[str | Path, ...]


def gather(
    found: Sequence[Source],
    read: Callable[[Source], Rows],
    *,
    key: Path | None = None,
    key_of_test: Path | None = None,
    tests: Sequence[str] = (),
    drop_items: Sequence[str] = (),
    keep_training: bool = False,
    listener_ids: ListenerIds | None = None,
) -> Gathered:
    """The rows of one test from `read`, without training, with unique listeners and names of conditions.

    All arguments but ``read`` and all errors are those of `load`.
    """
    problems = [problem for source in found for problem in source.problems]
    parts: list[Rows] = []
    known = set[str]()
    for source in found:
        part = read(source)
        part = part if part.without_training else without_gold(part, source, problems)
        if key is None and (opens := source.key or key_of_test) is not None:
            part = _open_names(part, opens, problems)
            known |= read_key(opens).conditions
        parts.append(part)
    names = [source.name for source in found]
    problems += [problem for part in parts for problem in part.problems]
    if not keep_training:
        pairs = zip(parts, found, strict=True)
        parts = [p if p.without_training else _without_training(p, source, problems) for p, source in pairs]
    frame = _join(parts, names, listener_ids, problems)
    frame = _clean_names(frame, problems)
    frame = _one_test(frame, tests)
    given_key = NO_KEY if key is None else read_key(key)
    frame = _repair_plus(frame, problems, set(given_key.trials)).drop(columns="loses_plus")
    if given_key is not NO_KEY:
        frame = _open_all_names(frame, given_key)
    _check_opaque(frame)
    frame = _drop_items(frame, drop_items, problems)
    sources = tuple(source.path for source in found)
    return Gathered(frame, problems, frozenset(known | given_key.conditions), sources)


def read_database(
    source: Source,
    tests: Sequence[str],
    table: Callable[
        [Sequence[StoredRating], dict[str, dict[str, str]], Mapping[str, GoldResult]], pd.DataFrame
    ] = ratings_table,
    *,
    what: str = "MUSHRA ratings",
    extra: Sequence[str] = (),
) -> Rows:
    """The ratings of a data base of ``mushra serve``: those of ``tests``, or else of `Source.test`.

    Args:
        table: makes the table of wanted ratings from stored ratings, answers and gold items.
        what: name of these ratings in messages.
        extra: columns of that table to keep beside the usual ones.

    Raises:
        UserError: it cannot be read, or nobody has finished a session.
    """
    name = source.name
    with store_errors(name):
        with Store(source.path, create=False) as store, store.read() as connection:
            frame = table(stored_ratings(connection), stored_answers(connection), gold_results(connection))
        text = frame.map(as_text)
    if source.test is not None and not tests:
        tests = [load_config(source.test).test_id]
    if tests and not frame.empty and not frame["test"].isin(tests).any():
        raise UserError(
            f"{name} holds no ratings of test {', '.join(tests)} yet; it holds "
            f"{', '.join(sorted(map(str, frame['test'].unique())))}; name that test, or its data base with "
            "--database"
        )
    if tests:
        frame = frame[frame["test"].isin(tests)]
    if frame.empty:
        raise UserError(f"{name} holds no {what} yet; analyse it when sessions are finished")
    return own_rows(name, text.loc[frame.index], extra)


def _open_names(part: Rows, path: Path, problems: list[Problem]) -> Rows:
    """Rows with conditions in place of the opaque names that the key has."""
    key = read_key(path)
    if "loses_plus" in part.frame:
        part = replace(part, frame=_repair_plus(part.frame, problems, set(key.trials)))
    strange = sorted({name for _, name in _unknown(part.frame, key)})
    if strange:
        detail = (
            f"{count(len(strange), 'name')} of signals not in {path} stay as they are (first: {strange[0]})"
        )
        problems.append(Problem("not in key", detail, int(part.frame["condition"].isin(strange).sum())))
    return replace(part, frame=_opened(part.frame, key))


def _unknown(frame: pd.DataFrame, key: Key) -> list[tuple[str, str]]:
    """Pairs (item, name) that the key lacks. Names of conditions are not among them: exports with --key have
    those."""
    known = {*_CONTROLS, *key.conditions}
    pairs = set(zip(frame["item"], frame["condition"], strict=True))
    return sorted(pair for pair in pairs if not key.knows(*pair) and pair[1] not in known)


def _opened(frame: pd.DataFrame, key: Key) -> pd.DataFrame:
    opened = {
        column: [key.condition(*pair) for pair in zip(frame["item"], frame[column], strict=True)]
        for column in ("condition", "reference", "answer")
        if column in frame
    }
    return frame.assign(**opened)


def _check_opaque(frame: pd.DataFrame) -> None:
    """Raise `UserError` if conditions have the opaque names of `mushra create` instead of their own."""
    places = frame.groupby("condition")["item"].nunique()
    places = places[[name not in _CONTROLS for name in places.index]]
    opaque = [name for name in places.index if _OPAQUE.fullmatch(name)]
    if len(opaque) == len(places) > 1 and frame["item"].nunique() > 1 and places.max() == 1:
        raise UserError(
            f"the ratings have only opaque names such as '{opaque[0]}', and their folder has no key.json; "
            "put that of the test there, or give it with --key"
        )


def _without_training(part: Rows, source: Source, problems: list[Problem]) -> Rows:
    config = config_beside(Path(source.test or source.path))
    tests = part.frame["test"] if "test" in part.frame else pd.Series("", part.frame.index)
    named = {test: named_training(config, test or None) if config else None for test in tests.unique()}
    pages = zip(part.frame["item"].fillna(""), tests, strict=True)
    training = pd.Series([is_training(item, named[test]) for item, test in pages], part.frame.index)
    if not training.any():
        return part
    if training.all():
        raise UserError("all items are training pages; give --keep-training if they are the test")
    names = ", ".join(sorted(set(part.frame.loc[training, "item"]), key=natural_key))
    detail = f"{count(int(training.sum()), 'rating')} of training pages left out ({names}); --keep-training"
    detail += " keeps them"
    problems.append(Problem("training", detail, int(training.sum())))
    return replace(part, frame=part.frame[~training])


def _join(
    parts: list[Rows], names: list[str], listener_ids: ListenerIds | None, problems: list[Problem]
) -> pd.DataFrame:
    """One table of all sources; an id of several people gets a prefix per file."""
    frames = []
    for number, part in enumerate(parts):
        frame = part.frame.copy()
        if "session" not in frame:
            frame["session"] = frame["listener"]
        frame["source"] = number
        frame["unique"] = part.unique_listeners
        if "loses_plus" not in frame:
            frame["loses_plus"] = False
        frames.append(frame)
    frame = pd.concat(frames, ignore_index=True)
    if len(parts) == 1:
        return frame
    identical = frame.duplicated(
        [c for c in frame if c not in ("source", "unique", "loses_plus")], keep="first"
    )
    whole = [n for n in range(len(parts)) if identical[frame["source"] == n].all()]
    problems += [
        Problem(
            "same file twice",
            f"{names[number]} repeats earlier files; left out",
            int((frame["source"] == number).sum()),
        )
        for number in whole
    ]
    frame = frame[~frame["source"].isin(whole)]
    shared = frame[~frame["unique"]].groupby("listener")["source"].nunique()
    ambiguous = sorted(shared[shared > 1].index, key=natural_key)
    if ambiguous and listener_ids is None:
        raise UserError(
            f"listener '{ambiguous[0]}' is in several files: give --listener-ids global if this is one "
            "person, or --listener-ids per-file if each file counts its own people"
        )
    if ambiguous and listener_ids == "per-file":
        separate = ~frame["unique"] & frame["listener"].isin(ambiguous)
        prefix = frame.loc[separate, "source"].map(lambda n: _file_label(names, n))
        for column in ("listener", "session"):
            frame.loc[separate, column] = prefix + ":" + frame.loc[separate, column]
    return frame


def _file_label(names: list[str], number: int) -> str:
    return names[number] if names.count(names[number]) == 1 else f"{number + 1}:{names[number]}"


def _clean_names(frame: pd.DataFrame, problems: list[Problem]) -> pd.DataFrame:
    """Strip blanks around names, except generated ids; leave out rows without a name."""
    frame = frame.copy()
    as_made = frame.pop("unique").astype(bool)
    named = [c for c in ("listener", "item", "condition") if c in frame]
    for column in named:
        text = frame[column].fillna("").astype(str)
        stripped = text.str.strip()
        if column == "listener":
            stripped = stripped.mask(as_made, text)
        changed = int((text != stripped).sum())
        if changed:
            problems.append(
                Problem(
                    "blanks in names", f"{changed} names of column {column} had blanks around them", changed
                )
            )
        frame[column] = stripped
    empty = (frame[named] == "").any(axis=1)
    if empty.any():
        columns = ", ".join(c for c in named if (frame[c] == "").any())
        problems.append(
            Problem(
                "no name", f"{count(int(empty.sum()), 'row')} without {columns} left out", int(empty.sum())
            )
        )
    return some(frame[~empty])


def _one_test(frame: pd.DataFrame, tests: Sequence[str]) -> pd.DataFrame:
    found = sorted(frame["test"].fillna("").unique(), key=natural_key) if "test" in frame else [""]
    for name in tests:
        if name not in found:
            there = ", ".join(test for test in found if test) or "no test id: leave --test out"
            raise UserError(f"test '{name}' is not in the sources; they hold {there}")
    if not tests and len(found) > 1:
        raise UserError(
            f"the sources hold several tests ({', '.join(found)}); choose with --test, repeated to pool them"
        )
    return frame[frame["test"].isin(tests)] if tests else frame


def _repair_plus(frame: pd.DataFrame, problems: list[Problem], key_items: set[str]) -> pd.DataFrame:
    """Restore the ``+`` that webMUSHRA's transport turned into a space, in rows from its CSV.

    A name with spaces is repaired if the same name with ``+`` is in other rows or in the key, unless somebody
    rated both: then they are two conditions.
    """
    frame = frame.copy()
    spaced = frame["loses_plus"].astype(bool)
    for column, together in (("item", ["session"]), ("condition", ["session", "item"])):
        kept: dict[str, list[str]] = {}
        for name in set(frame[column]) | (key_items if column == "item" else set()):
            if "+" in name:
                kept.setdefault(name.replace("+", " "), []).append(name)
        where = {name: set(map(tuple, rows.to_numpy())) for name, rows in frame.groupby(column)[together]}
        repair = {
            lost: names[0]
            for lost, names in kept.items()
            if len(names) == 1 and not where.get(lost, set()) & where.get(names[0], set())
        }
        lost = spaced & frame[column].isin(repair)
        for name, rows in frame.loc[lost, column].value_counts().sort_index().items():
            detail = f"{column} '{name}' is taken for '{repair[str(name)]}': its + had become a space"
            problems.append(Problem("lost plus", detail, int(rows)))
        frame.loc[lost, column] = frame.loc[lost, column].map(repair)
    return frame


def _open_all_names(frame: pd.DataFrame, key: Key) -> pd.DataFrame:
    """Frame with conditions in place of opaque names; the key must have all of them."""
    items = sorted(set(frame["item"]) - set(key.trials), key=natural_key)
    if items:
        raise UserError(f"item '{items[0]}' is not in the key; give the key.json of this test")
    for item, name in _unknown(frame, key):
        raise UserError(f"stimulus '{name}' of item '{item}' is not in the key; give the key of this test")
    return _opened(frame, key)


def _drop_items(frame: pd.DataFrame, items: Sequence[str], problems: list[Problem]) -> pd.DataFrame:
    for item in items:
        rows = int((frame["item"] == item).sum())
        if not rows:
            raise UserError(
                f"item '{item}' cannot be dropped, because it is not in the ratings; the items are "
                f"{', '.join(sorted(set(frame['item']), key=natural_key))}"
            )
        problems.append(Problem("dropped item", f"item '{item}' was left out by --drop-item", rows))
    return some(frame[~frame["item"].isin(items)])
