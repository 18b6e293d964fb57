"""New blocks as they come, over every drop of the socket, with a watchdog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from gas.chain.bittensor.node import header_number
from gas.chain.bittensor.rpc import RpcConnection, RpcError
from gas.clock import Clock
from gas.errors import ChainUnreachable

__all__ = ["STALL_SECONDS", "follow_heads"]

STALL_SECONDS: Final = 120.0
"""How long no new block may come."""

_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.25
_LONGEST_LEAP: Final = 500_000


async def follow_heads(
    rpc: RpcConnection, clock: Clock, *, retry_seconds: float = _RETRY_SECONDS
) -> AsyncIterator[int]:
    """The newest block's number, and every one that comes after, each once and in order.

    When the socket drops, or when half of the stall has passed without a block, the subscription is made anew; numbers
    that went by meanwhile are given then. A node that falls back to an earlier number repeats nothing.

    Args:
        rpc: The connection.
        clock: Measures the stall.
        retry_seconds: Pause before the first new attempt; doubles up to 15 s.

    Raises:
        ChainUnreachable: No new block for 120 s, or the connection was closed.
    """
    seen, since, pause = -1, clock.monotonic(), retry_seconds
    while True:
        try:
            async with rpc.subscribe("chain_subscribeNewHeads", unsubscribe="chain_unsubscribeNewHeads") as heads:
                # Not every node begins with the block that it has.
                number = header_number(await rpc.request("chain_getHeader"))
                began = clock.monotonic()
                while True:
                    if seen >= 0 and number > seen + _LONGEST_LEAP:
                        raise ChainUnreachable("The chain's node leaps into the future.", hint="Use another node.")
                    if number > seen:
                        for missed in range(seen + 1 if seen >= 0 else number, number + 1):
                            yield missed
                        seen, since, pause = number, clock.monotonic(), retry_seconds
                        began = since
                    try:
                        number = header_number(await heads.next(_LOOK_SECONDS))
                    except TimeoutError:
                        now = clock.monotonic()
                        if now - began > STALL_SECONDS / 2 or now - since > STALL_SECONDS:
                            break
        except (ChainUnreachable, RpcError):
            if rpc.closed:
                raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_RETRY_SECONDS)
        if clock.monotonic() - since > STALL_SECONDS:
            raise ChainUnreachable(
                f"The chain's node has shown no new block for {STALL_SECONDS:.0f} s.",
                hint="Use another node if the network itself goes on.",
            )
