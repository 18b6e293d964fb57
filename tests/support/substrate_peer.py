"""A node of the network on loop-back: JSON-RPC 2.0 over WebSocket, a real runtime's metadata, a ledger of ours beneath.

What is real: the metadata, and with it every byte of storage, events, calls, blocks and runtime calls; signatures,
eras, nonces and the genesis hash are checked; refusals have the node's own codes. What is not: consensus (every block
is final), fees (there are none), price pools (stake is alpha one to one), and the opening of time-locked commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import logging
import sqlite3
import threading
from collections.abc import MutableMapping, Sequence
from types import TracebackType
from typing import Any, Final

from substrate_blocks import Block, Blocks
from substrate_methods import Client, Methods
from subtensor_state import Memory
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from gas.chain.keys import Signer
from gas.chain.local.ledger import Ledger
from gas.errors import GasError

__all__ = ["SubstratePeer"]

_MAX_MESSAGE: Final = 15 * 2**20
_FAULTS: Final = (
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    TypeError,
    ValueError,
    GasError,
    sqlite3.Error,
)


class SubstratePeer:
    """A node in a thread of its own; a context manager.

    Args:
        ledger: A manual ledger; the peer makes its blocks.
        keyring: The keys that may call, by address.
        root: The ledger's root key, which is the network's sudo key too.
        hidden: Calls and runtime functions that the runtime shall not have.
        commit_reveal_version: What the network asks of time-locked commits.
        block_seconds: Makes a block each time that long has passed; None makes one for each extrinsic, and when told.
    """

    def __init__(
        self,
        ledger: Ledger,
        keyring: MutableMapping[str, Signer],
        root: Signer,
        *,
        hidden: Sequence[str] = (),
        commit_reveal_version: int = 4,
        block_seconds: float | None = None,
    ) -> None:
        self.chain = Blocks(ledger, keyring, root, hidden, Memory(commit_reveal_version=commit_reveal_version))
        self.requests: list[str] = []
        self.connections = 0
        self.faults: list[BaseException] = []
        self.pooled = threading.Event()
        self._methods = Methods(self.chain, self._accepted)
        self._clients: list[Client] = []
        self._silent = self._holding = self._loses_answers = self._forked = False
        self._refuse = 0
        self._port = 0
        self._block_seconds = block_seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="substrate-peer", daemon=True)
        self._server: Server | None = None
        self._timer: asyncio.Task[None] | None = None

    def __enter__(self) -> SubstratePeer:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self.chain.close()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    @property
    def head(self) -> Block:
        return self.chain.head

    @property
    def open_connections(self) -> int:
        return len(self._clients)

    def calls(self, since: int = 0) -> list[str]:
        """Names of the calls in the blocks after ``since``, those that failed among them."""
        found = [e for b in self.chain.blocks if b.number > since for e in b.included]
        return [f"{e.call.pallet}.{e.call.name}" for e in found]

    # What tests do to it.

    def start(self) -> None:
        """Listen; after :meth:`stop`, on the same port again."""
        self._run(self._open())

    def stop(self) -> None:
        """Hang up and don't listen any more."""
        self._run(self._close())

    def advance(self, blocks: int) -> None:
        """Make blocks; the first takes what waits in the pool."""

        async def work() -> None:
            for _ in range(blocks):
                self._seal()
                await asyncio.sleep(0)

        self._run(work())

    def drop(self) -> None:
        """Cut every connection, without a word."""

        async def work() -> None:
            self._abort()

        self._run(work())

    def refuse_next(self, connections: int) -> None:
        """Turn the next connections away."""
        self._refuse = connections

    def silence(self, silent: bool = True) -> None:
        """Answer nothing, and tell nothing, until told otherwise."""
        self._silent = silent

    def hold(self, holding: bool = True) -> None:
        """Keep extrinsics in the pool until :meth:`advance`."""
        self._holding = holding

    def fork(self) -> None:
        """Tell of each extrinsic first that it is in a block which is then taken back."""
        self._forked = True

    def lie(self, method: str, result: Any) -> None:
        """Answer a method with this, whatever is asked."""
        self._methods.lies[method] = result

    def lose_next_answer(self) -> None:
        """Take the next extrinsic, and cut the connection before its sender hears of it."""
        self._loses_answers = True

    # How it works.

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _open(self) -> None:
        quiet = logging.getLogger("gas-test-peer")
        quiet.setLevel(logging.CRITICAL + 1)
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self._port,
            process_request=self._greet,
            max_size=_MAX_MESSAGE,
            logger=quiet,
            ping_interval=None,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        if self._block_seconds is not None:
            self._timer = asyncio.create_task(self._tick(self._block_seconds))

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._timer
            self._timer = None
        self._abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _tick(self, seconds: float) -> None:
        try:
            while True:
                await asyncio.sleep(seconds)
                self._seal()
        except _FAULTS as fault:
            self.faults.append(fault)
            raise

    def _abort(self) -> None:
        for client in self._clients:
            client.socket.transport.abort()

    def _seal(self) -> None:
        block = self.chain.seal()
        for client in self._clients:
            client.tell(block, self._forked)

    def _accepted(self) -> None:
        self.pooled.set()
        if self._block_seconds is None and not self._holding:
            self._seal()

    def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        self.connections += 1
        if self._refuse <= 0:
            return None
        self._refuse -= 1
        return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "busy\n")

    async def _serve(self, socket: ServerConnection) -> None:
        client = Client(socket)
        self._clients.append(client)
        writer = asyncio.create_task(self._write(client))
        try:
            async for text in socket:
                self._hear(client, text)
        except ConnectionClosed:
            pass
        except _FAULTS as fault:
            # The server's log is off, so that a fault of the peer's own would not be seen.
            self.faults.append(fault)
            raise
        finally:
            self._clients.remove(client)
            writer.cancel()

    async def _write(self, client: Client) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = await client.outbox.get()
                if not self._silent:
                    await client.socket.send(message)

    def _hear(self, client: Client, text: str | bytes) -> None:
        try:
            asked = json.loads(text)
        except ValueError:
            error = {"code": -32700, "message": "Parse error"}
            client.outbox.put_nowait(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}))
            return
        batch = asked if isinstance(asked, list) else [asked]
        methods = [str(one.get("method")) for one in batch if isinstance(one, dict)]
        self.requests += methods
        if self._silent:
            return
        answers = [self._methods.answer(client, one) for one in batch]
        if self._loses_answers and any(method.startswith("author_submit") for method in methods):
            self._loses_answers = False
            client.socket.transport.abort()
        client.outbox.put_nowait(json.dumps(answers if isinstance(asked, list) else answers[0]))
        after, client.after = client.after, []
        for step in after:
            step()
