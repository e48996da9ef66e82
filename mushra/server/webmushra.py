"""webMUSHRA's side of the server: its ``service/write.php``, and the pages of a checkout of it.

The client takes status 200 with an empty body for success and shows any body as an error. It sends its JSON
as a form field without encoding it, so that ``&`` and ``+`` arrive as they are; they are read from the raw
body and not lost.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from flask import Blueprint, Response, abort, request, send_file
from werkzeug.security import safe_join

from mushra.server.api import limit
from mushra.server.results import BadResult
from mushra.server.security import WEBMUSHRA_POLICY, parse_json
from mushra.server.service import Service, service
from mushra.server.whole import WholeSession, add_whole

blueprint = Blueprint("webmushra", __name__)
checkout = Blueprint("checkout", __name__)

FIELD = "sessionJSON"
MAX_TEXT = 10_000
MAX_TRIALS = 1000
MAX_RESPONSES = 20_000

#: What a checkout's folder may hold that is nobody's business.
_PRIVATE_SUFFIXES = frozenset({".php", ".sqlite", ".db", ".csv", ".log", ".htpasswd", ".inc", ".py", ".sh"})
_PRIVATE_NAMES = frozenset({"key.json", "results", "service", "node_modules", "cache"})
#: What is served from a test's own folder beside a checkout.
_TEST_SUFFIXES = frozenset(
    {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".png", ".jpg", ".jpeg", ".webp"}
)


@blueprint.post("/service/write.php")
def write() -> Response:
    here = service()
    limit(here.submit_limit, request.remote_addr or "")
    whole = parse_submission(_session_json(), here.test)
    here.store.write(lambda connection: add_whole(connection, whole))
    # A client on another host must be able to see that the answer is empty. It is all it can see.
    headers = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
    return Response(b"", 200, headers, mimetype="text/plain")


def _session_json() -> Any:
    """What the form field holds, whether the client encoded it or not."""
    if request.mimetype == "multipart/form-data":
        field = request.form.get(FIELD)
        if field is None:
            raise BadResult("invalid", f"the form field {FIELD} is missing")
        return parse_json(field)
    return decode_form(request.get_data())


def decode_form(body: bytes) -> Any:
    """The JSON in the field ``sessionJSON`` of a form, URL-encoded as it should be or raw as it comes.

    Raises:
        BadResult: there is no such field.
        BadBody: it is no JSON.
    """
    text = body.decode("utf-8", "replace")
    before, field, raw = text.partition(f"{FIELD}=")
    if not field or (before and not before.endswith("&")):
        raise BadResult("invalid", f"the form field {FIELD} is missing")
    if raw.lstrip().startswith("{"):
        # Encoded JSON begins with %7B. Fields after it (an '&' of its own is inside the braces) do not count.
        try:
            _, end = json.JSONDecoder().raw_decode(raw.lstrip())
        except (ValueError, RecursionError):
            end = len(raw)
        return parse_json(raw.lstrip()[:end])
    fields = parse_qs(f"{FIELD}={raw}", keep_blank_values=True, max_num_fields=50)
    return parse_json(fields[FIELD][0])


def parse_submission(session: Any, test: str | None = None) -> WholeSession:
    """A submission of webMUSHRA's client as a session.

    Args:
        session: ``{testId, participant: {name, response}, trials, uuid, ...}``.
        test: id that it must have; None: any.

    Raises:
        BadResult: another test's, or not of that shape. Nothing of it may be stored.
    """
    if not isinstance(session, dict):
        raise BadResult("invalid", "the session is no object")
    test_id = _text(session.get("testId"), "testId", 200)
    if not test_id:
        raise BadResult("invalid", "testId is missing")
    if test is not None and test_id != test:
        raise BadResult("other_test", "this server takes another test's results")
    participant = session.get("participant") or {}
    names = participant.get("name", []) if isinstance(participant, dict) else None
    values = participant.get("response", []) if isinstance(participant, dict) else None
    if not isinstance(names, list) or not isinstance(values, list) or not len(names) == len(values) <= 500:
        raise BadResult("invalid", "participant: name and response must be lists of the same length")
    answers = [
        (_text(name, "participant.name", 200), _text(value, "participant.response"))
        for name, value in zip(names, values, strict=True)
    ]
    trials = session.get("trials")
    if not isinstance(trials, list) or not trials or len(trials) > MAX_TRIALS:
        raise BadResult("invalid", f"trials must be a list of 1 to {MAX_TRIALS}")
    pages = [_trial(trial) for trial in trials]
    if sum(len(rows) for _, _, rows in pages) > MAX_RESPONSES:
        raise BadResult("invalid", f"more than {MAX_RESPONSES} responses")
    uuid = _text(session.get("uuid"), "uuid", 200) or None
    content = json.dumps([uuid, answers, pages], sort_keys=True)
    return WholeSession(test_id, "webmushra", uuid, answers, pages, content)


def _trial(trial: Any) -> tuple[str, str, list[dict[str, Any]]]:
    if not isinstance(trial, dict):
        raise BadResult("invalid", "a trial is no object")
    responses = trial.get("responses")
    if not isinstance(responses, list) or not all(isinstance(response, dict) for response in responses):
        raise BadResult("invalid", "a trial's responses are no list of objects")
    kind = _text(trial.get("type"), "type", 32)
    make = _ROWS.get(kind, _other)
    return _text(trial.get("id"), "id", 1000), kind, [make(response) for response in responses]


def _mushra(response: dict[str, Any]) -> dict[str, Any]:
    return {
        "stimulus": _text(response.get("stimulus"), "stimulus", 1000),
        "score": _number(response.get("score"), "score"),
        **_common(response),
    }


def _pair(response: dict[str, Any]) -> dict[str, Any]:
    row = {
        "stimulus": _text(response.get("nonReference"), "nonReference", 1000),
        "reference": _text(response.get("reference"), "reference", 1000),
        **_common(response),
    }
    if "answer" in response:
        return {**row, "answer": _text(response["answer"], "answer")}
    row["score"] = _number(response.get("nonReferenceScore"), "nonReferenceScore")
    return {**row, "reference_score": _number(response.get("referenceScore"), "referenceScore")}


def _likert(response: dict[str, Any]) -> dict[str, Any]:
    given = response.get("stimulusRating", response.get("rating", response.get("score")))
    answer = json.dumps([_text(one, "rating") for one in given]) if isinstance(given, list) else None
    return {
        "stimulus": _text(response.get("stimulus"), "stimulus", 1000),
        "answer": answer if answer is not None else _text(given, "rating"),
        **_common(response),
    }


def _other(response: dict[str, Any]) -> dict[str, Any]:
    """What no column is meant for (spatial pages) is kept as JSON."""
    name = response.get("name", response.get("stimulus"))
    text = json.dumps(response, sort_keys=True)
    if len(text) > MAX_TEXT:
        raise BadResult("invalid", f"a response has more than {MAX_TEXT} characters")
    stimulus = name[:1000] if isinstance(name, str) else ""
    return {"stimulus": stimulus, "answer": text, "time_ms": None, "comment": ""}


_ROWS = {
    "mushra": _mushra,
    "paired_comparison": _pair,
    "bs1116": _pair,
    "likert_multi_stimulus": _likert,
    "likert_single_stimulus": _likert,
}


def _common(response: dict[str, Any]) -> dict[str, Any]:
    comment = _text(response.get("comment"), "comment")
    return {"time_ms": _number(response.get("time"), "time"), "comment": comment}


def _text(value: Any, name: str, longest: int = MAX_TEXT) -> str:
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadResult("invalid", f"{name} is no text")
    if len(value) > longest:
        raise BadResult("invalid", f"{name} has more than {longest} characters")
    return value


def _number(value: Any, name: str) -> float | None:
    """Scores come as text, times as numbers."""
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not abs(number) < 1e15:
        raise BadResult("invalid", f"{name} is no number")
    return number


# The pages of a checkout


@checkout.get("/")
def index() -> Response:
    return _send(service(), "index.html")


@checkout.get("/<path:path>")
def file(path: str) -> Response:
    return _send(service(), path)


def _send(here: Service, path: str) -> Response:
    assert here.webmushra is not None
    found = _public_file(here.webmushra, path)
    config = here.config
    if found is None and config is not None:
        if path == f"configs/{config.path.name}":
            found = config.path.resolve()
        elif Path(path).suffix.lower() in _TEST_SUFFIXES:
            found = _public_file(config.root, path)
    if found is None:
        abort(404, "There is no such file.")
    response = send_file(found, conditional=True)
    response.headers["Content-Security-Policy"] = WEBMUSHRA_POLICY
    response.headers["Cache-Control"] = "no-cache"
    return response


def _public_file(root: Path, path: str) -> Path | None:
    """The file at ``path`` below ``root``, unless it is none of the public's business."""
    parts = path.lower().split("/")
    if any(part.startswith(".") or part in _PRIVATE_NAMES for part in parts):
        return None
    if Path(path).suffix.lower() in _PRIVATE_SUFFIXES or ".sqlite" in path.lower() or "\0" in path:
        return None
    joined = safe_join(str(root), path)
    if joined is None:
        return None
    try:
        found = Path(joined).resolve()
        return found if found.is_file() and found.is_relative_to(root.resolve()) else None
    except (OSError, ValueError):
        return None
