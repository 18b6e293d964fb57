"""The conformance suite's networks behind a peer, for tests of the adapter."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from async_substrate_interface import AsyncSubstrateInterface
from async_substrate_interface.types import Runtime
from ledger_network import LedgerNetwork, found_network
from substrate_peer import SubstratePeer

from gas.chain.bittensor.chain import BittensorChain
from gas.chain.keys import Signer, public_key
from gas.clock import ManualClock

__all__ = ["PeerNetwork", "decode_metadata_once", "peer_network", "play"]


@dataclass
class PeerNetwork:
    """The suite's networks behind a peer."""

    net: LedgerNetwork
    peer: SubstratePeer
    clock: ManualClock = field(default_factory=ManualClock)
    netuid: int = 1
    commit_reveal_netuid: int = 2
    full_netuid: int = 3

    def __post_init__(self) -> None:
        self.validator, self.miner, self.stranger = self.net.validator, self.net.miner, self.net.stranger

    def connect(self, signer: Signer) -> BittensorChain:
        return BittensorChain(self.peer.url, signer, self.clock)

    async def advance(self, blocks: int) -> None:
        await asyncio.to_thread(self.peer.advance, blocks)

    def nonce(self, signer: Signer) -> int:
        return self.peer.chain.nonce(public_key(signer.ss58_address))


_decoded: dict[bytes, Runtime] = {}


def decode_metadata_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection fetch the metadata, but decode it, which takes the library over a second, only once."""
    decode = AsyncSubstrateInterface._get_runtime_for_version

    async def once(self: Any, version: int, block_hash: str | None = None) -> Runtime:
        asked = ["Metadata_metadata_at_version", "0x0f000000"]
        answer = await self.rpc_request("state_call", asked, block_hash=block_hash)
        digest = hashlib.sha256(f"{version}:{answer['result']}".encode()).digest()
        if digest not in _decoded:
            _decoded[digest] = await decode(self, version, block_hash)
        return _decoded[digest]

    monkeypatch.setattr(AsyncSubstrateInterface, "_get_runtime_for_version", once)


@contextmanager
def peer_network(folder: Path, **options: Any) -> Iterator[PeerNetwork]:
    """The networks, founded in a folder, behind a peer made with these options."""
    with found_network(folder) as net, SubstratePeer(net.ledger, net.keyring, net.root, **options) as peer:
        yield PeerNetwork(net, peer)
    assert peer.faults == []


def play(network: PeerNetwork, signer: Signer, scenario: Callable[[BittensorChain], Coroutine[Any, Any, None]]) -> None:
    async def work() -> None:
        chain = network.connect(signer)
        try:
            await scenario(chain)
        finally:
            await chain.close()

    asyncio.run(work())
