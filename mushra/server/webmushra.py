"""webMUSHRA's interface of the server: its ``service/write.php``, and the pages of a checkout.

For the client, status 200 with an empty body means success; it shows any body as an error. It sends its JSON
as a form field without encoding it. The server therefore reads the raw body, so that ``&`` and ``+`` are
kept. A submission is stored only if the test takes new listeners and the submission fits its YAML
(`mushra.server.submission`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from flask import Blueprint, Response, abort, request, send_file
from werkzeug.security import safe_join

from mushra.config.load import load_config
from mushra.config.pages import TestConfig
from mushra.server.api import known_cookie, limit, remember
from mushra.server.incoming import BadResult
from mushra.server.security import WEBMUSHRA_POLICY, parse_json
from mushra.server.service import Service, service
from mushra.server.submission import as_sent, parse_submission
from mushra.store.records import Refused, sha256
from mushra.store.whole_sessions import add_submission
from qincodec.core.errors import UserError

submissions = Blueprint("submissions", __name__)
checkout = Blueprint("checkout", __name__)

_log = logging.getLogger("mushra.server")

FIELD = "sessionJSON"

#: Private files in a checkout's folder, which are not served.
_PRIVATE_SUFFIXES = frozenset({".php", ".sqlite", ".db", ".csv", ".log", ".htpasswd", ".inc", ".py", ".sh"})
_PRIVATE_NAMES = frozenset({"key.json", "results", "service", "node_modules", "cache"})
#: Files of a test's own folder that are served beside a checkout.
_TEST_SUFFIXES = frozenset(
    {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".png", ".jpg", ".jpeg", ".webp"}
)


@submissions.post("/service/write.php")
def write() -> Response:
    here = service()
    if not here.submissions:
        abort(
            404,
            "This server does not accept results of webMUSHRA's page; start it with --submissions.",
        )
    limit(here.submit_limit, request.remote_addr or "")
    sent = _session_json()
    config = _test(here, sent)
    whole = parse_submission(sent, config)
    if config.section.identification != "anonymous":
        raise Refused(
            "invitation_unknown",
            "This test identifies its listeners: please use the link that you were sent.",
        )
    cookie = known_cookie() if config.section.one_session_per_person else None
    person = sha256(cookie) if cookie is not None else None
    here.store.write(lambda connection: add_submission(connection, whole, person))
    # A client on another host must be able to see that the answer is empty; it cannot see anything else.
    headers = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
    response = Response(b"", 200, headers, mimetype="text/plain")
    if cookie is not None:
        remember(response, cookie)
    return response


def _test(here: Service, sent: Any) -> TestConfig:
    """The test of a submission. Raises `BadResult` if it is not served."""
    test = sent.get("testId") if isinstance(sent, dict) else None
    if not isinstance(test, str | int | float) or test == "":
        raise BadResult("invalid", "testId is missing")
    given = test if isinstance(test, str) else json.dumps(test)
    served = [here.config] if here.config is not None else _checkout_tests(here)
    configs = [config for config in served if config is not None]
    # The exact name first: the client sends one test's `01` as `1`, which may be another test.
    found = [config for config in configs if config.test_id == given]
    found += [config for config in configs if given in as_sent([config.test_id])]
    if not found:
        raise BadResult("other_test", f"the test with testId '{given[:40]}' is not served here")
    return found[0]


def _checkout_tests(here: Service) -> Iterator[TestConfig | None]:
    assert here.webmushra is not None
    for path in sorted((here.webmushra / "configs").glob("*.y*ml")):
        changed = path.stat()
        yield _load(path, changed.st_mtime_ns, changed.st_size)


@lru_cache(maxsize=200)
def _load(path: Path, *_: int) -> TestConfig | None:
    """The test of a checkout's YAML file, read again when the file changes; None if it has errors."""
    try:
        return load_config(path)
    except UserError as error:
        _log.warning("submissions of '%s' are refused, because its test cannot be read: %s", path, error)
        return None


def _session_json() -> Any:
    """Content of the form field, whether the client encoded it or not."""
    if request.mimetype == "multipart/form-data":
        field = request.form.get(FIELD)
        if field is None:
            raise BadResult("invalid", f"the form field {FIELD} is missing")
        return parse_json(field)
    return decode_form(request.get_data())


def decode_form(body: bytes) -> Any:
    """The JSON in the field ``sessionJSON`` of a form, URL-encoded or raw, as webMUSHRA's client sends it.

    Raises:
        BadResult: the field is missing.
        BadBody: it is not JSON.
    """
    text = body.decode("utf-8", "replace")
    before, field, raw = text.partition(f"{FIELD}=")
    if not field or (before and not before.endswith("&")):
        raise BadResult("invalid", f"the form field {FIELD} is missing")
    if raw.lstrip().startswith("{"):
        # Encoded JSON begins with %7B. Later fields are ignored; an '&' of the JSON itself is inside the
        # braces.
        try:
            _, end = json.JSONDecoder().raw_decode(raw.lstrip())
        except (ValueError, RecursionError):
            end = len(raw)
        return parse_json(raw.lstrip()[:end])
    fields = parse_qs(f"{FIELD}={raw}", keep_blank_values=True, max_num_fields=50)
    return parse_json(fields[FIELD][0])


# The pages of a checkout


@checkout.get("/")
@checkout.get("/<path:path>")
def file(path: str = "index.html") -> Response:
    here = service()
    assert here.webmushra is not None
    found = _public_file(here.webmushra, path)
    config = here.config
    if found is None and config is not None:
        if path == f"configs/{config.path.name}":
            found = config.path.resolve()
        elif Path(path).suffix.lower() in _TEST_SUFFIXES:
            found = _public_file(config.root, path)
    if found is None:
        abort(404, "This file does not exist.")
    response = send_file(found, conditional=True)
    response.headers["Content-Security-Policy"] = WEBMUSHRA_POLICY
    response.headers["Cache-Control"] = "no-cache"
    return response


def _public_file(root: Path, path: str) -> Path | None:
    """The file at ``path`` below ``root``, unless it is private."""
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
