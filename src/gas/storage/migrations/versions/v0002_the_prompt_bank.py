"""The bank of prompts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0002"
down_revision = "v0001"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "prompts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_sha256", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("register", sa.String(length=24), nullable=False),
        sa.Column("length", sa.String(length=8), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("times_used", sa.Integer(), nullable=False),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("embedder", sa.String(length=32), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompts")),
        sa.UniqueConstraint("modality", "text_sha256", name="uq_prompts_modality_text_sha256"),
    )
    op.create_index(
        "ix_prompts_modality_times_used_place", "prompts", ["modality", "times_used", "place"], unique=False
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_prompts_modality_times_used_place", table_name="prompts")
    op.drop_table("prompts")
