"""The embedded ledger passes the chain's conformance suite."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chain_conformance import ChainConformance

from gas.chain.base import Chain
from gas.chain.keys import KeySigner, Signer, signer_from_seed
from gas.chain.local.chain import LocalChain
from gas.chain.local.founding import add_stake, create_ledger, create_subnet, faucet, register
from gas.chain.local.ledger import Ledger
from gas.clock import ManualClock
from gas.errors import ChainUnreachable

TAO = 10**9


def key(name: str) -> KeySigner:
    return signer_from_seed(hashlib.sha256(name.encode()).digest())


@dataclass
class LocalNetwork:
    ledger: Ledger
    clock: ManualClock
    netuid: int = 1
    commit_reveal_netuid: int = 2
    validator: Signer = field(default_factory=lambda: key("validator"))
    miner: Signer = field(default_factory=lambda: key("miner"))
    stranger: Signer = field(default_factory=lambda: key("stranger"))

    def connect(self, signer: Signer) -> Chain:
        return LocalChain(self.ledger.path, signer, self.clock, poll_seconds=0.001)

    async def advance(self, blocks: int) -> None:
        await asyncio.to_thread(self.ledger.advance, blocks)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LocalNetwork]:
    clock, root, owner = ManualClock(), key("root"), key("owner")
    with create_ledger(tmp_path / "chain.db", root=root.ss58_address, clock=clock, manual=True) as ledger:
        net = LocalNetwork(ledger, clock)
        for signer in (net.validator, net.miner, net.stranger):
            faucet(ledger, root, signer.ss58_address, 1000 * TAO)
        for netuid, more in ((1, {}), (2, {"commit_reveal": True})):
            create_subnet(
                ledger,
                root,
                netuid,
                owner=owner.ss58_address,
                owner_hotkey=owner.ss58_address,
                hyperparameters={"tempo": 10, "weights_rate_limit": 3, "weights_version": 2, **more},
            )
            register(ledger, net.validator, net.validator, netuid)
            register(ledger, net.miner, net.miner, netuid)
            add_stake(ledger, net.validator, net.validator.ss58_address, netuid, 400 * TAO)
        ledger.advance(10)
        # One permit only, so that pay which is staked doesn't make others validators while the suite runs.
        for netuid in (1, 2):
            ledger.call(owner, "set_hyperparameters", {"netuid": netuid, "changes": {"max_allowed_validators": 1}})
        yield net


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
