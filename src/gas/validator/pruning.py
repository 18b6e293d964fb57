"""Pruning: published media leave this machine, oldest first, when their source takes more room than it may.

A medium stays while somebody needs its bytes: a round that is open (its samples, their masks, and the media that they
were made of), a reward that is not paid (verified in the last seven days, or after the last weights were set), or a
shard that is not published. Its row stays for ever: pay, judgements and the search for copies go by it.

A medium is first marked as pruned, in a transaction that looks again at all of this, and only then its blob is deleted:
who is killed in between finds the mark, and a blob that is deleted twice is deleted once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import structlog
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from gas.clock import Clock
from gas.storage.blobs import BlobStore
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, MediumRow, RoundRow, ServiceStateRow, WeightsLogRow
from gas.validator.edit_blobs import sent_along
from gas.validator.store import HERE, MediumSource, MediumState, SourceLimits, usage

__all__ = ["PruneReport", "Pruner", "needed_by_rounds"]

_DAY: Final = 86400.0
_REWARD_DAYS: Final = 7.0
_BATCH: Final = 100
_SERVICE: Final = "sn34-data"
_BEGUN: Final = "pruning"
_LEFTOVERS: Final = ("refused", "failed", "expired", "void")


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was removed, or would be.

    Attributes:
        dry: Whether nothing was changed.
        media: Removed.
        bytes: Their bytes.
        leftovers: Deliveries that were refused and whose bytes were still here.
        kept: Published media that may not go, by why: ``open_round`` (among those that would have gone), ``recent``,
            ``reward`` (older, and no weights were set since).
        over: By source, the bytes that it still has beyond its limit: what is not published can't go.
    """

    dry: bool
    media: int = 0
    bytes: int = 0
    leftovers: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    over: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


