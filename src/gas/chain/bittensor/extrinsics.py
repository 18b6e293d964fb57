"""One signed call, from its encoding to its outcome in a block.

A call lives for :data:`ERA_BLOCKS` blocks. When the socket drops while it waits, the same bytes are handed in again,
which a nonce allows once only, and the blocks are searched for them: no call is made twice, and none is reported as
failed that went through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from async_substrate_interface.errors import SubstrateRequestException
from scalecodec.types import GenericCall, GenericExtrinsic

from gas.chain.bittensor.node import ADDRESS_FORMAT, Head, Node, hash_text, header_number
from gas.chain.bittensor.refusals import Refusal, dispatch_error_name, is_stale, pool_error_name
from gas.chain.bittensor.rpc import RpcError, Subscription
from gas.chain.keys import Signer, public_key
from gas.errors import ChainRefused, ChainUnreachable

__all__ = ["ERA_BLOCKS", "Inclusion", "Submitter"]

ERA_BLOCKS: Final = 64
"""Blocks after which a call that is in none can't get into any."""

_SR25519: Final = 1
_ATTEMPTS: Final = 3
_NOTICE_SECONDS: Final = 30.0
_RECONNECTS: Final = 10


@dataclass(frozen=True, slots=True)
class Inclusion:
    """Where a call went through.

    Attributes:
        block: The block's number.
        block_hash: Its hash.
        events: Decoded records of the events that the call caused.
    """

    block: int
    block_hash: str
    events: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Keypair:
    """A signer in the shape that the substrate library asks for."""

    signer: Signer

    @property
    def crypto_type(self) -> int:
        return _SR25519

    @property
    def public_key(self) -> bytes:
        return public_key(self.signer.ss58_address)

    @property
    def ss58_address(self) -> str:
        return self.signer.ss58_address

    @property
    def ss58_format(self) -> int:
        return ADDRESS_FORMAT

    def sign(self, data: bytes | str) -> bytes:
        return self.signer.sign(bytes(data) if not isinstance(data, str) else bytes.fromhex(data.removeprefix("0x")))


