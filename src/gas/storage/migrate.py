"""Runs the Alembic migrations from inside the program: offline, without a configuration file."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from gas.errors import StorageError

__all__ = ["migrate"]


def migrate(connection: Connection, revision: str) -> None:
    """Bring the schema to a revision inside the connection's transaction.

    Raises:
        gas.errors.StorageError: ``schema_unknown``: the database is at a revision that this version does not know.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise StorageError(
            "The database was written by another version of GAS.",
            code="schema_unknown",
            hint="Install that version or a newer one.",
        ) from error
