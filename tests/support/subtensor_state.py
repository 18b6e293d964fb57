"""What a Subtensor node says about a ledger: storage entries and runtime calls, encoded by the runtime's metadata."""

from __future__ import annotations

import ipaddress
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bittensor_wallet import Keypair
from scale_metadata import Metadata, StorageItem

from gas.chain.base import Neuron
from gas.chain.keys import public_key
from gas.chain.local import views
from gas.chain.local.state import Subnet, Transaction
from gas.errors import ChainRefused

__all__ = ["Memory", "State", "TimelockedCommit", "address", "snapshot"]

_U16: Final = 65535


def address(account: bytes) -> str:
    """The SS58 address of 32 bytes."""
    return str(Keypair(public_key="0x" + account.hex(), ss58_format=42).ss58_address)


def snapshot(path: Path) -> sqlite3.Connection:
    """A copy of the ledger in memory."""
    copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    source = sqlite3.connect(path)
    try:
        source.backup(copy)
    finally:
        source.close()
    copy.row_factory = sqlite3.Row
    return copy


@dataclass(frozen=True)
class TimelockedCommit:
    netuid: int
    epoch: int
    account: bytes
    block: int
    ciphertext: bytes
    reveal_round: int


@dataclass
class Memory:
    """What the node knows beyond the ledger."""

    nonces: dict[bytes, int] = field(default_factory=dict)
    timelocked: list[TimelockedCommit] = field(default_factory=list)
    axon_blocks: dict[tuple[int, str], int] = field(default_factory=dict)
    commit_reveal_version: int = 4
    drand_round: int = 0
    serving_rate_limit: int = 0

    def copy(self) -> Memory:
        return Memory(
            dict(self.nonces),
            list(self.timelocked),
            dict(self.axon_blocks),
            self.commit_reveal_version,
            self.drand_round,
            self.serving_rate_limit,
        )


