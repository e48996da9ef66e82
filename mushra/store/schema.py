"""Tables of a test's data base, and migrations of older ones.

The tables have personal data only if a questionnaire asked for them or the experimenter named an invitation.
They do not have addresses or browser names. Keys and tokens are stored as SHA-256 only; they have 256 random
bits, so that a slow hash would not add security.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import sqlalchemy as sa

from qincodec.core.errors import UserError, shown

SCHEMA_VERSION = 1

metadata = sa.MetaData()

#: Facts about the data base itself: ``schema_version``, ``secret``, ``admin_password`` (hashed).
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

tests = sa.Table(
    "tests",
    metadata,
    sa.Column("test", sa.String(200), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("closed", sa.Boolean, nullable=False, default=False),
    #: Number of sessions begun so far; also the row that is locked while one begins.
    sa.Column("begun", sa.Integer, nullable=False, default=0),
    sa.Column("created_at", sa.Float, nullable=False),
)

#: Every served configuration, with versions and hashes of the files that listeners heard (JSON).
configs = sa.Table(
    "configs",
    metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("test", sa.ForeignKey("tests.test"), nullable=False),
    sa.Column("yaml", sa.Text, nullable=False),
    sa.Column("versions", sa.Text, nullable=False),
    sa.Column("served_at", sa.Float, nullable=False),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("test", sa.ForeignKey("tests.test"), nullable=False),
    #: anonymous, invitation, prolific, panel; webmushra, import: a session that was submitted whole.
    sa.Column("kind", sa.String(16), nullable=False),
    #: Identifies a person if the test needs it: name of the invitation, a panel's id, hashed cookie.
    sa.Column("person", sa.String(200)),
    #: Number in the order of beginning, from 0; part of the session's random seeds.
    sa.Column("number", sa.Integer, nullable=False),
    #: Row of the balanced order.
    sa.Column("slot", sa.Integer),
    sa.Column("language", sa.String(8)),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
    sa.Column("finished_at", sa.Float),
    sa.Column("config", sa.String(64)),
    #: JSON: the session's pages in order, with the names of their signals.
    sa.Column("plan", sa.Text),
    #: JSON: sample rate and screen, and the completion code that was shown.
    sa.Column("client", sa.Text),
    #: JSON: Prolific's pid, study and session, or person and session of another panel.
    sa.Column("prolific", sa.Text),
    #: From a webMUSHRA client.
    sa.Column("uuid", sa.String(200)),
    #: Hash of a session that was submitted whole, so that a repeated submission is stored once.
    sa.Column("content_sha256", sa.String(64), unique=True),
    sa.Column("excluded_reason", sa.Text),
    sa.Column("excluded_at", sa.Float),
    sa.UniqueConstraint("test", "number"),
    sa.Index("sessions_person", "test", "person"),
    sa.Index("sessions_uuid", "uuid"),
    # Covers the queries on all sessions of a test, so that they do not read rows with their long plans.
    sa.Index("sessions_state", "test", "slot", "state", "seen_at", "excluded_at", "number", "id"),
)

session_keys = sa.Table(
    "session_keys",
    metadata,
    sa.Column("key_sha256", sa.String(64), primary_key=True),
    sa.Column("session", sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
)

pages = sa.Table(
    "pages",
    metadata,
    sa.Column("session", sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("page", sa.String(64), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("trial", sa.Text, nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    #: Whether its grades are left out of results: training, or gold (see `mushra.store.gold`).
    sa.Column("training", sa.Boolean, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("time_ms", sa.Float, nullable=False),
    #: JSON from the page, without unknown keys.
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("saved_at", sa.Float, nullable=False),
)

#: One row per rated signal, or per pair. ``score`` is that of ``stimulus``, ``reference_score`` that of
#: ``reference`` (BS.1116); ``answer`` is a choice in words.
ratings = sa.Table(
    "ratings",
    metadata,
    sa.Column("session", sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("page", sa.String(64), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("trial", sa.Text, nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("stimulus", sa.Text, nullable=False),
    sa.Column("reference", sa.Text),
    sa.Column("score", sa.Float),
    sa.Column("reference_score", sa.Float),
    sa.Column("answer", sa.Text),
    sa.Column("time_ms", sa.Float),
    sa.Column("comment", sa.Text, nullable=False, default=""),
    #: JSON: plays, heard_ms, moves, first_ms.
    sa.Column("detail", sa.Text),
)

#: Place in the questionnaire.
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("session", sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
)

invitations = sa.Table(
    "invitations",
    metadata,
    sa.Column("token_sha256", sa.String(64), primary_key=True),
    sa.Column("test", sa.ForeignKey("tests.test"), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("session", sa.ForeignKey("sessions.id", ondelete="SET NULL")),
    #: Remains when the session is erased, so that the link does not work a second time.
    sa.Column("used_at", sa.Float),
    sa.UniqueConstraint("test", "name"),
)

#: Signed-in browsers (kind "session"), and links that sign in once (kind "link").
admin_tokens = sa.Table(
    "admin_tokens",
    metadata,
    sa.Column("token_sha256", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
)

#: Version of the schema -> migration to the next one. Published versions remain here.
MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {}


def is_empty(where: str) -> str:
    """Message about a data base without tables that should have some."""
    log = f"{where[:-1]}-wal{where[-1:]}"
    return (
        f"is empty. If it was copied while its test was served, its results are in {log}:"
        " copy that file, too, or make the copy with `mushra backup`"
    )


def insert_once(connection: sa.Connection, table: sa.Table, values: dict[str, object]) -> None:
    """Insert a row unless another host has inserted it first."""
    try:
        with connection.begin_nested():
            connection.execute(table.insert().values(values))
    except sa.exc.IntegrityError:
        pass


def listeners(connection: sa.Connection, only: Collection[str] | None = None) -> dict[str, str]:
    """Session -> listener, of the sessions ``only`` or of all.

    A listener is named by the session (webMUSHRA's uuid if there is one). A person with several sessions of a
    test is named by the first one, whether it counts or not.
    """
    columns = (sessions.c.id, sessions.c.test, sessions.c.person, sessions.c.uuid)
    query = sa.select(*columns).order_by(sessions.c.number)
    first: dict[tuple[str, str], str] = {}
    if only is not None:
        query = query.where(sessions.c.id.in_(sorted(only)))
        same, theirs = sessions.alias(), sessions.alias()
        people = sa.select(theirs.c.test, theirs.c.person).where(theirs.c.id.in_(sorted(only))).distinct()
        several = people.where(theirs.c.person.is_not(None)).subquery()
        earlier = sa.select(same.c.id, same.c.test, same.c.person, same.c.uuid).order_by(same.c.number)
        known = (same.c.test == several.c.test) & (same.c.person == several.c.person)
        for row in connection.execute(earlier.join(several, known)):
            first.setdefault((row.test, row.person), row.uuid or row.id)
    found = {}
    for row in connection.execute(query):
        own = row.uuid or row.id
        found[row.id] = first.setdefault((row.test, row.person), own) if row.person else own
    return found


def people(connection: sa.Connection) -> dict[str, str]:
    """Session -> the listener's name in an invitation or at a panel, if there is one."""
    columns = (sessions.c.id, sessions.c.kind, sessions.c.person)
    found = connection.execute(sa.select(*columns).where(sessions.c.kind != "anonymous"))
    named = [(row.id, row.kind, row.person) for row in found if row.person]
    # Prolific's ids are stored as study/participant.
    return {id: who.partition("/")[2] if kind == "prolific" else who for id, kind, who in named}


def older_version(connection: sa.Connection) -> int | None:
    """Version of a data base that `prepare` will migrate; None for any other data base."""
    if not sa.inspect(connection).has_table("meta"):
        return None
    found = connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema_version")).scalar()
    older = [version for version in range(1, SCHEMA_VERSION) if str(version) == found]
    return older[0] if older else None


def prepare(connection: sa.Connection, where: str, *, create: bool = True) -> bool:
    """Create the tables in an empty data base (True), or migrate an older one to the current version.

    Run it in one transaction. Raises `UserError` for a data base of a later version or of another program, or
    for an empty one that must not be created.
    """
    if connection.dialect.name == "postgresql":
        # Several hosts may start at once; the second one waits until the first one is done.
        connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7283645)"))
    names = set(sa.inspect(connection).get_table_names())
    if "meta" not in names:
        if {"sessions", "pages", "tests"} & names:
            raise UserError(f"{where} is the data base of something else; give another")
        if not create:
            here = connection.dialect.name == "sqlite"
            raise UserError(f"{where} {is_empty(where) if here else 'is empty; `mushra serve` fills it'}")
        metadata.create_all(connection)
        connection.execute(meta.insert().values(key="schema_version", value=str(SCHEMA_VERSION)))
        return True
    found = connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema_version")).scalar()
    if found is None:
        raise UserError(f"{where} is the data base of something else; give another")
    if not re.fullmatch("[1-9][0-9]{0,8}", str(found)):
        raise UserError(
            f"{where} has schema {shown(found)}, schemas are numbered from 1: something else has changed it;"
            " put a backup in its place"
        )
    version = int(found)
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{where} has schema {version}, this version reads up to {SCHEMA_VERSION}; use the version that"
            " wrote it, or a later one"
        )
    while version < SCHEMA_VERSION:
        MIGRATIONS[version](connection)
        version += 1
        connection.execute(meta.update().where(meta.c.key == "schema_version").values(value=str(version)))
    if create:
        # A table of a later version is not an error: older versions do not need it.
        for index in sessions.indexes:
            index.create(connection, checkfirst=True)
    missing = sorted(set(metadata.tables) - names)
    if missing:
        raise UserError(
            f"{where} has no table {', '.join(missing)}: something else has changed it; put a backup in"
            " its place"
        )
    return False
