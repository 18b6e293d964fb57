"""The part of the index of copies that knows pictures and frames.

Three questions, cheapest first: are bytes or pixels the same; is the 256-bit hash of the picture, laid down in any of
eight ways, near one of the same prompt (8 bits) or of the whole store (4 bits); do segments agree. The second is
answered exactly: of 9 parts of a hash at least one is unchanged when at most 8 bits are, and all rows that share a
part are compared. The third is :mod:`gas.verification.pieces`.

A video is a copy when most of its frames say so: of so few of its frames that one of them must have been found, the
index is asked, and the rest are compared with the frames of the media that these point to.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gas.media.hashing import HASH_BITS, PLACINGS, distances
from gas.media.segments import SEGMENT_BYTES, SEGMENTS
from gas.types import Modality
from gas.verification.journal import Journal
from gas.verification.pieces import PieceIndex
from gas.verification.postings import SKETCH_BITS, Entries, Postings, spread_codes, trusted_rows
from gas.verification.prints import Seen

__all__ = ["AGREEING", "PROMPT_BITS", "STORE_BITS", "Match", "PictureIndex", "name_key"]

PROMPT_BITS: Final = 8
"""Two media of one prompt whose 256-bit hashes differ in at most so many bits are one."""
STORE_BITS: Final = 4
"""Any two media whose 256-bit hashes differ in at most so many bits are one."""
AGREEING: Final = 4
"""So many segments that agree make a copy."""

_ROW: Final = np.dtype(
    [
        ("sha256", np.uint8, 32),
        ("pixels", "<u8"),
        ("prompt", "<u8"),
        ("owner", "<u8"),
        ("modality", np.uint8),
        ("segments", np.uint8),
        ("frame", "<u2"),
        ("hash", np.uint8, 32),
        ("pieces", np.uint8, (SEGMENTS, SEGMENT_BYTES)),
        ("places", "<f2", (SEGMENTS, 4)),
        ("crc", "<u4"),
    ]
)
_MODALITIES: Final = tuple(Modality)
_PARTS: Final = PROMPT_BITS + 1
_FRAMES_NEEDED: Final = 0.6
_MOST_ASKED: Final = 64
_SALT: Final = np.uint64(0xD1B54A32D192ED03)
_SKETCH: Final = np.uint64((1 << SKETCH_BITS) - 1)


class _Hit(NamedTuple):
    """A row near to a frame; ``value`` is less the better it is: a distance, or minus the segments that agree."""

    row: int
    value: int
    kind: str
    placing: str
    frame: int


@dataclass(frozen=True, slots=True)
class Match:
    """The medium of which another one is a copy.

    Attributes:
        sha256: Which one.
        distance: Bits of the perceptual hash that differ, 0..256; for a sound, bits of 256 in proportion.
        exact: Whether bytes or pixels are the same.
        kind: ``bytes``, ``pixels``, ``prompt``, ``store``, ``segments``, ``sound`` or ``embedding``.
        placing: How the copy lies: one of :data:`gas.media.hashing.PLACINGS`.
        agreeing: How many segments agree.
    """

    sha256: str
    distance: int
    exact: bool = False
    kind: str = "store"
    placing: str = "upright"
    agreeing: int = 0


class PictureIndex:
    """Copies of pictures and videos. Not safe to be shared by threads without a lock.

    Args:
        folder: Where it is kept; None for memory only.
        writable: Whether this process adds to it.
        near_bits: Largest distance in the whole store.
        prompt_bits: Largest distance among media of one prompt; at most 8.
        agreeing: So many segments that agree make a copy.

    Raises:
        ConfigurationError: Another process writes this index, or it is of another version.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        writable: bool = True,
        near_bits: int = STORE_BITS,
        prompt_bits: int = PROMPT_BITS,
        agreeing: int = AGREEING,
    ) -> None:
        self._near_bits, self._prompt_bits, self._agreeing = near_bits, prompt_bits, agreeing
        trusted = trusted_rows(folder, "hashes")
        self.journal = Journal(folder, "pictures", _ROW, trusted=trusted, writable=writable)
        self._hashes = Postings(folder, "hashes", self.journal, _hash_entries)
        self._pieces = PieceIndex(folder, self.journal, agreeing)

    def __len__(self) -> int:
        return len(self.journal)

    def close(self) -> None:
        """Give the files and the lock back."""
        self._hashes.close()
        self._pieces.close()
        self.journal.close()

    def settle(self) -> None:
        """Wait until nothing is left to be merged."""
        self._hashes.settle()
        self._pieces.settle()

    def refresh(self) -> None:
        """Take in what the writing process has added."""
        self.journal.refresh()
        self._hashes.refresh()
        self._pieces.refresh()

    def add_new(self, media: Sequence[Seen]) -> list[Seen]:
        """Remember those media that are not known by their bytes yet, many at once; returns them."""
        digests = np.array([_digest(medium.sha256) for medium in media], np.uint8).reshape(-1, 32)
        keys, sketches = _name_keys(digests)
        rows, which = self._hashes.find(spread_codes(keys)[None], sketches, 0)
        same = (self.journal.rows()["sha256"][rows] == digests[which]).all(axis=1)
        # Of a video whose writer was killed there may be a part.
        held = np.bincount(which[same], minlength=len(media))
        new = {one.sha256: one for one, count in zip(media, held.tolist(), strict=True) if count < len(one.prints())}
        if new:
            self.add_rows(_as_rows(list(new.values())))
        return list(new.values())

    def add_rows(self, rows: NDArray[Any]) -> None:
        """Remember rows of :meth:`row_type`, many at once."""
        self.journal.append(rows)
        self._hashes.refresh()
        self._pieces.refresh()

    @staticmethod
    def row_type() -> np.dtype[Any]:
        """The journal's row."""
        return _ROW

    def same(self, medium: Seen) -> Match | None:
        """The medium of the same bytes or pixels."""
        digest = _digest(medium.sha256)
        pixels = int(medium.pixels or "0", 16) % 2**64
        keys, sketches = _name_keys(digest[None])
        if pixels:
            more = _pixel_keys(np.array([pixels], np.uint64))
            keys, sketches = np.concatenate([keys, more[0]]), np.concatenate([sketches, more[1]])
        found, _ = self._hashes.find(spread_codes(keys)[None], sketches, 0)
        if not len(found):
            return None
        rows = self._of_others(np.sort(found), medium)
        held = self.journal.rows()[rows]
        exact = (held["sha256"] == digest).all(axis=1)
        for kind, mask in (("bytes", exact), ("pixels", (held["pixels"] == pixels) & bool(pixels))):
            if mask.any():
                return Match(bytes(held["sha256"][np.argmax(mask)]).hex(), 0, exact=True, kind=kind)
        return None

    def near(self, medium: Seen) -> Match | None:
        """The nearest medium by perceptual hash, as far as the thresholds reach."""
        return next(iter(self.all_near(medium)), None)

    def all_near(self, medium: Seen) -> list[Match]:
        """Every medium that is near by perceptual hash, the nearest first."""
        prints = medium.prints()
        needed = _needed(len(prints))
        found = []
        for at in range(len(prints) - needed + 1):
            found += self._near(self.within(prints[at].hashes, self._prompt_bits), medium, at)
        if needed > 1:
            hashes = self.journal.rows()["hash"]

            def compare(at: int, rows: range) -> list[_Hit]:
                apart = distances(prints[at].hashes[:, None], np.ascontiguousarray(hashes[rows.start : rows.stop]))
                which, row = np.nonzero(apart <= self._prompt_bits)
                hits = [(rows[r], int(apart[w, r]), w) for w, r in zip(which.tolist(), row.tolist(), strict=True)]
                return self._near(hits, medium, at)

            found += self._others(found, range(len(prints) - needed + 1, len(prints)), compare)
        return self._agreed(found, needed)

    def by_segments(self, medium: Seen) -> Match | None:
        """The medium with which most segments agree, when enough do."""
        return next(iter(self.all_by_segments(medium)), None)

    def all_by_segments(self, medium: Seen) -> list[Match]:
        """Every medium with which enough segments agree, those with the most first."""
        prints = medium.prints()
        needed = _needed(len(prints))
        # Frames with many segments first: they are found most surely.
        usable = sorted(
            (at for at, frame in enumerate(prints) if len(frame.segments) >= self._agreeing),
            key=lambda at: -len(prints[at].segments),
        )
        if len(usable) < needed:
            return []
        asked = usable[: len(usable) - needed + 1]
        shared = self._pieces.find([prints[at].segments for at in asked], name_key(medium.owner))
        found = [_Hit(one.row, -one.agreeing, "segments", PLACINGS[one.mirrored], asked[one.frame]) for one in shared]
        if needed > 1:

            def compare(at: int, rows: range) -> list[_Hit]:
                counts = ((row, self._pieces.agreement(prints[at].segments, row)) for row in rows)
                return [
                    _Hit(row, -count, "segments", PLACINGS[0], at) for row, count in counts if count >= self._agreeing
                ]

            found += self._others(found, usable[len(asked) :], compare)
        return self._agreed(found, needed)

    def nearest(self, phash: NDArray[np.uint8]) -> Match | None:
        """The nearest medium however far, by looking at all rows; None when there is none."""
        if not len(self):
            return None
        apart = distances(phash, np.ascontiguousarray(self.journal.rows()["hash"]))
        at = int(np.argmin(apart))
        return Match(self._name(at), int(apart[at]))

    def within(self, hashes: NDArray[np.uint8], bits: int) -> list[tuple[int, int, int]]:
        """Every row whose hash is at most ``bits`` (0..8) from one of ``hashes`` (k, 32).

        Returns:
            (row, distance, which hash), each row once, with its nearest hash.
        """
        keys = _part_keys(hashes)
        rows, which = self._hashes.find(
            spread_codes(keys.reshape(-1))[None], np.repeat(_sketches(hashes), keys.shape[1]), bits
        )
        if not len(rows):
            return []
        which //= keys.shape[1]
        apart = distances(np.ascontiguousarray(self.journal.rows()["hash"][rows]), hashes[which])
        best: dict[int, tuple[int, int]] = {}
        for at in np.flatnonzero(apart <= bits).tolist():
            row, distance = int(rows[at]), int(apart[at])
            if row not in best or distance < best[row][0]:
                best[row] = (distance, int(which[at]))
        return [(row, distance, at) for row, (distance, at) in best.items()]

    def _near(self, hits: list[tuple[int, int, int]], medium: Seen, frame: int) -> list[_Hit]:
        """Of rows with their distances and placings, those that are near enough to be copies."""
        prompt = name_key(medium.prompt)
        video = medium.modality is Modality.VIDEO
        kept = set(self._of_others(np.array([row for row, _, _ in hits], np.int64), medium).tolist())
        rows = self.journal.rows()
        out = []
        for row, distance, which in hits:
            if row not in kept:
                continue
            same_prompt = bool(prompt) and int(rows[row]["prompt"]) == prompt
            # Several frames of a video have to agree, which is why each may be further away.
            if distance <= self._near_bits or same_prompt or video:
                kind = "store" if distance <= self._near_bits or not same_prompt else "prompt"
                out.append(_Hit(row, distance, kind, PLACINGS[which], frame))
        return out

    def _others(
        self, found: list[_Hit], frames: Iterable[int], compare: Callable[[int, range], list[_Hit]]
    ) -> list[_Hit]:
        """What further frames have in common with the media that the first ones have pointed to."""
        media = {self._rows_of(hit.row) for hit in sorted(found, key=lambda hit: hit.value)[:_MOST_ASKED]}
        return [
            hit for at in frames for rows in sorted(media, key=lambda rows: rows.start) for hit in compare(at, rows)
        ]

    def _rows_of(self, row: int) -> range:
        """All rows of the medium of a row; they follow one another."""
        rows = self.journal.rows()
        name, start = self._name(row), row - int(rows["frame"][row])
        stop = row + 1
        while stop < len(rows) and rows["frame"][stop] and self._name(stop) == name:
            stop += 1
        return range(max(0, start), stop)

    def _agreed(self, found: list[_Hit], needed: int) -> list[Match]:
        """The media that enough frames point to, each with the best of what was found, the best first."""
        by_name: dict[str, list[_Hit]] = {}
        for hit in found:
            by_name.setdefault(self._name(hit.row), []).append(hit)
        enough = {
            name: min(hits, key=lambda hit: hit.value)
            for name, hits in by_name.items()
            if len({hit.frame for hit in hits}) >= needed
        }
        return [
            Match(name, max(0, hit.value), kind=hit.kind, placing=hit.placing, agreeing=max(0, -hit.value))
            for name, hit in sorted(enough.items(), key=lambda item: (item[1].value, item[0]))
        ]

    def _of_others(self, rows: NDArray[np.int64], medium: Seen) -> NDArray[np.int64]:
        owner = name_key(medium.owner)
        return rows[self.journal.rows()["owner"][rows] != owner] if owner and len(rows) else rows

    def _name(self, row: int) -> str:
        return bytes(self.journal.rows()["sha256"][row]).hex()


