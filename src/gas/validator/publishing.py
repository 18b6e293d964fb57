"""Publishing: the verified media of a week leave in shards; each medium in one, once, whatever is killed when.

Three steps, each resumable. **Claim**: in one transaction every medium that waits gets the name of its shard; a week is
claimed once, and what is verified later belongs to a later week. **Send**: a shard is built (the same bytes each time)
and brought to the target; only then the database says that it is there. **Finish**: card, checksums and, last, the
manifest, without which readers see no week; then the database says so. Two publishers at a time do each other's work
again, and bring the same bytes.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from gas.clock import Clock
from gas.datasets.sources.arena import MANIFEST_NAME, ShardRecord
from gas.errors import ConfigurationError, StorageError
from gas.storage.blobs import BlobStore, sha256_hex
from gas.storage.database import Database
from gas.storage.tables import MediumRow, ShardRow
from gas.validator.shards import (
    WeekSummary,
    build_shard,
    checksums_text,
    data_card,
    manifest_text,
    week_card,
    week_end,
    week_of,
)
from gas.validator.store import MediumState
from gas.validator.target_base import Target

__all__ = ["CARD_NAME", "CHECKSUMS_NAME", "Publisher", "ShardPlan", "WeekResult"]

CARD_NAME: Final = "README.md"
"""Name of the data card, of each week and of the whole."""

CHECKSUMS_NAME: Final = "SHA256SUMS"
"""Name of the checksums, beside the shards."""

_PAGE: Final = 100
_UNKNOWN_BYTES: Final = 1 << 20
_WEEK_SECONDS: Final = 7 * 86400.0
_OnShard = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A shard that would be made: its name, media and their bytes."""

    name: str
    media: int
    bytes: int


