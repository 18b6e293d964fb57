"""What other validators have accepted: their logs of prints are fetched, checked line by line, and kept.

A peer is a validator with a permit and stake whose address is in the metagraph; everything that it sends is hostile. A
line counts only with the delivering miner's own signature for that validator. When a digest was first here is written
down with it: see :mod:`gas.validator.double_sales` for what that decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gas.chain.base import Metagraph
from gas.clock import Clock
from gas.errors import GasError, InfrastructureError, IntegrityError, RequestRefused, StorageError
from gas.protocol.client import SignedClient
from gas.storage.database import Database
from gas.storage.tables import PrintRow
from gas.validator.print_log import PRINTS_PATH
from gas.validator.print_pruning import PRINT_SECONDS
from gas.validator.prints import Entry, Page, digest_of, read_page
from gas.validator.sampling import axon_url

__all__ = ["Fetched", "Peer", "PrintExchange", "peers_of"]

_DAY: Final = 86_400.0
_MOST_PAGES: Final = 10
_MOST_A_DAY: Final = 30_000
"""Lines of one validator; it asks at most 32 generators in each of three modalities every five minutes."""
_BYTES_A_DAY: Final = 32 << 20
"""Of the entries of one validator, after twice as much at once; a picture's takes some 2 kB."""
_MOST_PEERS: Final = 64
_AT_ONCE: Final = 4
_PAGE_SECONDS: Final = 10.0
_PAGE_BYTES: Final = 1 << 20
_SKEW: Final = 60.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Another validator: its hotkey and the base of its address."""

    hotkey: str
    url: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one look at the others has brought.

    Attributes:
        peers: How many were asked.
        lines: Lines that are new.
        opened: Entries that can be read now, their proofs checked.
        void: Entries whose proof doesn't hold, or whose miner holds no slot here.
        failed: Why not, by hotkey.
    """

    peers: int
    lines: int
    opened: int
    void: int
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Tally:
    lines: int = 0
    opened: int = 0
    void: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def peers_of(graph: Metagraph, validator: str, *, local: bool) -> list[Peer]:
    """Validators with a permit and stake that have published an address, those with the most stake first.

    Args:
        graph: The subnet.
        validator: Our hotkey.
        local: Whether loop-back and private addresses will do.
    """
    found = []
    for neuron in sorted(graph.neurons, key=lambda one: (-one.stake, one.uid)):
        url = axon_url(neuron.axon, local=local)
        if url is not None and neuron.permit and neuron.stake > 0 and neuron.hotkey != validator:
            found.append(Peer(neuron.hotkey, url))
    return found[:_MOST_PEERS]