def _as_rows(media: Sequence[Seen]) -> NDArray[Any]:
    """Rows of the journal, one a picture or frame."""
    prints = [(medium, at, frame) for medium in media for at, frame in enumerate(medium.prints())]
    rows = np.zeros(len(prints), _ROW)
    for row, (medium, at, frame) in zip(rows, prints, strict=True):
        count = len(frame.segments)
        row["sha256"] = _digest(medium.sha256)
        row["pixels"] = int(medium.pixels or "0", 16) % 2**64
        row["prompt"], row["owner"] = name_key(medium.prompt), name_key(medium.owner)
        row["modality"], row["frame"], row["segments"] = _MODALITIES.index(medium.modality), at, count
        row["hash"] = frame.upright
        row["pieces"][:count], row["places"][:count] = frame.segments.hashes, frame.segments.places
    return rows


def name_key(text: str) -> int:
    """A 64-bit key of a prompt or an owner; 0 for none."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") or 1 if text else 0


def _digest(sha256: str) -> NDArray[np.uint8]:
    """32 bytes of a hex digest; of any other name, its hash."""
    try:
        data = bytes.fromhex(sha256)
    except ValueError:
        data = b""
    return np.frombuffer(data if len(data) == 32 else hashlib.sha256(sha256.encode()).digest(), np.uint8)


def _needed(frames: int) -> int:
    """How many frames of a medium have to say that it is a copy."""
    return max(1, math.ceil(_FRAMES_NEEDED * frames - 1e-9))


def _salt(table: int) -> np.uint64:
    return np.uint64((table + 1) * int(_SALT) % 2**64)


def _part_keys(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Keys of the parts of packed hashes: (n, 32) to (n, 9)."""
    bits = np.zeros((len(hashes), HASH_BITS + 1), np.uint8)
    bits[:, :HASH_BITS] = np.unpackbits(hashes, axis=1)
    keys: NDArray[np.uint64] = np.packbits(bits.take(_PART_BITS, axis=1), axis=1).view("<u8").astype(np.uint64)
    return keys ^ _PART_SALTS


