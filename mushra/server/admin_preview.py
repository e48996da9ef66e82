"""Preview for the experimenter: the listeners' page itself, without storing anything.

The page's addresses are relative, so that it finds here what it finds at the top: its scripts, the sounds,
and an interface that checks results and drops them. ``which`` is a page's number in the file, or "all".
"""

from __future__ import annotations

import uuid
from dataclasses import replace

from flask import Response, abort, current_app, jsonify, request

from mushra.config.pages import TestConfig
from mushra.server import api
from mushra.server.admin import blueprint, own_test
from mushra.server.incoming import check_result
from mushra.server.security import parse_json
from mushra.server.service import Service
from mushra.server.session_pages import session_pages
from mushra.store.pages import SessionPage
from mushra.store.records import Session

_ALL = "all"
_AT = "/preview/<which>"


@blueprint.get(f"{_AT}/")
def preview_page(which: str) -> str:
    here, config = _previewed()
    _pages(here, config, which)
    return api.listening_page(config, f"Preview: {config.testname}")


@blueprint.get(f"{_AT}/static/<path:name>")
def preview_static(which: str, name: str) -> Response:
    return current_app.send_static_file(name)


@blueprint.get(f"{_AT}/stimuli/<token>")
def preview_stimulus(which: str, token: str) -> Response:
    return api.stimulus(token)


@blueprint.post(f"{_AT}/api/sessions")
def preview_begin(which: str) -> tuple[Response, int]:
    here, config = _previewed()
    pages = _pages(here, config, which)
    session = Session(str(uuid.uuid4()), config.test_id, config.language, {p.id: p for p in pages}, ())
    shown = api.document(config, session, "running", {})
    shown["headphone_check"] = shown["headphone_check"] and which == _ALL
    return jsonify({**shown, "key": "preview"}), 201


@blueprint.get(f"{_AT}/api/sessions/<session>")
def preview_resume(which: str, session: str) -> Response:
    """Answer 404: nothing was stored, so each visit begins a new session."""
    abort(404)


@blueprint.put(f"{_AT}/api/sessions/<session>/pages/<page>")
def preview_save(which: str, session: str, page: str) -> Response:
    here, config = _previewed()
    found = next((one for one in _pages(here, config, which) if one.id == page), None)
    if found is None:
        abort(404)
    body = parse_json(request.get_data())
    check_result(found, config.section.rules, body)
    return jsonify({"page": page, "revision": body["revision"]})


@blueprint.post(f"{_AT}/api/sessions/<session>/finish")
def preview_finish(which: str, session: str) -> Response:
    _, config = _previewed()
    code = config.section.completion.code
    return jsonify({"code": code, "redirect": None, "results": None})


def _previewed() -> tuple[Service, TestConfig]:
    here, _ = own_test()
    if here.config is None or here.webmushra is not None:
        abort(404)
    return here, here.config


def _pages(here: Service, config: TestConfig, which: str) -> list[SessionPage]:
    """Pages of a first listener, or of one page of the file."""
    assert here.stimuli is not None
    if which == _ALL:
        return session_pages(config, here.stimuli, 0, 0)
    flat = config.flat()
    if not which.isascii() or not which.isdigit() or not 1 <= int(which[:6]) <= len(flat):
        abort(404, "The test does not have this page.")
    page = flat[int(which[:6]) - 1]
    return session_pages(replace(config, pages=(page,)), here.stimuli, 0, 0)
