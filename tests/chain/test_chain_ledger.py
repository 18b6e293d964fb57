"""The rules of the ledger; in each test somebody who cheats gets nothing out of it."""

from __future__ import annotations

import dataclasses
import hashlib
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gas.chain.keys import public_key, signer_from_seed
from gas.chain.local.calls import sign_call
from gas.chain.local.founding import (
    add_stake,
    create_ledger,
    create_subnet,
    ensure_balance,
    ensure_registered,
    ensure_stake,
    faucet,
    register,
)
from gas.chain.local.ledger import MAX_GAP_BLOCKS, Ledger
from gas.chain.local.rules import HALF_LIFE_BLOCKS, MAX_ISSUANCE, Economics, decayed_price, raised_price
from gas.chain.local.views import commitment, emissions, metagraph, price, stored_weights
from gas.chain.weights import max_upscale, weights_hash
from gas.clock import ManualClock
from gas.errors import (
    ChainError,
    ChainRefused,
    CommitRevealRequired,
    ConfigurationError,
    NoPermit,
    NotRegistered,
    RateLimited,
    StaleVersion,
)

TAO = 10**9
ROOT = signer_from_seed(bytes(32)).ss58_address


def code(error: pytest.ExceptionInfo[ChainError]) -> str:
    return error.value.error_code


# Signatures and money


def test_a_call_with_another_keys_signature_moves_nothing(found) -> None:
    town = found()
    town.join("rich")
    before = town.ledger.totals()
    params = {"address": town.cold("thief").ss58_address, "amount": 5}
    with town.ledger.read() as tx:
        nonce = tx.nonce(town.cold("rich").ss58_address)
    theirs = sign_call(town.ledger.chain_id, "transfer", params, signer=town.cold("thief"), nonce=nonce)
    forged = dataclasses.replace(theirs, signer=town.cold("rich").ss58_address)
    with pytest.raises(ChainRefused) as error:
        town.ledger.submit(forged)
    assert code(error) == "bad_signature"
    assert town.ledger.totals() == before


def test_a_call_whose_amount_was_changed_after_signing_is_refused(found) -> None:
    town = found()
    town.join("rich")
    thief = town.cold("thief").ss58_address
    with town.ledger.read() as tx:
        nonce = tx.nonce(town.cold("rich").ss58_address)
    call = sign_call(
        town.ledger.chain_id, "transfer", {"address": thief, "amount": 1}, signer=town.cold("rich"), nonce=nonce
    )
    with pytest.raises(ChainRefused) as error:
        town.ledger.submit(dataclasses.replace(call, params={"address": thief, "amount": 10**9}))
    assert code(error) == "bad_signature"


def test_a_replayed_call_pays_once(found) -> None:
    town = found()
    town.join("rich")
    thief = town.cold("thief").ss58_address
    with town.ledger.read() as tx:
        nonce = tx.nonce(town.cold("rich").ss58_address)
    call = sign_call(
        town.ledger.chain_id, "transfer", {"address": thief, "amount": 7}, signer=town.cold("rich"), nonce=nonce
    )
    town.ledger.submit(call)
    with pytest.raises(ChainRefused) as error:
        town.ledger.submit(call)
    assert code(error) == "bad_nonce"
    with town.ledger.read() as tx:
        assert tx.balance(thief) == 7


def test_a_call_signed_for_another_ledger_is_refused(found) -> None:
    one, other = found(), found()
    one.join("rich")
    other.join("rich")
    with other.ledger.read() as tx:
        nonce = tx.nonce(one.cold("rich").ss58_address)
    call = sign_call(
        one.ledger.chain_id,
        "transfer",
        {"address": one.cold("thief").ss58_address, "amount": 7},
        signer=one.cold("rich"),
        nonce=nonce,
    )
    with pytest.raises(ChainRefused) as error:
        other.ledger.submit(call)
    assert code(error) == "bad_signature"


