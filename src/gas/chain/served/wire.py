"""The wire of the served ledger: JSON-RPC 2.0 in text frames; calls, errors and views as JSON and back.

A request is ``{"jsonrpc": "2.0", "id": 1, "method": "gas.block", "params": {}}``. An error's ``data`` carries what
:mod:`gas.errors` needs to rise again at the caller: ``kind``, ``code``, ``message``, ``hint``, ``blocks``.
Whatever comes from the other side is checked field by field; a reader of this module raises
:class:`~gas.errors.ChainRefused` (``malformed_call``) on a caller's nonsense, and
:class:`~gas.errors.ChainUnreachable` (``bad_answer``) on a server's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any, Final, TypeVar

from gas.chain.base import Axon, Commitment, Hyperparameters, Metagraph, Neuron
from gas.chain.local.calls import MAX_CALL_BYTES, JsonValue, SignedCall
from gas.chain.local.state import Totals
from gas.chain.local.views import IncludedCall, Pay, Standing
from gas.errors import (
    ChainError,
    ChainRefused,
    ChainUnreachable,
    CommitRevealRequired,
    GasError,
    NoPermit,
    NotRegistered,
    RateLimited,
    StaleVersion,
)
from gas.types import Hotkey, Rao

__all__ = [
    "KIND",
    "MAX_ANSWER_BYTES",
    "MAX_REQUEST_BYTES",
    "PROTOCOL",
    "call_from_json",
    "call_to_json",
    "commitment_from_json",
    "emissions_from_json",
    "error_from_json",
    "error_to_json",
    "hyperparameters_from_json",
    "included_from_json",
    "metagraph_from_json",
    "metagraph_to_json",
    "number_from_json",
    "parse",
    "standing_from_json",
    "weights_from_json",
]

KIND: Final = "gas-ledger"
"""What ``gas.info`` answers as ``kind``; no other chain does."""

PROTOCOL: Final = 1
"""Version of this wire."""

MAX_REQUEST_BYTES: Final = MAX_CALL_BYTES + 64 * 1024
"""Largest frame that a server takes: the largest call and its envelope."""

MAX_ANSWER_BYTES: Final = 16 * 2**20
"""Largest frame that a client takes; a metagraph of 4096 neurons has about 2 MiB."""

_MAX_TEXT: Final = 500
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

# RateLimited is rebuilt by hand: it takes the number of blocks.
_KINDS: Final[dict[str, Callable[..., ChainError]]] = {
    kind.__name__: kind
    for kind in (
        ChainError,
        ChainRefused,
        ChainUnreachable,
        CommitRevealRequired,
        NoPermit,
        NotRegistered,
        StaleVersion,
    )
}

T = TypeVar("T")


def parse(text: str | bytes) -> Any:
    """Read one JSON document strictly: no NaN, no infinities, no abyss of brackets.

    Raises:
        ValueError: It is none.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON.")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("Nested too deeply.") from None


# Calls


def call_to_json(call: SignedCall) -> dict[str, JsonValue]:
    """A signed call as the parameters of ``gas.submit``."""
    return {
        "call": call.kind,
        "signer": call.signer,
        "nonce": call.nonce,
        "params": call.params,
        "signature": call.signature.hex(),
        "cosigner": call.cosigner,
        "cosignature": call.cosignature.hex(),
    }


def call_from_json(values: Mapping[str, Any]) -> SignedCall:
    """The signed call in the parameters of ``gas.submit``; nothing is verified yet.

    Raises:
        ChainRefused: ``malformed_call``; ``bad_signature`` when there is no signature at all.
    """
    nonce, params = values.get("nonce"), values.get("params")
    if type(nonce) is not int or not 0 <= nonce < 2**53:
        raise ChainRefused("nonce must be an integer from 0 to 2**53 - 1.", code="malformed_call")
    if not isinstance(params, dict):
        raise ChainRefused("params must be an object.", code="malformed_call")
    if not values.get("signature"):
        raise ChainRefused("The call is not signed.", code="bad_signature", hint="Sign it with the signer's key.")
    return SignedCall(
        kind=_word(values, "call"),
        signer=_word(values, "signer"),
        nonce=nonce,
        params=params,
        signature=_signature(values, "signature"),
        cosigner=_word(values, "cosigner"),
        cosignature=_signature(values, "cosignature"),
    )


def _word(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name, "")
    if not isinstance(value, str) or len(value) > 64 or not value.isascii():
        raise ChainRefused(f"{name} must be a short text.", code="malformed_call")
    return value


def _signature(values: Mapping[str, Any], name: str) -> bytes:
    try:
        return bytes.fromhex(values.get(name, "").removeprefix("0x"))
    except (ValueError, TypeError, AttributeError):
        raise ChainRefused(f"{name} must be hex.", code="malformed_call") from None


# Errors


def error_to_json(error: GasError) -> dict[str, JsonValue]:
    """An error as the ``data`` of a JSON-RPC error."""
    data: dict[str, JsonValue] = {"kind": type(error).__name__, **error.as_dict()}
    if isinstance(error, RateLimited):
        data["blocks"] = error.blocks
    return data


