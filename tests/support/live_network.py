"""The conformance suite's networks on a development node, founded over its RPC with the well-known keys.

The node is a development node of the network's own software (``subtensor``, "localnet", best with fast blocks): its
genesis funds ``//Alice``, who is its sudo key. Everything else is made here: the owner is ``//Bob``, and each test
gets a miner and a stranger of its own: keys that nobody has used on this node before.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any, Final

from bittensor_wallet import Keypair
from substrate_client import CallFailed, NodeClient

from gas.chain.bittensor.chain import BittensorChain
from gas.chain.keys import KeySigner, Signer, public_key, signer_from_seed
from gas.clock import SystemClock
from gas.types import Hotkey

__all__ = ["DevKeys", "LiveNetwork", "dev_key"]

_TAO: Final = 10**9
_MODULE: Final = "SubtensorModule"
_KEYS_A_RUN: Final = 1000

# What the node lets a subnet do only so often, or not soon after its founding, and a test can't wait for.
_GLOBAL: Final = (
    ("sudo_set_network_rate_limit", {"rate_limit": 0}),
    ("sudo_set_lock_reduction_interval", {"interval": 1}),
    ("sudo_set_admin_freeze_window", {"window": 0}),
    ("sudo_set_tx_rate_limit", {"tx_rate_limit": 0}),
)
_SUBNET: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("sudo_set_tempo", {"tempo": 10}),
    ("sudo_set_weights_set_rate_limit", {"weights_set_rate_limit": 3}),
    ("sudo_set_weights_version_key", {"weights_version_key": 2}),
    ("sudo_set_min_allowed_weights", {"min_allowed_weights": 1}),
    ("sudo_set_max_allowed_validators", {"max_allowed_validators": 1}),
    ("sudo_set_serving_rate_limit", {"serving_rate_limit": 0}),
    ("sudo_set_target_registrations_per_interval", {"target_registrations_per_interval": 1000}),
    ("sudo_set_max_registrations_per_block", {"max_registrations_per_block": 100}),
)


def dev_key(uri: str) -> KeySigner:
    """A development key, e.g. ``//Alice``."""
    pair = Keypair.create_from_uri(uri)
    return KeySigner(Hotkey(str(pair.ss58_address)), pair)


def _run_key(number: int) -> KeySigner:
    return signer_from_seed(hashlib.sha256(f"gas development key {number}".encode()).digest())


class DevKeys(dict[str, Signer]):
    """Every key that the first runs use, by address, for a peer that has to know its users' keys."""

    def __init__(self) -> None:
        super().__init__({key.ss58_address: key for key in map(dev_key, ("//Alice", "//Bob"))})
        self._left = (_run_key(number) for number in range(5 * _KEYS_A_RUN))

    def __missing__(self, address: str) -> Signer:
        for signer in self._left:
            self[signer.ss58_address] = signer
            if signer.ss58_address == address:
                return signer
        raise KeyError(address)


class LiveNetwork:
    """Two subnets on a development node.

    Args:
        url: The node's.

    Raises:
        CallFailed: The node doesn't let ``//Alice`` found them.
        RpcError: It refuses a request.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._root, self._owner = dev_key("//Alice"), dev_key("//Bob")
        self._client = NodeClient(url)
        runs = itertools.count(0, _KEYS_A_RUN)
        self._numbers: Iterator[int] = itertools.count(next(first for first in runs if not self._used(first)))
        for call, args in _GLOBAL:
            self._sudo(call, args)
        self._fund(self._owner, 50_000)
        self.validator: Signer = self._new_key(5_000)
        self.miner: Signer = self.validator
        self.stranger: Signer = self.validator
        self.netuid, self.commit_reveal_netuid = (self._found(commit_reveal) for commit_reveal in (False, True))
        for netuid in (self.netuid, self.commit_reveal_netuid):
            self._register(self.validator, netuid)
            stake = {"hotkey": public_key(self.validator.ss58_address), "netuid": netuid, "amount_staked": 1000 * _TAO}
            self._client.call(self.validator, _MODULE, "add_stake", **stake)
        self._wait(22)

    def close(self) -> None:
        self._client.close()

    def renew(self) -> None:
        """A new miner, registered on both, and a new stranger."""
        self.miner, self.stranger = self._new_key(100), self._new_key(1_000)
        for netuid in (self.netuid, self.commit_reveal_netuid):
            self._register(self.miner, netuid)

    def connect(self, signer: Signer) -> BittensorChain:
        return BittensorChain(self.url, signer, SystemClock())

    async def advance(self, blocks: int) -> None:
        await asyncio.to_thread(self._wait, blocks)

    def _wait(self, blocks: int) -> None:
        subscription = self._client.ask("chain_subscribeNewHeads")
        target = self._client.number() + blocks
        while int(self._client.update(subscription)["number"], 16) < target:
            pass
        self._client.ask("chain_unsubscribeNewHeads", subscription)

    def _used(self, number: int) -> bool:
        account = public_key(_run_key(number).ss58_address)
        return bool(self._client.read("System", "Account", account)["data"]["free"])

    def _new_key(self, tao: int) -> Signer:
        signer = _run_key(next(self._numbers))
        self._fund(signer, tao)
        return signer

    def _fund(self, signer: Signer, tao: int) -> None:
        to = ("Id", public_key(signer.ss58_address))
        self._client.call(self._root, "Balances", "transfer_keep_alive", dest=to, value=tao * _TAO)

    def _register(self, signer: Signer, netuid: int) -> None:
        self._client.call(signer, _MODULE, "burned_register", netuid=netuid, hotkey=public_key(signer.ss58_address))

    def _found(self, commit_reveal: bool) -> int:
        hotkey = _run_key(next(self._numbers))
        events = self._client.call(self._owner, _MODULE, "register_network", hotkey=public_key(hotkey.ss58_address))
        netuid = int(next(fields[0] for _, name, fields in events if name == "NetworkAdded"))
        self._sudo("sudo_set_commit_reveal_weights_enabled", {"netuid": netuid, "enabled": commit_reveal})
        for call, args in _SUBNET:
            self._sudo(call, {"netuid": netuid, **args})
        for _ in range(20):
            # A subnet may be started only some blocks after its founding.
            try:
                self._client.call(self._owner, _MODULE, "start_call", netuid=netuid)
                break
            except CallFailed:
                self._wait(5)
        return netuid

    def _sudo(self, call: str, args: dict[str, Any]) -> None:
        """A setting, where the node's runtime has it."""
        if self._client.has("AdminUtils", call):
            self._client.sudo(self._root, "AdminUtils", call, **args)
