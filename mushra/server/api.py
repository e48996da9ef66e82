"""The interface for listeners' browsers: the page, sessions, stimuli."""

from __future__ import annotations

import math
from typing import Any

from flask import Blueprint, Response, abort, current_app, jsonify, render_template, request, send_file
from waitress.buffers import ReadOnlyFileBasedBuffer
from werkzeug.exceptions import TooManyRequests

from mushra.config.crowd import is_id, is_signed, with_placeholders
from mushra.config.pages import Section, TestConfig
from mushra.server.incoming import BadResult, check_result
from mushra.server.security import RateLimit, parse_json
from mushra.server.service import ConfigChanged, Service, new_key, service
from mushra.server.session_pages import places
from mushra.store import records
from mushra.store.pages import SessionPage
from mushra.store.records import Arrival, Conflict, Session, Unknown, sha256

blueprint = Blueprint("listen", __name__)

#: Largest body with a page's result. 2000 events and a long comment take less than 100 KiB.
MAX_PAGE_BYTES = 256 * 1024
_COOKIE = "listener"
#: Numbers that a browser may report: name, lowest, highest.
_CLIENT_NUMBERS = (
    ("sample_rate", 1000, 1_000_000),
    ("device_rate", 1000, 1_000_000),
    ("channels", 1, 256),
    ("device_channels", 1, 256),
)
_YEAR_S = 365 * 24 * 3600


@blueprint.get("/")
def page() -> str:
    return listening_page(_config(service()))


def listening_page(config: TestConfig, title: str | None = None) -> str:
    """The listening page; ``title`` replaces the test's title."""
    stimuli = service().stimuli
    assert stimuli is not None
    return render_template(
        "listen.html",
        output=stimuli.output,
        lang=_language(config, request.args.get("lang")),
        testname=title or config.testname,
        languages=_languages(config),
        asset_version=current_app.config["ASSETS_VERSION"],
        person=config.section.panel.person if config.section.identification == "panel" else "",
    )


@blueprint.get("/stimuli/<token>")
def stimulus(token: str) -> Response:
    stimuli = service().stimuli
    served = stimuli.get(token) if stimuli is not None else None
    if served is None or not served.path.is_file():
        abort(404, "This file does not exist.")
    # A tag made from the file would reveal the hidden reference. The address serves as the tag, because the
    # content behind it does not change. The name of the file is not sent.
    response = send_file(served.path, mimetype=served.mimetype, conditional=True, etag=token, max_age=_YEAR_S)
    response.cache_control.public = False  # Flask sets it
    response.cache_control.private = True
    response.cache_control.immutable = True
    response.headers.pop("Content-Disposition", None)
    response.headers.pop("Last-Modified", None)
    # It repeats max-age to the second of the request, so that the files of a page would differ in it.
    response.headers.pop("Expires", None)
    wrap = request.environ.get("wsgi.file_wrapper")
    part = response.content_range.start if response.status_code == 206 else None
    if part is not None and wrap is ReadOnlyFileBasedBuffer:
        # Passed on as a whole file is. Written piece by piece, it would block a thread until the client has
        # read it.
        response.response.close()  # type: ignore[union-attr]
        file = served.path.open("rb")
        file.seek(part)
        response.response = wrap(file)
    return response


@blueprint.post("/api/sessions")
def begin() -> tuple[Response, int]:
    here = service()
    config = _config(here)
    limit(here.begin_limit, request.remote_addr or "")
    body = _body()
    key = new_key()
    cookie = known_cookie()
    while True:
        arrival = _arrival(here, here.config or config, body, key, cookie)
        try:
            session, new = _begin(here, arrival)
            break
        except ConfigChanged:  # by the experimenter, while this session waited for the lock
            continue
    if not new:
        here.forget(session)
    opened = here.session(session, key)
    assert opened is not None
    response = jsonify({**_document(here, config, opened), "key": key})
    if arrival.kind == "anonymous" and arrival.person is not None:
        remember(response, cookie)
    return response, 201


def _begin(here: Service, arrival: Arrival) -> tuple[str, bool]:
    def pages_of(number: int, slot: int) -> list[SessionPage]:
        if here.config_sha256 != arrival.config:
            raise ConfigChanged
        return here.pages_of(number, slot)

    return here.store.write(lambda connection: records.begin(connection, arrival, pages_of))