@dataclass(frozen=True, slots=True)
class WeekResult:
    """What became of a week.

    Attributes:
        week: ISO week.
        target: Where it is; empty when nothing waited.
        state: ``published``, ``nothing`` (no medium waited), or ``planned`` (a dry run).
        shards: Its shards.
        media: In them.
        bytes: Of the shards' files; of the media in a dry run.
        sent: Files that had to be sent this time.
        lost: Media that are not in it because their bytes are missing or damaged.
    """

    week: str
    target: str
    state: str
    shards: int = 0
    media: int = 0
    bytes: int = 0
    sent: int = 0
    lost: tuple[str, ...] = ()
    plan: tuple[ShardPlan, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


class Publisher:
    """Publishes to one target.

    Args:
        database: Rows of media and shards.
        blobs: Their bytes.
        target: Where to; None for planning only.
        clock: Says which weeks are over.
        shard_bytes: Media of one shard at most, at least one medium.
        shard_media: Media of one shard at most.
        scratch: Folder for the shard that is under way; the system's own when left out.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        target: Target | None,
        clock: Clock,
        *,
        shard_bytes: int = 256 << 20,
        shard_media: int = 4096,
        scratch: Path | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._target = target
        self._clock = clock
        self._shard_bytes = max(1, shard_bytes)
        self._shard_media = max(1, shard_media)
        self._scratch = scratch
        self._log = structlog.get_logger("gas.publishing")

    def due(self, grace_seconds: float = 3600.0) -> list[str]:
        """Weeks that were begun and not finished, and those that are over and for which media wait, in their order.

        Args:
            grace_seconds: How long after its end a week is left alone, for verifications that are under way.
        """
        last = week_of(self._clock.time() - grace_seconds - _WEEK_SECONDS)
        with self._database.read() as session:
            claimed = set(session.scalars(select(ShardRow.week).distinct()))
            weeks = set(session.scalars(select(ShardRow.week).where(ShardRow.state != "published").distinct()))
            since, late = 0.0, False
            while True:
                first = session.scalar(
                    select(func.min(MediumRow.verified_at)).where(*_waiting(last), MediumRow.verified_at >= since)
                )
                if first is None:
                    break
                week = week_of(first)
                since = week_end(week)
                # What came in after its week was claimed leaves with the next one.
                late = week in claimed
                if not late:
                    weeks.add(week)
            if late and last not in claimed:
                weeks.add(last)
        return sorted(weeks)

    def plan(self, week: str, *, since: float = 0.0) -> WeekResult:
        """What :meth:`publish` would do now; changes nothing.

        Args:
            week: ISO week that is over.
            since: Media verified before this time (seconds since the epoch) count as gone with an earlier week.
        """
        self._check_week(week)
        with self._database.read() as session:
            there = list(session.scalars(_shards_of(week)))
            if there:
                return _result(week, there, "published" if _all_published(there) else "planned")
            cut = list(self._cut(session, week, since))
        plan = tuple(ShardPlan(name, len(media), size) for name, media, size in cut)
        media, size = sum(one.media for one in plan), sum(one.bytes for one in plan)
        address = self._target.address if self._target else ""
        return WeekResult(week, address, "planned" if plan else "nothing", len(plan), media, size, plan=plan)

    def publish(self, week: str, on_shard: _OnShard | None = None) -> WeekResult:
        """Publish a week, or go on with it. A week that is published is left alone.

        Args:
            week: ISO week that is over.
            on_shard: Told the shard, how many are done and how many there are.

        Raises:
            ConfigurationError: ``week_unknown``, ``week_not_over``; ``week_elsewhere``: it was begun at another
                target; or the target refuses us.
            gas.errors.SourceUnreachable: The target does not answer; what was done is kept.
            StorageError: The database, the blobs or the target fail; what was done is kept.
        """
        self._check_week(week)
        address = self._to.address
        shards = self._database.transact(lambda session: self._claim(session, week, address))
        if not shards:
            return WeekResult(week, "", "nothing")
        if _all_published(shards):
            return _result(week, shards, "published")
        elsewhere = {shard.target for shard in shards} - {address}
        if elsewhere:
            raise ConfigurationError(
                f"The week {week} was begun at {min(elsewhere)}.",
                code="week_elsewhere",
                hint="Finish it there: every medium is published once.",
            )
        sent = 0
        lost: list[str] = []
        for number, shard in enumerate(shards):
            if shard.state == "claimed":
                gone, was_sent = self._send(shard)
                lost += gone
                sent += was_sent
            if on_shard is not None:
                on_shard(shard.name, number + 1, len(shards))
        sent += self._finish(week)
        with self._database.read() as session:
            return _result(week, list(session.scalars(_shards_of(week))), "published", sent, tuple(lost))

    @property
    def _to(self) -> Target:
        if self._target is None:
            raise ConfigurationError("There is no target to publish to.", code="publish_address")
        return self._target

    def _check_week(self, week: str) -> None:
        try:
            end = week_end(week)
        except ValueError:
            raise ConfigurationError(
                f"{week[:40]!a} is no week.", code="week_unknown", hint="Write it like 2026-W47."
            ) from None
        if end > self._clock.time():
            raise ConfigurationError(f"The week {week} is not over.", code="week_not_over")

    def _cut(self, session: Session, week: str, since: float = 0.0) -> Iterator[tuple[str, list[str], int]]:
        """The shards of what waits: name, media, bytes."""
        rows = session.execute(
            select(MediumRow.sha256, MediumRow.bytes)
            .where(*_waiting(week), MediumRow.verified_at >= since)
            .order_by(MediumRow.verified_at, MediumRow.sha256)
        ).tuples()
        media: list[str] = []
        size = number = 0
        for sha256, taken in rows.all():
            taken = taken or _UNKNOWN_BYTES
            if media and (len(media) >= self._shard_media or size + taken > self._shard_bytes):
                yield f"{week}/data-{number:05}.parquet", media, size
                media, size, number = [], 0, number + 1
            media.append(sha256)
            size += taken
        if media:
            yield f"{week}/data-{number:05}.parquet", media, size

    def _claim(self, session: Session, week: str, address: str) -> list[ShardRow]:
        there = list(session.scalars(_shards_of(week)))
        if there:
            return there
        for name, media, _ in list(self._cut(session, week)):
            session.add(
                ShardRow(
                    name=name,
                    week=week,
                    target=address,
                    state="claimed",
                    rows=len(media),
                    sha256=None,
                    size=None,
                    claimed_at=self._clock.time(),
                    published_at=None,
                )
            )
            session.execute(update(MediumRow), [{"sha256": sha256, "published_in": name} for sha256 in media])
        session.flush()
        return list(session.scalars(_shards_of(week)))

    def _send(self, shard: ShardRow) -> tuple[tuple[str, ...], int]:
        """Build a shard and bring it; returns the media that are lost, and the files that were sent."""
        target = self._to
        with self._folder() as folder:
            file = Path(folder) / "shard.parquet"
            built = build_shard(self._rows(shard.name), self._blobs, file)
            if built.lost:
                self._log.warning("media_lost", shard=shard.name, media=len(built.lost), first=built.lost[0])
                self._database.transact(lambda session: _give_up(session, built.lost))
            was_sent = built.rows > 0 and target.put(shard.name, file, built.sha256)
        values = {"state": "sent", "rows": built.rows, "sha256": built.sha256, "size": built.size}
        self._database.transact(
            # Another publisher may have gone further meanwhile.
            lambda session: session.execute(
                update(ShardRow).where(ShardRow.name == shard.name, ShardRow.state == "claimed").values(values)
            )
        )
        self._log.info("shard_sent", shard=shard.name, media=built.rows, bytes=built.size, sent=was_sent)
        return built.lost, int(was_sent)

    def _finish(self, week: str) -> int:
        """Write the cards, the checksums and, last, the manifest; then say so."""
        with self._database.read() as session:
            shards = [shard for shard in session.scalars(_shards_of(week)) if shard.rows]
            summary = _summary(session, week, shards)
            weeks = _weeks(session, week)
        sent = 0
        if shards:
            records = [
                ShardRecord(
                    path=shard.name.partition("/")[2], size=shard.size or 0, sha256=shard.sha256 or "", rows=shard.rows
                )
                for shard in shards
            ]
            card, manifest = week_card(summary), manifest_text(week, records)
            sums = {record.path: record.sha256 for record in records}
            sums |= {CARD_NAME: sha256_hex(card), MANIFEST_NAME: sha256_hex(manifest)}
            for path, text in (
                (CARD_NAME, data_card(weeks)),
                (f"{week}/{CARD_NAME}", card),
                (f"{week}/{CHECKSUMS_NAME}", checksums_text(sums)),
                (f"{week}/{MANIFEST_NAME}", manifest),
            ):
                sent += self._put_text(path, text)
        now = self._clock.time()

        def done(session: Session) -> None:
            names = session.scalars(select(ShardRow.name).where(ShardRow.week == week, ShardRow.state == "sent")).all()
            session.execute(
                update(MediumRow)
                .where(MediumRow.published_in.in_(names), MediumRow.state == MediumState.KEPT.value)
                .values(state=MediumState.PUBLISHED.value)
            )
            session.execute(
                update(ShardRow).where(ShardRow.name.in_(names)).values(state="published", published_at=now)
            )

        self._database.transact(done)
        self._log.info("week_published", week=week, shards=len(shards), media=summary.media)
        return sent

    def _put_text(self, path: str, text: bytes) -> int:
        target = self._to
        with self._folder() as folder:
            file = Path(folder) / "text"
            try:
                file.write_bytes(text)
            except OSError as error:
                raise StorageError(f"A file can't be written ({error.strerror}).", hint="Is the disk full?") from error
            return int(target.put(path, file, sha256_hex(text)))

    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        try:
            if self._scratch is not None:
                self._scratch.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryDirectory(prefix="gas-publish-", dir=self._scratch)
        except OSError as error:
            raise StorageError(f"A shard can't be written ({error.strerror}).", hint="Is the disk full?") from error

    def _rows(self, shard: str) -> Iterator[MediumRow]:
        """The media of a shard in the order of their hash, a page at a time."""
        last = ""
        while True:
            with self._database.read() as session:
                page = session.scalars(
                    select(MediumRow)
                    .where(MediumRow.published_in == shard, MediumRow.sha256 > last)
                    .order_by(MediumRow.sha256)
                    .limit(_PAGE)
                ).all()
            yield from page
            if len(page) < _PAGE:
                return
            last = page[-1].sha256


def _waiting(week: str) -> tuple[ColumnElement[bool], ...]:
    """What belongs into a week's shards: all that waits and was verified before the week's end."""
    return (
        MediumRow.state == MediumState.KEPT.value,
        MediumRow.published_in.is_(None),
        MediumRow.verified_at < week_end(week),
    )


def _shards_of(week: str) -> Select[ShardRow]:
    return select(ShardRow).where(ShardRow.week == week).order_by(ShardRow.name)


def _all_published(shards: Sequence[ShardRow]) -> bool:
    return all(shard.state == "published" for shard in shards)


def _give_up(session: Session, lost: Sequence[str]) -> None:
    for sha256 in lost:
        session.execute(
            update(MediumRow).where(MediumRow.sha256 == sha256).values(state=MediumState.LOST.value, published_in=None)
        )


def _result(week: str, shards: Sequence[ShardRow], state: str, sent: int = 0, lost: tuple[str, ...] = ()) -> WeekResult:
    real = [shard for shard in shards if shard.rows]
    return WeekResult(
        week,
        shards[0].target,
        state,
        len(real),
        sum(shard.rows for shard in real),
        sum(shard.size or 0 for shard in real),
        sent,
        lost,
        tuple(ShardPlan(shard.name, shard.rows, shard.size or 0) for shard in real),
    )


def _summary(session: Session, week: str, shards: Sequence[ShardRow]) -> WeekSummary:
    names = [shard.name for shard in shards]
    here = MediumRow.published_in.in_(names)

    def counted(*columns: InstrumentedAttribute[Any]) -> Counter[str]:
        rows = session.execute(select(*columns, func.count()).where(here).group_by(*columns))
        return Counter({"/".join(str(value or "unnamed") for value in row[:-1]): int(row[-1]) for row in rows})

    masks = session.scalar(select(func.count()).select_from(MediumRow).where(here, MediumRow.mask_sha256.is_not(None)))
    return WeekSummary(
        week,
        len(shards),
        sum(shard.size or 0 for shard in shards),
        counted(MediumRow.modality, MediumRow.media_type),
        counted(MediumRow.generator),
        counted(MediumRow.model),
        masks or 0,
        _photos(session, names),
    )


def _photos(session: Session, shards: Sequence[str]) -> Counter[str]:
    """Whose photos were changed: their licences ask for their names."""
    changed = select(MediumRow.parameters).where(MediumRow.published_in.in_(shards), MediumRow.mask_sha256.is_not(None))
    found: Counter[str] = Counter()
    for parameters in session.scalars(changed):
        source = (parameters or {}).get("source")
        if isinstance(source, dict):
            found[f"{source.get('dataset')}, {source.get('licence')}"] += 1
    return found


def _weeks(session: Session, week: str) -> list[tuple[str, int, int, int]]:
    """Published weeks and the one that is about to be: name, shards, media, bytes."""
    rows = session.execute(
        select(ShardRow.week, func.count(), func.sum(ShardRow.rows), func.sum(ShardRow.size))
        .where(ShardRow.rows > 0, (ShardRow.state == "published") | (ShardRow.week == week))
        .group_by(ShardRow.week)
    ).tuples()
    return [(name, shards, int(media or 0), int(size or 0)) for name, shards, media, size in rows]
