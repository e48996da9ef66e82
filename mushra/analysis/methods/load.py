"""Read the answers of pages other than MUSHRA, from the sources of `mushra.load` and in the same steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from mushra.analysis.formats import Rows, as_text, own_rows, parse_json
from mushra.analysis.gold import count_gold
from mushra.analysis.load import ListenerIds, gather, in_one_line, read_database
from mushra.analysis.methods.judgements import COLUMNS, METHODS, TYPES, Judgements
from mushra.analysis.ratings import Problem
from mushra.analysis.sources import Source, find
from mushra.analysis.tidy import drop_repeats, one_name
from mushra.config.load import load_config
from mushra.store import schema
from mushra.store.failures import store_errors
from mushra.store.gold import GoldResult, gold_results
from mushra.store.pages import Rating
from mushra.store.ratings import StoredRating
from mushra.store.store import Store
from mushra.store.webmushra_csv import read_sessions
from qincodec.core.errors import UserError, count

#: webMUSHRA's files of these pages.
_FILES = ("bs1116.csv", "paired_comparison.csv", "lss.csv", "lms.csv")
#: Column that only one kind of these files has -> method.
_MARKS = {"rating_reference_score": "bs1116", "choice_reference": "paired_comparison", "stimuli": "acr"}
_EXTRA = ("type", "reference", "reference_score", "answer", "place")
#: Name of these answers in messages.
WHAT = "answers of BS.1116, AB, ABX, paired comparison, ACR or DCR pages"
#: Lowest and highest score of a method.
_SCALES = {"bs1116": (1.0, 5.0), "acr": (1.0, 5.0), "dcr": (1.0, 5.0), "abx": (0.0, 1.0)}


@in_one_line()
def page_types(source: str | Path, database: str | None = None, tests: Sequence[str] = ()) -> set[str]:
    """Types of pages with answers that count in a source, or of all pages if none counts yet.

    The answers themselves are not read. {"mushra"} if a file does not have types.

    Raises:
        UserError: the source does not exist.
    """
    return set().union(*(_types(one, tests) for one in _find(source, database)))


def _types(source: Source, tests: Sequence[str]) -> set[str]:
    if source.is_database:
        return _types_in_database(source, tests)
    path = Path(source.path)
    try:
        with path.open("rb") as file:
            head = file.readline(2**16).decode(errors="replace").lstrip("\ufeff")
    except OSError:
        return {"mushra"}  # the reader of ratings reports the error
    if head.lstrip()[:1] in ("{", "["):
        pages = [(one, page) for one in _sessions(path) for page in one["pages"] if page["ratings"]]
        counted = [
            page["type"]
            for one, page in pages
            if one["state"] == "finished"
            and not one["excluded"]
            and not page["training"] | page.get("gold", False)
        ]
        return set(counted) or {page["type"] for _, page in pages} or {"mushra"}
    if "rating_stimulus" in head:
        return {"mushra"}
    columns = head.replace('"', "").strip().split(",")
    return {kind for mark, kind in _MARKS.items() if mark in columns} or {"mushra"}


def _types_in_database(source: Source, tests: Sequence[str]) -> set[str]:
    ratings, pages, sessions = schema.ratings, schema.pages, schema.sessions
    query = (
        sa.select(ratings.c.type)
        .join(pages, (pages.c.session == ratings.c.session) & (pages.c.page == ratings.c.page))
        .join(sessions, sessions.c.id == ratings.c.session)
        .distinct()
    )
    if source.test is not None and not tests:
        tests = [load_config(source.test).test_id]
    if tests:
        query = query.where(sessions.c.test.in_(tests))
    counted = query.where((sessions.c.state == "finished") & sessions.c.excluded_at.is_(None))
    with store_errors(source.name), Store(source.path, create=False) as store, store.read() as connection:
        gold = {page for result in gold_results(connection).values() for page in result.pages}
        counted = counted.where(pages.c.training.is_(False) & pages.c.trial.not_in(sorted(gold)))
        found = connection.execute(counted).scalars().all()
        return set(found or connection.execute(query).scalars().all()) or {"mushra"}


def _find(source: str | Path, database: str | None) -> list[Source]:
    """`find`, but of a folder with webMUSHRA's files all of these."""
    folder = Path(str(source))
    if folder.is_dir() and database is None:
        inside = [path for name in _FILES for path in (folder / name, *sorted(folder.glob(f"*/{name}")))]
        if files := [path for path in inside if path.is_file()]:
            try:
                whole = find(source, database)
            except UserError:
                return [find(path) for path in files]
            csv = not whole.is_database and Path(whole.path).suffix == ".csv"
            return [whole, *(find(path) for path in files)] if csv else [whole]
    return [find(source, database)]


