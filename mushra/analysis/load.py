"""Load ratings from one or several sources into one tidy table, and report all that was wrong.

Nothing is dropped without a `Problem` that says so: rows that are no rating, sessions stored twice, ratings
given twice, conditions and items that are missing.
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
from mushra.store.failures import told
from mushra.store.gold import GoldResult, gold_results
from mushra.store.ratings import StoredRating, ratings_table, stored_answers, stored_ratings
from mushra.store.store import Store
from qincodec.core.errors import UserError, count

ListenerIds = Literal["global", "per-file"]
#: webMUSHRA's names of the controls, which a key need not have.
_CONTROLS = ("reference", "anchor35", "anchor70")
#: A name that `mushra create` made so that it tells nothing.
_OPAQUE = re.compile("[a-z]{8}")


@contextmanager
def in_one_line() -> Iterator[None]:
    """Messages in one line: the names in them come from files and may hold anything."""
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
    """Read the ratings of one test: what every command and the administrator's page show.

    Of our own data base and exports count finished sessions that are not excluded, without training. A
    score whose slider was never moved is no grade (`mushra.store.given`). Of someone who rated a condition
    of an item several times, in one session or in several, the mean counts.

    Args:
        sources: what `mushra.analysis.sources` knows: tests, data bases, exports, files of any format of
            `mushra.analysis.formats`. One, or several that are read as one test.
        columns: which column of a CSV is ``listener``, ``item``, ``condition``, ``score``, ``time_ms`` ...
        key: ``key.json`` of ``mushra create``, which must know all names: what each opaque one stands for. By
            default that in the folder of each source; names it does not know stay as they are.
        key_of_test: for sources without a key in their folder.
        database: file or URL with the results of those ``sources`` that are tests.
        reference: name of the hidden reference; found by its name if not given.
        anchors: names of the anchors, lowest first; found by their names if not given.
        systems: conditions that are no controls though their names look so (of those that a key knows none
            needs to be named); ``all`` for every such.
        scale: lowest and highest score, where they are not 0 and 100; scores are taken to 0 to 100.
        tests: test ids to use; needed where the sources hold several.
        drop_items: items to leave out.
        keep_training: whether training pages count (`mushra.config.pages.is_training`; a file of ratings may
            lie in the folder of its test), whose grades BS.1534-3 throws away.
        listener_ids: whether a listener id in two files is one listener ("global") or two ("per-file");
            needed only where the files leave it open.

    Raises:
        UserError: a source cannot be read or holds no ratings, its names need a key that is not there, or
            something above is left open.
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
    # What a key names beside its controls are systems, whatever they are called.
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
    """The rows of one test as `read` has them, without training, listeners told apart, names opened.

    All but ``read`` is as in `load`, which raises the same errors.
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
    """The ratings of a data base of ``mushra serve``; of one that holds several tests those of `Source.test`,
    unless ``tests`` says which.

    Args:
        table: of the stored ratings, the answers and the gold items of each session those that are wanted.
        what: these are.
        extra: columns of that table to keep beside the usual ones.

    Raises:
        UserError: it cannot be read, or nobody has finished a session.
    """
    name = source.name
    with told(name):
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
    """Conditions in place of the meaningless names that the key knows."""
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
    """(item, condition) that the key does not know and that are no condition's name: an export with --key has
    those already."""
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
    """That conditions have names, not the letters `mushra create` gave each signal of each item."""
    places = frame.groupby("condition")["item"].nunique()
    places = places[[name not in _CONTROLS for name in places.index]]
    opaque = [name for name in places.index if _OPAQUE.fullmatch(name)]
    if len(opaque) == len(places) > 1 and frame["item"].nunique() > 1 and places.max() == 1:
        raise UserError(
            f"the ratings have only names such as '{opaque[0]}', which tell nothing, and no key.json is in "
            "their folder; put that of the test there, or give it with --key"
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
    """One table of all sources, ids that stand for several people told apart."""
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
    # Not `concat(..., ignore_index)` alone: a column that only some files have is empty in the others.
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
            f"listener '{ambiguous[0]}' is in several files: give --listener-ids global if that is one "
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
    """Strip blanks around names, but not ids that a program made; leave out rows without a name."""
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
            raise UserError(f"there is no test '{name}'; the sources hold {', '.join(found)}")
    if not tests and len(found) > 1:
        raise UserError(
            f"the sources hold several tests ({', '.join(found)}); choose with --test, repeated to pool them"
        )
    return frame[frame["test"].isin(tests)] if tests else frame


def _repair_plus(frame: pd.DataFrame, problems: list[Problem], key_items: set[str]) -> pd.DataFrame:
    """Put back the ``+`` that webMUSHRA's transport turned into a space, in rows that came from its CSV.

    A name with spaces is repaired where the same name with ``+`` is known from other rows or from the key,
    unless somebody rated both: then they are two.
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
    """Conditions in place of meaningless names, all of which the key must know."""
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
                f"there is no item '{item}' to drop; the items are "
                f"{', '.join(sorted(set(frame['item']), key=natural_key))}"
            )
        problems.append(Problem("dropped item", f"item '{item}' was left out as asked", rows))
    return some(frame[~frame["item"].isin(items)])
