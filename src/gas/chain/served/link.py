"""One WebSocket connection to a served ledger: requests and answers, heads, and reconnecting."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gas.chain.served.wire import KIND, MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, PROTOCOL, error_from_json, parse
from gas.errors import ChainRefused, ChainUnreachable

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["ConnectionLost", "LedgerInfo", "Link", "probe"]

_OPEN_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 120.0


class ConnectionLost(ChainUnreachable):
    """The connection broke after the request was sent; whether it was acted on is unknown."""


@dataclass(frozen=True, slots=True)
class LedgerInfo:
    """What a served ledger says of itself.

    Attributes:
        chain_id: Which ledger it is; part of every signature.
        block_seconds: Seconds a block.
        manual: Whether its blocks pass by hand only.
    """

    chain_id: str
    block_seconds: float
    manual: bool


@dataclass(slots=True)
class _Live:
    """An open connection and what belongs to it."""

    loop: asyncio.AbstractEventLoop
    socket: ClientConnection
    info: LedgerInfo
    listener: asyncio.Task[None] | None = None
    answers: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    subscribed: bool = False
    head: int = -1
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class Link:
    """The one connection of a client; opened by the first request, and again when it was lost.

    It belongs to the event loop that uses it; used from another loop, it opens anew there.

    Args:
        endpoint: ``ws://host:port``.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._numbers = itertools.count(1)
        self._live: _Live | None = None
        self._opening: asyncio.Lock | None = None
        self._chain_id: str | None = None

    @property
    def was_open(self) -> bool:
        """Whether the ledger has answered here before."""
        return self._chain_id is not None

    async def info(self) -> LedgerInfo:
        """What the ledger says of itself, as of the opening of the connection.

        Raises:
            ChainUnreachable: Nobody answers, or another ledger than before (``another_chain``).
        """
        return (await self._connection()).info

    async def request(self, method: str, params: Mapping[str, Any]) -> Any:
        """Ask once.

        Raises:
            ChainError: The ledger refuses.
            ChainUnreachable: There is no connection to be had.
            ConnectionLost: It broke before the answer.
        """
        live = await self._connection()
        return await self._ask(live, method, params)

    async def head_after(self, seen: int, wait_seconds: float) -> int | None:
        """The newest block that the ledger has told of, once it is above ``seen``; None when none came in time.

        Raises:
            ChainUnreachable: There is no connection, or it broke.
        """
        live = await self._connection()
        if not live.subscribed:
            live.subscribed = True
            await self._ask(live, "gas.subscribe", {})
        if live.head <= seen:
            with suppress(TimeoutError):
                await asyncio.wait_for(live.moved.wait(), wait_seconds)
        live.moved.clear()
        if live.listener is None or live.listener.done():
            raise ConnectionLost("The connection to the chain broke.")
        return live.head if live.head > seen else None

    async def close(self) -> None:
        """Close the connection, if it is open in this loop."""
        live, self._live = self._live, None
        if live is None or live.loop is not asyncio.get_running_loop():
            return
        await live.socket.close()
        if live.listener is not None:
            await asyncio.wait([live.listener])

    async def _connection(self) -> _Live:
        loop = asyncio.get_running_loop()
        if self._live is not None and self._live.loop is not loop:
            self._live = None
        if self._live is None:
            self._opening = None if self._opening_is_foreign(loop) else self._opening
            if self._opening is None:
                self._opening, self._opening_loop = asyncio.Lock(), loop
            async with self._opening:
                if self._live is None:
                    self._live = await self._open(loop)
        return self._live

    def _opening_is_foreign(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._opening is not None and self._opening_loop is not loop

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Live:
        socket = await _connect(self._endpoint)
        try:
            info = await _introduction(socket)
        except BaseException:
            await socket.close()
            raise
        if info is None:
            await socket.close()
            raise ChainUnreachable(f"{self._endpoint} is no ledger of this kind.", code="another_chain")
        if self._chain_id not in (None, info.chain_id):
            await socket.close()
            raise ChainUnreachable(
                "Another ledger answers at this address than before.",
                code="another_chain",
                hint="Restart the service if that is meant.",
            )
        self._chain_id = info.chain_id
        live = _Live(loop, socket, info)
        live.listener = asyncio.create_task(self._listen(live))
        return live

    async def _ask(self, live: _Live, method: str, params: Mapping[str, Any]) -> Any:
        from websockets.exceptions import ConnectionClosed

        number = next(self._numbers)
        message = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        if len(message) > MAX_REQUEST_BYTES:
            raise ChainRefused("The request is too large.", code="malformed_call")
        answer: asyncio.Future[Any] = live.loop.create_future()
        live.answers[number] = answer
        try:
            await live.socket.send(message)
            return await asyncio.wait_for(answer, _ANSWER_SECONDS)
        except (ConnectionClosed, TimeoutError) as error:
            await self._drop(live)
            raise ConnectionLost("The connection to the chain broke.") from error
        finally:
            live.answers.pop(number, None)
            if answer.done() and not answer.cancelled():
                # Seen here, whoever else gave up waiting.
                answer.exception()

    async def _drop(self, live: _Live) -> None:
        if self._live is live:
            self._live = None
        await live.socket.close()

    async def _listen(self, live: _Live) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                _take(live, await live.socket.recv())
        except (ConnectionClosed, ValueError):
            # A peer that talks nonsense is as good as gone.
            pass
        finally:
            if self._live is live:
                self._live = None
            lost = ConnectionLost("The connection to the chain broke.")
            for answer in live.answers.values():
                if not answer.done():
                    answer.set_exception(lost)
            live.moved.set()
            await live.socket.close()


def _take(live: _Live, message: str | bytes) -> None:
    """Deal with one message of the server's.

    Raises:
        ValueError: It is none.
    """
    found = parse(message)
    if not isinstance(found, dict):
        raise ValueError("No object.")
    if found.get("method") == "gas.head":
        params = found.get("params")
        head = params.get("block") if isinstance(params, dict) else None
        if type(head) is not int:
            raise ValueError("No block.")
        live.head = max(live.head, head)
        live.moved.set()
        return
    number = found.get("id")
    answer = live.answers.get(number) if type(number) is int else None
    if answer is None or answer.done():
        return
    if "error" in found:
        answer.set_exception(error_from_json(found["error"]))
    else:
        answer.set_result(found.get("result"))


async def probe(endpoint: str) -> bool:
    """Whether a ledger of this kind answers at an address; False for any other node that talks JSON-RPC.

    Raises:
        ChainUnreachable: Nobody answers.
    """
    socket = await _connect(endpoint)
    try:
        return await _introduction(socket) is not None
    finally:
        await socket.close()


async def _connect(endpoint: str) -> ClientConnection:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

    try:
        return await connect(
            endpoint,
            compression=None,
            max_size=MAX_ANSWER_BYTES,
            open_timeout=_OPEN_SECONDS,
            close_timeout=2,
            # Straight there: a proxy of the environment is for the web, and would see every call.
            proxy=None,
        )
    except InvalidStatus as error:
        busy = error.response.status_code == 503
        raise ChainUnreachable(
            "The chain takes no more connections." if busy else "There is no chain at this address.",
            code="chain_busy" if busy else "chain_unreachable",
            hint="Try again later." if busy else None,
        ) from error
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI, EOFError) as error:
        raise ChainUnreachable(
            f"No chain answers at {endpoint}.", hint="Is `gascli chain start` running there, and the address right?"
        ) from error


