"""A served ledger through failures: servers that go away, answers that get lost, nodes that are something else."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from gas.chain.base import Axon
from gas.chain.connect import connect
from gas.chain.keys import signer_from_seed
from gas.chain.local.chain import LocalChain
from gas.chain.local.founding import create_ledger, create_subnet, faucet
from gas.chain.local.ledger import Ledger
from gas.chain.served.client import ServedChain
from gas.chain.served.link import probe
from gas.chain.served.server import LedgerServer
from gas.clock import ManualClock
from gas.errors import ChainRefused, ChainUnreachable, ConfigurationError

TAO = 10**9
ROOT = signer_from_seed(bytes(32))


def play(work: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(main())


class Cut:
    """Breaks the connection in place of the answer to the first request of a kind, before or after acting on it."""

    def __init__(self, server: LedgerServer, method: str, *, act: bool) -> None:
        self.server, self.method, self.act, self.cuts = server, method, act, 0
        self.original = server.run
        server.run = self.run  # type: ignore[method-assign]

    async def run(self, method: str, params: Any) -> Any:
        if method != self.method or self.cuts:
            return await self.original(method, params)
        self.cuts += 1
        result = await self.original(method, params) if self.act else None
        for peer in tuple(self.server._peers):
            peer._connection.transport.abort()
        return result


@pytest.mark.parametrize("act", [True, False], ids=["after it was included", "before it was"])
def test_a_call_whose_answer_is_lost_is_included_once(found, act: bool) -> None:
    town = found()
    town.join("ann")

    async def work() -> None:
        async with LedgerServer(town.path, town.clock, port=0) as server:
            chain = ServedChain(server.address, town.hot("ann"), town.clock, coldkey=town.cold("ann"))
            before = await chain.balance()
            cut = Cut(server, "gas.submit", act=act)
            await chain.transfer(town.cold("bob").ss58_address, TAO)
            assert cut.cuts == 1
            assert await chain.balance() == before - TAO
            assert await chain.balance_of(town.cold("bob").ss58_address) == TAO
            await chain.close()

    play(work())


def test_a_registration_whose_answer_is_lost_still_tells_its_uid(found) -> None:
    town = found()
    faucet(town.ledger, town.root, town.cold("ann").ss58_address, TAO)

    async def work() -> None:
        async with LedgerServer(town.path, town.clock, port=0) as server:
            chain = ServedChain(server.address, town.hot("ann"), town.clock, coldkey=town.cold("ann"))
            Cut(server, "gas.submit", act=True)
            assert await chain.register(1) == 1
            assert len((await chain.metagraph(1)).neurons) == 2
            await chain.close()

    play(work())


def test_a_question_whose_answer_is_lost_is_asked_again(found) -> None:
    town = found()

    async def work() -> None:
        async with LedgerServer(town.path, town.clock, port=0) as server:
            chain = ServedChain(server.address, town.hot("ann"), town.clock)
            assert await chain.block() == 0
            cut = Cut(server, "gas.metagraph", act=True)
            assert len((await chain.metagraph(1)).neurons) == 1
            assert cut.cuts == 1
            await chain.close()

    play(work())


def test_blocks_go_on_without_a_gap_when_the_server_restarts(found) -> None:
    town = found()

    async def work() -> None:
        chain: ServedChain | None = None
        seen: list[int] = []
        port = 0
        for round_ in range(3):
            async with LedgerServer(town.path, town.clock, port=port) as server:
                port = server.port
                if chain is None:
                    chain = ServedChain(server.address, None, town.clock)
                    stream = chain.blocks()
                if round_:
                    # While the server was away, others moved the file on.
                    assert town.ledger.block() > seen[-1]
                while not seen or seen[-1] < town.ledger.block():
                    seen.append(await anext(stream))
                await asyncio.to_thread(town.ledger.advance, 3)
                while seen[-1] < town.ledger.block():
                    seen.append(await anext(stream))
            await asyncio.to_thread(town.ledger.advance, 4)
        assert seen == list(range(18))
        await stream.aclose()
        assert chain is not None
        await chain.close()

    play(work())


class Hurried(ManualClock):
    """Its monotonic side runs on while the time of day stands still."""

    beats = 0

    def monotonic(self) -> float:
        self.beats += 1
        return self.beats * 30.0


def test_a_served_chain_that_stands_still_is_reported_and_a_paused_one_is_not(tmp_path: Path) -> None:
    path, clock = tmp_path / "chain.db", ManualClock()
    create_ledger(path, root=ROOT.ss58_address, clock=clock, block_seconds=0.02).close()

    async def work() -> None:
        async with LedgerServer(path, clock, port=0) as server:
            chain = ServedChain(server.address, None, Hurried(), coldkey=ROOT)
            seen = []
            with pytest.raises(ChainUnreachable):
                async for block in chain.blocks():
                    seen.append(block)
            assert seen == [0]
            await chain.pause()
            stream = chain.blocks()
            assert await anext(stream) == 0
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.wait([waiting], timeout=0.3)
            assert not waiting.done()
            await chain.advance(1)
            assert await waiting == 1
            await stream.aclose()
            await chain.close()

    play(work())


def test_a_server_that_stays_away_is_reported_by_the_watchdog(found) -> None:
    town = found()

    async def work() -> None:
        async with LedgerServer(town.path, town.clock, port=0) as server:
            chain = ServedChain(server.address, None, Hurried())
            stream = chain.blocks()
            assert await anext(stream) == 0
        with pytest.raises(ChainUnreachable):
            await anext(stream)
        await chain.close()

    play(work())


def test_nobody_at_the_address_is_said_at_once() -> None:
    async def work() -> None:
        chain = ServedChain("ws://127.0.0.1:1", None, ManualClock())
        with pytest.raises(ChainUnreachable) as error:
            await chain.block()
        assert "gascli chain start" in str(error.value)
        await chain.close()

    play(work())


def test_another_ledger_at_the_same_address_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    clock = ManualClock()
    paths = [tmp_path / "one.db", tmp_path / "two.db"]
    for path in paths:
        create_ledger(path, root=ROOT.ss58_address, clock=clock, manual=True).close()

    async def work() -> None:
        async with LedgerServer(paths[0], clock, port=0) as server:
            chain = ServedChain(server.address, None, clock, coldkey=ROOT)
            assert await chain.block() == 0
            port = server.port
        async with LedgerServer(paths[1], clock, port=port):
            with pytest.raises(ChainUnreachable) as error:
                await chain.advance(1)
            assert error.value.error_code == "another_chain"
        await chain.close()

    play(work())


def test_one_client_serves_one_event_loop_after_another(found) -> None:
    town = found()
    port = 0
    chain: ServedChain | None = None
    for _ in range(2):

        async def work() -> None:
            nonlocal port, chain
            async with LedgerServer(town.path, town.clock, port=port) as server:
                port = server.port
                chain = chain or ServedChain(server.address, None, town.clock)
                assert await chain.block() == 0

        play(work())


@pytest.mark.parametrize(
    "answer",
    [
        "nonsense",
        b"\x00",
        "[]",
        '{"id": 0, "result": {"kind": "gas-ledger", "protocol": 1}}',
        '{"id": 0, "result": {"kind": "gas-ledger", "protocol": 99, "chain_id": "", "block_seconds": 1}}',
    ],
)
def test_a_node_that_talks_nonsense_is_unreachable_and_no_crash(answer: str | bytes) -> None:
    async def talk(peer: ServerConnection) -> None:
        await peer.recv()
        await peer.send(answer)
        await peer.close()

    async def work() -> None:
        async with serve_websocket(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            chain = ServedChain(f"ws://127.0.0.1:{port}", None, ManualClock())
            with pytest.raises(ChainUnreachable):
                await chain.block()
            await chain.close()

    play(work())


GRAPH: dict[str, Any] = {"netuid": 1, "block": 3, "owner_uid": 0, "neurons": []}


@pytest.mark.parametrize(
    "graph", [None, [], {}, {**GRAPH, "neurons": [{}]}, {**GRAPH, "block": "3"}, {**GRAPH, "neurons": 5}]
)
def test_a_metagraph_that_is_none_is_a_bad_answer(graph: Any) -> None:
    async def talk(peer: ServerConnection) -> None:
        async for message in peer:
            asked = json.loads(message)
            info = {"kind": "gas-ledger", "protocol": 1, "chain_id": "aa", "block_seconds": 1, "manual": True}
            result = info if asked["method"] == "gas.info" else graph
            await peer.send(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}))

    async def work() -> None:
        async with serve_websocket(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            chain = ServedChain(f"ws://127.0.0.1:{port}", None, ManualClock())
            with pytest.raises(ChainUnreachable) as error:
                await chain.metagraph(1)
            assert error.value.error_code == "bad_answer"
            await chain.close()

    play(work())


def test_what_is_seen_over_the_wire_is_what_is_in_the_file(found) -> None:
    town = found(tempo=10)
    town.join("validator", stake=500 * TAO)
    town.join("miner")
    town.ledger.call(town.hot("miner"), "serve_axon", {"netuid": 1, "ip": "2001:db8::7", "port": 80, "protocol": 4})
    town.ledger.call(town.hot("miner"), "set_commitment", {"netuid": 1, "data": "a\u0000\u00e4\U0001f600"})
    town.ledger.advance(10)
    town.weigh("validator", {2: 5, 0: 1})
    town.ledger.advance(13)

    async def work() -> None:
        async with LedgerServer(town.path, town.clock, port=0) as server:
            served = ServedChain(server.address, town.hot("miner"), town.clock)
            local = LocalChain(town.path, town.hot("miner"), town.clock)
            for look in (
                lambda chain: chain.block(),
                lambda chain: chain.metagraph(1),
                lambda chain: chain.hyperparameters(1),
                lambda chain: chain.get_commitment(1, town.hot("miner").ss58_address),
                lambda chain: chain.get_commitment(1, town.hot("validator").ss58_address),
                lambda chain: chain.balance_of(town.cold("miner").ss58_address),
                lambda chain: chain.emissions(1),
                lambda chain: chain.emissions(1, 2),
                lambda chain: chain.standing(1),
                lambda chain: chain.weights_in_force(1),
            ):
                assert await look(served) == await look(local)
            assert (await served.metagraph(1)).neurons[2].incentive > 0
            await served.close()
            await local.close()

    play(work())


# Choosing the chain


async def _substrate(peer: ServerConnection) -> None:
    async for message in peer:
        error = {"code": -32601, "message": "Method not found"}
        await peer.send(json.dumps({"jsonrpc": "2.0", "id": json.loads(message)["id"], "error": error}))


def test_a_node_that_does_not_know_our_greeting_is_taken_for_a_live_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with serve_websocket(_substrate, "127.0.0.1", 0) as server:
            endpoint = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            assert not await probe(endpoint)
            monkeypatch.setitem(sys.modules, "gas.chain.bittensor.chain", None)
            with pytest.raises(ConfigurationError) as error:
                await connect(endpoint, None, ManualClock(), ledger_path=tmp_path / "no.db")
            assert error.value.error_code == "extra_missing"
            assert "gas[bittensor]" in str(error.value)

    play(work())


@pytest.mark.parametrize(
    "endpoint", ["", "mainnet", "http://127.0.0.1:9944", "ws://", "ws://host:notaport", "ws://host:99999", "local:1"]
)
def test_an_endpoint_that_is_none_is_refused_without_being_repeated(tmp_path: Path, endpoint: str) -> None:
    async def work() -> None:
        with pytest.raises(ConfigurationError) as error:
            await connect(endpoint, None, ManualClock(), ledger_path=tmp_path / "no.db")
        assert error.value.error_code == "bad_endpoint"
        assert not endpoint or endpoint not in str(error.value) or endpoint == "ws://"

    play(work())


def test_local_is_the_ledger_of_the_home(found) -> None:
    town = found()

    async def work() -> None:
        chain = await connect("local", None, town.clock, ledger_path=town.path)
        assert isinstance(chain, LocalChain)
        assert await chain.block() == 0
        with pytest.raises(ConfigurationError) as error:
            await chain.serve_axon(1, Axon("127.0.0.1", 80))
        assert error.value.error_code == "no_signer"
        await chain.close()

    play(work())


# Several writers


WRITER = """
import asyncio, sys
from gas.chain.keys import signer_from_seed
from gas.chain.served.client import ServedChain
from gas.clock import SystemClock
async def main():
    chain = ServedChain(sys.argv[1], signer_from_seed(bytes([int(sys.argv[2])]) * 32), SystemClock())
    for _ in range(int(sys.argv[4])):
        await chain.transfer(sys.argv[3], 1)
    await chain.close()
