"""The embedded ledger behind the chain's seam."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from gas.chain.base import Axon, Commitment, Hyperparameters, Metagraph
from gas.chain.keys import Signer
from gas.chain.local import views
from gas.chain.local.calls import JsonValue
from gas.chain.local.ledger import Ledger
from gas.clock import Clock
from gas.errors import ChainUnreachable
from gas.types import Hotkey, Rao

__all__ = ["LocalChain"]

_STALL_SECONDS: Final = 120.0


class LocalChain:
    """One key's view of a local ledger; implements :class:`gas.chain.base.Chain`.

    SQLite runs in a worker thread, so that the event loop never waits for the disk.

    Args:
        path: The ledger's file.
        signer: The hotkey that signs.
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
        signer: Signer,
        clock: Clock,
        *,
        coldkey: Signer | None = None,
        poll_seconds: float | None = None,
    ) -> None:
        self.ledger = Ledger(path, clock)
        self.signer = signer
        self._coldkey = coldkey or signer
        self._clock = clock
        self._poll = min(1.0, self.ledger.block_seconds / 4) if poll_seconds is None else poll_seconds

    async def block(self) -> int:
        """Number of the newest block, with every epoch up to it run."""
        return await asyncio.to_thread(self.ledger.block)

    async def blocks(self) -> AsyncIterator[int]:
        """The newest block, and every one that comes after.

        Raises:
            ChainUnreachable: No new block for 120 s (or ten blocks, if that is longer). A manual ledger may stand
                still as long as it likes.
        """
        stall = max(_STALL_SECONDS, 10 * self.ledger.block_seconds)
        seen, since = -1, self._clock.monotonic()
        while True:
            block = await self.block()
            if block > seen:
                for number in range(seen + 1 if seen >= 0 else block, block + 1):
                    yield number
                seen, since = block, self._clock.monotonic()
            elif not self.ledger.manual and self._clock.monotonic() - since > stall:
                raise ChainUnreachable(f"No new block for {stall:.0f} s.", hint="Check the clock and the disk.")
            await asyncio.sleep(self._poll)

    async def metagraph(self, netuid: int) -> Metagraph:
        """Snapshot of a subnet in the newest block."""

        def work() -> Metagraph:
            self.ledger.block()
            with self.ledger.read() as tx:
                return views.metagraph(tx, netuid)

        return await asyncio.to_thread(work)

    async def hyperparameters(self, netuid: int) -> Hyperparameters:
        """Rules of a subnet."""

        def work() -> Hyperparameters:
            with self.ledger.read() as tx:
                return tx.subnet(netuid).hyperparameters

        return await asyncio.to_thread(work)

    async def register(self, netuid: int) -> int:
        """Take a slot for the hotkey by burning the price from the coldkey's account; returns the uid."""
        params: dict[str, JsonValue] = {"netuid": netuid, "hotkey": self.signer.ss58_address}
        uid = await asyncio.to_thread(self.ledger.call, self._coldkey, "register", params, cosigner=self.signer)
        return int(uid or 0)

    async def add_stake(self, netuid: int, amount: int) -> None:
        """Stake the coldkey's rao to the hotkey."""
        params: dict[str, JsonValue] = {"netuid": netuid, "hotkey": self.signer.ss58_address, "amount": amount}
        await asyncio.to_thread(self.ledger.call, self._coldkey, "add_stake", params)

    async def remove_stake(self, netuid: int, amount: int) -> None:
        """Take staked rao back to the coldkey's account."""
        params: dict[str, JsonValue] = {"netuid": netuid, "hotkey": self.signer.ss58_address, "amount": amount}
        await asyncio.to_thread(self.ledger.call, self._coldkey, "remove_stake", params)

    async def balance(self) -> Rao:
        """Free rao on the coldkey's account."""

        def work() -> Rao:
            with self.ledger.read() as tx:
                return tx.balance(self._coldkey.ss58_address)

        return await asyncio.to_thread(work)

    async def serve_axon(self, netuid: int, axon: Axon) -> None:
        """Publish where the hotkey listens."""
        params: dict[str, JsonValue] = {"netuid": netuid, "ip": axon.ip, "port": axon.port, "protocol": axon.protocol}
        await asyncio.to_thread(self.ledger.call, self.signer, "serve_axon", params)

    async def set_weights(self, netuid: int, uids: Sequence[int], weights: Sequence[int], version_key: int = 0) -> None:
        """Set the hotkey's weights; refusals as in :class:`gas.chain.base.Chain`."""
        params: dict[str, JsonValue] = {
            "netuid": netuid,
            "uids": list(uids),
            "weights": list(weights),
            "version_key": version_key,
        }
        await asyncio.to_thread(self.ledger.call, self.signer, "set_weights", params)

    async def commit_weights(self, netuid: int, commit_hash: bytes) -> None:
        """Commit to the hash of weights; :func:`gas.chain.weights.weights_hash` makes it."""
        params: dict[str, JsonValue] = {"netuid": netuid, "hash": commit_hash.hex()}
        await asyncio.to_thread(self.ledger.call, self.signer, "commit_weights", params)

    async def reveal_weights(
        self, netuid: int, uids: Sequence[int], weights: Sequence[int], salt: Sequence[int], version_key: int = 0
    ) -> None:
        """Reveal weights in exactly the epoch that is one period after their commit."""
        params: dict[str, JsonValue] = {
            "netuid": netuid,
            "uids": list(uids),
            "weights": list(weights),
            "salt": list(salt),
            "version_key": version_key,
        }
        await asyncio.to_thread(self.ledger.call, self.signer, "reveal_weights", params)

    async def set_commitment(self, netuid: int, data: str) -> None:
        """Publish up to 128 bytes of UTF-8 text under the hotkey, in place of the text before."""
        params: dict[str, JsonValue] = {"netuid": netuid, "data": data}
        await asyncio.to_thread(self.ledger.call, self.signer, "set_commitment", params)

    async def get_commitment(self, netuid: int, hotkey: str) -> Commitment | None:
        """A hotkey's published text and the block of its publication."""

        def work() -> Commitment | None:
            with self.ledger.read() as tx:
                return views.commitment(tx, netuid, hotkey)

        return await asyncio.to_thread(work)

    async def emissions(self, netuid: int, since_epoch: int = 0) -> dict[Hotkey, views.Pay]:
        """What each hotkey has been paid in the epochs from ``since_epoch`` on (the first epoch is 1), in rao."""

        def work() -> dict[Hotkey, views.Pay]:
            self.ledger.block()
            with self.ledger.read() as tx:
                return views.emissions(tx, netuid, since_epoch)

        return await asyncio.to_thread(work)

    async def close(self) -> None:
        """Close the file."""
        await asyncio.to_thread(self.ledger.close)
