"""Calls about a subnet and its slots: founding, rules, registration, axons, commitments."""

from __future__ import annotations

import ipaddress
import json
from typing import Final

from gas.chain.base import Hyperparameters
from gas.chain.local.calls import Params, SignedCall
from gas.chain.local.money import require_root
from gas.chain.local.rules import Economics, changed_rules, decayed_price, raised_price, write_rules
from gas.chain.local.state import Subnet, Transaction
from gas.errors import ChainRefused

__all__ = [
    "create_subnet",
    "register",
    "registration_price",
    "serve_axon",
    "set_commitment",
    "set_economics",
    "set_hyperparameters",
]

_MAX_COMMITMENT_BYTES: Final = 128
_MIN_NON_IMMUNE: Final = 10


def create_subnet(tx: Transaction, call: SignedCall) -> int:
    """Found a subnet; root only, because emission is a subnet's. Returns the netuid.

    The owner's hotkey takes uid 0 without paying, and never loses it.
    """
    require_root(tx, call)
    params = Params(call.params)
    netuid, owner, hotkey = params.netuid(), params.address("owner"), params.address("owner_hotkey")
    if tx.sql.execute("SELECT 1 FROM subnets WHERE netuid = ?", (netuid,)).fetchone():
        raise ChainRefused(f"Subnet {netuid} exists already.", code="subnet_exists")
    rules = changed_rules(Hyperparameters(), params.mapping("hyperparameters"))
    economics = changed_rules(Economics(), params.mapping("economics"))
    tx.sql.execute(
        "INSERT INTO subnets (netuid, owner, owner_hotkey, tempo, hyperparameters, economics, last_epoch, price, "
        "price_block) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            netuid,
            owner,
            hotkey,
            rules.tempo,
            write_rules(rules),
            write_rules(economics),
            tx.block,
            economics.burn_floor,
            tx.block,
        ),
    )
    _claim(tx, hotkey, owner)
    _seat(tx, netuid, 0, hotkey)
    return netuid


def set_hyperparameters(tx: Transaction, call: SignedCall) -> int:
    """Change a subnet's rules; its owner only. Returns the netuid."""
    params = Params(call.params)
    subnet = tx.subnet(params.netuid())
    if call.signer != subnet.owner:
        raise ChainRefused("Only the subnet's owner may change its rules.", code="not_owner")
    rules = changed_rules(subnet.hyperparameters, params.mapping("changes"))
    taken = tx.sql.execute("SELECT COUNT(*) FROM neurons WHERE netuid = ?", (subnet.netuid,)).fetchone()[0]
    if rules.max_allowed_uids < taken:
        raise ChainRefused("More slots are taken than that.", code="bad_parameter")
    tx.sql.execute(
        "UPDATE subnets SET hyperparameters = ?, tempo = ? WHERE netuid = ?",
        (write_rules(rules), rules.tempo, subnet.netuid),
    )
    return subnet.netuid


def set_economics(tx: Transaction, call: SignedCall) -> int:
    """Change what money does on a subnet; root only. Returns the netuid."""
    require_root(tx, call)
    params = Params(call.params)
    subnet = tx.subnet(params.netuid())
    economics = changed_rules(subnet.economics, params.mapping("changes"))
    tx.sql.execute("UPDATE subnets SET economics = ? WHERE netuid = ?", (write_rules(economics), subnet.netuid))
    return subnet.netuid


def registration_price(subnet: Subnet, block: int) -> int:
    """What a slot costs in a block, in rao."""
    return decayed_price(subnet.price, block - subnet.price_block, subnet.economics)


def register(tx: Transaction, call: SignedCall) -> int:
    """Burn the price from the signer's account for a slot of its hotkey, which must agree. Returns the uid."""
    params = Params(call.params)
    hotkey = params.address("hotkey")
    subnet = tx.subnet(params.netuid())
    if hotkey not in (call.signer, call.cosigner):
        # Otherwise a stranger could claim a hotkey, and with it what it will earn.
        raise ChainRefused("The hotkey must sign its registration too.", code="hotkey_signature_missing")
    if tx.sql.execute("SELECT 1 FROM neurons WHERE netuid = ? AND hotkey = ?", (subnet.netuid, hotkey)).fetchone():
        raise ChainRefused("The hotkey is registered already.", code="already_registered")
    _claim(tx, hotkey, call.signer)
    price = registration_price(subnet, tx.block)
    uid = _free_slot(tx, subnet)
    tx.debit(call.signer, price)
    tx.burn(price)
    tx.sql.execute(
        "UPDATE subnets SET price = ?, price_block = ? WHERE netuid = ?",
        (raised_price(price, subnet.economics), tx.block, subnet.netuid),
    )
    _seat(tx, subnet.netuid, uid, hotkey)
    return uid


