"""One JSON-RPC connection over a WebSocket: requests, subscriptions, and a new socket when the old one drops.

The substrate library's own transport is not used: it resends what was in flight, including submissions, ends for good
when the socket drops under a subscription, and writes the endpoint, which may hold a key, into its log.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from gas.errors import ChainUnreachable, ConfigurationError

__all__ = ["Json", "RpcConnection", "RpcError", "Subscription", "check_endpoint"]

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None

_OPEN_SECONDS: Final = 15.0
_REQUEST_SECONDS: Final = 60.0
_CLOSE_SECONDS: Final = 2.0
_MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_MAX_WAITING_NOTICES: Final = 4096


class RpcError(Exception):
    """The node answered a request with an error.

    Args:
        code: JSON-RPC error code.
        message: The node's words.
        data: More of them, or "".
    """

    def __init__(self, code: int, message: str, data: str) -> None:
        super().__init__(f"{message} {data}".strip())
        self.code = code
        self.message = message
        self.data = data


def check_endpoint(endpoint: str) -> str:
    """The host and port of a ``ws://`` or ``wss://`` endpoint: the part that may be shown.

    Raises:
        ConfigurationError: The endpoint is no WebSocket address (``bad_endpoint``).
    """
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigurationError(
            "The chain's endpoint is no WebSocket address.",
            code="bad_endpoint",
            hint="It looks like wss://host:443 or ws://127.0.0.1:9944.",
        )
    return parts.hostname if port is None else f"{parts.hostname}:{port}"


@dataclass(eq=False)
class Subscription:
    """The notices of one subscription, in the order of their arrival."""

    id: str | int
    _queue: asyncio.Queue[Json | _Lost] = field(default_factory=lambda: asyncio.Queue(_MAX_WAITING_NOTICES))

    async def next(self, seconds: float) -> Json:
        """The next notice.

        Raises:
            TimeoutError: None came within ``seconds``.
            ChainUnreachable: The socket has dropped; no more will come.
        """
        async with asyncio.timeout(seconds):
            notice = await self._queue.get()
        if isinstance(notice, _Lost):
            self._queue.put_nowait(notice)
            raise ChainUnreachable("The connection to the chain's node dropped.", hint="It is opened again by itself.")
        return notice


class _Lost:
    """What a subscription's queue ends with."""


@dataclass(eq=False)
class _Socket:
    """One open socket and who waits on it."""

    connection: ClientConnection
    waiting: dict[int, asyncio.Future[Json]] = field(default_factory=dict)
    opening: dict[int, Subscription] = field(default_factory=dict)
    subscriptions: dict[str | int, Subscription] = field(default_factory=dict)
    reader: asyncio.Task[None] | None = None
    lost: bool = False

    async def read(self) -> None:
        """Hand out what arrives until the socket drops."""
        try:
            async for message in self.connection:
                self._take(message)
        except (WebSocketException, OSError, ValueError, TypeError, RecursionError):
            # A node that sends what is no JSON-RPC is as good as gone.
            pass
        finally:
            self._lose()

    def _take(self, message: str | bytes) -> None:
        answer = json.loads(message)
        if not isinstance(answer, dict):
            raise ValueError("The node's message is no object.")
        if isinstance(number := answer.get("id"), int):
            future = self.waiting.pop(number, None)
            subscription = self.opening.pop(number, None)
            if subscription is not None and isinstance(answer.get("result"), str | int):
                # In the reader's own turn, so that no notice that follows at once is missed.
                subscription.id = answer["result"]
                self.subscriptions[subscription.id] = subscription
            if future is None or future.done():
                return
            if "error" in answer:
                future.set_exception(_rpc_error(answer["error"]))
            else:
                future.set_result(answer.get("result"))
        elif isinstance(params := answer.get("params"), dict):
            known = self.subscriptions.get(params.get("subscription", ""))
            if known is not None:
                if known._queue.qsize() >= _MAX_WAITING_NOTICES - 1:
                    raise ValueError("The node sends more notices than anybody reads.")
                known._queue.put_nowait(params.get("result"))

    def _lose(self) -> None:
        self.lost = True
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(ChainUnreachable("The connection to the chain's node dropped.", hint="Try again."))
        self.waiting.clear()
        for subscription in self.subscriptions.values():
            subscription._queue.put_nowait(_Lost())
        self.subscriptions.clear()