def error_from_json(error: Any) -> ChainError:
    """The error that a JSON-RPC error stands for; its texts are cut short and freed of control characters."""
    data = error.get("data") if isinstance(error, dict) else None
    if not isinstance(data, dict):
        said = _text(error.get("message")) if isinstance(error, dict) else ""
        return ChainRefused(said or "The node refuses without a reason.", code="rpc_error")
    message, hint, code = _text(data.get("message")), _text(data.get("hint")), data.get("code")
    if data.get("kind") == "RateLimited" and type(data.get("blocks")) is int:
        return RateLimited(message, blocks=max(0, int(data["blocks"])))
    kind = _KINDS.get(str(data.get("kind")), ChainRefused)
    known = code if isinstance(code, str) and _CODE.fullmatch(code) else None
    return kind(message or "The node refuses without a reason.", code=known, hint=hint or None)


def _text(value: Any) -> str:
    # A server's text lands in terminals and logs.
    text = value[:_MAX_TEXT] if isinstance(value, str) else ""
    return "".join(character if character.isprintable() else "?" for character in text)


# Views: dataclasses to JSON by ``asdict``, and back here.


def _reader(read: Callable[[Any], T]) -> Callable[[Any], T]:
    def checked(value: Any) -> T:
        try:
            return read(value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ChainUnreachable(
                "The node's answer makes no sense.", code="bad_answer", hint="Is it a ledger of this version?"
            ) from error

    return checked


def _int(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("not an integer")
    return value


def _unit(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError("not in [0, 1]")
    return float(value)


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not a truth value")
    return value


def _axon(value: Any) -> Axon | None:
    return None if value is None else Axon(_str(value["ip"]), _int(value["port"]), _int(value["protocol"]))


_FIELDS: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("uid", "stake", "last_update", "registered_at", "emission"), _int),
    **dict.fromkeys(("incentive", "dividends", "validator_trust", "consensus"), _unit),
    **dict.fromkeys(("hotkey", "coldkey"), _str),
    **dict.fromkeys(("permit", "active"), _bool),
    "axon": _axon,
}


def metagraph_to_json(graph: Metagraph) -> dict[str, Any]:
    """A metagraph as JSON; :func:`dataclasses.asdict` would take ten times as long, for it copies deeply."""
    return {
        "netuid": graph.netuid,
        "block": graph.block,
        "owner_uid": graph.owner_uid,
        "neurons": [
            {
                **{name: getattr(neuron, name) for name in _FIELDS},
                "axon": None if neuron.axon is None else asdict(neuron.axon),
            }
            for neuron in graph.neurons
        ],
    }


def _neuron(value: Any) -> Neuron:
    return Neuron(**{name: read(value[name]) for name, read in _FIELDS.items()})


def _metagraph(value: Any) -> Metagraph:
    neurons = tuple(_neuron(item) for item in value["neurons"])
    if any(neuron.uid != at for at, neuron in enumerate(neurons)):
        raise ValueError("uids out of order")
    return Metagraph(_int(value["netuid"]), _int(value["block"]), _int(value["owner_uid"]), neurons)


def _hyperparameters(value: Any) -> Hyperparameters:
    # A newer server may know more rules than this client.
    default = asdict(Hyperparameters())
    readers: dict[str, Callable[[Any], Any]] = {
        name: _bool if isinstance(known, bool) else _int for name, known in default.items()
    }
    return Hyperparameters(**{name: read(value[name]) for name, read in readers.items()})


def _commitment(value: Any) -> Commitment | None:
    if value is None:
        return None
    return Commitment(Hotkey(_str(value["hotkey"])), _str(value["data"]), _int(value["block"]))


def _included(value: Any) -> IncludedCall | None:
    if value is None:
        return None
    return IncludedCall(_int(value["block"]), _str(value["kind"]), bytes.fromhex(_str(value["signature"])))


def _emissions(value: Any) -> dict[Hotkey, Pay]:
    return {
        Hotkey(hotkey): Pay(*(Rao(_int(paid[field.name])) for field in fields(Pay))) for hotkey, paid in value.items()
    }


def _standing(value: Any) -> Standing:
    return Standing(
        block=_int(value["block"]),
        epochs=_int(value["epochs"]),
        next_epoch=_int(value["next_epoch"]),
        price=Rao(_int(value["price"])),
        manual=_bool(value["manual"]),
        totals=Totals(*(Rao(_int(value["totals"][field.name])) for field in fields(Totals))),
    )


def _weights(value: Any) -> dict[int, dict[int, int]]:
    return {int(uid): {int(other): _int(weight) for other, weight in row.items()} for uid, row in value.items()}


number_from_json = _reader(_int)
metagraph_from_json = _reader(_metagraph)
hyperparameters_from_json = _reader(_hyperparameters)
commitment_from_json = _reader(_commitment)
included_from_json = _reader(_included)
emissions_from_json = _reader(_emissions)
standing_from_json = _reader(_standing)
weights_from_json = _reader(_weights)
