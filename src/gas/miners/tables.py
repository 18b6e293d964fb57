"""The schema of a generator's own database, its version, and the way there from older ones.

=======  =========================================================================================
version  what it added
=======  =========================================================================================
1        the table ``tasks``; databases of this version name none
2        services and their jobs, sources of edits, codes of failures, deliveries and their verdicts
=======  =========================================================================================
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import JSON, Connection, Engine, String, Text, inspect, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from gas.errors import StorageError
from gas.storage.database import Database

__all__ = ["SCHEMA_VERSION", "TaskRow", "prepare_schema"]

SCHEMA_VERSION: Final = 2
"""Version that this program reads and writes."""


class _Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON}  # noqa: RUF012  (SQLAlchemy reads it from the class)


class _VersionRow(_Base):
    __tablename__ = "schema_version"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int]


class TaskRow(_Base):
    """One task; see :class:`gas.miners.states.Task` for what the columns mean."""

    __tablename__ = "tasks"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    validator: Mapped[str] = mapped_column(String(64), index=True)
    modality: Mapped[str] = mapped_column(String(16))
    prompt: Mapped[str] = mapped_column(Text)
    parameters: Mapped[dict[str, Any]]
    webhook_url: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), index=True)
    created_at: Mapped[float]
    finished_at: Mapped[float | None]
    media_blob: Mapped[str | None] = mapped_column(String(64))
    mime: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[str | None] = mapped_column(Text)
    # Version 2; all may be NULL, because a column that is added to a table with rows has no value for them.
    updated_at: Mapped[float | None]
    service: Mapped[str | None] = mapped_column(String(32))
    job_id: Mapped[str | None] = mapped_column(Text)
    poll_seconds: Mapped[float | None]
    source_blob: Mapped[str | None] = mapped_column(String(64))
    mask_blob: Mapped[str | None] = mapped_column(String(64))
    error_code: Mapped[str | None] = mapped_column(String(64))
    model: Mapped[str | None] = mapped_column(Text)
    media_type: Mapped[str | None] = mapped_column(String(16))
    width: Mapped[int | None]
    height: Mapped[int | None]
    media_bytes: Mapped[int | None]
    made_at: Mapped[float | None]
    attempts: Mapped[int | None]
    verdict: Mapped[str | None] = mapped_column(String(16))
    reasons: Mapped[list[str] | None] = mapped_column(JSON)


def prepare_schema(database: Database) -> None:
    """Create the tables, or bring older ones up to date; keeps every task.

    Raises:
        StorageError: ``schema_newer``: a newer version of this program wrote the database.
    """
    with database.write_connection() as connection:
        if inspect(connection).has_table(TaskRow.__tablename__):
            _add_missing_columns(connection, database.engine)
        _Base.metadata.create_all(connection)
        table = _VersionRow.__table__
        found = connection.scalar(select(table.c.version))
        if found is not None and found > SCHEMA_VERSION:
            raise StorageError(
                f"The generator's tasks were written by a newer version (schema {found}, this one knows "
                f"{SCHEMA_VERSION}).",
                code="schema_newer",
                hint="Install that version again, or name another MINER_STATE_DIR.",
            )
        if found is None:
            try:
                connection.execute(_VersionRow.__table__.insert().values(id=1, version=SCHEMA_VERSION))  # type: ignore[attr-defined]
            except IntegrityError:
                raise StorageError("Two programs prepared the generator's database at once.") from None
        elif found < SCHEMA_VERSION:
            connection.execute(_VersionRow.__table__.update().values(version=SCHEMA_VERSION))  # type: ignore[attr-defined]


def _add_missing_columns(connection: Connection, engine: Engine) -> None:
    there = {column["name"] for column in inspect(connection).get_columns(TaskRow.__tablename__)}
    preparer = engine.dialect.identifier_preparer
    for column in TaskRow.__table__.columns:
        if column.name not in there:
            name, kind = preparer.quote(column.name), column.type.compile(engine.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {TaskRow.__tablename__} ADD COLUMN {name} {kind}")
