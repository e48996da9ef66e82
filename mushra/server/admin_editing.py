"""The experimenter's page of the test itself: its state, its pages, its options and texts."""

from __future__ import annotations

import hashlib

from flask import abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from mushra.config.edit import original, revise
from mushra.config.load import ConfigError, Reading, read_data
from mushra.config.pages import TestConfig
from mushra.server.admin import blueprint, own_test
from mushra.server.changing import Begun, save
from mushra.server.crowd import summary
from mushra.server.form import Form
from mushra.server.service import Service
from mushra.store import records
from mushra.store.failures import StoreUnavailable
from qincodec.core.errors import UserError

_CHANGED = (
    "The file has changed meanwhile, on this page or by hand. Your entries are kept below:"
    " compare them with the file, and save again."
)


@blueprint.get("/test")
def test_page() -> str:
    here, test = own_test()
    return _page(here, test, saved=request.args.get("saved") == "1")


@blueprint.post("/test")
def save_test() -> BaseResponse | str | tuple[str, int]:
    here, test = own_test()
    reading, data = _read(here)
    if reading.config is None:
        return _page(here, test), 409
    with here.store.read() as connection:
        begun = summary(connection, test)["sessions"] > 0
    form = Form(reading, begun)
    changes = form.enter(request.form)
    if request.form.get("version") != _version(data):
        return _page(here, test, form, [_CHANGED]), 409
    try:
        save(here, revise(reading.config.path, reading.config.root, data, changes))
    except ConfigError as error:
        return _page(here, test, form, form.place_errors(error.findings)), 400
    except Begun as error:
        return _page(here, test, form, [f"Not saved: {error}."]), 409
    except (UserError, StoreUnavailable) as error:
        return _page(here, test, form, [f"Not saved: {error}"]), 503
    return redirect(url_for("admin.test_page", saved=1))


def _config(here: Service) -> TestConfig:
    if here.config is None:
        abort(404)
    return here.config


def _read(here: Service) -> tuple[Reading, bytes]:
    """The current file, which may have been edited by hand."""
    config = _config(here)
    try:
        data = config.path.read_bytes()
    except OSError as error:
        abort(503, f"The test's file cannot be read: {error.strerror or error}.")
    return read_data(data, config.path, config.root), data


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _page(
    here: Service, test: str, form: Form | None = None, wrong: list[str] | None = None, saved: bool = False
) -> str:
    reading, data = _read(here)
    config = _config(here)
    with here.store.read() as connection:
        numbers = summary(connection, test, here.places)
        closed = records.is_closed(connection, test)
    if form is None and reading.config is not None:
        form = Form(reading, numbers["sessions"] > 0)
    return render_template(
        "admin/test.html",
        title=config.testname,
        here="test",
        test=test,
        form=form,
        wrong=wrong or [],
        findings=[str(one) for one in reading.findings if one.severity == "error"],
        by_hand=reading.config is not None and reading.config != config,
        saved=saved,
        version=_version(data),
        pages=list(enumerate(config.flat(), start=1)),
        previews=here.webmushra is None,
        begun=numbers["sessions"],
        summary=numbers,
        closed=closed,
        link=here.public_address or url_for("listen.page", _external=True) if here.webmushra is None else "",
        path=config.path,
        original=original(config.path) if original(config.path).exists() else None,
        is_training=config.is_training,
        is_gold=config.is_gold,
    )
