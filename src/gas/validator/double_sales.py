"""One medium sold to two validators: what others have accepted is compared with what is delivered here.

Two ways in, the same rule. A new medium is compared with the prints that are here; a print that comes later is compared
with the media that were accepted here, and the challenge of one that was sold elsewhere before is withdrawn from the
count: it ends as ``refused``. The validator for which the miner signed earlier keeps its count.

A print of another validator counts against a medium of ours only when nobody but the miner can be to blame:

=====================================  =================================================================
same miner, same bytes                 always: the miner has signed them for both
same miner, nearly the same, or cut    its digest was here before we showed our own print of the medium,
                                       so that it can't have been made from that
another miner                          its digest was here before our medium was delivered, so that no
                                       validator and miner can claim afterwards to have been first
=====================================  =================================================================

Every print that is like a medium is looked at, not the nearest alone: nobody hides another's print behind one of its
own that doesn't count.

Cuts and mirror images are known by the segments of their pictures, of one miner only: segments are what a validator
could make up most easily, and nobody's word costs another miner its pay that is not backed by nearly the same hash.

What is not covered: another miner's cut or mirrored picture; sounds and videos cut anew; what was accepted longer ago
than :data:`gas.validator.print_pruning.PRINT_SECONDS`; and a validator that reads a miner's plain HTTP deliveries to us
as they pass, and receives media of that miner itself, can claim a near copy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import and_, or_, select, tuple_
from sqlalchemy.orm import Session

from gas.clock import Clock
from gas.errors import IntegrityError, Reason
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, MediumRow, PrintRow
from gas.validator.ground import ServiceState
from gas.validator.print_pruning import PRINT_SECONDS
from gas.validator.prints import SOLD_ELSEWHERE, Entry, Proof
from gas.validator.store import MediumSource
from gas.validator.tasks import ChallengeState
from gas.verification.duplicates import MediaIndex, Seen
from gas.verification.pictures import Match

__all__ = ["AGREEING", "SAME_MINER_BITS", "DoubleSales", "Withdrawn"]

SAME_MINER_BITS: Final = 8
"""Pictures of one miner whose 256-bit hashes differ in at most so many bits are one, as within one prompt."""

AGREEING: Final = 5
"""So many segments of two pictures agree on how one lies on the other when one is cut or mirrored from the other; more
than within a store, for these are another validator's word."""

