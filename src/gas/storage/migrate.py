"""Runs the Alembic migrations from inside the program: offline, without a configuration file."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from gas.storage.database import Database

__all__ = ["migrate"]

_ADVISORY_LOCK = 0x6761735F


def migrate(database: Database, revision: str = "head") -> None:
    """Bring the schema to a revision in one transaction.

    Two services that start together do it once: the write lock (on PostgreSQL an advisory lock) makes the second wait.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    with database.write_connection() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