async def _introduction(socket: ClientConnection) -> LedgerInfo | None:
    """What ``gas.info`` answers, or None when the peer is another kind of chain."""
    from websockets.exceptions import ConnectionClosed

    try:
        async with asyncio.timeout(_OPEN_SECONDS):
            await socket.send(json.dumps({"jsonrpc": "2.0", "id": 0, "method": "gas.info", "params": {}}))
            while True:
                found = parse(await socket.recv())
                if isinstance(found, dict) and found.get("id") == 0:
                    break
    except (ConnectionClosed, TimeoutError) as error:
        raise ChainUnreachable("The node does not say what it is.", hint="Is it a chain at all?") from error
    except ValueError as error:
        raise ChainUnreachable("The node does not talk JSON.", code="bad_answer") from error
    if "error" in found and error_from_json(found["error"]).error_code in ("disk_full", "disk_error"):
        raise error_from_json(found["error"])
    info = found.get("result")
    if not isinstance(info, dict) or info.get("kind") != KIND:
        return None
    if info.get("protocol") != PROTOCOL:
        raise ChainUnreachable("The ledger's server speaks another version.", code="version", hint="Update GAS.")
    chain_id, seconds, manual = info.get("chain_id"), info.get("block_seconds"), info.get("manual")
    if not isinstance(chain_id, str) or not isinstance(seconds, int | float) or not isinstance(manual, bool):
        raise ChainUnreachable("The node's answer makes no sense.", code="bad_answer")
    return LedgerInfo(chain_id, float(seconds), manual)
