"""Readers of files with ratings.

A reader returns `Rows`: the unchanged text of all rows, and problems of the file; `mushra.analysis.load`
makes the tidy table. The formats are webMUSHRA's ``mushra.csv``, pymushra's JSON data base, and tidy CSV and
JSON as written by ``mushra export``, under any column names with a column map.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mushra.analysis.ratings import COLUMNS, OPTIONAL_COLUMNS, Problem
from qincodec.core.errors import UserError, count

_WEBMUSHRA = {"item": "trial_id", "condition": "rating_stimulus", "score": "rating_score"}
_WEBMUSHRA_OPTIONAL = {"time_ms": "rating_time", "comment": "rating_comment", "test": "session_test_id"}
#: Columns that mark our own export, and that decide which ratings count.
_OWN_MARKS = frozenset({"training", "state", "excluded", "excluded_reason", "begun_at"})
#: Apostrophe that `mushra export` puts before text that a spreadsheet would take for a formula.
_FORMULA = r"^'(?='*[=+\-@\t\r\n＋－＝＠])"
#: Questions whose answer identifies a person, as `_person` compares them.
_NAME_QUESTIONS = re.compile(
    "(your|full)?name|(your)?e?mail(address)?|(participant|subject|listener|user|prolific)(id|name|number)?|nickname"
    "|initials|id"
)
#: pymushra's table of a whole data base, one row per response.
_PYMUSHRA = {"listener": "questionaire_uuid", "item": "wm_id", "condition": "responses_stimulus"}
_PYMUSHRA |= {"score": "responses_score", "time_ms": "responses_time", "comment": "responses_comment"}
_PYMUSHRA |= {"test": "wm_testId"}
_SURROGATES = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


@dataclass
class Rows:
    """Rows of one source as text, with ``COLUMNS`` and some of ``OPTIONAL_COLUMNS``.

    A column ``person`` has the names that people give in the questionnaire, if it asks for them.
    A column ``gold_failures`` has the number of gold items that its session got wrong (`mushra.store.gold`).
    ``unique_listeners`` means that another file cannot have the same listener ids for other people.
    ``without_training`` means that the source marked training, which is left out. A column ``loses_plus``
    marks rows whose ``+`` may have become spaces; without the column there are none.
    """

    frame: pd.DataFrame
    problems: list[Problem] = field(default_factory=list)
    unique_listeners: bool = False
    without_training: bool = False


def read_rows(path: Path, columns: Mapping[str, str] | None = None) -> Rows:
    """Read one file of any known format.

    Args:
        path: the file.
        columns: names in the file of the columns ``listener``, ``item``, ``condition``, ``score`` and so on.

    Raises:
        UserError: the file cannot be read, or its format is not known.
    """
    text = _read_text(path)
    if text.lstrip()[:1] in ("{", "["):
        return _read_json(path, text, columns or {})
    return _read_csv(path, text, columns or {})


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}; check the name of the file"
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}; if it is text, save it "
            "as UTF-8 (for example with `iconv -f latin1 -t utf-8`)"
        ) from error
    if not text.strip():
        raise UserError(f"{path} is empty; give a file with ratings")
    if "\0" in text:
        raise UserError(f"{path} holds zero bytes, so it is not text; give a CSV or JSON file with ratings")
    return text


# CSV


def _read_csv(path: Path, text: str, columns: Mapping[str, str]) -> Rows:
    delimiter = _delimiter(path, text)
    try:
        table = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{path} is not valid CSV: {error}; export it again as CSV") from error
    table = [row for row in table if row]
    header = [name.strip() for name in table[0]]
    problems = []
    if delimiter != ",":
        problems.append(
            Problem("delimiter", f"{path.name} separates its columns by {_DELIMITERS[delimiter]}", 0)
        )
    webmushra = set(_WEBMUSHRA.values()) <= set(header)
    if {_PYMUSHRA["item"], _PYMUSHRA["condition"]} <= set(header):
        columns = {**{ours: name for ours, name in _PYMUSHRA.items() if name in header}, **columns}
    if not webmushra and "choice_reference" in header:
        raise UserError(f"{path} holds paired comparisons, not MUSHRA ratings; give its mushra.csv")
    if not webmushra and "rating_reference_score" in header:
        raise UserError(f"{path} holds a BS.1116 test, not MUSHRA ratings; give its mushra.csv")
    if not webmushra:
        _check_columns(path, header, columns)
    records, found = _records(path, table, header, webmushra)
    if not records:
        if found:
            raise UserError(f"no row can be read: {found[-1].detail}; is its delimiter the same throughout?")
        raise UserError(f"{path} has a header and no rows; give a file with ratings")
    frame = pd.DataFrame(records, dtype=str)
    if delimiter == ";":
        score = columns.get("score", "rating_score" if webmushra else "score")
        frame[score] = frame[score].str.replace(r"^\s*(\d+),(\d+)\s*$", r"\1.\2", regex=True)
    if webmushra:
        rows = _webmushra(path, frame.replace(_FORMULA, "", regex=True), columns)
    elif frame.columns.isin(_OWN_MARKS).sum() == len(_OWN_MARKS):
        rows = own_rows(path.name, frame.replace(_FORMULA, "", regex=True))
    elif columns.get("condition") == _PYMUSHRA["condition"]:
        rows = _pymushra_table(path, frame, columns)
    else:
        rows = Rows(_rename(frame, columns))
    rows.problems = [*problems, *found, *rows.problems]
    return rows


def _delimiter(path: Path, text: str) -> str:
    header = text.lstrip("\r\n").splitlines()[0]
    counts = Counter({delimiter: header.count(delimiter) for delimiter in _DELIMITERS})
    delimiter, found = counts.most_common(1)[0]
    if found == 0:
        raise UserError(
            f"{path} is not a table of ratings: its first line has no commas, semicolons or tabs; give a CSV "
            "with the columns listener, item, condition, score"
        )
    return delimiter


def _check_columns(path: Path, header: list[str], columns: Mapping[str, str]) -> None:
    for name, column in columns.items():
        if column not in header:
            raise UserError(
                f"{path} has no column '{column}' (asked for as {name}); it has {', '.join(header)}"
            )
    missing = [name for name in COLUMNS if columns.get(name, name) not in header]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(header)}; name the columns, for "
            f"example --columns {missing[0]}=NAME"
        )
    wanted = Counter(columns.get(name, name) for name in (*COLUMNS, *OPTIONAL_COLUMNS))
    twice = [name for name, count in Counter(header).items() if count > 1 and name in wanted]
    twice += [name for name, count in wanted.items() if count > 1]
    if twice:
        raise UserError(
            f"{path}: column '{twice[0]}' is in the file or in --columns twice; give each column one meaning"
        )


def _records(
    path: Path, table: list[list[str]], header: list[str], webmushra: bool
) -> tuple[list[dict[str, str]], list[Problem]]:
    """Rows as dicts. A repeated header replaces the last; shifted webMUSHRA rows are read from the end."""
    fixed = _fixed_columns(header) if webmushra else 0
    records, problems = [], []
    headers, shifted, broken = 0, [], []
    for number, row in enumerate(table[1:], start=2):
        names = [name.strip() for name in row]
        if names == header or (webmushra and set(_WEBMUSHRA.values()) <= set(names)):
            headers += 1
            header, fixed = names, _fixed_columns(names) if webmushra else 0
        elif len(row) == len(header):
            records.append(dict(zip(header, row, strict=True)))
        elif webmushra and len(row) > fixed and _is_number(row[header.index("rating_score") - len(header)]):
            # The questionnaire changed and the header did not: the ratings are at the right end.
            shifted.append(number)
            records.append({header[0]: row[0], **dict(zip(header[-fixed:], row[-fixed:], strict=True))})
        else:
            broken.append(number)
    name = path.name
    if headers:
        problems.append(Problem("repeated header", f"{name} has its header {headers + 1} times", headers))
    if shifted:
        detail = f"{name}: {count(len(shifted), 'row')} with more or fewer columns than the header"
        detail += f" (first: row {shifted[0]}); read from their right end, without the questionnaire"
        problems.append(Problem("shifted rows", detail, len(shifted)))
    if broken:
        detail = f"{name}: {count(len(broken), 'row')} with more or fewer columns than the header"
        problems.append(Problem("broken rows", f"{detail} (first: row {broken[0]}); left out", len(broken)))
    return records, problems


def _fixed_columns(header: list[str]) -> int:
    """Number of columns at the right end that do not depend on the questionnaire."""
    first = "session_uuid" if "session_uuid" in header else "trial_id"
    return len(header) - header.index(first)


def own_rows(name: str, frame: pd.DataFrame, extra: Sequence[str] = ()) -> Rows:
    """Rows of our own data base or export, without training, unfinished and excluded sessions.

    Args:
        name: name of the source in messages.
        frame: text, with the columns of `mushra.store.ratings.read_ratings`.
        extra: other columns to keep.
    """
    no_gold = pd.Series("", frame.index)
    training, excluded, gold = (
        frame.get(mark, no_gold).str.lower() == "true" for mark in ("training", "excluded", "gold")
    )
    unfinished = frame["state"] != "finished"
    apart = training | gold
    problems = []
    for what, left_out in (
        ("training pages of {}", training),
        ("gold items of {}", gold),
        ("{} not finished", unfinished & ~apart),
        ("{} excluded by the experimenter", excluded & ~unfinished & ~apart),
    ):
        if left_out.any():
            sessions = count(frame.loc[left_out, "session"].nunique(), "session")
            detail = f"{name}: {what.format(sessions)} left out"
            problems.append(Problem("does not count", detail, int(left_out.sum())))
    counted = frame[~apart & ~unfinished & ~excluded]
    if counted.empty:
        reasons = "; ".join(problem.detail.removeprefix(f"{name}: ") for problem in problems)
        raise UserError(
            f"{name}: nobody has finished a session that counts yet ({reasons or 'there is no rating'}); "
            "analyse it when one is finished"
        )
    # Our own page stores the moves of each slider: rows without them may be from webMUSHRA's CSV.
    rows = _rename(counted, {}).assign(loses_plus=counted.get("moves", "") == "")
    kept = [*extra, *({"gold_failures"} & set(counted.columns))]
    rows = rows.assign(**counted[kept], **_person(counted, "answer:"))
    return Rows(rows, problems, unique_listeners=True, without_training=True)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _rename(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """The wanted columns under our names."""
    found = {
        name: frame[columns.get(name, name)]
        for name in (*COLUMNS, *OPTIONAL_COLUMNS)
        if columns.get(name, name) in frame
    }
    return pd.DataFrame(found)


def _person(frame: pd.DataFrame, prefix: str = "") -> dict[str, pd.Series[str]]:
    """The column ``person`` of `Rows`: answers to the first question of a name, with ``prefix`` before it."""
    for column in map(str, frame):
        question = re.sub(r"[\W_]", "", column.removeprefix(prefix)).casefold()
        if column.startswith(prefix) and _NAME_QUESTIONS.fullmatch(question):
            return {"person": frame[column].fillna("").str.split().str.join(" ").str.casefold()}
    return {}


def _pymushra_table(path: Path, frame: pd.DataFrame, columns: Mapping[str, str]) -> Rows:
    """The pages of type mushra in pymushra's table."""
    problems = []
    if "wm_type" in frame:
        others = frame[frame["wm_type"] != "mushra"]
        for kind, number in others["wm_type"].value_counts().sort_index().items():
            problems.append(
                Problem("other pages", f"{path.name}: {count(number, 'row')} of type {kind} left out", number)
            )
        frame = frame.drop(others.index)
        if frame.empty:
            raise UserError(f"{path} holds no page of type mushra; give the table of a MUSHRA test")
    rows = _rename(frame, columns).assign(**_person(frame.drop(columns=columns["listener"]), "questionaire_"))
    return Rows(rows, problems, unique_listeners=columns["listener"] == _PYMUSHRA["listener"])


