"""A served ledger behind the chain's seam."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from gas.chain.base import Commitment, Hyperparameters, Metagraph
from gas.chain.keys import Signer
from gas.chain.local.calls import JsonValue, SignedCall, sign_call
from gas.chain.local.interface import STALL_SECONDS, LedgerChain
from gas.chain.local.views import Pay, Standing
from gas.chain.served import wire
from gas.chain.served.link import ConnectionLost, Link
from gas.clock import Clock
from gas.errors import ChainRefused, ChainUnreachable
from gas.types import Hotkey, Rao

__all__ = ["ServedChain"]

T = TypeVar("T")

_NONCE_ATTEMPTS: Final = 50
_PATIENCE: Final = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts to reach a server that was there a moment ago, e.g. while it restarts."""
_FINAL: Final = frozenset({"another_chain", "version", "bad_answer", "disk_full", "disk_error"})
"""Failures that waiting for some seconds doesn't mend."""


class ServedChain(LedgerChain):
    """One key's view of a ledger that ``gascli chain start`` serves; implements :class:`gas.chain.base.Chain`.

    One connection, opened at the first use and again when it is lost. A call whose answer was lost is sent again as it
    was signed, so it is included once, whatever the network does.

    Args:
        endpoint: ``ws://host:port``.
        signer: The hotkey that signs; None for one who only looks. Keys never leave this process.
        clock: What the watchdog of :meth:`blocks` goes by.
        coldkey: Pays for registration and stake; without one, the hotkey is its own coldkey.
    """

    def __init__(self, endpoint: str, signer: Signer | None, clock: Clock, *, coldkey: Signer | None = None) -> None:
        super().__init__(signer, coldkey)
        self._link = Link(endpoint)
        self._clock = clock

    async def block(self) -> int:
        """Number of the newest block, with every epoch up to it run."""
        return wire.number_from_json(await self._ask("gas.block"))

    async def blocks(self) -> AsyncIterator[int]:
        """The newest block, and every one that comes after; raises as :meth:`LedgerChain.blocks` says.

        A connection that is lost is opened again, and no block is left out; a server that stays away counts as a
        stall.
        """
        seen, since = -1, self._clock.monotonic()
        stall, failures = STALL_SECONDS, 0
        while True:
            try:
                info = await self._link.info()
                stall = max(STALL_SECONDS, 10 * info.block_seconds)
                head = await self._link.head_after(seen, min(1.0, info.block_seconds))
                failures = 0
            except ChainUnreachable as error:
                if error.error_code in _FINAL or self._clock.monotonic() - since > stall:
                    raise
                await asyncio.sleep(_PATIENCE[min(failures, len(_PATIENCE) - 1)])
                failures += 1
                continue
            if head is not None:
                for number in range(seen + 1 if seen >= 0 else head, head + 1):
                    yield number
                seen, since = head, self._clock.monotonic()
            elif self._clock.monotonic() - since > stall:
                if not (await self._ask("gas.info"))["manual"]:
                    raise ChainUnreachable(f"No new block for {stall:.0f} s.", hint="Check the chain's server.")
                since = self._clock.monotonic()

    async def metagraph(self, netuid: int) -> Metagraph:
        """Snapshot of a subnet in the newest block."""
        return wire.metagraph_from_json(await self._ask("gas.metagraph", netuid=netuid))

    async def hyperparameters(self, netuid: int) -> Hyperparameters:
        """Rules of a subnet."""
        return wire.hyperparameters_from_json(await self._ask("gas.hyperparameters", netuid=netuid))

    async def get_commitment(self, netuid: int, hotkey: str) -> Commitment | None:
        """A hotkey's published text and the block of its publication."""
        return wire.commitment_from_json(await self._ask("gas.commitment", netuid=netuid, hotkey=hotkey))

    async def balance_of(self, address: str) -> Rao:
        """Free rao on an account; 0 for one that nobody has seen."""
        return Rao(wire.number_from_json(await self._ask("gas.balance", address=address)))

    async def emissions(self, netuid: int, since_epoch: int = 0) -> dict[Hotkey, Pay]:
        """What each hotkey has been paid in the epochs from ``since_epoch`` on (the first epoch is 1), in rao."""
        return wire.emissions_from_json(await self._ask("gas.emissions", netuid=netuid, since_epoch=since_epoch))

    async def standing(self, netuid: int) -> Standing:
        """Where the ledger and a subnet stand: block, epochs, price of a slot, money."""
        return wire.standing_from_json(await self._ask("gas.standing", netuid=netuid))

    async def weights_in_force(self, netuid: int) -> dict[int, dict[int, int]]:
        """Uid of the validator -> uid of the miner -> u16, max-upscaled; validators without weights left out."""
        return wire.weights_from_json(await self._ask("gas.weights", netuid=netuid))

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    async def _ask(self, method: str, **params: JsonValue) -> Any:
        """Ask until there is an answer; only for methods that change nothing, or nothing twice."""
        return await self._patiently(lambda: self._link.request(method, params))

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Try again while a server that was there before is away, for some seconds."""
        for pause in _PATIENCE:
            try:
                return await ask()
            except ChainUnreachable as error:
                if not self._link.was_open or error.error_code in _FINAL:
                    raise
                await asyncio.sleep(pause)
        return await ask()

    async def _call(
        self, signer: Signer, kind: str, params: Mapping[str, JsonValue], *, cosigner: Signer | None = None
    ) -> int | None:
        for _ in range(_NONCE_ATTEMPTS):
            chain_id = (await self._patiently(self._link.info)).chain_id
            nonce = wire.number_from_json(await self._ask("gas.nonce", address=signer.ss58_address))
            call = sign_call(chain_id, kind, params, signer=signer, nonce=nonce, cosigner=cosigner)
            try:
                return await self._submit(call)
            except ChainRefused as error:
                # Another process that uses the same key took the turn; then the call is signed again.
                if error.error_code != "bad_nonce":
                    raise
        raise ChainUnreachable("Others keep using this key; the call found no turn.")

    async def _submit(self, call: SignedCall) -> int | None:
        """Send a signed call until it is known to be included, or refused.

        Raises:
            ChainRefused: ``bad_nonce``: another call took its turn, and it is not included.
            ConnectionLost: Nobody answers any more; it may be included or not.
        """
        body, lost = wire.call_to_json(call), False
        for pause in (*_PATIENCE, None):
            try:
                result = await self._link.request("gas.submit", body)
                return None if result is None else wire.number_from_json(result)
            except ChainRefused as error:
                if error.error_code == "bad_nonce" and lost and await self._is_included(call):
                    return None
                raise
            except ChainUnreachable as error:
                lost = lost or isinstance(error, ConnectionLost)
                if not lost or error.error_code in _FINAL:
                    raise
                if pause is None:
                    raise ConnectionLost(
                        "The chain went away before it answered; the call may be included or not.",
                        hint="Look before you repeat it.",
                    ) from error
                await asyncio.sleep(pause)
        raise ChainUnreachable("The connection to the chain keeps breaking.")

    async def _is_included(self, call: SignedCall) -> bool:
        found = wire.included_from_json(await self._ask("gas.included", signer=call.signer, nonce=call.nonce))
        return found is not None and found.signature == call.signature
