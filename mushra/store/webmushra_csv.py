"""webMUSHRA's CSV files, written and read, and those of our own types of pages, written as PHP writes CSV.

webMUSHRA's files have exactly its columns; imported sessions are exported to the same bytes.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa

from mushra.config.key import Key
from mushra.config.load import named_training
from mushra.config.locate import config_beside
from mushra.config.pages import is_training
from mushra.store import schema
from mushra.store.pages import Rating
from mushra.store.php_csv import csv_text, number_text, original
from mushra.store.ratings import StoredRating, stored_answers, stored_ratings
from mushra.store.store import Store
from mushra.store.whole_sessions import WholePage, WholeSession, add_whole
from qincodec.core.errors import UserError

#: Type of page -> (name of the file, columns after the questionnaire's).
_MUSHRA = ("session_uuid", "trial_id", "rating_stimulus", "rating_score", "rating_time", "rating_comment")
_PAIRED = ("trial_id", "choice_reference", "choice_non_reference", "choice_answer", "choice_time")
_BS1116 = ("trial_id", "rating_reference", "rating_non_reference", "rating_reference_score")
_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "mushra": ("mushra", _MUSHRA),
    "paired_comparison": ("paired_comparison", (*_PAIRED, "choice_comment")),
    "bs1116": ("bs1116", (*_BS1116, "rating_non_reference_score", "rating_time", "choice_comment")),
    "likert_multi_stimulus": ("lms", ("trial_id", "stimuli_rating", "stimuli", "rating_time")),
    "likert_single_stimulus": ("lss", ("trial_id", "stimuli_rating", "stimuli", "rating_time")),
}
#: The same for our own types of pages, which webMUSHRA does not have.
_PAIR = ("session_uuid", "trial_id", "choice_first", "choice_second", "choice_answer")
_DCR = ("session_uuid", "trial_id", "rating_reference", "rating_stimulus", "rating_score", "rating_time")
_OWN_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ab": ("ab", (*_PAIR, "choice_time", "choice_comment")),
    "abx": ("abx", (*_PAIR, "choice_right", "choice_time", "choice_comment")),
    "dcr": ("dcr", (*_DCR, "rating_comment")),
}
#: Types whose answer is the name of a signal.
CHOICES = frozenset({"paired_comparison", "ab", "abx"})
_FIRST = "session_test_id"


def rated_rows(
    store: Store, test: str | None, everything: bool
) -> tuple[list[StoredRating], list[StoredRating], dict[str, dict[str, str]]]:
    """Ratings for webMUSHRA's files, those that nobody gave, and the answers of each session."""
    with store.read() as connection:
        rows = stored_ratings(connection, test=test, everything=everything)
        answers = stored_answers(connection)
    rows.sort(key=lambda row: (row.finished_at or 0.0, row.number))
    return [row for row in rows if not row.not_given], [row for row in rows if row.not_given], answers


def csv_files(store: Store, key: Key, test: str | None, everything: bool) -> dict[str, str]:
    rows, _, asked = rated_rows(store, test, everything)
    files: dict[tuple[str, str], list[StoredRating]] = {}
    for row in rows:
        if row.type in _FILES | _OWN_FILES:
            # Like webMUSHRA: tests of one folder share a file.
            files.setdefault((folder_name(row.test), row.type), []).append(row)
    contents = {}
    for (folder, kind), rated in files.items():
        # One header for all, so that a changed questionnaire does not shift columns.
        names = list(dict.fromkeys(name for row in rated for name in asked.get(row.session, {})))
        file, columns = (_FILES | _OWN_FILES)[kind]
        several = max(len(_several(row.answer)) for row in rated) if file in ("lms", "lss") else 1
        if several > 1:
            numbered = [f"stimuli_rating{n}" for n in range(1, several + 1)]
            columns = (columns[0], *numbered, *columns[2:])
        lines = [[_FIRST, *names, *columns]]
        for row in rated:
            said = asked.get(row.session, {})
            nameless = row.kind in _WHOLE and not row.uuid
            cells = _cells(row, key, "" if nameless else row.listener, several)
            lines.append([row.test, *(said.get(name, "") for name in names), *cells])
        contents[f"{folder}/{file}.csv"] = csv_text(lines)
    return contents


