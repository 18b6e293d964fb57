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

from gas.media.segments import NEAR_BITS, SEGMENT_BYTES, SEGMENTS, Segments, agreement, mirrored
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
_LONGEST: Final = 48
_MOST_PAIRS: Final = 8000
_LOOKED_AT: Final = 96
_LITTLE: Final = 2.0
_LITTLE_TURN: Final = 0.3
_LITTLE_SCALE: Final = 0.5
_TURNS: Final = 9
_WAY_TURN: Final = 2 * np.pi / _TURNS
_WAY_SCALE: Final = 0.6
_WAYS: Final = 512
_SIDES: Final = 1 << 20
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
        frames = [at for at, one in enumerate(pictures) if len(one) >= self._agreeing]
        if not frames:
            return []
        upright = np.concatenate([pictures[at].hashes for at in frames])
        sizes = [len(pictures[at]) for at in frames]
        # All pictures upright, then all of them mirrored: the mirror reverses the same bits in each.
        sides = [*(pictures[at] for at in frames), *(mirrored(pictures[at]) for at in frames)]
        hashes, places = (
            np.concatenate([side.hashes for side in sides]),
            np.concatenate([side.places for side in sides]),
        )
        side_of = np.repeat(np.arange(len(sides)), sizes * 2)
        codes = np.empty((len(_LOOK_UPS), len(hashes)), np.uint32)
        for table in range(len(_LOOK_UPS)):
            codes[table, : len(upright)] = _bits(upright, table)
            codes[table, len(upright) :] = codes[table, : len(upright)] ^ _MIRRORS[table]
        numbers, which = self._postings.find(codes[:-1], codes[-1], _SKETCH_BITS, _LONGEST)
        if not len(numbers):
            return []
        pairs = _once(numbers * len(hashes) + which)
        if len(pairs) > _MOST_PAIRS * len(frames):
            # Segments that very many pictures have say the least of a copy.
            which = pairs % len(hashes)
            often = np.bincount(which, minlength=len(hashes)).clip(max=65535).astype(np.uint16)
            pairs = np.sort(pairs[np.argsort(often[which], kind="stable")[: _MOST_PAIRS * len(frames)]])
        numbers, which = np.divmod(pairs, len(hashes))
        rows, at = np.divmod(numbers, SEGMENTS)
        journal = self._journal.rows()
        held = _items(journal, "pieces", SEGMENT_BYTES)[rows, at].view(np.uint64).reshape(-1, 2)
        near = np.flatnonzero(_apart(held, _words(hashes)[which]) <= NEAR_BITS)
        if owner:
            near = near[journal["owner"][rows[near]] != owner]
        if not len(near):
            return []
        rows, at, which = rows[near], at[near], which[near]
        theirs = _items(journal, "places", 8)[rows, at].view("<f2").reshape(-1, 4)
        slots = self._ranked(rows * len(sides) + side_of[which], which, places[which], theirs, len(hashes))
        return self._agreed(slots[: _LOOKED_AT * len(frames)], sides, frames)

    def agreement(self, picture: Segments, row: int) -> int:
        """How many segments of a picture, upright or mirrored, agree with those of a row."""
        other = segments_of(self._journal.rows()[row])
        return max(agreement(picture, other), agreement(mirrored(picture), other))

    def _ranked(
        self,
        slots: NDArray[np.int64],
        which: NDArray[np.int64],
        mine: NDArray[np.float32],
        theirs: NDArray[np.float16],
        asked: int,
    ) -> NDArray[np.int64]:
        """(Row, side) pairs, the likeliest first.

        A segment says the more the fewer others are like it. Segments of a copy are turned and scaled all in the same
        way, mostly by little.
        """
        weights = np.log1p(len(self._journal) / np.bincount(which, minlength=asked).clip(1))[which]
        turns, scales = theirs[:, 3] - mine[:, 3], np.log(np.maximum(theirs[:, 2], 0.1) / mine[:, 2])
        turns -= 2 * np.pi * np.round(turns / (2 * np.pi))
        weights += _LITTLE * ((np.abs(turns) < _LITTLE_TURN) & (np.abs(scales) < _LITTLE_SCALE))
        order = np.argsort(slots)
        slots, which, weights = slots[order], which[order], weights[order]
        starts = _starts(slots)
        heavy = weights[starts]
        sizes = np.diff(starts, append=len(slots))
        # Nearly all have a single vote, and nothing to agree on.
        many = np.flatnonzero(sizes > 1)
        if len(many):
            votes = np.repeat(sizes > 1, sizes)
            ways = np.stack([turns[order][votes] / _WAY_TURN, scales[order][votes].clip(-8, 8) / _WAY_SCALE])
            groups = np.repeat(np.arange(len(many)), sizes[many])
            heavy[many] = _heaviest(groups, which[votes], weights[votes], np.nan_to_num(ways))
        return slots[starts[np.argsort(-heavy, kind="stable")]]

    def _agreed(self, slots: NDArray[np.int64], sides: list[Segments], frames: list[int]) -> list[Shared]:
        """Of (row, side) pairs, numbered, those that agree in enough segments."""
        journal, out = self._journal.rows(), []
        rows, of = np.divmod(slots, len(sides))
        for number in np.unique(of).tolist():
            side, among = sides[number], rows[of == number]
            theirs = _items(journal, "pieces", SEGMENTS * SEGMENT_BYTES)[among, 0].view(np.uint64)
            words = np.ascontiguousarray(theirs.reshape(len(among), SEGMENTS, 2).transpose(2, 0, 1))[:, :, None]
            mine = np.ascontiguousarray(_words(side.hashes).T)[:, None, :, None]
            near = np.bitwise_count(words[0] ^ mine[0]) + np.bitwise_count(words[1] ^ mine[1]) <= NEAR_BITS
            near &= (np.arange(SEGMENTS) < journal["segments"][among][:, None])[:, None]
            # Eight at once: to ask of each whether it is near to any takes longer than comparing them.
            eights = near.view(np.uint64)
            most = np.count_nonzero(eights[..., 0] | eights[..., 1] | eights[..., 2] | eights[..., 3], axis=1)
            order = np.argsort(-most, kind="stable")[:_TRIED]
            for at in order[most[order] >= self._agreeing].tolist():
                count = agreement(side, segments_of(journal[among[at]]))
                if count >= self._agreeing:
                    frame, is_mirrored = frames[number % len(frames)], number >= len(frames)
                    out.append(Shared(int(among[at]), frame, count, is_mirrored))
        return out


