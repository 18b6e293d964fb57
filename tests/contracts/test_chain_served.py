"""The served ledger passes the chain's conformance suite."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from chain_conformance import ChainConformance
from ledger_network import LedgerNetwork, found_network

from gas.chain.base import Chain
from gas.chain.connect import connect
from gas.chain.keys import Signer
from gas.chain.served.client import ServedChain
from gas.chain.served.server import LedgerServer
from gas.clock import ManualClock


@dataclass
class ServedNetwork:
    """The suite's networks behind a server."""

    net: LedgerNetwork
    endpoint: str
    netuid: int = 1
    commit_reveal_netuid: int = 2
    full_netuid: int = 3

    def __post_init__(self) -> None:
        self.validator, self.miner, self.stranger = self.net.validator, self.net.miner, self.net.stranger

    def connect(self, signer: Signer) -> Chain:
        return ServedChain(self.endpoint, signer, self.net.clock)

    async def advance(self, blocks: int) -> None:
        """Over the wire too, signed by the root."""
        chain = ServedChain(self.endpoint, None, self.net.clock, coldkey=self.net.root)
        try:
            await chain.advance(blocks)
        finally:
            await chain.close()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[ServedNetwork]:
    with found_network(tmp_path) as net, served(net.ledger.path, net.clock) as endpoint:
        yield ServedNetwork(net, endpoint)


class served:
    """A server in a thread and loop of its own."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.path, self.clock = path, clock
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve()))

    async def serve(self) -> None:
        self.loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
        async with LedgerServer(self.path, self.clock, port=0) as server:
            self.endpoint = server.address
            self.ready.set()
            await self.stopping.wait()

    def __enter__(self) -> str:
        self.thread.start()
        assert self.ready.wait(30)
        return self.endpoint

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join()


class TestServedChain(ChainConformance):
    pass


def test_a_served_ledger_is_recognised_by_what_it_says_of_itself(network: ServedNetwork, tmp_path: Path) -> None:
    async def work() -> Chain:
        chain = await connect(network.endpoint, network.miner, network.net.clock, ledger_path=tmp_path / "no.db")
        try:
            assert await chain.block() == 10
        finally:
            await chain.close()
        return chain

    assert isinstance(asyncio.run(work()), ServedChain)