#: Kinds of sessions whose uuid is the submitted one, or empty.
_WHOLE = ("webmushra", "import")


def folder_name(test_id: str) -> str:
    """webMUSHRA's name for the results folder of a test."""
    return re.sub(r"[^a-z0-9_-]", "-", test_id.lower())


def _cells(row: StoredRating, key: Key, uuid: str, several: int) -> list[str]:
    def named(name: str | None) -> str:
        return key.condition(row.trial, name) if name else ""

    score, time_ms = number_text(row.score), number_text(row.time_ms)
    stimulus, answer = named(row.stimulus), row.answer or ""
    if row.type == "mushra":
        return [uuid, row.trial, stimulus, score, time_ms, row.comment]
    if row.type == "paired_comparison":
        return [row.trial, named(row.reference), stimulus, named(answer), time_ms, row.comment]
    if row.type == "bs1116":
        reference_score = number_text(row.reference_score)
        return [row.trial, named(row.reference), stimulus, reference_score, score, time_ms, row.comment]
    if row.type == "dcr":
        return [uuid, row.trial, named(row.reference), stimulus, score, time_ms, row.comment]
    if row.type in _OWN_FILES:
        right = [score] if row.type == "abx" else []
        pair = [stimulus, named(row.reference)]
        return [uuid, row.trial, *pair, named(answer), *right, time_ms, row.comment]
    if several > 1:
        ratings = _several(answer)
        return [row.trial, *ratings, *[""] * (several - len(ratings)), stimulus, time_ms]
    if row.type == "likert_multi_stimulus":
        # webMUSHRA's own lms.csv has a blank on both sides of a rating, and scripts that read it expect them.
        return [row.trial, f" {', '.join(_several(answer))} ", stimulus, time_ms]
    return [row.trial, *(_several(answer) or [""]), stimulus, time_ms]


def _several(answer: str | None) -> list[str]:
    """Ratings of a Likert answer; one, unless the answer is a JSON list."""
    if answer and answer.startswith("["):
        try:
            values = json.loads(answer)
        except ValueError:
            return [answer]
        if isinstance(values, list) and all(isinstance(value, str) for value in values):
            return values
    return [answer or ""]


# Importing webMUSHRA's CSV


def import_csv(store: Store, path: Path) -> tuple[int, int]:
    """Store the sessions of one of webMUSHRA's CSV files; numbers of (new, already stored) sessions.

    ``session_uuid`` identifies a session. If it is missing, a session ends where the answers change or a
    stimulus occurs again. Training pages are those that the test's configuration names: the file beside the
    data base, or else the newest one in it.

    Raises:
        UserError: the file does not exist, or a row does not fit; then none of its sessions is stored.
    """
    wholes = list(read_sessions(path, lambda test: _named_training(store, test)))

    def change(connection: sa.Connection) -> int:
        return sum(add_whole(connection, whole) for whole in wholes)

    new = store.write(change)
    return new, len(wholes) - new


def _named_training(store: Store, test: str) -> list[str] | None:
    configs = schema.configs
    latest = sa.select(configs.c.yaml).where(configs.c.test == test).order_by(configs.c.served_at.desc())
    with store.read() as connection:
        served = connection.execute(latest).scalar()
    last = None if served is None else named_training(Path(store.name), yaml=str(served))
    beside = config_beside(Path(store.name)) if store.is_sqlite else None
    return last if beside is None else named_training(beside, test, other=last)