def _part_bits() -> NDArray[np.int64]:
    """Which bits of a hash go into the 64 of each part's key, (9 * 64,); the one past the last is always zero."""
    cuts = np.linspace(0, HASH_BITS, _PARTS + 1).round().astype(int).tolist()
    out = np.full((_PARTS, 64), HASH_BITS)
    for part, (start, stop) in zip(out, pairwise(cuts), strict=True):
        part[: stop - start] = np.arange(start, stop)
    return out.ravel()


_PART_BITS: Final = _part_bits()
_PART_SALTS: Final[NDArray[np.uint64]] = np.array([_salt(table) for table in range(_PARTS)])


def _sketches(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """32 bits of packed hashes, one of each eight; they differ in no more bits than the hashes: (n, 32) to (n,)."""
    column = hashes & (np.uint8(128) >> (np.arange(HASH_BITS // 8) % 8).astype(np.uint8))
    return np.ascontiguousarray(np.packbits(column != 0, axis=1)).view("<u4")[:, 0].astype(np.uint64)


def _name_keys(digests: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    words = np.ascontiguousarray(digests[:, :16]).view("<u8").astype(np.uint64)
    return words[:, 0] ^ _salt(10), words[:, 1] & _SKETCH


def _pixel_keys(pixels: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    return pixels ^ _salt(11), pixels & _SKETCH


def _hash_entries(rows: NDArray[Any], first: int, table: int) -> Entries:
    del table
    numbers = np.arange(first, first + len(rows))
    known = np.flatnonzero(rows["pixels"])
    hashes = np.ascontiguousarray(rows["hash"])
    names, pixels = _name_keys(rows["sha256"]), _pixel_keys(rows["pixels"][known].astype(np.uint64))
    return Entries(
        spread_codes(np.concatenate([_part_keys(hashes).reshape(-1), names[0], pixels[0]])),
        np.concatenate([np.repeat(numbers, _PARTS), numbers, numbers[known]]),
        np.concatenate([np.repeat(_sketches(hashes), _PARTS), names[1], pixels[1]]),
    )
