"""The media store of a validator: bytes as blobs under their hash, and a row with all that is known of each medium.

The blob comes first and its row second: whoever is killed in between does the same again and finds the blob there. The
rows are the truth; the index of copies is built again from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gas.clock import Clock
from gas.errors import IntegrityError, StorageError
from gas.storage.blobs import BlobStore, sha256_hex
from gas.storage.database import Database
from gas.storage.tables import MediumRow
from gas.types import MediaType, Modality

if TYPE_CHECKING:
    from gas.generation.registry_run import LocalMedium
    from gas.verification.base import Verdict
    from gas.verification.duplicates import MediaIndex

__all__ = [
    "HERE",
    "MediaStore",
    "MediumSource",
    "MediumState",
    "Room",
    "SourceLimits",
    "StoreStats",
    "local_facts",
    "medium_row",
    "usage",
]

_PAGE: Final = 200
_MAX_TEXT: Final = 256


class MediumSource(StrEnum):
    """Who made a medium: a miner, or the validator itself."""

    MINER = "miner"
    LOCAL = "local"


class MediumState(StrEnum):
    """Where a medium's bytes are: here; here and in a published shard; removed from here; gone or damaged."""

    KEPT = "kept"
    PUBLISHED = "published"
    PRUNED = "pruned"
    LOST = "lost"


