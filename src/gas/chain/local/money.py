"""Calls that move money: faucet, transfer, stake, unstake.

A hotkey's stake belongs to the one coldkey that registered it; there is no delegation on the local ledger.
"""

from __future__ import annotations

from gas.chain.local.calls import Params, SignedCall
from gas.chain.local.state import Transaction
from gas.errors import ChainRefused

__all__ = ["add_stake", "faucet", "remove_stake", "require_root", "transfer"]


def require_root(tx: Transaction, call: SignedCall) -> None:
    """Refuse a call that only the ledger's founder may make.

    Raises:
        ChainRefused: ``not_root``.
    """
    if call.signer != tx.root():
        raise ChainRefused("Only the ledger's root key may do this.", code="not_root")


def faucet(tx: Transaction, call: SignedCall) -> int:
    """Mint money for an account; root only. Returns the account's balance."""
    require_root(tx, call)
    params = Params(call.params)
    address, amount = params.address("address"), params.amount()
    if tx.mint(amount) != amount:
        raise ChainRefused("The ledger's whole issue is 21,000,000 tao.", code="issuance_cap")
    tx.credit(address, amount)
    return tx.balance(address)


def transfer(tx: Transaction, call: SignedCall) -> int:
    """Move money from the signer to another account. Returns the signer's balance."""
    params = Params(call.params)
    address, amount = params.address("address"), params.amount()
    tx.debit(call.signer, amount)
    tx.credit(address, amount)
    return tx.balance(call.signer)


def add_stake(tx: Transaction, call: SignedCall) -> int:
    """Stake the signer's money to a registered hotkey of its own. Returns the hotkey's stake."""
    params = Params(call.params)
    netuid, hotkey, amount = params.netuid(), params.address("hotkey"), params.amount()
    tx.subnet(netuid)
    tx.neuron(netuid, hotkey)
    _require_owner(tx, call.signer, hotkey)
    tx.debit(call.signer, amount)
    tx.add_stake(netuid, hotkey, amount)
    return tx.stake(netuid, hotkey)


def remove_stake(tx: Transaction, call: SignedCall) -> int:
    """Take stake of a hotkey (registered or not) back to the signer, its owner. Returns what stays staked."""
    params = Params(call.params)
    netuid, hotkey, amount = params.netuid(), params.address("hotkey"), params.amount()
    tx.subnet(netuid)
    _require_owner(tx, call.signer, hotkey)
    have = tx.stake(netuid, hotkey)
    if have < amount:
        raise ChainRefused(f"The hotkey holds {have} rao of stake.", code="insufficient_stake")
    tx.add_stake(netuid, hotkey, -amount)
    tx.credit(call.signer, amount)
    return have - amount


def _require_owner(tx: Transaction, coldkey: str, hotkey: str) -> None:
    if tx.owner_of(hotkey) != coldkey:
        raise ChainRefused("The hotkey belongs to another coldkey.", code="not_owner")
