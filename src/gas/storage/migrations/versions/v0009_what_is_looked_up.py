"""Challenges by when they were settled, and prints by their digest: both are looked up every few seconds."""

from __future__ import annotations

from alembic import op

revision = "v0009"
down_revision = "v0008"


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_challenges_state_settled", "challenges", ["state", "settled_at"], unique=False)
    op.create_index("ix_prints_digest", "prints", ["digest"], unique=False)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_prints_digest", table_name="prints")
    op.drop_index("ix_challenges_state_settled", table_name="challenges")
