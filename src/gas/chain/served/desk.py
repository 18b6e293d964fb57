"""What a served ledger answers: one function a method, on the ledger and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from gas.chain.local import views
from gas.chain.local.calls import Params
from gas.chain.local.ledger import Ledger
from gas.chain.local.state import Transaction
from gas.chain.served.wire import KIND, PROTOCOL, call_from_json, metagraph_to_json
from gas.errors import ChainRefused

__all__ = ["METHODS", "LedgerDesk"]

_Looking = Callable[[Transaction, Params], Any]


def _metagraph(tx: Transaction, params: Params) -> Any:
    return metagraph_to_json(views.metagraph(tx, params.netuid()))


def _hyperparameters(tx: Transaction, params: Params) -> Any:
    return asdict(tx.subnet(params.netuid()).hyperparameters)


def _commitment(tx: Transaction, params: Params) -> Any:
    found = views.commitment(tx, params.netuid(), params.address("hotkey"))
    return None if found is None else asdict(found)


def _balance(tx: Transaction, params: Params) -> Any:
    return tx.balance(params.address("address"))


def _nonce(tx: Transaction, params: Params) -> Any:
    return tx.nonce(params.address("address"))


def _emissions(tx: Transaction, params: Params) -> Any:
    found = views.emissions(tx, params.netuid(), params.integer("since_epoch", 0, 2**53))
    return {hotkey: asdict(paid) for hotkey, paid in found.items()}


def _price(tx: Transaction, params: Params) -> Any:
    return views.price(tx, params.netuid())


def _standing(tx: Transaction, params: Params) -> Any:
    return asdict(views.standing(tx, params.netuid()))


def _weights(tx: Transaction, params: Params) -> Any:
    return views.stored_weights(tx, params.netuid())


def _included(tx: Transaction, params: Params) -> Any:
    found = views.included_call(tx, params.address("signer"), params.integer("nonce", 0, 2**53))
    return None if found is None else {**asdict(found), "signature": found.signature.hex()}


_LOOKING: Final[dict[str, _Looking]] = {
    "gas.metagraph": _metagraph,
    "gas.hyperparameters": _hyperparameters,
    "gas.commitment": _commitment,
    "gas.balance": _balance,
    "gas.nonce": _nonce,
    "gas.emissions": _emissions,
    "gas.price": _price,
    "gas.standing": _standing,
    "gas.weights": _weights,
    "gas.included": _included,
}

METHODS: Final = frozenset({"gas.info", "gas.block", "gas.submit", *_LOOKING})
"""Every method that a desk answers."""


class LedgerDesk:
    """Answers requests about one ledger; safe to use from several threads.

    Args:
        looking: The ledger as readers see it.
        writing: The same file opened a second time, so that readers don't wait for epochs; it takes the calls.
    """

    def __init__(self, looking: Ledger, writing: Ledger) -> None:
        self._looking = looking
        self._writing = writing

    @property
    def block_seconds(self) -> float:
        """Seconds a block."""
        return self._looking.block_seconds

    def block(self) -> int:
        """The newest block, with every epoch up to it run."""
        return self._looking.block()

    def writes(self, method: str) -> bool:
        """Whether a method includes something in the ledger."""
        return method == "gas.submit"

    def answer(self, method: str, params: Mapping[str, Any]) -> Any:
        """The result of one method, as JSON types.

        Raises:
            ChainError: The method is unknown (``unknown_method``), the parameters are wrong (``malformed_call``), or
                a rule of the ledger forbids it.
        """
        if method == "gas.submit":
            return self._writing.submit(call_from_json(params))
        if method == "gas.info":
            return self._info()
        if method == "gas.block":
            return self._looking.block()
        look = _LOOKING.get(method)
        if look is None:
            raise ChainRefused("There is no such method.", code="unknown_method")
        self._looking.block()
        with self._looking.read() as tx:
            return look(tx, Params(params))

    def _info(self) -> dict[str, Any]:
        ledger = self._looking
        return {
            "kind": KIND,
            "protocol": PROTOCOL,
            "chain_id": ledger.chain_id,
            "block_seconds": ledger.block_seconds,
            "manual": ledger.manual,
            "block": ledger.block(),
        }