@pytest.mark.parametrize("amount", [0, -1, 2**63, 1.5, True, "5", None])
def test_an_amount_that_is_no_positive_integer_is_refused(found, amount) -> None:
    town = found()
    town.join("rich")
    with pytest.raises(ChainRefused) as error:
        town.ledger.call(town.cold("rich"), "transfer", {"address": town.cold("thief").ss58_address, "amount": amount})
    assert code(error) == "malformed_call"


def test_nobody_spends_what_they_do_not_have(found) -> None:
    town = found()
    town.join("rich")
    poor = town.cold("poor")
    with pytest.raises(ChainRefused) as error:
        town.ledger.call(poor, "transfer", {"address": town.cold("rich").ss58_address, "amount": 1})
    assert code(error) == "insufficient_balance"


def test_only_root_mints_and_never_beyond_the_cap(found) -> None:
    town = found()
    me = town.cold("me").ss58_address
    with pytest.raises(ChainRefused) as error:
        faucet(town.ledger, town.cold("me"), me, TAO)
    assert code(error) == "not_root"
    with pytest.raises(ChainRefused) as error:
        faucet(town.ledger, town.root, me, MAX_ISSUANCE + 1)
    assert code(error) == "issuance_cap"
    assert town.ledger.totals().issued == 0


def test_only_root_founds_subnets_and_only_the_owner_changes_their_rules(found) -> None:
    town = found()
    me = town.cold("me").ss58_address
    with pytest.raises(ChainRefused) as error:
        create_subnet(town.ledger, town.cold("me"), 2, owner=me, owner_hotkey=town.hot("me").ss58_address)
    assert code(error) == "not_root"
    with pytest.raises(ChainRefused) as error:
        town.ledger.call(town.cold("me"), "set_hyperparameters", {"netuid": 1, "changes": {"tempo": 1}})
    assert code(error) == "not_owner"
    owner = town.cold("owner")
    town.ledger.call(owner, "set_hyperparameters", {"netuid": 1, "changes": {"tempo": 20}})
    with town.ledger.read() as tx:
        assert tx.subnet(1).hyperparameters.tempo == 20
    for changes, expected in (
        ({"tempo": 0}, "bad_parameter"),
        ({"kappa": 70000}, "bad_parameter"),
        ({"yuma3": 1}, "bad_parameter"),
        ({"emission_per_block": 5}, "unknown_parameter"),
    ):
        with pytest.raises(ChainRefused) as error:
            town.ledger.call(owner, "set_hyperparameters", {"netuid": 1, "changes": changes})
        assert code(error) == expected
    with pytest.raises(ChainRefused) as error:
        town.ledger.call(owner, "set_economics", {"netuid": 1, "changes": {"emission_per_block": 5 * TAO}})
    assert code(error) == "not_root"


def test_stake_of_another_coldkey_can_not_be_taken(found) -> None:
    town = found()
    town.join("rich", stake=50 * TAO)
    with pytest.raises(ChainRefused) as error:
        town.ledger.call(
            town.cold("thief"),
            "remove_stake",
            {"netuid": 1, "hotkey": town.hot("rich").ss58_address, "amount": TAO},
        )
    assert code(error) == "not_owner"
    with pytest.raises(ChainRefused) as error:
        town.ledger.call(
            town.cold("rich"),
            "remove_stake",
            {"netuid": 1, "hotkey": town.hot("rich").ss58_address, "amount": 51 * TAO},
        )
    assert code(error) == "insufficient_stake"
    assert town.stake("rich") == 50 * TAO


