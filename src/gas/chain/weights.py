"""Weights as every implementation of the chain treats them: scaling, and the hash of commit and reveal."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

from gas.chain.keys import public_key

__all__ = ["U16_MAX", "max_upscale", "scale_compact", "weights_hash"]

U16_MAX: Final = 65535


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
