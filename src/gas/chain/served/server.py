"""The served ledger: WebSocket connections in front of one ledger's file.

Covered: frames of a bounded size, a bounded number of connections and of requests that wait on each, idle
connections closed, browsers refused, every fault answered by a typed error; a signature is checked by the ledger
itself, and no key ever comes here.

Not covered: the wire is not encrypted, and whoever can reach the port can read everything and ask for as much as the
limits allow. Between machines, put it into a private network or a tunnel.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gas.chain.local.ledger import Ledger
from gas.chain.served.desk import LedgerDesk
from gas.chain.served.wire import MAX_REQUEST_BYTES, error_to_json, parse
from gas.clock import Clock
from gas.errors import ChainError, ChainRefused, ConfigurationError, GasError

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request, Response

__all__ = ["LedgerServer", "ServerLimits"]

_CODES: Final = {"malformed_request": -32600, "unknown_method": -32601, "malformed_call": -32602, "too_busy": -32005}
_MAX_ID: Final = 64


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What one server takes upon itself.

    Attributes:
        connections: Most connections at a time; further ones get status 503.
        waiting: Most requests of one connection that wait for their answers; further ones get ``too_busy``.
        idle_seconds: After this long without a request or a subscription, a connection is closed.
        ping_seconds: How often peers are asked whether they live; one that is silent as long again is cut off.
    """

    connections: int = 128
    waiting: int = 32
    idle_seconds: float = 600.0
    ping_seconds: float = 20.0


class LedgerServer:
    """Serves one ledger; use as an asynchronous context manager.

    Args:
        path: The ledger's file.
        clock: Where block time comes from.
        host: Address to listen on; the loop-back address unless other machines should reach it.
        port: Port to listen on; 0 takes a free one.
        limits: What it takes upon itself.

    Raises:
        ConfigurationError: There is no ledger, or nobody can listen there (``address_in_use``).
        ChainUnreachable: The file can't be read.
    """

    def __init__(
        self, path: Path, clock: Clock, *, host: str = "127.0.0.1", port: int = 9944, limits: ServerLimits | None = None
    ) -> None:
        self._path = path
        self._clock = clock
        self._host = host
        self._port = port
        self._limits = limits or ServerLimits()
        self._peers: set[_Peer] = set()
        self._open: list[Ledger] = []

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    @property
    def address(self) -> str:
        """Where clients find it, e.g. ``ws://127.0.0.1:9944``."""
        return f"ws://[{self._host}]:{self._port}" if ":" in self._host else f"ws://{self._host}:{self._port}"

    async def __aenter__(self) -> LedgerServer:
        from websockets.asyncio.server import serve

        self._open = [Ledger(self._path, self._clock)]
        try:
            self._open.append(Ledger(self._path, self._clock))
            self.desk = LedgerDesk(*self._open)
            # One thread each: SQLite takes one transaction of a connection at a time anyway.
            self._readers = ThreadPoolExecutor(1, "gas-chain-read")
            self._writers = ThreadPoolExecutor(1, "gas-chain-write")
            self._moved = asyncio.Event()
            self._server: Server = await serve(
                self._talk,
                self._host,
                self._port,
                process_request=self._admit,
                # Pages in a browser send an origin; programs don't.
                origins=[None],
                compression=None,
                max_size=MAX_REQUEST_BYTES,
                max_queue=4,
                open_timeout=10,
                ping_interval=self._limits.ping_seconds,
                ping_timeout=self._limits.ping_seconds,
                close_timeout=2,
                server_header=None,
            )
        except (OSError, OverflowError) as error:
            self._close_files()
            reason = getattr(error, "strerror", None) or "no such port"
            raise ConfigurationError(
                f"Can't listen on {self._host}:{self._port} ({reason}).",
                code="address_in_use",
                hint="Name another address with --listen HOST:PORT; port 0 takes a free one.",
            ) from error
        except GasError:
            self._close_files()
            raise
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ticker.cancel()
        with suppress(asyncio.CancelledError):
            await self._ticker
        self._server.close()
        await self._server.wait_closed()
        # What has been taken is finished: a call is included whole or not at all.
        for pool in (self._readers, self._writers):
            await asyncio.to_thread(pool.shutdown, wait=True)
        self._close_files()

    def _close_files(self) -> None:
        for ledger in self._open:
            ledger.close()
        self._open = []

    def _admit(self, connection: ServerConnection, _request: Request) -> Response | None:
        if len(self._peers) < self._limits.connections:
            return None
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "This chain has all the connections it takes.\n")

    async def _talk(self, connection: ServerConnection) -> None:
        peer = _Peer(self, connection, self._limits)
        self._peers.add(peer)
        try:
            await peer.run()
        finally:
            self._peers.discard(peer)

    async def run(self, method: str, params: Mapping[str, Any]) -> Any:
        """Answer one request in the thread of its kind; raises as :meth:`LedgerDesk.answer`."""
        writes = self.desk.writes(method)
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(
            self._writers if writes else self._readers, self.desk.answer, method, params
        )
        if writes:
            # An advance may have moved the head.
            self._moved.set()
        return result

    async def _tick(self) -> None:
        """Keep the ledger up with the clock, and tell subscribers of new heads."""
        import structlog

        log = structlog.get_logger(__name__)
        loop = asyncio.get_running_loop()
        poll = min(1.0, self.desk.block_seconds / 4)
        fault = ""
        while True:
            try:
                head = await loop.run_in_executor(self._readers, self.desk.block)
                fault = ""
                for peer in self._peers:
                    peer.tell(head)
            except ChainError as error:
                # A full disk is freed again; until then every call is answered with this fault.
                if error.error_code != fault:
                    log.warning("chain_tick_failed", code=error.error_code, message=error.message)
                fault = error.error_code
            with suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), poll)
            self._moved.clear()


