"""The media store, what is published from it, deliveries that wait, and the state of services."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "v0004"
down_revision = "v0003"


def upgrade() -> None:
    """Apply."""
    challenges: tuple[sa.Column[Any], ...] = (
        sa.Column("tier", sa.Integer(), nullable=True),
        sa.Column("uid", sa.Integer(), nullable=True),
        sa.Column("block", sa.BigInteger(), nullable=True),
        sa.Column("prompt_id", sa.BigInteger(), nullable=True),
        sa.Column("blob_sha256", sa.String(length=64), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("claimed_by", sa.String(length=64), nullable=True),
        sa.Column("claimed_until", sa.Double(), nullable=True),
        sa.Column("settled_at", sa.Double(), nullable=True),
    )
    for column in challenges:
        op.add_column("challenges", column)
    op.create_index("ix_challenges_state_deadline", "challenges", ["state", "deadline"], unique=False)
    op.create_index("ix_challenges_state_delivered", "challenges", ["state", "delivered_at"], unique=False)
    media: tuple[sa.Column[Any], ...] = (
        sa.Column("source", sa.String(length=16), server_default="miner", nullable=False),
        sa.Column("state", sa.String(length=16), server_default="kept", nullable=False),
        sa.Column("model", sa.String(length=256), nullable=True),
        sa.Column("prompt", sa.Text(), nullable=True),
        sa.Column("tier", sa.Integer(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("facts", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("parameters", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("mask_sha256", sa.String(length=64), nullable=True),
        sa.Column("published_in", sa.String(length=64), nullable=True),
    )
    for column in media:
        op.add_column("media", column)
    op.create_index("ix_media_state_verified", "media", ["state", "verified_at"], unique=False)
    op.create_index("ix_media_published_in", "media", ["published_in"], unique=False)
    op.create_table(
        "shards",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("week", sa.String(length=8), nullable=False),
        sa.Column("target", sa.String(length=512), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("claimed_at", sa.Double(), nullable=False),
        sa.Column("published_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_shards")),
    )
    op.create_index("ix_shards_week", "shards", ["week"], unique=False)
    op.create_table(
        "service_state",
        sa.Column("service", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("service", "key", name=op.f("pk_service_state")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("service_state")
    op.drop_index("ix_shards_week", table_name="shards")
    op.drop_table("shards")
    op.drop_index("ix_media_published_in", table_name="media")
    op.drop_index("ix_media_state_verified", table_name="media")
    for column in (
        *("published_in", "mask_sha256", "parameters", "facts", "bytes", "seconds", "tier", "prompt", "model"),
        *("state", "source"),
    ):
        op.drop_column("media", column)
    op.drop_index("ix_challenges_state_delivered", table_name="challenges")
    op.drop_index("ix_challenges_state_deadline", table_name="challenges")
    for column in (
        *("settled_at", "claimed_until", "claimed_by", "attempts", "blob_sha256", "prompt_id", "block", "uid"),
        "tier",
    ):
        op.drop_column("challenges", column)
