"""What a subnet looks like at the head: each read at one block, with the runtime interfaces that there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gas.chain.base import Commitment, Hyperparameters, Metagraph
from gas.chain.bittensor import views
from gas.chain.bittensor.node import Head, Key, Node
from gas.chain.bittensor.refusals import RATE_LIMITS
from gas.chain.keys import is_address
from gas.errors import ChainRefused, ChainUnreachable
from gas.types import Rao

__all__ = [
    "PALLET",
    "blocks_to_wait",
    "check_number",
    "is_expired",
    "read_balance",
    "read_commitment",
    "read_hyperparameters",
    "read_metagraph",
    "read_price",
    "read_weights",
    "require_subnet",
    "unknown_subnet",
]

PALLET: Final = "SubtensorModule"
_INFO: Final = "SubnetInfoRuntimeApi"
_KEYS_AT_ONCE: Final = 512


def check_number(name: str, value: int, bits: int) -> int:
    """A number that fits its field of a call, refused before anything is asked if it doesn't.

    Raises:
        ChainRefused: ``malformed_call``.
    """
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise ChainRefused(f"{name} must be an integer from 0 to {(1 << bits) - 1}.", code="malformed_call")
    return value


def unknown_subnet(netuid: int) -> ChainRefused:
    """The error for a subnet that there isn't."""
    return ChainRefused(f"There is no subnet {netuid}.", code="unknown_subnet", hint="Check --netuid.")


async def require_subnet(node: Node, head: Head, netuid: int) -> None:
    """Refuse a subnet that there isn't.

    Raises:
        ChainRefused: ``unknown_subnet``.
    """
    (known,) = await node.storage(head, [(PALLET, "NetworksAdded", [netuid])])
    if not known:
        raise unknown_subnet(netuid)


async def read_metagraph(node: Node, netuid: int) -> Metagraph:
    """Snapshot of a subnet.

    Raises:
        ChainRefused: ``unknown_subnet``.
    """
    check_number("netuid", netuid, 16)
    head = await node.head()
    if head.has_method(_INFO, "get_selective_metagraph"):
        # A field's number in a selective call is its place in the record.
        fields = head.result_fields(_INFO, "get_selective_metagraph")
        wanted = [fields.index(name) for name in views.METAGRAPH_FIELDS if name in fields]
        found = await node.call(head, _INFO, "get_selective_metagraph", [netuid, wanted])
    else:
        found = await node.call(head, _INFO, "get_metagraph", [netuid])
    if found is None:
        raise unknown_subnet(netuid)
    (trust,) = await node.storage(head, [(PALLET, "ValidatorTrust", [netuid])])
    return views.metagraph(netuid, found, trust or ())


async def read_hyperparameters(node: Node, netuid: int) -> Hyperparameters:
    """Rules of a subnet.

    Raises:
        ChainRefused: ``unknown_subnet``.
    """
    check_number("netuid", netuid, 16)
    head = await node.head()
    newer = head.has_method(_INFO, "get_subnet_hyperparams_v2")
    method = "get_subnet_hyperparams_v2" if newer else "get_subnet_hyperparams"
    found = await node.call(head, _INFO, method, [netuid])
    if found is None:
        raise unknown_subnet(netuid)
    items: dict[str, Key] = {
        "max_allowed_uids": (PALLET, "MaxAllowedUids", [netuid]),
        "bonds_penalty": (PALLET, "BondsPenalty", [netuid]),
        "min_stake": (PALLET, "StakeThreshold", []),
        "yuma3": (PALLET, "Yuma3On", [netuid]),
        "alpha_sigmoid_steepness": (PALLET, "AlphaSigmoidSteepness", [netuid]),
    }
    values = await node.storage(head, list(items.values()))
    return views.hyperparameters(found, dict(zip(items, values, strict=True)))


async def read_commitment(node: Node, netuid: int, hotkey: str) -> Commitment | None:
    """A hotkey's published text and the block of its publication.

    Raises:
        ChainRefused: ``unknown_subnet``, or ``malformed_call`` when ``hotkey`` is no address.
    """
    check_number("netuid", netuid, 16)
    if not is_address(hotkey):
        raise ChainRefused("The hotkey is no SS58 address.", code="malformed_call")
    head = await node.head()
    keys: list[Key] = [("Commitments", "CommitmentOf", [netuid, hotkey]), (PALLET, "NetworksAdded", [netuid])]
    found, known = await node.storage(head, keys)
    if not known:
        raise unknown_subnet(netuid)
    return None if found is None else views.commitment(hotkey, found)


