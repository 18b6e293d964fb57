"""Alembic's environment and versions; run by :func:`gas.storage.migrate.migrate`."""
