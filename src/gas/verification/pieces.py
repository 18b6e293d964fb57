"""The search for pictures that share segments, in three steps, each for fewer pictures.

Some bits of a segment's hash choose a bucket, once in each of several tables, and a sketch of other bits is compared
there; a segment and its mirror image have both in common. Then come the whole hashes of what is left; then, for
pictures with a segment in common, all their segments, and whether these agree on one way of laying one picture over
the other. One segment found in one table is enough to look at a picture: of its copies that agree in four segments
hardly any is missed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from gas.media.segments import NEAR_BITS, SEGMENT_BYTES, SEGMENTS, Segments, agreement, mirrored
from gas.verification.journal import Journal
from gas.verification.postings import Entries, Postings
from gas.verification.runs import CODE_BITS

__all__ = ["PieceIndex", "Shared", "segments_of"]

# Chosen by climbing on changed copies and strong crops of every other of 1,600 pictures, with noise added: hardly ever
# wrong in a copy, and seldom equal in others. A mirror reverses the first bit of each.
_TABLES: Final = (
    (23, 9, 2, 24, 7, 0, 15, 41, 29, 14, 49, 43, 60, 3, 8, 50, 83, 32, 28, 25, 90),
    (1, 2, 11, 13, 4, 24, 7, 20, 48, 40, 14, 30, 58, 17, 60, 3, 5, 36, 50, 38, 114),
    (6, 9, 2, 11, 13, 4, 7, 39, 0, 14, 17, 3, 52, 12, 16, 21, 38, 53, 104, 57, 65),
    (6, 9, 2, 13, 4, 24, 7, 39, 1, 23, 48, 31, 26, 46, 60, 55, 83, 34, 38, 56, 70),
    (6, 2, 22, 11, 4, 24, 20, 1, 23, 26, 17, 3, 5, 12, 54, 69, 80, 47, 25, 68, 19),
    (10, 9, 2, 11, 13, 4, 23, 15, 29, 40, 14, 49, 43, 58, 33, 36, 74, 77, 53, 47, 25),
    (10, 9, 2, 11, 13, 4, 24, 23, 37, 15, 40, 30, 62, 46, 54, 74, 34, 32, 18, 68, 63),
    (1, 9, 11, 13, 4, 24, 7, 39, 20, 41, 40, 26, 49, 30, 8, 16, 81, 18, 47, 44, 61),
    (10, 9, 22, 13, 4, 24, 7, 6, 37, 48, 29, 49, 30, 62, 3, 52, 5, 21, 34, 61, 42),
    (10, 9, 2, 22, 20, 23, 37, 15, 40, 31, 26, 14, 43, 3, 52, 8, 12, 16, 21, 72, 59),
    (10, 9, 2, 11, 13, 4, 7, 1, 23, 37, 41, 29, 58, 79, 27, 89, 12, 36, 18, 38, 42),
    (10, 2, 22, 11, 7, 6, 39, 1, 0, 15, 31, 26, 30, 17, 27, 33, 85, 12, 77, 19, 45),
)
_SKETCH: Final = (
    14, 16, 17, 21, 25, 26, 34, 36, 38, 39, 42, 45, 46, 47, 48, 49, 51, 57, 58,
    59, 60, 62, 66, 68, 69, 70, 71, 74, 77, 80, 83, 85, 90, 92, 96, 100, 109, 115,
)  # fmt: skip
_SKETCH_BITS: Final = 9
_LONGEST: Final = 300
_MOST_PAIRS: Final = 20000
_LOOKED_AT: Final = 200
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
            folder,
            "segments",
            journal,
            _entries,
            tables=len(_TABLES),
            code_bits=len(_TABLES[0]) - 1,
            per_row=SEGMENTS,
            density=4,
            version=zlib.crc32(repr((_TABLES, _SKETCH)).encode()),
            newest=_newest,
        )

    def close(self) -> None:
        """Stop what is done beside."""
        self._postings.close()

    def settle(self) -> None:
        """Wait until nothing is left to be merged."""
        self._postings.settle()

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
        # All pictures upright, then all of them mirrored.
        sides = [*(pictures[at] for at in frames), *(mirrored(pictures[at]) for at in frames)]
        hashes, places = (
            np.concatenate([side.hashes for side in sides]),
            np.concatenate([side.places for side in sides]),
        )
        side_of = np.repeat(np.arange(len(sides)), [len(side) for side in sides])
        asked = len(hashes) // 2
        numbers, which = self._postings.find(*_all_codes(hashes[:asked]), _SKETCH_BITS, _LONGEST)
        if not len(numbers):
            return []
        pairs = _once(numbers * asked + which)
        if len(pairs) > _MOST_PAIRS * len(frames):
            # Segments that very many pictures have say the least of a copy.
            which = pairs % asked
            often = np.bincount(which, minlength=asked).clip(max=65535).astype(np.uint16)
            pairs = np.sort(pairs[np.argsort(often[which], kind="stable")[: _MOST_PAIRS * len(frames)]])
        numbers, which = np.divmod(pairs, asked)
        rows, at = np.divmod(numbers, SEGMENTS)
        journal = self._journal.rows()
        held = _items(journal, "pieces", SEGMENT_BYTES)[rows, at].view(np.uint64).reshape(-1, 2)
        words = _words(hashes)
        near, turned = (np.flatnonzero(_apart(held, words[which + start]) <= NEAR_BITS) for start in (0, asked))
        which = np.concatenate([which[near], which[turned] + asked])
        near = np.concatenate([near, turned])
        if owner:
            others = journal["owner"][rows[near]] != owner
            near, which = near[others], which[others]
        if not len(near):
            return []
        rows, at = rows[near], at[near]
        theirs = _items(journal, "places", 8)[rows, at].view("<f2").reshape(-1, 4)
        votes = np.log1p(len(self._journal) / np.bincount(which, minlength=len(hashes)).clip(1))[which]
        slots, weights = _weighed(rows * len(sides) + side_of[which], which, votes, places[which], theirs)
        most = _LOOKED_AT * len(frames)
        if len(slots) > most:
            slots = slots[np.argpartition(-weights, most)[:most]]
        return self._agreed(slots, sides, frames)

    def agreement(self, picture: Segments, row: int) -> int:
        """How many segments of a picture, upright or mirrored, agree with those of a row."""
        other = segments_of(self._journal.rows()[row])
        return max(agreement(picture, other), agreement(mirrored(picture), other))

    def _agreed(self, slots: NDArray[np.int64], sides: list[Segments], frames: list[int]) -> list[Shared]:
        """Of (row, side) pairs, numbered, those that agree in enough segments."""
        journal, out = self._journal.rows(), []
        rows, of = np.divmod(slots, len(sides))
        for number in _once(of).tolist():
            side, among = sides[number], rows[of == number]
            theirs = _items(journal, "pieces", SEGMENTS * SEGMENT_BYTES)[among, 0]
            mine, at = _near_pairs(side.hashes, theirs.view(np.uint8).reshape(-1, SEGMENT_BYTES))
            row, at = np.divmod(at, SEGMENTS)
            filled = at < journal["segments"][among][row]
            near = np.zeros((len(among), len(side)), bool)
            near[row[filled], mine[filled]] = True
            most = np.count_nonzero(near, axis=1)
            order = np.argsort(-most, kind="stable")[:_TRIED]
            for at in order[most[order] >= self._agreeing].tolist():
                count = agreement(side, segments_of(journal[among[at]]))
                if count >= self._agreeing:
                    frame, is_mirrored = frames[number % len(frames)], number >= len(frames)
                    out.append(Shared(int(among[at]), frame, count, is_mirrored))
        return out


def _weighed(
    slots: NDArray[np.int64],
    which: NDArray[np.int64],
    weights: NDArray[np.float64],
    mine: NDArray[np.float32],
    theirs: NDArray[np.float16],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(Row, side) pairs, each once, and how likely they are.

    A segment says the more the fewer others are like it. Segments of a copy are turned and scaled all in the same
    way, mostly by little.
    """
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
    return slots[starts], heavy


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