async def read_weights(node: Node, netuid: int) -> dict[int, dict[int, int]]:
    """Uid of the validator -> uid of the miner -> u16, max-upscaled; validators without weights left out.

    Raises:
        ChainRefused: ``unknown_subnet``.
    """
    check_number("netuid", netuid, 16)
    head = await node.head()
    known, count = await node.storage(head, [(PALLET, "NetworksAdded", [netuid]), (PALLET, "SubnetworkN", [netuid])])
    if not known:
        raise unknown_subnet(netuid)
    rows: list[Sequence[tuple[int, int]]] = []
    for start in range(0, int(count or 0), _KEYS_AT_ONCE):
        uids = range(start, min(start + _KEYS_AT_ONCE, int(count)))
        rows += await node.storage(head, [(PALLET, "Weights", [netuid, uid]) for uid in uids])
    return {uid: {int(of): int(weight) for of, weight in row} for uid, row in enumerate(rows) if row}


async def read_balance(node: Node, address: str) -> Rao:
    """Free rao on an account; 0 for one that nobody has seen.

    Raises:
        ChainRefused: ``malformed_call``, when it is no address.
    """
    if not is_address(address):
        raise ChainRefused("The account is no SS58 address.", code="malformed_call")
    (account,) = await node.storage(await node.head(), [("System", "Account", [address])])
    try:
        return Rao(int(account["data"]["free"]))
    except (TypeError, KeyError, ValueError) as error:
        raise ChainUnreachable("The chain's node gives another account than expected.", hint="Update GAS.") from error


async def read_price(node: Node, netuid: int) -> Rao:
    """What a slot of the subnet costs now, in rao.

    Raises:
        ChainRefused: ``unknown_subnet``.
    """
    check_number("netuid", netuid, 16)
    keys: list[Key] = [(PALLET, "NetworksAdded", [netuid]), (PALLET, "Burn", [netuid])]
    known, price = await node.storage(await node.head(), keys)
    if not known:
        raise unknown_subnet(netuid)
    return Rao(int(price or 0))


async def is_expired(node: Node, netuid: int, hotkey: str, commit_hash: bytes) -> bool:
    """Whether a commit by hash that the chain still holds can't be revealed any more."""
    keys: list[Key] = [
        (PALLET, "WeightCommits", [netuid, hotkey]),
        (PALLET, "SubnetEpochIndex", [netuid]),
        (PALLET, "RevealPeriodEpochs", [netuid]),
        ("System", "Number", []),
    ]
    commits, epoch, period, block = await node.storage(await node.head(), keys)
    for found, first, _, last in commits or ():
        if found == "0x" + commit_hash.hex():
            # Runtimes that count a subnet's epochs store the commit's; older ones the last block for a reveal.
            return bool(last < block if epoch is None else first + int(period or 0) < epoch)
    return False


async def blocks_to_wait(node: Node, name: str, netuid: int, hotkey: str) -> int:
    """How many blocks a rate limit lasts from the newest block on; at least 1.

    Args:
        node: The node.
        name: The runtime's error, one of :data:`~gas.chain.bittensor.refusals.RATE_LIMITS`.
        netuid: The subnet.
        hotkey: Whose limit it is.
    """
    kind = RATE_LIMITS[name]
    items: dict[str, list[tuple[str, Sequence[Any]]]] = {
        "weights": [("Uids", [netuid, hotkey]), ("LastUpdate", [netuid]), ("WeightsSetRateLimit", [netuid])],
        "axon": [("Axons", [netuid, hotkey]), ("ServingRateLimit", [netuid])],
        "commitment": [("Tempo", [netuid]), ("BlocksSinceLastStep", [netuid])],
        "registration": [("LastAdjustmentBlock", [netuid]), ("AdjustmentInterval", [netuid])],
        "block": [],
    }
    keys: list[Key] = [(PALLET, item, params) for item, params in items[kind]]
    block, *found = await node.storage(await node.head(), [("System", "Number", []), *keys])
    left = 1
    if kind == "weights" and found[0] is not None and int(found[0]) < len(found[1] or ()):
        left = int(found[1][int(found[0])]) + int(found[2] or 0) - int(block)
    elif kind == "axon" and found[0] is not None:
        left = int(found[0]["block"]) + int(found[1] or 0) - int(block)
    elif kind == "commitment":
        left = int(found[0] or 0) - int(found[1] or 0)
    elif kind == "registration":
        left = int(found[0] or 0) + int(found[1] or 0) - int(block)
    return max(1, left)
