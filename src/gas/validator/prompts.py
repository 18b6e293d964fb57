"""The bank of prompts: rows of the database that every process of a validator draws from.

Least-used prompts come first, a draw marks its use in the same transaction, and what says nearly the same as a prompt
that is there already is not taken in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from gas.clock import Clock
from gas.errors import ConfigurationError
from gas.generation.prompts.compose import Composer
from gas.generation.prompts.embedding import (
    DIMENSIONS,
    Embedder,
    HashedEmbedder,
    pack_vectors,
    unpack_vectors,
)
from gas.generation.prompts.neighbours import Neighbours
from gas.generation.prompts.quality import GateCounts, QualityGate, clean_prompt
from gas.generation.prompts.terms import LengthBand, Register, band_of, register_of
from gas.storage.database import Database
from gas.storage.tables import PromptRow
from gas.types import Modality

__all__ = ["BankPrompt", "Offer", "PromptBank", "PromptFilter"]


_BATCH: Final = 128
_ROWS: Final = 4096
_PLACES: Final = 1 << 62
_MAX_SOURCE: Final = 200
_FILL_TRIES: Final = 30


@dataclass(frozen=True, slots=True)
class Offer:
    """A text that wants to become a prompt.

    Attributes:
        text: Untrusted.
        register: Where it is known; guessed from the text when None.
        source: Where it comes from, e.g. ``composed:labels`` or ``file:captions.txt``; cut after 200 characters.
    """

    text: str
    register: Register | None = None
    source: str = "added"


@dataclass(frozen=True, slots=True)
class BankPrompt:
    """One prompt of the bank; times are seconds since the epoch, ``last_used_at`` is None before the first use."""

    id: int
    text: str
    modality: Modality
    register: Register
    length: LengthBand
    source: str
    created_at: float
    times_used: int
    last_used_at: float | None

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class PromptFilter:
    """Which prompts are meant; None for any.

    Attributes:
        modality: What they are for.
        register: In whose manner.
        length: Their band.
        source: Their source begins with this.
    """

    modality: Modality | None = None
    register: Register | None = None
    length: LengthBand | None = None
    source: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As conditions on :class:`gas.storage.tables.PromptRow`."""
        found: list[ColumnElement[bool]] = []
        if self.modality is not None:
            found.append(PromptRow.modality == self.modality.value)
        if self.register is not None:
            found.append(PromptRow.register == self.register.value)
        if self.length is not None:
            found.append(PromptRow.length == self.length.value)
        if self.source is not None:
            found.append(PromptRow.source.startswith(self.source, autoescape=True))
        return found