def test_a_file_that_was_tampered_with_refuses_further_calls(found) -> None:
    town = found()
    town.join("rich")
    outside = sqlite3.connect(town.path)
    outside.execute("UPDATE accounts SET balance = balance + 1")
    outside.commit()
    outside.close()
    with pytest.raises(ChainError) as error:
        town.join("next")
    assert code(error) == "not_conserved"


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["transfer", "add_stake", "remove_stake", "register", "advance", "weigh"]),
            st.integers(0, 3),
            st.integers(0, 3),
            st.integers(1, 2000 * TAO),
        ),
        max_size=25,
    )
)
def test_money_is_conserved_whatever_people_do(found, steps) -> None:
    town = found()
    people = ["owner", "ann", "bob", "cyd"]
    for name in people[1:]:
        faucet(town.ledger, town.root, town.cold(name).ss58_address, 1000 * TAO)
    for what, who, whom, amount in steps:
        a, b = people[who], people[whom]
        hotkey = town.hot(b).ss58_address
        try:
            if what == "advance":
                town.ledger.advance(amount % 30)
            elif what == "register":
                register(town.ledger, town.cold(a), town.hot(a), 1)
            elif what == "weigh":
                town.weigh(a, {whom: 1})
            elif what == "transfer":
                town.ledger.call(town.cold(a), what, {"address": town.cold(b).ss58_address, "amount": amount})
            else:
                town.ledger.call(town.cold(a), what, {"netuid": 1, "hotkey": hotkey, "amount": amount})
        except ChainError:
            pass
        assert town.sums_agree()


# Registration


def test_the_price_rises_by_26_percent_and_halves_in_360_blocks() -> None:
    rules = Economics(burn_floor=1, burn_ceiling=10**12)
    assert raised_price(10**9, rules) == 1_260_000_000
    assert abs(decayed_price(10**9, HALF_LIFE_BLOCKS, rules) - 5 * 10**8) <= 1
    assert abs(decayed_price(10**9, 2 * HALF_LIFE_BLOCKS, rules) - 25 * 10**7) <= 1
    assert decayed_price(10**9, 10**9, rules) == 1
    assert raised_price(10**12, rules) == 10**12


@given(st.integers(1, 10**12), st.integers(0, 10**5), st.integers(0, 10**5))
def test_the_price_never_rises_with_time_and_decays_the_same_in_one_step_or_two(price_, a, b) -> None:
    rules = Economics(burn_floor=1, burn_ceiling=10**15)
    whole = decayed_price(price_, a + b, rules)
    assert whole <= decayed_price(price_, a, rules)
    assert abs(whole - decayed_price(decayed_price(price_, a, rules), b, rules)) <= 2


def test_registration_burns_the_price_and_raises_it(found) -> None:
    town = found(economics={"burn_floor": TAO})
    town.join("ann")
    assert town.ledger.totals().burned == TAO
    with town.ledger.read() as tx:
        assert price(tx, 1) == 1_260_000_000
    town.ledger.advance(HALF_LIFE_BLOCKS)
    with town.ledger.read() as tx:
        assert price(tx, 1) == TAO


def test_who_can_not_pay_gets_no_slot(found) -> None:
    town = found(economics={"burn_floor": TAO})
    with pytest.raises(ChainRefused) as error:
        register(town.ledger, town.cold("poor"), town.hot("poor"), 1)
    assert code(error) == "insufficient_balance"
    assert len(town.graph().neurons) == 1


def test_a_stranger_can_not_register_a_hotkey_and_so_own_its_pay(found) -> None:
    town = found()
    faucet(town.ledger, town.root, town.cold("thief").ss58_address, 100 * TAO)
    victim = town.hot("victim")
    with pytest.raises(ChainRefused) as error:
        town.ledger.call(town.cold("thief"), "register", {"netuid": 1, "hotkey": victim.ss58_address})
    assert code(error) == "hotkey_signature_missing"
    town.join("victim")
    with pytest.raises(ChainRefused) as error:
        register(town.ledger, town.cold("thief"), victim, 1)
    assert code(error) == "already_registered"


def test_a_full_subnet_prunes_the_least_paid_and_oldest_but_never_the_owner(found) -> None:
    town = found(max_allowed_uids=12)
    for index in range(11):
        town.ledger.advance(1)
        town.join(f"m{index}")
    town.ledger.advance(8)
    town.ledger.call(town.hot("m0"), "set_commitment", {"netuid": 1, "data": "mine"})
    town.ledger.call(town.hot("m0"), "serve_axon", {"netuid": 1, "ip": "127.0.0.1", "port": 80, "protocol": 4})
    assert town.join("late") == 1
    graph = town.graph()
    assert graph.by_hotkey(town.hot("m0").ss58_address) is None
    newcomer = graph.neurons[1]
    assert newcomer.hotkey == town.hot("late").ss58_address
    assert newcomer.axon is None
    assert newcomer.last_update == newcomer.registered_at == graph.block
    assert graph.owner_uid == 0
    with town.ledger.read() as tx:
        assert commitment(tx, 1, town.hot("m0").ss58_address) is None