def _webmushra(path: Path, frame: pd.DataFrame, columns: Mapping[str, str]) -> Rows:
    names = {**_WEBMUSHRA, **_WEBMUSHRA_OPTIONAL, **columns}
    for name, column in columns.items():
        if column not in frame:
            raise UserError(
                f"{path} has no column '{column}' (asked for as {name}); it has {', '.join(map(str, frame))}"
            )
    rows = Rows(_rename(frame, names).assign(loses_plus=True))
    questions = frame.drop(columns=[name for name in {*names.values(), "session_uuid"} if name in frame])
    rows.frame = rows.frame.assign(**_person(questions))
    ids = frame["session_uuid"].fillna("") if "session_uuid" in frame else pd.Series("", index=frame.index)
    named = ids.str.strip() != ""
    sessions = listeners = ids
    if named.any():
        sessions = ids.where(~named, _sessions_of_ids(frame[named]))
    if not named.all():
        split = pd.Series(_split_sessions(frame[~named]), index=frame.index[~named])
        sessions, listeners = sessions.where(named, split), ids.where(named, split)
        if "listener" not in columns:
            found = count(sessions[~named].nunique(), "session")
            detail = (
                f"{path.name} has no session ids: {found}, distinguished by answers and by repeated trials"
            )
            rows.problems.append(Problem("no session ids", detail, int((~named).sum())))
    rows.frame["session"] = sessions
    if "listener" not in columns:
        rows.frame["listener"] = listeners
        rows.unique_listeners = bool(named.all())
    return rows


