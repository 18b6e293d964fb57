"""What the runtime answers, as the seam's frozen records; pure functions of decoded values."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gas.chain.base import Axon, Commitment, Hyperparameters, Metagraph, Neuron
from gas.chain.weights import U16_MAX
from gas.errors import ChainUnreachable
from gas.types import Hotkey, Rao

__all__ = [
    "METAGRAPH_FIELDS",
    "axon",
    "commitment",
    "commitment_fields",
    "hyperparameters",
    "metagraph",
]

METAGRAPH_FIELDS: Final = (
    "netuid",
    "owner_hotkey",
    "block",
    "hotkeys",
    "coldkeys",
    "axons",
    "active",
    "validator_permit",
    "last_update",
    "emission",
    "dividends",
    "incentives",
    "consensus",
    "block_at_registration",
    "total_stake",
)
"""The fields of the runtime's metagraph that :func:`metagraph` reads: all that a selective call has to ask for."""

_MAX_COMMITMENT_BYTES: Final = 128


def metagraph(netuid: int, found: Mapping[str, Any], validator_trust: Sequence[int]) -> Metagraph:
    """The seam's snapshot.

    Args:
        netuid: The subnet.
        found: Decoded ``Metagraph`` or ``SelectiveMetagraph`` with :data:`METAGRAPH_FIELDS`; scores are u16, amounts
            rao, columns in uid order.
        validator_trust: u16 by uid; the runtime's metagraph does not carry it. Missing ones count as 0.

    Returns:
        The snapshot. ``stake`` is the runtime's ``total_stake``: alpha, and tao at the network's weight of tao.
        ``owner_uid`` is -1 when the owner's hotkey holds no slot.

    Raises:
        ChainUnreachable: The record has another shape.
    """
    try:
        hotkeys = [str(hotkey) for hotkey in found["hotkeys"]]
        columns = {name: _column(found, name, len(hotkeys)) for name in METAGRAPH_FIELDS[4:]}
        trust = [*validator_trust, *([0] * len(hotkeys))]
        return Metagraph(
            netuid=netuid,
            block=int(found["block"]),
            owner_uid=hotkeys.index(owner) if (owner := str(found["owner_hotkey"])) in hotkeys else -1,
            neurons=tuple(
                Neuron(
                    uid=uid,
                    hotkey=Hotkey(hotkey),
                    coldkey=str(columns["coldkeys"][uid]),
                    stake=Rao(int(columns["total_stake"][uid])),
                    permit=bool(columns["validator_permit"][uid]),
                    axon=axon(columns["axons"][uid]),
                    last_update=int(columns["last_update"][uid]),
                    registered_at=int(columns["block_at_registration"][uid]),
                    incentive=int(columns["incentives"][uid]) / U16_MAX,
                    dividends=int(columns["dividends"][uid]) / U16_MAX,
                    validator_trust=int(trust[uid]) / U16_MAX,
                    consensus=int(columns["consensus"][uid]) / U16_MAX,
                    emission=Rao(int(columns["emission"][uid])),
                    active=bool(columns["active"][uid]),
                )
                for uid, hotkey in enumerate(hotkeys)
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ChainUnreachable("The chain's node gives another metagraph than expected.", hint="Update GAS.") from error


def axon(found: Mapping[str, Any]) -> Axon | None:
    """Where a neuron listens; None when it has never said so, or has said what can't be."""
    ip, port, kind = int(found.get("ip", 0)), int(found.get("port", 0)), int(found.get("ip_type", 4))
    if ip == 0 or not 0 < port <= U16_MAX:
        return None
    try:
        address = ipaddress.IPv6Address(ip) if kind == 6 else ipaddress.IPv4Address(ip)
    except ipaddress.AddressValueError:
        return None
    return Axon(str(address), port, int(found.get("protocol", 4)))


def hyperparameters(found: Mapping[str, Any], stored: Mapping[str, Any]) -> Hyperparameters:
    """The seam's rules.

    Args:
        found: Decoded ``SubnetHyperparams`` of either version.
        stored: Values that neither or only the newer one carries, under the seam's names; None where the runtime has
            no such item, which leaves the seam's default.

    Raises:
        ChainUnreachable: The record has another shape.
    """
    usual = Hyperparameters()
    numbers = {name: getattr(usual, name) if value is None else int(value) for name, value in stored.items()}
    try:
        return Hyperparameters(
            tempo=int(found["tempo"]),
            max_allowed_uids=numbers.get("max_allowed_uids", usual.max_allowed_uids),
            max_allowed_validators=int(found["max_validators"]),
            min_allowed_weights=int(found["min_allowed_weights"]),
            weights_rate_limit=int(found["weights_rate_limit"]),
            weights_version=int(found["weights_version"]),
            activity_cutoff=int(found["activity_cutoff"]),
            immunity_period=int(found["immunity_period"]),
            kappa=int(found["kappa"]),
            bonds_moving_avg=int(found["bonds_moving_avg"]),
            bonds_penalty=numbers.get("bonds_penalty", usual.bonds_penalty),
            yuma3=bool(numbers.get("yuma3", usual.yuma3)),
            liquid_alpha=bool(found["liquid_alpha_enabled"]),
            alpha_low=int(found["alpha_low"]),
            alpha_high=int(found["alpha_high"]),
            alpha_sigmoid_steepness=numbers.get("alpha_sigmoid_steepness", usual.alpha_sigmoid_steepness),
            commit_reveal=bool(found["commit_reveal_weights_enabled"]),
            commit_reveal_period=int(found["commit_reveal_period"]),
            min_stake=numbers.get("min_stake", usual.min_stake),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ChainUnreachable(
            "The chain's node gives other hyperparameters than expected.", hint="Update GAS."
        ) from error


def commitment(hotkey: str, found: Mapping[str, Any]) -> Commitment | None:
    """The plain text of a decoded ``Registration`` of the Commitments pallet; None when it holds none.

    Bytes that are no UTF-8 become replacement characters: what others publish is theirs to get right.
    """
    info = found.get("info")
    fields = info.get("fields") if isinstance(info, Mapping) else None
    raw = b""
    seen = False
    for field in _flat(fields):
        kind, value = next(iter(field.items()))
        if kind.startswith("Raw"):
            seen = True
            raw += _bytes(value)
    block = found.get("block")
    if not seen or not isinstance(block, int):
        return None
    return Commitment(Hotkey(hotkey), raw.decode("utf-8", "replace"), block)


def commitment_fields(text: bytes) -> dict[str, Any]:
    """The ``CommitmentInfo`` that holds a text of at most 128 bytes as it is.

    Raises:
        ValueError: It is longer.
    """
    if len(text) > _MAX_COMMITMENT_BYTES:
        raise ValueError("A commitment has at most 128 bytes.")
    return {"fields": [[{f"Raw{len(text)}": "0x" + text.hex()}]]}


def _flat(fields: Any) -> list[Mapping[str, Any]]:
    """The fields as one-entry mappings; decoders nest a bounded vector once more or not."""
    if isinstance(fields, Mapping):
        return [fields] if len(fields) == 1 else []
    if isinstance(fields, list | tuple):
        return [field for entry in fields for field in _flat(entry)]
    return []


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return bytes.fromhex(value[2:]) if value.startswith("0x") else value.encode()
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, list | tuple):
        return b"".join(_bytes(part) if not isinstance(part, int) else bytes([part]) for part in value)
    return b""


def _column(found: Mapping[str, Any], name: str, length: int) -> Sequence[Any]:
    column = found[name]
    if not isinstance(column, list | tuple) or len(column) != length:
        raise ValueError(f"{name} has another length than hotkeys.")
    return column