class RpcConnection:
    """A node's JSON-RPC interface; opens its one socket at the first request, and again after it dropped.

    Args:
        endpoint: ``ws://`` or ``wss://`` address; its path, query and user part are never shown.

    Raises:
        ConfigurationError: The endpoint is no WebSocket address (``bad_endpoint``).
    """

    def __init__(self, endpoint: str) -> None:
        self.host: Final = check_endpoint(endpoint)
        self._endpoint = endpoint
        self._ids = itertools.count(1)
        self._socket: _Socket | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    async def request(self, method: str, params: Sequence[Json] = (), *, again: bool = True) -> Json:
        """The result of one request.

        Args:
            method: Name of the RPC method.
            params: Its parameters.
            again: Whether to ask once more, on a new socket, when the socket drops before the answer came. Only for
                what may be done twice.

        Raises:
            RpcError: The node answered with an error.
            ChainUnreachable: The node can't be reached, the socket dropped, or no answer came in 60 s.
        """
        socket = await self._open()
        try:
            return await self._ask(socket, method, params, None)
        except ChainUnreachable:
            if not again or not socket.lost or self._closed:
                raise
        return await self._ask(await self._open(), method, params, None)

    @asynccontextmanager
    async def subscribe(
        self, method: str, params: Sequence[Json] = (), *, unsubscribe: str
    ) -> AsyncIterator[Subscription]:
        """A subscription that ends with the ``async with`` block.

        Raises:
            RpcError: The node refused it.
            ChainUnreachable: As :meth:`request`; it is never asked twice.
        """
        socket = await self._open()
        subscription = Subscription("")
        await self._ask(socket, method, params, subscription)
        try:
            yield subscription
        finally:
            socket.subscriptions.pop(subscription.id, None)
            if not socket.lost:
                # Nobody waits for the answer: a node forgets subscriptions with the socket anyway.
                with suppress(WebSocketException, OSError):
                    await socket.connection.send(self._frame(next(self._ids), unsubscribe, [subscription.id]))

    async def close(self) -> None:
        """Close the socket; whoever waits gets :class:`~gas.errors.ChainUnreachable`."""
        self._closed = True
        socket, self._socket = self._socket, None
        if socket is not None:
            await _shut(socket)

    async def _open(self) -> _Socket:
        async with self._opening:
            if self._closed:
                raise ChainUnreachable("The connection to the chain's node is closed.")
            if self._socket is not None:
                if not self._socket.lost:
                    return self._socket
                await _shut(self._socket)
                self._socket = None
            try:
                connection = await connect(
                    self._endpoint,
                    open_timeout=_OPEN_SECONDS,
                    close_timeout=_CLOSE_SECONDS,
                    max_size=_MAX_MESSAGE_BYTES,
                )
            except ImportError:
                # The library takes the proxy from the environment, and SOCKS needs a package of its own.
                raise ConfigurationError(
                    "The environment names a SOCKS proxy, which is not supported here.",
                    code="proxy_unsupported",
                    hint="Exclude the node's host with no_proxy, or install python-socks.",
                ) from None
            except (WebSocketException, OSError, TimeoutError, ValueError):
                # The library's messages may quote the whole address, so they are not passed on.
                raise ChainUnreachable(
                    f"The chain's node {self.host} can't be reached.", hint="Check --chain-endpoint and the network."
                ) from None
            self._socket = socket = _Socket(connection)
            socket.reader = asyncio.create_task(socket.read())
            return socket

    async def _ask(
        self, socket: _Socket, method: str, params: Sequence[Json], subscription: Subscription | None
    ) -> Json:
        if socket.lost:
            raise ChainUnreachable("The connection to the chain's node dropped.", hint="Try again.")
        number = next(self._ids)
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        socket.waiting[number] = future
        if subscription is not None:
            socket.opening[number] = subscription
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                with suppress(WebSocketException, OSError):
                    # A socket that drops here fails the future too.
                    await socket.connection.send(self._frame(number, method, params))
                return await future
        except TimeoutError:
            raise ChainUnreachable(
                f"The chain's node {self.host} gave no answer to {method} in {_REQUEST_SECONDS:.0f} s.",
                hint="Try again, or use another node.",
            ) from None
        finally:
            socket.waiting.pop(number, None)
            socket.opening.pop(number, None)

    @staticmethod
    def _frame(number: int, method: str, params: Sequence[Json]) -> str:
        return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)})


async def _shut(socket: _Socket) -> None:
    await socket.connection.close()
    if socket.reader is not None:
        socket.reader.cancel()
        with suppress(asyncio.CancelledError):
            await socket.reader


def _rpc_error(error: Json) -> RpcError:
    """The node's error, cut to a length that fits a log."""
    if not isinstance(error, dict):
        return RpcError(0, "The node answered with an error.", "")
    code = error.get("code")
    return RpcError(
        code if isinstance(code, int) else 0, str(error.get("message", ""))[:300], str(error.get("data") or "")[:300]
    )
