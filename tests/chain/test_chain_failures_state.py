"""Money at every block, whatever people do; clocks that jump and slide; snapshots while slots change hands."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gas.chain.keys import KeySigner, signer_from_seed
from gas.chain.local.founding import create_ledger, create_subnet, faucet, register
from gas.chain.local.ledger import Ledger
from gas.chain.local.rules import MAX_ISSUANCE
from gas.chain.local.views import metagraph, stored_weights
from gas.clock import ManualClock
from gas.errors import ChainError, ChainRefused

TAO = 10**9
PEOPLE = st.sampled_from(["owner", "ann", "bob", "cyd", "dan", "eve"])
AMOUNTS = st.integers(-5, 5) | st.integers(1, 3000 * TAO) | st.sampled_from([2**62, 2**63, 2**64, -(2**63)])


def key(name: str) -> KeySigner:
    return signer_from_seed(hashlib.sha256(name.encode()).digest())


class Market(RuleBasedStateMachine):
    """Six people on a subnet of four slots do what they like, often what they may not."""

    @initialize(share=st.sampled_from([0, 180_000, 1_000_000]), emission=st.sampled_from([0, 7, TAO]))
    def found(self, share: int, emission: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.root = key("root")
        self.ledger = create_ledger(
            Path(self.folder.name) / "chain.db", root=self.root.ss58_address, clock=ManualClock(), manual=True
        )
        create_subnet(
            self.ledger,
            self.root,
            1,
            owner=self.cold("owner").ss58_address,
            owner_hotkey=self.hot("owner").ss58_address,
            hyperparameters={
                "tempo": 5,
                "max_allowed_uids": 4,
                "immunity_period": 3,
                "weights_rate_limit": 2,
                "max_allowed_validators": 2,
            },
            economics={"emission_per_block": emission, "owner_share_ppm": share},
        )
        self.emission, self.minted = emission, 0
        for name in ("ann", "bob", "cyd", "dan"):
            self.mint(name, 1000 * TAO)
        for name, share in (("ann", 30), ("bob", 40), ("cyd", 1)):
            self.register(name)
            self.stake_a_part(name, share)
        # The first epoch gives them permits.
        self.ledger.advance(5)
        self.weigh("ann", {0: 1, 3: 3})
        self.weigh("bob", {0: 2, 3: 1})
        self.pass_blocks(5)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.folder.cleanup()

    def cold(self, name: str) -> KeySigner:
        return key(f"{name}/cold")

    def hot(self, name: str) -> KeySigner:
        return key(f"{name}/hot")

    def call(self, signer: KeySigner, kind: str, params: dict[str, Any], cosigner: KeySigner | None = None) -> bool:
        """Whether the call went through; one that didn't has changed nothing."""
        before = self.ledger.totals()
        try:
            self.ledger.call(signer, kind, params, cosigner=cosigner)
        except ChainError as error:
            assert error.error_code != "not_conserved"
            assert self.ledger.totals() == before
            return False
        return True

    @rule(who=PEOPLE, amount=AMOUNTS)
    def mint_some(self, who: str, amount: int) -> None:
        self.mint(who, amount)

    def mint(self, who: str, amount: int) -> None:
        if self.call(self.root, "faucet", {"address": self.cold(who).ss58_address, "amount": amount}):
            assert 0 < amount <= MAX_ISSUANCE
            self.minted += amount

    @rule(thief=PEOPLE)
    def mint_without_being_root(self, thief: str) -> None:
        params = {"address": self.cold(thief).ss58_address, "amount": 1}
        assert not self.call(self.cold(thief), "faucet", params)

    @rule(who=PEOPLE, whom=PEOPLE, amount=AMOUNTS)
    def transfer(self, who: str, whom: str, amount: int) -> None:
        params = {"address": self.cold(whom).ss58_address, "amount": amount}
        assert not self.call(self.cold(who), "transfer", params) or amount > 0

    @rule(who=PEOPLE, whom=PEOPLE, amount=AMOUNTS, kind=st.sampled_from(["add_stake", "remove_stake"]))
    def stake(self, who: str, whom: str, amount: int, kind: str) -> None:
        params = {"netuid": 1, "hotkey": self.hot(whom).ss58_address, "amount": amount}
        assert not self.call(self.cold(who), kind, params) or (who == whom and amount > 0)

    @rule(who=PEOPLE)
    def register(self, who: str) -> None:
        self.call(self.cold(who), "register", {"netuid": 1, "hotkey": self.hot(who).ss58_address}, self.hot(who))

    @rule(who=PEOPLE, whose=PEOPLE)
    def register_without_the_hotkeys_consent(self, who: str, whose: str) -> None:
        params = {"netuid": 1, "hotkey": self.hot(whose).ss58_address}
        assert not self.call(self.cold(who), "register", params)

    @rule(who=PEOPLE, share=st.integers(1, 100))
    def stake_a_part(self, who: str, share: int) -> None:
        with self.ledger.read() as tx:
            have = tx.balance(self.cold(who).ss58_address)
        self.stake(who, who, max(1, have * share // 100), "add_stake")

    @rule(who=PEOPLE, share=st.integers(1, 100))
    def unstake_a_part(self, who: str, share: int) -> None:
        with self.ledger.read() as tx:
            have = tx.stake(1, self.hot(who).ss58_address)
        self.stake(who, who, max(1, have * share // 100), "remove_stake")

    @rule(who=PEOPLE, weights=st.dictionaries(st.integers(0, 3), st.integers(1, 65535), min_size=1))
    def weigh(self, who: str, weights: dict[int, int]) -> None:
        uids, values = list(weights), list(weights.values())
        params = {"netuid": 1, "uids": uids, "weights": values, "version_key": 0}
        self.call(self.hot(who), "set_weights", params)

    @rule(who=PEOPLE)
    def weigh_a_uid_that_is_not_there(self, who: str) -> None:
        params = {"netuid": 1, "uids": [0, 4], "weights": [1, 1], "version_key": 0}
        assert not self.call(self.hot(who), "set_weights", params)

    @rule(who=PEOPLE, text=st.text(max_size=5))
    def commit(self, who: str, text: str) -> None:
        self.call(self.hot(who), "set_commitment", {"netuid": 1, "data": text})

    @rule(blocks=st.integers(1, 12))
    def pass_blocks(self, blocks: int) -> None:
        for _ in range(blocks):
            self.ledger.advance(1)
            self.money_is_conserved()

    @rule()
    def reopen(self) -> None:
        path = self.ledger.path
        self.ledger.close()
        self.ledger = Ledger(path, ManualClock())

    @invariant()
    def money_is_conserved(self) -> None:
        if not hasattr(self, "ledger"):
            return
        totals = self.ledger.totals()
        assert totals.balances + totals.staked + totals.burned == totals.issued
        with self.ledger.read() as tx:
            subnet, graph, weights = tx.subnet(1), metagraph(tx, 1), stored_weights(tx, 1)
        event("somebody has weights" if weights else "nobody has")
        event("somebody earns" if any(neuron.incentive for neuron in graph.neurons) else "nobody earns")
        # Nothing is issued but by the faucet and by epochs.
        assert totals.issued == min(self.minted + self.emission * subnet.last_epoch, MAX_ISSUANCE)
        assert min(totals.balances, totals.staked, totals.burned) >= 0
        assert len(graph.neurons) <= 4
        assert len({neuron.hotkey for neuron in graph.neurons}) == len(graph.neurons)
        assert graph.neurons[0].hotkey == self.hot("owner").ss58_address
        assert {uid for row in weights.values() for uid in row} <= {neuron.uid for neuron in graph.neurons}


Market.TestCase.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMarket = Market.TestCase


# Clocks


@pytest.fixture
def timed(tmp_path: Path):
    clock = ManualClock()
    root = key("root")
    ledger = create_ledger(tmp_path / "timed.db", root=root.ss58_address, clock=clock, block_seconds=10.0)
    create_subnet(
        ledger, root, 1, owner=root.ss58_address, owner_hotkey=root.ss58_address, hyperparameters={"tempo": 5}
    )
    yield ledger, clock
    ledger.close()


def test_a_clock_that_slides_back_step_by_step_does_not_hold_the_chain(timed) -> None:
    ledger, clock = timed
    clock.advance(1000)
    assert ledger.block() == 100
    for _ in range(50):
        clock.advance(-9)
        ledger.tick()
        assert ledger.block() == 100
    for blocks in range(1, 6):
        clock.advance(10)
        assert ledger.block() in (100 + blocks - 1, 100 + blocks)
    assert ledger.block() >= 104


def test_after_a_clock_jumped_back_calls_and_epochs_go_on_as_before(timed) -> None:
    ledger, clock = timed
    clock.advance(62)
    assert ledger.block() == 6
    clock.advance(-86400 * 400)
    faucet(ledger, key("root"), key("ann").ss58_address, TAO)
    assert ledger.block() == 6
    with ledger.read() as tx:
        assert tx.subnet(1).epochs == 1
    clock.advance(40)
    assert ledger.block() == 10
    with ledger.read() as tx:
        assert tx.subnet(1).epochs == 2


def test_a_paused_chain_stands_still_is_moved_by_hand_and_goes_on_from_there(timed) -> None:
    ledger, clock = timed
    clock.advance(35)
    assert ledger.pause() == 3
    assert ledger.pause() == 3
    clock.advance(10_000)
    assert ledger.block() == 3
    assert ledger.manual
    assert ledger.advance(4) == 7
    clock.advance(-50_000)
    assert ledger.resume() == 7
    assert not ledger.manual
    with pytest.raises(ChainRefused) as error:
        ledger.advance(1)
    assert error.value.error_code == "not_manual"
    clock.advance(20)
    assert ledger.block() == 9
    assert ledger.resume() == 9
    with ledger.read() as tx:
        assert tx.subnet(1).epochs == 1


def test_a_signed_advance_that_is_sent_twice_moves_the_chain_once(found) -> None:
    town = found()
    for _ in range(2):
        town.ledger.call(town.root, "advance", {"to_block": 25})
        assert town.ledger.block() == 25
    for params in ({}, {"to_block": -1}, {"to_block": True}, {"to_block": "9"}, {"to_block": 2**60}):
        with pytest.raises(ChainRefused):
            town.ledger.call(town.root, "advance", params)
    assert town.ledger.block() == 25


# Snapshots


def test_a_snapshot_is_whole_while_slots_change_hands(found) -> None:
    town = found(max_allowed_uids=5, immunity_period=0, tempo=3)
    for number in range(4):
        town.join(f"first {number}")
    for number in range(25):
        faucet(town.ledger, town.root, town.cold(f"next {number}").ss58_address, 1000 * TAO)
    done = threading.Event()
    seen: list[set[str]] = []

    def watch() -> None:
        with Ledger(town.path, town.clock) as ledger:
            while not done.is_set():
                with ledger.read() as tx:
                    graph = metagraph(tx, 1)
                    assert graph.block == tx.block
                hotkeys = [neuron.hotkey for neuron in graph.neurons]
                assert [neuron.uid for neuron in graph.neurons] == list(range(5))
                assert len(set(hotkeys)) == 5
                assert all(neuron.registered_at <= neuron.last_update <= graph.block for neuron in graph.neurons)
                seen.append(set(hotkeys))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(25):
            with suppress(ChainRefused):
                register(town.ledger, town.cold(f"next {number}"), town.hot(f"next {number}"), 1)
            town.ledger.advance(1)
    finally:
        done.set()
        watcher.join()
    # A replacement changes one slot, and the watcher never saw half of one.
    assert len(seen) > 1
    assert all(len(hotkeys) == 5 for hotkeys in seen)