def _sessions_of_ids(frame: pd.DataFrame) -> pd.Series[str]:
    """Sessions of a file with ids. A repeated stimulus begins a new session of the same listener, unless all
    rows of that session are repeated: then it was stored twice."""
    sessions = frame["session_uuid"].copy()
    for uuid, rows in frame.groupby("session_uuid", sort=False):
        if not rows.duplicated(["trial_id", "rating_stimulus"]).any():
            continue
        block = pd.Series(_split_sessions(rows), index=rows.index)
        known = rows.duplicated().groupby(block).transform("all")
        later = ~known & (block != block.iloc[0])
        sessions[later[later].index] = f"{uuid}/" + block[later]
    return sessions


def _split_sessions(frame: pd.DataFrame) -> list[str]:
    """Sessions of a file without ids: changed answers or a repeated stimulus begin a new one."""
    tail = {"trial_id", "rating_stimulus", "rating_score", "rating_time", "rating_comment"}
    answers = [column for column in frame if column not in tail]
    number, seen, last = 0, set[tuple[str, str]](), None
    sessions = []
    trials = zip(frame["trial_id"], frame["rating_stimulus"], strict=True)
    who = zip(*(frame[column].fillna("") for column in answers), strict=True)
    previous_trial = None
    for answer, (trial, stimulus) in zip(who, trials, strict=True):
        # A repeated stimulus within one page is a fault of the page, not a new session.
        again = (trial, stimulus) in seen and trial != previous_trial
        if answer != last or again:
            number += 1
            seen = set()
        seen.add((trial, stimulus))
        last, previous_trial = answer, trial
        sessions.append(f"session-{number}")
    return sessions


