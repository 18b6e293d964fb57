"""The embedded ledger behind the chain's seam."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from gas.chain.base import Commitment, Hyperparameters, Metagraph
from gas.chain.keys import Signer
from gas.chain.local import views
from gas.chain.local.calls import JsonValue
from gas.chain.local.interface import STALL_SECONDS, LedgerChain
from gas.chain.local.ledger import Ledger
from gas.chain.local.state import Transaction
from gas.clock import Clock
from gas.errors import ChainUnreachable
from gas.types import Hotkey, Rao

__all__ = ["LocalChain"]

T = TypeVar("T")


class LocalChain(LedgerChain):
    """One key's view of a ledger in a file on this machine; implements :class:`gas.chain.base.Chain`.

    SQLite runs in a worker thread, so that the event loop never waits for the disk.

    Args:
        path: The ledger's file.
        signer: The hotkey that signs; None for one who only looks.
        clock: Where block time comes from.
        coldkey: Pays for registration and stake; without one, the hotkey is its own coldkey.
        poll_seconds: How often :meth:`blocks` looks; None means a quarter of a block, at most a second.

    Raises:
        ConfigurationError: There is no ledger.
        ChainUnreachable: The file can't be read.
    """

    def __init__(
        self,
        path: Path,
        signer: Signer | None,
        clock: Clock,
        *,
        coldkey: Signer | None = None,
        poll_seconds: float | None = None,
    ) -> None:
        super().__init__(signer, coldkey)
        self.ledger = Ledger(path, clock)
        self._clock = clock
        self._poll = min(1.0, self.ledger.block_seconds / 4) if poll_seconds is None else poll_seconds

    async def block(self) -> int:
        """Number of the newest block, with every epoch up to it run."""
        return await asyncio.to_thread(self.ledger.block)

    async def blocks(self) -> AsyncIterator[int]:
        """The newest block, and every one that comes after; raises as :meth:`LedgerChain.blocks` says."""
        stall = max(STALL_SECONDS, 10 * self.ledger.block_seconds)
        seen, since = -1, self._clock.monotonic()
        while True:
            block = await self.block()
            if block > seen:
                for number in range(seen + 1 if seen >= 0 else block, block + 1):
                    yield number
                seen, since = block, self._clock.monotonic()
            elif self._clock.monotonic() - since > stall:
                if not await asyncio.to_thread(lambda: self.ledger.manual):
                    raise ChainUnreachable(f"No new block for {stall:.0f} s.", hint="Check the clock and the disk.")
                since = self._clock.monotonic()
            await asyncio.sleep(self._poll)

    async def metagraph(self, netuid: int) -> Metagraph:
        """Snapshot of a subnet in the newest block."""
        return await self._look(lambda tx: views.metagraph(tx, netuid))

    async def hyperparameters(self, netuid: int) -> Hyperparameters:
        """Rules of a subnet."""
        return await self._look(lambda tx: tx.subnet(netuid).hyperparameters)

    async def balance_of(self, address: str) -> Rao:
        """Free rao on an account; 0 for one that nobody has seen."""
        return await self._look(lambda tx: tx.balance(address))

    async def get_commitment(self, netuid: int, hotkey: str) -> Commitment | None:
        """A hotkey's published text and the block of its publication."""
        return await self._look(lambda tx: views.commitment(tx, netuid, hotkey))

    async def emissions(self, netuid: int, since_epoch: int = 0) -> dict[Hotkey, views.Pay]:
        """What each hotkey has been paid in the epochs from ``since_epoch`` on (the first epoch is 1), in rao."""
        return await self._look(lambda tx: views.emissions(tx, netuid, since_epoch))

    async def standing(self, netuid: int) -> views.Standing:
        """Where the ledger and a subnet stand: block, epochs, price of a slot, money."""
        return await self._look(lambda tx: views.standing(tx, netuid))

    async def weights_in_force(self, netuid: int) -> dict[int, dict[int, int]]:
        """Uid of the validator -> uid of the miner -> u16, max-upscaled; validators without weights left out."""
        return await self._look(lambda tx: views.stored_weights(tx, netuid))

    async def close(self) -> None:
        """Close the file."""
        await asyncio.to_thread(self.ledger.close)

    async def _call(
        self, signer: Signer, kind: str, params: Mapping[str, JsonValue], *, cosigner: Signer | None = None
    ) -> int | None:
        return await asyncio.to_thread(self.ledger.call, signer, kind, params, cosigner=cosigner)

    async def _look(self, view: Callable[[Transaction], T]) -> T:
        def work() -> T:
            self.ledger.block()
            with self.ledger.read() as tx:
                return view(tx)

        return await asyncio.to_thread(work)
