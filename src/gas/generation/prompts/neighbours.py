"""Near repeats: a growing set of vectors that is asked for the nearest one.

Plain matrix products over signed bytes, in blocks: exact, 384 bytes a text, and for a batch of 256 questions about a
second on 100,000 texts and one core. An approximate index would save time from some millions on, and miss repeats.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.generation.prompts.embedding import DIMENSIONS, pack_vectors, unpack_vectors

__all__ = ["Neighbours", "nearest_of_each"]

_BLOCK: Final = 8192


class Neighbours:
    """Vectors with a number each."""

    def __init__(self) -> None:
        self._packed = np.zeros((0, DIMENSIONS), np.int8)
        self._ids = np.zeros(0, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, ids: NDArray[np.int64], packed: NDArray[np.int8]) -> None:
        """Add vectors.

        Args:
            ids: int64, (n,).
            packed: int8, (n, 384), of :func:`gas.generation.prompts.embedding.pack_vectors`.
        """
        need = self._count + len(ids)
        if need > len(self._ids):
            room = max(need, 2 * len(self._ids), 256)
            self._packed = np.concatenate([self._packed, np.zeros((room - len(self._ids), DIMENSIONS), np.int8)])
            self._ids = np.concatenate([self._ids, np.zeros(room - len(self._ids), np.int64)])
        self._packed[self._count : need] = packed
        self._ids[self._count : need] = ids
        self._count = need

    def nearest(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The nearest vector of each.

        Args:
            vectors: float32, (m, 384), unit vectors.

        Returns:
            Cosines in [-1, 1] (m,), and the numbers (m,); -1 and -1 when there is none.
        """
        best = np.full(len(vectors), -1, np.float32)
        found = np.full(len(vectors), -1, np.int64)
        if not len(vectors):
            return best, found
        for first in range(0, self._count, _BLOCK):
            last = min(first + _BLOCK, self._count)
            cosines = vectors @ unpack_vectors(self._packed[first:last]).T
            at = cosines.argmax(axis=1)
            value = cosines[np.arange(len(vectors)), at]
            better = value > best
            best[better] = value[better]
            found[better] = self._ids[first:last][at[better]]
        return np.clip(best, -1, 1), found

    def take_new(self, vectors: NDArray[np.float32], threshold: float) -> list[tuple[bool, float, int]]:
        """Which of several vectors are no near repeats, of these here or of one before them in the list.

        Args:
            vectors: float32, (m, 384).
            threshold: Cosine from which on something is a near repeat.

        Returns:
            For each vector whether it is new, its cosine to the nearest, and whose number that is: of one here, or
            ``-2 - position`` of one in the list. Nothing is added.
        """
        cosines, ids = self.nearest(vectors)
        # Compared as they will be kept, so that a batch and one by one come to the same.
        among = unpack_vectors(pack_vectors(vectors))
        table = vectors @ among.T if len(vectors) else np.zeros((0, 0), np.float32)
        out: list[tuple[bool, float, int]] = []
        kept: list[int] = []
        for row in range(len(vectors)):
            cosine, who = float(cosines[row]), int(ids[row])
            if kept:
                inside = table[row, kept]
                position = int(inside.argmax())
                if float(inside[position]) > cosine:
                    cosine, who = float(inside[position]), -2 - kept[position]
            new = cosine < threshold
            out.append((new, min(1.0, cosine), who))
            if new:
                kept.append(row)
        return out


def nearest_of_each(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64], float]:
    """For a whole set, each vector's nearest other one.

    Args:
        vectors: float32, (n, 384), unit vectors.

    Returns:
        Cosines (n,), positions (n,), and the mean cosine of all pairs; -1, -1 and 0 for fewer than two vectors.
    """
    count = len(vectors)
    best = np.full(count, -1, np.float32)
    found = np.full(count, -1, np.int64)
    if count < 2:
        return best, found, 0.0
    total = 0.0
    for first in range(0, count, 1024):
        cosines = vectors[first : first + 1024] @ vectors.T
        rows = np.arange(len(cosines))
        total += float(cosines.sum(dtype=np.float64)) - float(cosines[rows, first + rows].sum(dtype=np.float64))
        cosines[rows, first + rows] = -2
        at = cosines.argmax(axis=1)
        best[first : first + len(cosines)] = cosines[rows, at]
        found[first : first + len(cosines)] = at
    return np.clip(best, -1, 1), found, total / (count * (count - 1))
