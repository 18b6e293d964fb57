"""Weights as every implementation of the chain treats them: scaling, publishing, and the hash of commit and reveal."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gas.chain.keys import public_key
from gas.errors import ChainRefused

__all__ = [
    "MAX_WEIGHTS",
    "U16_MAX",
    "WeightsReceipt",
    "check_weights",
    "max_upscale",
    "scale_compact",
    "weights_hash",
]

MAX_WEIGHTS: Final = 4096
"""Most weights of one call: no subnet has more uids."""

U16_MAX: Final = 65535


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
        if len(numbers) > MAX_WEIGHTS or any(type(n) is not int or not 0 <= n <= U16_MAX for n in numbers):
            raise ChainRefused(
                f"Uids, weights and salts are lists of at most {MAX_WEIGHTS} integers from 0 to 65535.",
                code="malformed_call",
            )


def max_upscale(weights: Sequence[int]) -> list[int]:
    """Scale u16 weights so that the largest becomes 65535; fractions are cut off, zeros stay.

    Args:
        weights: Integers in [0, 65535].

    Returns:
        As many integers in [0, 65535]; all zeros when all were zero.
    """
    largest = max(weights, default=0)
    if largest in (0, U16_MAX):
        return list(weights)
    return [w * U16_MAX // largest for w in weights]


def scale_compact(value: int) -> bytes:
    """SCALE's compact form of a length.

    Args:
        value: In [0, 2**30).

    Raises:
        ValueError: ``value`` is out of range.
    """
    if 0 <= value < 1 << 6:
        return bytes([value << 2])
    if value < 1 << 14 and value > 0:
        return struct.pack("<H", value << 2 | 1)
    if value < 1 << 30 and value > 0:
        return struct.pack("<I", value << 2 | 2)
    raise ValueError("A length must be from 0 to 2**30 - 1.")


def weights_hash(
    hotkey: str, netuid: int, uids: Sequence[int], weights: Sequence[int], salt: Sequence[int], version_key: int
) -> bytes:
    """blake2_256 over SCALE((hotkey, netuid, uids, weights, salt, version_key)), as the network hashes it.

    Args:
        hotkey: SS58 address of the committing hotkey.
        netuid: u16.
        uids: u16 each.
        weights: u16 each, exactly as they will be revealed.
        salt: u16 each; unpredictable, so that nobody can guess the weights from the hash.
        version_key: u64.

    Returns:
        32 bytes.

    Raises:
        ValueError: The address is not valid or a number is out of range.
    """
    try:
        parts = [public_key(hotkey), struct.pack("<H", netuid)]
        parts += [
            scale_compact(len(numbers)) + struct.pack(f"<{len(numbers)}H", *numbers)
            for numbers in (uids, weights, salt)
        ]
        parts.append(struct.pack("<Q", version_key))
    except struct.error as error:
        raise ValueError("A number is out of range.") from error
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()
