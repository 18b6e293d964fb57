"""The tables as typed models.

Times are seconds since the epoch (UTC) as floats; hashes are lower-case hex SHA-256; blobs are named by their hash.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "Base",
    "ChallengeRow",
    "ExecutorRow",
    "JudgementRow",
    "MediumRow",
    "RoundRow",
    "RunRow",
    "ScoreRow",
    "SubmissionRow",
    "WeightsLogRow",
]


class Base(DeclarativeBase):
    """Root of the models; constraints have names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        float: Double,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


class SubmissionRow(Base):
    """One package of one hotkey, through its life.

    ``reasons`` is a list of :meth:`gas.errors.Reason.as_dict`; ``attempts`` counts the starts of its jobs.
    """

    __tablename__ = "submissions"
    __table_args__ = (
        UniqueConstraint("hotkey", "sha256", name="uq_submissions_hotkey_sha256"),
        Index("ix_submissions_modality_state", "modality", "state"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    hotkey: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(64), unique=True)
    sha256: Mapped[str] = mapped_column(String(64))
    zip_blob: Mapped[str | None] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    modality: Mapped[str] = mapped_column(String(16))
    vertical: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(128), default="")
    state: Mapped[str] = mapped_column(String(16))
    state_since: Mapped[float]
    reasons: Mapped[list[Any]] = mapped_column(JSON, default=list)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    committed_block: Mapped[int | None] = mapped_column(BigInteger)
    weights_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    code_sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float]
    attempts: Mapped[int] = mapped_column(default=0)


class RoundRow(Base):
    """A frozen round: the plan in the blob store, its hash, its parameters.

    ``seed`` is decimal text: a seed may exceed what an integer column holds.
    """

    __tablename__ = "rounds"
    __table_args__ = (Index("ix_rounds_modality_state", "modality", "state"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    modality: Mapped[str] = mapped_column(String(16))
    seed: Mapped[str] = mapped_column(String(80))
    state: Mapped[str] = mapped_column(String(16))
    plan_blob: Mapped[str] = mapped_column(String(64))
    exam_blob: Mapped[str | None] = mapped_column(String(64))
    data_hash: Mapped[str] = mapped_column(String(64))
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    code_version: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    opened_at: Mapped[float]
    closed_at: Mapped[float | None]


class RunRow(Base):
    """One evaluation of one submission on one round (or on its small plan, the exam)."""

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("submission_id", "round_id", "kind", name="uq_runs_submission_round_kind"),
        Index("ix_runs_round_state", "round_id", "state"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    submission_id: Mapped[str] = mapped_column(ForeignKey("submissions.id", ondelete="CASCADE"), index=True)
    round_id: Mapped[str] = mapped_column(ForeignKey("rounds.id"))
    kind: Mapped[str] = mapped_column(String(8))
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    tier: Mapped[str | None] = mapped_column(String(32))
    metrics: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    records_blob: Mapped[str | None] = mapped_column(String(64))
    receipt: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    started_at: Mapped[float]
    finished_at: Mapped[float | None]


class ChallengeRow(Base):
    """A task that a validator gave to a miner; its id is never trusted across miners."""

    __tablename__ = "challenges"
    __table_args__ = (Index("ix_challenges_miner_created", "miner", "created_at"),)

    validator: Mapped[str] = mapped_column(String(64), primary_key=True)
    miner: Mapped[str] = mapped_column(String(64), primary_key=True)
    task_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    modality: Mapped[str] = mapped_column(String(16))
    prompt: Mapped[str] = mapped_column(Text)
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[float]
    deadline: Mapped[float]
    delivered_at: Mapped[float | None]
    media_sha256: Mapped[str | None] = mapped_column(String(64))
    reasons: Mapped[list[Any]] = mapped_column(JSON, default=list)


class MediumRow(Base):
    """A verified medium of a generator."""

    __tablename__ = "media"
    __table_args__ = (Index("ix_media_generator_verified", "generator", "verified_at"),)

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    validator: Mapped[str] = mapped_column(String(64))
    generator: Mapped[str] = mapped_column(String(64))
    task_id: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str] = mapped_column(String(16))
    media_type: Mapped[str] = mapped_column(String(16))
    width: Mapped[int]
    height: Mapped[int]
    mime: Mapped[str] = mapped_column(String(64))
    phash: Mapped[str | None] = mapped_column(String(256))
    issuer: Mapped[str | None] = mapped_column(String(256))
    verified_at: Mapped[float]


class JudgementRow(Base):
    """Whether one run's model took one arena medium for real."""

    __tablename__ = "judgements"

    media_sha256: Mapped[str] = mapped_column(ForeignKey("media.sha256"), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    fooled: Mapped[bool]


class ScoreRow(Base):
    """A miner's score of one class, as it goes into the weights."""

    __tablename__ = "scores"

    hotkey: Mapped[str] = mapped_column(String(64), primary_key=True)
    miner_class: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[float]
    updated_at: Mapped[float]


class WeightsLogRow(Base):
    """What weights were set, when, and why."""

    __tablename__ = "weights_log"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    netuid: Mapped[int]
    block: Mapped[int] = mapped_column(BigInteger)
    weights: Mapped[dict[str, Any]] = mapped_column(JSON)
    reasons: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[float]


class ExecutorRow(Base):
    """A worker process that runs durable jobs, and its last sign of life."""

    __tablename__ = "executors"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str] = mapped_column(String(128))
    pid: Mapped[int]
    process_started: Mapped[str] = mapped_column(String(64))
    heartbeat_at: Mapped[float]