@in_one_line()
def load(
    sources: str | Path | Sequence[str | Path],
    *,
    key: Path | None = None,
    key_of_test: Path | None = None,
    database: str | None = None,
    tests: Sequence[str] = (),
    drop_items: Sequence[str] = (),
    keep_training: bool = False,
    listener_ids: ListenerIds | None = None,
) -> Judgements:
    """Read the answers of one test; arguments and what counts are those of `mushra.load`.

    Sources may be data bases, tests, exports as JSON, and webMUSHRA's ``bs1116.csv``,
    ``paired_comparison.csv``, ``lss.csv`` and ``lms.csv``.

    Raises:
        UserError: as by `mushra.load`.
    """
    if isinstance(sources, str | Path):
        sources = [sources]
    found = [one for source in sources for one in _find(source, database) if _types(one, tests) - {"mushra"}]
    if not found:
        raise UserError(
            f"the sources hold no {WHAT}; give a test's folder, a data base of `mushra serve`, results.json "
            "of `mushra export`, or webMUSHRA's CSV of such pages"
        )
    headphones: dict[str, bool] = {}
    gathered = gather(
        found,
        lambda source: _read(source, tests, headphones),
        key=key,
        key_of_test=key_of_test,
        tests=tests,
        drop_items=drop_items,
        keep_training=keep_training,
        listener_ids=listener_ids,
    )
    problems = gathered.problems
    frame = gathered.frame.assign(time_ms=pd.to_numeric(gathered.frame["time_ms"], errors="coerce"))
    frame = one_name(drop_repeats(frame, problems), problems)
    frame = _checked(frame.assign(method=frame["type"].replace(TYPES)), problems)
    frame = frame.sort_values(list(COLUMNS), kind="stable").reset_index(drop=True)
    present = {name: passed for name, passed in headphones.items() if name in set(frame["listener"])}
    failures = count_gold(gathered.frame) if "gold_failures" in gathered.frame else None
    return Judgements(frame[list(COLUMNS)], tuple(problems), gathered.sources, present, failures)


def _read(source: Source, tests: Sequence[str], headphones: dict[str, bool]) -> Rows:
    if source.is_database:
        with store_errors(source.name), Store(source.path, create=False) as store, store.read() as connection:
            _read_headphones(connection, headphones)
        return read_database(source, tests, _table, what=WHAT, extra=_EXTRA)
    path = Path(source.path)
    if path.suffix == ".csv":
        return _read_csv(path)
    records = []
    sessions = _sessions(path)
    who = _listeners(sessions)
    for session in sessions:
        for position, page in enumerate(session["pages"]):
            if "headphone_check" in page["result"]:
                headphones[who[session["session"]]] = bool(page["result"]["headphone_check"]["passed"])
            for place, rating in enumerate(page["ratings"]):
                if page["type"] == "mushra":
                    continue
                records.append(
                    {
                        **_judged(Rating(**rating), page["type"], page["trial"], f"{position}/{place}"),
                        "listener": who[session["session"]],
                        "order": position + 1,
                        "training": page["training"],
                        "gold": page.get("gold", False),
                        **(
                            {"gold_failures": len(session["gold_failed"])} if "gold_failed" in session else {}
                        ),
                        **{name: session[name] for name in ("session", "test", "state", "excluded")},
                        **{f"answer:{asked['name']}": asked["value"] for asked in session["answers"]},
                    }
                )
    if not records:
        raise UserError(f"{path} holds no {WHAT}; give the export of such a test")
    return own_rows(path.name, pd.DataFrame(records).map(as_text), _EXTRA)


def _sessions(path: Path) -> list[dict[str, Any]]:
    """Sessions of an export as JSON; [] for another JSON file."""
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return []  # the reader of MUSHRA ratings reports the error
    sessions = content.get("sessions") if isinstance(content, dict) else None
    return sessions if isinstance(sessions, list) else []


