"""Deliveries on their way to the disk: the bytes first, then many rows in one transaction, and only then an answer.

Committing each delivery by itself would make the disk's slowest operation the limit; here those that arrive while one
group is being written make up the next one.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import bindparam, select, tuple_, update
from sqlalchemy.orm import Session

from gas.storage.blobs import BlobStore
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, MediumRow
from gas.validator.prints import Proof
from gas.validator.tasks import ChallengeState, already_delivered, delivery_refusal, unknown_task

__all__ = ["Spool", "Spooled", "sync_log"]

_GROUP: Final = 256
_WRITERS: Final = 8


@dataclass(frozen=True, slots=True)
class Spooled:
    """A delivery whose bytes are in the blob store.

    Attributes:
        miner: Hotkey that signed it.
        task_id: Of which task.
        sha256: Name of the blob.
        delivered_at: When its last byte was here, seconds since the epoch.
        proof: The miner's signature of it.
    """

    miner: str
    task_id: str
    sha256: str
    delivered_at: float
    proof: Proof | None = None


class Spool:
    """Keeps deliveries, durably, before it returns.

    Args:
        database: Of the challenges.
        blobs: Where the bytes go.
        validator: Our hotkey.
    """

    def __init__(self, database: Database, blobs: BlobStore, validator: str) -> None:
        self._database = database
        self._blobs = blobs
        self._validator = validator
        self._writers = ThreadPoolExecutor(_WRITERS, "gas-spool")
        self._waiting: list[tuple[Spooled, asyncio.Future[None]]] = []
        self._under_way: Counter[str] = Counter()
        self._draining: asyncio.Task[None] | None = None

    async def keep(
        self,
        miner: str,
        task_id: str,
        body: bytes | Path,
        sha256: str,
        delivered_at: float,
        proof: Proof | None = None,
    ) -> None:
        """Keep one delivery; when this returns, no crash loses it.

        Args:
            miner: Hotkey that signed it.
            task_id: The task.
            body: The bytes, or a file of them, which stays.
            sha256: Their hex SHA-256.
            delivered_at: When the last of them was here.
            proof: The miner's signature of them.

        Raises:
            RequestRefused: 404 ``unknown_task``, 409 ``already_delivered``, 410 ``too_late``; nothing is kept then.
            gas.errors.StorageError: It could not be kept.
        """
        loop = asyncio.get_running_loop()
        self._under_way[sha256] += 1
        try:
            await loop.run_in_executor(self._writers, self._put, body, sha256)
            done: asyncio.Future[None] = loop.create_future()
            self._waiting.append((Spooled(miner, task_id, sha256, delivered_at, proof), done))
            if self._draining is None:
                self._draining = loop.create_task(self._drain())
            await done
        finally:
            self._under_way[sha256] -= 1
            if not self._under_way[sha256]:
                del self._under_way[sha256]

    def close(self) -> None:
        """Free the threads."""
        self._writers.shutdown(wait=True)

    def _put(self, body: bytes | Path, sha256: str) -> None:
        if isinstance(body, bytes):
            # The door has hashed these very bytes to prove the signature.
            self._blobs.put(body, name=sha256)
        else:
            self._blobs.put_file(body)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
                alone = {sha256 for sha256, count in self._under_way.items() if count == 1}
                commit = loop.run_in_executor(self._writers, self._commit, [spooled for spooled, _ in group], alone)
                # Each of those that wait must hear of a failure, whatever it is.
                (result,) = await asyncio.gather(commit, return_exceptions=True)
                refusals = [result] * len(group) if isinstance(result, BaseException) else result
                for (_, done), refusal in zip(group, refusals, strict=True):
                    if done.done():
                        continue
                    if refusal is None:
                        done.set_result(None)
                    else:
                        done.set_exception(refusal)
        finally:
            self._draining = None

    def _commit(self, group: Sequence[Spooled], alone: set[str]) -> list[BaseException | None]:
        refusals = self._database.transact(lambda session: self._claim(session, group, alone))
        sync_log(self._database)
        return refusals

    def _claim(self, session: Session, group: Sequence[Spooled], alone: set[str]) -> list[BaseException | None]:
        keys = [(self._validator, one.miner, one.task_id) for one in group]
        key = tuple_(ChallengeRow.validator, ChallengeRow.miner, ChallengeRow.task_id)
        query = select(ChallengeRow.miner, ChallengeRow.task_id, ChallengeRow.state, ChallengeRow.deadline)
        found = {(row.miner, row.task_id): row for row in session.execute(query.where(key.in_(keys)))}
        refusals: list[BaseException | None] = []
        taken: dict[tuple[str, str], Spooled] = {}
        for one in group:
            row = found.get((one.miner, one.task_id))
            refusal = delivery_refusal(row.state, row.deadline, one.delivered_at) if row is not None else unknown_task()
            if refusal is None and (one.miner, one.task_id) in taken:
                refusal = already_delivered()
            refusals.append(refusal)
            if refusal is None:
                taken[one.miner, one.task_id] = one
        if taken:
            session.connection().execute(
                update(ChallengeRow)
                .where(
                    ChallengeRow.validator == self._validator,
                    ChallengeRow.miner == bindparam("of_miner"),
                    ChallengeRow.task_id == bindparam("of_task"),
                )
                .values(
                    state=ChallengeState.DELIVERED.value,
                    delivered_at=bindparam("at"),
                    blob_sha256=bindparam("blob"),
                    proof=bindparam("signed", type_=ChallengeRow.proof.type),
                ),
                [
                    {
                        "of_miner": one.miner,
                        "of_task": one.task_id,
                        "at": one.delivered_at,
                        "blob": one.sha256,
                        "signed": one.proof.model_dump() if one.proof is not None else None,
                    }
                    for one in taken.values()
                ],
            )
        lost = {one.sha256 for one in group} - {one.sha256 for one in taken.values()}
        for name in lost & alone:
            if not _is_named(session, name):
                self._blobs.delete(name)
        return refusals


def sync_log(database: Database) -> None:
    """Have the disk keep what was committed last.

    SQLite writes commits of the write-ahead log through to the disk only now and then. That survives a killed process
    but not a power cut, and whoever was told that its delivery is here deletes its own copy. PostgreSQL needs nothing.
    """
    path = database.engine.url.database
    if database.engine.dialect.name != "sqlite" or not path:
        return
    try:
        handle = os.open(f"{path}-wal", os.O_RDONLY)
    except FileNotFoundError:
        # Just folded into the database itself, which syncs.
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_named(session: Session, name: str) -> bool:
    rows = session.scalar(select(ChallengeRow.task_id).where(ChallengeRow.blob_sha256 == name).limit(1))
    return rows is not None or session.get(MediumRow, name) is not None
