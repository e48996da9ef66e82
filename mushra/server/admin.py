"""The experimenter's pages: progress, sessions, invitations, export, first plots.

All pages except the sign-in page need the cookie of a signed-in browser. Every change is a POST from this
server's own pages.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args

from flask import Blueprint, Response, abort, redirect, render_template, request, send_file, url_for
from werkzeug.wrappers import Response as BaseResponse

from mushra.config.locate import key_beside
from mushra.server import sign_in
from mushra.server.address import loopback_warning
from mushra.server.api import limit
from mushra.server.crowd import STATES
from mushra.server.progress import SessionState, list_invitations, list_sessions
from mushra.server.security import is_cross_site
from mushra.server.service import Service, service
from mushra.store import export as exporting  # as a module: it imports this package, too
from mushra.store import records
from mushra.store.failures import store_errors
from mushra.store.given import nobody_gave
from mushra.store.pages import storable
from mushra.store.payments import list_payments, payments_csv
from mushra.store.records import Unknown
from qincodec.core.errors import UserError

blueprint = Blueprint("admin", __name__)

COOKIE = "mushra_admin"
#: Cookie of a browser that has signed in before.
DEVICE = "mushra_device"
MAX_FORM_BYTES = 256 * 1024
MAX_REASON = 500
_OPEN = ("admin.sign_in_page", "admin.sign_in_now")


@blueprint.before_request
def guard() -> BaseResponse | None:
    """Refuse requests without a sign-in, and changes that come from another site's page."""
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        request.max_content_length = MAX_FORM_BYTES
        if is_cross_site(request):
            abort(403, "This request does not come from this server's own pages.")
    if request.endpoint in _OPEN:
        return None
    token = request.cookies.get(COOKIE, "")
    if token and sign_in.is_signed_in(service().store, token):
        return None
    if request.method in ("GET", "HEAD"):
        return redirect(url_for("admin.sign_in_page"))
    return abort(403, "You are no longer signed in; sign in and try again.")


@blueprint.app_template_filter("when")
def when(seconds: float | None) -> str:
    """A time as text, in UTC."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


@blueprint.app_template_filter("span")
def span(seconds: float) -> str:
    """A duration as text."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@blueprint.app_template_filter("from_json")
def from_json(text: object) -> Any:
    """A rating's detail; empty if it has none."""
    return json.loads(text) if isinstance(text, str) else {}


