"""A validator's webhook without a network: tasks of two miners, and signed requests to it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
from rounds_ground import Ground, Miner, key, neuron

from gas.chain.base import Metagraph
from gas.errors import StorageError
from gas.protocol.epistula import ReplayGuard, sign_request
from gas.protocol.server import EpistulaGate, MetagraphCache
from gas.storage.blobs import FolderBlobs
from gas.storage.tables import ChallengeRow
from gas.validator.doors import Doors
from gas.validator.hindrance import Hindrance, Space
from gas.validator.offences import Offences
from gas.validator.receiving import CALLBACK_PATH, ReceivingCounts, create_spool_app

__all__ = ["MINERS", "FullDisk", "OnChain", "Webhook", "code"]

MINERS = ("one", "two")


class OnChain:
    """Who is registered."""

    def __init__(self, *names: str) -> None:
        self.names = names

    async def metagraph(self, _netuid: int) -> Metagraph:
        return Metagraph(1, 1, 0, tuple(neuron(uid, key(name).ss58_address) for uid, name in enumerate(self.names)))


class FullDisk(FolderBlobs):
    """Keeps nothing while it is full."""

    full = False

    def put(self, data: bytes, *, name: str | None = None) -> str:
        if self.full:
            raise StorageError("The blob could not be stored (No space left on device).")
        return super().put(data, name=name)


class Webhook:
    """The webhook of a validator with a task ``t0`` to ``t9`` of each miner."""

    def __init__(self, folder: Path) -> None:
        self.ground = Ground(folder, *(Miner(name, uid) for uid, name in enumerate(MINERS, 1)))
        self.clock, self.challenges = self.ground.clock, self.ground.challenges
        self.folder, self.blobs = folder, FullDisk(folder / "blobs")
        self.counts = ReceivingCounts()
        self.chain = OnChain("vali", *MINERS)
        with self.ground.database.write() as session:
            session.add_all(self.task(name, f"t{number}") for name in MINERS for number in range(10))
        self.start()

    def task(self, name: str, task_id: str) -> ChallengeRow:
        now = self.clock.now
        return ChallengeRow(
            validator=self.ground.validator, miner=key(name).ss58_address, task_id=task_id, modality="image",
            prompt="p", parameters={}, state="accepted", created_at=now, deadline=now + 100.0, reasons=[],
        )  # fmt: skip

    def start(self) -> None:
        """As a new process would, from the database alone."""
        cache = MetagraphCache(self.chain, 1, self.clock)  # type: ignore[arg-type]
        gate = EpistulaGate(self.ground.validator, cache, self.clock, ReplayGuard())
        doors = self.doors = Doors(self.challenges, self.clock, uploads=4)
        self.hindrance = Hindrance(self.challenges, Space(self.folder, 0, self.clock), self.clock)
        self.offences = Offences(self.ground.database, self.ground.validator, self.clock, max_bytes=3 << 20)
        app = create_spool_app(
            self.challenges, doors, self.blobs, gate, self.clock,
            folder=self.folder / "incoming", max_bytes=3 << 20, counts=self.counts, offences=self.offences,
            hindrance=self.hindrance,
        )  # fmt: skip
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vali")

    def open_doors(self) -> None:
        """Tell the doors of every open task, as the service does."""
        for (miner, task), deadline in self.challenges.open_tasks().items():
            self.doors.opened(miner, task, deadline)

    async def send(
        self, name: str, task: str, body: bytes | AsyncIterator[bytes], *, signed: bytes | None = None, **headers: str
    ) -> httpx.Response:
        proof = signed if signed is not None else body
        assert isinstance(proof, bytes)
        return await self.http.post(
            CALLBACK_PATH, content=body, headers={**self.signature(name, proof), "task-id": task, **headers}
        )

    def signature(self, name: str, body: bytes) -> Mapping[str, str]:
        now = int(self.clock.now * 1000)
        return sign_request(key(name), body, signed_for=self.ground.validator, now_ms=now, uuid=str(uuid.uuid4()))

    def row(self, name: str, task: str) -> ChallengeRow:
        with self.ground.database.read() as session:
            return session.get_one(ChallengeRow, (self.ground.validator, key(name).ss58_address, task))


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("error", {}).get("code", "")
