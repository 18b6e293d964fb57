"""Founding a local network: the ledger itself, money, a subnet, registrations.

Each call is signed like any other. Called again after it has gone through, a founding call raises
:class:`~gas.errors.ChainRefused` (or :class:`~gas.errors.ConfigurationError`) with a code in :data:`DONE_CODES`, which
somebody who resumes may take as done; a faucet or a stake would count twice, so ask :meth:`Ledger.read` first, or use
the ``ensure_`` functions, which do.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gas.chain.keys import Signer, is_address
from gas.chain.local.calls import JsonValue
from gas.chain.local.ledger import Ledger
from gas.chain.local.schema import SCHEMA_VERSION, create_file, unusable
from gas.clock import Clock
from gas.errors import ChainUnreachable, ConfigurationError, NotRegistered

__all__ = [
    "DONE_CODES",
    "add_stake",
    "create_ledger",
    "create_subnet",
    "ensure_balance",
    "ensure_registered",
    "ensure_stake",
    "faucet",
    "register",
]

DONE_CODES: Final = frozenset({"ledger_exists", "subnet_exists", "already_registered", "wallet_exists"})
"""Refusals of founding calls that mean: this has been done."""


def create_ledger(path: Path, *, root: str, clock: Clock, block_seconds: float = 12.0, manual: bool = False) -> Ledger:
    """Make a new ledger at block 0 and open it.

    Args:
        path: File to make.
        root: SS58 address of the key that may mint and found subnets.
        clock: Where block time comes from; block 0 is now.
        block_seconds: Seconds a block; at least 0.001.
        manual: Whether blocks pass by :meth:`Ledger.advance` only.

    Returns:
        The open ledger.

    Raises:
        ConfigurationError: There is one already (``ledger_exists``), or an argument is wrong.
        ChainUnreachable: The file can't be made.
    """
    if not is_address(root):
        raise ConfigurationError("The root key must be an SS58 address.")
    if not 0.001 <= block_seconds <= 86_400:
        raise ConfigurationError("A block lasts from a millisecond to a day.")
    now = int(clock.time() * 1000)
    connection = create_file(path)
    try:
        connection.execute(
            "INSERT INTO ledger (id, version, chain_id, root, manual, block_ms, anchor_ms, anchor_block, seen_ms, "
            "block, issued, burned) VALUES (1, ?, ?, ?, ?, ?, ?, 0, ?, 0, 0, 0)",
            (SCHEMA_VERSION, secrets.token_hex(16), root, int(manual), round(block_seconds * 1000), now, now),
        )
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise unusable(error, "The ledger's file can't be written.") from error
    finally:
        connection.close()
    return Ledger(path, clock)


def faucet(ledger: Ledger, root: Signer, address: str, amount: int) -> int:
    """Mint rao for an account; returns its balance."""
    return _number(ledger.call(root, "faucet", {"address": address, "amount": amount}))


def create_subnet(
    ledger: Ledger,
    root: Signer,
    netuid: int,
    *,
    owner: str,
    owner_hotkey: str,
    hyperparameters: Mapping[str, JsonValue] | None = None,
    economics: Mapping[str, JsonValue] | None = None,
) -> int:
    """Found a subnet whose owner's hotkey takes uid 0; returns the netuid.

    Args:
        ledger: Where.
        root: The ledger's root key.
        netuid: Its number.
        owner: Coldkey that may change the rules.
        owner_hotkey: Hotkey that gets the owner's share of emission.
        hyperparameters: Values of :class:`~gas.chain.base.Hyperparameters` that differ from the defaults.
        economics: Values of :class:`~gas.chain.local.rules.Economics` that differ from the defaults.

    Raises:
        ChainRefused: ``subnet_exists``, ``not_root``, ``unknown_parameter``, ``bad_parameter``.
    """
    params: dict[str, JsonValue] = {
        "netuid": netuid,
        "owner": owner,
        "owner_hotkey": owner_hotkey,
        "hyperparameters": dict(hyperparameters or {}),
        "economics": dict(economics or {}),
    }
    return _number(ledger.call(root, "create_subnet", params))


def register(ledger: Ledger, coldkey: Signer, hotkey: Signer, netuid: int) -> int:
    """Burn the price for a slot; both keys sign. Returns the uid.

    Raises:
        ChainRefused: ``already_registered``, ``insufficient_balance``, ``not_owner`` ...
    """
    return _number(ledger.call(coldkey, "register", {"netuid": netuid, "hotkey": hotkey.ss58_address}, cosigner=hotkey))


def add_stake(ledger: Ledger, coldkey: Signer, hotkey: str, netuid: int, amount: int) -> int:
    """Stake rao to a registered hotkey of the coldkey's; returns its stake."""
    return _number(ledger.call(coldkey, "add_stake", {"netuid": netuid, "hotkey": hotkey, "amount": amount}))


def ensure_balance(ledger: Ledger, root: Signer, address: str, amount: int) -> int:
    """Mint what an account lacks to hold ``amount``; returns its balance. One founder at a time."""
    with ledger.read() as tx:
        have = tx.balance(address)
    return have if have >= amount else faucet(ledger, root, address, amount - have)


def ensure_registered(ledger: Ledger, coldkey: Signer, hotkey: Signer, netuid: int) -> int:
    """The hotkey's uid, after registering it where it is not."""
    try:
        with ledger.read() as tx:
            return int(tx.neuron(netuid, hotkey.ss58_address)["uid"])
    except NotRegistered:
        return register(ledger, coldkey, hotkey, netuid)


def ensure_stake(ledger: Ledger, coldkey: Signer, hotkey: str, netuid: int, amount: int) -> int:
    """Stake what a hotkey lacks to have ``amount``; returns its stake."""
    with ledger.read() as tx:
        have = tx.stake(netuid, hotkey)
    return have if have >= amount else add_stake(ledger, coldkey, hotkey, netuid, amount - have)


def _number(result: int | None) -> int:
    if result is None:
        raise ChainUnreachable("The ledger gave no answer to a call that has one.")
    return result