class Submitter:
    """Composes, signs and submits calls over one node.

    Args:
        node: The node.
        poll_seconds: How often new blocks are looked for after a dropped socket.
    """

    def __init__(self, node: Node, *, poll_seconds: float = 2.0) -> None:
        self._node = node
        self._poll = poll_seconds
        self._signing = asyncio.Lock()

    async def compose(self, head: Head, pallet: str, name: str, params: Mapping[str, Any]) -> GenericCall:
        """A call in the runtime's encoding.

        Raises:
            ChainRefused: A parameter doesn't fit the call (``malformed_call``), or the runtime has no such call
                (``unknown_call``).
        """
        if not head.has_call(pallet, name):
            raise ChainRefused(f"The network's runtime has no call {pallet}.{name}.", code="unknown_call")
        try:
            return await self._node.codec.compose_call(pallet, name, dict(params))
        except (ValueError, TypeError, KeyError, OverflowError, NotImplementedError) as error:
            raise ChainRefused(f"A parameter doesn't fit the call {name}.", code="malformed_call") from error

    async def submit(self, signer: Signer, pallet: str, name: str, params: Mapping[str, Any]) -> Inclusion:
        """Sign a call, hand it in, and wait for the block that holds it.

        Returns:
            The block and the call's events; the call has succeeded. The block is not final yet: a fork may still take
            it back, as the ecosystem's tools put up with too.

        Raises:
            Refusal: The pool or the runtime refuses it, under the runtime's name.
            ChainRefused: As :meth:`compose`.
            ChainUnreachable: The node doesn't answer, or the call has expired without getting into a block.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._submit(signer, pallet, name, params)
            except Refusal as refusal:
                # Another service that signs with the same hotkey took the nonce; or the birth block is gone.
                if not is_stale(refusal.name) or attempt == _ATTEMPTS:
                    raise

    async def _submit(self, signer: Signer, pallet: str, name: str, params: Mapping[str, Any]) -> Inclusion:
        async with AsyncExitStack() as stack:
            # From the nonce to the pool, one call at a time; the pool counts what waits in it.
            async with self._signing:
                watched = await self._sign(signer, pallet, name, params)
                try:
                    subscription = await stack.enter_async_context(
                        self._node.rpc.subscribe(
                            "author_submitAndWatchExtrinsic", [watched.data], unsubscribe="author_unwatchExtrinsic"
                        )
                    )
                except RpcError as error:
                    raise _pool_refusal(error) from None
                except ChainUnreachable:
                    # Whether it arrived, nobody knows.
                    subscription = None
            try:
                block_hash = None if subscription is None else await self._watch(subscription, watched)
                if block_hash is not None:
                    return await self._outcome(block_hash, watched)
            except ChainUnreachable:
                # The block, if there is one, is found on a new socket.
                pass
        return await self._search(watched)

    async def _sign(self, signer: Signer, pallet: str, name: str, params: Mapping[str, Any]) -> _Watched:
        node = self._node
        head = await node.head()
        call = await self.compose(head, pallet, name, params)
        # A birth block that a fork may take back would make the signature void.
        finalized = header_number(
            await node.ask("chain_getHeader", hash_text(await node.ask("chain_getFinalizedHead")))
        )
        nonce = await node.ask("account_nextIndex", signer.ss58_address)
        start = await node.number()
        if type(nonce) is not int or not 0 <= nonce < 1 << 32:
            raise ChainUnreachable("The chain's node gives no nonce.", hint="Use another node.")
        try:
            extrinsic = await node.codec.create_signed_extrinsic(
                call, _Keypair(signer), era={"period": ERA_BLOCKS, "current": finalized}, nonce=nonce
            )
        except (RpcError, SubstrateRequestException, ValueError, TypeError, NotImplementedError) as error:
            raise ChainUnreachable(f"No call can be signed for the chain's node: {error}", hint="Try again.") from None
        return _Watched(_hex(extrinsic), start, finalized + ERA_BLOCKS)

    async def _watch(self, subscription: Subscription, watched: _Watched) -> str | None:
        """The hash of the block that holds the call; None when its notices have ended without one."""
        while True:
            try:
                notice = await subscription.next(_NOTICE_SECONDS)
            except TimeoutError:
                if await self._node.number() > watched.last:
                    return None
                continue
            if isinstance(notice, Mapping):
                status = {str(key).lower(): value for key, value in notice.items()}
                for key in ("inblock", "finalized"):
                    if key in status:
                        return hash_text(status[key])
                if "usurped" in status:
                    raise Refusal("Usurped")
            elif isinstance(notice, str) and notice.lower() in ("invalid", "dropped"):
                # It may have been dropped because it has long been in a block.
                return None

    async def _search(self, watched: _Watched) -> Inclusion:
        """Find the call in the blocks since it was handed in; hand it in again if it isn't there yet."""
        failures, block, resubmitted, refusal = 0, watched.start, False, ""
        while True:
            try:
                newest = await self._node.number()
                while block < newest:
                    block_hash = hash_text(await self._node.ask("chain_getBlockHash", block + 1))
                    if await self._index(block_hash, watched) is not None:
                        return await self._outcome(block_hash, watched)
                    block += 1
                if newest > watched.last:
                    raise ChainUnreachable("The call got into no block while it was valid.", hint="Try again.")
                if refusal:
                    raise Refusal(refusal)
                if not resubmitted:
                    refusal, resubmitted = await self._resubmit(watched), True
                    # "Outdated" may mean that it is in a block by now, perhaps in one of another fork.
                    block = watched.start
                    continue
            except ChainUnreachable:
                failures += 1
                if failures > _RECONNECTS or block >= watched.last or self._node.rpc.closed:
                    raise
            await asyncio.sleep(self._poll)

    async def _resubmit(self, watched: _Watched) -> str:
        """Hand the bytes in again; the name of a refusal that is final, or ""."""
        try:
            await self._node.rpc.request("author_submitExtrinsic", [watched.data])
        except RpcError as error:
            name = pool_error_name(error)
            if name not in ("AlreadyImported", "Banned", ""):
                return name
        return ""

    async def _index(self, block_hash: str, watched: _Watched) -> int | None:
        answer = await self._node.ask("chain_getBlock", block_hash)
        block = answer.get("block") if isinstance(answer, Mapping) else None
        extrinsics = block.get("extrinsics") if isinstance(block, Mapping) else None
        if not isinstance(extrinsics, list):
            raise ChainUnreachable("The chain's node doesn't give a block's calls.", hint="Use another node.")
        return next((index for index, data in enumerate(extrinsics) if data == watched.data), None)

    async def _outcome(self, block_hash: str, watched: _Watched) -> Inclusion:
        index = await self._index(block_hash, watched)
        number = header_number(await self._node.ask("chain_getHeader", block_hash))
        if index is None:
            raise ChainUnreachable("The call is not in the block that it was said to be in.", hint="Try again.")
        head = await self._node.head()
        (records,) = await self._node.storage(Head(block_hash, head.runtime), [("System", "Events", [])])
        events = tuple(record for record in records if record.get("extrinsic_idx") == index)
        for record in events:
            event = record.get("event", {})
            if (event.get("module_id"), event.get("event_id")) == ("System", "ExtrinsicFailed"):
                raise Refusal(dispatch_error_name(event["attributes"].get("dispatch_error"), head.module_error))
        return Inclusion(number, block_hash, events)


@dataclass(frozen=True, slots=True)
class _Watched:
    """A call that has been handed in.

    Attributes:
        data: Its bytes in hex.
        start: The newest block before it was.
        last: No block after this one can hold it.
    """

    data: str
    start: int
    last: int


def _hex(extrinsic: GenericExtrinsic) -> str:
    return "0x" + bytes(extrinsic.data.data).hex() if extrinsic.data is not None else ""


def _pool_refusal(error: RpcError) -> Exception:
    name = pool_error_name(error)
    if name:
        return Refusal(name)
    return ChainUnreachable(f"The chain's node doesn't take the call: {error}", hint="Try again, or use another node.")