def _items(rows: NDArray[Any], field: str, size: int) -> NDArray[Any]:
    """A field of rows as items of so many bytes, (n, k): numpy picks whole items much quicker than rows of numbers."""
    return rows[field].reshape(len(rows), -1).view(np.dtype((np.void, size)))


def segments_of(row: Any) -> Segments:
    """The segments that a row of the journal holds."""
    count = int(row["segments"])
    return Segments(np.ascontiguousarray(row["pieces"][:count]), row["places"][:count].astype(np.float32))


def _once(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each number once, sorted; quicker than numpy's own for so few."""
    ordered = np.sort(numbers)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def _heaviest(
    groups: NDArray[np.int64], which: NDArray[np.int64], weights: NDArray[np.float64], ways: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of each group, 0..n-1 in order, the weight of those votes that say nearly the same turn and scale.

    Args:
        groups: (m,), ascending.
        which: (m,): segments that vote; one that is like several of a row is one vote.
        weights: (m,).
        ways: (2, m): turns and scales, in steps within which they say the same.
    """
    best = np.zeros(int(groups[-1]) + 1)
    for shift in (0.0, 0.5):
        turn, scale = np.floor(ways + shift).astype(np.int64)
        keys = (groups * _WAYS + _WAYS // 2 + turn % _TURNS + _TURNS * scale) * _SIDES + which
        order = np.argsort(keys)
        keys = keys[order]
        once = _starts(keys)
        keys, votes = keys[once] // _SIDES, weights[order][once]
        starts = _starts(keys)
        sums, keys = np.add.reduceat(votes, starts), keys[starts] // _WAYS
        best = np.maximum(best, np.maximum.reduceat(sums, _starts(keys)))
    return best


def _starts(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in ordered numbers each begins."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


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


def _mirrors() -> NDArray[np.uint32]:
    """What a mirror reverses in the codes of each table, and in the sketches."""
    nothing = Segments(np.zeros((1, SEGMENT_BYTES), np.uint8), np.zeros((1, 4), np.float32))
    return np.concatenate([_bits(mirrored(nothing).hashes, table) for table in range(len(_LOOK_UPS))])


_MIRRORS: Final = _mirrors()


def _sketches(hashes: NDArray[np.uint8]) -> NDArray[np.uint32]:
    return _bits(hashes, len(_TABLES))


def _entries(rows: NDArray[Any], first: int, table: int) -> Entries:
    numbers, at = np.nonzero(np.arange(SEGMENTS) < rows["segments"][:, None])
    hashes = np.ascontiguousarray(rows["pieces"][numbers, at])
    return Entries(_bits(hashes, table), ((numbers + first) * SEGMENTS + at).astype(np.uint32), _sketches(hashes))