def serve_axon(tx: Transaction, call: SignedCall) -> None:
    """Publish where the signer listens."""
    params = Params(call.params)
    netuid, port = params.netuid(), params.integer("port", 1, 65535)
    protocol = params.integer("protocol", 0, 255)
    try:
        ip = ipaddress.ip_address(params.text("ip", 45))
    except ValueError:
        raise ChainRefused("The axon's ip is no IP address.", code="bad_axon") from None
    if ip.is_unspecified or ip.is_multicast or str(ip) == "255.255.255.255":
        raise ChainRefused("Nobody can listen on the axon's ip.", code="bad_axon")
    tx.subnet(netuid)
    neuron = tx.neuron(netuid, call.signer)
    tx.sql.execute(
        "UPDATE neurons SET ip = ?, port = ?, protocol = ? WHERE netuid = ? AND uid = ?",
        (str(ip), port, protocol, netuid, neuron["uid"]),
    )


def set_commitment(tx: Transaction, call: SignedCall) -> int:
    """Publish a text under the signer's hotkey, in place of the one before. Returns the block."""
    params = Params(call.params)
    netuid = params.netuid()
    data = params.text("data", 4096)
    if len(data.encode()) > _MAX_COMMITMENT_BYTES:
        raise ChainRefused(f"A commitment has at most {_MAX_COMMITMENT_BYTES} bytes.", code="commitment_too_long")
    tx.subnet(netuid)
    tx.neuron(netuid, call.signer)
    tx.sql.execute(
        "INSERT OR REPLACE INTO commitments (netuid, hotkey, data, block) VALUES (?, ?, ?, ?)",
        (netuid, call.signer, data, tx.block),
    )
    return tx.block


def _claim(tx: Transaction, hotkey: str, coldkey: str) -> None:
    owner = tx.owner_of(hotkey)
    if owner is None:
        tx.sql.execute("INSERT INTO hotkeys (hotkey, coldkey) VALUES (?, ?)", (hotkey, coldkey))
    elif owner != coldkey:
        raise ChainRefused("The hotkey belongs to another coldkey.", code="not_owner")


def _seat(tx: Transaction, netuid: int, uid: int, hotkey: str) -> None:
    tx.sql.execute(
        "INSERT INTO neurons (netuid, uid, hotkey, registered_at, last_update) VALUES (?, ?, ?, ?, ?)",
        (netuid, uid, hotkey, tx.block, tx.block),
    )
    tx.sql.execute(
        "INSERT OR IGNORE INTO stakes (netuid, hotkey, amount) VALUES (?, ?, 0)",
        (netuid, hotkey),
    )


def _free_slot(tx: Transaction, subnet: Subnet) -> int:
    """The next free uid, or the pruned one's after everything of its neuron is gone."""
    taken = tx.sql.execute("SELECT COUNT(*) FROM neurons WHERE netuid = ?", (subnet.netuid,)).fetchone()[0]
    if taken < subnet.hyperparameters.max_allowed_uids:
        return int(taken)
    rows = tx.sql.execute(
        "SELECT uid, hotkey, registered_at FROM neurons WHERE netuid = ? AND hotkey <> ? "
        "ORDER BY emission, registered_at, uid",
        (subnet.netuid, subnet.owner_hotkey),
    ).fetchall()
    oldest_immune = tx.block - subnet.hyperparameters.immunity_period
    mortal = [row for row in rows if row["registered_at"] <= oldest_immune]
    immune = [row for row in rows if row["registered_at"] > oldest_immune]
    candidates = mortal if len(mortal) >= _MIN_NON_IMMUNE or not immune else immune
    if not candidates:
        raise ChainRefused("Every slot is the owner's.", code="subnet_full")
    pruned = candidates[0]
    for statement in (
        "DELETE FROM neurons WHERE netuid = ? AND hotkey = ?",
        "DELETE FROM commitments WHERE netuid = ? AND hotkey = ?",
        "DELETE FROM weight_commits WHERE netuid = ? AND hotkey = ?",
    ):
        tx.sql.execute(statement, (subnet.netuid, pruned["hotkey"]))
    _forget_uid(tx, subnet.netuid, int(pruned["uid"]))
    return int(pruned["uid"])


def _forget_uid(tx: Transaction, netuid: int, uid: int) -> None:
    """Strike a pruned neuron from everybody's weights and bonds: its successor earns its own."""
    rows = tx.sql.execute("SELECT uid, weights, bonds FROM neurons WHERE netuid = ?", (netuid,)).fetchall()
    for row in rows:
        weights, bonds = json.loads(row["weights"]), json.loads(row["bonds"])
        kept = [[entry for entry in entries if entry[0] != uid] for entries in (weights, bonds)]
        if kept != [weights, bonds]:
            tx.sql.execute(
                "UPDATE neurons SET weights = ?, bonds = ? WHERE netuid = ? AND uid = ?",
                (json.dumps(kept[0]), json.dumps(kept[1]), netuid, row["uid"]),
            )
