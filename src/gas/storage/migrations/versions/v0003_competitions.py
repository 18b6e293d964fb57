"""Rounds belong to a competition: a modality in a vertical."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"


def upgrade() -> None:
    """Apply."""
    op.add_column("rounds", sa.Column("vertical", sa.String(length=16), server_default="general", nullable=False))