def known_cookie() -> str:
    """Cookie by which a browser is recognized on its next visit; a new one if it has none of that length."""
    cookie, fresh = request.cookies.get(_COOKIE, ""), new_key()
    return cookie if len(cookie) == len(fresh) else fresh


def remember(response: Response, cookie: str) -> None:
    """Set the cookie of `known_cookie`."""
    response.set_cookie(
        _COOKIE,
        cookie,
        max_age=_YEAR_S,
        path=request.script_root or "/",
        httponly=True,
        secure=request.is_secure,
        samesite="Lax",
    )


@blueprint.get("/api/sessions/<session>")
def resume(session: str) -> Response:
    here = service()
    return jsonify(_document(here, _config(here), _opened(here, session)))


@blueprint.put("/api/sessions/<session>/pages/<page>")
def save(session: str, page: str) -> Response:
    here = service()
    config = _config(here)
    opened = _opened(here, session)
    limit(here.save_limit, session)
    found = opened.pages.get(page)
    if found is None:
        abort(404, "This session does not have this page.")
    body = _body()
    checked = check_result(found, config.section.rules, body)
    revision = here.store.write(lambda connection: records.save_page(connection, opened, found, checked))
    return jsonify({"page": page, "revision": revision})


@blueprint.post("/api/sessions/<session>/finish")
def finish(session: str) -> tuple[Response, int]:
    here = service()
    config = _config(here)
    opened = _opened(here, session)
    limit(here.save_limit, session)
    body = _body()
    given = body.get("revision_of") or {}
    if not isinstance(given, dict) or not all(type(revision) is int for revision in given.values()):
        raise BadResult("invalid", "revision_of must map pages to numbers")
    code = config.section.completion.code
    try:
        here.store.write(lambda connection: records.finish(connection, opened, given, code))
    except Conflict as conflict:
        return jsonify({"error": str(conflict), "code": conflict.code, "missing": conflict.missing}), 409
    return jsonify({**_completion(config.section, opened), "results": _results(here, opened)}), 200


def _completion(section: Section, session: Session) -> dict[str, str | None]:
    """Completion code and redirect; the address has the panel's parameters of the listener."""
    code, address = section.completion.code, section.completion.redirect
    if address is not None:
        said = {"person": session.panel.get("pid", ""), **session.panel, "code": code or ""}
        address = with_placeholders(address, said)
    return {"code": code, "redirect": address}


def limit(bucket: RateLimit, key: str) -> None:
    """Answer 429 if there were too many requests."""
    wait_s = bucket.wait_s(key)
    if wait_s > 0:
        message = "Too many requests; the page tries again automatically."
        raise TooManyRequests(message, retry_after=math.ceil(wait_s))


def _config(here: Service) -> TestConfig:
    if here.config is None:
        abort(404)
    return here.config


def _body() -> dict[str, Any]:
    request.max_content_length = MAX_PAGE_BYTES
    body = parse_json(request.get_data())
    if not isinstance(body, dict):
        raise BadResult("invalid", "the body is not a JSON object")
    return body


def _language(config: TestConfig, wanted: object) -> str:
    return wanted if isinstance(wanted, str) and wanted in _languages(config) else config.language


def _languages(config: TestConfig) -> list[str]:
    return list(dict.fromkeys([config.language, *config.section.languages]))


def _arrival(here: Service, config: TestConfig, body: dict[str, Any], key: str, cookie: str) -> Arrival:
    """The browser's claim about the listener, checked by the test's way to identify listeners."""
    kind = config.section.identification
    once = config.section.one_session_per_person
    person = invitation = None
    known = True
    panel: dict[str, str] | None = None
    if kind == "invitation":
        token = body.get("invitation")
        if not isinstance(token, str) or not 0 < len(token) <= 200:
            raise records.Refused(
                "invitation_unknown", "This test needs an invitation; please use the link that you were sent."
            )
        invitation = sha256(token)
    elif kind == "prolific":
        ids = body.get("prolific")
        names = ("pid", "study", "session")
        given = {name: ids.get(name) for name in names} if isinstance(ids, dict) else {}
        panel = {n: value for n, value in given.items() if isinstance(value, str) and 0 < len(value) <= 64}
        if len(panel) < len(names):
            raise records.Refused(
                "prolific_needed", "Please open this test from Prolific: its link identifies you."
            )
        person = f"{panel['study']}/{panel['pid']}"
    elif kind == "panel":
        panel = _from_panel(here, config, body.get("parameters"))
        person, known = panel["person"], config.section.panel.sign is not None
    elif once:
        person = sha256(cookie)
    return Arrival(
        test=config.test_id,
        kind=kind,
        key_sha256=sha256(key),
        config=here.config_sha256,
        places=places(config),
        language=_language(config, body.get("language")),
        client=_client(body.get("client")),
        person=person,
        invitation=invitation,
        panel=panel,
        known=known,
        once=once,
    )