@blueprint.app_template_filter("score")
def score(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


@blueprint.app_template_test("given_by_nobody")
def given_by_nobody(rating: dict[str, Any]) -> bool:
    """Whether a rating in a session's document has a score without a move (`mushra.store.given`)."""
    return nobody_gave(rating.get("score"), from_json(rating.get("detail")).get("moves"))


# Signing in


@blueprint.get("/sign-in")
def sign_in_page() -> str:
    return render_template("admin/sign_in.html", password=sign_in.has_password(service().store), wrong=False)


@blueprint.post("/sign-in")
def sign_in_now() -> BaseResponse | tuple[str, int]:
    here = service()
    token, password = request.form.get("token", "").strip(), request.form.get("password", "")
    device = sign_in.known_device(here.store, request.cookies.get(DEVICE, ""))
    right = 0 < len(token) <= 200 and sign_in.use_link(here.store, storable(token))
    if not right:
        limit(here.sign_in_limit, f"device {device}" if device else f"address {request.remote_addr}")
        right = 0 < len(password) <= 1000 and sign_in.is_password(here.store, password)
    if not right:
        known = sign_in.has_password(here.store)
        return render_template("admin/sign_in.html", password=known, wrong=True), 403
    response = redirect(url_for("admin.overview"))
    for name, value, lasts_s in (
        (COOKIE, sign_in.new_session(here.store), sign_in.SESSION_LASTS_S),
        (DEVICE, sign_in.new_device(here.store), sign_in.DEVICE_LASTS_S),
    ):
        response.set_cookie(
            name,
            value,
            max_age=int(lasts_s),
            path=url_for("admin.overview"),
            httponly=True,
            secure=request.is_secure,
            samesite="Strict",
        )
    return response


@blueprint.post("/sign-out")
def sign_out() -> BaseResponse:
    sign_in.sign_out(service().store, request.cookies.get(COOKIE, ""))
    response = redirect(url_for("admin.sign_in_page"))
    response.delete_cookie(COOKIE, path=url_for("admin.overview"))
    return response


# Reading


@blueprint.get("/")
def overview() -> str:
    here = service()
    which, page = request.args.get("which", ""), request.args.get("page", "1")
    if which not in ("", *STATES) or not re.fullmatch("[1-9][0-9]{0,5}", page):
        abort(404)
    with store_errors(here.store.name), here.store.read() as connection:
        found = here.crowd.overview(connection, here.test, here.places, which, int(page))
        closed = here.test is not None and records.is_closed(connection, here.test)
    return _page(
        "overview",
        here,
        found=found,
        which=which,
        n_blocks=here.places.blocks,
        closed=closed,
        several=here.test is None,
    )


@blueprint.get("/sessions/<session>")
def session_page(session: str) -> str:
    here = service()
    found = _known(here, session)
    with store_errors(here.store.name):
        described = exporting.document(here.store, key=_key(here), session=session)["sessions"][0]
    return _page("session", here, state=found, session=described)


@blueprint.get("/invitations")
def invitations() -> str:
    return _invitations(service(), {})


def _invitations(here: Service, made: dict[str, str], wrong: str = "") -> str:
    with here.store.read() as connection:
        rows = list_invitations(connection, here.test)
    own = url_for("listen.page", _external=True) if here.webmushra is None else ""
    listen = here.public_address or own
    links = {name: f"{listen}?t={token}" for name, token in made.items()}
    used = here.config is not None and here.config.section.identification == "invitation"
    warning = loopback_warning(listen) if links else None
    return _page("invitations", here, invitations=rows, links=links, used=used, wrong=wrong, warning=warning)


@blueprint.get("/analysis")
def analysis() -> str:
    here = service()
    busy, done = here.plots.state()
    return _page("analysis", here, busy=busy, done=done)


@blueprint.get("/analysis/<name>.png")
def figure(name: str) -> Response:
    path = service().plots.figure(name)
    if path is None:
        abort(404)
    return send_file(path, mimetype="image/png", max_age=0)


def _page(name: str, here: Service, **values: Any) -> str:
    title = here.config.testname if here.config is not None else "webMUSHRA"
    return render_template(f"admin/{name}.html", title=title, here=name, test=here.test, **values)


# Exporting


@blueprint.get("/export/<kind>")
def export(kind: str) -> Response:
    here = service()
    everything = request.args.get("all") == "1"
    if kind not in get_args(exporting.Format):
        abort(404)
    files = exporting.render(
        here.store, cast(exporting.Format, kind), key=_key(here), test=here.test, everything=everything
    )
    if not files:
        abort(404, "There is nothing to export yet: no session that counts is finished.")
    if kind == "webmushra":
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return _download(data.getvalue(), "webmushra.zip", "application/zip")
    ((name, text),) = files.items()
    return _download(text.encode(), name, "text/csv" if kind == "tidy" else "application/json")


@blueprint.get("/payments.csv")
def payments() -> Response:
    here, test = own_test()
    with store_errors(here.store.name), here.store.read() as connection:
        rows = list_payments(connection, test, here.places)
    return _download(payments_csv(rows).encode(), "payments.csv", "text/csv")


@blueprint.get("/sessions/<session>/export")
def export_session(session: str) -> Response:
    here = service()
    _known(here, session)
    with store_errors(here.store.name):
        content = exporting.document(here.store, key=_key(here), test=here.test, session=session)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    return _download(text.encode(), f"session-{session[:8]}.json", "application/json")


def _download(data: bytes, name: str, mimetype: str) -> Response:
    return send_file(io.BytesIO(data), mimetype=mimetype, as_attachment=True, download_name=name, max_age=0)


def _key(here: Service) -> Path | None:
    """The test's key.json, if it has one; only the experimenter may see it."""
    return key_beside(here.config.path) if here.config is not None else None


# Changing


@blueprint.post("/sessions/<session>/exclude")
def exclude(session: str) -> BaseResponse:
    reason = storable(request.form.get("reason", "").strip())
    if not 0 < len(reason) <= MAX_REASON:
        abort(400, f"Give a reason of 1 to {MAX_REASON} characters: it is stored with the session.")
    return _change(session, reason)


@blueprint.post("/sessions/<session>/include")
def include(session: str) -> BaseResponse:
    return _change(session, None)


def _change(session: str, reason: str | None) -> BaseResponse:
    here = service()
    _known(here, session)
    here.store.write(lambda connection: records.exclude(connection, session, reason))
    return redirect(url_for("admin.session_page", session=session))


@blueprint.post("/sessions/<session>/erase")
def erase(session: str) -> BaseResponse:
    here = service()
    _known(here, session)
    if request.form.get("sure") != "erase":
        abort(400, "Type the word erase into the field: erased data cannot be restored.")
    here.store.write(lambda connection: records.erase(connection, session))
    here.forget(session)
    left = here.store.forget_erased()
    if left is not None:
        return Response(render_template("admin/erased.html", log=Path(left).name))
    return redirect(url_for("admin.overview"))


def _known(here: Service, session: str) -> SessionState:
    """The session of this test. Raises `Unknown`."""
    if records.is_session_id(session):
        with store_errors(here.store.name), here.store.read() as connection:
            after_s = here.places.dropped_after_s
            for found in list_sessions(connection, here.test, [session], dropped_after_s=after_s):
                return found
    raise Unknown


def own_test() -> tuple[Service, str]:
    """The served test; 404 if only a checkout is served."""
    here = service()
    if here.test is None:
        abort(404)
    return here, here.test


@blueprint.post("/closed")
def set_closed() -> BaseResponse:
    here, test = own_test()
    closed = request.form.get("closed") == "1"
    here.store.write(lambda connection: records.set_closed(connection, test, closed))
    return redirect(url_for("admin.test_page"))


@blueprint.post("/invitations")
def invite() -> str | tuple[str, int]:
    here, test = own_test()
    names = [line.strip() for line in request.form.get("names", "").splitlines() if line.strip()]
    try:
        made = here.store.write(lambda connection: records.invite(connection, test, names[:1000]))
    except records.Refused as error:
        return _invitations(here, {}, str(error)), 400
    return _invitations(here, made)


@blueprint.post("/invitations/withdraw")
def withdraw() -> BaseResponse:
    here, test = own_test()
    name = storable(request.form.get("name", ""))
    if not here.store.write(lambda connection: records.withdraw(connection, test, name)):
        abort(404, "This invitation does not exist or has been used.")
    return redirect(url_for("admin.invitations"))


@blueprint.post("/analysis")
def draw() -> BaseResponse:
    here = service()
    try:
        here.plots.start(here.store.target, here.test, here.config.path if here.config else None)
    except UserError as error:
        abort(503, str(error))
    return redirect(url_for("admin.analysis"))
