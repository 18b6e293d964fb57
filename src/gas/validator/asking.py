"""What the challenge loop writes: a request is on record before it leaves, so that a crash loses and doubles none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from gas.clock import Clock
from gas.errors import Reason
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow
from gas.types import Hotkey, Modality
from gas.validator.ground import ServiceState
from gas.validator.owed import Wish, owed_wishes
from gas.validator.tasks import OPEN_STATES, ChallengeState

if TYPE_CHECKING:
    from gas.validator.edit_sources import EditSource

__all__ = ["CURSOR", "Ask", "Asking", "Outcome"]

CURSOR = "challenges"
"""Key of the service's state that says which interval of blocks was challenged last."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to one generator, before it is sent.

    Attributes:
        id: Ours, unique; the row's task id until the miner has given its own.
        miner: Hotkey.
        uid: Its slot.
        modality: What is asked for.
        tier: The one that is paid, an index into :data:`gas.scoring.generators.TIERS`.
        prompt: What the medium should show; empty when the miner could not even be asked what it makes.
        prompt_id: The bank's.
        parameters: As they are sent.
        block: At which it was drawn.
        edit: The picture that is sent along to be changed; None where a medium is to be made from nothing.
    """

    id: str
    miner: str
    uid: int
    modality: Modality
    tier: int
    prompt: str
    prompt_id: int | None
    block: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    edit: EditSource | None = None

    def kept(self) -> dict[str, Any]:
        """The parameters as the challenge's row keeps them: with the names of what was sent along."""
        return {**self.parameters, **(self.edit.parameters() if self.edit is not None else {})}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request that did not become a task.

    Attributes:
        ask: The request.
        reason: ``silent``, ``slow``, ``busy``, ``refused``, ``bad_answer``, ``bad_info`` or ``task_id_reused``.
        blameless: Whether it must not count against the miner.
    """

    ask: Ask
    reason: Reason
    blameless: bool = False


class Asking:
    """The requests of one validator in the database.

    Args:
        database: Where they are kept.
        validator: Hotkey of the validator.
        clock: The time.
    """

    def __init__(self, database: Database, validator: str, clock: Clock) -> None:
        self._database = database
        self._validator = validator
        self._clock = clock

    def load(self, since: float) -> tuple[dict[str, int], dict[str, int]]:
        """How many challenges each miner has open, and how many it got since a time (seconds since the epoch)."""
        mine = ChallengeRow.validator == self._validator
        count = func.count()
        with self._database.read() as session:
            states = ChallengeRow.state.in_([state.value for state in OPEN_STATES])
            opened = session.execute(select(ChallengeRow.miner, count).where(mine, states).group_by(ChallengeRow.miner))
            recent = session.execute(
                select(ChallengeRow.miner, count)
                .where(mine, ChallengeRow.created_at >= since)
                .group_by(ChallengeRow.miner)
            )
            return dict(opened.tuples().all()), dict(recent.tuples().all())

    def owed(self, miners: Collection[Hotkey], since: float) -> dict[tuple[Hotkey, str], Wish]:
        """See :func:`gas.validator.owed.owed_wishes`."""
        with self._database.read() as session:
            return owed_wishes(session, self._validator, miners, since)

    def backlog(self) -> int:
        """Deliveries that wait for their verification."""
        with self._database.read() as session:
            waiting = ChallengeRow.state == ChallengeState.DELIVERED.value
            query = select(func.count()).select_from(ChallengeRow).where(waiting)
            return session.scalar(query.where(ChallengeRow.validator == self._validator)) or 0

    def ask(self, asks: Sequence[Ask], seconds: float, state: ServiceState, cursor: dict[str, Any]) -> None:
        """Put requests on record, and that their interval has had its turn, in one transaction.

        Args:
            asks: The requests.
            seconds: Time after which one of which nothing more is heard counts as cut off.
            state: Of the service.
            cursor: Kept as :data:`CURSOR`.
        """
        now = self._clock.time()
        with self._database.write() as session:
            state.put(CURSOR, cursor, session)
            session.add_all(
                ChallengeRow(
                    validator=self._validator,
                    miner=ask.miner,
                    task_id=ask.id,
                    modality=ask.modality.value,
                    prompt=ask.prompt,
                    prompt_id=ask.prompt_id,
                    parameters=ask.kept(),
                    state=ChallengeState.ASKED.value,
                    created_at=now,
                    deadline=now + seconds,
                    tier=ask.tier,
                    uid=ask.uid,
                    block=ask.block,
                    reasons=[],
                )
                for ask in asks
            )

    def accept(self, ask: Ask, task_id: str, seconds: float) -> float | None:
        """The miner has taken a request and given it an id.

        Args:
            ask: The request.
            task_id: The miner's.
            seconds: Time for the delivery, from now on.

        Returns:
            The deadline, seconds since the epoch; None when the miner has given this id before.
        """
        now = self._clock.time()
        mine = (ChallengeRow.validator == self._validator, ChallengeRow.miner == ask.miner)
        change = update(ChallengeRow).where(
            *mine, ChallengeRow.task_id == ask.id, ChallengeRow.state == ChallengeState.ASKED.value
        )
        accepted = {"state": ChallengeState.ACCEPTED.value, "created_at": now, "deadline": now + seconds}
        try:
            with self._database.write() as session:
                session.execute(change.values(task_id=task_id, **accepted))
        except IntegrityError:
            return None
        return now + seconds

    def end(self, outcomes: Sequence[Outcome]) -> None:
        """Close requests that did not become tasks, in one transaction."""
        now = self._clock.time()
        with self._database.write() as session:
            for outcome in outcomes:
                state = ChallengeState.UNTAKEN if outcome.blameless else ChallengeState.FAILED
                session.execute(
                    update(ChallengeRow)
                    .where(
                        ChallengeRow.validator == self._validator,
                        ChallengeRow.miner == outcome.ask.miner,
                        ChallengeRow.task_id == outcome.ask.id,
                        ChallengeRow.state == ChallengeState.ASKED.value,
                    )
                    .values(state=state.value, reasons=[outcome.reason.as_dict()], settled_at=now)
                )

    def end_interrupted(self) -> int:
        """Close what a killed process was just asking; to be called before the first round, by the one who asks.

        Returns:
            How many there were.
        """
        reason = Reason("interrupted", "The validator was stopped while it asked.").as_dict()
        change = update(ChallengeRow).where(
            ChallengeRow.validator == self._validator, ChallengeRow.state == ChallengeState.ASKED.value
        )
        values = {"state": ChallengeState.UNTAKEN.value, "reasons": [reason], "settled_at": self._clock.time()}
        with self._database.write() as session:
            return int(getattr(session.execute(change.values(**values)), "rowcount", 0))

    def end_replaced(self, registered: Collection[str]) -> int:
        """Close the open challenges of hotkeys that have lost their slot; returns how many.

        What they have delivered and nobody has verified yet is refused, the rest expires.

        Args:
            registered: Every hotkey of the metagraph.
        """
        now = self._clock.time()
        gone: dict[ChallengeState, list[tuple[str, str]]] = defaultdict(list)
        query = select(ChallengeRow.miner, ChallengeRow.task_id, ChallengeRow.state).where(
            ChallengeRow.validator == self._validator, ChallengeRow.state.in_([state.value for state in OPEN_STATES])
        )
        with self._database.read() as session:
            for miner, task_id, state in session.execute(query).tuples():
                if miner not in registered:
                    gone[ChallengeState(state)].append((miner, task_id))
        if not gone:
            return 0
        reason = Reason("hotkey_replaced", "The hotkey lost its slot on the subnet.").as_dict()
        count = 0
        with self._database.write() as session:
            for state, found in gone.items():
                end = ChallengeState.REFUSED if state is ChallengeState.DELIVERED else ChallengeState.EXPIRED
                for miner, task_id in found:
                    key = (ChallengeRow.validator == self._validator, ChallengeRow.miner == miner)
                    change = update(ChallengeRow).where(*key, ChallengeRow.task_id == task_id)
                    result = session.execute(
                        change.where(ChallengeRow.state == state.value).values(
                            state=end.value, reasons=[reason], settled_at=now
                        )
                    )
                    count += int(getattr(result, "rowcount", 0))
        return count