class _Peer:
    """One connection: requests are answered in their order, heads are told as they come."""

    def __init__(self, server: LedgerServer, connection: ServerConnection, limits: ServerLimits) -> None:
        self._server = server
        self._connection = connection
        self._limits = limits
        self._waiting: asyncio.Queue[tuple[Any, str, Mapping[str, Any]]] = asyncio.Queue(limits.waiting)
        self._told = -1
        self._head = -1
        self._news = asyncio.Event()
        self._subscribed = False

    def tell(self, head: int) -> None:
        """Note the newest block; a peer that reads slowly hears of the last one only."""
        if head > self._head:
            self._head = head
            self._news.set()

    async def run(self) -> None:
        """Talk until either side leaves."""
        from websockets.exceptions import ConnectionClosed

        tasks = [asyncio.create_task(work) for work in (self._listen(), self._work(), self._announce())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with suppress(ConnectionClosed):
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError, ConnectionClosed):
                    await task

    async def _listen(self) -> None:
        while True:
            try:
                message = await asyncio.wait_for(self._connection.recv(), self._limits.idle_seconds)
            except TimeoutError:
                if self._subscribed or not self._waiting.empty():
                    continue
                await self._connection.close(1000, "idle")
                return
            try:
                request = _read_request(message)
            except ValueError:
                await self._refuse(None, ChainRefused("That is no JSON.", code="malformed_request"), -32700)
                continue
            except ChainRefused as error:
                await self._refuse(None, error)
                continue
            try:
                self._waiting.put_nowait(request)
            except asyncio.QueueFull:
                await self._refuse(
                    request[0],
                    ChainRefused(
                        f"More than {self._limits.waiting} requests of this connection wait.",
                        code="too_busy",
                        hint="Wait for answers before asking more.",
                    ),
                )

    async def _work(self) -> None:
        while True:
            number, method, params = await self._waiting.get()
            try:
                result = await self._answer(method, params)
            except ChainError as error:
                await self._refuse(number, error)
            else:
                await self._send({"jsonrpc": "2.0", "id": number, "result": result})

    async def _answer(self, method: str, params: Mapping[str, Any]) -> Any:
        if method == "gas.subscribe":
            self._subscribed = True
            self._news.set()
            return True
        return await self._server.run(method, params)

    async def _announce(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._subscribed and self._head > self._told:
                self._told = self._head
                await self._send({"jsonrpc": "2.0", "method": "gas.head", "params": {"block": self._told}})

    async def _refuse(self, number: Any, error: ChainError, code: int | None = None) -> None:
        body = {
            "code": _CODES.get(error.error_code, -32000) if code is None else code,
            "message": error.message,
            "data": error_to_json(error),
        }
        await self._send({"jsonrpc": "2.0", "id": number, "error": body})

    async def _send(self, message: dict[str, Any]) -> None:
        await self._connection.send(json.dumps(message, separators=(",", ":")))


def _read_request(message: str | bytes) -> tuple[Any, str, Mapping[str, Any]]:
    """Id, method and parameters of a request.

    Raises:
        ValueError: It is no JSON.
        ChainRefused: It is JSON, but no request (``malformed_request``).
    """
    if isinstance(message, bytes):
        raise ChainRefused("Requests are text frames.", code="malformed_request")
    request = parse(message)
    if not isinstance(request, dict):
        raise ChainRefused("A request is one object; there are no batches.", code="malformed_request")
    number, method, params = request.get("id"), request.get("method"), request.get("params", {})
    known_id = type(number) is int or (isinstance(number, str) and len(number) <= _MAX_ID)
    if not known_id or not isinstance(method, str) or not isinstance(params, dict):
        raise ChainRefused(
            "A request has an id (a number or a short text), a method and an object of params.",
            code="malformed_request",
        )
    return number, method, params