def test_an_immune_newcomer_outlives_an_older_one_while_ten_are_not_immune(found) -> None:
    town = found(max_allowed_uids=12, immunity_period=100)
    for index in range(10):
        town.join(f"old{index}")
    town.ledger.advance(100)
    town.join("young")
    assert town.join("late") == 1
    assert town.graph().by_hotkey(town.hot("young").ss58_address) is not None


def test_with_fewer_than_ten_non_immune_the_immune_go_first(found) -> None:
    town = found(max_allowed_uids=4, immunity_period=100)
    town.join("old")
    town.ledger.advance(100)
    town.join("young1")
    town.join("young2")
    assert town.join("late") == 2
    assert town.graph().by_hotkey(town.hot("old").ss58_address) is not None


def test_a_pruned_hotkey_keeps_its_stake_and_gets_it_back(found) -> None:
    town = found(max_allowed_uids=2, tempo=1000)
    town.join("ann", stake=5 * TAO)
    town.join("bob")
    assert town.graph().by_hotkey(town.hot("ann").ss58_address) is None
    town.ledger.call(
        town.cold("ann"), "remove_stake", {"netuid": 1, "hotkey": town.hot("ann").ss58_address, "amount": 5 * TAO}
    )
    assert town.stake("ann") == 0


# Axons and commitments


@pytest.mark.parametrize("ip", ["", "localhost", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "1.2.3", "1.2.3.4\n"])
def test_an_axon_where_nobody_can_listen_is_refused(found, ip) -> None:
    town = found()
    town.join("ann")
    with pytest.raises(ChainRefused) as error:
        town.ledger.call(town.hot("ann"), "serve_axon", {"netuid": 1, "ip": ip, "port": 80, "protocol": 4})
    assert code(error) == "bad_axon"


def test_a_commitment_has_at_most_128_bytes_and_is_dated_by_its_block(found) -> None:
    town = found()
    town.join("ann")
    ann = town.hot("ann")
    with pytest.raises(ChainRefused) as error:
        town.ledger.call(ann, "set_commitment", {"netuid": 1, "data": "é" * 65})
    assert code(error) == "commitment_too_long"
    town.ledger.call(ann, "set_commitment", {"netuid": 1, "data": "é" * 64})
    town.ledger.advance(3)
    town.ledger.call(ann, "set_commitment", {"netuid": 1, "data": "new"})
    with town.ledger.read() as tx:
        found_ = commitment(tx, 1, ann.ss58_address)
    assert found_ is not None
    assert (found_.data, found_.block) == ("new", 3)


def test_text_that_is_no_unicode_is_refused(found) -> None:
    town = found()
    town.join("ann")
    with pytest.raises(ChainRefused) as error:
        town.ledger.call(town.hot("ann"), "set_commitment", {"netuid": 1, "data": "\ud800"})
    assert code(error) == "malformed_call"


# Weights


def refusals(town, *, last: int) -> list[tuple[str, str, dict[int, int] | tuple[list[int], list[int]], int, int]]:
    return [
        ("unknown_subnet", "ghost", ([1, 1], [1]), 0, 9),
        ("length_mismatch", "ghost", ([1, 1], [1]), 0, 1),
        ("not_registered", "ghost", ([99, 99], [1, 1]), 0, 1),
        ("stake_below_minimum", "poor", ([99, 99], [1, 1]), 0, 1),
        ("stale_version", "vali", ([99, 99], [1, 1]), 0, 1),
        ("rate_limited", "vali", ([99, 99], [1, 1]), 7, 1),
        ("no_permit", "mere", ([99, 99], [1, 1]), 7, 1),
        ("duplicate_uids", "other", ([99, 99], [1, 1]), 7, 1),
        ("unknown_uids", "other", ([99], [1]), 7, 1),
        ("too_few_weights", "other", ([1], [1]), 7, 1),
    ]


