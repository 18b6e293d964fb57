"""The database: SQLite in the home by default, PostgreSQL by its URL; the same models on both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from gas.errors import ConfigurationError, StorageError

__all__ = ["BUSY_TIMEOUT_MS", "Database", "open_database"]

BUSY_TIMEOUT_MS = 30_000
"""How long a SQLite writer waits for another one."""

_WRITE_OPTION = "gas_write"


class Database:
    """Sessions on one engine.

    A write transaction takes SQLite's write lock at its start, so that it can't lose a race between its first read
    and its first write; a read transaction sees one snapshot and blocks nobody.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = engine.execution_options(**{_WRITE_OPTION: True})

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session on one snapshot; what it changes is thrown away.

        Raises:
            gas.errors.StorageError: The database does not answer.
        """
        with _ours(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end of the block, and rolls back when the block raises.

        Raises:
            gas.errors.StorageError: The database does not answer, or is locked for too long.
            sqlalchemy.exc.IntegrityError: A constraint is broken; the caller knows what that means.
        """
        with _ours(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def write_connection(self) -> Iterator[Connection]:
        """A plain connection inside one write transaction, for migrations."""
        with _ours(), self._writer.begin() as connection:
            yield connection

    @staticmethod
    def lock(session: Session, name: str) -> None:
        """Until the transaction's end, keep out other writers that lock the same name.

        SQLite has one writer at a time anyway; PostgreSQL takes an advisory lock.
        """
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


@contextmanager
def _ours() -> Iterator[None]:
    """Turn a driver's failure into an error of ours; broken constraints stay what they are."""
    try:
        yield
    except IntegrityError:
        raise
    except OperationalError as error:
        raise StorageError(f"The database failed ({type(error.orig).__name__}: {error.orig}).") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StorageError("The connection to the database was lost.") from error
        raise


def open_database(url: str, *, migrate: bool = True) -> Database:
    """Open a database and bring its schema up to date.

    Args:
        url: SQLAlchemy URL, e.g. ``sqlite:///.gas/gas.db`` or ``postgresql://user@host/gas``.
        migrate: Whether to run the migrations that are missing.

    Raises:
        gas.errors.ConfigurationError: The URL names no known database.
        gas.errors.StorageError: The database can't be reached.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError("The database URL can't be read.", hint="Give e.g. sqlite:///gas.db.") from error
    options: dict[str, Any] = {}
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError("SQLite needs a file: several connections must see the same data.")
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    elif parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
        options = {"pool_pre_ping": True}
    try:
        engine = create_engine(parsed, **options)
    except NoSuchModuleError as error:
        raise ConfigurationError(
            f"No database driver for {parsed.drivername}.", hint="Use sqlite:/// or postgresql://."
        ) from error
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The database driver {error.name} is not installed.", hint=f"Install {error.name}, or use sqlite:///."
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    database = Database(engine)
    if migrate:
        from gas.storage.migrate import migrate as run_migrations

        run_migrations(database)
    return database


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
