"""The data base of sessions: one SQLite file, or PostgreSQL for several hosts.

When `Store.write` returns, its change is on the disk (SQLite: WAL with synchronous=FULL). SQLite allows one
writer at a time. Therefore one thread does all writing. Waiting writes share one transaction, each in its own
savepoint: a hundred listeners who save at once cost one flush of the disk, not a hundred. Another thread, for
which no listener waits, copies the log into the file within about a second. So a plain copy of the file is
nearly current.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError

from mushra.store import schema
from mushra.store.failures import LOCKED, StoreUnavailable, explained, sqlite_code, worth_a_retry
from qincodec.core.errors import UserError

T = TypeVar("T")

_log = logging.getLogger("mushra.server")

BUSY_TIMEOUT_S = 10.0
#: Seconds for which a write waits for earlier ones; then it fails and is sent again later. A locked file must
#: not block all threads of the server.
PATIENCE_S = 4.0
#: Seconds to reach PostgreSQL, and for its answer; its network may be down.
CONNECT_TIMEOUT_S = 5
#: Most writes that share a transaction.
MAX_BATCH = 64
#: Seconds from a write until SQLite's log is copied into its file.
CHECKPOINT_AFTER_S = 1.0
#: Bytes to which SQLite's log is cut when it restarts.
MAX_LOG_BYTES = 1024 * 1024
#: Attempts at a write if PostgreSQL asks for a repetition (deadlock, lost connection).
ATTEMPTS = 4


class Store:
    """A data base of listening tests, open for reading and writing. Thread-safe. Call `close` at the end.

    Args:
        target: path of a SQLite file, or URL (``sqlite:///...``, ``postgresql://...``).
        create: make the file and the tables if there are none.

    Raises:
        UserError: it cannot be opened, or belongs to another program or a later version.
    """

    def __init__(self, target: str | Path, *, create: bool = True) -> None:
        url = _url(target)
        #: Path or URL with which another process opens the same data base. May contain a password.
        self.target = url.render_as_string(hide_password=False) if url.host else str(target)
        public = url.difference_update_query([name for name in url.query if "password" in name.lower()])
        #: For messages, without a password.
        self.name = public.render_as_string(hide_password=True) if url.host else str(url.database)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            _check_file(Path(url.database or ""), create)
        copied = self.is_sqlite and _has_no_log(Path(url.database or ""))
        try:
            self._engine = _engine(url)
            self._writer = _Writer(self._engine, Path(url.database or "")) if self.is_sqlite else None
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise UserError(f"cannot use data base '{self.name}': {error}") from error
        try:
            where = f"'{self.name}'"
            self._keep_older()
            made = self.write(lambda connection: schema.prepare(connection, where, create=create))
        except StoreUnavailable as error:
            self.close()
            raise UserError(f"cannot open data base '{self.name}': {error}") from error
        except (DBAPIError, sqlite3.Error) as error:  # the latter while the connection is set up
            self.close()
            raise UserError(f"cannot open data base '{self.name}': {explained(error)}") from error
        except UnicodeDecodeError as error:  # SQLite's message contains a piece of a damaged file
            self.close()
            raise UserError(
                f"cannot open data base '{self.name}': the file is damaged: put a backup in its place"
            ) from error
        except Exception:
            self.close()
            raise
        if made and copied:
            _log.warning("%s %s", where, schema.is_empty(where))

    def _keep_older(self) -> None:
        """Copy a data base before its migration, for users who return to the older version."""
        with self.read() as connection:
            version = schema.older_version(connection)
        if version is None:
            return
        if not self.is_sqlite:
            _log.warning("'%s' is migrated from schema %d to %d", self.name, version, schema.SCHEMA_VERSION)
            return
        kept = Path(f"{self.name}-schema{version}")
        part = Path(f"{kept}.{secrets.token_hex(4)}")
        try:
            self.backup(part)
            with closing(sqlite3.connect(part)) as copy:
                found = copy.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
            if found == (str(version),):  # otherwise another server has migrated and kept it first
                part.replace(kept)
                _log.warning("'%s' has schema %d and is kept as '%s'", self.name, version, kept)
        finally:
            part.unlink(missing_ok=True)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the waiting writes, then close."""
        if self._writer is not None:
            self._writer.stop()
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for reading: one consistent state of the data base."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except (DBAPIError, sqlite3.Error) as error:
            raise explained(error) from error

    def write(self, change: Callable[[sa.Connection], T]) -> T:
        """Run ``change`` in a transaction; returns its result when it is on the disk.

        It may run more than once (earlier runs are undone) and should use only its connection.

        Raises:
            StoreUnavailable: nothing was stored.
            Exception: what ``change`` raised; nothing of it was stored.
        """
        if self._writer is not None:
            return self._writer.run(change)
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        for attempt in range(ATTEMPTS):
            try:
                with self._engine.begin() as connection:
                    return change(connection)
            except DBAPIError as error:
                last = attempt + 1 == ATTEMPTS or time.monotonic() > deadline
                if last or not worth_a_retry(error):
                    raise explained(error) from error
                time.sleep(0.02 * 2**attempt)
        raise AssertionError("unreachable")

    def forget_erased(self) -> str | None:
        """Remove erased data from SQLite's log, too; None if this succeeded.

        Otherwise the path of the log that still has them, because another program has read an older state for
        `BUSY_TIMEOUT_S`. A server that has the data base open cuts the log when that program has ended.
        """
        if self._writer is None:
            return None
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        # In short waits, because they block writers. Besides, SQLite does not wait at all for another
        # checkpoint, such as the one after each write.
        while not _checkpoint(self._engine, "TRUNCATE", 0.1):
            if time.monotonic() > deadline:
                return f"{self.name}-wal"
            time.sleep(0.05)
        return None

    def backup(self, to: Path) -> None:
        """Copy the state of a SQLite data base while others read and write it. Raises `UserError`."""
        if not self.is_sqlite:
            address = self.name.replace("+psycopg", "").replace(":***@", "@")  # it asks for the password
            raise UserError(
                "a PostgreSQL data base cannot be copied here; use its own program:"
                f" pg_dump --format=custom --file=results.dump '{address}'"
            )
        source = self._engine.raw_connection()
        try:
            with closing(sqlite3.connect(to)) as copy:
                source.driver_connection.backup(copy)  # type: ignore[union-attr]
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        except sqlite3.Error as error:
            raise UserError(f"cannot write '{to}': {error}") from error
        finally:
            source.close()

    def meta(self, key: str, make: Callable[[], str]) -> str:
        """The value stored under ``key``; if there is none, make and store it, once for all hosts."""

        def change(connection: sa.Connection) -> str:
            statement = sa.select(schema.meta.c.value).where(schema.meta.c.key == key)
            found = connection.execute(statement).scalar()
            if found is None:
                schema.insert_once(connection, schema.meta, {"key": key, "value": make()})
                found = connection.execute(statement).scalar_one()
            return str(found)

        return self.write(change)

    def set_meta(self, key: str, value: str) -> None:
        """Store a value; it replaces an earlier one."""

        def change(connection: sa.Connection) -> None:
            connection.execute(schema.meta.delete().where(schema.meta.c.key == key))
            connection.execute(schema.meta.insert().values(key=key, value=value))

        self.write(change)

    def get_meta(self, key: str) -> str | None:
        with self.read() as connection:
            return connection.execute(sa.select(schema.meta.c.value).where(schema.meta.c.key == key)).scalar()


class _Writer:
    """The only thread that writes to a SQLite file."""

    def __init__(self, engine: sa.Engine, path: Path) -> None:
        self._engine = engine
        self._path = path
        #: Identity of the file, when it exists; and start of the current batch's write.
        self._file: tuple[int, int] | None = None
        self._since: float | None = None
        self._queue: queue.SimpleQueue[tuple[Callable[[sa.Connection], Any], Future[Any]] | None]
        self._queue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopped = False
        self._log_has_more = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._checkpointer = threading.Thread(target=self._bring_in, name="store-log", daemon=True)
        self._thread.start()
        self._checkpointer.start()

    def run(self, change: Callable[[sa.Connection], T]) -> T:
        future: Future[T] = Future()
        with self._lock:
            if self._stopped:
                raise StoreUnavailable("the server is stopping")
            since = self._since
            if since is not None and time.monotonic() - since > PATIENCE_S:
                raise StoreUnavailable(LOCKED)
            self._queue.put((change, future))
        try:
            return future.result(PATIENCE_S)
        except TimeoutError:
            if future.cancel():  # it still waits in the queue
                raise StoreUnavailable(LOCKED) from None
            return future.result()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._queue.put(None)
        self._thread.join()
        self._stopping.set()
        self._log_has_more.set()
        self._checkpointer.join()

    def _work(self) -> None:
        stop = False
        while not stop:
            batch: list[tuple[Callable[[sa.Connection], Any], Future[Any]]] = []
            entry = self._queue.get()
            while entry is not None:
                batch.append(entry)
                if len(batch) == MAX_BATCH or self._queue.empty():
                    break
                entry = self._queue.get()
            stop = entry is None
            if batch:
                self._commit(batch)

    def _bring_in(self) -> None:
        while not self._stopping.is_set():
            self._log_has_more.wait()
            self._stopping.wait(CHECKPOINT_AFTER_S)
            self._log_has_more.clear()
            try:
                # PASSIVE does not block anyone, and the next writer restarts the log if all of it was copied.
                # TRUNCATE does not block anyone either if there are no writes.
                _checkpoint(self._engine, "PASSIVE")
                if not self._log_has_more.is_set() and not _checkpoint(self._engine, "TRUNCATE"):
                    self._log_has_more.set()  # a reader was in the way; erased data must leave the log
            except (sqlite3.Error, SQLAlchemyError, UnicodeDecodeError) as error:
                if sqlite_code(error) != sqlite3.SQLITE_READONLY:  # writers get this error
                    _log.warning("the data base's log cannot be copied into its file: %s", error)

    def _commit(self, batch: list[tuple[Callable[[sa.Connection], Any], Future[Any]]]) -> None:
        batch = [(change, future) for change, future in batch if future.set_running_or_notify_cancel()]
        if not batch:
            return
        outcomes: list[tuple[Any, BaseException | None]] = []
        self._since = time.monotonic()
        try:
            self._check_place()
            with self._engine.begin() as connection:
                outcomes = [self._one(connection, change) for change, _ in batch]
            self._check_place()
        except BaseException as error:
            # The whole transaction failed, so that every write in it must fail.
            reason = explained(error) if isinstance(error, DBAPIError | sqlite3.Error) else error
            outcomes = [(None, reason)] * len(batch)
        self._since = None
        self._log_has_more.set()
        for (_, future), (result, failure) in zip(batch, outcomes, strict=True):
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

    def _check_place(self) -> None:
        """Raise if the file was moved or replaced: data in a file without a name would be lost."""
        try:
            status = self._path.stat()
        except OSError:
            status = None
        here = (status.st_dev, status.st_ino) if status is not None else None
        self._file = self._file or here
        if here is None or here != self._file:
            raise StoreUnavailable(
                "the data base's file was moved or replaced; put it back, or restart the server to use the"
                " new one"
            )

    @staticmethod
    def _one(
        connection: sa.Connection, change: Callable[[sa.Connection], Any]
    ) -> tuple[Any, BaseException | None]:
        savepoint = connection.begin_nested()
        try:
            result = change(connection)
        except OperationalError:
            # Full disk, I/O error: SQLite may have undone the whole transaction, savepoints and all.
            raise
        except Exception as error:
            savepoint.rollback()
            return None, error
        savepoint.commit()
        return result, None


def _url(target: str | Path) -> sa.URL:
    text = str(target)
    if "://" not in text:
        return sa.URL.create("sqlite", database=text)
    try:
        url = sa.make_url(text)
        if url.get_backend_name() != "sqlite" and "@" in (url.host or ""):
            raise ValueError  # the end of a password, which must not be shown
    except (ArgumentError, ValueError):  # the latter also for a port that is not a number
        raise UserError(
            "the data base's URL cannot be read; give a file or postgresql://USER@HOST/DATABASE, with @ in a"
            " password written as %40"
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise UserError(f"a data base of kind '{url.drivername}' is not supported; use sqlite or postgresql")
    return url


def _check_file(path: Path, create: bool) -> None:
    if path.name in ("", ":memory:"):
        raise UserError("the data base must be a file, so that it outlives the server; give its path")
    if not path.exists():
        if not create:
            raise UserError(f"data base '{path}' does not exist; start the test with `mushra serve` first")
        if not path.parent.is_dir():
            raise UserError(f"cannot make data base '{path}': its folder does not exist; make it first")
        try:
            path.touch()  # an empty file is an empty data base
        except OSError as error:
            reason = "its folder cannot be written" if not os.access(path.parent, os.W_OK) else str(error)
            raise UserError(f"cannot make data base '{path}': {reason}; give another file") from error
    elif path.stat().st_size > 0:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                raise UserError(f"'{path}' is not a SQLite data base; give another file")


def _has_no_log(path: Path) -> bool:
    """Whether a file exists, is not empty, and does not have a log beside it."""
    return path.exists() and path.stat().st_size > 0 and not Path(f"{path}-wal").exists()


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return _postgresql(url)
    # Opens only an existing file; a moved one must not be replaced by a new, empty file.
    uri = f"{Path(url.database or '').absolute().as_uri()}?mode=rw"
    options: dict[str, Any] = {"check_same_thread": False, "isolation_level": None, "uri": True}
    engine = sa.create_engine(
        url,
        pool_size=32,
        max_overflow=32,
        creator=lambda: sqlite3.connect(uri, timeout=BUSY_TIMEOUT_S, **options),
    )

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _: object) -> None:
        cursor = connection.cursor()
        _set_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA journal_size_limit={MAX_LOG_BYTES}")
        cursor.execute("PRAGMA wal_autocheckpoint=0")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")  # removes erased data from the file, too
        cursor.close()

    @event.listens_for(engine, "begin")
    def begins(connection: sa.Connection) -> None:
        # Python's sqlite3 would begin late and without a lock; the writer needs the lock from the first
        # statement.
        writing = threading.current_thread().name == "store-writer"
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _postgresql(url: sa.URL) -> sa.Engine:
    # For a host that does not answer at all. Seconds; milliseconds for the arrival of sent data.
    waits = {"connect_timeout": CONNECT_TIMEOUT_S, "tcp_user_timeout": 1000 * CONNECT_TIMEOUT_S}
    given = {name: value for name, value in waits.items() if name not in url.query}
    engine = sa.create_engine(url, pool_pre_ping=True, pool_size=20, max_overflow=44, connect_args=given)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: object) -> None:
        connection.execute(f"SET lock_timeout = '{BUSY_TIMEOUT_S:g}s'")
        connection.commit()

    return engine


def _set_wal(cursor: sqlite3.Cursor) -> None:
    """Switch the log on. While another process does so in a new file, SQLite refuses without waiting."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _checkpoint(engine: sa.Engine, mode: str, wait_s: float = 0.0) -> bool:
    """Copy SQLite's log into its file, as far as possible without waiting longer for others.

    Returns:
        Whether all of it was copied.
    """
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={int(1000 * wait_s)}")
        try:
            busy, _, _ = cursor.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            return not busy
        finally:
            cursor.execute(f"PRAGMA busy_timeout={int(1000 * BUSY_TIMEOUT_S)}")
    finally:
        connection.close()
