"""Calls about weights: plain, and by commit and reveal; refusals in the order of the network."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from gas.chain.local.calls import Params, SignedCall
from gas.chain.local.state import Subnet, Transaction
from gas.chain.weights import max_upscale, weights_hash
from gas.errors import ChainRefused, CommitRevealRequired, NoPermit, RateLimited, StaleVersion

__all__ = ["commit_weights", "reveal_weights", "set_weights"]

_MAX_OPEN_COMMITS: Final = 10
_U64: Final = 2**64 - 1


def set_weights(tx: Transaction, call: SignedCall) -> None:
    """Set the signer's weights, max-upscaled."""
    params = Params(call.params)
    netuid, version_key = params.netuid(), params.integer("version_key", 0, _U64)
    uids, values = params.u16s("uids"), params.u16s("weights")
    subnet = tx.subnet(netuid)
    if subnet.hyperparameters.commit_reveal:
        raise CommitRevealRequired(
            f"Subnet {netuid} takes weights by commit and reveal only.", hint="Commit, and reveal one period later."
        )
    neuron = _check(tx, subnet, call.signer, uids, values, version_key, rate_limited=True)
    tx.sql.execute(
        "UPDATE neurons SET weights = ?, last_update = ? WHERE netuid = ? AND uid = ?",
        (_row(uids, max_upscale(values)), tx.block, netuid, neuron["uid"]),
    )


def commit_weights(tx: Transaction, call: SignedCall) -> None:
    """Commit to weights; ``last_update`` waits for the reveal, so that who never reveals counts as idle."""
    params = Params(call.params)
    netuid, digest = params.netuid(), params.text("hash", 64)
    subnet = tx.subnet(netuid)
    if not subnet.hyperparameters.commit_reveal:
        raise ChainRefused(f"Subnet {netuid} takes plain weights.", code="commit_reveal_disabled")
    try:
        commit_hash = bytes.fromhex(digest)
    except ValueError:
        commit_hash = b""
    if len(commit_hash) != 32:
        raise ChainRefused("A commit is a hash of 32 bytes.", code="malformed_call")
    _check_rate(tx, subnet, tx.neuron(netuid, call.signer))
    # A reveal is due exactly one period after its commit; older ones can't be revealed any more.
    tx.sql.execute(
        "DELETE FROM weight_commits WHERE netuid = ? AND hotkey = ? AND epoch < ?",
        (netuid, call.signer, subnet.epochs - subnet.hyperparameters.commit_reveal_period),
    )
    count = tx.sql.execute(
        "SELECT COUNT(*) FROM weight_commits WHERE netuid = ? AND hotkey = ?", (netuid, call.signer)
    ).fetchone()[0]
    if count >= _MAX_OPEN_COMMITS:
        raise ChainRefused(f"There are {count} unrevealed commits.", code="too_many_commits")
    tx.sql.execute(
        "INSERT OR REPLACE INTO weight_commits (netuid, hotkey, hash, block, epoch) VALUES (?, ?, ?, ?, ?)",
        (netuid, call.signer, commit_hash, tx.block, subnet.epochs),
    )


