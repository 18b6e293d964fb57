"""Fixtures of the control plane's tests: the real application, signed requests, a stand-in metagraph."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gas.arena.ports import ArenaConfig
from gas.chain.base import Metagraph, Neuron
from gas.chain.keys import KeySigner, signer_from_seed
from gas.clock import ManualClock, RandomIds
from gas.errors import ChainUnreachable
from gas.protocol.client import SignedClient
from gas.protocol.epistula import ReplayGuard
from gas.protocol.server import EpistulaGate, MetagraphCache
from gas.types import Rao
from gas.web.api import ApiDependencies, create_app

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "arena"))

from arena_fakes import SIGNER, Arena

ALICE = signer_from_seed(b"\x01" * 32)
BOB = signer_from_seed(b"\x02" * 32)
STRANGER = signer_from_seed(b"\x03" * 32)


class _Registered:
    """A chain on which Alice and Bob are registered."""

    down = False

    async def metagraph(self, netuid: int) -> Metagraph:
        if self.down:
            raise ChainUnreachable("No answer.")
        neurons = tuple(
            Neuron(uid, key.ss58_address, key.ss58_address, Rao(0), False, None, 0, 0, 0, 0, 0, 0, Rao(0), True)
            for uid, key in enumerate([ALICE, BOB])
        )
        return Metagraph(netuid, 1, 0, neurons)


@dataclass
class Site:
    """A running control plane."""

    arena: Arena
    http: httpx.AsyncClient
    chain: _Registered
    clock: ManualClock

    def client(self, signer: KeySigner) -> SignedClient:
        return SignedClient(signer, self.http, self.clock, RandomIds())

    async def push(self, signer: KeySigner, content: bytes, **fields: str) -> dict[str, object]:
        answer = await self.client(signer).post_multipart(
            "http://arena/api/v1/submissions",
            {"modality": "image", **fields},
            {"zip": ("model.zip", content, "application/zip")},
            signed_for=SIGNER.ss58_address,
        )
        found = answer.json()
        assert isinstance(found, dict)
        return {"status": answer.status, **found}

    def files_left(self) -> list[Path]:
        roots = (self.arena.home / "incoming", self.arena.home / "blobs")
        return [path for root in roots if root.exists() for path in root.rglob("*") if path.is_file()]


@pytest.fixture
def open_site(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Site]]:
    @asynccontextmanager
    async def open_site(worker_lease_seconds: float | None = None, **rules: int) -> AsyncIterator[Site]:
        clock, chain = ManualClock(), _Registered()
        arena = Arena(tmp_path, clock, config=ArenaConfig(**rules))
        metagraph = MetagraphCache(chain, 1, clock)  # type: ignore[arg-type]
        gate = EpistulaGate(SIGNER.ss58_address, metagraph, clock, ReplayGuard())
        deps = ApiDependencies(
            arena.database,
            arena.submissions,
            gate,
            metagraph,
            clock,
            RandomIds(),
            tmp_path / "incoming",
            worker_lease_seconds,
        )
        transport = httpx.ASGITransport(app=create_app(deps))
        async with httpx.AsyncClient(transport=transport, base_url="http://arena") as http:
            yield Site(arena, http, chain, clock)
        arena.close()

    return open_site
