"""Places in the queue of deliveries: who has taken which, for how long, and how often its judgement was cut off.

Only the delivery that is being judged counts an attempt. Those that wait behind it lose none when the worker is killed
over it, and a fault of ours costs nobody one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from gas.clock import Clock
from gas.errors import StorageError
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow
from gas.types import Modality
from gas.validator.tasks import ChallengeState

__all__ = ["Claim", "Claims"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that a worker has taken; times are seconds since the epoch.

    Attributes:
        miner: Hotkey.
        task_id: Of the challenge.
        modality: What was asked for.
        prompt: What it should show.
        parameters: As the challenge's row keeps them.
        created_at: When the miner took the task.
        deadline: For the delivery.
        delivered_at: When it came.
        blob: Where its bytes are.
        uid: The slot that was challenged.
        attempts: How often its judgement was begun before.
    """

    miner: str
    task_id: str
    modality: Modality
    prompt: str
    parameters: dict[str, Any]
    created_at: float
    deadline: float
    delivered_at: float
    blob: str
    uid: int | None
    attempts: int

    def owner(self, validator: str) -> str:
        """Name of the delivery in the index of copies and in the line of those that are judged."""
        return f"{validator}/{self.miner}/{self.task_id}"


class Claims:
    """The claims of one worker.

    Args:
        database: The queue.
        validator: Hotkey whose challenges these are.
        clock: For the leases.
        worker: Name of this worker, the same after its restart.
        lease: Seconds after which another worker's claim has run out.
    """

    def __init__(self, database: Database, validator: str, clock: Clock, worker: str, lease: float) -> None:
        self._database = database
        self._validator = validator
        self._clock = clock
        self._worker = worker
        self._lease = lease
        # Whose last attempt ended by a fault of ours of which the database could not be told.
        self._uncounted: set[str] = set()
        self._log = structlog.get_logger("gas.validator").bind(worker=worker)

    def waiting(self) -> Select[ChallengeRow]:
        """What this worker may take, the oldest first."""
        ran_out = ChallengeRow.claimed_until < self._clock.time()
        return (
            select(ChallengeRow)
            .where(
                ChallengeRow.validator == self._validator,
                ChallengeRow.state == ChallengeState.DELIVERED.value,
                ChallengeRow.blob_sha256.is_not(None),
                or_(ChallengeRow.claimed_until.is_(None), ran_out, ChallengeRow.claimed_by == self._worker),
            )
            .order_by(ChallengeRow.delivered_at, ChallengeRow.miner, ChallengeRow.task_id)
        )

    def take(self, most: int) -> list[Claim]:
        """Take the oldest, at most so many."""

        def work(session: Session) -> list[Claim]:
            claims = []
            for row in session.scalars(self.waiting().limit(most)):
                row.claimed_by, row.claimed_until = self._worker, self._clock.time() + self._lease
                claims.append(
                    Claim(
                        miner=row.miner,
                        task_id=row.task_id,
                        modality=Modality(row.modality),
                        prompt=row.prompt,
                        parameters=dict(row.parameters),
                        created_at=row.created_at,
                        deadline=row.deadline,
                        delivered_at=row.created_at if row.delivered_at is None else row.delivered_at,
                        blob=row.blob_sha256 or "",
                        uid=row.uid,
                        attempts=row.attempts,
                    )
                )
            return claims

        return self._database.transact(work)

    def begin(self, claim: Claim) -> int | None:
        """Count an attempt, and renew the lease.

        Returns:
            Attempts with this one; None when the claim has run out.
        """
        owner = claim.owner(self._validator)

        def work(session: Session) -> int | None:
            row = self.mine(session, claim)
            if row is None:
                return None
            row.attempts += owner not in self._uncounted
            self.renew(row)
            return row.attempts

        attempts = self._database.transact(work)
        self._uncounted.discard(owner)
        return attempts

    def renew(self, row: ChallengeRow) -> None:
        """Hold a claim for another lease."""
        row.claimed_until = self._clock.time() + self._lease

    def mine(self, session: Session, claim: Claim) -> ChallengeRow | None:
        """The challenge, while it is still this worker's to judge."""
        row = session.get(ChallengeRow, (self._validator, claim.miner, claim.task_id))
        if row is None or row.state != ChallengeState.DELIVERED.value or row.claimed_by != self._worker:
            return None
        return row

    def release(self, claims: Sequence[Claim], *, begun: bool) -> None:
        """Give deliveries back to the queue after a fault of ours, which costs them no attempt.

        Args:
            claims: The deliveries; those that this worker has lost stay as they are.
            begun: Whether attempts at them have been counted.
        """
        if not claims:
            return

        def work(session: Session) -> None:
            for claim in claims:
                row = self.mine(session, claim)
                if row is not None:
                    row.claimed_by, row.claimed_until = None, None
                    row.attempts -= begun

        try:
            self._database.transact(work)
        except StorageError as error:
            # They stay ours until the lease runs out; what caused the release says more than this.
            if begun:
                self._uncounted.update(claim.owner(self._validator) for claim in claims)
            self._log.error("claims_not_released", claims=len(claims), code=error.error_code, error=error.message)
