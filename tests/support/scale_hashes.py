"""The hashes of storage keys, from their specifications."""

from __future__ import annotations

import hashlib

__all__ = ["key_hash", "twox_128"]


def _xxh64(data: bytes, seed: int) -> int:
    """xxHash64, from its specification."""
    p1, p2, p3, p4, p5 = (
        11400714785074694791, 14029467366897019727, 1609587929392839161, 9650029242287828579, 2870177450012600261,
    )  # fmt: skip
    mask = 2**64 - 1

    def rotate(x: int, by: int) -> int:
        return (x << by | x >> (64 - by)) & mask

    def turn(acc: int, lane: int) -> int:
        return rotate((acc + lane * p2) & mask, 31) * p1 & mask

    at, size = 0, len(data)
    if size >= 32:
        lanes = [(seed + p1 + p2) & mask, (seed + p2) & mask, seed, (seed - p1) & mask]
        while at + 32 <= size:
            for i in range(4):
                lanes[i] = turn(lanes[i], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        acc = sum(rotate(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & mask
        for lane in lanes:
            acc = ((acc ^ turn(0, lane)) * p1 + p4) & mask
    else:
        acc = (seed + p5) & mask
    acc = (acc + size) & mask
    while at + 8 <= size:
        acc = (rotate(acc ^ turn(0, int.from_bytes(data[at : at + 8], "little")), 27) * p1 + p4) & mask
        at += 8
    if at + 4 <= size:
        acc = (rotate(acc ^ int.from_bytes(data[at : at + 4], "little") * p1 & mask, 23) * p2 + p3) & mask
        at += 4
    for byte in data[at:]:
        acc = rotate(acc ^ byte * p5 & mask, 11) * p1 & mask
    acc = (acc ^ acc >> 33) * p2 & mask
    acc = (acc ^ acc >> 29) * p3 & mask
    return acc ^ acc >> 32


def _twox(data: bytes, lanes: int) -> bytes:
    return b"".join(_xxh64(data, seed).to_bytes(8, "little") for seed in range(lanes))


def twox_128(data: bytes) -> bytes:
    """The hash of pallets' and storage items' names."""
    return _twox(data, 2)


def key_hash(hasher: str, data: bytes) -> bytes:
    """The part of a storage key that stands for one encoded parameter."""
    if hasher.startswith("Blake2"):
        digest = hashlib.blake2b(data, digest_size=32 if "256" in hasher else 16).digest()
    elif hasher.startswith("Twox"):
        digest = _twox(data, int(hasher[4:].removesuffix("Concat")) // 64)
    else:
        return data
    return digest + data if hasher.endswith("Concat") else digest
