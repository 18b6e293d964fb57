"""One socket: answers find their askers, notices are not missed, and what goes wrong is said without secrets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from gas.chain.bittensor.rpc import RpcConnection, RpcError, check_endpoint
from gas.errors import ChainUnreachable, ConfigurationError

Answer = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]
Work = Callable[[RpcConnection, "Server"], Awaitable[None]]


class Server:
    """Answers each frame as a test says."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.connections = 0

    async def hear(self, socket: ServerConnection) -> None:
        self.connections += 1
        async for frame in socket:
            asked = json.loads(frame)
            self.asked.append(asked["method"])
            await self.answer(socket, asked)


def play(answer: Answer, work: Work) -> Server:
    async def run() -> Server:
        server = Server(answer)
        async with serve(server.hear, "127.0.0.1", 0, ping_interval=None) as listening:
            port = next(iter(listening.sockets)).getsockname()[1]
            rpc = RpcConnection(f"ws://user:secret@127.0.0.1:{port}/v1/secret")
            try:
                async with asyncio.timeout(30):
                    await work(rpc, server)
            finally:
                await rpc.close()
        return server

    return asyncio.run(run())


async def reply(socket: ServerConnection, asked: dict[str, Any], result: Any) -> None:
    await socket.send(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}))


async def notify(socket: ServerConnection, subscription: Any, result: Any) -> None:
    params = {"subscription": subscription, "result": result}
    await socket.send(json.dumps({"jsonrpc": "2.0", "method": "notice", "params": params}))


async def echo(socket: ServerConnection, asked: dict[str, Any]) -> None:
    await reply(socket, asked, asked["params"])


def test_answers_find_who_asked_even_in_another_order() -> None:
    kept: list[dict[str, Any]] = []

    async def answer(socket: ServerConnection, asked: dict[str, Any]) -> None:
        kept.append(asked)
        if len(kept) == 3:
            for one in reversed(kept):
                await echo(socket, one)

    async def work(rpc: RpcConnection, _: Server) -> None:
        assert await asyncio.gather(*(rpc.request("echo", [i]) for i in range(3))) == [[0], [1], [2]]

    assert play(answer, work).connections == 1


def test_a_notice_that_follows_the_answer_at_once_is_not_missed() -> None:
    async def answer(socket: ServerConnection, asked: dict[str, Any]) -> None:
        if asked["method"] == "watch":
            await notify(socket, "other", "not ours")
            await reply(socket, asked, "s1")
            for number in range(3):
                await notify(socket, "s1", number)
        else:
            await reply(socket, asked, True)

    async def work(rpc: RpcConnection, server: Server) -> None:
        async with rpc.subscribe("watch", unsubscribe="unwatch") as notices:
            assert [await notices.next(10) for _ in range(3)] == [0, 1, 2]
            with pytest.raises(TimeoutError):
                await notices.next(0.01)
        await rpc.request("echo")
        assert server.asked == ["watch", "unwatch", "echo"]

    play(answer, work)


def test_the_nodes_error_is_passed_on_cut_to_a_line() -> None:
    async def answer(socket: ServerConnection, asked: dict[str, Any]) -> None:
        error = {"code": 1010, "message": "Invalid Transaction", "data": "x" * 10_000}
        await socket.send(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}))

    async def work(rpc: RpcConnection, _: Server) -> None:
        with pytest.raises(RpcError) as refused:
            await rpc.request("author_submitExtrinsic", ["0x00"])
        assert refused.value.code == 1010
        assert len(str(refused.value)) < 400

    play(answer, work)


def test_what_may_be_asked_twice_is_asked_again_on_a_new_socket() -> None:
    async def answer(socket: ServerConnection, asked: dict[str, Any]) -> None:
        if server_drops.pop(0):
            await socket.close()
        else:
            await echo(socket, asked)

    async def work(rpc: RpcConnection, server: Server) -> None:
        assert await rpc.request("echo", [1]) == [1]
        assert server.connections == 2
        with pytest.raises(ChainUnreachable):
            await rpc.request("echo", [2], again=False)
        with pytest.raises(ChainUnreachable):
            await rpc.request("echo", [3])
        assert await rpc.request("echo", [4]) == [4]

    server_drops = [True, False, True, True, True, False]
    assert play(answer, work).asked == ["echo"] * 6