class Pruner:
    """Removes what nothing needs; may run beside whoever adds media, publishes them or opens rounds.

    Args:
        database: Rows of media, rounds and weights.
        blobs: Their bytes.
        clock: The time.
        limits: By :class:`gas.validator.store.MediumSource`. A source without a limit keeps everything.
        keep_days: Published media younger than this stay; at least the seven days that rewards look back.
        leftover_seconds: How long the bytes of a refused delivery stay.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        clock: Clock,
        limits: Mapping[str, SourceLimits],
        *,
        keep_days: float = _REWARD_DAYS,
        leftover_seconds: float = _DAY,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._limits = dict(limits)
        self._keep_seconds = max(keep_days, _REWARD_DAYS) * _DAY
        self._leftover_seconds = leftover_seconds
        self._log = structlog.get_logger("gas.pruning")

    def prune(self, *, dry: bool = False, everything: bool = False) -> PruneReport:
        """Remove published media until every source is within its limits.

        Args:
            dry: Only say what would go.
            everything: Go on beyond the limits, until nothing is left that may go.

        Raises:
            gas.errors.StorageError: A round that is open can't be read: then nothing is removed at all; or the
                database or the blobs fail.
        """
        if not dry:
            self._finish_begun()
        needed, rounds = needed_by_rounds(self._database, self._blobs)
        kept: Counter[str] = Counter()
        over: dict[str, int] = {}
        media = size = 0
        for source in MediumSource:
            limits = self._limits.get(source.value, SourceLimits())
            with self._database.read() as session:
                count, taken = usage(session, source)
            excess_media = 0 if limits.max_media is None else count - limits.max_media
            excess_bytes = 0 if limits.max_bytes is None else taken - limits.max_bytes
            after: tuple[float, str] = (-1.0, "")
            while everything or excess_media > 0 or excess_bytes > 0:
                page = self._candidates(source, after)
                if not page:
                    break
                after = (page[-1].verified_at, page[-1].sha256)
                chosen: list[MediumRow] = []
                for row in page:
                    if not (everything or excess_media > 0 or excess_bytes > 0):
                        break
                    if row.sha256 in needed:
                        kept["open_round"] += 1
                        continue
                    chosen.append(row)
                    excess_media -= 1
                    excess_bytes -= row.bytes
                gone = chosen if dry else self._remove(chosen, rounds)
                for row in chosen:
                    if row not in gone:
                        kept["open_round"] += 1
                        excess_media += 1
                        excess_bytes += row.bytes
                media += len(gone)
                size += sum(row.bytes for row in gone)
            if excess_bytes > 0 or excess_media > 0:
                over[source.value] = max(excess_bytes, 0)
        with self._database.read() as session:
            published = MediumRow.state == MediumState.PUBLISHED.value
            now = self._clock.time()
            recent = session.scalar(
                select(func.count()).where(published, MediumRow.verified_at > now - self._keep_seconds)
            )
            unpaid = session.scalar(
                select(func.count()).where(
                    published, MediumRow.verified_at <= now - self._keep_seconds, ~self._paid(session)
                )
            )
        kept["recent"] += recent or 0
        kept["reward"] += unpaid or 0
        leftovers = self._leftovers(dry)
        report = PruneReport(dry, media, size, leftovers, {name: n for name, n in sorted(kept.items()) if n}, over)
        if not dry and (media or leftovers):
            self._log.info("media_pruned", media=media, bytes=size, leftovers=leftovers, kept=report.kept)
        return report

    def _paid(self, session: Session) -> ColumnElement[bool]:
        """Whether weights were set after a miner's medium was verified; the validator's own are paid to nobody."""
        last = session.scalar(select(func.max(WeightsLogRow.created_at)))
        return (MediumRow.source != MediumSource.MINER.value) | (MediumRow.verified_at < (last or 0.0))

    def _candidates(self, source: MediumSource, after: tuple[float, str]) -> list[MediumRow]:
        """Published, paid and old: the oldest after a place in their order."""
        when, sha256 = after
        with self._database.read() as session:
            return list(
                session.scalars(
                    select(MediumRow)
                    .where(
                        MediumRow.state == MediumState.PUBLISHED.value,
                        MediumRow.source == source.value,
                        MediumRow.verified_at <= self._clock.time() - self._keep_seconds,
                        self._paid(session),
                        (MediumRow.verified_at > when)
                        | ((MediumRow.verified_at == when) & (MediumRow.sha256 > sha256)),
                    )
                    .order_by(MediumRow.verified_at, MediumRow.sha256)
                    .limit(_BATCH)
                )
            )

    def _remove(self, rows: list[MediumRow], rounds: frozenset[str]) -> list[MediumRow]:
        """Mark media as pruned and delete their blobs; none when a round was opened since the rounds were read."""
        if not rows:
            return []

        def mark(session: Session) -> set[str]:
            if _open_rounds(session) - rounds:
                return set()
            marked = set(
                session.scalars(
                    update(MediumRow)
                    .where(
                        MediumRow.sha256.in_([row.sha256 for row in rows]),
                        MediumRow.state == MediumState.PUBLISHED.value,
                    )
                    .values(state=MediumState.PRUNED.value)
                    .returning(MediumRow.sha256)
                )
            )
            self._begun(session, add=marked)
            return marked

        marked = self._database.transact(mark)
        self._finish_begun()
        return [row for row in rows if row.sha256 in marked]

    def _finish_begun(self) -> None:
        """Delete the blobs of what is marked; a pruner that was killed left its list in the database."""
        with self._database.read() as session:
            begun = session.get(ServiceStateRow, (_SERVICE, _BEGUN))
            names = set(begun.value["media"]) if begun else set()
            rows = list(session.scalars(select(MediumRow).where(MediumRow.sha256.in_(names)))) if names else []
        if not names:
            return
        for row in rows:
            if row.state == MediumState.PRUNED.value:
                self._blobs.delete(row.sha256)
        for mask in {row.mask_sha256 for row in rows if row.mask_sha256}:
            self._database.transact(lambda session, mask=mask: self._drop_mask(session, mask))  # type: ignore[misc]
        self._database.transact(lambda session: self._begun(session, done=names))

    def _drop_mask(self, session: Session, mask: str) -> None:
        """Delete a mask unless a medium here or an open challenge has the same; nobody can add one meanwhile."""
        there = session.scalar(select(MediumRow.sha256).where(MediumRow.mask_sha256 == mask, _here()).limit(1))
        if there is None and mask not in sent_along(session):
            self._blobs.delete(mask)

    def _begun(self, session: Session, *, add: Collection[str] = (), done: Collection[str] = ()) -> None:
        """Keep the list of media whose blobs are still to be deleted; another pruner may have added to it."""
        there = session.get(ServiceStateRow, (_SERVICE, _BEGUN))
        before = set(there.value["media"]) if there is not None else set()
        after = (before | set(add)) - set(done)
        if after:
            value = {"media": sorted(after)}
            session.merge(ServiceStateRow(service=_SERVICE, key=_BEGUN, value=value, updated_at=self._clock.time()))
        elif there is not None:
            session.delete(there)

    def _leftovers(self, dry: bool) -> int:
        """Delete the bytes of deliveries that came to nothing, unless a medium or another delivery has the same."""
        before = self._clock.time() - self._leftover_seconds
        old = (
            ChallengeRow.state.in_(_LEFTOVERS),
            ChallengeRow.blob_sha256.is_not(None),
            func.coalesce(ChallengeRow.settled_at, ChallengeRow.delivered_at, ChallengeRow.deadline) < before,
        )
        total = 0
        while True:
            with self._database.read() as session:
                if dry:
                    return session.scalar(select(func.count()).select_from(ChallengeRow).where(*old)) or 0
                names = set(session.scalars(select(ChallengeRow.blob_sha256).where(*old).limit(_BATCH)))
            if not names:
                return total
            # The blobs first: a killed pruner must not forget what it has yet to delete.
            with self._database.read() as session:
                held = set(session.scalars(select(MediumRow.sha256).where(MediumRow.sha256.in_(names))))
                held |= set(
                    session.scalars(
                        select(ChallengeRow.blob_sha256).where(
                            ChallengeRow.blob_sha256.in_(names), ChallengeRow.state.not_in(_LEFTOVERS)
                        )
                    )
                )
                held |= sent_along(session)
            for name in names - held:
                if name is not None:
                    self._blobs.delete(name)
            self._database.transact(
                lambda session, names=names: session.execute(  # type: ignore[misc]
                    update(ChallengeRow).where(ChallengeRow.blob_sha256.in_(names), *old).values(blob_sha256=None)
                )
            )
            total += len(names)


def needed_by_rounds(database: Database, blobs: BlobStore) -> tuple[frozenset[str], frozenset[str]]:
    """What open rounds need.

    Returns:
        SHA-256 of their samples, of the masks, and of the media that the samples were made of; and the names of the
        rounds' own blobs.

    Raises:
        gas.errors.StorageError: A round can't be read.
    """
    from gas.arena.rounds import load_round

    with database.read() as session:
        rounds = frozenset(_open_rounds(session))
    needed: set[str] = set()
    for name in rounds:
        round_ = load_round(blobs, name)
        masks = round_.parameters.get("masks")
        needed.update(str(mask) for mask in (masks.values() if isinstance(masks, dict) else ()))
        for sample in round_.samples:
            needed.update((sample.sample_id, sample.origin))
    return frozenset(needed), rounds


def _here() -> ColumnElement[bool]:
    return MediumRow.state.in_(HERE)


def _open_rounds(session: Session) -> set[str]:
    rows = session.execute(select(RoundRow.plan_blob, RoundRow.exam_blob).where(RoundRow.closed_at.is_(None))).tuples()
    return {name for row in rows for name in row if name}
