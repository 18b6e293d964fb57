"""What tests of the validator's own state share: deliveries in the queue, a verifier, and kills at any write."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

from gas.storage.blobs import FolderBlobs
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow
from gas.verification.duplicates import MediaIndex
from gas.verification.pipeline import Verifier

__all__ = ["NOW", "Deadly", "Killed", "PlainVerifier", "deliver", "picture"]

NOW = 2_000_000.0


class Killed(BaseException):
    """kill -9."""


class Deadly(Database):
    """Dies at one of its write transactions, before or after the commit."""

    def __init__(self, database: Database, at: int, after: bool) -> None:
        super().__init__(database.engine)
        self.left, self.after = at, after

    @contextmanager
    def write(self):
        self.left -= 1
        dies = self.left == 0
        with super().write() as session:
            yield session
            if dies and not self.after:
                session.flush()
                raise Killed
        if dies:
            raise Killed


def picture(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return np.kron(small, np.ones((16, 16, 1), dtype=np.uint8))


def deliver(
    database: Database, blobs: FolderBlobs, miner: str, task: str, data: bytes, at: float, *, uid=None, proof=None,
    validator="v",
) -> str:  # fmt: skip
    name = blobs.put(data)
    with database.write() as session:
        session.add(
            ChallengeRow(
                validator=validator, miner=miner, task_id=task, modality="image", prompt="a lake", parameters={},
                state="delivered", created_at=at - 10, deadline=at + 1000, delivered_at=at, reasons=[],
                blob_sha256=name, uid=uid, proof=proof,
            )
        )  # fmt: skip
    return name


class PlainVerifier:
    """Stands in for nothing: the real verifier without the credentials, so that no picture has to be signed."""

    def __new__(cls, index: MediaIndex) -> Verifier:
        verifier = Verifier(index, b"", guarded=False)
        verifier.steps = tuple(step for step in verifier.steps if step.name != "provenance")
        return verifier