def test_set_weights_is_refused_in_the_order_of_the_rules(found) -> None:
    """Each call breaks its own rule and all of the rules below it; the topmost is the answer."""
    town = found(
        weights_version=7,
        min_stake=TAO,
        weights_rate_limit=100,
        min_allowed_weights=2,
        max_allowed_validators=2,
        tempo=200,
    )
    for name, stake in (("vali", 50 * TAO), ("other", 40 * TAO), ("mere", 2 * TAO), ("poor", 0)):
        town.join(name, stake=stake)
    town.ledger.advance(200)
    town.weigh("vali", {1: 1, 2: 1}, version_key=7)
    for expected, who, (uids, values), version, netuid in refusals(town, last=200):
        with pytest.raises(ChainError) as error:
            town.ledger.call(
                town.hot(who),
                "set_weights",
                {"netuid": netuid, "uids": uids, "weights": values, "version_key": version},
            )
        assert code(error) == expected
    assert list(_weights(town)) == [1]


def _weights(town):
    with town.ledger.read() as tx:
        return stored_weights(tx, 1)


def test_the_rate_limit_says_how_many_blocks_to_wait(found) -> None:
    town = found(weights_rate_limit=100)
    with pytest.raises(RateLimited) as error:
        town.weigh("owner", {0: 1})
    assert error.value.blocks == 100
    town.ledger.advance(99)
    with pytest.raises(RateLimited) as error:
        town.weigh("owner", {0: 1})
    assert error.value.blocks == 1
    town.ledger.advance(1)
    town.weigh("owner", {0: 1})


def test_owner_and_a_single_self_weight_need_no_permit(found) -> None:
    town = found()
    uid = town.join("ann", stake=TAO)
    town.weigh("owner", {uid: 5})
    town.weigh("ann", {uid: 5})
    with pytest.raises(NoPermit):
        town.weigh("ann", {0: 5})
    assert _weights(town) == {0: {uid: 65535}, uid: {uid: 65535}}


def test_typed_errors_match_their_rules(found) -> None:
    town = found(weights_version=3)
    with pytest.raises(NotRegistered):
        town.weigh("ghost", {0: 1})
    with pytest.raises(StaleVersion):
        town.weigh("owner", {0: 1}, version_key=2)


@given(st.lists(st.integers(0, 65535), max_size=50))
def test_weights_are_scaled_to_the_largest(values) -> None:
    scaled = max_upscale(values)
    assert len(scaled) == len(values)
    assert max(scaled, default=0) == (65535 if any(values) else 0)
    assert sorted(scaled) == max_upscale(sorted(values))
    assert [v == 0 for v in values] == [v == 0 for v in scaled]


# Commit and reveal


def commit(town, name, uids, values, salt=(7, 8), version=0) -> None:
    digest = weights_hash(town.hot(name).ss58_address, 1, uids, values, salt, version)
    town.ledger.call(town.hot(name), "commit_weights", {"netuid": 1, "hash": digest.hex()})


def reveal(town, name, uids, values, salt=(7, 8), version=0) -> None:
    town.ledger.call(
        town.hot(name),
        "reveal_weights",
        {"netuid": 1, "uids": list(uids), "weights": list(values), "salt": list(salt), "version_key": version},
    )


def test_the_commit_hash_is_the_networks_own() -> None:
    # SCALE by hand: account id, u16 little endian, compact length (n << 2), u16s, u64.
    address = ROOT
    scale = (
        public_key(address)
        + bytes([1, 0])
        + bytes([2 << 2, 0, 0, 3, 1])
        + bytes([2 << 2, 255, 255, 1, 0])
        + bytes([1 << 2, 9, 0])
        + bytes([4, 0, 0, 0, 0, 0, 0, 0])
    )
    expected = hashlib.blake2b(scale, digest_size=32).digest()
    assert weights_hash(address, 1, [0, 259], [65535, 1], [9], 4) == expected