class PromptBank:
    """A bank in a database.

    Several processes may use one database: no prompt is handed out twice as long as another one is less used, and
    near repeats are found whoever added their twin.

    Args:
        database: Where it is kept.
        embedder: Finds near repeats.
        clock: For the times of adding and using.
        gate: What a prompt has to be like.
        threshold: Cosine in (0, 1] from which on a text is a near repeat; the embedder's own when None.
    """

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        clock: Clock,
        *,
        gate: QualityGate | None = None,
        threshold: float | None = None,
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._clock = clock
        self._gate = gate or QualityGate()
        self._threshold = embedder.threshold if threshold is None else threshold
        if not 0 < self._threshold <= 1:
            raise ConfigurationError("The threshold of near repeats lies above 0 and is at most 1.", code="threshold")
        self._known: dict[Modality, Neighbours] = {}
        self._seen: dict[Modality, int] = {}

    @property
    def embedder_name(self) -> str:
        """Which embedder finds near repeats."""
        return self._embedder.name

    @property
    def threshold(self) -> float:
        """Cosine from which on a text is a near repeat."""
        return self._threshold

    def add(
        self,
        offers: Iterable[Offer],
        modality: Modality,
        *,
        most: int | None = None,
        on_progress: Callable[[GateCounts], None] | None = None,
    ) -> GateCounts:
        """Take texts in, as many as pass the gate and are new; in bounded memory, batch by batch.

        Args:
            offers: Any number, also without end when ``most`` is given.
            modality: What they are for.
            most: Stop after so many have been taken.
            on_progress: Told the counts after each batch.

        Returns:
            How many were taken, and how many refused by which code: those of
            :data:`gas.generation.prompts.quality.CODES`, ``duplicate`` and ``near_repeat``.

        Raises:
            gas.errors.StorageError: The database does not answer; whole batches have been taken or not.
        """
        counts = GateCounts()
        rest = iter(offers)
        while most is None or counts.taken < most:
            batch = list(islice(rest, _BATCH))
            if not batch:
                break
            self._add_batch(batch, modality, counts, None if most is None else most - counts.taken)
            if on_progress is not None:
                on_progress(counts)
        return counts

    def fill(
        self,
        composer: Composer,
        modality: Modality,
        rng: np.random.Generator,
        count: int,
        *,
        on_progress: Callable[[GateCounts], None] | None = None,
    ) -> GateCounts:
        """Compose prompts until so many new ones are in the bank, or 30 for each wanted one have been tried.

        Args:
            composer: Composes them.
            modality: The composer's.
            rng: Decides what is composed.
            count: How many.
            on_progress: As in :meth:`add`.
        """
        stream = (Offer(one.text, one.register, f"composed:{one.origin}") for one in composer.stream(rng))
        return self.add(islice(stream, _FILL_TRIES * count), modality, most=count, on_progress=on_progress)

    def draw(self, rng: np.random.Generator, wanted: PromptFilter) -> BankPrompt:
        """Hand out one of the least-used prompts and mark its use, in one transaction.

        Args:
            rng: Decides among prompts that are used equally often; the same state of generator and bank gives the
                same prompt.
            wanted: Which prompts; most often those of a modality.

        Raises:
            ConfigurationError: ``no_prompts``: there is none of this kind.
            gas.errors.StorageError: The database does not answer.
        """
        start = int(rng.integers(_PLACES))

        def work(session: Session) -> BankPrompt | None:
            conditions = wanted.conditions()
            least = session.scalar(select(func.min(PromptRow.times_used)).where(*conditions))
            if least is None:
                return None
            among = select(*_COLUMNS).where(*conditions, PromptRow.times_used == least).limit(1)
            among = among.order_by(PromptRow.place, PromptRow.id)
            row = session.execute(among.where(PromptRow.place >= start)).first() or session.execute(among).one()
            now = self._clock.time()
            mark = update(PromptRow).where(PromptRow.id == row.id)
            session.execute(mark.values(times_used=PromptRow.times_used + 1, last_used_at=now))
            return _prompt(row, times_used=row.times_used + 1, last_used_at=now)

        found = self._database.transact(work)
        if found is None:
            raise ConfigurationError(
                "The bank holds no prompt of this kind.",
                code="no_prompts",
                hint="Fill it: gascli v prompts compose --count 200.",
            )
        return found

    def drawer(self, modality: Modality) -> Callable[[np.random.Generator], str]:
        """Texts of one modality, in the form that :class:`gas.validator.challenges.Challenger` takes."""
        wanted = PromptFilter(modality)
        return lambda rng: self.draw(rng, wanted).text

    def count(self, wanted: PromptFilter | None = None, *, unused: bool = False) -> int:
        """How many prompts there are.

        Args:
            wanted: Which; all when left out.
            unused: Only those that were never handed out.
        """
        conditions = (wanted or PromptFilter()).conditions() + ([PromptRow.times_used == 0] if unused else [])
        with self._database.read() as session:
            return session.scalar(select(func.count()).select_from(PromptRow).where(*conditions)) or 0

    def page(self, wanted: PromptFilter | None = None, *, limit: int = 50, after: int = 0) -> list[BankPrompt]:
        """Prompts in the order in which they came.

        Args:
            wanted: Which; all when left out.
            limit: At most so many.
            after: Only ids above this.
        """
        query = select(*_COLUMNS).where(PromptRow.id > after, *(wanted or PromptFilter()).conditions())
        with self._database.read() as session:
            return [_prompt(row) for row in session.execute(query.order_by(PromptRow.id).limit(limit))]

    def remove(self, ids: Sequence[int]) -> int:
        """Take prompts out; returns how many there were."""
        with self._database.write() as session:
            there = session.scalars(select(PromptRow.id).where(PromptRow.id.in_(ids))).all()
            session.execute(delete(PromptRow).where(PromptRow.id.in_(there)))
        self._known.clear()
        self._seen.clear()
        return len(there)

    def vectors(
        self, wanted: PromptFilter | None = None, *, limit: int = 20_000
    ) -> tuple[list[BankPrompt], NDArray[np.float32]]:
        """Prompts with their vectors, for a report.

        Args:
            wanted: Which; all when left out.
            limit: At most so many, the first that came.

        Returns:
            The prompts, and float32 (n, 384) of length 1. Texts that another embedder looked at are embedded anew.
        """
        prompts: list[BankPrompt] = []
        parts: list[NDArray[np.float32]] = [np.zeros((0, DIMENSIONS), np.float32)]
        after = 0
        while len(prompts) < limit:
            query = select(*_COLUMNS, PromptRow.embedder, PromptRow.embedding)
            query = query.where(PromptRow.id > after, *(wanted or PromptFilter()).conditions())
            with self._database.read() as session:
                rows = session.execute(query.order_by(PromptRow.id).limit(min(_ROWS, limit - len(prompts)))).all()
            if not rows:
                break
            prompts += [_prompt(row) for row in rows]
            parts.append(unpack_vectors(self._vectors_of(rows)))
            after = rows[-1].id
        return prompts, np.concatenate(parts)

    def _add_batch(self, batch: list[Offer], modality: Modality, counts: GateCounts, room: int | None) -> None:
        passed: list[Offer] = []
        for offer in batch:
            reason = self._gate.check(offer.text)
            if reason is None:
                passed.append(Offer(clean_prompt(offer.text), offer.register, offer.source))
            else:
                counts.refused[reason.code] += 1
        if not passed:
            return
        hashes = [hashlib.sha256(offer.text.casefold().encode()).hexdigest() for offer in passed]
        vectors = self._embedder.embed([offer.text for offer in passed])
        packed = pack_vectors(vectors)
        outcome: list[str] = []

        def work(session: Session) -> None:
            outcome.clear()
            known = self._catch_up(session, modality)
            there = set(
                session.scalars(
                    select(PromptRow.text_sha256).where(
                        PromptRow.modality == modality.value, PromptRow.text_sha256.in_(hashes)
                    )
                )
            )
            verdicts = known.take_new(vectors, self._threshold)
            for at, (new, _, _) in enumerate(verdicts):
                if hashes[at] in there:
                    outcome.append("duplicate")
                elif not new:
                    outcome.append("near_repeat")
                elif room is not None and outcome.count("") >= room:
                    outcome.append("more")
                else:
                    there.add(hashes[at])
                    outcome.append("")
                    session.add(self._row(passed[at], hashes[at], packed[at], modality))

        self._database.transact(work)
        counts.taken += outcome.count("")
        counts.refused.update(code for code in outcome if code not in ("", "more"))

    def _row(self, offer: Offer, text_hash: str, packed: NDArray[np.int8], modality: Modality) -> PromptRow:
        place = hashlib.sha256(f"{modality.value}/{text_hash}".encode()).digest()[:8]
        return PromptRow(
            text=offer.text,
            text_sha256=text_hash,
            modality=modality.value,
            register=(offer.register or register_of(offer.text)).value,
            length=band_of(offer.text).value,
            source=offer.source[:_MAX_SOURCE],
            created_at=self._clock.time(),
            times_used=0,
            last_used_at=None,
            place=int.from_bytes(place, "big") % _PLACES,
            embedder=self._embedder.name,
            embedding=packed.tobytes(),
        )

    def _catch_up(self, session: Session, modality: Modality) -> Neighbours:
        """All prompts of a modality as neighbours; those that came since the last look are added.

        Ids grow in the order of the transactions, because write transactions exclude each other.
        """
        known = self._known.setdefault(modality, Neighbours())
        for rows in self._newer(session, modality):
            packed = self._vectors_of(rows)
            known.add(np.array([row.id for row in rows], np.int64), packed)
            self._seen[modality] = rows[-1].id
            if self._embedder.name != HashedEmbedder.name:
                for row, vector in zip(rows, packed, strict=True):
                    if row.embedder == HashedEmbedder.name:
                        mark = update(PromptRow).where(PromptRow.id == row.id)
                        session.execute(mark.values(embedder=self._embedder.name, embedding=vector.tobytes()))
        return known

    def _newer(self, session: Session, modality: Modality) -> Iterator[Sequence[Any]]:
        while True:
            query = select(PromptRow.id, PromptRow.text, PromptRow.embedder, PromptRow.embedding)
            query = query.where(PromptRow.modality == modality.value, PromptRow.id > self._seen.get(modality, 0))
            rows = session.execute(query.order_by(PromptRow.id).limit(_ROWS)).all()
            if not rows:
                return
            yield rows

    def _vectors_of(self, rows: Sequence[Any]) -> NDArray[np.int8]:
        """Stored vectors; those of another embedder can't be compared and are made anew."""
        packed = np.zeros((len(rows), DIMENSIONS), np.int8)
        others = []
        for at, row in enumerate(rows):
            if row.embedder == self._embedder.name and len(row.embedding) == DIMENSIONS:
                packed[at] = np.frombuffer(row.embedding, np.int8)
            else:
                others.append(at)
        if others:
            packed[others] = pack_vectors(self._embedder.embed([rows[at].text for at in others]))
        return packed


_COLUMNS: Final = (
    PromptRow.id,
    PromptRow.text,
    PromptRow.modality,
    PromptRow.register,
    PromptRow.length,
    PromptRow.source,
    PromptRow.created_at,
    PromptRow.times_used,
    PromptRow.last_used_at,
)


def _prompt(row: Any, **changed: Any) -> BankPrompt:
    values = {column.key: getattr(row, column.key) for column in _COLUMNS} | changed
    values["modality"] = Modality(values["modality"])
    values["register"] = Register(values["register"])
    values["length"] = LengthBand(values["length"])
    return BankPrompt(**values)
