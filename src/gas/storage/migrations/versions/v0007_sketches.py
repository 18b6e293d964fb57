"""Sketches of submissions' weights, and the near copies that they tell of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0007"
down_revision = "v0006"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "submission_sketches",
        sa.Column("submission_id", sa.String(length=36), nullable=False),
        sa.Column("sketches", sa.LargeBinary(), nullable=False),
        sa.Column("nearest", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["submission_id"],
            ["submissions.id"],
            name=op.f("fk_submission_sketches_submission_id_submissions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("submission_id", name=op.f("pk_submission_sketches")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("submission_sketches")
