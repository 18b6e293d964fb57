"""Our own log of prints: written after the media it is about, served to other validators a page at a time."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import Response
from sqlalchemy import exists, select
from sqlalchemy.orm import Session, aliased
from starlette.concurrency import run_in_threadpool

from gas.chain.keys import Signer
from gas.clock import Clock
from gas.errors import RequestRefused
from gas.protocol.server import EpistulaGate
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, MediumRow, PrintRow
from gas.validator.doors import Floods
from gas.validator.prints import Entry, Item, Proof, digest_of, hashes_of, signed_page
from gas.validator.tasks import ChallengeState

__all__ = ["PRINTS_PATH", "PrintLog", "add_prints_route"]

PRINTS_PATH: Final = "/generation/prints"
"""Where a validator shows its log, below its public address."""

_PAGE: Final = 200
_PAGE_BYTES: Final = 1 << 19
_APPEND: Final = 500
_LOOK_BACK: Final = 6 * 3600.0
_FIRST_LOOK: Final = 2 * 86_400.0


def _nonce() -> str:
    return secrets.token_hex(16)


class PrintLog:
    """The log of one validator.

    Args:
        database: Where it is kept, with the media it is about.
        signer: The validator's hotkey.
        clock: Dates the lines.
        reveal_seconds: From a digest to its entry; others must look more often than that.
        nonce: 32 unforeseeable hex digits.
    """

    def __init__(
        self,
        database: Database,
        signer: Signer,
        clock: Clock,
        *,
        reveal_seconds: float = 600.0,
        nonce: Callable[[], str] = _nonce,
    ) -> None:
        self._database = database
        self._signer = signer
        self._validator = signer.ss58_address
        self._clock = clock
        self._reveal = reveal_seconds
        self._nonce = nonce

    def append(self) -> int:
        """Write a line for each accepted medium that has none yet; returns how many.

        To be called by one process, every few seconds. A medium gets one line, whenever that process was killed.
        """
        return self._database.transact(self._append)

    def page(self, log: str, after: int) -> bytes:
        """Some lines, signed; entries younger than ``reveal_seconds`` stay sealed.

        Args:
            log: The log that the asker knows; of another one it gets the beginning of ours, as far as it is kept.
            after: The last line that the asker has.
        """
        now = self._clock.time()
        previous = ""
        with self._database.read() as session:
            last = self._last(session)
            if last is None:
                return signed_page(self._signer, "0" * 32, 0, ())
            after = after if log == last.log else 0
            ours = (PrintRow.validator == self._validator, PrintRow.log == last.log)
            forgotten = session.execute(
                select(PrintRow.seq, PrintRow.digest)
                .where(*ours, PrintRow.sha256.is_(None))
                .order_by(PrintRow.seq.desc())
                .limit(1)
            ).first()
            if forgotten is not None and after <= forgotten.seq:
                after, previous = forgotten
            rows = session.scalars(
                select(PrintRow).where(*ours, PrintRow.seq > after).order_by(PrintRow.seq).limit(_PAGE)
            ).all()
        items: list[Item] = []
        size = 0
        for row in rows:
            entry = Entry.model_validate(row.entry) if row.at + self._reveal <= now else None
            size += 200 + (len(entry.words) + sum(map(len, entry.cuts)) + 1500 if entry is not None else 0)
            if items and size > _PAGE_BYTES:
                break
            items.append(Item(seq=row.seq, at_ms=int(row.at * 1000), digest=row.digest, entry=entry))
        return signed_page(self._signer, last.log, after, items, previous)

    def _append(self, session: Session) -> int:
        now, last = self._clock.time(), self._last(session)
        # A clock that was set back must not make an older log the newest one.
        seen_at = max(now, last.seen_at) if last is not None else now
        log = last.log if last is not None else self._nonce()
        seq, previous = (last.seq, last.digest) if last is not None else (0, "")
        since = min(now, last.at) - _LOOK_BACK if last is not None else now - _FIRST_LOOK
        rows = session.execute(self._without_line(since)).tuples().all()
        for miner, modality, sha256, asked, delivered, proof, facts in rows:
            hashes, words, cuts = hashes_of({**(facts or {}), "modality": modality})
            entry = Entry(
                miner=miner,
                modality=modality,
                sha256=sha256,
                asked_ms=int(asked * 1000),
                delivered_ms=int((delivered or asked) * 1000),
                proof=Proof.model_validate(proof),
                hashes=hashes,
                words=words,
                cuts=cuts,
                nonce=self._nonce(),
            )
            seq += 1
            previous = digest_of(self._validator, log, seq, previous, entry)
            session.add(
                PrintRow(
                    validator=self._validator,
                    log=log,
                    seq=seq,
                    digest=previous,
                    at=now,
                    seen_at=seen_at,
                    opened_at=now,
                    entry=entry.model_dump(mode="json"),
                    miner=miner,
                    sha256=sha256,
                )
            )
        return len(rows)

    def _without_line(self, since: float) -> Any:
        line = aliased(PrintRow)
        return (
            select(
                ChallengeRow.miner, ChallengeRow.modality, MediumRow.sha256, ChallengeRow.created_at,
                ChallengeRow.delivered_at, ChallengeRow.proof, MediumRow.facts,
            )
            .join(
                MediumRow,
                (MediumRow.sha256 == ChallengeRow.media_sha256) & (MediumRow.generator == ChallengeRow.miner),
            )
            .where(
                ChallengeRow.validator == self._validator,
                ChallengeRow.state == ChallengeState.VERIFIED.value,
                ChallengeRow.settled_at > since,
                ChallengeRow.proof.is_not(None),
                # Joined with nothing, so that SQLite looks up the hash and not all lines of ours.
                ~exists().where(line.sha256 == MediumRow.sha256, line.validator.concat("") == self._validator),
            )
            .order_by(ChallengeRow.settled_at, MediumRow.sha256)
            .limit(_APPEND)
        )  # fmt: skip

    def _last(self, session: Session) -> PrintRow | None:
        """The last line of our newest log, whatever the clock said when it was written."""
        ours = PrintRow.validator == self._validator
        log = select(PrintRow.log).where(ours).order_by(PrintRow.seen_at.desc()).limit(1).scalar_subquery()
        return session.scalars(
            select(PrintRow).where(ours, PrintRow.log == log).order_by(PrintRow.seq.desc()).limit(1)
        ).first()


def add_prints_route(app: FastAPI, log: PrintLog, gate: EpistulaGate, clock: Clock) -> None:
    """Show the log to other validators at :data:`PRINTS_PATH`, with the parameters ``log`` and ``after``.

    Args:
        app: The callback server.
        log: Ours.
        gate: Lets validators with a permit in.
        clock: For the limit of one page a second of each.
    """
    floods = Floods(clock, burst=60, per_second=1.0)

    async def prints(request: Request) -> Response:
        signed = await gate.receive(request, limit=0)
        floods.spend(signed.hotkey)
        after = request.query_params.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) <= 15):
            raise RequestRefused("after is no number.", status=422, code="bad_request")
        page = await run_in_threadpool(log.page, request.query_params.get("log", "")[:32], int(after))
        return Response(page, media_type="application/json")

    app.add_route(PRINTS_PATH, prints, methods=["GET"])