HERE: Final = (MediumState.KEPT.value, MediumState.PUBLISHED.value)
"""States of media whose bytes are here."""


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """What the media of one source may take; None for no limit.

    Attributes:
        max_bytes: Of the media that are still here.
        max_media: Of those media.
    """

    max_bytes: int | None = None
    max_media: int | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """What a source has left; negative when it has more than it may.

    Attributes:
        bytes: None where there is no limit.
        media: None where there is no limit.
    """

    bytes: int | None
    media: int | None

    @property
    def full(self) -> bool:
        """Whether nothing more fits."""
        return any(left is not None and left <= 0 for left in (self.bytes, self.media))


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What the store holds.

    Attributes:
        media: Number of media by source, modality, media type and state, as ``miner/image/synthetic/kept``.
        bytes: Their bytes by the same names; those of pruned media are what they took.
        masks: Media that have a mask.
        generators: Generators with at least one medium that is still here.
        oldest: When the oldest medium that is here was verified, seconds since the epoch; None without any.
        newest: The same of the newest.
    """

    media: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    masks: int = 0
    generators: int = 0
    oldest: float | None = None
    newest: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def medium_row(
    verdict: Verdict,
    *,
    validator: str,
    generator: str,
    task_id: str,
    modality: Modality,
    prompt: str,
    now: float,
    parameters: Mapping[str, Any] | None = None,
    media_type: MediaType = MediaType.SYNTHETIC,
    mask_sha256: str | None = None,
) -> MediumRow:
    """The row of a miner's verified medium, for the transaction that settles its challenge.

    Args:
        verdict: Says yes; its facts are kept whole, for the index of copies is built again from them.
        validator: Hotkey of the validator.
        generator: Hotkey of the miner.
        task_id: The miner's.
        modality: What was asked for.
        prompt: What it should show.
        now: Seconds since the epoch.
        parameters: Of the task.
        media_type: Synthetic, or semisynthetic for a changed picture.
        mask_sha256: Blob of the mask that the validator sent along.
    """
    facts = verdict.facts
    return MediumRow(
        sha256=verdict.sha256,
        validator=validator,
        generator=generator,
        task_id=task_id,
        modality=modality.value,
        media_type=media_type.value,
        width=verdict.width,
        height=verdict.height,
        mime=str(facts.get("mime", ""))[:64],
        phash=_text(facts.get("phash")),
        issuer=_text(verdict.issuer),
        verified_at=now,
        source=MediumSource.MINER.value,
        state=MediumState.KEPT.value,
        model=_text(facts.get("model")),
        prompt=prompt,
        tier=_number(facts.get("paid_tier", facts.get("tier"))),
        seconds=_length(facts),
        bytes=_number(facts.get("bytes")) or 0,
        facts=dict(facts),
        parameters=dict(parameters or {}),
        mask_sha256=mask_sha256,
    )


def local_facts(data: bytes, modality: Modality, prompt: str, owner: str) -> dict[str, Any]:
    """What verification measures of a medium, for one of the validator's own making; decoded in this process.

    Args:
        data: Its bytes.
        modality: What it is.
        prompt: What it should show.
        owner: Whose it is, for the index of copies.

    Raises:
        gas.errors.MediaRejected: It can't be decoded.
    """
    from gas.media.limits import DEFAULT_LIMITS
    from gas.verification.base import Asked
    from gas.verification.decoding import MediumDecoder
    from gas.verification.duplicates import MediaIndex
    from gas.verification.steps import Copies, Decode, opened

    case = opened(data, Asked(modality, 0.0, 0.0, 0.0, prompt, {}, owner))
    Decode(MediumDecoder(DEFAULT_LIMITS)).run(case)
    with MediaIndex() as nothing:
        Copies(nothing).run(case)
    if case.decoded is not None:
        case.facts["width"], case.facts["height"] = case.decoded.size
    return case.facts


class MediaStore:
    """Media of miners and of the validator itself; may be used by several processes at a time.

    Args:
        database: Holds the rows.
        blobs: Holds the bytes.
        clock: For the time of storing.
        limits: By :class:`MediumSource`; a source without any has no limit. They stop the validator's own generation;
            a miner's verified medium is always taken, and pruning makes room again.
    """

    def __init__(
        self, database: Database, blobs: BlobStore, clock: Clock, limits: Mapping[str, SourceLimits] | None = None
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._limits = dict(limits or {})

    def put_miner(
        self,
        data: bytes,
        verdict: Verdict,
        *,
        validator: str,
        generator: str,
        task_id: str,
        modality: Modality,
        prompt: str,
        parameters: Mapping[str, Any] | None = None,
    ) -> MediumRow:
        """Keep a miner's verified medium; twice is once.

        Raises:
            gas.errors.StorageError: ``not_this_medium``: the verdict is about other bytes; ``not_verified``: it is a
                refusal; or a store fails.
        """
        if not verdict.verified:
            raise StorageError("A medium that was refused is not kept.", code="not_verified")
        if sha256_hex(data) != verdict.sha256:
            raise StorageError("The verdict is about another medium.", code="not_this_medium")
        row = medium_row(
            verdict,
            validator=validator,
            generator=generator,
            task_id=task_id,
            modality=modality,
            prompt=prompt,
            now=self._clock.time(),
            parameters=parameters,
        )
        row.bytes = len(data)
        return self._keep(row, data, None)

    def put_local(self, made: LocalMedium, validator: str) -> MediumRow:
        """Keep a medium that the validator made, with its mask, model, prompt, seed and parameters; twice is once.

        Raises:
            gas.errors.StorageError: ``store_full``: the source has all that it may; or a store fails.
            gas.errors.MediaRejected: It can't be decoded.
        """
        medium, job = made.medium, made.job
        if self.room(MediumSource.LOCAL).full:
            raise StorageError(
                "The validator's own media take all the room that they may.",
                code="store_full",
                hint="Publish and prune, or raise the limit.",
            )
        modality = made.model.task.modality
        facts = local_facts(medium.data, modality, job.prompt, f"{validator}/local/{job.id}")
        row = MediumRow(
            sha256=sha256_hex(medium.data),
            validator=validator,
            generator=validator,
            task_id=job.id,
            modality=modality.value,
            media_type=medium.media_type.value,
            width=_number(facts.get("width")) or 0,
            height=_number(facts.get("height")) or 0,
            mime=medium.mime[:64],
            phash=_text(facts.get("phash")),
            issuer=None,
            verified_at=self._clock.time(),
            source=MediumSource.LOCAL.value,
            state=MediumState.KEPT.value,
            model=medium.model[:_MAX_TEXT],
            prompt=job.prompt,
            tier=None,
            seconds=_length(facts),
            bytes=len(medium.data),
            facts=facts,
            parameters={
                **made.parameters,
                "seed": job.seed,
                "registry_model": made.model.name,
                "task": made.model.task.value,
                "source_sha256": made.source_sha256,
                "tags": list(made.model.tags),
            },
        )
        return self._keep(row, medium.data, medium.mask)

    def get(self, sha256: str) -> MediumRow | None:
        """A medium's row, or None."""
        with self._database.read() as session:
            return session.get(MediumRow, sha256)

    def read(self, sha256: str) -> bytes:
        """A medium's bytes, checked.

        Raises:
            gas.errors.StorageError: ``blob_missing``, when it was pruned, or ``blob_damaged``.
        """
        return self._blobs.get(sha256)

    def read_mask(self, row: MediumRow) -> bytes | None:
        """A medium's mask, checked; None where it has none."""
        return None if row.mask_sha256 is None else self._blobs.get(row.mask_sha256)

    def room(self, source: MediumSource) -> Room:
        """What a source has left."""
        limits = self._limits.get(source.value, SourceLimits())
        if limits == SourceLimits():
            return Room(None, None)
        with self._database.read() as session:
            media, taken = usage(session, source)
        return Room(
            None if limits.max_bytes is None else limits.max_bytes - taken,
            None if limits.max_media is None else limits.max_media - media,
        )

    def stats(self) -> StoreStats:
        """What the store holds."""
        here = MediumRow.state.in_(HERE)
        with self._database.read() as session:
            groups = session.execute(
                select(
                    *(MediumRow.source, MediumRow.modality, MediumRow.media_type, MediumRow.state),
                    *(func.count(), func.sum(MediumRow.bytes)),
                ).group_by(MediumRow.source, MediumRow.modality, MediumRow.media_type, MediumRow.state)
            ).tuples()
            named = {"/".join(row[:4]): (row[4], int(row[5] or 0)) for row in groups}
            masks = session.scalar(select(func.count()).where(MediumRow.mask_sha256.is_not(None), here))
            people = session.scalar(select(func.count(MediumRow.generator.distinct())).where(here))
            oldest, newest = session.execute(
                select(func.min(MediumRow.verified_at), func.max(MediumRow.verified_at)).where(here)
            ).one()
        return StoreStats(
            {name: count for name, (count, _) in sorted(named.items())},
            {name: taken for name, (_, taken) in sorted(named.items())},
            masks or 0,
            people or 0,
            oldest,
            newest,
        )

    def rebuild_index(self, index: MediaIndex, on_count: Callable[[int], None] | None = None) -> tuple[int, int]:
        """Put every medium that was ever kept into an empty index of copies, pruned ones too.

        Args:
            index: Writable.
            on_count: Told the number of media so far, now and then.

        Returns:
            How many were put in, and how many could not: their facts were not kept, or are broken.
        """
        from gas.verification.duplicates import Seen

        done, broken, last = 0, 0, ""
        while True:
            with self._database.read() as session:
                page = session.execute(
                    select(MediumRow.sha256, MediumRow.facts)
                    .where(MediumRow.sha256 > last)
                    .order_by(MediumRow.sha256)
                    .limit(_PAGE)
                ).tuples()
                rows = list(page)
            if not rows:
                return done, broken
            for sha256, facts in rows:
                if not facts or not facts.keys() & {"phash", "words"}:
                    broken += 1
                    continue
                try:
                    index.add(Seen.from_facts(sha256, facts))
                    done += 1
                except IntegrityError:
                    broken += 1
            last = rows[-1][0]
            if on_count is not None:
                on_count(done)

    def _keep(self, row: MediumRow, data: bytes, mask: bytes | None) -> MediumRow:
        known = self.get(row.sha256)
        # What was pruned stays so: the same bytes again are no new medium.
        if known is not None and (known.state == MediumState.PRUNED or self._blobs.exists(row.sha256)):
            return known
        self._blobs.put(data)
        if mask is not None:
            row.mask_sha256 = self._blobs.put(mask)
        if known is not None:
            return known

        def insert(session: Session) -> MediumRow:
            there = session.get(MediumRow, row.sha256)
            if there is not None:
                return there
            # A row of its own for each try: one that was rolled back belongs to a session that is gone.
            fresh = MediumRow(**{column.key: getattr(row, column.key) for column in MediumRow.__table__.columns})
            session.add(fresh)
            return fresh

        kept = self._database.transact(insert)
        if mask is not None and row.mask_sha256 is not None and not self._blobs.exists(row.mask_sha256):
            # The same mask of a medium that was pruned a moment before the row was there.
            self._blobs.put(mask)
        return kept


def usage(session: Session, source: MediumSource) -> tuple[int, int]:
    """Number and bytes of a source's media that are still here."""
    media, taken = session.execute(
        select(func.count(), func.sum(MediumRow.bytes)).where(
            MediumRow.source == source.value, MediumRow.state.in_(HERE)
        )
    ).one()
    return int(media), int(taken or 0)


def _text(value: object) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _length(facts: Mapping[str, object]) -> float | None:
    value = facts.get("length_seconds")
    return float(value) if isinstance(value, int | float) else None
