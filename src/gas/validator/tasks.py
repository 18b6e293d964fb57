"""The validator's challenges in the database: what was asked of whom, and what came of it.

A task belongs to (validator, miner, task id): an id that one miner chooses can't touch another miner's task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from gas.clock import Clock
from gas.errors import Reason, RequestRefused
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, MediumRow
from gas.types import Modality
from gas.verification.base import Verdict

__all__ = ["Challenge", "ChallengeState", "Challenges", "GeneratorCounts"]


class ChallengeState(StrEnum):
    """Life of a challenge: accepted, delivered (being judged), and four ends."""

    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    VERIFIED = "verified"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge as of now; times are seconds since the epoch."""

    miner: str
    task_id: str
    modality: Modality
    prompt: str
    parameters: dict[str, Any]
    state: ChallengeState
    created_at: float
    deadline: float
    delivered_at: float | None


@dataclass(frozen=True, slots=True)
class GeneratorCounts:
    """How a generator's challenges ended.

    Attributes:
        states: Number of challenges by state.
        reasons: Number of refusals by the code of their reason.
    """

    states: dict[str, int]
    reasons: dict[str, int]

    @property
    def verified(self) -> int:
        """Media that count."""
        return self.states.get(ChallengeState.VERIFIED, 0)

    @property
    def open(self) -> int:
        """Challenges that have not ended."""
        return sum(self.states.get(state, 0) for state in (ChallengeState.ACCEPTED, ChallengeState.DELIVERED))

    @property
    def refused(self) -> int:
        """Media that were refused, tasks that failed or came to nothing."""
        ends = (ChallengeState.REFUSED, ChallengeState.FAILED, ChallengeState.EXPIRED)
        return sum(self.states.get(state, 0) for state in ends)

    @property
    def pass_rate(self) -> float:
        """Verified among all that have ended, 0 when none has."""
        ended = self.verified + self.refused
        return self.verified / ended if ended else 0.0


