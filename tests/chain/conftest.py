"""A small town on a manual ledger: root, an owner, and people with money."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gas.chain.keys import KeySigner, signer_from_seed
from gas.chain.local.founding import add_stake, create_ledger, create_subnet, faucet, register
from gas.chain.local.ledger import Ledger
from gas.chain.local.views import metagraph
from gas.clock import ManualClock

TAO = 10**9
NETUID = 1


def key(name: str) -> KeySigner:
    return signer_from_seed(hashlib.sha256(name.encode()).digest())


@dataclass
class Town:
    ledger: Ledger
    clock: ManualClock
    path: Path
    root: KeySigner = field(default_factory=lambda: key("root"))
    netuid: int = NETUID

    def cold(self, name: str) -> KeySigner:
        return key(f"{name}/cold")

    def hot(self, name: str) -> KeySigner:
        return key(f"{name}/hot")

    def join(self, name: str, stake: int = 0, money: int = 1000 * TAO) -> int:
        faucet(self.ledger, self.root, self.cold(name).ss58_address, money + stake)
        uid = register(self.ledger, self.cold(name), self.hot(name), NETUID)
        if stake:
            add_stake(self.ledger, self.cold(name), self.hot(name).ss58_address, NETUID, stake)
        return uid

    def weigh(self, name: str, weights: dict[int, int], version_key: int = 0) -> None:
        self.ledger.call(
            self.hot(name),
            "set_weights",
            {
                "netuid": NETUID,
                "uids": list(weights),
                "weights": list(weights.values()),
                "version_key": version_key,
            },
        )

    def stake(self, name: str) -> int:
        with self.ledger.read() as tx:
            return tx.stake(NETUID, self.hot(name).ss58_address)

    def graph(self):
        with self.ledger.read() as tx:
            return metagraph(tx, NETUID)

    def sums_agree(self) -> bool:
        t = self.ledger.totals()
        return t.balances + t.staked + t.burned == t.issued


@pytest.fixture
def found(tmp_path: Path) -> Iterator[Callable[..., Town]]:
    towns: list[Town] = []

    def make(economics: dict[str, int] | None = None, **rules: int | bool) -> Town:
        clock = ManualClock()
        path = tmp_path / f"chain{len(towns)}.db"
        town = Town(
            create_ledger(path, root=key("root").ss58_address, clock=clock, manual=True),
            clock,
            path,
        )
        create_subnet(
            town.ledger,
            town.root,
            NETUID,
            owner=town.cold("owner").ss58_address,
            owner_hotkey=town.hot("owner").ss58_address,
            hyperparameters={"tempo": 10, "weights_rate_limit": 0, "immunity_period": 5, **rules},
            economics=economics or {},
        )
        towns.append(town)
        return town

    yield make
    for town in towns:
        town.ledger.close()
