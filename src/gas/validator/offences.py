"""What a miner does in vain on purpose, counted by hotkey and hour: it lowers the miner's pass rate.

An offence is a delivery that only its signer can have sent, and only by misbehaving: for a task that it was never given
(unknown, or another's), or other bytes for a task that it has delivered. It counts when

- the body has been read and the signature proves it: what a stranger sends in a hotkey's name counts for nobody;
- the miner has not delivered these bytes for a task of its own, not within the next seconds either: who replays a
  captured delivery, under whatever task id, costs its maker nothing, for a request counts once, by its UUID. More than
  :data:`FREE_COPIES` requests with such bytes for other tasks only the miner itself can have signed;
- it is another one than before: the same bytes for the same task are one offence, and repeats of what was delivered are
  none, as long as there are not more than :data:`FREE_REPEATS` of them, which nobody needs who waits for an answer.

:data:`ALLOWED_OFFENCES` in 24 hours are free. What is kept is a number by hotkey, hour and kind, never a row a request.
What is not covered: what was noted in the last half minute is forgotten when the process is killed; bodies that never
end or exceed the limit can't be proven, and are refused unread.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session
from starlette.requests import Request

from gas.clock import Clock
from gas.errors import RequestRefused
from gas.protocol.epistula import Claim, ReplayGuard, check_body
from gas.protocol.server import read_body
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, ServiceStateRow
from gas.validator.tasks import ChallengeState

__all__ = ["ALLOWED_OFFENCES", "FREE_COPIES", "FREE_REPEATS", "KINDS", "Offences", "offences_of"]

ALLOWED_OFFENCES: Final = 20
"""Offences of 24 hours that cost nothing: a validator that is killed while it asks makes one of an honest delivery."""

FREE_REPEATS: Final = 50
"""So often the same bytes may come for the same task."""

FREE_COPIES: Final = 10
"""So many requests with the bytes of one delivery may come for unknown tasks."""

_UNKNOWN: Final = "unknown_task"
KINDS: Final = (_UNKNOWN, "already_delivered")
"""Codes of refusals that may be offences; the third kind is ``repeats``."""

_NO_ID: Final = ("silent", "slow", "interrupted", "validator_offline", "our_fault")
"""Why a request came to nothing of which the miner may have made a task."""

_SERVICE: Final = "sn34-validator"
_HOUR: Final = 3600
_DAY: Final = 86_400.0
_HOLD_SECONDS: Final = 30.0
_MOST_NOTES: Final = 50_000
_MOST_OF_ONE: Final = 4_096
_AT_A_TIME: Final = 500
_PROOFS_AT_ONCE: Final = 16
_PROOF_SECONDS: Final = 10.0
_PATIENCE_SECONDS: Final = 0.5
_LEAST_BYTES_A_SECOND: Final = 64 << 10
_PROOF_BYTES_A_SECOND: Final = 8 << 20


@dataclass(slots=True)
class _Note:
    """Requests with the same bytes for the same task."""

    kind: str
    first: float
    last: float
    count: int = 1
    charged: int = 0


@dataclass(slots=True, eq=False)
class _Reading:
    """A body that is read for a proof."""

    scope: asyncio.Timeout
    since: float
    size: int = 0

    def is_slow(self, now: float) -> bool:
        """Whether it has had its chance, and makes less of it than a line of 0.5 Mbit/s would."""
        return now - self.since >= max(_PATIENCE_SECONDS, self.size / _LEAST_BYTES_A_SECOND)


class Offences:
    """Notes and counts the offences against one validator.

    Args:
        database: Where the counts are kept.
        validator: Our hotkey.
        clock: The time.
        max_bytes: Largest body that is read for a proof.
    """

    def __init__(self, database: Database, validator: str, clock: Clock, *, max_bytes: int = 64 << 20) -> None:
        self._database = database
        self._validator = validator
        self._clock = clock
        self._max_bytes = max_bytes
        # Of its own: what is read here must not use up the UUID of the delivery that somebody has copied.
        self._guard = ReplayGuard()
        self._readings: list[_Reading] = []
        self._bytes_left = float(max_bytes)
        self._filled = clock.monotonic()
        self._notes: dict[str, dict[tuple[str, str], _Note]] = {}
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """How many notes are in memory now; bounded, whatever is sent by however many."""
        return self._held

    async def attribute(self, request: Request, claim: Claim, task_id: str, kind: str) -> None:
        """Read the body of a delivery that is refused and, when its signature holds, note it.

        Does nothing when too much is being read for proofs already: nobody can keep us busy with it. Bodies that hardly
        come give way: nobody can keep others from being counted with them, either.

        Args:
            request: Its body unread.
            claim: From its headers.
            task_id: By its header, which no signature covers.
            kind: One of :data:`KINDS`; others are not noted.
        """
        if kind not in KINDS or not self._has_bytes() or not self._has_place():
            return
        digest = hashlib.sha256()
        reading = _Reading(asyncio.timeout(_PROOF_SECONDS), self._clock.monotonic())
        self._readings.append(reading)
        try:
            async with reading.scope:
                async for chunk in read_body(request, limit=self._max_bytes):
                    self._bytes_left -= len(chunk)
                    if self._bytes_left <= 0:
                        return
                    reading.size += len(chunk)
                    digest.update(chunk)
            check_body(claim, digest.hexdigest(), now_ms=int(self._clock.time() * 1000), guard=self._guard)
        except (TimeoutError, RequestRefused):
            return
        finally:
            if reading in self._readings:
                self._readings.remove(reading)
        self.note(claim.hotkey, task_id, digest.hexdigest(), kind)

    def note(self, miner: str, task_id: str, sha256: str, kind: str) -> None:
        """Note a proven delivery that was refused; it is counted by :meth:`flush`, some time later."""
        now = self._clock.time()
        with self._lock:
            notes = self._notes.get(miner, {})
            known = notes.get((task_id, sha256))
            if known is not None:
                known.count += 1
                known.last = now
            elif len(notes) < _MOST_OF_ONE and self._held < _MOST_NOTES:
                self._notes.setdefault(miner, notes)[task_id, sha256] = _Note(kind, now, now)
                self._held += 1

    def flush(self) -> int:
        """Count what was noted long enough ago; to be called every few seconds. Returns how many offences are new.

        Raises:
            gas.errors.StorageError: The database fails; nothing is lost.
        """
        now = self._clock.time()
        with self._lock:
            due = {
                miner: {key: (note, note.count) for key, note in notes.items() if now - note.first >= _HOLD_SECONDS}
                for miner, notes in self._notes.items()
            }
        new: dict[str, dict[str, int]] = {}
        charges: list[tuple[_Note, int]] = []
        # Only what may cost something is looked up.
        costly = [
            miner for miner, notes in due.items() if any(_cost(count) > note.charged for note, count in notes.values())
        ]
        own = self._delivered(costly, now)
        for miner in costly:
            for kind, note, more in _charges(due[miner], own.get(miner, set())):
                kinds = new.setdefault(miner, {})
                kinds[kind] = kinds.get(kind, 0) + more
                charges.append((note, more))
        if new:
            self._database.transact(lambda session: self._add(session, new, now))
        with self._lock:
            for note, more in charges:
                note.charged += more
            self._forget(now)
        return sum(sum(kinds.values()) for kinds in new.values())

    def _has_place(self) -> bool:
        """Whether one more body may be read now; the slowest makes room for it."""
        if len(self._readings) < _PROOFS_AT_ONCE:
            return True
        now = self._clock.monotonic()
        slow = [reading for reading in self._readings if reading.is_slow(now)]
        if not slow:
            return False
        last = min(slow, key=lambda reading: reading.size / (now - reading.since))
        self._readings.remove(last)
        # It may be ending by itself at this very moment.
        with suppress(RuntimeError):
            last.scope.reschedule(asyncio.get_running_loop().time())
        return True

    def _has_bytes(self) -> bool:
        now = self._clock.monotonic()
        filled = self._bytes_left + (now - self._filled) * _PROOF_BYTES_A_SECOND
        self._bytes_left, self._filled = min(float(self._max_bytes), filled), now
        return self._bytes_left > 0

    def _delivered(self, miners: Sequence[str], now: float) -> dict[str, set[str]]:
        """Hashes of what miners have delivered for tasks of their own in the last two days."""
        found: dict[str, set[str]] = {}
        for at in range(0, len(miners), _AT_A_TIME):
            with self._database.read() as session:
                rows = session.execute(
                    select(ChallengeRow.miner, ChallengeRow.blob_sha256, ChallengeRow.media_sha256).where(
                        ChallengeRow.validator == self._validator,
                        ChallengeRow.miner.in_(miners[at : at + _AT_A_TIME]),
                        ChallengeRow.created_at > now - 2 * _DAY,
                    )
                ).tuples()
                for miner, *names in rows:
                    found.setdefault(miner, set()).update(name for name in names if name is not None)
        return found

    def _add(self, session: Session, new: Mapping[str, Mapping[str, int]], now: float) -> None:
        hour = int(now) // _HOUR
        key = _key(self._validator, hour)
        row = session.get(ServiceStateRow, (_SERVICE, key))
        counts: dict[str, Any] = dict(row.value) if row is not None else {}
        for miner, kinds in new.items():
            before = counts.get(miner, {})
            counts[miner] = {**before, **{kind: before.get(kind, 0) + count for kind, count in kinds.items()}}
        session.merge(ServiceStateRow(service=_SERVICE, key=key, value=counts, updated_at=now))
        if row is None:
            session.execute(
                delete(ServiceStateRow).where(
                    ServiceStateRow.service == _SERVICE,
                    ServiceStateRow.key.startswith(_key(self._validator, ""), autoescape=True),
                    ServiceStateRow.updated_at < now - 2 * _DAY,
                )
            )

    def _forget(self, now: float) -> None:
        for miner, notes in list(self._notes.items()):
            kept = {key: note for key, note in notes.items() if now - note.last < _HOUR}
            self._held -= len(notes) - len(kept)
            if kept:
                self._notes[miner] = kept
            else:
                del self._notes[miner]


def offences_of(session: Session, validator: str, *, now: float) -> dict[str, dict[str, int]]:
    """Offences of the last 24 hours by hotkey and kind; the oldest hour counts whole.

    A request that left and brought back no task id may have become a task all the same, of which only the miner knows:
    for each of them one delivery for an unknown task is forgiven.

    Args:
        session: Read session.
        validator: Against whom.
        now: Seconds since the epoch.
    """
    first = int(now - _DAY) // _HOUR
    keys = [_key(validator, hour) for hour in range(first, int(now) // _HOUR + 1)]
    found: dict[str, dict[str, int]] = {}
    for row in session.scalars(
        select(ServiceStateRow).where(ServiceStateRow.service == _SERVICE, ServiceStateRow.key.in_(keys))
    ):
        for miner, kinds in row.value.items():
            mine = found.setdefault(miner, {})
            for kind, count in kinds.items():
                mine[kind] = mine.get(kind, 0) + int(count)
    for miner, asked in _without_id(
        session, validator, [m for m in found if _UNKNOWN in found[m]], first * _HOUR
    ).items():
        found[miner][_UNKNOWN] = max(0, found[miner][_UNKNOWN] - asked)
    return found


def _without_id(session: Session, validator: str, miners: Sequence[str], since: float) -> Counter[str]:
    """How many requests to each miner may have become a task under an id that never came, or that we let go."""
    rows = session.execute(
        select(ChallengeRow.miner, ChallengeRow.reasons).where(
            ChallengeRow.validator == validator,
            ChallengeRow.miner.in_(miners),
            ChallengeRow.created_at >= since,
            ChallengeRow.state.in_((ChallengeState.FAILED.value, ChallengeState.UNTAKEN.value)),
            ChallengeRow.prompt_id.is_not(None),
        )
    ).tuples()
    return Counter(miner for miner, reasons in rows if any(reason.get("code") in _NO_ID for reason in reasons))


def _cost(count: int) -> int:
    return 1 + max(0, count - FREE_REPEATS)


def _charges(
    notes: Mapping[tuple[str, str], tuple[_Note, int]], own: Collection[str]
) -> Iterator[tuple[str, _Note, int]]:
    """What is to be charged now: kind, note, number.

    Args:
        notes: Each with its count, by task and hash.
        own: Hashes of what the miner has delivered for its own tasks.
    """
    copies: dict[str, list[tuple[_Note, int]]] = {}
    for (_, sha256), (note, count) in notes.items():
        if sha256 in own and note.kind == _UNKNOWN:
            copies.setdefault(sha256, []).append((note, count))
            continue
        cost = _cost(count) - (sha256 in own)
        if cost > note.charged:
            yield note.kind if not note.charged and sha256 not in own else "repeats", note, cost - note.charged
    for found in copies.values():
        cost = max(0, sum(count for _, count in found) - FREE_COPIES)
        charged = sum(note.charged for note, _ in found)
        if cost > charged:
            # Booked on the one that is remembered longest.
            yield _UNKNOWN, max((note for note, _ in found), key=lambda note: note.last), cost - charged


def _key(validator: str, hour: int | str) -> str:
    return f"offences/{validator}/{hour}"
