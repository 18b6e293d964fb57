"""Proofs of deliveries, and the prints that validators exchange."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0006"
down_revision = "v0005"


def upgrade() -> None:
    """Apply."""
    op.add_column("challenges", sa.Column("proof", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "prints",
        sa.Column("validator", sa.String(length=64), nullable=False),
        sa.Column("log", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("opened_at", sa.Double(), nullable=True),
        sa.Column("entry", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("miner", sa.String(length=64), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("validator", "log", "seq", name=op.f("pk_prints")),
    )
    op.create_index("ix_prints_sha256", "prints", ["sha256"], unique=False)
    op.create_index("ix_prints_opened_at", "prints", ["opened_at"], unique=False)
    op.create_index("ix_prints_validator_seen_at", "prints", ["validator", "seen_at"], unique=False)


def downgrade() -> None:
    """Undo."""
    for name in ("validator_seen_at", "opened_at", "sha256"):
        op.drop_index(f"ix_prints_{name}", table_name="prints")
    op.drop_table("prints")
    op.drop_column("challenges", "proof")