def test_a_commit_reveal_subnet_refuses_plain_weights_and_takes_a_reveal_one_epoch_later(found) -> None:
    town = found(commit_reveal=True)
    uid = town.join("ann")
    town.ledger.advance(1)
    with pytest.raises(CommitRevealRequired):
        town.weigh("owner", {uid: 1})
    commit(town, "owner", [uid], [9])
    with pytest.raises(ChainRefused) as error:
        reveal(town, "owner", [uid], [9])
    assert code(error) == "reveal_too_early"
    town.ledger.advance(10)
    with pytest.raises(ChainRefused) as error:
        reveal(town, "owner", [uid], [8])
    assert code(error) == "no_such_commit"
    reveal(town, "owner", [uid], [9])
    assert _weights(town) == {0: {uid: 65535}}
    with pytest.raises(ChainRefused) as error:
        reveal(town, "owner", [uid], [9])
    assert code(error) == "no_such_commit"


def test_revealed_weights_are_as_old_as_their_commit(found) -> None:
    town = found(commit_reveal=True)
    uid = town.join("ann")
    town.ledger.advance(3)
    commit(town, "owner", [uid], [9])
    committed = town.ledger.block()
    town.ledger.advance(10)
    reveal(town, "owner", [uid], [9])
    with town.ledger.read() as tx:
        assert metagraph(tx, 1).neurons[0].last_update == committed < tx.block


def test_a_late_reveal_has_expired(found) -> None:
    town = found(commit_reveal=True)
    uid = town.join("ann")
    town.ledger.advance(1)
    commit(town, "owner", [uid], [9])
    town.ledger.advance(20)
    with pytest.raises(ChainRefused) as error:
        reveal(town, "owner", [uid], [9])
    assert code(error) == "commit_expired"
    assert _weights(town) == {}


def test_another_validator_can_not_copy_a_commit(found) -> None:
    town = found(commit_reveal=True)
    uid = town.join("ann")
    town.join("copycat", stake=100 * TAO)
    town.ledger.advance(10)
    digest = weights_hash(town.hot("owner").ss58_address, 1, [uid], [9], [1], 0)
    for who in ("owner", "copycat"):
        town.ledger.call(town.hot(who), "commit_weights", {"netuid": 1, "hash": digest.hex()})
    town.ledger.advance(10)
    reveal(town, "owner", [uid], [9], salt=[1])
    with pytest.raises(ChainRefused) as error:
        reveal(town, "copycat", [uid], [9], salt=[1])
    assert code(error) == "no_such_commit"


def test_weights_committed_for_a_pruned_miner_do_not_pay_whoever_took_its_slot(found) -> None:
    town = found(commit_reveal=True, max_allowed_uids=2)
    uid = town.join("ann")
    town.ledger.advance(1)
    commit(town, "owner", [0, uid], [1, 9])
    town.ledger.advance(2)
    assert town.join("bob") == uid
    town.ledger.advance(8)
    reveal(town, "owner", [0, uid], [1, 9])
    assert _weights(town) == {0: {0: 7281}}


def test_who_commits_and_never_reveals_counts_as_idle_and_is_still_rate_limited(found) -> None:
    town = found(commit_reveal=True, weights_rate_limit=5, activity_cutoff=15)
    uid = town.join("ann")
    town.ledger.advance(5)
    commit(town, "owner", [uid], [9])
    town.ledger.advance(4)
    with pytest.raises(RateLimited) as error:
        commit(town, "owner", [uid], [8])
    assert error.value.blocks == 1
    town.ledger.advance(1)
    commit(town, "owner", [uid], [8])
    town.ledger.advance(6)
    assert not town.graph().neurons[0].active


def test_weights_and_bonds_of_a_pruned_miner_do_not_pay_its_successor(found) -> None:
    town = found(max_allowed_uids=3)
    vali, miner = town.join("vali", stake=100 * TAO), town.join("miner")
    town.ledger.advance(10)
    town.weigh("vali", {miner: 1})
    town.ledger.advance(10)
    town.ledger.call(town.cold("owner"), "set_hyperparameters", {"netuid": 1, "changes": {"immunity_period": 0}})
    # Now the miner earns less than the validator, so it is the one to go.
    town.weigh("vali", {miner: 1, 0: 3})
    town.ledger.advance(10)
    assert town.join("newcomer") == miner
    assert _weights(town) == {vali: {0: 65535}}
    town.ledger.advance(10)
    newcomer = town.graph().neurons[miner]
    assert (newcomer.incentive, newcomer.emission) == (0, 0)


