"""What a submission has cost before: its scans, and earlier pushes of the same content in the same round."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0008"
down_revision = "v0007"

_COUNTS = ("scans", "earlier_exams", "earlier_uncommitted")


def upgrade() -> None:
    """Apply."""
    for name in _COUNTS:
        op.add_column("submissions", sa.Column(name, sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    """Undo."""
    for name in _COUNTS:
        op.drop_column("submissions", name)
