"""What publishing weights takes and gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gas.errors import ChainRefused

__all__ = ["MAX_WEIGHTS", "WeightsReceipt", "check_weights"]

MAX_WEIGHTS: Final = 4096
"""Most weights of one call: no subnet has more uids."""


@dataclass(frozen=True, slots=True)
class WeightsReceipt:
    """How weights were published.

    Attributes:
        kind: ``plain``: they are in force; ``timelocked``: the network reveals them; ``committed``: the caller has to
            reveal them one period later.
        netuid: The subnet.
        uids: As given.
        weights: As given.
        version_key: As given.
        block: The block that holds the call.
        salt: For the reveal, when ``committed``.
        reveal_round: The drand round that opens them, when ``timelocked``.
    """

    kind: Literal["plain", "timelocked", "committed"]
    netuid: int
    uids: tuple[int, ...]
    weights: tuple[int, ...]
    version_key: int
    block: int
    salt: tuple[int, ...] = ()
    reveal_round: int | None = None


def check_weights(*lists: Sequence[int]) -> None:
    """Refuse what no call can carry, before it is encoded.

    Args:
        lists: Uids, weights, and a salt: at most 4,096 u16 each.

    Raises:
        ChainRefused: ``malformed_call``.
    """
    for numbers in lists:
        if len(numbers) > MAX_WEIGHTS or any(type(n) is not int or not 0 <= n <= 65535 for n in numbers):
            raise ChainRefused(
                f"Uids, weights and salts are lists of at most {MAX_WEIGHTS} integers from 0 to 65535.",
                code="malformed_call",
            )
