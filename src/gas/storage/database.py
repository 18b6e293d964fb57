"""The database: SQLite in the home by default, PostgreSQL by its URL; the same models on both.

On both, write transactions come one after the other and read transactions see one snapshot, so that code that reads,
decides and writes inside one block is right without knowing which database it talks to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.orm import Session

from gas.errors import ConfigurationError, StorageError
from gas.storage.failures import CONFLICT, LOST, storage_failures
from gas.storage.postgres import ServerLimits, prepare_postgres, server_options

__all__ = ["BUSY_TIMEOUT_MS", "Database", "open_database"]

BUSY_TIMEOUT_MS = 30_000
"""How long a SQLite writer waits for another one."""

T = TypeVar("T")

_WRITE_OPTION: Final = "gas_write"
_WRITERS_LOCK: Final = 0x6761735F77726974
"""Key of the advisory lock of PostgreSQL that every write transaction takes."""
_WORK_TRIES: Final = 4


class Database:
    """Sessions on one engine.

    A write transaction takes the write lock at its start (SQLite's own; on PostgreSQL an advisory lock of the
    database), so that it can't lose a race between its first read and its first write, and never fails because of
    another one. A read transaction sees one snapshot and blocks nobody. Keep write blocks short.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = engine.execution_options(**{_WRITE_OPTION: True})
        self._reader = engine
        if engine.dialect.name == "postgresql":
            self._writer = self._writer.execution_options(isolation_level="READ COMMITTED")
            self._reader = engine.execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session on one snapshot; what it changes is thrown away.

        Raises:
            gas.errors.StorageError: The database does not answer; see :mod:`gas.storage.failures`.
        """
        with storage_failures(), Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end of the block, and rolls back when the block raises.

        Raises:
            gas.errors.StorageError: The database does not answer, or is locked for too long.
            sqlalchemy.exc.IntegrityError: A constraint is broken; the caller knows what that means.
        """
        with storage_failures(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def transact(self, work: Callable[[Session], T]) -> T:
        """Do work in a write transaction, again when the server undid it through no fault of the work.

        That is a serialisation failure, a deadlock (with a program that is none of ours), or a connection that was
        lost before the commit, as when the server restarts. A connection lost in the commit itself is not tried
        again: nobody knows whether it went through.

        Args:
            work: Is called anew each time; must do nothing outside the session.

        Returns:
            What ``work`` returns.

        Raises:
            gas.errors.StorageError: As :meth:`write`, or it was undone four times.
        """
        for left in reversed(range(_WORK_TRIES)):
            committing = False
            try:
                with self.write() as session:
                    result = work(session)
                    session.flush()
                    committing = True
            except StorageError as error:
                again = error.error_code == CONFLICT or (error.error_code == LOST and not committing)
                if not again or not left:
                    raise
            else:
                break
        return result

    def migrate(self, revision: str = "head") -> None:
        """Bring the schema to a revision in one write transaction; nothing limits how long it waits.

        Two services that start together do it once: the write lock makes the second wait.

        Raises:
            gas.errors.StorageError: ``schema_unknown``: the database is at a revision that this version does not know.
        """
        from gas.storage.migrate import migrate

        with self.write_connection() as connection:
            migrate(connection, revision)

    @contextmanager
    def write_connection(self) -> Iterator[Connection]:
        """A plain connection inside one write transaction, for schemas; nothing limits how long it waits."""
        with storage_failures(), self._writer.connect() as connection:
            options = {_WRITE_OPTION: "unlimited"}
            with connection.execution_options(**options).begin():
                yield connection

    @staticmethod
    def lock(session: Session, name: str) -> None:
        """Until the transaction's end, keep out other writers that lock the same name.

        Of use to code that may also run in transactions other than :meth:`write`'s, which exclude each other anyway.
        """
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


def open_database(url: str, *, migrate: bool = True, limits: ServerLimits | None = None) -> Database:
    """Open a database and bring its schema up to date.

    Args:
        url: SQLAlchemy URL, e.g. ``sqlite:///.gas/gas.db`` or ``postgresql+psycopg://user@host/gas``. No message and
            no log repeats it.
        migrate: Whether to run the migrations that are missing.
        limits: Towards a server; ignored by SQLite.

    Raises:
        gas.errors.ConfigurationError: The URL names no known database, or its driver is not installed.
        gas.errors.StorageError: The database can't be reached, or was written by a newer version.
    """
    parsed = _parse(url)
    options: dict[str, Any] = {}
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError("SQLite needs a file: several connections must see the same data.")
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    elif parsed.get_backend_name() == "postgresql":
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        options = server_options(parsed, limits or ServerLimits())
    try:
        engine = create_engine(parsed, **options)
    except NoSuchModuleError as error:
        raise ConfigurationError(
            f"No database driver for {parsed.drivername}.", hint="Use sqlite:/// or postgresql+psycopg://."
        ) from error
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The database driver {error.name} is not installed.", hint=f"Install {error.name}, or use sqlite:///."
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.dialect.name == "postgresql":
        event.listen(engine, "connect", prepare_postgres(limits or ServerLimits()))
        event.listen(engine, "begin", _begin_postgres)
    database = Database(engine)
    if migrate:
        try:
            database.migrate()
        except StorageError:
            database.close()
            raise
    return database


def _parse(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # The driver's text may hold a piece of the password: a port that is no number is often one.
        raise ConfigurationError(
            "The database URL can't be read.",
            hint="Give e.g. sqlite:///gas.db or postgresql+psycopg://user:password@host/gas; "
            "write special characters of the password as %XX.",
        ) from None


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own implicit transactions would commit before DDL and upgrade locks late; we begin ourselves.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get(_WRITE_OPTION, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _begin_postgres(connection: Connection) -> None:
    writing = connection.get_execution_options().get(_WRITE_OPTION, False)
    if writing == "unlimited":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
    if writing:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})")
