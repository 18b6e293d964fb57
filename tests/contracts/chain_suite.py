"""What the parts of the chain's conformance suite share: what a network has to offer, and how a scenario is played."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from gas.chain.base import Chain
from gas.chain.keys import Signer

__all__ = ["ChainSuite", "Network", "Scenario", "run"]


class Network(Protocol):
    """A network with a subnet that the suite may use up.

    Its hyperparameters: tempo 10, weights_rate_limit 3, weights_version 2, and everything else by default.
    ``validator`` is registered, holds by far the largest stake and a permit; ``miner`` is registered without stake;
    ``stranger`` isn't registered but can pay for it.

    A network may also have ``full_netuid: int``, a subnet of three slots that the owner, the validator and the miner
    take, the miner being the next to be replaced; without it that one test has nothing to do.
    """

    netuid: int
    commit_reveal_netuid: int
    validator: Signer
    miner: Signer
    stranger: Signer

    def connect(self, signer: Signer) -> Chain:
        """A connection that signs with this hotkey; the suite closes it."""
        ...

    async def advance(self, blocks: int) -> None:
        """Wait, or make time pass, until that many more blocks are there."""
        ...


Scenario = Callable[[Any], Awaitable[None]]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


class ChainSuite:
    """A part of the suite; a test module's subclass of all of it provides the ``network`` fixture."""

    def _as(self, network: Network, signer: Signer, scenario: Scenario) -> None:
        async def work() -> None:
            chain = network.connect(signer)
            try:
                await scenario(chain)
            finally:
                await chain.close()

        run(work())