def _near_pairs(mine: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which hashes (k, 16) are like which others (m, 16): their positions, (n,) each."""
    mine, theirs = np.ascontiguousarray(mine), np.ascontiguousarray(theirs)
    most = len(mine) * len(theirs)
    pairs, apart = np.empty((most, 2), np.int64), np.empty(most, np.int32)
    given = (faiss.swig_ptr(one) for one in (mine, theirs))
    count = faiss.match_hamming_thres(  # type: ignore[attr-defined]
        *given, len(mine), len(theirs), NEAR_BITS, SEGMENT_BYTES, faiss.swig_ptr(pairs), faiss.swig_ptr(apart)
    )
    return pairs[:count, 0], pairs[:count, 1]


def _look_up() -> NDArray[np.uint32]:
    """What each value of each byte of a hash adds to its codes in all tables and to two halves of its sketch.

    uint32, (16, 256, tables + 2). The first bit of a code is one that a mirror reverses.
    """
    half = len(_SKETCH) // 2
    out = np.zeros((SEGMENT_BYTES, 256, len(_TABLES) + 2), np.uint32)
    values = np.arange(256, dtype=np.uint32)
    for column, bits in enumerate((*_TABLES, _SKETCH[:half], _SKETCH[half:])):
        width = CODE_BITS if column < len(_TABLES) else half
        for at, bit in enumerate(bits):
            out[bit // 8, :, column] |= (values >> np.uint32(7 - bit % 8) & np.uint32(1)) << np.uint32(width - 1 - at)
    return out


_LOOK_UP: Final = _look_up()
_FEW: Final = 256


def _column(hashes: NDArray[np.uint8], column: int) -> NDArray[np.uint32]:
    """One column of the table for hashes (m, 16), (m,)."""
    if len(hashes) <= _FEW:
        few: NDArray[np.uint32] = np.bitwise_or.reduce(_LOOK_UP[np.arange(SEGMENT_BYTES), hashes, column], axis=1)
        return few
    out = np.zeros(len(hashes), np.uint32)
    for place in np.flatnonzero(_LOOK_UP[:, :, column].any(axis=1)).tolist():
        out |= np.ascontiguousarray(_LOOK_UP[place, :, column])[hashes[:, place]]
    return out


def _mirrors() -> tuple[NDArray[np.uint32], np.uint64]:
    """What a mirror reverses in the codes of each table, (tables,), and in a sketch."""
    nothing = Segments(np.zeros((1, SEGMENT_BYTES), np.uint8), np.zeros((1, 4), np.float32))
    columns = np.array([_column(mirrored(nothing).hashes, column)[0] for column in range(_LOOK_UP.shape[2])])
    return columns[:-2], _sketch(columns[-2:-1], columns[-1:])[0]


def _sketch(high: NDArray[np.uint32], low: NDArray[np.uint32]) -> NDArray[np.uint64]:
    return high.astype(np.uint64) << np.uint64(len(_SKETCH) // 2) | low.astype(np.uint64)


_MIRRORS: Final = _mirrors()


def _one_way(
    codes: NDArray[np.uint32], sketches: NDArray[np.uint64], mirrors: NDArray[np.uint32] | np.uint32
) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """Codes and sketches that a segment and its mirror image have in common: of the one whose first bit is not set."""
    turned = codes >> np.uint32(CODE_BITS - 1)
    return (codes ^ turned * mirrors) << np.uint32(1), sketches ^ turned.astype(np.uint64) * _MIRRORS[1]


def _all_codes(hashes: NDArray[np.uint8]) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """Codes and sketches of hashes (k, 16) in all tables, (tables, k) each."""
    columns = np.bitwise_or.reduce(_LOOK_UP[np.arange(SEGMENT_BYTES), hashes], axis=1).T
    return _one_way(columns[:-2], _sketch(columns[-2], columns[-1]), _MIRRORS[0][:, None])


def _entries(rows: NDArray[Any], first: int, table: int) -> Entries:
    numbers, hashes = _numbered(rows, first)
    sketches = _sketch(_column(hashes, len(_TABLES)), _column(hashes, len(_TABLES) + 1))
    codes, sketches = _one_way(_column(hashes, table), sketches, _MIRRORS[0][table])
    return Entries(codes, numbers, sketches)


def _newest(rows: NDArray[Any], first: int) -> list[Entries]:
    numbers, hashes = _numbered(rows, first)
    return [Entries(codes, numbers, sketches) for codes, sketches in zip(*_all_codes(hashes), strict=True)]


def _numbered(rows: NDArray[Any], first: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Numbers and hashes of the segments of rows."""
    numbers, at = np.nonzero(np.arange(SEGMENTS) < rows["segments"][:, None])
    return (numbers + first) * SEGMENTS + at, np.ascontiguousarray(rows["pieces"][numbers, at])