def test_a_dropped_socket_ends_its_subscriptions_and_nobody_waits_for_ever() -> None:
    async def answer(socket: ServerConnection, asked: dict[str, Any]) -> None:
        if asked["method"] == "watch":
            await reply(socket, asked, 7)
            await notify(socket, 7, "last")
        else:
            await socket.close()

    async def work(rpc: RpcConnection, _: Server) -> None:
        async with rpc.subscribe("watch", unsubscribe="unwatch") as notices:
            with pytest.raises(ChainUnreachable):
                await rpc.request("drop", again=False)
            assert await notices.next(10) == "last"
            for _ in range(2):
                with pytest.raises(ChainUnreachable):
                    await notices.next(10)

    play(answer, work)


@pytest.mark.parametrize(
    "frame",
    ["not JSON", "[1, 2]", '"text"', "[" * 100_000, '{"params": {"subscription": [], "result": 1}}', b"\xff\xfe"],
)
def test_a_node_that_talks_nonsense_is_as_good_as_gone(frame: str | bytes) -> None:
    async def answer(socket: ServerConnection, asked: dict[str, Any]) -> None:
        await socket.send(frame)

    async def work(rpc: RpcConnection, server: Server) -> None:
        with pytest.raises(ChainUnreachable):
            await rpc.request("echo")
        assert server.connections == 2

    play(answer, work)


def test_a_flood_of_notices_ends_the_connection_instead_of_the_memory() -> None:
    async def answer(socket: ServerConnection, asked: dict[str, Any]) -> None:
        if asked["method"] == "flood":
            for number in range(5000):
                await notify(socket, "s", number)
        await reply(socket, asked, "s")

    async def work(rpc: RpcConnection, _: Server) -> None:
        async with rpc.subscribe("watch", unsubscribe="unwatch") as notices:
            with pytest.raises(ChainUnreachable):
                await rpc.request("flood", again=False)
            seen = 0
            with pytest.raises(ChainUnreachable):
                while True:
                    await notices.next(10)
                    seen += 1
            assert seen < 4096

    play(answer, work)


def test_closing_wakes_whoever_waits_and_nothing_opens_again() -> None:
    heard = asyncio.Event()

    async def answer(socket: ServerConnection, asked: dict[str, Any]) -> None:
        heard.set()

    async def work(rpc: RpcConnection, server: Server) -> None:
        waiting = asyncio.ensure_future(rpc.request("never"))
        await heard.wait()
        await rpc.close()
        with pytest.raises(ChainUnreachable):
            await waiting
        with pytest.raises(ChainUnreachable):
            await rpc.request("echo")
        assert server.connections == 1
        assert rpc.closed

    play(answer, work)


def test_a_silent_node_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gas.chain.bittensor.rpc._REQUEST_SECONDS", 0.02)

    async def answer(socket: ServerConnection, asked: dict[str, Any]) -> None:
        pass

    async def work(rpc: RpcConnection, _: Server) -> None:
        with pytest.raises(ChainUnreachable) as error:
            await rpc.request("chain_getHeader")
        assert "chain_getHeader" in str(error.value)
        assert "secret" not in str(error.value)

    play(answer, work)


def test_no_secret_of_the_endpoint_is_shown_when_nobody_listens() -> None:
    async def work() -> None:
        rpc = RpcConnection("ws://user:secret@127.0.0.1:1/secret?key=secret")
        with pytest.raises(ChainUnreachable) as error:
            await rpc.request("chain_getHeader")
        assert "127.0.0.1:1" in str(error.value)
        assert "secret" not in str(error.value)
        assert error.value.__cause__ is None
        await rpc.close()

    asyncio.run(work())


def test_a_proxy_that_needs_more_packages_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("python-socks is required to use a SOCKS proxy")

    monkeypatch.setattr("gas.chain.bittensor.rpc.connect", missing)
    with pytest.raises(ConfigurationError) as error:
        asyncio.run(RpcConnection("ws://127.0.0.1:1").request("chain_getHeader"))
    assert error.value.error_code == "proxy_unsupported"


@pytest.mark.parametrize("endpoint", ["", "local", "http://host", "ws://", "wss:host", "ws://host:port", "ws://[::1"])
def test_an_endpoint_that_is_no_websocket_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        check_endpoint(endpoint)
    assert error.value.error_code == "bad_endpoint"


def test_an_endpoint_is_shown_as_its_host() -> None:
    assert check_endpoint("wss://user:pass@node.example:443/key") == "node.example:443"
    assert check_endpoint("ws://node.example") == "node.example"
