"""The networks that the chain's conformance suite asks for, founded on a ledger of ours."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bittensor_wallet import Keypair, Wallet

from gas.chain.keys import KeySigner, Signer, signer_from_seed
from gas.chain.local.founding import add_stake, create_ledger, create_subnet, faucet, register
from gas.chain.local.ledger import Ledger
from gas.clock import ManualClock

__all__ = ["TAO", "LedgerNetwork", "found_network", "keep_keys", "key"]

TAO = 10**9


def key(name: str) -> KeySigner:
    """A key that a name stands for."""
    return signer_from_seed(hashlib.sha256(name.encode()).digest())


def keep_keys(home: Path, name: str) -> None:
    """Put a wallet with the key that a name stands for into a home, as its coldkey and its hotkey."""
    pair = Keypair.create_from_seed(hashlib.sha256(name.encode()).hexdigest())
    wallet = Wallet(name=name, hotkey="default", path=str(home / "wallets"))
    wallet.set_coldkey(pair, encrypt=False)
    wallet.set_coldkeypub(pair)
    wallet.set_hotkey(pair, encrypt=False)


@dataclass
class LedgerNetwork:
    """A ledger with the suite's subnets; subclasses say how one connects to it."""

    ledger: Ledger
    clock: ManualClock
    netuid: int = 1
    commit_reveal_netuid: int = 2
    full_netuid: int = 3
    root: Signer = field(default_factory=lambda: key("root"))
    owner: Signer = field(default_factory=lambda: key("owner"))
    validator: Signer = field(default_factory=lambda: key("validator"))
    miner: Signer = field(default_factory=lambda: key("miner"))
    stranger: Signer = field(default_factory=lambda: key("stranger"))

    @property
    def keyring(self) -> dict[str, Signer]:
        """Everybody's keys, by address."""
        return {signer.ss58_address: signer for signer in (self.owner, self.validator, self.miner, self.stranger)}

    async def advance(self, blocks: int) -> None:
        await asyncio.to_thread(self.ledger.advance, blocks)


@contextmanager
def found_network(folder: Path) -> Iterator[LedgerNetwork]:
    """Found the networks on a manual ledger in a folder; 10 blocks, and so one epoch, have passed."""
    clock, root = ManualClock(), key("root")
    with create_ledger(folder / "chain.db", root=root.ss58_address, clock=clock, manual=True) as ledger:
        net = LedgerNetwork(ledger, clock)
        for signer in (net.validator, net.miner, net.stranger):
            faucet(ledger, root, signer.ss58_address, 2000 * TAO)
        more: dict[int, dict[str, Any]] = {1: {}, 2: {"commit_reveal": True}, 3: {"max_allowed_uids": 3}}
        for netuid, special in more.items():
            create_subnet(
                ledger,
                root,
                netuid,
                owner=net.owner.ss58_address,
                owner_hotkey=net.owner.ss58_address,
                hyperparameters={"tempo": 10, "weights_rate_limit": 3, "weights_version": 2, **special},
            )
            register(ledger, net.validator, net.validator, netuid)
            register(ledger, net.miner, net.miner, netuid)
            add_stake(ledger, net.validator, net.validator.ss58_address, netuid, 400 * TAO)
        ledger.advance(10)
        # One permit only, so that pay which is staked doesn't make others validators while the suite runs.
        for netuid in more:
            changes: dict[str, Any] = {"netuid": netuid, "changes": {"max_allowed_validators": 1}}
            ledger.call(net.owner, "set_hyperparameters", changes)
        yield net
