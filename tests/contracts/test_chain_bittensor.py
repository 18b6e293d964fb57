"""The adapter passes the chain's conformance suite on a node whose metadata is the real network's.

What only the adapter has to do comes after the suite. The node is ``tests/support/substrate_peer.py``, on loop-back.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from chain_conformance import ChainConformance
from ledger_network import TAO, key
from peer_network import PeerNetwork, decode_metadata_once, peer_network, play
from substrate_extrinsics import Rules

from gas.chain.base import Axon
from gas.chain.bittensor.chain import BittensorChain
from gas.chain.keys import Signer, public_key
from gas.chain.local import views
from gas.chain.weights import weights_hash
from gas.clock import SystemClock
from gas.errors import ChainRefused, RateLimited

_DRAND_START, _DRAND_SECONDS = 1_692_803_367, 3
"""The beacon "quicknet", from its public description."""


@pytest.fixture(autouse=True)
def metadata_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decode_metadata_once(monkeypatch)


@pytest.fixture
def network(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PeerNetwork]:
    """Its indirect parameter are the peer's options."""
    with peer_network(tmp_path, **getattr(request, "param", {})) as found:
        yield found


class TestBittensorChain(ChainConformance):
    pass


# Calls by metadata.


def test_weights_go_by_the_mechanism_call_where_the_runtime_has_it(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        await network.advance(3)
        start = network.peer.head.number
        await chain.set_weights(1, [0], [1], 2)
        assert network.peer.calls(start) == ["SubtensorModule.set_mechanism_weights"]

    play(network, network.validator, scenario)


_MECHANISMS = ("set_mechanism_weights", "commit_mechanism_weights", "reveal_mechanism_weights")


@pytest.mark.parametrize("network", [{"hidden": _MECHANISMS}], indirect=True)
def test_weights_go_by_the_plain_calls_where_the_runtime_has_no_mechanisms(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        await network.advance(3)
        start = network.peer.head.number
        await chain.set_weights(1, [0], [1], 2)
        digest = weights_hash(network.validator.ss58_address, 2, [0], [5], [1, 2, 3], 2)
        await chain.commit_weights(2, digest)
        await network.advance(10)
        await chain.reveal_weights(2, [0], [5], [1, 2, 3], 2)
        assert network.peer.calls(start) == [
            f"SubtensorModule.{name}" for name in ("set_weights", "commit_weights", "reveal_weights")
        ]

    play(network, network.validator, scenario)


@pytest.mark.parametrize("network", [{"hidden": ("get_selective_metagraph",)}], indirect=True)
def test_the_whole_metagraph_serves_where_there_is_no_selective_one(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        graph = await chain.metagraph(1)
        assert [n.hotkey for n in graph.neurons][1:] == [network.validator.ss58_address, network.miner.ss58_address]
        assert graph.neurons[1].stake >= 400 * TAO

    play(network, network.miner, scenario)


def test_a_runtime_upgrade_is_noticed_before_the_next_signature(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        await chain.set_commitment(1, "before")
        old = network.peer.chain.rules
        network.peer.chain.rules = Rules(old.genesis, old.spec_version + 1, old.transaction_version)
        await chain.set_commitment(1, "after")
        found = await chain.get_commitment(1, network.miner.ss58_address)
        assert found is not None
        assert found.data == "after"

    play(network, network.miner, scenario)


# The snapshot.


def test_the_metagraph_says_what_the_ledger_says(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        await network.advance(3)
        await chain.set_weights(1, [0, 2], [1, 3], 2)
        await chain.serve_axon(1, Axon("203.0.113.7", 8091))
        await network.advance(11)
        with network.net.ledger.read() as tx:
            expected = views.metagraph(tx, 1)
            rules = tx.subnet(1).hyperparameters
        assert await chain.metagraph(1) == expected
        assert await chain.hyperparameters(1) == rules

    play(network, network.validator, scenario)


def test_a_long_idle_service_reads_the_head_though_old_states_are_pruned(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        before = await chain.metagraph(1)
        await network.advance(300)
        assert network.peer.chain.blocks[before.block].state is None
        assert (await chain.metagraph(1)).block == before.block + 300
        await chain.set_commitment(1, "still here")

    play(network, network.miner, scenario)


# Rate limits.


def test_a_rate_limit_says_for_how_many_blocks(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        await network.advance(3)
        await chain.set_weights(1, [0], [1], 2)
        set_in = network.peer.head.number
        with pytest.raises(RateLimited) as limited:
            await chain.set_weights(1, [0], [1], 2)
        # Counted from the newest block, in which the refused call is.
        assert limited.value.blocks == set_in + 3 - network.peer.head.number
        await network.advance(limited.value.blocks)
        await chain.set_weights(1, [0], [1], 2)

    play(network, network.validator, scenario)


def test_an_axons_rate_limit_says_for_how_many_blocks(network: PeerNetwork) -> None:
    network.peer.chain.memory.serving_rate_limit = 5
    network.peer.advance(1)

    async def scenario(chain: BittensorChain) -> None:
        await chain.serve_axon(1, Axon("203.0.113.7", 8091))
        with pytest.raises(RateLimited) as limited:
            await chain.serve_axon(1, Axon("203.0.113.7", 8092))
        # The pool refuses it, so that no block has passed.
        assert limited.value.blocks == 5
        await network.advance(4)
        with pytest.raises(RateLimited) as limited:
            await chain.serve_axon(1, Axon("203.0.113.7", 8092))
        assert limited.value.blocks == 1
        await network.advance(1)
        await chain.serve_axon(1, Axon("203.0.113.7", 8092))

    play(network, network.miner, scenario)


def test_weights_below_the_networks_stake_are_refused_by_the_pool(network: PeerNetwork) -> None:
    changes = {"netuid": 1, "changes": {"min_stake": 10**6 * TAO}}
    network.net.ledger.call(network.net.owner, "set_hyperparameters", changes)
    network.peer.advance(3)

    async def scenario(chain: BittensorChain) -> None:
        with pytest.raises(ChainRefused) as refused:
            await chain.set_weights(1, [0], [1], 2)
        assert refused.value.error_code == "stake_below_minimum"
        assert (await chain.hyperparameters(1)).min_stake == 10**6 * TAO

    play(network, network.validator, scenario)
    assert network.nonce(network.validator) == 0


# Commit and reveal.


def test_sealed_weights_are_on_the_chain_with_a_round_of_the_beacon_to_come(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        await network.advance(3)
        start = network.peer.head.number
        before = (int(time.time()) - _DRAND_START) // _DRAND_SECONDS
        receipt = await chain.publish_weights(2, [0, 2], [1, 2], 2, salt=[7])
        assert (receipt.kind, receipt.block) == ("timelocked", network.peer.head.number)
        assert network.peer.calls(start) == ["SubtensorModule.commit_timelocked_mechanism_weights"]
        (commit,) = network.peer.chain.memory.timelocked
        assert commit.account == public_key(network.validator.ss58_address)
        assert (commit.netuid, commit.block, commit.reveal_round) == (2, receipt.block, receipt.reveal_round)
        # Block 15 of a tempo of 10 at 12 s: the next epoch is some blocks away, and never two tempos.
        now = (int(time.time()) - _DRAND_START) // _DRAND_SECONDS
        assert before <= commit.reveal_round <= now + 3 * 10 * 12 // _DRAND_SECONDS
        # The seal hides the weights: two seals of the same weights have nothing in common.
        assert len(commit.ciphertext) > 100
        with pytest.raises(RateLimited):
            await chain.publish_weights(2, [0, 2], [1, 2], 2, salt=[7])
        await network.advance(3)
        await chain.publish_weights(2, [0, 2], [1, 2], 2, salt=[7])
        assert network.peer.chain.memory.timelocked[1].ciphertext[:64] != commit.ciphertext[:64]

    play(network, network.validator, scenario)


@pytest.mark.parametrize("network", [{"commit_reveal_version": 2}], indirect=True)
def test_a_network_of_version_2_gets_a_hash_that_can_be_revealed(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        await network.advance(3)
        start = network.peer.head.number
        receipt = await chain.publish_weights(2, [2], [9], 2, salt=[7, 8])
        assert receipt.kind == "committed"
        await network.advance(10)
        await chain.reveal_weights(2, receipt.uids, receipt.weights, receipt.salt, receipt.version_key)
        assert network.peer.calls(start) == [
            "SubtensorModule.commit_mechanism_weights",
            "SubtensorModule.reveal_mechanism_weights",
        ]
        await network.advance(10)
        assert (await chain.metagraph(2)).neurons[2].incentive > 0.99

    play(network, network.validator, scenario)


def test_a_commit_that_was_not_revealed_in_its_epoch_has_expired(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        await network.advance(3)
        await chain.commit_weights(2, weights_hash(network.validator.ss58_address, 2, [0], [5], [1], 2))
        await network.advance(30)
        with pytest.raises(ChainRefused) as late:
            await chain.reveal_weights(2, [0], [5], [1], 2)
        assert late.value.error_code == "commit_expired"

    play(network, network.validator, scenario)


def test_a_seal_to_a_round_that_has_passed_is_refused(network: PeerNetwork) -> None:
    network.peer.chain.memory.drand_round = 2**40
    network.peer.advance(3)

    async def scenario(chain: BittensorChain) -> None:
        with pytest.raises(ChainRefused):
            await chain.commit_timelocked(2, [0], [1], 2)

    play(network, network.validator, scenario)
    assert network.peer.chain.memory.timelocked == []


# Keys, signatures, replays.


@dataclass
class Forger:
    """Claims one address and signs with another's key."""

    ss58_address: Any
    other: Signer

    def sign(self, message: bytes) -> bytes:
        return self.other.sign(message)


def test_a_wrong_signature_is_refused_and_takes_no_nonce(network: PeerNetwork) -> None:
    async def scenario(chain: BittensorChain) -> None:
        with pytest.raises(ChainRefused) as refused:
            await chain.set_commitment(1, "forged")
        assert refused.value.error_code == "bad_signature"
        assert await chain.get_commitment(1, network.miner.ss58_address) is None

    play(network, Forger(network.miner.ss58_address, network.stranger), scenario)
    assert network.nonce(network.miner) == 0


def test_a_coldkey_pays_for_a_hotkey_that_signs_everything_else(network: PeerNetwork) -> None:
    hotkey = key("another hotkey")
    network.peer.chain.dispatcher.keyring[hotkey.ss58_address] = hotkey

    async def work() -> None:
        chain = BittensorChain(network.peer.url, hotkey, SystemClock(), coldkey=network.stranger)
        try:
            before = await chain.balance()
            uid = await chain.register(1)
            assert await chain.balance() < before
            await chain.add_stake(1, 5 * TAO)
            await chain.set_commitment(1, "by the hotkey")
            neuron = (await chain.metagraph(1)).neurons[uid]
            assert (neuron.hotkey, neuron.coldkey) == (hotkey.ss58_address, network.stranger.ss58_address)
            assert neuron.stake == 5 * TAO
            await chain.remove_stake(1, 2 * TAO)
            assert (await chain.metagraph(1)).neurons[uid].stake == 3 * TAO
        finally:
            await chain.close()

    asyncio.run(work())
    assert (network.nonce(hotkey), network.nonce(network.stranger)) == (1, 3)


def test_services_that_share_a_hotkey_all_get_their_turn(network: PeerNetwork) -> None:
    async def work() -> None:
        chains = [network.connect(network.miner) for _ in range(3)]
        try:
            await asyncio.gather(*(chain.set_commitment(1, str(i)) for i, chain in enumerate(chains)))
            await asyncio.gather(
                *(chain.serve_axon(1, Axon("203.0.113.7", 8000 + i)) for i, chain in enumerate(chains))
            )
        finally:
            for chain in chains:
                await chain.close()

    asyncio.run(work())
    assert network.nonce(network.miner) == 6
