"""The adapter's connection: drops, stalls, lost answers, nodes that lie; and the peer that plays all those nodes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from async_substrate_interface import AsyncSubstrateInterface
from bittensor_wallet import Keypair

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from chain_conformance import ChainConformance
from ledger_network import TAO
from live_network import DevKeys, LiveNetwork, dev_key
from peer_network import PeerNetwork, decode_metadata_once, peer_network, play
from scale_metadata import compact
from substrate_client import NodeClient, RpcError
from substrate_extrinsics import Rules
from substrate_peer import SubstratePeer

from gas.chain.bittensor import chain as chain_module
from gas.chain.bittensor import extrinsics as extrinsics_module
from gas.chain.bittensor import rpc as rpc_module
from gas.chain.bittensor.chain import BittensorChain
from gas.chain.bittensor.heads import follow_heads
from gas.chain.local.founding import create_ledger, faucet
from gas.clock import ManualClock, SystemClock
from gas.errors import ChainError, ChainRefused, ChainUnreachable, NotRegistered


@pytest.fixture(autouse=True)
def metadata_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decode_metadata_once(monkeypatch)


@pytest.fixture
def network(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PeerNetwork]:
    """Its indirect parameter are the peer's options."""
    with peer_network(tmp_path, **getattr(request, "param", {})) as found:
        yield found


