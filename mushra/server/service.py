"""Shared state of the web application: the test, its store, its stimuli, its rate limits."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from flask import current_app

from mushra.config.pages import TestConfig
from mushra.server.crowd import Crowd
from mushra.server.files import Stimuli
from mushra.server.plots import Plots
from mushra.server.security import RateLimit
from mushra.server.session_pages import places, session_pages
from mushra.store import records
from mushra.store.pages import SessionPage
from mushra.store.records import Places, Session
from mushra.store.store import Store
from qincodec import __version__
from qincodec.core.errors import UserError

#: Sessions whose pages are kept in memory.
MAX_SESSIONS = 2000


@dataclass(frozen=True)
class Limits:
    """Rate limits: (at once, per second in the long run). A whole class behind one address shares them."""

    begin: tuple[float, float] = (100, 1)
    save: tuple[float, float] = (60, 5)
    submit: tuple[float, float] = (100, 1)
    sign_in: tuple[float, float] = (8, 0.1)


class ConfigChanged(Exception):
    """The test was edited since a session was planned."""


@dataclass
class Service:
    """A served test.

    Attributes:
        config: None when only a webMUSHRA checkout is served.
        webmushra: its folder.
        config_sha256: hash of the configuration in the data base.
        submissions: whether whole sessions are accepted from webMUSHRA's own client.
        panel_secret: secret with which a panel signs its links; None: there is none.
        public_address: of the listening page, for links; None: the address of the request.
        cache: folder for anchors and plots.
    """

    store: Store
    config: TestConfig | None
    stimuli: Stimuli | None
    webmushra: Path | None
    limits: Limits
    plots: Plots
    config_sha256: str = ""
    submissions: bool = False
    panel_secret: str | None = None
    public_address: str | None = None
    cache: Path = Path("cache")
    crowd: Crowd = field(init=False, default_factory=Crowd)
    begin_limit: RateLimit = field(init=False)
    save_limit: RateLimit = field(init=False)
    submit_limit: RateLimit = field(init=False)
    sign_in_limit: RateLimit = field(init=False)

    def __post_init__(self) -> None:
        self.begin_limit = RateLimit(*self.limits.begin)
        self.save_limit = RateLimit(*self.limits.save)
        self.submit_limit = RateLimit(*self.limits.submit)
        self.sign_in_limit = RateLimit(*self.limits.sign_in)
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def test(self) -> str | None:
        """Id of the test; None for a webMUSHRA checkout, which may have several tests."""
        return self.config.test_id if self.config is not None else None

    @property
    def places(self) -> Places:
        """Planned sessions of the test; any number for a checkout."""
        return places(self.config) if self.config is not None else Places(1)

    def change(self, config: TestConfig, stimuli: Stimuli, config_sha256: str) -> None:
        """Serve another configuration of the same test to listeners who begin from now on."""
        with self._lock:
            self.config, self.stimuli, self.config_sha256 = config, stimuli, config_sha256

    def pages_of(self, number: int, slot: int) -> list[SessionPage]:
        assert self.config is not None and self.stimuli is not None
        return session_pages(self.config, self.stimuli, number, slot)

    def session(self, session: str, key: str) -> Session | None:
        """The session if the key belongs to it, otherwise None.

        Raises:
            Unknown: the session does not exist.
        """
        with self._lock:
            found = self._sessions.get(session)
        if found is None or not found.opened_by(key):
            # This host or another may have added a key since.
            with self.store.read() as connection:
                found = records.load_session(connection, session)
            if not found.opened_by(key):
                return None
        with self._lock:
            self._sessions[session] = found
            self._sessions.move_to_end(session)
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return found

    def forget(self, session: str) -> None:
        """Drop the session from memory, so that it is read again next time."""
        with self._lock:
            self._sessions.pop(session, None)


def service() -> Service:
    """Service of the application that handles this request."""
    found = current_app.extensions["mushra"]
    assert isinstance(found, Service)
    return found


def new_key() -> str:
    """A new secret of 256 random bits, to be stored as a hash."""
    return secrets.token_urlsafe(32)


def check_panel(config: TestConfig, secret: str | None) -> None:
    """Raises `UserError` if links must be signed and there is no secret to check them."""
    section = config.section
    if section.identification == "panel" and section.panel.sign is not None and secret is None:
        raise UserError(
            f"'{config.path}' accepts only signed links of a panel, but there is no secret to check them;"
            " give the one that you share with the panel in the variable MUSHRA_PANEL_SECRET"
        )


def versions(stimuli: Stimuli | None) -> dict[str, object]:
    """Versions on which results depend: program, Python, and every file that listeners hear."""
    packages = ("flask", "sqlalchemy", "waitress")
    return {
        "qincodec": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "stimuli_sha256": stimuli.hashes() if stimuli is not None else {},
    }


def assets_version(folder: Path) -> str:
    """Hash of the page's own files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
