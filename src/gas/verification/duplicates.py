"""Copies and near copies of media that the network has seen already."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray

__all__ = ["NEAR_BITS", "DuplicateIndex", "Match", "Seen"]

NEAR_BITS: Final = 4
"""Two pictures whose 64-bit perceptual hashes differ in at most so many bits are one picture."""

_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """A medium that was accepted before; what must be kept to build the index again.

    Attributes:
        sha256: Hex SHA-256 of its bytes.
        phash: Perceptual hash in [0, 2**64), see :func:`gas.media.hashing.perceptual_hash`.
        pixels: Hex SHA-256 of its pixels, see :func:`gas.media.hashing.pixel_sha256`; empty when it isn't known.
    """

    sha256: str
    phash: int
    pixels: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """The nearest medium that was seen before.

    Attributes:
        sha256: Which one.
        distance: Bits of the perceptual hash that differ, 0..64.
        exact: Whether bytes or pixels are the same.
    """

    sha256: str
    distance: int
    exact: bool = False


class DuplicateIndex:
    """Finds copies; may be used from several threads.

    Args:
        seen: What was accepted before.
        near_bits: Largest distance of a near duplicate.
    """

    def __init__(self, seen: Iterable[Seen] = (), *, near_bits: int = NEAR_BITS) -> None:
        self.near_bits = near_bits
        self._lock = threading.Lock()
        self._names: list[str] = []
        self._exact: dict[str, str] = {}
        self._index = faiss.IndexBinaryFlat(_BITS)
        entries = list(seen)
        self._names.extend(entry.sha256 for entry in entries)
        for entry in entries:
            self._remember(entry)
        if entries:
            self._index.add(np.concatenate([_packed(entry.phash) for entry in entries]))

    def __len__(self) -> int:
        return len(self._names)

    def find(self, phash: int) -> Match | None:
        """The nearest medium by perceptual hash, however far; None when nothing was seen yet."""
        with self._lock:
            return self._nearest(phash)

    def duplicate_of(self, medium: Seen) -> Match | None:
        """The medium of which this one is a copy or a near copy, or None."""
        with self._lock:
            return self._match(medium)

    def add(self, medium: Seen) -> None:
        """Remember a medium, whatever is there already."""
        with self._lock:
            self._add(medium)

    def claim(self, medium: Seen) -> Match | None:
        """Remember a medium unless it is a copy; of two equal media that come at once, one gets None."""
        with self._lock:
            match = self._match(medium)
            if match is None:
                self._add(medium)
            return match

    def _match(self, medium: Seen) -> Match | None:
        for key in (medium.sha256, medium.pixels):
            if key and key in self._exact:
                return Match(self._exact[key], 0, exact=True)
        nearest = self._nearest(medium.phash)
        return nearest if nearest and nearest.distance <= self.near_bits else None

    def _nearest(self, phash: int) -> Match | None:
        if not self._names:
            return None
        distances, positions = self._index.search(_packed(phash), 1)
        return Match(self._names[int(positions[0, 0])], int(distances[0, 0]))

    def _add(self, medium: Seen) -> None:
        self._index.add(_packed(medium.phash))
        self._names.append(medium.sha256)
        self._remember(medium)

    def _remember(self, medium: Seen) -> None:
        for key in (medium.sha256, medium.pixels):
            if key:
                self._exact.setdefault(key, medium.sha256)


def _packed(phash: int) -> NDArray[np.uint8]:
    return np.frombuffer(phash.to_bytes(_BITS // 8, "big"), dtype=np.uint8)[None]
