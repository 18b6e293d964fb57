"""Pictures and masks that are sent along with challenges: kept among the blobs until the answer is judged, then gone.

A mask stays where a verified medium names it. What was put there stands in the service's state before it is put, so
that a process that is killed leaves nothing behind that nobody would look for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from gas.clock import Clock
from gas.errors import StorageError
from gas.storage.blobs import BlobStore, sha256_hex
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, MediumRow
from gas.validator.ground import ServiceState
from gas.validator.owed import OWED_SECONDS
from gas.validator.store import HERE
from gas.validator.tasks import OPEN_STATES, ChallengeState

__all__ = ["EditBlobs", "sent_along"]

_KEY: Final = "sent_along"
_LIST: Final = "blobs"
_GRACE: Final = 900.0
"""Seconds in which a blob is left alone: its challenge may not be on record yet."""


class EditBlobs:
    """Keeps what is sent along; one object a service, may be used from several threads.

    Args:
        database: Of the challenges and media.
        blobs: Where the bytes go.
        state: Of the service.
        clock: For the age of what is kept.
    """

    def __init__(self, database: Database, blobs: BlobStore, state: ServiceState, clock: Clock) -> None:
        self._database = database
        self._blobs = blobs
        self._state = state
        self._clock = clock
        self._lock = threading.Lock()

    def put(self, parts: Sequence[bytes]) -> list[str]:
        """Keep bytes; returns their SHA-256.

        Raises:
            gas.errors.StorageError: They can't be written.
        """
        names = [sha256_hex(part) for part in parts]
        with self._lock:
            self._write(self._read() | dict.fromkeys(names, self._clock.time()))
            for part in parts:
                self._blobs.put(part)
        return names

    def get(self, names: Sequence[str]) -> tuple[bytes, bytes] | None:
        """A picture and its mask once more; None when one of them is gone.

        Raises:
            gas.errors.StorageError: They can't be read.
        """
        try:
            picture, mask = (self._blobs.get(name) for name in names)
        except StorageError as error:
            if error.error_code in ("blob_missing", "blob_damaged"):
                return None
            raise
        return picture, mask

    def sweep(self) -> int:
        """Delete what no challenge that is open or asked again and no medium names any more; returns how many.

        Raises:
            gas.errors.StorageError: The database or the blobs fail.
        """
        with self._lock:
            kept = self._read()
            old = {name for name, at in kept.items() if at < self._clock.time() - _GRACE}
            if not old:
                return 0
            with self._database.read() as session:
                # In this order: a challenge that is settled in between has its medium by then.
                old -= sent_along(session) | _owed(session, self._clock.time() - OWED_SECONDS - _GRACE)
                masks = MediumRow.mask_sha256
                named = set(session.scalars(select(masks).where(masks.in_(old), MediumRow.state.in_(HERE))))
            for name in old - named:
                self._blobs.delete(name)
            self._write({name: at for name, at in kept.items() if name not in old})
            return len(old - named)

    def _read(self) -> dict[str, float]:
        return dict(self._state.get(_KEY).get(_LIST, {}))

    def _write(self, kept: dict[str, float]) -> None:
        self._state.put(_KEY, {_LIST: kept})


def sent_along(session: Session) -> set[str]:
    """Names of the pictures and masks of challenges that have not ended."""
    return _named(session, ChallengeRow.state.in_([state.value for state in OPEN_STATES]))


def _owed(session: Session, since: float) -> set[str]:
    """The same of challenges that were not taken, and may be asked again."""
    return _named(session, ChallengeRow.state == ChallengeState.UNTAKEN.value, ChallengeRow.created_at >= since)


def _named(session: Session, *which: ColumnElement[bool]) -> set[str]:
    source, mask = (ChallengeRow.parameters[name].as_string() for name in ("source_sha256", "mask_sha256"))
    rows = session.execute(select(source, mask).where(*which, source.is_not(None))).tuples()
    return {name for row in rows for name in row if name}
