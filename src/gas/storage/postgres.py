"""How this program behaves towards a PostgreSQL server: its pool of connections, and limits on each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import URL

from gas.errors import ConfigurationError

__all__ = ["ServerLimits", "prepare_postgres", "server_options"]


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds of one process towards its server.

    Attributes:
        connections: Most connections at a time.
        pool_seconds: How long to wait for one of them.
        connect_seconds: How long a new connection may take.
        statement_seconds: Longest statement.
        lock_seconds: How long a writer waits for another one.
        idle_seconds: A transaction that does nothing for so long is ended by the server, so that a process that
            hangs inside a write block does not hold up the others for ever.
    """

    connections: int = 10
    pool_seconds: float = 30.0
    connect_seconds: int = 10
    statement_seconds: float = 60.0
    lock_seconds: float = 30.0
    idle_seconds: float = 120.0


def server_options(url: URL, limits: ServerLimits) -> dict[str, Any]:
    """Arguments of ``create_engine``; what the URL's query says wins.

    Every connection is pinged when it is taken from the pool: after a restart of the server the first user gets a
    fresh one instead of an error.

    Raises:
        gas.errors.ConfigurationError: The query has an option that no connection knows, or psycopg is not installed.
    """
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import make_conninfo
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "The database driver psycopg is not installed.", code="not_installed", hint="Install psycopg[binary]."
        ) from error
    try:
        make_conninfo("", **{name: str(value) for name, value in url.query.items()})
    except ProgrammingError:
        # The driver's text may repeat a value, and a value may be a password.
        raise ConfigurationError("The database URL has an option that PostgreSQL does not know.") from None
    connect = {
        "connect_timeout": limits.connect_seconds,
        "application_name": "gas",
        # A server that vanished is noticed within a minute, not after the kernel's two hours.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    return {
        "pool_pre_ping": True,
        "pool_size": limits.connections,
        "max_overflow": 0,
        "pool_timeout": limits.pool_seconds,
        "pool_recycle": 1800,
        "connect_args": {name: value for name, value in connect.items() if name not in url.query},
    }


def prepare_postgres(limits: ServerLimits) -> Callable[[Any, object], None]:
    """What to do with each new connection.

    The limits are set by statements, since poolers in front of a server refuse start-up options.
    """
    settings = {
        "statement_timeout": limits.statement_seconds,
        "lock_timeout": limits.lock_seconds,
        "idle_in_transaction_session_timeout": limits.idle_seconds,
    }

    def prepare(connection: Any, _record: object) -> None:
        before, connection.autocommit = connection.autocommit, True
        with connection.cursor() as cursor:
            for name, seconds in settings.items():
                cursor.execute("SELECT set_config(%s, %s, false)", (name, str(round(seconds * 1000))))
        connection.autocommit = before

    return prepare