def test_a_service_keeps_one_connection_and_closes_it(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        async for _ in chain.blocks():
            break
        await chain.metagraph(1)
        await chain.set_commitment(1, "one")
        await asyncio.gather(*(chain.metagraph(netuid) for netuid in (1, 2, 3)))
        assert network.peer.connections == 1

    play(network, network.miner, scenario)
    deadline = time.monotonic() + 10
    while network.peer.open_connections and time.monotonic() < deadline:
        network.peer.advance(1)
    assert network.peer.open_connections == 0


def test_no_block_is_skipped_or_doubled_over_dropped_connections(
    network: PeerNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_module, "follow_heads", functools.partial(follow_heads, retry_seconds=0.01))

    async def scenario(chain: BittensorChain) -> None:
        seen: list[int] = []
        async for block in chain.blocks():
            seen.append(block)
            if len(seen) == 1:
                await network.advance(2)
            elif len(seen) == 3:
                network.peer.drop()
                await network.advance(3)
            elif len(seen) == 6:
                network.peer.refuse_next(3)
                network.peer.drop()
                await network.advance(2)
            elif len(seen) == 8:
                await asyncio.to_thread(network.peer.stop)
                await asyncio.to_thread(network.peer.start)
                await network.advance(1)
            elif len(seen) == 9:
                break
        assert seen == list(range(10, 19))

    play(network, network.miner, scenario)
    assert network.peer.connections >= 4


class _Racing(ManualClock):
    """Half a minute passes between two looks at it."""

    def monotonic(self) -> float:
        self.advance(30)
        return self.now


@pytest.mark.parametrize("silent", [False, True], ids=["no blocks", "no answers"])
def test_a_chain_that_stands_still_is_reported_after_two_minutes(
    network: PeerNetwork, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setattr(rpc_module, "_REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(chain_module, "follow_heads", functools.partial(follow_heads, retry_seconds=0.01))
    network.clock = _Racing()

    async def scenario(chain: BittensorChain) -> None:
        seen = []

        async def watch() -> None:
            async for block in chain.blocks():
                seen.append(block)
                network.peer.silence(silent)

        with pytest.raises(ChainUnreachable):
            await asyncio.wait_for(watch(), 30)
        assert seen == [10]

    play(network, network.miner, scenario)


def test_a_node_that_is_not_there_is_reported_without_its_address_in_full(network: PeerNetwork) -> None:
    url = network.peer.url
    network.peer.stop()

    async def work() -> None:
        chain = BittensorChain(f"{url}/v1?key=secret", network.miner, SystemClock())
        try:
            for ask in (chain.block, functools.partial(chain.metagraph, 1), functools.partial(chain.register, 1)):
                with pytest.raises(ChainUnreachable) as error:
                    await ask()
                assert "secret" not in f"{error.value} {error.value.hint}"
        finally:
            await chain.close()

    asyncio.run(work())
    network.peer.start()


def test_a_node_that_turns_one_connection_away_is_asked_again(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        network.peer.refuse_next(1)
        with pytest.raises(ChainUnreachable):
            await chain.block()
        assert await chain.block() == 10

    play(network, network.miner, scenario)


def test_reads_survive_a_dropped_connection(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        assert await chain.block() == 10
        network.peer.drop()
        assert len((await chain.metagraph(1)).neurons) == 3

    play(network, network.miner, scenario)


def test_a_call_whose_answer_got_lost_is_made_once(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        await chain.block()
        network.peer.lose_next_answer()
        await chain.set_commitment(1, "once")
        found = await chain.get_commitment(1, network.miner.ss58_address)
        assert found is not None
        assert found.data == "once"

    play(network, network.miner, scenario)
    assert network.peer.calls() == ["Commitments.set_commitment"]


def test_a_refusal_is_not_lost_with_the_connection(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        await chain.block()
        network.peer.lose_next_answer()
        with pytest.raises(NotRegistered):
            await chain.set_commitment(1, "mine")

    play(network, network.stranger, scenario)
    assert network.nonce(network.stranger) == 1


def test_a_call_in_a_block_that_is_taken_back_is_found_in_the_one_that_stays(network: PeerNetwork) -> None:
    network.peer.fork()

    async def scenario(chain: BittensorChain) -> None:
        await chain.set_commitment(1, "stays")
        with pytest.raises(ChainRefused) as refused:
            await chain.register(1)
        assert refused.value.error_code == "already_registered"

    play(network, network.miner, scenario)
    assert network.peer.calls() == ["Commitments.set_commitment", "SubtensorModule.burned_register"]


def test_a_call_waits_in_the_pool_until_a_block_takes_it(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        network.peer.hold()
        waiting = asyncio.ensure_future(chain.set_commitment(1, "later"))
        assert await asyncio.to_thread(network.peer.pooled.wait, 30)
        network.peer.drop()
        assert not waiting.done()
        await network.advance(1)
        await waiting

    play(network, network.miner, scenario)
    assert network.peer.calls() == ["Commitments.set_commitment"]


def test_errors_are_the_chains_typed_ones_even_from_a_node_that_lies(network: PeerNetwork) -> None:
    network.peer.chain.raw_metadata = b"meta\x0f" + bytes(100)

    async def scenario(chain: BittensorChain) -> None:
        for ask in (chain.metagraph, chain.hyperparameters, chain.register):
            with pytest.raises(ChainError):
                await ask(1)

    play(network, network.miner, scenario)


_GARBAGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    "",
    "0x",
    "0x00",
    "0x01",
    "no hex",
    "0x" + "ff" * 40,
    [],
    ["0x00"],
    {},
    {"number": None},
    {"block": {"extrinsics": 7}},
    {"specVersion": "461"},
    [{"block": "0x", "changes": [["0x00"]]}],
    [{"changes": 1}],
)


@pytest.mark.parametrize(
    "method",
    [
        "account_nextIndex",
        "author_submitAndWatchExtrinsic",
        "chain_getBlock",
        "chain_getBlockHash",
        "chain_getFinalizedHead",
        "chain_getHeader",
        "state_call",
        "state_getRuntimeVersion",
        "state_queryStorageAt",
    ],
)
def test_a_node_that_answers_nonsense_causes_typed_errors_only(
    network: PeerNetwork, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(extrinsics_module, "_NOTICE_SECONDS", 0.01)
    monkeypatch.setattr(extrinsics_module, "_RECONNECTS", 1)
    monkeypatch.setattr(extrinsics_module.asyncio, "sleep", _no_sleep)

    only_writes = method.startswith(("account_", "author_"))

    async def scenario(chain: BittensorChain) -> None:
        reads: tuple[Callable[[], Coroutine[Any, Any, Any]], ...] = (
            chain.block,
            functools.partial(chain.metagraph, 1),
            functools.partial(chain.hyperparameters, 1),
            functools.partial(chain.get_commitment, 1, network.miner.ss58_address),
            chain.balance,
        )
        asks = (*(() if only_writes else reads), functools.partial(chain.set_commitment, 1, "said"))
        # A call that is said to be taken and isn't is waited for, for a whole era: a few of those will do.
        for i, garbage in enumerate(_GARBAGE[:: 6 if method.startswith("author_") else 1]):
            network.peer.lie(method, garbage)
            for ask in asks if only_writes or i % 3 == 0 else reads:
                asked = asyncio.ensure_future(ask())
                while not (await asyncio.wait([asked], timeout=0.05))[0]:
                    # A call that never gets into a block is given up when its era is over.
                    await network.advance(70)
                # Where the answer doesn't matter, or happens to make sense, the call may well go through.
                with contextlib.suppress(ChainError):
                    await asked

    play(network, network.miner, scenario)


async def _no_sleep(seconds: float, ask: Callable[[float], Any] = asyncio.sleep) -> None:
    await ask(min(seconds, 0.001))


def test_the_ecosystems_own_client_is_content_with_the_peer(network: PeerNetwork) -> None:
    pair = dev_key("//Alice")
    network.peer.chain.dispatcher.keyring[pair.ss58_address] = pair
    faucet(network.net.ledger, network.net.root, pair.ss58_address, 10 * TAO)
    network.peer.advance(1)

    async def work() -> None:
        async with AsyncSubstrateInterface(network.peer.url, ss58_format=42) as node:
            head = await node.get_chain_head()
            assert await node.get_block_number(head) == network.peer.head.number
            account = await node.query("System", "Account", [pair.ss58_address])
            assert account.value["data"]["free"] == 10 * TAO
            keys = [(uid, hotkey) async for uid, hotkey in await node.query_map("SubtensorModule", "Keys", [1])]
            assert keys == [
                (0, network.net.owner.ss58_address),
                (1, network.validator.ss58_address),
                (2, network.miner.ss58_address),
            ]
            params = {"netuid": 1, "hotkey": pair.ss58_address}
            outcomes = []
            for _ in range(2):
                call = await node.compose_call("SubtensorModule", "burned_register", params)
                extrinsic = await node.create_signed_extrinsic(
                    call, Keypair.create_from_uri("//Alice"), era={"period": 64}
                )
                receipt = await node.submit_extrinsic(extrinsic, wait_for_inclusion=True)
                outcomes.append((await receipt.is_success, (await receipt.error_message or {}).get("name")))
            assert outcomes == [(True, None), (False, "HotKeyAlreadyRegisteredInSubNet")]
            block = await node.get_block()
            assert block["header"]["number"] == network.peer.head.number
            assert [e.value["call"]["call_function"] for e in block["extrinsics"]] == ["set", "burned_register"]

    asyncio.run(work())


def test_a_development_network_is_founded_over_its_rpc(tmp_path: Path) -> None:
    alice = dev_key("//Alice")
    with (
        create_ledger(tmp_path / "chain.db", root=alice.ss58_address, clock=ManualClock(), manual=True) as ledger,
        SubstratePeer(ledger, DevKeys(), alice, block_seconds=0.02) as peer,
    ):
        faucet(ledger, alice, alice.ss58_address, 10**6 * TAO)
        live = LiveNetwork(peer.url)
        live.renew()
        suite = ChainConformance()
        suite.test_the_metagraph_is_a_snapshot_in_uid_order(live)
        suite.test_hyperparameters_are_the_subnets(live)
        suite.test_weights_pay_whom_they_name_at_the_epoch(live)
        live.close()
        assert peer.faults == []


# The peer itself, asked by a client of its own kind, so that the adapter doesn't pass on a node that takes anything.


def test_the_peer_refuses_what_a_node_refuses(network: PeerNetwork) -> None:
    remark = ("System", "remark", {"remark": b"hello"})
    with NodeClient(network.peer.url) as client:
        good = client.sign(network.miner, *remark)
        client.submit(good)
        rules = client.rules
        other_genesis = Rules(bytes(32), rules.spec_version, rules.transaction_version)
        other_spec = Rules(rules.genesis, rules.spec_version + 1, rules.transaction_version)
        flipped = bytearray(client.sign(network.miner, *remark))
        flipped[-1] ^= 1
        refused = {
            "replayed": (good, "Transaction is outdated"),
            "another genesis": (client.sign(network.miner, *remark, rules=other_genesis), "bad signature"),
            "another runtime": (client.sign(network.miner, *remark, rules=other_spec), "bad signature"),
            "changed": (bytes(flipped), "bad signature"),
            "unsigned": (compact(5) + b"\x04\x00\x00\x04\x61", "unsigned validator"),
            "cut short": (good[:-1], "could not decode"),
            "too large": (bytes(4_000_000), "exhaust the block limits"),
        }
        for name, (raw, words) in refused.items():
            with pytest.raises(RpcError) as error:
                client.submit(raw)
            assert error.value.code in (1002, 1010, 1011), name
            assert words in error.value.data, name
        client.submit(client.sign(network.miner, *remark, era=(64, client.number())))
        mortal = client.sign(network.miner, *remark, era=(4, client.number()))
        network.peer.advance(9)
        with pytest.raises(RpcError):
            client.submit(mortal)
    assert network.nonce(network.miner) == 2
