"""The tables as typed models.

Times are seconds since the epoch (UTC) as floats; hashes are lower-case hex SHA-256; blobs are named by their hash.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "Base",
    "ChallengeRow",
    "ExecutorRow",
    "JudgementRow",
    "MediumRow",
    "PrintRow",
    "PromptRow",
    "RoundRow",
    "RunRow",
    "ScoreRow",
    "ServiceStateRow",
    "ShardRow",
    "SketchRow",
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

    ``reasons`` is a list of :meth:`gas.errors.Reason.as_dict`; ``attempts`` counts the starts of its jobs. ``push_id``
    and ``push_modalities`` (names with commas between) say with which others it was pushed; None when alone. ``scans``
    counts how often its static checks were begun. ``earlier_exams`` and ``earlier_uncommitted`` count pushes of the
    same content in the same round whose rows this one has replaced: those that were examined, and those never
    committed.
    """

    __tablename__ = "submissions"
    __table_args__ = (
        UniqueConstraint("hotkey", "sha256", name="uq_submissions_hotkey_sha256"),
        Index("ix_submissions_modality_state", "modality", "state"),
        Index("ix_submissions_hotkey_push", "hotkey", "push_id"),
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
    push_id: Mapped[str | None] = mapped_column(String(32))
    push_modalities: Mapped[str | None] = mapped_column(String(64))
    scans: Mapped[int] = mapped_column(default=0, server_default="0")
    earlier_exams: Mapped[int] = mapped_column(default=0, server_default="0")
    earlier_uncommitted: Mapped[int] = mapped_column(default=0, server_default="0")


class SketchRow(Base):
    """What a submission's weights are compared by, and the nearest that was found of another hotkey.

    ``sketches`` is what :func:`gas.submissions.sketch.store_sketches` makes; ``nearest`` has the fields of
    :class:`gas.arena.likeness.NearWeights`.
    """

    __tablename__ = "submission_sketches"

    submission_id: Mapped[str] = mapped_column(ForeignKey("submissions.id", ondelete="CASCADE"), primary_key=True)
    sketches: Mapped[bytes] = mapped_column(LargeBinary)
    nearest: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class RoundRow(Base):
    """A frozen round: the plan in the blob store, its hash, its parameters.

    ``seed`` is decimal text: a seed may exceed what an integer column holds.
    """

    __tablename__ = "rounds"
    __table_args__ = (Index("ix_rounds_modality_state", "modality", "state"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    modality: Mapped[str] = mapped_column(String(16))
    vertical: Mapped[str] = mapped_column(String(16), default="general", server_default="general")
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
    """A task that a validator gave to a miner; its id is never trusted across miners.

    ``blob_sha256`` names what was delivered while it waits for its verification, ``media_sha256`` what was verified.
    Whoever verifies writes ``claimed_by`` and ``claimed_until`` first and counts ``attempts``; ``tier`` is the one that
    was asked for, ``block`` the one at which it was drawn, ``prompt_id`` the prompt of the bank. ``proof`` is the
    miner's signature of its delivery, see :class:`gas.validator.prints.Proof`.
    """

    __tablename__ = "challenges"
    __table_args__ = (
        Index("ix_challenges_miner_created", "miner", "created_at"),
        Index("ix_challenges_state_deadline", "state", "deadline"),
        Index("ix_challenges_state_delivered", "state", "delivered_at"),
        Index("ix_challenges_state_settled", "state", "settled_at"),
    )

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
    tier: Mapped[int | None]
    uid: Mapped[int | None]
    block: Mapped[int | None] = mapped_column(BigInteger)
    prompt_id: Mapped[int | None] = mapped_column(BigInteger)
    blob_sha256: Mapped[str | None] = mapped_column(String(64))
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    claimed_by: Mapped[str | None] = mapped_column(String(64))
    claimed_until: Mapped[float | None]
    settled_at: Mapped[float | None]
    proof: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class MediumRow(Base):
    """A verified medium of a generator, or one that the validator made itself.

    ``source`` says which (``miner``, ``local``), ``state`` where its bytes are: ``kept`` here, ``published`` and still
    here, ``pruned``: gone, while the row stays for judgements, pay and the search for copies. ``published_in`` is the
    name of the one shard that the medium belongs to, from the moment on it is chosen. ``tier`` is what it is paid as,
    ``seconds`` its length, ``bytes`` its size, ``facts`` what its verification measured, ``parameters`` those of its
    task, ``mask_sha256`` the blob with the mask of what was changed.
    """

    __tablename__ = "media"
    __table_args__ = (
        Index("ix_media_generator_verified", "generator", "verified_at"),
        Index("ix_media_state_verified", "state", "verified_at"),
        Index("ix_media_published_in", "published_in"),
    )

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
    source: Mapped[str] = mapped_column(String(16), default="miner", server_default="miner")
    state: Mapped[str] = mapped_column(String(16), default="kept", server_default="kept")
    model: Mapped[str | None] = mapped_column(String(256))
    prompt: Mapped[str | None] = mapped_column(Text)
    tier: Mapped[int | None]
    seconds: Mapped[float | None]
    bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    facts: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    parameters: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    mask_sha256: Mapped[str | None] = mapped_column(String(64))
    published_in: Mapped[str | None] = mapped_column(String(64))


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


class ShardRow(Base):
    """One shard of a published week: its media are those whose ``published_in`` is its name.

    ``name`` is ``<week>/data-<number>.parquet``; ``state`` goes from ``claimed`` over ``sent`` to ``published``, the
    latter when the week's manifest is there too. ``sha256`` and ``size`` are known from its first building on.
    """

    __tablename__ = "shards"
    __table_args__ = (Index("ix_shards_week", "week"),)

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    week: Mapped[str] = mapped_column(String(8))
    target: Mapped[str] = mapped_column(String(512))
    state: Mapped[str] = mapped_column(String(16))
    rows: Mapped[int]
    sha256: Mapped[str | None] = mapped_column(String(64))
    size: Mapped[int | None] = mapped_column(BigInteger)
    claimed_at: Mapped[float]
    published_at: Mapped[float | None]


class ServiceStateRow(Base):
    """What a service must find again after a restart: cursors, its last epoch, when it last did something."""

    __tablename__ = "service_state"

    service: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    value: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    updated_at: Mapped[float]


class PrintRow(Base):
    """One entry of a validator's log of prints: our own, or one that another validator has shown us.

    ``digest`` commits to the entry and to all before it, ``at`` is when its validator wrote it, ``seen_at`` when the
    digest was first here, ``opened_at`` when the entry was; until then ``entry`` and what is taken from it are null.
    """

    __tablename__ = "prints"
    __table_args__ = (
        Index("ix_prints_sha256", "sha256"),
        Index("ix_prints_digest", "digest"),
        Index("ix_prints_opened_at", "opened_at"),
        Index("ix_prints_validator_seen_at", "validator", "seen_at"),
    )

    validator: Mapped[str] = mapped_column(String(64), primary_key=True)
    log: Mapped[str] = mapped_column(String(32), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    at: Mapped[float]
    seen_at: Mapped[float]
    opened_at: Mapped[float | None]
    entry: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    miner: Mapped[str | None] = mapped_column(String(64))
    sha256: Mapped[str | None] = mapped_column(String(64))


class ExecutorRow(Base):
    """A worker process that runs durable jobs, and its last sign of life."""

    __tablename__ = "executors"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str] = mapped_column(String(128))
    pid: Mapped[int]
    process_started: Mapped[str] = mapped_column(String(64))
    heartbeat_at: Mapped[float]


class PromptRow(Base):
    """A prompt of the validator's bank.

    ``place`` is drawn from the text's hash and spreads the prompts evenly over [0, 2**62), so that a draw among equals
    is one look into an index. ``embedding`` holds one signed byte a dimension of a unit vector times 127.
    """

    __tablename__ = "prompts"
    __table_args__ = (
        UniqueConstraint("modality", "text_sha256", name="uq_prompts_modality_text_sha256"),
        Index("ix_prompts_modality_times_used_place", "modality", "times_used", "place"),
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    text: Mapped[str] = mapped_column(Text)
    text_sha256: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str] = mapped_column(String(16))
    register: Mapped[str] = mapped_column(String(24))
    length: Mapped[str] = mapped_column(String(8))
    source: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[float]
    times_used: Mapped[int] = mapped_column(default=0)
    last_used_at: Mapped[float | None]
    place: Mapped[int] = mapped_column(BigInteger)
    embedder: Mapped[str] = mapped_column(String(32))
    embedding: Mapped[bytes] = mapped_column(LargeBinary)
