"""Epochs of the ledger: which one is due, and what it does to neurons and money.

Pay is credited to stake: a hotkey's incentive and dividends to its own stake, the owner's share to the stake of the
owner's hotkey. What is burned is issued first, so that the sums still tell everything that was ever minted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from gas.chain.local.state import Subnet, Transaction
from gas.scoring.consensus import EpochInputs, EpochOutputs, SparseRows, run_epoch, split_emission

__all__ = ["Due", "epoch_inputs", "next_due", "run_due"]


@dataclass(frozen=True, slots=True)
class Due:
    """An epoch that must run before anything later is included.

    Attributes:
        netuid: Whose.
        block: In which block.
    """

    netuid: int
    block: int


def next_due(tx: Transaction, target: int) -> Due | None:
    """The first epoch that is due by block ``target``; by block, then by netuid."""
    row = tx.sql.execute(
        "SELECT netuid, MAX(last_epoch + tempo, ?) AS due FROM subnets WHERE last_epoch + tempo <= ? "
        "ORDER BY due, netuid LIMIT 1",
        (tx.block, target),
    ).fetchone()
    return None if row is None else Due(row["netuid"], row["due"])


def epoch_inputs(tx: Transaction, netuid: int) -> EpochInputs:
    """What the epoch of a subnet would read if it ran in this block."""
    subnet = tx.subnet(netuid)
    rows = tx.sql.execute(
        "SELECT n.*, s.amount AS stake FROM neurons n JOIN stakes s ON s.netuid = n.netuid AND s.hotkey = n.hotkey "
        "WHERE n.netuid = ? ORDER BY n.uid",
        (netuid,),
    ).fetchall()
    rules = subnet.hyperparameters
    return EpochInputs(
        n=len(rows),
        stake_raw=np.array([row["stake"] for row in rows], dtype=np.int64),
        min_stake=rules.min_stake,
        weights=SparseRows.from_rows({row["uid"]: json.loads(row["weights"]) for row in rows}),
        bonds=SparseRows.from_rows({row["uid"]: json.loads(row["bonds"]) for row in rows}),
        last_update=np.array([row["last_update"] for row in rows], dtype=np.int64),
        block_at_registration=np.array([row["registered_at"] for row in rows], dtype=np.int64),
        permit=np.array([bool(row["permit"]) for row in rows], dtype=np.bool_),
        block=tx.block,
        tempo=rules.tempo,
        activity_cutoff=rules.activity_cutoff,
        kappa=rules.kappa,
        bonds_moving_avg=rules.bonds_moving_avg,
        bonds_penalty=rules.bonds_penalty,
        max_allowed_validators=rules.max_allowed_validators,
        owner_uid=next(row["uid"] for row in rows if row["hotkey"] == subnet.owner_hotkey),
        yuma3=rules.yuma3,
        liquid_alpha=rules.liquid_alpha,
        alpha_values=(rules.alpha_low, rules.alpha_high),
        alpha_sigmoid_steepness=rules.alpha_sigmoid_steepness,
    )


def run_due(tx: Transaction, netuid: int) -> None:
    """Run a subnet's epoch in this block: consensus, permits, bonds, and the pay of all blocks since the last one."""
    subnet = tx.subnet(netuid)
    inputs = epoch_inputs(tx, netuid)
    outputs = run_epoch(inputs)
    bonds = outputs.bonds.to_rows(inputs.n)
    for uid in range(inputs.n):
        tx.sql.execute(
            "UPDATE neurons SET permit = ?, consensus = ?, incentive = ?, dividends = ?, validator_trust = ?, "
            "bonds = ? WHERE netuid = ? AND uid = ?",
            (
                int(outputs.permit[uid]),
                int(outputs.consensus[uid]),
                int(outputs.incentive[uid]),
                int(outputs.dividends[uid]),
                int(outputs.vtrust[uid]),
                json.dumps(bonds[uid]),
                netuid,
                uid,
            ),
        )
    _pay(tx, subnet, inputs, outputs)
    tx.sql.execute("UPDATE subnets SET last_epoch = ?, epochs = epochs + 1 WHERE netuid = ?", (tx.block, netuid))


def _pay(tx: Transaction, subnet: Subnet, inputs: EpochInputs, outputs: EpochOutputs) -> None:
    emission = tx.mint(subnet.economics.emission_per_block * (tx.block - subnet.last_epoch))
    split = split_emission(outputs, emission, inputs.owner_uid, subnet.economics.owner_share_ppm)
    tx.burn(split.burned)
    for row in tx.sql.execute(
        "SELECT uid, hotkey FROM neurons WHERE netuid = ? ORDER BY uid", (subnet.netuid,)
    ).fetchall():
        uid, hotkey = row["uid"], row["hotkey"]
        incentive, dividends = int(split.incentive[uid]), int(split.dividends[uid])
        owner_share = split.owner if uid == inputs.owner_uid else 0
        tx.sql.execute(
            "UPDATE neurons SET emission = ? WHERE netuid = ? AND uid = ?",
            (incentive + dividends, subnet.netuid, uid),
        )
        if incentive + dividends + owner_share == 0:
            continue
        tx.add_stake(subnet.netuid, hotkey, incentive + dividends + owner_share)
        tx.sql.execute(
            "INSERT INTO payouts (netuid, epoch, block, hotkey, incentive, dividends, owner_share) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (subnet.netuid, subnet.epochs + 1, tx.block, hotkey, incentive, dividends, owner_share),
        )