class PrintExchange:
    """Looks at the others' logs; one process of a validator does.

    Args:
        database: Where lines are kept.
        client: Signs as the validator.
        validator: Our hotkey.
        clock: The time.
        local: Whether loop-back and private addresses are asked.
        reveal_seconds: After which entries of the others are asked for.
    """

    def __init__(
        self,
        database: Database,
        client: SignedClient,
        validator: str,
        clock: Clock,
        *,
        local: bool = False,
        reveal_seconds: float = 600.0,
    ) -> None:
        self._database = database
        self._client = client
        self._validator = validator
        self._clock = clock
        self._local = local
        self._reveal = reveal_seconds
        self._log = structlog.get_logger("gas.validator")
        self._allowances: dict[str, tuple[float, float]] = {}

    async def look(self, graph: Metagraph) -> Fetched:
        """Fetch what is new from every peer; one that fails or lies is left out this time.

        Args:
            graph: Who is a validator, and which miners hold a slot.

        Raises:
            gas.errors.StorageError: Our own database fails.
        """
        miners = {str(neuron.hotkey) for neuron in graph.neurons}
        peers, tally, places = (
            peers_of(graph, self._validator, local=self._local),
            _Tally(),
            asyncio.Semaphore(_AT_ONCE),
        )

        async def one(peer: Peer) -> None:
            async with places:
                await self._look_at(peer, miners, tally)

        await asyncio.gather(*(one(peer) for peer in peers))
        return Fetched(len(peers), tally.lines, tally.opened, tally.void, tally.failed)

    async def _look_at(self, peer: Peer, miners: Collection[str], tally: _Tally) -> None:
        log, last = await asyncio.to_thread(self._known, peer.hotkey)
        try:
            for _ in range(_MOST_PAGES):
                page = await self._page(peer, log, last)
                if not page.items:
                    break
                await asyncio.to_thread(self._keep, page, miners, tally)
                log, last = page.log, page.items[-1].seq
            for _ in range(_MOST_PAGES):
                sealed = await asyncio.to_thread(self._first_sealed, peer.hotkey, log)
                if sealed is None:
                    break
                page = await self._page(peer, log, sealed - 1)
                before = tally.opened + tally.void
                await asyncio.to_thread(self._keep, page, miners, tally)
                if tally.opened + tally.void == before:
                    break
        except StorageError:
            raise
        except (RequestRefused, InfrastructureError) as error:
            self._failed(peer, error, tally)

    def _failed(self, peer: Peer, error: GasError, tally: _Tally) -> None:
        tally.failed[peer.hotkey] = error.error_code
        self._log.warning("prints_not_fetched", validator=peer.hotkey, code=error.error_code, why=str(error)[:200])

    async def _page(self, peer: Peer, log: str, after: int) -> Page:
        query = urlencode({"log": log, "after": after})
        try:
            async with asyncio.timeout(_PAGE_SECONDS):
                answer = await self._client.send(
                    "GET", f"{peer.url}{PRINTS_PATH}?{query}", signed_for=peer.hotkey, max_answer=_PAGE_BYTES
                )
        except TimeoutError:
            raise InfrastructureError("The validator takes too long.", code="peer_unreachable") from None
        return await asyncio.to_thread(read_page, answer.body, peer.hotkey)

    def _known(self, validator: str) -> tuple[str, int]:
        """The log of a validator that was heard of last, and its last line here."""
        with self._database.read() as session:
            row = session.execute(
                select(PrintRow.log, PrintRow.seq)
                .where(PrintRow.validator == validator)
                .order_by(PrintRow.seen_at.desc(), PrintRow.seq.desc())
                .limit(1)
            ).first()
            return (row.log, row.seq) if row is not None else ("", 0)

    def _first_sealed(self, validator: str, log: str) -> int | None:
        """The first line whose entry is due and not here."""
        due = self._clock.time() - self._reveal
        # What is about to be forgotten must not stand in the way of what isn't.
        kept = PrintRow.seen_at > self._clock.time() - PRINT_SECONDS + _DAY
        with self._database.read() as session:
            return session.scalar(
                select(func.min(PrintRow.seq)).where(
                    PrintRow.validator == validator,
                    PrintRow.log == log,
                    PrintRow.opened_at.is_(None),
                    PrintRow.at <= due,
                    kept,
                )
            )

    def _keep(self, page: Page, miners: Collection[str], tally: _Tally) -> None:
        """Keep a page, all of it or nothing.

        Raises:
            IntegrityError: ``prints_rewritten``: it contradicts what this validator has shown before;
                ``bad_prints``: a digest or a time is wrong; ``too_many_prints``.
        """
        # Signatures are checked before the database is locked.
        proven = {
            item.seq: item.entry.miner in miners
            and item.entry.proof.holds(item.entry.miner, item.entry.sha256, page.validator)
            for item in page.items
            if item.entry is not None
        }
        allowed = self._allowance(page.validator)
        kept = self._database.transact(lambda session: self._write(session, page, proven, allowed))
        self._allowances[page.validator] = (allowed - kept[3], self._clock.monotonic())
        tally.lines += kept[0]
        tally.opened += kept[1]
        tally.void += kept[2]

    def _allowance(self, validator: str) -> float:
        """Bytes that may still be taken from a validator now."""
        now = self._clock.monotonic()
        left, at = self._allowances.get(validator, (2.0 * _BYTES_A_DAY, now))
        return min(2.0 * _BYTES_A_DAY, left + (now - at) * _BYTES_A_DAY / _DAY)

    def _write(
        self, session: Session, page: Page, proven: dict[int, bool], allowed: float
    ) -> tuple[int, int, int, float]:
        now = self._clock.time()
        lines = opened = void = size = 0
        mine = (PrintRow.validator == page.validator, PrintRow.log == page.log)
        numbers = [page.after, *(item.seq for item in page.items)]
        rows = {row.seq: row for row in session.scalars(select(PrintRow).where(*mine, PrintRow.seq.in_(numbers)))}
        if page.items and page.after and page.after not in rows:
            # Where old lines are not kept any more, the digest of the last of them is shown instead.
            if not page.previous:
                raise _lies("The lines before these are unknown.", "bad_prints")
            session.add(
                PrintRow(
                    validator=page.validator, log=page.log, seq=page.after, digest=page.previous,
                    at=page.items[0].at_ms / 1000, seen_at=now, opened_at=now,
                )
            )  # fmt: skip
        previous = rows[page.after].digest if page.after in rows else page.previous
        if page.after in rows and page.previous not in ("", previous):
            raise _lies("It has rewritten its log.", "prints_rewritten")
        today = select(func.count()).where(PrintRow.validator == page.validator, PrintRow.seen_at > now - _DAY)
        if (session.scalar(today) or 0) + sum(item.seq not in rows for item in page.items) > _MOST_A_DAY:
            raise _lies(f"More than {_MOST_A_DAY} lines a day are not kept.", "too_many_prints")
        for item in page.items:
            row = rows.get(item.seq)
            if row is None:
                if item.at_ms / 1000 > now + _SKEW:
                    raise _lies("A line is dated in the future.", "bad_prints")
                row = PrintRow(
                    validator=page.validator, log=page.log, seq=item.seq, digest=item.digest, at=item.at_ms / 1000,
                    seen_at=now,
                )  # fmt: skip
                session.add(row)
                lines += 1
            elif row.digest != item.digest:
                raise _lies("It has rewritten its log.", "prints_rewritten")
            if item.entry is not None and row.opened_at is None:
                # Signed after its line was written: a proof that somebody wants to be overlooked, or to come later.
                timely = item.entry.proof.at_ms <= item.at_ms + int(_SKEW * 1000)
                self._open(row, item.entry, previous, timely and proven[item.seq])
                row.opened_at = now
                opened += row.entry is not None
                void += row.entry is None
                size += len(item.entry.model_dump_json())
                if size > allowed:
                    raise _lies(f"More than {_BYTES_A_DAY >> 20} MiB a day are not kept.", "too_many_prints")
            previous = item.digest
        return lines, opened, void, size

    def _open(self, row: PrintRow, entry: Entry, previous: str, proven: bool) -> None:
        if digest_of(row.validator, row.log, row.seq, previous, entry) != row.digest:
            raise _lies("An entry is not the one that it committed to.", "bad_prints")
        if proven:
            row.entry, row.miner, row.sha256 = entry.model_dump(mode="json"), entry.miner, entry.sha256


def _lies(message: str, code: str) -> IntegrityError:
    return IntegrityError(message, code=code)