def read_sessions(path: Path, named: Callable[[str], list[str] | None]) -> Iterator[WholeSession]:
    """Sessions of a webMUSHRA CSV file; ``named``: training pages that a test's configuration names."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = [[original(cell) for cell in row] for row in csv.reader(file) if row]
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"'{path}' is not a CSV file in UTF-8: {error}") from error
    if not table:
        raise UserError(f"'{path}' is empty; give one of webMUSHRA's CSV files")
    header = table[0]
    kind, names = _kind(path, header)
    groups: list[tuple[tuple[str, ...], list[dict[str, str]]]] = []
    by_uuid: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for number, row in enumerate(table[1:], start=2):
        if len(row) != len(header):
            raise UserError(
                f"'{path}' row {number} has {len(row)} columns, its header {len(header)}: the questionnaire"
                " was changed between sessions; correct the file before you import it"
            )
        cells = dict(zip(header, row, strict=True))
        who = (cells[_FIRST], cells.get("session_uuid", ""), *(cells[name] for name in names))
        if cells.get("session_uuid"):
            rows = by_uuid.get(who)
        else:
            rows = groups[-1][1] if groups and groups[-1][0] == who else None
        if rows is None or _again(rows, cells):
            rows = by_uuid[who] = []
            groups.append((who, rows))
        rows.append({**cells, "_row": str(number)})
    training = {test: named(test) for test in {who[0] for who, _ in groups}}
    for index, (who, rows) in enumerate(groups):
        test, uuid, *values = who
        pages: dict[str, list[Rating]] = {}
        for cells in rows:
            pages.setdefault(cells["trial_id"], []).append(_rating(path, kind, cells))
        answers = list(zip(names, values, strict=True))
        whole = [
            WholePage(trial, kind, is_training(trial, training[test]), ratings)
            for trial, ratings in pages.items()
        ]
        yield WholeSession(test, "import", uuid or None, answers, whole, index)


def _kind(path: Path, header: list[str]) -> tuple[str, list[str]]:
    """Type of page of a file's columns, and its questionnaire."""
    for kind, (file, columns) in _FILES.items():
        if file in ("lms", "lss") and (file == "lss") != (path.stem == "lss"):
            continue
        numbered = [name for name in header if re.fullmatch(r"stimuli_rating\d+", name)]
        if file in ("lms", "lss") and numbered:
            columns = (columns[0], *numbered, *columns[2:])
        needed = [name for name in columns if name != "session_uuid"]
        if header[0] == _FIRST and header[-len(needed) :] == needed:
            names = [name for name in header[1 : -len(needed)] if name != "session_uuid"]
            if len(set(header)) < len(header):
                raise UserError(f"'{path}': a column of the header occurs twice; rename one")
            return kind, names
    raise UserError(
        f"'{path}' has none of webMUSHRA's headers; give its mushra.csv, paired_comparison.csv, bs1116.csv,"
        " lms.csv or lss.csv"
    )


_STIMULUS = ("rating_stimulus", "choice_non_reference", "rating_non_reference", "stimuli")


def _again(rows: list[dict[str, str]], cells: dict[str, str]) -> bool:
    """Whether a stimulus of an earlier trial occurs again, so that another session begins."""
    name = next(column for column in _STIMULUS if column in cells)
    same = [row for row in rows if (row["trial_id"], row[name]) == (cells["trial_id"], cells[name])]
    return bool(same) and rows[-1]["trial_id"] != cells["trial_id"]


def _rating(path: Path, kind: str, cells: dict[str, str]) -> Rating:
    def number(name: str) -> float | None:
        text = cells[name].strip()
        try:
            value = float(text) if text else None
        except ValueError:
            value = float("nan")
        if value is not None and not abs(value) < 1e15:
            raise UserError(f"'{path}' row {cells['_row']}: {name} is '{text[:40]}', not a number")
        return value

    if kind == "mushra":
        score, time_ms = number("rating_score"), number("rating_time")
        return Rating(cells["rating_stimulus"], score=score, time_ms=time_ms, comment=cells["rating_comment"])
    if kind == "paired_comparison":
        return Rating(
            cells["choice_non_reference"],
            cells["choice_reference"],
            answer=cells["choice_answer"],
            time_ms=number("choice_time"),
            comment=cells["choice_comment"],
        )
    if kind == "bs1116":
        return Rating(
            cells["rating_non_reference"],
            cells["rating_reference"],
            number("rating_non_reference_score"),
            number("rating_reference_score"),
            time_ms=number("rating_time"),
            comment=cells["choice_comment"],
        )
    numbered = [value for name, value in cells.items() if re.fullmatch(r"stimuli_rating\d+", name)]
    answer = json.dumps(numbered) if numbered else cells["stimuli_rating"]
    if kind == "likert_multi_stimulus":
        answer = answer.strip(" ")
    return Rating(cells["stimuli"], answer=answer, time_ms=number("rating_time"))
