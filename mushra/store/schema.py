"""Tables of a test's data base and how an older one becomes today's.

Nothing here is about a person unless a questionnaire asked for it or the experimenter named an invitation:
no addresses, no browser names. Keys and tokens are kept as SHA-256 only; they have 256 random bits, so that
a slow hash would add nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError

from qincodec.core.errors import UserError

SCHEMA_VERSION = 1

metadata = MetaData()

#: Facts about the data base itself: ``schema_version``, ``secret``, ``admin_password`` (hashed).
meta = Table(
    "meta", metadata, Column("key", String(64), primary_key=True), Column("value", Text, nullable=False)
)

tests = Table(
    "tests",
    metadata,
    Column("test", String(200), primary_key=True),
    Column("name", Text, nullable=False),
    Column("closed", Boolean, nullable=False, default=False),
    #: Number of sessions begun so far; also the row that is locked while one begins.
    Column("begun", Integer, nullable=False, default=0),
    Column("created_at", Float, nullable=False),
)

#: Every configuration that was served, with versions and hashes of what listeners heard (JSON).
configs = Table(
    "configs",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("test", ForeignKey("tests.test"), nullable=False),
    Column("yaml", Text, nullable=False),
    Column("versions", Text, nullable=False),
    Column("served_at", Float, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("test", ForeignKey("tests.test"), nullable=False),
    #: anonymous, invitation, prolific; webmushra, import: a whole session that came in one piece.
    Column("kind", String(16), nullable=False),
    #: What tells people apart where that was asked for: name of the invitation, Prolific's id, hashed cookie.
    Column("person", String(200)),
    #: Order of beginning, from 0; seeds what is random about the session.
    Column("number", Integer, nullable=False),
    #: Row of the balanced order.
    Column("slot", Integer),
    Column("language", String(8)),
    Column("state", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("config", String(64)),
    #: JSON: the session's pages in its order, and what their signals are.
    Column("plan", Text),
    #: JSON: sample rate and screen.
    Column("client", Text),
    #: JSON: Prolific's pid, study and session.
    Column("prolific", Text),
    #: Of a webMUSHRA client.
    Column("uuid", String(200)),
    #: Hash of a session that came in one piece, so that it is stored once however often it is sent.
    Column("content_sha256", String(64), unique=True),
    Column("excluded_reason", Text),
    Column("excluded_at", Float),
    UniqueConstraint("test", "number"),
    Index("sessions_person", "test", "person"),
)

session_keys = Table(
    "session_keys",
    metadata,
    Column("key_sha256", String(64), primary_key=True),
    Column("session", ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
)

pages = Table(
    "pages",
    metadata,
    Column("session", ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("page", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("trial", Text, nullable=False),
    Column("type", String(32), nullable=False),
    Column("training", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("time_ms", Float, nullable=False),
    #: JSON, as the page sent it, unknown keys left out.
    Column("result", Text, nullable=False),
    Column("saved_at", Float, nullable=False),
)

#: One row per rated signal, or per pair. ``score`` is that of ``stimulus``, ``reference_score`` that of
#: ``reference`` (BS.1116); ``answer`` is a choice in words.
ratings = Table(
    "ratings",
    metadata,
    Column("session", ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("page", String(64), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("trial", Text, nullable=False),
    Column("type", String(32), nullable=False),
    Column("stimulus", Text, nullable=False),
    Column("reference", Text),
    Column("score", Float),
    Column("reference_score", Float),
    Column("answer", Text),
    Column("time_ms", Float),
    Column("comment", Text, nullable=False, default=""),
    #: JSON: plays, heard_ms, moves, first_ms.
    Column("detail", Text),
)

#: Of the questionnaire, in its order.
answers = Table(
    "answers",
    metadata,
    Column("session", ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
)

invitations = Table(
    "invitations",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("test", ForeignKey("tests.test"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("session", ForeignKey("sessions.id", ondelete="SET NULL")),
    #: Stays when the session is erased, so that the link does not work a second time.
    Column("used_at", Float),
    UniqueConstraint("test", "name"),
)

#: Who is signed in (kind "session"), and links that sign in once (kind "link").
admin_tokens = Table(
    "admin_tokens",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("expires_at", Float, nullable=False),
)

#: Version of the schema -> what makes the next one of it. Versions that were published stay here.
MIGRATIONS: dict[int, Callable[[Connection], None]] = {}


def is_empty(where: str) -> str:
    """What to say about a data base without tables that should have some."""
    log = f"{where[:-1]}-wal{where[-1:]}"
    return (
        f"is empty. If it was copied while its test was served, its results are in {log}:"
        " copy that file, too, or make the copy with `mushra backup`"
    )


def insert_once(connection: Connection, table: Table, values: dict[str, object]) -> None:
    """Insert a row, unless another host was quicker."""
    try:
        with connection.begin_nested():
            connection.execute(table.insert().values(values))
    except IntegrityError:
        pass


def listeners(connection: Connection) -> dict[str, str]:
    """Session -> listener: the session itself (webMUSHRA's uuid, where there is one), or of someone who has
    had several of a test the first, whether that one counts or not."""
    rows = connection.execute(
        select(*(sessions.c[name] for name in ("id", "test", "person", "uuid"))).order_by(sessions.c.number)
    )
    first: dict[tuple[str, str], str] = {}
    found = {}
    for row in rows:
        own = row.uuid or row.id
        found[row.id] = first.setdefault((row.test, row.person), own) if row.person else own
    return found


def prepare(connection: Connection, where: str, *, create: bool = True) -> bool:
    """Create the tables in an empty data base (True), or bring an older one to today's version.

    Run it in one transaction. Raises `UserError` for a data base of a later version, or of something else,
    or for an empty one that is not to be created.
    """
    if connection.dialect.name == "postgresql":
        # Several hosts may start at once.
        connection.execute(text("SELECT pg_advisory_xact_lock(7283645)"))
    names = set(inspect(connection).get_table_names())
    if "meta" not in names:
        if {"sessions", "pages", "tests"} & names:
            raise UserError(f"{where} is the data base of something else; give another")
        if not create:
            here = connection.dialect.name == "sqlite"
            raise UserError(f"{where} {is_empty(where) if here else 'is empty; `mushra serve` fills it'}")
        metadata.create_all(connection)
        connection.execute(meta.insert().values(key="schema_version", value=str(SCHEMA_VERSION)))
        return True
    found = connection.execute(select(meta.c.value).where(meta.c.key == "schema_version")).scalar()
    if found is None or not found.isdigit():
        raise UserError(f"{where} is the data base of something else; give another")
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
    return False