class State:
    """The state after one block."""

    def __init__(
        self, metadata: Metadata, sql: sqlite3.Connection, block: int, moment: int, memory: Memory, events: bytes
    ) -> None:
        self.metadata, self.sql, self.block, self.moment = metadata, sql, block, moment
        self.memory, self.events = memory, events
        self.tx = Transaction(sql, block)

    def close(self) -> None:
        self.sql.close()

    # Storage.

    def entry(self, key: bytes) -> bytes | None:
        """The stored bytes under a key; None when nothing is stored there."""
        found = self.metadata.read_key(key)
        if found is None:
            return None
        item, keys = found
        if len(keys) != len(item.hashers):
            return None
        name = f"{item.pallet}.{item.name}"
        if name == "System.Events":
            return self.events
        value = self._value(name, keys)
        return None if value is None else self.metadata.encode(item.value, value)

    def keys(self, prefix: bytes) -> list[bytes]:
        """The stored keys that begin with a prefix, of the maps that somebody would walk through."""
        found = self.metadata.read_key(prefix)
        if found is None:
            return []
        item, _ = found
        every = (self.metadata.storage_key(item, *keys) for keys in self._map_keys(item))
        return sorted(key for key in every if key.startswith(prefix) and self.entry(key) is not None)

    def _map_keys(self, item: StorageItem) -> list[tuple[Any, ...]]:
        netuids = self._netuids()
        seats = [
            (netuid, neuron.uid, public_key(neuron.hotkey))
            for netuid in netuids
            for neuron in views.metagraph(self.tx, netuid).neurons
        ]
        match (item.pallet, item.name):
            case ("Commitments", _) | ("SubtensorModule", "Uids" | "Axons" | "WeightCommits"):
                return [(netuid, hotkey) for netuid, _, hotkey in seats]
            case ("SubtensorModule", "Keys" | "Weights" | "Bonds" | "BlockAtRegistration"):
                return [(netuid, uid) for netuid, uid, _ in seats]
            case _ if len(item.hashers) == 1:
                return [(netuid,) for netuid in netuids]
        return []

    def _netuids(self) -> list[int]:
        return [row[0] for row in self.sql.execute("SELECT netuid FROM subnets ORDER BY netuid")]

    def _value(self, name: str, keys: tuple[Any, ...]) -> Any:
        plain = self._plain(name)
        if plain is not None:
            return plain
        if name == "System.Account":
            return {
                "nonce": self.memory.nonces.get(keys[0], 0),
                "providers": 1,
                "data": {"free": self.tx.balance(address(keys[0])), "flags": 2**127},
            }
        if name == "SubtensorModule.Owner":
            owner = self.tx.owner_of(address(keys[0]))
            return None if owner is None else public_key(owner)
        if name == "SubtensorModule.TotalHotkeyAlpha":
            return self.tx.stake(keys[1], address(keys[0]))
        if not keys or not isinstance(keys[0], int):
            return None
        try:
            subnet = self.tx.subnet(keys[0])
        except ChainRefused:
            return None
        pallet, _, item = name.partition(".")
        if pallet == "SubtensorModule" and item in _OF_SUBNET and len(keys) == 1:
            return _OF_SUBNET[item](subnet)
        if pallet == "SubtensorModule" and item in _VECTORS and len(keys) == 1:
            return [_VECTORS[item](neuron) for neuron in self.neurons(subnet)]
        if item == "ServingRateLimit":
            return self.memory.serving_rate_limit
        if item == "SubnetworkN":
            return len(self.neurons(subnet))
        if item == "Burn":
            return views.price(self.tx, subnet.netuid)
        if item == "BlocksSinceLastStep":
            return self.block - subnet.last_epoch
        if item == "TimelockedWeightCommits":
            rows = [c for c in self.memory.timelocked if (c.netuid, c.epoch) == keys]
            return [(c.account, c.block, c.ciphertext, c.reveal_round) for c in rows] or None
        return self._of_neuron(pallet, item, subnet, keys[1]) if len(keys) > 1 else None

    def _plain(self, name: str) -> Any:
        match name:
            case "Timestamp.Now":
                return self.moment
            case "System.Number":
                return self.block
            case "SubtensorModule.TotalNetworks":
                return self.sql.execute("SELECT COUNT(*) FROM subnets").fetchone()[0]
            case "SubtensorModule.CommitRevealWeightsVersion":
                return self.memory.commit_reveal_version
            case "SubtensorModule.StakeThreshold":
                return max((s.hyperparameters.min_stake for s in map(self.tx.subnet, self._netuids())), default=0)
            case "Drand.LastStoredRound":
                return self.memory.drand_round
        return None

    def _of_neuron(self, pallet: str, item: str, subnet: Subnet, key: Any) -> Any:
        by_uid = isinstance(key, int)
        neuron = next(
            (n for n in self.neurons(subnet) if (n.uid == key if by_uid else public_key(n.hotkey) == key)), None
        )
        if neuron is None:
            return None
        match (pallet, item):
            case ("SubtensorModule", "Uids"):
                return neuron.uid
            case ("SubtensorModule", "IsNetworkMember"):
                return True
            case ("SubtensorModule", "Keys"):
                return public_key(neuron.hotkey)
            case ("SubtensorModule", "BlockAtRegistration"):
                return neuron.registered_at
            case ("SubtensorModule", "Axons"):
                return self.axon(subnet.netuid, neuron) if neuron.axon else None
            case ("SubtensorModule", "Weights" | "Bonds"):
                row = self.tx.neuron(subnet.netuid, neuron.hotkey)
                return [tuple(pair) for pair in json.loads(row[item.lower()])] or None
            case ("SubtensorModule", "WeightCommits"):
                return self._commits(subnet, neuron.hotkey) or None
            case ("Commitments", "CommitmentOf" | "LastCommitment"):
                found = views.commitment(self.tx, subnet.netuid, neuron.hotkey)
                if found is None or item == "LastCommitment":
                    return None if found is None else found.block
                data = found.data.encode("utf-8")
                return {"block": found.block, "info": {"fields": [(f"Raw{len(data)}", data)]}}
        return None

    def _commits(self, subnet: Subnet, hotkey: str) -> list[tuple[Any, ...]]:
        rows = self.sql.execute(
            "SELECT hash, block, epoch FROM weight_commits WHERE netuid = ? AND hotkey = ? ORDER BY block",
            (subnet.netuid, hotkey),
        ).fetchall()
        return [(bytes(row["hash"]), row["epoch"], row["block"], 0) for row in rows]

    def neurons(self, subnet: Subnet) -> Sequence[Neuron]:
        """The subnet's neurons; here, as on the network, a commit counts as an update."""
        found = []
        for neuron in views.metagraph(self.tx, subnet.netuid).neurons:
            blocks = self.sql.execute(
                "SELECT COALESCE(MAX(block), 0) FROM weight_commits WHERE netuid = ? AND hotkey = ?",
                (subnet.netuid, neuron.hotkey),
            ).fetchone()
            account = public_key(neuron.hotkey)
            timelocked = [c.block for c in self.memory.timelocked if (c.netuid, c.account) == (subnet.netuid, account)]
            found.append(_with_update(neuron, max([neuron.last_update, blocks[0], *timelocked])))
        return found

    def axon(self, netuid: int, neuron: Neuron) -> dict[str, Any]:
        if neuron.axon is None:
            return {}
        ip = ipaddress.ip_address(neuron.axon.ip)
        return {
            "block": self.memory.axon_blocks.get((netuid, neuron.hotkey), 0),
            "ip": int(ip),
            "ip_type": ip.version,
            "port": neuron.axon.port,
            "protocol": neuron.axon.protocol,
        }


