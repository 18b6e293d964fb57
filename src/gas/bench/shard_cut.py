"""Into how many shards a run is cut, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["count_shards", "cut_shards"]

_SHARDS_A_SLOT: Final = 4
"""So that a slow machine holds up the end by a fourth of its work, and a start costs little beside a shard."""

_SHARD_SHOWINGS: Final = 512
"""Fewer make no shard of their own while every slot has one: a model's start takes seconds."""

_SHARD_BYTES: Final = 256 * 2**20
"""Most media of a shard of several batches: what may be on the way to one machine."""


def count_shards(slots: int, showings: int) -> int:
    """How many shards a run of so many showings is worth on so many slots, at least one a slot."""
    return min(slots * _SHARDS_A_SLOT, max(slots, showings // _SHARD_SHOWINGS))


def cut_shards(sizes: Sequence[int], parts: int, *, most: int = _SHARD_BYTES) -> tuple[range, ...]:
    """Cut consecutive batches into about ``parts`` shards.

    Args:
        sizes: Bytes of each batch's media.
        parts: Shards that are wanted, at least 1.
        most: Bytes of a shard, unless it is a single batch.

    Returns:
        Places of each shard's batches: every one once, in order, no shard empty.
    """
    length = -(-len(sizes) // max(1, parts))
    shards: list[range] = []
    start = taken = 0
    for place, size in enumerate(sizes):
        if place > start and (place - start >= length or taken + size > most):
            shards.append(range(start, place))
            start, taken = place, 0
        taken += size
    return (*shards, range(start, len(sizes))) if sizes else ()
