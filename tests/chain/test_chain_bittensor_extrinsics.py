"""Calls to a node: what can't be sent isn't, what was sent is followed to its block or to its end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from ledger_network import LedgerNetwork, found_network
from substrate_peer import SubstratePeer

from gas.chain.base import Axon
from gas.chain.bittensor import extrinsics
from gas.chain.bittensor.chain import BittensorChain
from gas.chain.bittensor.reading import blocks_to_wait
from gas.chain.keys import Signer, signer_from_seed
from gas.chain.local.views import price
from gas.clock import ManualClock
from gas.errors import ChainRefused, ChainUnreachable, ConfigurationError, NotRegistered

Scenario = Callable[[BittensorChain, SubstratePeer], Coroutine[Any, Any, None]]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LedgerNetwork]:
    with found_network(tmp_path) as net:
        yield net


def play(network: LedgerNetwork, signer: Signer | None, scenario: Scenario) -> None:
    with SubstratePeer(network.ledger, network.keyring, network.root) as peer:

        async def work() -> None:
            chain = BittensorChain(peer.url, signer, ManualClock())
            try:
                await scenario(chain, peer)
            finally:
                await chain.close()

        asyncio.run(work())


def test_a_call_that_gets_into_no_block_ends_when_it_expires(
    network: LedgerNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extrinsics, "_NOTICE_SECONDS", 0.05)
    handed_in = asyncio.Event()

    async def scenario(chain: BittensorChain, peer: SubstratePeer) -> None:
        submitter = chain._submitter
        watch = submitter._watch

        async def told(*args: Any) -> Any:
            handed_in.set()
            return await watch(*args)

        monkeypatch.setattr(submitter, "_watch", told)
        peer.hold()
        waiting = asyncio.ensure_future(chain.set_commitment(1, "never"))
        await handed_in.wait()
        peer.chain.pool.clear()
        await asyncio.to_thread(peer.advance, extrinsics.ERA_BLOCKS + 2)
        with pytest.raises(ChainUnreachable) as error:
            await waiting
        assert "no block" in str(error.value)
        assert peer.calls() == []

    play(network, network.miner, scenario)


def test_many_calls_at_once_are_signed_one_after_the_other(network: LedgerNetwork) -> None:
    async def scenario(chain: BittensorChain, peer: SubstratePeer) -> None:
        await asyncio.gather(*(chain.set_commitment(1, str(i)) for i in range(5)), chain.metagraph(1), chain.block())
        assert peer.calls() == ["Commitments.set_commitment"] * 5
        assert peer.connections == 1

    play(network, network.miner, scenario)


MALFORMED: dict[str, Callable[[BittensorChain], Coroutine[Any, Any, Any]]] = {
    "a million weights": lambda c: c.set_weights(1, range(1_000_000), [1] * 1_000_000, 2),
    "a negative uid": lambda c: c.set_weights(1, [-1], [1], 2),
    "a huge weight": lambda c: c.set_weights(1, [0], [65536], 2),
    "a fraction": lambda c: c.set_weights(1, [0], [0.5], 2),
    "a huge version": lambda c: c.set_weights(1, [0], [1], 2**64),
    "no such netuid": lambda c: c.set_weights(65536, [0], [1], 2),
    "a short hash": lambda c: c.commit_weights(2, b"short"),
    "a huge salt": lambda c: c.reveal_weights(2, [0], [1], [65536], 2),
    "a negative version": lambda c: c.commit_timelocked(2, [0], [1], -1),
    "a negative stake": lambda c: c.add_stake(1, -1),
    "a huge stake": lambda c: c.remove_stake(1, 2**64),
    "a stranger's address": lambda c: c.get_commitment(1, "5Nobody"),
    "an unreadable netuid": lambda c: c.metagraph(-1),
    "half a character": lambda c: c.set_commitment(1, "\ud800"),
}


def test_what_no_call_can_carry_is_refused_before_it_is_signed(network: LedgerNetwork) -> None:
    async def scenario(chain: BittensorChain, peer: SubstratePeer) -> None:
        for what, ask in MALFORMED.items():
            with pytest.raises(ChainRefused) as refused:
                await ask(chain)
            assert refused.value.error_code == "malformed_call", what
        assert peer.calls() == []

    play(network, network.validator, scenario)


def test_a_refusal_names_the_rule(network: LedgerNetwork) -> None:
    async def scenario(chain: BittensorChain, peer: SubstratePeer) -> None:
        asked: list[tuple[Coroutine[Any, Any, Any], str]] = [
            (chain.serve_axon(1, Axon("no address", 80)), "bad_axon"),
            (chain.set_commitment(1, "x" * 129), "commitment_too_long"),
            (chain.get_commitment(60_000, network.miner.ss58_address), "unknown_subnet"),
            (chain.hyperparameters(60_000), "unknown_subnet"),
            (chain.set_commitment(60_000, "x"), "unknown_subnet"),
            (chain.set_weights(60_000, [0], [1], 2), "unknown_subnet"),
            (chain.register(60_000), "unknown_subnet"),
            (chain.add_stake(1, 10**18), "insufficient_balance"),
            (chain.remove_stake(1, 10**18), "insufficient_stake"),
        ]
        for ask, code in asked:
            with pytest.raises(ChainRefused) as refused:
                await ask
            assert refused.value.error_code == code

    play(network, network.validator, scenario)


def test_without_a_key_everything_can_be_read_and_nothing_said(network: LedgerNetwork) -> None:
    async def scenario(chain: BittensorChain, peer: SubstratePeer) -> None:
        assert (await chain.metagraph(1)).block == await chain.block()
        assert (await chain.hyperparameters(1)).tempo == 10
        assert await chain.get_commitment(1, network.miner.ss58_address) is None
        for ask in (chain.register(1), chain.set_weights(1, [0], [1]), chain.balance(), chain.set_commitment(1, "x")):
            with pytest.raises(ConfigurationError) as missing:
                await ask
            assert missing.value.error_code == "no_signer"
        assert peer.calls() == []

    play(network, None, scenario)


def test_who_is_not_registered_has_no_rate_limit_to_wait_for(network: LedgerNetwork) -> None:
    async def scenario(chain: BittensorChain, peer: SubstratePeer) -> None:
        with pytest.raises(NotRegistered):
            await chain.publish_weights(1, [0], [1], 2, salt=[1])
        with pytest.raises(NotRegistered):
            await chain.publish_weights(2, [0], [1], 2, salt=[1])
        me = network.stranger.ss58_address
        assert await blocks_to_wait(chain._node, "SettingWeightsTooFast", 1, me) == 1
        assert await blocks_to_wait(chain._node, "ServingRateLimitExceeded", 1, me) == 1
        assert await blocks_to_wait(chain._node, "StakingRateLimitExceeded", 1, me) == 1
        assert await blocks_to_wait(chain._node, "TooManyRegistrationsThisInterval", 1, me) >= 1
        assert 1 <= await blocks_to_wait(chain._node, "SpaceLimitExceeded", 1, me) <= 10

    play(network, network.stranger, scenario)


def test_what_is_in_force_and_what_it_costs_can_be_looked_at(network: LedgerNetwork) -> None:
    async def scenario(chain: BittensorChain, peer: SubstratePeer) -> None:
        assert await chain.weights_in_force(1) == {}
        await asyncio.to_thread(peer.advance, 3)
        await chain.set_weights(1, [0, 2], [1, 3], 2)
        assert await chain.weights_in_force(1) == {1: {0: 21845, 2: 65535}}
        with network.ledger.read() as tx:
            assert await chain.registration_price(1) == price(tx, 1)
            assert await chain.balance_of(network.miner.ss58_address) == tx.balance(network.miner.ss58_address)
        assert await chain.balance_of(signer_from_seed(b"nobody has ever seen this key..!").ss58_address) == 0
        for ask, code in (
            (chain.weights_in_force(60_000), "unknown_subnet"),
            (chain.registration_price(60_000), "unknown_subnet"),
            (chain.balance_of("5Nobody"), "malformed_call"),
        ):
            with pytest.raises(ChainRefused) as refused:
                await ask
            assert refused.value.error_code == code

    play(network, network.validator, scenario)
