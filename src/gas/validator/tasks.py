"""The validator's challenges in the database: what was asked of whom, and what came of it.

A task belongs to (validator, miner, task id): an id that one miner chooses can't touch another miner's task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from gas.clock import Clock
from gas.errors import Reason, RequestRefused
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, MediumRow
from gas.types import Modality
from gas.verification.base import Verdict

__all__ = [
    "GIVEN_UP_SECONDS",
    "OPEN_STATES",
    "Challenge",
    "ChallengeState",
    "Challenges",
    "GeneratorCounts",
    "already_delivered",
    "delivery_refusal",
    "unknown_task",
]


class ChallengeState(StrEnum):
    """Life of a challenge: asked (the request is out), accepted, delivered (being judged), and five ends.

    ``FAILED`` is the miner's: it was silent, refused, lied or could not do it. ``UNTAKEN`` never became a task, and
    nobody is to blame: the miner was busy and said so, or the trouble was ours.
    """

    ASKED = "asked"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    VERIFIED = "verified"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"
    UNTAKEN = "untaken"


OPEN_STATES: Final = (ChallengeState.ASKED, ChallengeState.ACCEPTED, ChallengeState.DELIVERED)
"""States of a challenge that has not ended."""

GIVEN_UP_SECONDS: Final = 600.0
"""Age at which miners give up delivering a task: after a longer outage of ours they have nothing to bring."""

_EXPIRY_GRACE: Final = 5.0
"""Seconds after a deadline in which a delivery that came in time may still be on its way into the database."""


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
    reasons: tuple[dict[str, Any], ...] = ()


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
        return sum(self.states.get(state, 0) for state in OPEN_STATES)

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

    @property
    def database(self) -> Database:
        """Where they are kept."""
        return self._database

    @property
    def validator(self) -> str:
        """Hotkey of the validator."""
        return self._validator

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
                raise unknown_task()
            refusal = delivery_refusal(row.state, row.deadline, now)
            if refusal is not None and row.state != ChallengeState.ACCEPTED.value:
                raise refusal
            if refusal is not None:
                row.state, row.settled_at = ChallengeState.EXPIRED.value, now
            else:
                row.state, row.delivered_at = ChallengeState.DELIVERED.value, now
            challenge = _challenge(row)
        if refusal is not None:
            raise refusal
        return challenge

    def peek(self, miner: str, task_id: str) -> Challenge | None:
        """A challenge as of now; None when this miner has no task of that id."""
        with self._database.read() as session:
            row = session.get(ChallengeRow, (self._validator, miner, task_id))
            return _challenge(row) if row is not None else None

    def fail(self, challenge: Challenge, message: str) -> None:
        """The miner says that it could not do it."""
        reason = Reason("miner_failed", message[:500])
        self._end(challenge, ChallengeState.FAILED, [reason.as_dict()])

    def give_up(self, miner: str, task_id: str, message: str) -> None:
        """The miner says of a task that it could not do it; first word counts, as with a medium.

        Raises:
            RequestRefused: As :meth:`claim`.
        """
        now = self._clock.time()
        with self._database.write() as session:
            row = session.get(ChallengeRow, (self._validator, miner, task_id))
            refusal = unknown_task() if row is None else delivery_refusal(row.state, row.deadline, now)
            if row is None or refusal is not None:
                raise refusal or unknown_task()
            row.state, row.delivered_at, row.settled_at = ChallengeState.FAILED.value, now, now
            said = "".join(c for c in message[:500] if c.isprintable())
            row.reasons = [Reason("miner_failed", said).as_dict()]

    def judge(self, challenge: Challenge, verdict: Verdict, medium: MediumRow | None) -> None:
        """Keep the verdict, and the medium when it is verified, in one transaction."""
        with self._database.write() as session:
            row = session.get_one(ChallengeRow, (self._validator, challenge.miner, challenge.task_id))
            row.state = (ChallengeState.VERIFIED if verdict.verified else ChallengeState.REFUSED).value
            row.reasons = [reason.as_dict() for reason in verdict.reasons]
            row.media_sha256 = verdict.sha256
            row.settled_at = self._clock.time()
            if medium is not None:
                session.add(medium)

    def expire(self) -> int:
        """Close what is past its deadline, and what a crash left half done; returns how many.

        What waits for its verification came in time and stays.
        """
        now = self._clock.time()
        ends: tuple[tuple[ChallengeState, ChallengeState, list[Any]], ...] = (
            (
                ChallengeState.ASKED,
                ChallengeState.UNTAKEN,
                [Reason("interrupted", "Our request was cut off.").as_dict()],
            ),
            (ChallengeState.ACCEPTED, ChallengeState.EXPIRED, []),
            (ChallengeState.DELIVERED, ChallengeState.EXPIRED, []),
        )
        count = 0
        with self._database.write() as session:
            for state, end, reasons in ends:
                late = (
                    ChallengeRow.validator == self._validator,
                    ChallengeRow.state == state.value,
                    ChallengeRow.deadline < now - _EXPIRY_GRACE,
                    ChallengeRow.blob_sha256.is_(None),
                )
                change = update(ChallengeRow).where(*late)
                result = session.execute(change.values(state=end.value, reasons=reasons, settled_at=now))
                count += int(getattr(result, "rowcount", 0))
        return count

    def make_up(self, down_since: float, tasks: Collection[tuple[str, str]] | None = None) -> int:
        """Add an outage of ours to the deadlines of the tasks that were open when it began; returns how many.

        Nobody could deliver meanwhile, and what runs out counts against the miner.

        Args:
            down_since: When it began, as when the service gave its last sign of life, seconds since the epoch.
            tasks: Whom it concerns, by hotkey and task id; None for everybody.
        """
        seconds = self._clock.time() - down_since
        if seconds <= 0:
            return 0
        whose = () if tasks is None else (tuple_(ChallengeRow.miner, ChallengeRow.task_id).in_(list(tasks)),)
        with self._database.write() as session:
            result = session.execute(
                update(ChallengeRow)
                .where(
                    ChallengeRow.validator == self._validator,
                    ChallengeRow.state == ChallengeState.ACCEPTED.value,
                    ChallengeRow.deadline >= down_since,
                    *whose,
                )
                .values(deadline=ChallengeRow.deadline + seconds)
            )
            return int(getattr(result, "rowcount", 0))

    def let_go(self, before: float) -> int:
        """End the open tasks that were accepted before a time without blame; returns how many.

        An outage of ours has lasted so long since then that their miners have given up.
        """
        reason = Reason("our_fault", "The validator could take no deliveries for a long time.").as_dict()
        end = {"state": ChallengeState.UNTAKEN.value, "reasons": [reason], "settled_at": self._clock.time()}
        with self._database.write() as session:
            result = session.execute(
                update(ChallengeRow)
                .where(
                    ChallengeRow.validator == self._validator,
                    ChallengeRow.state == ChallengeState.ACCEPTED.value,
                    ChallengeRow.created_at < before,
                )
                .values(**end)
            )
            return int(getattr(result, "rowcount", 0))

    def open_tasks(self) -> dict[tuple[str, str], float]:
        """Deadline of every task that may still be delivered, by hotkey and task id."""
        with self._database.read() as session:
            rows = session.execute(
                select(ChallengeRow.miner, ChallengeRow.task_id, ChallengeRow.deadline).where(
                    ChallengeRow.validator == self._validator, ChallengeRow.state == ChallengeState.ACCEPTED.value
                )
            )
            return {(miner, task_id): deadline for miner, task_id, deadline in rows.tuples()}

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
            row.settled_at = self._clock.time()


def delivery_refusal(state: str, deadline: float, delivered_at: float) -> RequestRefused | None:
    """Why a task can't take a delivery; None when it can.

    Args:
        state: Of its challenge.
        deadline: Seconds since the epoch.
        delivered_at: When the delivery came.
    """
    if state == ChallengeState.ACCEPTED.value:
        return _too_late() if delivered_at > deadline else None
    if state == ChallengeState.EXPIRED.value:
        return _too_late()
    never = (ChallengeState.ASKED.value, ChallengeState.UNTAKEN.value)
    return unknown_task() if state in never else already_delivered()


def unknown_task() -> RequestRefused:
    """404: there is no such task of this miner."""
    return RequestRefused("This hotkey has no task of that id here.", status=404, code="unknown_task")


def already_delivered() -> RequestRefused:
    """409: only the first delivery counts."""
    return RequestRefused("The task has been delivered before.", status=409, code="already_delivered")


def _too_late() -> RequestRefused:
    return RequestRefused("The task's deadline has passed.", status=410, code="too_late")


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
        reasons=tuple(row.reasons),
    )