def test_a_call_from_inside_a_transaction_is_an_error_and_no_dead_lock(found) -> None:
    town = found()
    with town.ledger.read(), pytest.raises(ChainError) as error:
        town.ledger.block()
    assert code(error) == "nested"
    assert town.ledger.block() == 0


# Epochs, pay and time


def test_an_epoch_pays_miner_validator_and_owner_to_the_last_rao(found) -> None:
    town = found(economics={"emission_per_block": 1_000_000_007})
    vali, miner = town.join("vali", stake=100 * TAO), town.join("miner")
    town.ledger.advance(10)
    assert town.graph().neurons[vali].permit
    before = {name: town.stake(name) for name in ("vali", "miner", "owner")}
    town.weigh("vali", {miner: 1})
    assert town.ledger.advance(10) == 20
    emission = 10 * 1_000_000_007
    owner = emission * 18 // 100
    paid = {name: town.stake(name) - before[name] for name in before}
    assert sum(paid.values()) == emission
    assert paid["owner"] == owner
    assert abs(paid["miner"] - (emission - owner) // 2) <= 1
    assert abs(paid["vali"] - (emission - owner) // 2) <= 1
    neurons = town.graph().neurons
    assert neurons[miner].incentive == 1.0
    assert neurons[vali].dividends == 1.0
    assert neurons[miner].emission == paid["miner"]
    with town.ledger.read() as tx:
        pay = emissions(tx, 1, 2)
    assert pay[town.hot("miner").ss58_address].total == paid["miner"]
    assert pay[town.hot("owner").ss58_address].owner_share == owner
    assert town.sums_agree()


def test_the_owners_incentive_is_burned(found) -> None:
    town = found(economics={"burn_floor": 0, "burn_ceiling": 0})
    town.join("vali", stake=100 * TAO)
    town.ledger.advance(10)
    town.weigh("vali", {0: 1})
    burned = town.ledger.totals().burned
    town.ledger.advance(10)
    assert abs(town.ledger.totals().burned - burned - 4_100_000_000) <= 1


def test_a_self_vote_pays_its_validator_no_incentive(found) -> None:
    town = found()
    uid = town.join("vali", stake=100 * TAO)
    town.ledger.advance(10)
    town.weigh("vali", {uid: 1})
    town.ledger.advance(10)
    assert town.graph().neurons[uid].incentive == 0


def test_epochs_that_were_slept_through_run_one_by_one_and_emission_never_passes_the_cap(found) -> None:
    town = found(economics={"emission_per_block": 1000 * TAO})
    town.join("vali", stake=TAO)
    town.ledger.advance(95)
    with town.ledger.read() as tx:
        subnet = tx.subnet(1)
    assert (subnet.epochs, subnet.last_epoch) == (9, 90)
    faucet(town.ledger, town.root, town.cold("x").ss58_address, MAX_ISSUANCE - town.ledger.totals().issued - 5)
    town.ledger.advance(30)
    assert town.ledger.totals().issued == MAX_ISSUANCE
    assert town.sums_agree()


def test_two_subnets_run_in_the_order_of_blocks(found) -> None:
    town = found()
    create_subnet(
        town.ledger,
        town.root,
        2,
        owner=town.cold("owner").ss58_address,
        owner_hotkey=town.hot("owner").ss58_address,
        hyperparameters={"tempo": 3},
    )
    town.ledger.advance(9)
    with town.ledger.read() as tx:
        assert (tx.subnet(1).epochs, tx.subnet(2).epochs) == (0, 3)
    town.ledger.advance(1)
    with town.ledger.read() as tx:
        assert (tx.subnet(1).epochs, tx.subnet(2).epochs) == (1, 3)


@pytest.fixture
def timed(tmp_path):
    clock = ManualClock()
    ledger = create_ledger(tmp_path / "timed.db", root=ROOT, clock=clock, block_seconds=2.0)
    yield ledger, clock
    ledger.close()


def test_blocks_follow_the_clock_and_survive_a_restart(timed, tmp_path) -> None:
    ledger, clock = timed
    assert ledger.block() == 0
    clock.advance(7)
    assert ledger.block() == 3
    with Ledger(tmp_path / "timed.db", clock) as again:
        clock.advance(2)
        assert again.block() == 4
    with pytest.raises(ChainRefused) as error:
        ledger.advance(1)
    assert code(error) == "not_manual"


def test_a_clock_that_jumps_back_neither_turns_back_nor_stops_the_chain(timed) -> None:
    ledger, clock = timed
    clock.advance(100)
    assert ledger.block() == 50
    clock.advance(-80)
    assert ledger.block() == 50
    clock.advance(4)
    assert ledger.block() == 52


def test_a_clock_that_jumps_a_year_ahead_counts_as_a_chain_that_stood_still(timed) -> None:
    ledger, clock = timed
    clock.advance(365 * 86400)
    assert ledger.block() == MAX_GAP_BLOCKS
    clock.advance(2)
    assert ledger.block() == MAX_GAP_BLOCKS + 1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(-1e5, 1e5), max_size=20))