_OTHER_MINER_BITS: Final = 4
_CUT: Final = 256
_OWN_SECONDS: Final = 2 * 86_400.0
_CURSOR: Final = "prints"
_OVERLAP: Final = 10.0
_PAGE: Final = 200
_AT_A_TIME: Final = 500
_EVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A challenge that was verified and does not count any more, and the validator that accepted the medium first."""

    miner: str
    task_id: str
    validator: str


@dataclass(frozen=True, slots=True)
class _Sale:
    """A delivery to us: by whom, when it was signed (ms), when it came, and when its print is shown (seconds)."""

    miner: str
    sha256: str
    signed_ms: int
    delivered_at: float
    shown_at: float


class DoubleSales:
    """Finds them, in the process that has the index of copies.

    Args:
        database: Challenges, media and prints.
        validator: Our hotkey.
        elsewhere: Index of the others' prints, made for :data:`SAME_MINER_BITS` and :data:`AGREEING`; written and
            closed here only.
        renew: Makes an empty index in its place, when it has been closed: an index forgets nothing, so that it is made
            anew as often as prints are forgotten.
        state: What is found again after a restart.
        clock: The time.
        reveal_seconds: From a digest of our own prints to its entry.
    """

    def __init__(
        self,
        database: Database,
        validator: str,
        elsewhere: MediaIndex,
        renew: Callable[[], MediaIndex],
        state: ServiceState,
        clock: Clock,
        *,
        reveal_seconds: float = 600.0,
    ) -> None:
        self._database = database
        self._validator = validator
        self._elsewhere, self._renew = elsewhere, renew
        self._lock = threading.Lock()
        # Of our own prints; small, because only what may still be withdrawn is compared.
        self._own = MediaIndex(near_bits=SAME_MINER_BITS, agreeing=AGREEING)
        self._own_since, self._own_seq = clock.time() - _OWN_SECONDS, 0
        self._state = state
        self._clock = clock
        self._reveal = reveal_seconds

    def close(self) -> None:
        """Give the indexes back."""
        with self._lock:
            self._elsewhere.close()
        self._own.close()

    def refusal(self, session: Session, row: ChallengeRow, sha256: str, facts: Mapping[str, Any]) -> Reason | None:
        """Why a medium that is in order otherwise was sold elsewhere before; None when it was not.

        Args:
            session: Any session.
            row: Its challenge.
            sha256: Of its bytes.
            facts: As verification measured them.
        """
        sale = _sale(row, sha256, _EVER)
        for found, distance in self._prints_like(session, sha256, facts):
            if self._counts(found, sale, distance):
                return _reason(found, sale)
        return None

    def settle(self) -> list[Withdrawn]:
        """Take in the prints that have been opened since the last call, and withdraw what was sold elsewhere first.

        Raises:
            gas.errors.StorageError: The database or the index fails; call again later.
        """
        known = self._renewed(self._state.get(_CURSOR))
        # An index that was lost is filled again; to settle a print twice changes nothing.
        at = float(known.get("opened_at", 0.0)) - _OVERLAP if len(self._elsewhere) else -1.0
        key: tuple[str, str, int] = ("", "", 0)
        withdrawn: list[Withdrawn] = []
        while True:
            place = tuple_(PrintRow.validator, PrintRow.log, PrintRow.seq)
            later = or_(PrintRow.opened_at > at, and_(PrintRow.opened_at == at, place > tuple_(*key)))
            with self._database.read() as session:
                rows = session.scalars(
                    select(PrintRow)
                    .where(PrintRow.validator != self._validator, PrintRow.sha256.is_not(None), later)
                    .order_by(PrintRow.opened_at, PrintRow.validator, PrintRow.log, PrintRow.seq)
                    .limit(_PAGE)
                ).all()
            # Filling an index anew takes its time, in which media of ours are accepted.
            self._learn_own()
            for row in rows:
                withdrawn += self._settle(row)
            if rows:
                last = rows[-1]
                at, key = last.opened_at or at, (last.validator, last.log, last.seq)
                if at > float(known.get("opened_at", 0.0)):
                    known = {**known, "opened_at": at}
                    self._state.put(_CURSOR, known)
            if len(rows) < _PAGE:
                return withdrawn

    def _renewed(self, known: dict[str, Any]) -> dict[str, Any]:
        """The place where the last call ended; the beginning, with a new index, when half of the old one is history."""
        now = self._clock.time()
        # Without it the index is of a version that named its rows otherwise, or there is none yet.
        since = float(known.get("since", 0.0))
        if now - since < PRINT_SECONDS:
            return {**known, "since": since}
        with self._lock:
            self._elsewhere.close()
            self._elsewhere = self._renew()
        known = {"since": now}
        self._state.put(_CURSOR, known)
        return known

    def _settle(self, row: PrintRow) -> list[Withdrawn]:
        try:
            seen = Entry.model_validate(row.entry).seen()
        except IntegrityError:
            return []
        # By the line and not by the medium: who claims another's bytes with hashes of its own must not be in the way.
        with self._lock:
            self._elsewhere.add(replace(seen, sha256=row.digest))
        apart = {seen.sha256: 0}
        for match in self._own.near_copies_of(seen) if seen.frames or len(seen.words) else ():
            apart.setdefault(match.sha256, _distance(match))
        return self._database.transact(lambda session: self._withdraw(session, row, apart))

    def _learn_own(self) -> None:
        """Take our own new prints into their index, which is begun anew before it gets large.

        What is too old to be compared may still be in it; :meth:`_withdraw` passes over that, so that a restart changes
        no verdict.
        """
        since = self._clock.time() - _OWN_SECONDS
        if since - self._own_since > _OWN_SECONDS:
            self._own.close()
            self._own = MediaIndex(near_bits=SAME_MINER_BITS, agreeing=AGREEING)
            self._own_since, self._own_seq = since, 0
        with self._database.read() as session:
            rows = session.scalars(
                select(PrintRow)
                .where(
                    PrintRow.validator == self._validator,
                    PrintRow.at >= self._own_since,
                    PrintRow.seq > self._own_seq,
                    PrintRow.sha256.is_not(None),
                )
                .order_by(PrintRow.seq)
            ).all()
        for row in rows:
            with suppress(IntegrityError):
                self._own.add(Entry.model_validate(row.entry).seen())
            self._own_seq = row.seq

    def _withdraw(self, session: Session, row: PrintRow, apart: Mapping[str, int]) -> list[Withdrawn]:
        done = []
        for medium in session.scalars(select(MediumRow).where(MediumRow.sha256.in_(apart))):
            if medium.validator != self._validator or medium.source != MediumSource.MINER.value:
                continue
            challenge = session.get(ChallengeRow, (self._validator, medium.generator, medium.task_id))
            if challenge is None or challenge.state != ChallengeState.VERIFIED.value:
                continue
            line = session.scalars(
                select(PrintRow).where(PrintRow.validator == self._validator, PrintRow.sha256 == medium.sha256)
            ).first()
            if line is None and (challenge.delivered_at or 0.0) < self._clock.time() - PRINT_SECONDS:
                # When our print of it was shown is forgotten.
                continue
            if apart[medium.sha256] and line is not None and line.at < self._clock.time() - _OWN_SECONDS:
                continue
            sale = _sale(challenge, medium.sha256, _EVER if line is None else line.at + self._reveal)
            if not self._counts(row, sale, apart[medium.sha256]):
                continue
            challenge.state, challenge.settled_at = ChallengeState.REFUSED.value, self._clock.time()
            challenge.reasons = [_reason(row, sale).as_dict()]
            done.append(Withdrawn(challenge.miner, challenge.task_id, row.validator))
        return done

    def _prints_like(self, session: Session, sha256: str, facts: Mapping[str, Any]) -> Iterator[tuple[PrintRow, int]]:
        others = select(PrintRow).where(PrintRow.validator != self._validator, PrintRow.sha256.is_not(None))
        for row in session.scalars(others.where(PrintRow.sha256 == sha256).order_by(PrintRow.seen_at)):
            yield row, 0
        with suppress(IntegrityError):
            medium = Seen.from_facts(sha256, {**facts, "owner": ""})
            with self._lock:
                apart = {match.sha256: _distance(match) for match in self._elsewhere.near_copies_of(medium)}
            names = list(apart)
            for at in range(0, len(names), _AT_A_TIME):
                for row in session.scalars(others.where(PrintRow.digest.in_(names[at : at + _AT_A_TIME]))):
                    yield row, apart[row.digest]

    def _counts(self, row: PrintRow, sale: _Sale, distance: int) -> bool:
        """The rule of this module."""
        first_ms = Entry.model_validate(row.entry).proof.at_ms
        if (first_ms, row.validator) >= (sale.signed_ms, self._validator):
            return False
        if row.miner != sale.miner:
            return row.seen_at < sale.delivered_at and distance <= _OTHER_MINER_BITS
        return row.sha256 == sale.sha256 or row.seen_at < sale.shown_at


def _distance(match: Match) -> int:
    """Bits; of what is cut or mirrored farther than another miner's copy may be."""
    return _CUT if match.kind == "segments" else match.distance


def _sale(row: ChallengeRow, sha256: str, shown_at: float) -> _Sale:
    delivered = row.created_at if row.delivered_at is None else row.delivered_at
    signed = Proof.model_validate(row.proof).at_ms if row.proof is not None else int(delivered * 1000)
    return _Sale(row.miner, sha256, signed, delivered, shown_at)


def _reason(row: PrintRow, sale: _Sale) -> Reason:
    first = Entry.model_validate(row.entry).proof.at_ms / 1000
    when = datetime.fromtimestamp(first, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    whose = "its maker" if row.miner == sale.miner else f"another miner ({row.miner})"
    same = "The same medium" if row.sha256 == sale.sha256 else "Nearly the same medium"
    return Reason(SOLD_ELSEWHERE, f"{same} was delivered by {whose} to the validator {row.validator} at {when}.")
