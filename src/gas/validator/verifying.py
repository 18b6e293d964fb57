"""Verification as a queue: what was delivered is judged once, by any number of workers, and settled in one transaction.

A row of the database is a place in the queue. Whoever judges claims it first; claims of a killed worker run out. The
verdict, the medium's row and the challenge's end are one transaction, so that a worker killed before it has done
nothing, and one killed after it has done everything. Media take their place in the index of copies in the order in
which they were delivered, however many are judged at a time: of a medium and its stolen copy the first one counts.

What is not covered: a clock of another machine that is wrong by more than the lease.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gas.clock import Clock
from gas.errors import InfrastructureError, Reason, StorageError
from gas.storage.blobs import BlobStore
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, MediumRow
from gas.types import MediaType, Modality
from gas.validator.claims import Claim, Claims
from gas.validator.known_media import CaughtUp, KnownMedia
from gas.validator.refused_blobs import sweep_refused
from gas.validator.store import medium_row
from gas.validator.tasks import ChallengeState
from gas.validator.turns import AcceptInTurn, Turns
from gas.verification.base import Asked, Edit, Verdict
from gas.verification.duplicates import MediaIndex
from gas.verification.pipeline import Verifier

__all__ = ["Elsewhere", "Settled", "Verifying"]

_BATCH: Final = 4
_POLL: Final = 0.05
_LOST: Final = ("blob_missing", "blob_damaged")

Members = Callable[[], Mapping[str, int] | None]
"""Who holds which slot now: uid by hotkey; None while that isn't known."""

Elsewhere = Callable[[Session, ChallengeRow, str, Mapping[str, Any]], Reason | None]
"""Why a medium was sold to another validator before, as :meth:`gas.validator.double_sales.DoubleSales.refusal`."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A challenge whose delivery has been judged.

    Attributes:
        miner: Its hotkey.
        task_id: Of the challenge.
        state: ``verified``, ``refused``, or ``untaken`` when it could not be judged through a fault of ours.
        codes: Of the reasons.
    """

    miner: str
    task_id: str
    state: ChallengeState
    codes: tuple[str, ...] = ()


