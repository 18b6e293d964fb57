"""Alembic's environment: works on the connection that the caller hands over, never on one of its own."""

from __future__ import annotations

from alembic import context

from gas.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transaction_per_migration=False,
)
context.run_migrations()