def _from_panel(here: Service, config: TestConfig, given: object) -> dict[str, str]:
    """Person and session from the parameters of the page's address. They prove nothing unless signed.

    Raises:
        Refused: the parameters are missing or not signed correctly.
    """
    names = config.section.panel
    parameters = given if isinstance(given, dict) else {}
    wanted = {"person": names.person, **({"session": names.session} if names.session else {})}
    said = {what: value for what, name in wanted.items() if is_id(value := parameters.get(name))}
    if len(said) < len(wanted):
        raise records.Refused(
            "panel_needed", "Please open this test with the link that you were sent: it identifies you."
        )
    if names.sign is not None:
        signed = parameters.get(names.sign)
        text = signed if isinstance(signed, str) and len(signed) <= 200 else ""
        secret, session = here.panel_secret, said.get("session", "")
        if secret is None or not is_signed(text, secret, config.test_id, said["person"], session):
            raise records.Refused(
                "panel_unsigned", "The link is incomplete or was changed; please use the original one."
            )
    return said


def _client(given: object) -> dict[str, Any]:
    """Valid values of the browser's report on sound and screen; all else is dropped.

    ``sample_rate`` and ``channels`` are used for playing; ``device_rate`` and ``device_channels`` are those
    of the device. If the rates differ, the browser resamples.
    """
    client: dict[str, Any] = {}
    if isinstance(given, dict):
        for name, low, high in _CLIENT_NUMBERS:
            value = given.get(name)
            if isinstance(value, int | float) and low <= value <= high:
                client[name] = value
        screen = given.get("screen")
        if isinstance(screen, str) and len(screen) <= 20:
            client["screen"] = screen
    return client


def _opened(here: Service, session: str) -> Session:
    """The session of this request, if it has one of the session's keys."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    try:
        opened = here.session(session, key) if len(session) <= 64 else None
    except Unknown:
        opened = None
        if scheme == "Bearer" and key:
            abort(404, "This session does not exist; it may have been erased.")
    if opened is None or scheme != "Bearer" or opened.test != here.test:
        abort(401, "The key does not belong to this session.")
    return opened


def _document(here: Service, config: TestConfig, session: Session) -> dict[str, Any]:
    with here.store.read() as connection:
        state, saved = records.saved_pages(connection, session.id)
    return document(config, session, state, saved)


def document(
    config: TestConfig, session: Session, state: str, saved: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """A session as JSON for the browser, without the key."""
    section, general = config.section, config.general
    return {
        "id": session.id,
        "test": {
            "name": config.testname,
            "id": config.test_id,
            "language": session.language,
            "preview": general.show_button_previous_page,
            "stop_on_errors": general.stop_on_errors,
        },
        "rules": section.rules.model_dump(),
        "headphone_check": section.headphone_check,
        "state": state,
        "completion": _completion(section, session) if state == "finished" else None,
        "pages": [page.public.to_json() for page in session.pages.values()],
        "saved": saved,
    }


def _results(here: Service, session: Session) -> list[dict[str, Any]] | None:
    """The listener's own ratings, if the finish page shows them."""
    if not list(session.pages.values())[-1].public.show_results:
        return None
    with here.store.read() as connection:
        _, saved = records.saved_pages(connection, session.id)
    return [
        {"page": page.id, "name": page.public.name, "ratings": _shown(page, saved[page.id])}
        for page in session.pages.values()
        if page.conditions and page.id in saved
    ]


def _shown(page: SessionPage, saved: dict[str, Any]) -> list[dict[str, Any]]:
    """Ratings by the names that the page showed: names of conditions only with ``showConditionNames``."""
    labels = {signal.id: signal.label for signal in page.public.signals}
    return [
        {
            "signal": rating["signal"],
            "label": labels[rating["signal"]],
            "score": rating.get("score"),
            "comment": rating.get("comment", ""),
        }
        for rating in saved["result"].get("ratings", [])
    ]
