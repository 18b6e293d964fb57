"""The search for pictures that share segments, in three steps, each for fewer pictures.

Some bits of a segment's hash choose a bucket, once in each of several tables, and a sketch of other bits is compared
there; then the whole hashes of what is left; then, for pictures with a segment in common, all their segments, and
whether these agree on one way of laying one picture over the other. One segment found in one table is enough to look
at a picture: of its copies that agree in four segments hardly any is missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gas.media.segments import NEAR_BITS, SEGMENTS, Segments, agreement, mirrored
from gas.verification.journal import Journal
from gas.verification.postings import Entries, Postings

__all__ = ["PieceIndex", "Shared", "segments_of"]

# Chosen by climbing on 5,847 changed copies of 500 pictures: hardly ever wrong in a copy, and seldom equal in others.
_TABLES: Final = (
    (0, 27, 39, 10, 24, 47, 90, 23, 15, 78, 13, 29, 14, 56, 104, 31, 7, 3, 6, 42, 9),
    (20, 2, 59, 19, 58, 40, 11, 22, 17, 48, 14, 16, 25, 7, 15, 31, 3, 0, 10, 12, 4),
    (32, 28, 22, 1, 16, 34, 53, 35, 2, 33, 13, 78, 5, 6, 24, 30, 4, 50, 60, 62, 61),
    (43, 40, 39, 0, 9, 47, 36, 12, 1, 30, 6, 58, 11, 4, 2, 27, 18, 87, 21, 49, 74),
    (26, 1, 3, 44, 37, 9, 15, 32, 76, 2, 50, 18, 6, 24, 12, 77, 10, 65, 11, 8, 41),
    (3, 9, 5, 21, 4, 2, 33, 26, 46, 0, 1, 38, 7, 57, 8, 23, 67, 22, 25, 35, 45),
)
_SKETCH: Final = tuple(range(12, 108, 3))
_SKETCH_BITS: Final = 8
_LONGEST: Final = 64
_MOST_PAIRS: Final = 8000
_LOOKED_AT: Final = 96
_TRIED: Final = 12


@dataclass(frozen=True, slots=True)
class Shared:
    """A row whose picture lies over the one that was asked for.

    Attributes:
        row: Of the journal.
        frame: Which of the pictures asked for.
        agreeing: How many segments agree.
        mirrored: Whether it is mirrored.
    """

    row: int
    frame: int
    agreeing: int
    mirrored: bool


class PieceIndex:
    """Rows by their segments. Not safe to be shared by threads without a lock.

    Args:
        folder: Where it is kept; None for memory only.
        journal: Rows with the fields ``pieces``, ``places``, ``segments`` and ``owner``.
        agreeing: So many segments that agree make a copy.
    """

    def __init__(self, folder: Path | None, journal: Journal, agreeing: int) -> None:
        self._journal, self._agreeing = journal, agreeing
        self._postings = Postings(
            folder, "segments", journal, _entries, tables=len(_TABLES), code_bits=len(_TABLES[0]), density=4
        )

    def refresh(self) -> None:
        """Take in what the journal has by now."""
        self._postings.refresh()

    def find(self, pictures: Sequence[Segments], owner: int = 0) -> list[Shared]:
        """Rows that agree with the pictures, upright or mirrored.

        Args:
            pictures: Segments of each; those with fewer than are needed to agree find nothing.
            owner: Whose rows are passed over; 0 for nobody's.
        """
        sides = [side for one in pictures for side in (one, mirrored(one)) if len(one) >= self._agreeing]
        frames = [at for at, one in enumerate(pictures) if len(one) >= self._agreeing]
        if not sides:
            return []
        hashes = np.ascontiguousarray(np.concatenate([side.hashes for side in sides]))
        side_of = np.repeat(np.arange(len(sides)), [len(side) for side in sides])
        codes = np.stack([_bits(hashes, table) for table in range(len(_TABLES))])
        numbers, which = self._postings.find(codes, _sketches(hashes), _SKETCH_BITS, _LONGEST)
        if not len(numbers):
            return []
        pairs = _once(numbers * len(hashes) + which)
        if len(pairs) > _MOST_PAIRS * len(frames):
            # Segments that very many pictures have say the least of a copy.
            which = pairs % len(hashes)
            often = np.bincount(which, minlength=len(hashes)).clip(max=65535).astype(np.uint16)
            pairs = pairs[np.argsort(often[which], kind="stable")[: _MOST_PAIRS * len(frames)]]
        numbers, which = np.divmod(pairs, len(hashes))
        rows = numbers // SEGMENTS
        journal = self._journal.rows()
        held = _words(journal["pieces"][rows, numbers % SEGMENTS])
        near = _apart(held, _words(hashes)[which]) <= NEAR_BITS
        # One segment that is like several of a row is one vote, which says the more the fewer others are like it.
        rows, which = np.divmod(_once(rows[near] * len(hashes) + which[near]), len(hashes))
        weights = np.log1p(len(journal) / np.bincount(which, minlength=len(hashes)).clip(1))
        slots, votes = np.unique(rows * len(sides) + side_of[which], return_inverse=True)
        heavy = np.bincount(votes, weights[which], minlength=len(slots))
        if owner and len(slots):
            others = journal["owner"][slots // len(sides)] != owner
            slots, heavy = slots[others], heavy[others]
        slots = slots[np.argsort(-heavy, kind="stable")[: _LOOKED_AT * len(frames)]]
        return self._agreed(slots, sides, frames)

    def agreement(self, picture: Segments, row: int) -> int:
        """How many segments of a picture, upright or mirrored, agree with those of a row."""
        other = segments_of(self._journal.rows()[row])
        return max(agreement(picture, other), agreement(mirrored(picture), other))

    def _agreed(self, slots: NDArray[np.int64], sides: list[Segments], frames: list[int]) -> list[Shared]:
        """Of (row, side) pairs, numbered, those that agree in enough segments."""
        journal, out = self._journal.rows(), []
        rows, of = np.divmod(slots, len(sides))
        for number in np.unique(of).tolist():
            side, among = sides[number], rows[of == number]
            held = journal[among]
            theirs = _words(held["pieces"])
            near = _apart(theirs[:, None], _words(side.hashes)[None, :, None]) <= NEAR_BITS
            near &= (np.arange(SEGMENTS) < held["segments"][:, None])[:, None]
            most = np.minimum(near.any(axis=1).sum(axis=1), near.any(axis=2).sum(axis=1))
            order = np.argsort(-most, kind="stable")[:_TRIED]
            for at in order[most[order] >= self._agreeing].tolist():
                count = agreement(side, segments_of(held[at]))
                if count >= self._agreeing:
                    out.append(Shared(int(among[at]), frames[number // 2], count, bool(number % 2)))
        return out


def segments_of(row: Any) -> Segments:
    """The segments that a row of the journal holds."""
    count = int(row["segments"])
    return Segments(np.ascontiguousarray(row["pieces"][:count]), row["places"][:count].astype(np.float32))


def _once(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each number once, sorted; quicker than numpy's own for so few."""
    ordered = np.sort(numbers)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def _words(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uint8 (..., 16) to uint64 (..., 2)."""
    return np.ascontiguousarray(hashes).view(np.uint64)


def _apart(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Bits that differ between hashes of two words, (..., 2), broadcast; a sum over so short an axis is slow."""
    return np.asarray(np.bitwise_count(one[..., 0] ^ other[..., 0]) + np.bitwise_count(one[..., 1] ^ other[..., 1]))


def _look_up(bits: Sequence[int], width: int = 32) -> tuple[tuple[int, ...], NDArray[np.uint32]]:
    """Which bytes hold these bits, and for each what its 256 values add to a number that has them first."""
    places = sorted({bit // 8 for bit in bits})
    table = np.zeros((len(places), 256), np.uint32)
    for at, bit in enumerate(bits):
        value = np.arange(256, dtype=np.uint32) >> np.uint32(7 - bit % 8) & np.uint32(1)
        table[places.index(bit // 8)] |= value << np.uint32(width - 1 - at)
    return tuple(places), table


_LOOK_UPS: Final = tuple(_look_up(bits) for bits in (*_TABLES, _SKETCH))


def _bits(hashes: NDArray[np.uint8], table: int) -> NDArray[np.uint32]:
    """Codes of hashes in a table, (m,); of the last one past the tables, their sketches."""
    places, look_up = _LOOK_UPS[table]
    out: NDArray[np.uint32] = look_up[0][hashes[:, places[0]]]
    for at, place in enumerate(places[1:], 1):
        out |= look_up[at][hashes[:, place]]
    return out


def _sketches(hashes: NDArray[np.uint8]) -> NDArray[np.uint32]:
    return _bits(hashes, len(_TABLES))


def _entries(rows: NDArray[Any], first: int, table: int) -> Entries:
    numbers, at = np.nonzero(np.arange(SEGMENTS) < rows["segments"][:, None])
    hashes = np.ascontiguousarray(rows["pieces"][numbers, at])
    return Entries(_bits(hashes, table), ((numbers + first) * SEGMENTS + at).astype(np.uint32), _sketches(hashes))