def test_block_numbers_never_fall(tmp_path_factory, jumps) -> None:
    clock = ManualClock()
    path = tmp_path_factory.mktemp("clock") / "chain.db"
    with create_ledger(path, root=ROOT, clock=clock, block_seconds=3.0) as ledger:
        last = 0
        for jump in jumps:
            clock.advance(jump)
            block = ledger.block()
            assert block >= last
            last = block


# Files and founding


def test_founding_again_says_that_it_is_done(found) -> None:
    town = found()
    town.join("ann", stake=TAO)
    with pytest.raises(ConfigurationError) as error:
        create_ledger(town.path, root=town.root.ss58_address, clock=town.clock)
    assert error.value.error_code == "ledger_exists"
    with pytest.raises(ChainRefused) as refused:
        create_subnet(
            town.ledger,
            town.root,
            1,
            owner=town.cold("owner").ss58_address,
            owner_hotkey=town.hot("owner").ss58_address,
        )
    assert code(refused) == "subnet_exists"
    before = town.ledger.totals()
    ann = town.cold("ann")
    assert ensure_registered(town.ledger, ann, town.hot("ann"), 1) == 1
    assert ensure_stake(town.ledger, ann, town.hot("ann").ss58_address, 1, TAO) == TAO
    ensure_balance(town.ledger, town.root, ann.ss58_address, TAO)
    assert town.ledger.totals() == before
    assert add_stake(town.ledger, ann, town.hot("ann").ss58_address, 1, 1) == TAO + 1


def test_the_ledgers_file_is_its_owners_only(found) -> None:
    town = found()
    assert town.path.stat().st_mode & 0o777 == 0o600


def test_no_ledger_an_empty_file_and_a_broken_file_are_told_apart(tmp_path) -> None:
    clock = ManualClock()
    with pytest.raises(ConfigurationError) as error:
        Ledger(tmp_path / "none.db", clock)
    assert error.value.error_code == "ledger_missing"
    (tmp_path / "empty.db").touch()
    with pytest.raises(ConfigurationError) as error:
        Ledger(tmp_path / "empty.db", clock)
    assert error.value.error_code == "ledger_missing"
    (tmp_path / "broken.db").write_bytes(b"no database, whatever its name says" * 100)
    with pytest.raises(ChainError) as unreachable:
        Ledger(tmp_path / "broken.db", clock)
    assert unreachable.value.error_code == "chain_unreachable"


def test_unknown_and_oversized_calls_are_refused(found) -> None:
    town = found()
    with pytest.raises(ChainRefused) as error:
        town.ledger.call(town.root, "mint_all", {})
    assert code(error) == "unknown_call"
    with pytest.raises(ChainRefused) as error:
        town.ledger.call(town.root, "transfer", {"address": "x" * 300_000, "amount": 1})
    assert code(error) == "malformed_call"
