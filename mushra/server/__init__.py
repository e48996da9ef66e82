"""The listening test's server: a Flask application over one data base."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

import platformdirs
from flask import Flask, Response, current_app, jsonify, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from mushra.config.pages import TestConfig
from mushra.server import admin, admin_editing, admin_preview, api, health, webmushra
from mushra.server.files import Stimuli
from mushra.server.incoming import BadResult
from mushra.server.plots import Plots
from mushra.server.security import BadBody, add_headers
from mushra.server.service import Limits, Service, assets_version, check_panel, new_key, versions
from mushra.store import records
from mushra.store.failures import StoreUnavailable
from mushra.store.records import Conflict, Refused, Unknown
from mushra.store.store import Store
from qincodec.core.errors import UserError

__all__ = ["Limits", "create_app"]

#: Modules that add views to `admin.blueprint`.
_ADMIN = (admin_editing, admin_preview)

#: Largest body of a request, unless a view sets less; webMUSHRA's client sends the whole configuration, too.
MAX_BODY_BYTES = 8 * 1024 * 1024

MAX_TEST_ID = 200

#: Key of the secret with which a panel signs its links, in the data base.
PANEL_SECRET = "panel_secret"

_log = logging.getLogger("mushra.server")


def create_app(
    config: TestConfig | None,
    database: str | Path,
    *,
    cache: Path | None = None,
    webmushra_folder: Path | None = None,
    submissions: bool = False,
    prefix: str = "",
    trusted_proxies: int = 0,
    limits: Limits | None = None,
    panel_secret: str | None = None,
) -> Flask:
    """The application of one test. ``app.extensions["mushra"].store.close()`` when done.

    Args:
        config: from `mushra.config.load.load_config`; None to serve only a webMUSHRA checkout.
        database: file of a SQLite data base, made if needed, or URL of a PostgreSQL one.
        cache: folder for anchors and plots; default: ``cache`` beside the SQLite file. With PostgreSQL: in
            the test's folder, or in the user's cache if there is no test.
        webmushra_folder: webMUSHRA checkout whose pages are served; results are stored here.
        submissions: accept whole sessions from webMUSHRA's own client at ``service/write.php``, as with a
            checkout.
        prefix: path below which everything is served, from `clean_prefix`; "": at the top.
        trusted_proxies: number of reverse proxies that set X-Forwarded-For, -Proto, -Host and -Prefix.
        limits: rate limits; default: `Limits`.
        panel_secret: secret with which a panel signs its links; stored in the data base. Default: the stored
            one.

    Raises:
        UserError: data base or stimuli cannot be used.
    """
    if webmushra_folder is not None and not (webmushra_folder / "index.html").is_file():
        raise UserError(
            f"'{webmushra_folder}' is not a checkout of webMUSHRA: it has no index.html; give its folder"
        )
    submissions = submissions or webmushra_folder is not None
    asks_who = config is not None and config.section.identification != "anonymous"
    if submissions and config is not None and asks_who:
        raise UserError(
            f"'{config.path}' identifies listeners by '{config.section.identification}', which webMUSHRA's"
            " own page cannot do; serve it with our page, or write `identification: anonymous` into its"
            " section `qincodec`"
        )
    store = Store(database)
    try:
        cache = cache or _cache(database, config)
        here = _service(store, config, cache, webmushra_folder, limits or Limits(), panel_secret)
    except BaseException:
        store.close()
        raise
    app = Flask(__name__, static_folder="static", static_url_path="/static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY_BYTES
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = None  # browsers ask each time and get 304
    app.config["ASSETS_VERSION"] = assets_version(Path(app.static_folder or ""))
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["mushra"] = here
    app.extensions["mushra-health"] = health.Health(store)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(admin.blueprint, url_prefix="/admin")
    here.submissions = submissions
    here.cache = cache
    app.register_blueprint(webmushra.submissions)
    if webmushra_folder is not None:
        app.register_blueprint(webmushra.checkout)
    else:
        app.register_blueprint(api.blueprint)
    app.after_request(add_headers)
    _handle_errors(app)
    if prefix:
        app.wsgi_app = _Below(app.wsgi_app, prefix)  # type: ignore[method-assign]
    if trusted_proxies:
        n = trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=n, x_proto=n, x_host=n, x_prefix=n)  # type: ignore[method-assign]
    return app


class _Below:
    """An application below a path; other paths get 404."""

    def __init__(self, app: Any, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        path = environ.get("PATH_INFO", "")
        if path == self._prefix:  # links of the page are relative to the folder
            query = f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else ""
            name = self._prefix.rpartition("/")[2]
            answer = Response(status=308, headers={"Location": f"{quote(name)}/{query}"})
            answer.autocorrect_location_header = False
            return answer(environ, start_response)
        if not path.startswith(f"{self._prefix}/"):
            return Response("Not found.\n", 404, mimetype="text/plain")(environ, start_response)
        script = environ.get("SCRIPT_NAME", "") + self._prefix
        below = {**environ, "SCRIPT_NAME": script, "PATH_INFO": path.removeprefix(self._prefix)}
        return self._app(below, start_response)


def _cache(database: str | Path, config: TestConfig | None) -> Path:
    if "://" not in str(database):
        return Path(database).parent / "cache"
    return config.root / "cache" if config else platformdirs.user_cache_path("qincodec") / "mushra"


def _service(
    store: Store,
    config: TestConfig | None,
    cache: Path,
    checkout: Path | None,
    limits: Limits,
    panel_secret: str | None,
) -> Service:
    secret = store.meta("secret", new_key)
    if panel_secret is not None:
        store.set_meta(PANEL_SECRET, panel_secret)
    panel_secret = store.get_meta(PANEL_SECRET)
    plots = Plots(cache / "plots")
    if config is not None and len(config.test_id) > MAX_TEST_ID:
        raise UserError(f"testId has {len(config.test_id)} characters; at most {MAX_TEST_ID} can be stored")
    if config is None:
        return Service(store, None, None, checkout, limits, plots)
    stimuli = Stimuli(config, secret, cache / "anchors")
    yaml = config.path.read_text(encoding="utf-8-sig")
    content = versions(stimuli)
    test, name = config.test_id, config.testname
    store.write(lambda connection: records.ensure_test(connection, test, name))
    digest = store.write(lambda connection: records.ensure_config(connection, test, yaml, content))
    check_panel(config, panel_secret)
    return Service(store, config, stimuli, checkout, limits, plots, digest, panel_secret=panel_secret)


def _handle_errors(app: Flask) -> None:
    """Answer errors as JSON to the listening page, as a page of text to people."""

    def answer(status: int, code: str, message: str, **headers: str) -> tuple[Any, int, dict[str, str]]:
        if request.path.startswith("/api/"):
            return jsonify({"error": message, "code": code}), status, headers
        return Response(message + "\n", mimetype="text/plain"), status, headers

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Any:
        if error.code is not None and error.code < 400:
            return error
        retry = getattr(error, "retry_after", None)
        headers = {"Retry-After": str(retry)} if retry is not None else {}
        code = error.name.lower().replace(" ", "_")
        return answer(error.code or 500, code, str(error.description), **headers)

    @app.errorhandler(Refused)
    @app.errorhandler(BadResult)
    def refused(error: Refused | BadResult) -> Any:
        return answer(403 if isinstance(error, Refused) else 400, error.code, str(error))

    @app.errorhandler(BadBody)
    def body(error: BadBody) -> Any:
        return answer(400, "invalid", str(error))

    @app.errorhandler(Unknown)
    def unknown(_: Unknown) -> Any:
        return answer(404, "not_found", "This session does not exist; it may have been erased.")

    @app.errorhandler(Conflict)
    def conflict(error: Conflict) -> Any:
        return answer(409, error.code, str(error))

    @app.errorhandler(StoreUnavailable)
    def unavailable(error: StoreUnavailable) -> Any:
        _log.error("the data base cannot store anything: %s", error)
        wait = {"Retry-After": "5"}
        if request.blueprint == "admin":
            again = request.method in ("GET", "HEAD")
            return render_template("admin/unavailable.html", error=error, again=again), 503, wait
        message = f"Nothing can be stored now ({error.summary}). Your entries are kept and sent again."
        return answer(503, "unavailable", message, **wait)

    @app.errorhandler(UserError)
    def user_error(error: UserError) -> Any:
        if request.blueprint != "admin":  # only the experimenter can act on it
            return unexpected(error)
        _log.error("%s", error)
        return answer(500, "unreadable", str(error))

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Any:
        # The path only: the query may contain an invitation.
        current_app.logger.error("%s %s failed", request.method, request.path, exc_info=error)
        return answer(500, "internal_server_error", "Something went wrong on the server; please try again.")