def _with_update(neuron: Neuron, block: int) -> Neuron:
    values: Mapping[str, Any] = {name: getattr(neuron, name) for name in Neuron.__slots__}
    return Neuron(**{**values, "last_update": block})


_OF_SUBNET: Final[dict[str, Callable[[Subnet], Any]]] = {
    "NetworksAdded": lambda s: True,
    "SubtokenEnabled": lambda s: True,
    "NetworkRegistrationAllowed": lambda s: True,
    "Tempo": lambda s: s.hyperparameters.tempo,
    "LastEpochBlock": lambda s: s.last_epoch,
    "LastMechansimStepBlock": lambda s: s.last_epoch,
    "SubnetEpochIndex": lambda s: s.epochs,
    "SubnetOwner": lambda s: public_key(s.owner),
    "SubnetOwnerHotkey": lambda s: public_key(s.owner_hotkey),
    "MaxAllowedUids": lambda s: s.hyperparameters.max_allowed_uids,
    "MaxAllowedValidators": lambda s: s.hyperparameters.max_allowed_validators,
    "MinAllowedWeights": lambda s: s.hyperparameters.min_allowed_weights,
    "WeightsSetRateLimit": lambda s: s.hyperparameters.weights_rate_limit,
    "WeightsVersionKey": lambda s: s.hyperparameters.weights_version,
    "ActivityCutoff": lambda s: s.hyperparameters.activity_cutoff,
    "ImmunityPeriod": lambda s: s.hyperparameters.immunity_period,
    "Kappa": lambda s: s.hyperparameters.kappa,
    "BondsMovingAverage": lambda s: s.hyperparameters.bonds_moving_avg,
    "BondsPenalty": lambda s: s.hyperparameters.bonds_penalty,
    "Yuma3On": lambda s: s.hyperparameters.yuma3,
    "LiquidAlphaOn": lambda s: s.hyperparameters.liquid_alpha,
    "AlphaValues": lambda s: (s.hyperparameters.alpha_low, s.hyperparameters.alpha_high),
    "AlphaSigmoidSteepness": lambda s: s.hyperparameters.alpha_sigmoid_steepness,
    "CommitRevealWeightsEnabled": lambda s: s.hyperparameters.commit_reveal,
    "RevealPeriodEpochs": lambda s: s.hyperparameters.commit_reveal_period,
}

_VECTORS: Final[dict[str, Callable[[Neuron], Any]]] = {
    "Active": lambda n: n.active,
    "Consensus": lambda n: round(n.consensus * _U16),
    "Incentive": lambda n: round(n.incentive * _U16),
    "Dividends": lambda n: round(n.dividends * _U16),
    "ValidatorTrust": lambda n: round(n.validator_trust * _U16),
    "Emission": lambda n: n.emission,
    "LastUpdate": lambda n: n.last_update,
    "ValidatorPermit": lambda n: n.permit,
}