class Verifying:
    """Judges the deliveries of one validator.

    Args:
        database: The queue, and where verdicts and media go.
        blobs: Where deliveries are.
        verifiers: One for each thread; all with this index. Their last step is replaced by one that waits its turn.
        index: Of copies; written by this process only.
        validator: Hotkey whose challenges these are.
        clock: For claims and verdicts.
        worker: Name of this worker, the same after its restart: what it had claimed it takes up again at once.
        members: Who holds which slot now; None when that isn't known, and then nobody counts as replaced.
        folder: Where the index is; None when it is in memory only.
        lease: Seconds after which another worker's claim has run out.
        most_attempts: After so many workers died over one delivery it is given up.
        grace: Seconds after which the bytes of a refused delivery are removed.
        elsewhere: Knows what other validators have accepted.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        verifiers: Sequence[Verifier],
        index: MediaIndex,
        validator: str,
        clock: Clock,
        *,
        worker: str,
        members: Members | None = None,
        folder: Path | None = None,
        lease: float = 300.0,
        most_attempts: int = 5,
        grace: float = 600.0,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._index = index
        self._validator = validator
        self._clock = clock
        self._worker = worker[:64]
        self._members = members
        self._known = KnownMedia(database, index, folder)
        self._claims = Claims(database, validator, clock, self._worker, lease)
        self._most_attempts = most_attempts
        self._grace = grace
        self._elsewhere = elsewhere
        self._turns = Turns()
        self._pause = threading.Event()
        self._free: SimpleQueue[Verifier] = SimpleQueue()
        self._threads = len(verifiers)
        self._log = structlog.get_logger("gas.validator").bind(worker=worker)
        for verifier in verifiers:
            verifier.steps = (*verifier.steps[:-1], AcceptInTurn(index, self._turns))
            self._free.put(verifier)

    def catch_up(self, *, anew: bool = False) -> CaughtUp:
        """See :meth:`gas.validator.known_media.KnownMedia.catch_up`; to be called once at the start."""
        return self._known.catch_up(anew=anew)

    def backlog(self) -> bool:
        """Whether deliveries wait for their judgement."""
        with self._database.read() as session:
            return session.scalar(self._claims.waiting().limit(1)) is not None

    def waiting(self) -> int:
        """How many deliveries wait for their judgement, or are being judged."""
        with self._database.read() as session:
            return int(
                session.scalar(
                    select(func.count()).where(
                        ChallengeRow.validator == self._validator,
                        ChallengeRow.state == ChallengeState.DELIVERED.value,
                        ChallengeRow.blob_sha256.is_not(None),
                    )
                )
                or 0
            )

    def step(self, most: int | None = None) -> list[Settled]:
        """Judge what waits, the oldest first, and remove the bytes of what was refused long enough ago.

        Args:
            most: At most so many; four for each thread by default.

        Returns:
            What was settled; empty when nothing waits.

        Raises:
            gas.errors.InfrastructureError: The decoder, the index, the blobs or the database failed: nothing is
                lost, and nobody pays for it; call again later.
        """
        claims = self._claims.take(most or _BATCH * self._threads)
        owners = [claim.owner(self._validator) for claim in claims]
        self._turns.enter(owners)
        found: list[Settled | None] = []
        try:
            # What has cut off a judgement before is judged alone, so that it takes no other delivery's attempts along.
            if self._threads == 1 or any(claim.attempts for claim in claims):
                found = self._one_by_one(claims)
            else:
                with ThreadPoolExecutor(self._threads, thread_name_prefix="verify") as pool:
                    found = list(pool.map(self._work, claims))
        finally:
            for owner in owners:
                self._turns.leave(owner)
        self.sweep()
        return [one for one in found if one is not None]

    def _one_by_one(self, claims: Sequence[Claim]) -> list[Settled | None]:
        found: list[Settled | None] = []
        for at, claim in enumerate(claims):
            try:
                found.append(self._work(claim))
            except InfrastructureError:
                self._claims.release(claims[at + 1 :], begun=False)
                raise
        return found

    def sweep(self, most: int = 100) -> int:
        """Remove the bytes of refused deliveries, unless something else names them; returns how many."""
        before = self._clock.time() - self._grace
        return sweep_refused(self._database, self._blobs, self._validator, before=before, most=most)

    def _work(self, claim: Claim) -> Settled | None:
        owner = claim.owner(self._validator)
        begun = False
        try:
            attempts = self._claims.begin(claim)
            if attempts is None:
                return None
            begun = True
            settled = self._judge(replace(claim, attempts=attempts))
        except InfrastructureError:
            self._claims.release([claim], begun=begun)
            raise
        finally:
            self._turns.leave(owner)
        if settled is not None:
            self._log.info(
                "medium_judged", miner=claim.miner, task=claim.task_id, state=settled.state.value, reasons=settled.codes
            )
        return settled

    def _judge(self, claim: Claim) -> Settled | None:
        if claim.attempts > self._most_attempts:
            return self._settle(claim, None, _ours(f"{claim.attempts - 1} attempts to judge it were cut off."))
        members = self._members() if self._members is not None else None
        if members is not None and (claim.miner not in members or claim.uid not in (None, members[claim.miner])):
            reason = Reason("hotkey_replaced", "The hotkey doesn't hold the slot any more that was challenged.")
            return self._settle(claim, None, reason, ChallengeState.REFUSED)
        try:
            data, edit = self._blobs.get(claim.blob), self._edit(claim)
        except StorageError as error:
            if error.error_code in _LOST:
                return self._settle(claim, None, _ours("The delivered bytes are lost or damaged."))
            raise
        asked = Asked(
            claim.modality, claim.created_at, claim.deadline, claim.delivered_at, claim.prompt, claim.parameters,
            claim.owner(self._validator), edit,
        )  # fmt: skip
        verifier = self._free.get()
        try:
            verdict = verifier.judge(data, asked, claim.blob)
            while verdict.verified:
                settled = self._accept(claim, verdict)
                if settled is not None:
                    return settled if settled.miner else None
                # Others have added media since this one was compared with all: once more, with them.
                self.catch_up()
                verdict = verifier.judge(data, asked, claim.blob)
        finally:
            self._free.put(verifier)
        return self._settle(claim, verdict)

    def _edit(self, claim: Claim) -> Edit | None:
        """What was sent along to be changed."""
        source, mask = (_text(claim.parameters.get(name)) for name in ("source_sha256", "mask_sha256"))
        return Edit(self._blobs.get(source), self._blobs.get(mask)) if source and mask else None

    def _accept(self, claim: Claim, verdict: Verdict) -> Settled | None:
        """Settle a verified medium, unless media have come into the database of which the index knows nothing.

        Returns:
            None when it has to be judged again; one without a miner when somebody else has settled it.
        """
        while True:
            outcome = self._database.transact(lambda session: self._try_accept(session, claim, verdict))
            if outcome != "wait":
                break
            # An earlier delivery is with another worker: which of two copies came first must not depend on speed.
            self._pause.wait(_POLL)
        if outcome == "again":
            return None
        if outcome == "gone":
            return Settled("", "", ChallengeState.UNTAKEN)
        self._known.remember(verdict.sha256, self._clock.time())
        return outcome if isinstance(outcome, Settled) else None

    def _try_accept(self, session: Session, claim: Claim, verdict: Verdict) -> Settled | str:
        row = self._claims.mine(session, claim)
        if row is None:
            return "gone"
        now = self._clock.time()
        earlier = session.scalar(
            select(ChallengeRow.task_id)
            .where(
                ChallengeRow.validator == self._validator,
                ChallengeRow.state == ChallengeState.DELIVERED.value,
                ChallengeRow.modality == row.modality,
                ChallengeRow.delivered_at < row.delivered_at,
                ChallengeRow.claimed_by != self._worker,
                ChallengeRow.claimed_until >= now,
            )
            .limit(1)
        )
        if earlier is not None:
            self._claims.renew(row)
            return "wait"
        if self._known.behind(session):
            return "again"
        there = session.get(MediumRow, verdict.sha256)
        reason: Reason | None = None
        if there is not None:
            reason = Reason("duplicate", "The network has seen this medium before.")
        elif self._elsewhere is not None:
            reason = self._elsewhere(session, row, verdict.sha256, verdict.facts)
        if reason is not None:
            return self._end(row, replace(verdict, reasons=(reason,)), ChallengeState.REFUSED, now)
        session.add(
            medium_row(
                verdict,
                validator=self._validator,
                generator=row.miner,
                task_id=row.task_id,
                modality=Modality(row.modality),
                prompt=row.prompt,
                now=now,
                parameters=row.parameters,
                media_type=_media_type(row.parameters),
                mask_sha256=_text(row.parameters.get("mask_sha256")),
            )
        )
        row.blob_sha256 = None
        return self._end(row, verdict, ChallengeState.VERIFIED, now)

    def _settle(
        self,
        claim: Claim,
        verdict: Verdict | None,
        reason: Reason | None = None,
        state: ChallengeState | None = None,
    ) -> Settled | None:
        """End a challenge without a medium; None when somebody else has settled it."""
        if verdict is None:
            verdict = Verdict((reason,) if reason is not None else (), claim.blob)
            state = state or ChallengeState.UNTAKEN

        def work(session: Session) -> Settled | None:
            row = self._claims.mine(session, claim)
            if row is None:
                return None
            return self._end(row, verdict, state or ChallengeState.REFUSED, self._clock.time())

        return self._database.transact(work)

    def _end(self, row: ChallengeRow, verdict: Verdict, state: ChallengeState, now: float) -> Settled:
        row.state, row.settled_at = state.value, now
        row.reasons = [reason.as_dict() for reason in verdict.reasons]
        row.media_sha256 = verdict.sha256
        row.claimed_by = row.claimed_until = None
        return Settled(row.miner, row.task_id, state, tuple(reason.code for reason in verdict.reasons))


def _ours(why: str) -> Reason:
    return Reason("our_fault", f"The medium could not be judged, through no fault of the miner's. {why}")


def _media_type(parameters: Mapping[str, Any]) -> MediaType:
    """Semisynthetic where a picture was sent along to be changed."""
    return MediaType.SEMISYNTHETIC if _text(parameters.get("source_sha256")) else MediaType.SYNTHETIC


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
