"""Whose model it is: the chain's commitments, and copies of weights."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from gas.chain.base import Chain, Commitment
from gas.errors import ChainError, ChainUnreachable
from gas.protocol.messages import CommitmentPayload
from gas.storage.tables import SubmissionRow
from gas.types import SubmissionState

__all__ = ["commitments_of", "committed_block", "earlier_owner"]

_AT_A_TIME: Final = 8
_LOG = structlog.get_logger(__name__)


async def commitments_of(chain: Chain, netuid: int, hotkeys: Iterable[str]) -> dict[str, Commitment | None]:
    """What each of some hotkeys has committed, each read once; without those for whom the chain did not answer."""
    found: dict[str, Commitment | None] = {}
    waiting = iter(sorted(hotkeys))

    async def read() -> None:
        for hotkey in waiting:
            try:
                found[hotkey] = await chain.get_commitment(netuid, hotkey)
            except ChainError as error:
                _LOG.warning("commitment_unread", hotkey=hotkey, code=error.error_code, message=error.message)
                if isinstance(error, ChainUnreachable):
                    # It would not answer for the others either, and each would wait for it as long.
                    return

    await asyncio.gather(*(read() for _ in range(_AT_A_TIME)))
    return found


def committed_block(found: Commitment | None, row: SubmissionRow) -> int | None:
    """The block of a commitment to exactly this upload; None when it is to another one, or there is none."""
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