asyncio.run(main())
"""


def test_processes_over_the_wire_and_on_the_file_include_every_call_once(tmp_path: Path) -> None:
    path, clock, sink = tmp_path / "chain.db", ManualClock(), signer_from_seed(bytes([7]) * 32).ss58_address
    ann = signer_from_seed(bytes([1]) * 32)
    with create_ledger(path, root=ROOT.ss58_address, clock=clock, manual=True) as ledger:
        owner = ROOT.ss58_address
        create_subnet(ledger, ROOT, 1, owner=owner, owner_hotkey=owner, hyperparameters={"tempo": 1})
        faucet(ledger, ROOT, ann.ss58_address, TAO)

    async def work() -> None:
        async with LedgerServer(path, clock, port=0) as server:
            processes = [
                await asyncio.create_subprocess_exec(
                    sys.executable, "-c", WRITER, server.address, "1", sink, "30", stdout=subprocess.DEVNULL
                )
                for _ in range(2)
            ]
            with Ledger(path, clock) as ledger:
                for number in range(30):
                    await asyncio.to_thread(ledger.call, ann, "transfer", {"address": sink, "amount": 1})
                    if number % 5 == 0:
                        await asyncio.to_thread(ledger.advance, 1)
            assert [await process.wait() for process in processes] == [0, 0]
            chain = ServedChain(server.address, ann, clock)
            assert await chain.balance_of(sink) == 90
            totals = (await chain.standing(1)).totals
            assert totals.balances + totals.staked + totals.burned == totals.issued
            with pytest.raises(ChainRefused):
                await chain.transfer(sink, TAO)
            await chain.close()

    play(work())
