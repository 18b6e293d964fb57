"""Whose model it is: the chain's commitments, and copies of weights."""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from gas.chain.base import Chain
from gas.protocol.messages import CommitmentPayload
from gas.storage.tables import SubmissionRow
from gas.types import SubmissionState

__all__ = ["committed_block", "earlier_owner"]


async def committed_block(chain: Chain, netuid: int, row: SubmissionRow) -> int | None:
    """The block of the commitment to exactly this upload; None when the chain does not have it (any more).

    Raises:
        gas.errors.ChainUnreachable: The chain does not answer.
    """
    found = await chain.get_commitment(netuid, row.hotkey)
    payload = CommitmentPayload.decode(found.data) if found is not None else None
    return found.block if found and payload and payload.matches(row.key, row.sha256) else None


def earlier_owner(session: Session, row: SubmissionRow) -> SubmissionRow | None:
    """Another hotkey's submission that has the same weights and an older commitment, if there is one.

    Equal blocks are decided by the time of the upload.
    """
    if row.weights_sha256 is None or row.committed_block is None:
        return None
    return session.scalar(
        select(SubmissionRow)
        .where(
            SubmissionRow.weights_sha256 == row.weights_sha256,
            SubmissionRow.hotkey != row.hotkey,
            SubmissionRow.state != SubmissionState.REJECTED.value,
            or_(
                SubmissionRow.committed_block < row.committed_block,
                (SubmissionRow.committed_block == row.committed_block) & (SubmissionRow.created_at < row.created_at),
            ),
        )
        .order_by(SubmissionRow.committed_block, SubmissionRow.created_at)
        .limit(1)
    )
