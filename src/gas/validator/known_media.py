"""What the index of copies knows of the media in the database, also of those that other workers have added."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from gas.errors import IntegrityError, StorageError
from gas.storage.database import Database
from gas.storage.tables import MediumRow
from gas.verification.duplicates import MediaIndex, Seen

__all__ = ["CaughtUp", "KnownMedia"]

_PAGE: Final = 500
_OVERLAP: Final = 600.0
_SKEW: Final = 30.0
_MOST_KNOWN: Final = 20_000
_CURSOR: Final = "cursor.json"
_COLUMNS: Final = (
    MediumRow.sha256, MediumRow.facts, MediumRow.phash, MediumRow.modality, MediumRow.verified_at,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Media of the database that the index knows now: taken in, and those whose facts can't be read."""

    taken: int
    unreadable: int


class KnownMedia:
    """Keeps an index of copies in step with the database.

    Args:
        database: The truth.
        index: Of copies.
        folder: Where the index is; None when it is in memory only.
    """

    def __init__(self, database: Database, index: MediaIndex, folder: Path | None = None) -> None:
        self._database = database
        self._index = index
        self._cursor_file = None if folder is None else folder / _CURSOR
        self._cursor = 0.0
        self._known: dict[str, float] = {}
        # Several threads judge, and note what they have accepted.
        self._lock = threading.Lock()

    def catch_up(self, *, anew: bool = False) -> CaughtUp:
        """Take media that are in the database into the index; all of them when the index is empty or ``anew``.

        To be called once at the start: the index may have been lost, or is of an older state than the database.

        Raises:
            gas.errors.StorageError: The index can't be written, or the database does not answer.
        """
        if not self._cursor and self._cursor_file is not None and len(self._index) and not anew:
            self._cursor = _read_cursor(self._cursor_file)
        taken = unreadable = 0
        at, last = (self._cursor - _OVERLAP if not anew else -1.0), ""
        while True:
            with self._database.read() as session:
                rows = session.execute(
                    select(
                        MediumRow.sha256, MediumRow.facts, MediumRow.phash, MediumRow.modality, MediumRow.verified_at
                    )
                    .where(or_(MediumRow.verified_at > at, (MediumRow.verified_at == at) & (MediumRow.sha256 > last)))
                    .order_by(MediumRow.verified_at, MediumRow.sha256)
                    .limit(_PAGE)
                ).all()
            media = []
            for row in rows:
                if row.sha256 in self._known:
                    continue
                try:
                    media.append(Seen.from_facts(row.sha256, row.facts or _old_facts(row)))
                except IntegrityError:
                    unreadable += 1
                with self._lock:
                    self._known[row.sha256] = row.verified_at
            self._index.add_all(media)
            taken += len(media)
            if rows:
                at, last = rows[-1].verified_at, rows[-1].sha256
                with self._lock:
                    self._cursor = max(self._cursor, at)
            if len(rows) < _PAGE:
                break
        with self._lock:
            self._forget()
        if self._cursor_file is not None and taken:
            _write_cursor(self._cursor_file, self._cursor)
        return CaughtUp(taken, unreadable)

    def remember(self, name: str, at: float) -> None:
        """Note a medium that is in the index and in the database."""
        with self._lock:
            self._known[name] = at
            self._cursor = max(self._cursor, at)
            if len(self._known) > _MOST_KNOWN:
                self._forget()

    def _forget(self) -> None:
        self._known = {name: when for name, when in self._known.items() if when >= self._cursor - _OVERLAP}

    def behind(self, session: Session) -> bool:
        """Whether there are media that somebody else has added since the last look."""
        newer = session.scalars(select(MediumRow.sha256).where(MediumRow.verified_at > self._cursor - _SKEW))
        return any(name not in self._known for name in newer)


def _old_facts(row: Any) -> dict[str, Any]:
    """What media of versions that kept no facts are known by; raises IntegrityError when that is nothing."""
    if not row.phash or len(row.phash) != 64:
        raise IntegrityError(f"Nothing is kept of the medium {row.sha256[:16]} to know its copies by.")
    return {"phash": row.phash, "modality": row.modality}


def _read_cursor(path: Path) -> float:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))["verified_at"]
    except (OSError, ValueError, KeyError, TypeError):
        # Without it everything is looked at once more, which changes nothing.
        return 0.0
    return float(value) if isinstance(value, int | float) else 0.0


def _write_cursor(path: Path, verified_at: float) -> None:
    part = path.with_suffix(".part")
    try:
        part.write_text(json.dumps({"verified_at": verified_at}), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise StorageError(f"The index of copies can't be written ({error.strerror}).") from error