def _listeners(sessions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Session -> listener, as in `schema.listeners`."""
    first: dict[tuple[str, str], str] = {}
    found = {}
    for one in sessions:
        own, person = one.get("uuid") or one["session"], one.get("person")
        found[one["session"]] = first.setdefault((one["test"], person), own) if person else own
    return found


def _read_headphones(connection: sa.Connection, headphones: dict[str, bool]) -> None:
    pages = schema.pages
    who = schema.listeners(connection)
    query = sa.select(pages.c.session, pages.c.result).where(pages.c.result.like("%headphone_check%"))
    for row in connection.execute(query):
        check = json.loads(row.result, parse_constant=str).get("headphone_check")
        if check:
            headphones[who[row.session]] = bool(check["passed"])


def _table(
    rows: Sequence[StoredRating], answers: dict[str, dict[str, str]], gold: Mapping[str, GoldResult]
) -> pd.DataFrame:
    """Stored answers of pages other than MUSHRA."""
    records = [
        {
            **_judged(row, row.type, row.trial, f"{row.page}/{row.position}"),
            "listener": row.listener,
            "order": row.page_position + 1,
            "session": row.session,
            "test": row.test,
            **_gold(gold.get(row.session), row.trial, training=row.training),
            "state": row.state,
            "excluded": row.excluded_at is not None,
            "moves": row.details.get("moves"),
            **{f"answer:{name}": value for name, value in answers.get(row.session, {}).items()},
        }
        for row in rows
        if row.type != "mushra"
    ]
    columns = ["listener", "item", "condition", "score", "time_ms", "comment", "session", "test", "order"]
    return pd.DataFrame(records) if records else pd.DataFrame(columns=columns)


def _gold(result: GoldResult | None, trial: str, *, training: bool) -> dict[str, Any]:
    """Marks of a row of that page; gold items never count, even on a training page."""
    if result is None:
        return {"training": training}
    is_gold = trial in result.pages
    return {"training": training and not is_gold, "gold": is_gold, "gold_failures": len(result.failed)}


def _judged(rating: Rating, kind: str, trial: str, place: str) -> dict[str, Any]:
    """Columns of a row that come from a rating."""
    same = ("reference", "score", "reference_score", "answer", "time_ms", "comment")
    return {
        **{name: getattr(rating, name) for name in same},
        "item": trial,
        "condition": rating.stimulus,
        "type": kind,
        "place": place,
    }


def _read_csv(path: Path) -> Rows:
    records = []
    named = True
    for session in read_sessions(path, lambda test: None):
        name = session.uuid or f"session-{(session.place or 0) + 1}"
        named &= session.uuid is not None
        for position, page in enumerate(session.pages):
            for place, rating in enumerate(page.ratings):
                said = _judged(rating, page.type, page.trial, f"{position}/{place}")
                records.append({**said, "listener": name, "session": name, "test": session.test})
    if not records:
        raise UserError(f"{path} has a header and no rows; give a file with ratings")
    frame = pd.DataFrame(records).map(as_text).assign(loses_plus=True)
    return Rows(frame, unique_listeners=named)


def _checked(frame: pd.DataFrame, problems: list[Problem]) -> pd.DataFrame:
    """The frame with numbers, without rows that are not answers of their method.

    Raises:
        UserError: no row is left.
    """
    frame = frame.assign(
        reference=frame["reference"].fillna(""),
        answer=frame["answer"].fillna(""),
        reference_score=pd.to_numeric(frame["reference_score"], errors="coerce"),
    )
    opinion = frame["method"] == "acr"
    frame["score"] = pd.to_numeric(frame["score"].mask(opinion, frame["answer"]), errors="coerce")
    other = ~frame["method"].isin(METHODS)
    _leave_out(frame, other, "other pages", "of types without an analysis here", problems)
    several = opinion & frame["answer"].str.startswith("[")
    _leave_out(frame, several, "several scales", "of pages with several scales", problems)
    wrong = pd.Series(False, frame.index)
    for method, (low, high) in _SCALES.items():
        scores = frame.loc[frame["method"] == method, ["score", "reference_score"]]
        scores = scores if method == "bs1116" else scores[["score"]]
        wrong[scores.index] |= ~((scores >= low) & (scores <= high)).all(axis=1)
    abx = frame["method"] == "abx"
    wrong |= abx & ~frame["score"].isin([0.0, 1.0])
    _leave_out(
        frame, wrong & ~several, "outside the scale", "without a score on the scale of their method", problems
    )
    unknown = (frame["method"] == "ab") & (frame["answer"] != "")
    unknown &= (frame["answer"] != frame["condition"]) & (frame["answer"] != frame["reference"])
    _leave_out(frame, unknown, "no choice", "that choose neither of their pair", problems)
    keep = ~(other | several | wrong | unknown)
    if not keep.any():
        raise UserError(f"no usable answer is left: {problems[-1].detail}; check the sources")
    return frame[keep]


def _leave_out(
    frame: pd.DataFrame, rows: pd.Series[bool], kind: str, what: str, problems: list[Problem]
) -> None:
    if not (number := int(np.sum(rows))):
        return
    first = frame[rows].iloc[0]
    detail = f"{count(number, 'answer')} {what} left out (first: listener {first['listener']}, item"
    detail += f" {first['item']}, {first['condition']}, {first['type']})"
    problems.append(Problem(kind, detail, number))
