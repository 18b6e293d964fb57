"""Old lines of the logs of prints are forgotten: our own, and those that other validators have shown.

A medium earns for a day, and counts for a week where it fools detectors; who sells it to a second validator does so
soon. :data:`PRINT_SECONDS` is far beyond that. Of each log the last line that is forgotten stays without its entry,
only its digest: the next line's digest covers it, so that what is kept can still be checked line by line, also by a
validator that hears of the log for the first time.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from gas.clock import Clock
from gas.storage.database import Database
from gas.storage.tables import PrintRow

__all__ = ["PRINT_SECONDS", "prune_prints"]

PRINT_SECONDS: Final = 30 * 86_400.0
"""How long a print counts."""

_AT_A_TIME: Final = 5_000


def prune_prints(database: Database, validator: str, clock: Clock) -> int:
    """Forget lines older than :data:`PRINT_SECONDS`; returns how many.

    To be called now and then by the process that writes them. Our own lines count from our newest one, not from today:
    after a long downtime those remain by which it is known what has a line already.

    Args:
        database: Where the logs are.
        validator: Our hotkey.
        clock: The time.

    Raises:
        gas.errors.StorageError: The database fails; what is forgotten by then is forgotten in good order.
    """
    now = clock.time()
    with database.read() as session:
        newest = func.max(PrintRow.seen_at)
        logs = session.execute(
            select(PrintRow.validator, PrintRow.log, newest)
            .group_by(PrintRow.validator, PrintRow.log)
            .having(func.min(PrintRow.seen_at) < now - PRINT_SECONDS)
        ).tuples()
        found = list(logs)
        latest = dict(session.execute(select(PrintRow.validator, newest).group_by(PrintRow.validator)).tuples().all())
    gone = 0
    for owner, log, last in found:
        before = (min(now, last) if owner == validator else now) - PRINT_SECONDS
        # Of another log than its newest one nothing will come any more: not even the last digest is of use.
        abandoned = last < latest[owner] and last < before
        while True:
            count = database.transact(
                lambda session, key=(owner, log), before=before, whole=abandoned: _forget(session, key, before, whole)  # type: ignore[misc]
            )
            gone += count
            if count < _AT_A_TIME:
                break
    return gone


def _forget(session: Session, key: tuple[str, str], before: float, whole: bool) -> int:
    """Some lines of one log; the last of them keeps its digest, unless all of the log goes."""
    here = (PrintRow.validator == key[0], PrintRow.log == key[1])
    young = session.scalar(select(func.min(PrintRow.seq)).where(*here, PrintRow.seen_at >= before))
    old = list(
        session.scalars(
            select(PrintRow.seq)
            .where(*here, *(() if young is None else (PrintRow.seq < young,)))
            .order_by(PrintRow.seq)
            .limit(_AT_A_TIME + 1)
        )
    )
    if not old:
        return 0
    if whole:
        session.execute(delete(PrintRow).where(*here, PrintRow.seq <= old[-1]))
        return len(old)
    session.execute(
        update(PrintRow)
        .where(*here, PrintRow.seq == old[-1])
        .values(entry=None, miner=None, sha256=None, opened_at=func.coalesce(PrintRow.opened_at, PrintRow.seen_at))
    )
    session.execute(delete(PrintRow).where(*here, PrintRow.seq < old[-1]))
    return len(old) - 1
