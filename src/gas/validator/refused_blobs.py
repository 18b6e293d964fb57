"""Bytes of refused deliveries: they go, unless something else names them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from gas.storage.blobs import BlobStore
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, MediumRow, RoundRow, RunRow, ShardRow, SubmissionRow
from gas.validator.edit_blobs import sent_along
from gas.validator.tasks import ChallengeState

__all__ = ["sweep_refused"]


def sweep_refused(database: Database, blobs: BlobStore, validator: str, *, before: float, most: int = 100) -> int:
    """Remove bytes of deliveries that were settled long enough ago and are no medium; returns how many.

    Args:
        database: Challenges, and all that names blobs.
        blobs: Where the bytes are.
        validator: Whose challenges.
        before: Seconds since the epoch.
        most: At most so many.
    """
    removed = 0
    ended = (ChallengeState.REFUSED, ChallengeState.UNTAKEN, ChallengeState.EXPIRED, ChallengeState.FAILED)
    with database.read() as session:
        keys = session.execute(
            select(ChallengeRow.miner, ChallengeRow.task_id)
            .where(
                ChallengeRow.validator == validator,
                ChallengeRow.blob_sha256.is_not(None),
                ChallengeRow.state.in_([state.value for state in ended]),
                ChallengeRow.settled_at < before,
            )
            .limit(most)
        ).all()
    for miner, task_id in keys:
        with database.write() as session:
            row = session.get(ChallengeRow, (validator, miner, task_id))
            if row is None or row.blob_sha256 is None:
                continue
            if not _referenced(session, row.blob_sha256, row):
                # Within the transaction: no delivery of the same bytes can enter the queue meanwhile.
                blobs.delete(row.blob_sha256)
                removed += 1
            row.blob_sha256 = None
    return removed


def _referenced(session: Session, name: str, own: ChallengeRow) -> bool:
    """Whether anything but one settled challenge names a blob."""
    queued = select(ChallengeRow.task_id).where(
        ChallengeRow.blob_sha256 == name,
        ChallengeRow.state.in_([ChallengeState.ACCEPTED.value, ChallengeState.DELIVERED.value]),
        or_(
            ChallengeRow.validator != own.validator,
            ChallengeRow.miner != own.miner,
            ChallengeRow.task_id != own.task_id,
        ),
    )
    columns = (
        MediumRow.sha256, MediumRow.mask_sha256, ShardRow.sha256, SubmissionRow.zip_blob, RoundRow.plan_blob,
        RoundRow.exam_blob, RunRow.records_blob,
    )  # fmt: skip
    queries: list[Select[Any]] = [queued, *(select(column).where(column == name) for column in columns)]
    # Somebody may have delivered the very picture that was sent along, which others are still changing.
    return any(session.scalar(query.limit(1)) is not None for query in queries) or name in sent_along(session)
