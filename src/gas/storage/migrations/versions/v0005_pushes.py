"""Packages of several modalities that were pushed together belong together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0005"
down_revision = "v0004"


def upgrade() -> None:
    """Apply."""
    op.add_column("submissions", sa.Column("push_id", sa.String(length=32), nullable=True))
    op.add_column("submissions", sa.Column("push_modalities", sa.String(length=64), nullable=True))
    op.create_index("ix_submissions_hotkey_push", "submissions", ["hotkey", "push_id"], unique=False)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_submissions_hotkey_push", table_name="submissions")
    op.drop_column("submissions", "push_modalities")
    op.drop_column("submissions", "push_id")
