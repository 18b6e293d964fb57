"""What the runtime answers becomes the seam's records, and nonsense a node that does not answer."""

from __future__ import annotations

from typing import Any

import pytest

from gas.chain.base import Axon, Hyperparameters
from gas.chain.bittensor.views import METAGRAPH_FIELDS, axon, commitment, commitment_fields, hyperparameters, metagraph
from gas.errors import ChainUnreachable

HOTKEYS = ["5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"]
NO_AXON = {"ip": 0, "port": 0, "ip_type": 0, "protocol": 0}
AN_AXON = {"ip": 0xCB007107, "port": 8091, "ip_type": 4, "protocol": 4}
RULES = {
    "tempo": 100,
    "max_validators": 64,
    "min_allowed_weights": 8,
    "weights_rate_limit": 50,
    "weights_version": 7,
    "activity_cutoff": 1388,
    "immunity_period": 4096,
    "kappa": 32767,
    "bonds_moving_avg": 900_000,
    "alpha_low": 45875,
    "alpha_high": 58982,
    "commit_reveal_period": 3,
    "liquid_alpha_enabled": True,
    "commit_reveal_weights_enabled": True,
}


def graph() -> dict[str, Any]:
    return {
        "netuid": 1,
        "owner_hotkey": HOTKEYS[1],
        "block": 4_000_000,
        "hotkeys": HOTKEYS,
        "coldkeys": HOTKEYS[::-1],
        "axons": [NO_AXON, AN_AXON],
        "active": [True, False],
        "validator_permit": [True, False],
        "last_update": [3_999_990, 10],
        "emission": [5, 10**9],
        "dividends": [65535, 0],
        "incentives": [0, 65535],
        "consensus": [0, 32768],
        "block_at_registration": [7, 9],
        "total_stake": [10**15, 0],
    }


def test_a_metagraph_keeps_every_number_in_its_units() -> None:
    found = metagraph(1, graph(), [65535])
    assert (found.netuid, found.block, found.owner_uid) == (1, 4_000_000, 1)
    first, second = found.neurons
    assert (first.uid, first.hotkey, first.coldkey) == (0, HOTKEYS[0], HOTKEYS[1])
    assert (first.stake, first.permit, first.active, first.axon) == (10**15, True, True, None)
    assert (first.dividends, first.validator_trust, first.incentive) == (1.0, 1.0, 0.0)
    assert (second.incentive, second.emission, second.last_update, second.registered_at) == (1.0, 10**9, 10, 9)
    assert second.consensus == pytest.approx(0.5, abs=1e-4)
    assert second.axon == Axon("203.0.113.7", 8091)
    assert second.validator_trust == 0.0


def test_an_owner_without_a_slot_has_no_uid() -> None:
    assert (
        metagraph(1, graph() | {"owner_hotkey": "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM"}, []).owner_uid == -1
    )


@pytest.mark.parametrize("field", METAGRAPH_FIELDS[1:])
@pytest.mark.parametrize("value", [None, "x", [1]])
def test_a_metagraph_that_makes_no_sense_is_a_node_that_does_not_answer(field: str, value: Any) -> None:
    if field == "owner_hotkey":
        return
    with pytest.raises(ChainUnreachable):
        metagraph(1, graph() | {field: value}, [])


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (NO_AXON, None),
        (AN_AXON, Axon("203.0.113.7", 8091)),
        (AN_AXON | {"port": 0}, None),
        (AN_AXON | {"ip": 2**32}, None),
        (AN_AXON | {"ip": 1, "ip_type": 6}, Axon("::1", 8091)),
        (AN_AXON | {"ip": 2**127, "ip_type": 6, "protocol": 1}, Axon("8000::", 8091, 1)),
    ],
)
def test_an_axon_is_where_somebody_can_listen(record: dict[str, Any], found: Axon | None) -> None:
    assert axon(record) == found


def test_rules_come_from_the_runtime_and_what_it_lacks_from_storage() -> None:
    stored = {"max_allowed_uids": 64, "bonds_penalty": 0, "min_stake": 5, "yuma3": True, "alpha_sigmoid_steepness": 9}
    assert hyperparameters(RULES, stored) == Hyperparameters(
        tempo=100,
        max_allowed_uids=64,
        min_allowed_weights=8,
        weights_rate_limit=50,
        weights_version=7,
        activity_cutoff=1388,
        bonds_penalty=0,
        yuma3=True,
        liquid_alpha=True,
        alpha_sigmoid_steepness=9,
        commit_reveal=True,
        commit_reveal_period=3,
        min_stake=5,
    )


def test_rules_that_an_older_runtime_lacks_stay_as_usual() -> None:
    found = hyperparameters(RULES, dict.fromkeys(["max_allowed_uids", "bonds_penalty", "yuma3"]))
    assert (found.max_allowed_uids, found.bonds_penalty, found.yuma3) == (256, 65535, False)


@pytest.mark.parametrize("name", RULES)
def test_rules_with_a_gap_are_a_node_that_does_not_answer(name: str) -> None:
    with pytest.raises(ChainUnreachable):
        hyperparameters({key: value for key, value in RULES.items() if key != name}, {})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ([{"Raw2": "0x6869"}], "hi"),
        ([[{"Raw2": "0x6869"}]], "hi"),
        ([[{"Raw1": "0x68"}, {"Raw1": "0x69"}]], "hi"),
        ([{"Raw0": []}], ""),
        ([{"Raw2": "0xff68"}], "\ufffdh"),
        ([{"Sha256": "0x" + "00" * 32}], None),
        ([{"TimelockEncrypted": {"encrypted": "0x00", "reveal_round": 5}}], None),
        (["None"], None),
        ([], None),
        (None, None),
    ],
)
def test_a_commitment_is_its_plain_text(fields: Any, text: str | None) -> None:
    found = commitment(HOTKEYS[0], {"deposit": 0, "block": 12, "info": {"fields": fields}})
    assert (None if found is None else found.data) == text


def test_a_commitment_of_129_bytes_is_too_long() -> None:
    assert commitment_fields(b"x" * 128)
    with pytest.raises(ValueError, match="128"):
        commitment_fields(b"x" * 129)