class Challenges:
    """The challenges of one validator.

    Args:
        database: Where they are kept.
        validator: Hotkey of the validator.
        clock: Decides what is late.
    """

    def __init__(self, database: Database, validator: str, clock: Clock) -> None:
        self._database = database
        self._validator = validator
        self._clock = clock

    def record(
        self, miner: str, task_id: str, modality: Modality, prompt: str, parameters: dict[str, Any], seconds: float
    ) -> None:
        """Keep a task that a miner has accepted.

        Args:
            miner: Hotkey that accepted it.
            task_id: The id that the miner gave.
            modality: What was asked for.
            prompt: What it should show.
            parameters: Further wishes.
            seconds: Time that the miner has for the delivery.

        Raises:
            RequestRefused: ``task_id_reused``: the miner has given this id before.
        """
        now = self._clock.time()
        row = ChallengeRow(
            validator=self._validator,
            miner=miner,
            task_id=task_id,
            modality=modality.value,
            prompt=prompt,
            parameters=parameters,
            state=ChallengeState.ACCEPTED.value,
            created_at=now,
            deadline=now + seconds,
            reasons=[],
        )
        try:
            with self._database.write() as session:
                session.add(row)
        except IntegrityError as error:
            raise RequestRefused(
                "The miner gave a task id that it has used before.", status=409, code="task_id_reused"
            ) from error

    def claim(self, miner: str, task_id: str) -> Challenge:
        """Take a delivery in hand; only the first one for a task succeeds.

        Raises:
            RequestRefused: 404 ``unknown_task`` (no such task of this miner), 409 ``already_delivered``,
                410 ``too_late``.
        """
        now = self._clock.time()
        with self._database.write() as session:
            row = session.get(ChallengeRow, (self._validator, miner, task_id))
            if row is None:
                raise RequestRefused("This hotkey has no task of that id here.", status=404, code="unknown_task")
            if row.state != ChallengeState.ACCEPTED.value:
                if row.state == ChallengeState.EXPIRED.value:
                    raise RequestRefused("The task's deadline has passed.", status=410, code="too_late")
                raise RequestRefused("The task has been delivered before.", status=409, code="already_delivered")
            if now > row.deadline:
                row.state = ChallengeState.EXPIRED.value
                late = True
            else:
                row.state = ChallengeState.DELIVERED.value
                row.delivered_at = now
                late = False
            challenge = _challenge(row)
        if late:
            raise RequestRefused("The task's deadline has passed.", status=410, code="too_late")
        return challenge

    def fail(self, challenge: Challenge, message: str) -> None:
        """The miner says that it could not do it."""
        reason = Reason("miner_failed", message[:500])
        self._end(challenge, ChallengeState.FAILED, [reason.as_dict()])

    def judge(self, challenge: Challenge, verdict: Verdict, medium: MediumRow | None) -> None:
        """Keep the verdict, and the medium when it is verified, in one transaction."""
        with self._database.write() as session:
            row = session.get_one(ChallengeRow, (self._validator, challenge.miner, challenge.task_id))
            row.state = (ChallengeState.VERIFIED if verdict.verified else ChallengeState.REFUSED).value
            row.reasons = [reason.as_dict() for reason in verdict.reasons]
            row.media_sha256 = verdict.sha256
            if medium is not None:
                session.add(medium)

    def expire(self) -> int:
        """Close what is past its deadline, and what a crash left half judged; returns how many."""
        now = self._clock.time()
        overdue = ChallengeRow.state.in_((ChallengeState.ACCEPTED.value, ChallengeState.DELIVERED.value))
        with self._database.write() as session:
            result = session.execute(
                update(ChallengeRow)
                .where(ChallengeRow.validator == self._validator, overdue, ChallengeRow.deadline < now)
                .values(state=ChallengeState.EXPIRED.value)
            )
            return int(getattr(result, "rowcount", 0))

    def verified_count(self, miner: str) -> int:
        """Verified media of a miner."""
        return self._count(miner, (ChallengeState.VERIFIED,))

    def counts(self, miner: str, *, since: float = 0.0) -> GeneratorCounts:
        """How a miner's challenges since a time ended."""
        states: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        with self._database.read() as session:
            rows = session.execute(
                select(ChallengeRow.state, ChallengeRow.reasons).where(
                    ChallengeRow.validator == self._validator,
                    ChallengeRow.miner == miner,
                    ChallengeRow.created_at >= since,
                )
            )
            for state, found in rows.tuples():
                states[state] += 1
                reasons.update(str(reason["code"]) for reason in found)
                if state == ChallengeState.EXPIRED.value:
                    reasons["expired"] += 1
        return GeneratorCounts(dict(states), dict(reasons))

    def media(self) -> list[MediumRow]:
        """Every verified medium, in the order of its hash."""
        with self._database.read() as session:
            rows = session.scalars(
                select(MediumRow).where(MediumRow.validator == self._validator).order_by(MediumRow.sha256)
            )
            return list(rows)

    def _count(self, miner: str, states: Sequence[ChallengeState]) -> int:
        with self._database.read() as session:
            found = session.scalar(
                select(func.count())
                .select_from(ChallengeRow)
                .where(
                    ChallengeRow.validator == self._validator,
                    ChallengeRow.miner == miner,
                    ChallengeRow.state.in_([state.value for state in states]),
                )
            )
            return found or 0

    def _end(self, challenge: Challenge, state: ChallengeState, reasons: list[Any]) -> None:
        with self._database.write() as session:
            row = session.get_one(ChallengeRow, (self._validator, challenge.miner, challenge.task_id))
            row.state = state.value
            row.reasons = reasons


def _challenge(row: ChallengeRow) -> Challenge:
    return Challenge(
        miner=row.miner,
        task_id=row.task_id,
        modality=Modality(row.modality),
        prompt=row.prompt,
        parameters=row.parameters,
        state=ChallengeState(row.state),
        created_at=row.created_at,
        deadline=row.deadline,
        delivered_at=row.delivered_at,
    )