def reveal_weights(tx: Transaction, call: SignedCall) -> None:
    """Reveal weights in exactly the epoch that is one period after their commit; they are as old as the commit."""
    params = Params(call.params)
    netuid, version_key = params.netuid(), params.integer("version_key", 0, _U64)
    uids, values, salt = params.u16s("uids"), params.u16s("weights"), params.u16s("salt")
    subnet = tx.subnet(netuid)
    if not subnet.hyperparameters.commit_reveal:
        raise ChainRefused(f"Subnet {netuid} takes plain weights.", code="commit_reveal_disabled")
    tx.neuron(netuid, call.signer)
    digest = weights_hash(call.signer, netuid, uids, values, salt, version_key)
    commit = tx.sql.execute(
        "SELECT block, epoch FROM weight_commits WHERE netuid = ? AND hotkey = ? AND hash = ?",
        (netuid, call.signer, digest),
    ).fetchone()
    if commit is None:
        raise ChainRefused("No open commit has this hash.", code="no_such_commit")
    due = commit["epoch"] + subnet.hyperparameters.commit_reveal_period
    if subnet.epochs < due:
        raise ChainRefused(f"The reveal is due {due - subnet.epochs} epochs from now.", code="reveal_too_early")
    if subnet.epochs > due:
        raise ChainRefused("The commit has expired.", code="commit_expired", hint="Commit again.")
    neuron = _check(tx, subnet, call.signer, uids, values, version_key, rate_limited=False)
    # Whoever took a slot after the commit is not whom the commit meant.
    meant = {
        row["uid"]
        for row in tx.sql.execute(
            "SELECT uid FROM neurons WHERE netuid = ? AND registered_at < ?", (netuid, commit["block"])
        )
    }
    kept = [(uid, value) for uid, value in zip(uids, max_upscale(values), strict=True) if uid in meant]
    tx.sql.execute(
        "UPDATE neurons SET weights = ?, last_update = MAX(last_update, ?) WHERE netuid = ? AND uid = ?",
        (_row([uid for uid, _ in kept], [value for _, value in kept]), commit["block"], netuid, neuron["uid"]),
    )
    tx.sql.execute(
        "DELETE FROM weight_commits WHERE netuid = ? AND hotkey = ? AND block <= ?",
        (netuid, call.signer, commit["block"]),
    )


def _row(uids: Sequence[int], values: Sequence[int]) -> str:
    return json.dumps(sorted(zip(uids, values, strict=True)))


def _check_rate(tx: Transaction, subnet: Subnet, neuron: sqlite3.Row) -> None:
    committed = tx.sql.execute(
        "SELECT COALESCE(MAX(block), 0) FROM weight_commits WHERE netuid = ? AND hotkey = ?",
        (subnet.netuid, neuron["hotkey"]),
    ).fetchone()[0]
    wait = max(int(neuron["last_update"]), int(committed)) + subnet.hyperparameters.weights_rate_limit - tx.block
    if wait > 0:
        raise RateLimited("Weights were set too short a time ago.", blocks=wait)


def _check(
    tx: Transaction,
    subnet: Subnet,
    hotkey: str,
    uids: Sequence[int],
    values: Sequence[int],
    version_key: int,
    *,
    rate_limited: bool,
) -> sqlite3.Row:
    """The network's order of refusals after "unknown subnet"; the first that applies is the answer."""
    rules = subnet.hyperparameters
    if len(uids) != len(values):
        raise ChainRefused("There must be one weight for each uid.", code="length_mismatch")
    neuron = tx.neuron(subnet.netuid, hotkey)
    if tx.stake(subnet.netuid, hotkey) < rules.min_stake:
        raise ChainRefused(f"Setting weights takes {rules.min_stake} rao of stake.", code="stake_below_minimum")
    if version_key < rules.weights_version:
        raise StaleVersion(
            f"The version key {version_key} is below the subnet's {rules.weights_version}.",
            hint="The subnet's owner says what it stands for; --version-key names yours.",
        )
    if rate_limited:
        _check_rate(tx, subnet, neuron)
    self_weight = list(uids) == [neuron["uid"]]
    if not neuron["permit"] and hotkey != subnet.owner_hotkey and not self_weight:
        raise NoPermit("The hotkey has no validator permit.", hint="Permits go to the largest stakes at each epoch.")
    if len(set(uids)) != len(uids):
        raise ChainRefused("A uid is named twice.", code="duplicate_uids")
    count = tx.sql.execute("SELECT COUNT(*) FROM neurons WHERE netuid = ?", (subnet.netuid,)).fetchone()[0]
    if any(uid >= count for uid in uids):
        raise ChainRefused("A uid is not taken.", code="unknown_uids")
    if len(uids) < rules.min_allowed_weights and not self_weight:
        raise ChainRefused(f"At least {rules.min_allowed_weights} weights are needed.", code="too_few_weights")
    return neuron
