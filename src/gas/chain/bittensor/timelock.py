"""Commit-reveal version 4: weights sealed by time-lock encryption, which the network opens by itself.

The seal is to a round of the drand beacon (one every 3 s), so that nobody, its maker included, can open it before the
epoch in which the weights count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bittensor_drand import get_encrypted_commit_v2  # type: ignore[import-untyped]

from gas.chain.bittensor.node import Head, Node
from gas.chain.bittensor.reading import PALLET
from gas.chain.keys import public_key
from gas.errors import ChainRefused, ChainUnreachable

__all__ = ["DEFAULT_BLOCK_SECONDS", "TIMELOCK_VERSION", "SealedWeights", "can_seal", "seal_weights", "wanted_version"]

TIMELOCK_VERSION: Final = 4
"""Version of commit and reveal that this module speaks."""

DEFAULT_BLOCK_SECONDS: Final = 12.0

_SCHEDULE: Final = (
    "Tempo",
    "RevealPeriodEpochs",
    "LastEpochBlock",
    "PendingEpochAt",
    "SubnetEpochIndex",
    "BlocksSinceLastStep",
)
_MAX_BYTES: Final = 5000


@dataclass(frozen=True, slots=True)
class SealedWeights:
    """What ``commit_timelocked_mechanism_weights`` takes.

    Attributes:
        data: The sealed weights.
        reveal_round: Round of the beacon that opens them.
    """

    data: bytes
    reveal_round: int


def can_seal(head: Head) -> bool:
    """Whether the runtime takes time-locked weights and shows the schedule of epochs that a seal needs."""
    calls = ("commit_timelocked_mechanism_weights", "commit_timelocked_weights")
    return any(head.has_call(PALLET, name) for name in calls) and all(
        head.has_storage(PALLET, name) for name in _SCHEDULE
    )


async def wanted_version(node: Node, head: Head) -> int:
    """The version of commit and reveal that the network asks for; 4 when it doesn't say.

    Raises:
        ChainUnreachable: The node doesn't answer.
    """
    (version,) = await node.storage(head, [(PALLET, "CommitRevealWeightsVersion", [])])
    return TIMELOCK_VERSION if version is None else int(version)


async def seal_weights(
    node: Node, head: Head, hotkey: str, netuid: int, uids: Sequence[int], weights: Sequence[int], version_key: int
) -> SealedWeights:
    """Seal weights until the epoch in which the subnet reveals what is committed now.

    Args:
        node: Where the schedule of epochs is read.
        head: At which block.
        hotkey: SS58 address of the committing hotkey.
        netuid: The subnet.
        uids: u16 each.
        weights: u16 each.
        version_key: u64.

    Raises:
        ChainRefused: The runtime takes none (``timelock_unsupported``), the subnet runs no epochs (``no_epochs``),
            or they are too many (``commit_too_large``).
        ChainUnreachable: The node doesn't answer, or its schedule makes no sense.
    """
    if not can_seal(head):
        raise ChainRefused(
            "The network's runtime takes no time-locked weights.",
            code="timelock_unsupported",
            hint="Commit and reveal them.",
        )
    keys: list[tuple[str, str, Sequence[Any]]] = [(PALLET, name, [netuid]) for name in _SCHEDULE]
    values = await node.storage(head, [*keys, ("System", "Number", [])])
    tempo, period, last_epoch, pending, index, since_step, block = (int(value or 0) for value in values)
    if tempo == 0:
        raise ChainRefused(f"Subnet {netuid} runs no epochs.", code="no_epochs")
    slot = head.constant("Aura", "SlotDuration")
    try:
        # The cryptography takes its time and holds no lock on the interpreter that matters here.
        data, reveal_round = await asyncio.to_thread(
            get_encrypted_commit_v2,
            list(uids),
            list(weights),
            version_key,
            last_epoch,
            pending,
            index,
            tempo,
            since_step,
            block,
            period,
            DEFAULT_BLOCK_SECONDS if not slot else slot / 1000,
            public_key(hotkey),
        )
    except ValueError as error:
        raise ChainUnreachable("The weights can't be sealed.", hint="Check the machine's clock.") from error
    if len(data) > _MAX_BYTES:
        raise ChainRefused("There are too many weights for one sealed commit.", code="commit_too_large")
    return SealedWeights(bytes(data), int(reveal_round))