# JSON


def parse_json(text: str) -> Any:
    """`json.loads`, with U+FFFD for lone surrogates, which JSON can hold and tables cannot."""
    content = json.loads(text)
    return _whole(content) if _SURROGATES.search(text) else content


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(one) for key, one in value.items()}
    return value


def _read_json(path: Path, text: str, columns: Mapping[str, str]) -> Rows:
    try:
        content = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}; export it again") from error
    if isinstance(content, dict) and isinstance(content.get("ratings"), list):
        content = content["ratings"]
    if isinstance(content, list):
        return _tidy_json(path, content, columns)
    documents = list(_documents(content))
    if not documents:
        raise UserError(
            f"{path} holds no ratings: neither rows with {', '.join(COLUMNS)} nor pymushra's trials with "
            "their responses; give a file of `mushra export` or of pymushra"
        )
    return _pymushra(path, documents)


def _tidy_json(path: Path, content: list[Any], columns: Mapping[str, str]) -> Rows:
    if not content:
        raise UserError(f"{path} holds an empty list; give a file with ratings")
    if not all(isinstance(row, dict) for row in content):
        raise UserError(f"{path} is not a list of rows; give rows with {', '.join(COLUMNS)}")
    header = list(dict.fromkeys(str(name) for row in content for name in row))
    _check_columns(path, header, columns)
    frame = pd.DataFrame([{name: as_text(row.get(name)) for name in header} for row in content], dtype=str)
    return own_rows(path.name, frame) if set(header) >= _OWN_MARKS else Rows(_rename(frame, columns))


def _documents(content: Any) -> list[dict[str, Any]]:
    """pymushra's documents (one per page) in a TinyDB file: table -> number -> document."""
    tables = content.values() if isinstance(content, dict) else []
    return [
        document
        for table in tables
        if isinstance(table, dict)
        for document in table.values()
        if isinstance(document, dict) and isinstance(document.get("responses"), list)
    ]


def _pymushra(path: Path, documents: list[dict[str, Any]]) -> Rows:
    others: Counter[str] = Counter()
    records = []
    for number, document in enumerate(documents, start=1):
        if document.get("type", "mushra") != "mushra":
            others[as_text(document["type"])] += 1
            continue
        answers = document.get("questionaire")
        answers = answers if isinstance(answers, dict) else {}
        uuid = as_text(answers.get("uuid"))
        if not uuid:
            raise UserError(f"{path}: page {number} has no questionaire.uuid, so its listener is unknown")
        for response in document["responses"]:
            if not isinstance(response, dict):
                raise UserError(
                    f"{path}: page {number} has a response that is not an object; export it again"
                )
            record = {"listener": uuid, "session": uuid, "item": as_text(document.get("id"))}
            record |= {f"answer:{name}": as_text(answer) for name, answer in answers.items()}
            record |= {
                "condition": as_text(response.get("stimulus")),
                "score": as_text(response.get("score")),
            }
            record |= {"time_ms": as_text(response.get("time")), "comment": as_text(response.get("comment"))}
            records.append({**record, "test": as_text(document.get("testId"))})
    problems = [
        Problem("other pages", f"{path.name}: {count(number, 'page')} of type {kind} left out", number)
        for kind, number in sorted(others.items())
    ]
    if not records:
        raise UserError(f"{path} holds no page of type mushra; give the data base of a MUSHRA test")
    frame = pd.DataFrame(records, dtype=str)
    person = _person(frame, "answer:")
    kept = [name for name in frame if not str(name).startswith("answer:")]
    return Rows(frame[kept].assign(**person), problems, unique_listeners=True)


def as_text(value: Any) -> str:
    """A value as its text in a CSV; pymushra turns names such as "16" into numbers."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)
