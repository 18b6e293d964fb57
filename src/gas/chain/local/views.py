"""What the ledger shows: snapshots, prices, pay."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from gas.chain.base import Axon, Commitment, Metagraph, Neuron
from gas.chain.local.blocktime import read_block_time
from gas.chain.local.state import Totals, Transaction
from gas.chain.local.subnets import registration_price
from gas.chain.weights import U16_MAX
from gas.types import Hotkey, Rao

__all__ = [
    "IncludedCall",
    "Pay",
    "Standing",
    "commitment",
    "emissions",
    "included_call",
    "metagraph",
    "price",
    "standing",
    "stored_weights",
]


@dataclass(frozen=True, slots=True)
class Pay:
    """What a hotkey has been paid, in rao.

    Attributes:
        incentive: For mining.
        dividends: For validating.
        owner_share: For owning the subnet.
    """

    incentive: Rao
    dividends: Rao
    owner_share: Rao

    @property
    def total(self) -> Rao:
        """All of it."""
        return Rao(self.incentive + self.dividends + self.owner_share)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a ledger and one of its subnets stand.

    Attributes:
        block: The newest block.
        epochs: Epochs that the subnet has seen.
        next_epoch: Block in which its next one is due.
        price: What a slot costs now, in rao.
        manual: Whether blocks pass by hand only.
        totals: Where all money is.
    """

    block: int
    epochs: int
    next_epoch: int
    price: Rao
    manual: bool
    totals: Totals


@dataclass(frozen=True, slots=True)
class IncludedCall:
    """One call as the ledger has written it down.

    Attributes:
        block: In which block.
        kind: Name of the call.
        signature: The signature that it came with.
    """

    block: int
    kind: str
    signature: bytes


def metagraph(tx: Transaction, netuid: int) -> Metagraph:
    """Snapshot of a subnet as of the transaction's block.

    Raises:
        ChainRefused: ``unknown_subnet``.
    """
    subnet = tx.subnet(netuid)
    rows = tx.sql.execute(
        "SELECT n.*, h.coldkey, s.amount AS stake FROM neurons n JOIN hotkeys h ON h.hotkey = n.hotkey "
        "JOIN stakes s ON s.netuid = n.netuid AND s.hotkey = n.hotkey WHERE n.netuid = ? ORDER BY n.uid",
        (netuid,),
    ).fetchall()
    oldest_active = tx.block - subnet.hyperparameters.activity_cutoff
    return Metagraph(
        netuid=netuid,
        block=tx.block,
        owner_uid=next(row["uid"] for row in rows if row["hotkey"] == subnet.owner_hotkey),
        neurons=tuple(_neuron(row, oldest_active) for row in rows),
    )


def price(tx: Transaction, netuid: int) -> Rao:
    """What a slot of the subnet costs now, in rao."""
    return Rao(registration_price(tx.subnet(netuid), tx.block))


def commitment(tx: Transaction, netuid: int, hotkey: str) -> Commitment | None:
    """A hotkey's published text and the block of its publication."""
    tx.subnet(netuid)
    row = tx.sql.execute(
        "SELECT data, block FROM commitments WHERE netuid = ? AND hotkey = ?", (netuid, hotkey)
    ).fetchone()
    return None if row is None else Commitment(Hotkey(hotkey), row["data"], row["block"])


def standing(tx: Transaction, netuid: int) -> Standing:
    """Where the ledger and a subnet stand.

    Raises:
        ChainRefused: ``unknown_subnet``.
    """
    subnet = tx.subnet(netuid)
    return Standing(
        block=tx.block,
        epochs=subnet.epochs,
        next_epoch=subnet.last_epoch + subnet.hyperparameters.tempo,
        price=Rao(registration_price(subnet, tx.block)),
        manual=read_block_time(tx.sql).manual,
        totals=tx.totals(),
    )


def included_call(tx: Transaction, signer: str, nonce: int) -> IncludedCall | None:
    """The signer's call with this nonce, or None when none is included."""
    row = tx.sql.execute(
        "SELECT block, kind, signature FROM calls WHERE signer = ? AND nonce = ?", (signer, nonce)
    ).fetchone()
    return None if row is None else IncludedCall(int(row["block"]), str(row["kind"]), bytes(row["signature"]))


def stored_weights(tx: Transaction, netuid: int) -> dict[int, dict[int, int]]:
    """The weights in force: uid of the validator -> uid of the miner -> u16, max-upscaled."""
    tx.subnet(netuid)
    rows = tx.sql.execute("SELECT uid, weights FROM neurons WHERE netuid = ? ORDER BY uid", (netuid,))
    found = {row["uid"]: {int(uid): int(weight) for uid, weight in json.loads(row["weights"])} for row in rows}
    return {uid: row for uid, row in found.items() if row}


def emissions(tx: Transaction, netuid: int, since_epoch: int) -> dict[Hotkey, Pay]:
    """What each hotkey has been paid in the epochs from ``since_epoch`` on (the first epoch is 1)."""
    tx.subnet(netuid)
    rows = tx.sql.execute(
        "SELECT hotkey, SUM(incentive) AS incentive, SUM(dividends) AS dividends, SUM(owner_share) AS owner_share "
        "FROM payouts WHERE netuid = ? AND epoch >= ? GROUP BY hotkey ORDER BY hotkey",
        (netuid, since_epoch),
    )
    return {
        Hotkey(row["hotkey"]): Pay(Rao(row["incentive"]), Rao(row["dividends"]), Rao(row["owner_share"]))
        for row in rows
    }


def _neuron(row: sqlite3.Row, oldest_active: int) -> Neuron:
    return Neuron(
        uid=row["uid"],
        hotkey=Hotkey(row["hotkey"]),
        coldkey=row["coldkey"],
        stake=Rao(row["stake"]),
        permit=bool(row["permit"]),
        axon=None if row["ip"] is None else Axon(row["ip"], row["port"], row["protocol"]),
        last_update=row["last_update"],
        registered_at=row["registered_at"],
        incentive=row["incentive"] / U16_MAX,
        dividends=row["dividends"] / U16_MAX,
        validator_trust=row["validator_trust"] / U16_MAX,
        consensus=row["consensus"] / U16_MAX,
        emission=Rao(row["emission"]),
        active=row["last_update"] >= oldest_active,
    )
