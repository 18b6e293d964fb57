"""The embedded ledger passes the chain's conformance suite."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from chain_conformance import ChainConformance
from ledger_network import LedgerNetwork, found_network, key

from gas.chain.base import Chain
from gas.chain.keys import Signer
from gas.chain.local.chain import LocalChain
from gas.chain.local.founding import create_ledger
from gas.clock import ManualClock
from gas.errors import ChainUnreachable


class LocalNetwork(LedgerNetwork):
    def connect(self, signer: Signer) -> Chain:
        return LocalChain(self.ledger.path, signer, self.clock, poll_seconds=0.001)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LocalNetwork]:
    with found_network(tmp_path) as net:
        yield LocalNetwork(net.ledger, net.clock)


class TestLocalChain(ChainConformance):
    pass


def test_a_chain_that_stands_still_is_reported_after_two_minutes(tmp_path: Path) -> None:
    class Stopped(ManualClock):
        """Its monotonic side runs on while the time of day stands still."""

        beats = 0

        def monotonic(self) -> float:
            self.beats += 1
            return self.beats * 30.0

    clock = Stopped()
    create_ledger(tmp_path / "chain.db", root=key("root").ss58_address, clock=clock, block_seconds=1).close()

    async def watch() -> list[int]:
        chain = LocalChain(tmp_path / "chain.db", key("validator"), clock, poll_seconds=0.001)
        seen = []
        try:
            with pytest.raises(ChainUnreachable):
                async for block in chain.blocks():
                    seen.append(block)
        finally:
            await chain.close()
        return seen

    assert asyncio.run(watch()) == [0]
