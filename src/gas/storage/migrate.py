"""Runs the Alembic migrations from inside the program: offline, without a configuration file."""

from __future__ import annotations

from pathlib import Path

from gas.errors import StorageError
from gas.storage.database import Database

__all__ = ["migrate"]


def migrate(database: Database, revision: str = "head") -> None:
    """Bring the schema to a revision in one transaction.

    Two services that start together do it once: the write lock makes the second wait.

    Raises:
        gas.errors.StorageError: ``schema_unknown``: the database is at a revision that this version does not know.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    with database.write_connection() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, revision)
        except CommandError as error:
            raise StorageError(
                "The database was written by another version of GAS.",
                code="schema_unknown",
                hint="Install that version or a newer one.",
            ) from error
