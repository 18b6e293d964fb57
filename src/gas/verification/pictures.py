"""The part of the index of copies that knows pictures and frames.

Three questions, cheapest first: are bytes or pixels the same; is the 256-bit hash of the picture, laid down in any of
eight ways, near one of the same prompt (8 bits) or of the whole store (4 bits); do segments agree. The second is
answered exactly: of 9 parts of a hash at least one is unchanged when at most 8 bits are, and all rows that share a
part are compared. The third looks up some bits of each segment and compares the pictures that share several.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gas.media.hashing import HASH_BITS, PLACINGS, distances
from gas.media.segments import SEGMENT_BYTES, SEGMENTS, Segments, agreement, mirrored
from gas.types import Modality
from gas.verification.journal import Journal
from gas.verification.postings import Postings, trusted_rows
from gas.verification.prints import FramePrint, Seen

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
_TABLES: Final = 4
_KEY_BITS: Final = 20
_LONGEST: Final = 2000
_VOTES: Final = 2
_LOOKED_AT: Final = 6
_FRAMES_NEEDED: Final = 0.6
_SALT: Final = np.uint64(0xD1B54A32D192ED03)


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
        self._hashes = Postings(folder, "hashes", self.journal, _hash_keys, largest=524288, density=1)
        self._pieces = Postings(folder, "segments", self.journal, _segment_keys, largest=65536, density=2)

    def __len__(self) -> int:
        return len(self.journal)

    def close(self) -> None:
        """Give the files and the lock back."""
        self.journal.close()

    def refresh(self) -> None:
        """Take in what the writing process has added."""
        self.journal.refresh()
        self._hashes.refresh()
        self._pieces.refresh()

    def add(self, medium: Seen) -> None:
        """Remember a medium."""
        prints = medium.prints()
        rows = np.zeros(len(prints), _ROW)
        for at, (row, frame) in enumerate(zip(rows, prints, strict=True)):
            count = len(frame.segments)
            row["sha256"] = _digest(medium.sha256)
            row["pixels"] = int(medium.pixels or "0", 16) % 2**64
            row["prompt"], row["owner"] = name_key(medium.prompt), name_key(medium.owner)
            row["modality"], row["frame"], row["segments"] = _MODALITIES.index(medium.modality), at, count
            row["hash"] = frame.upright
            row["pieces"][:count], row["places"][:count] = frame.segments.hashes, frame.segments.places
        self.add_rows(rows)

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
        keys = [_key(10, int(digest[:8].view("<u8")[0]))] + ([_key(11, pixels)] if pixels else [])
        found, _ = self._hashes.find(np.array(keys, np.uint64))
        if not len(found):
            return None
        rows = self._of_others(np.unique(found), medium)
        held = self.journal.rows()[rows]
        exact = (held["sha256"] == digest).all(axis=1)
        for kind, mask in (("bytes", exact), ("pixels", (held["pixels"] == pixels) & bool(pixels))):
            if mask.any():
                return Match(bytes(held["sha256"][np.argmax(mask)]).hex(), 0, exact=True, kind=kind)
        return None

    def near(self, medium: Seen) -> Match | None:
        """The nearest medium by perceptual hash, as far as the thresholds reach."""
        found: list[tuple[int, int, str, str, int]] = []
        prints = medium.prints()
        for at, frame in enumerate(prints):
            found.extend(
                (row, distance, kind, placing, at) for row, distance, kind, placing in self._near(frame, medium)
            )
        return self._agreed(found, len(prints))

    def by_segments(self, medium: Seen) -> Match | None:
        """The medium with which most segments agree, when enough do."""
        found: list[tuple[int, int, str, str, int]] = []
        prints = medium.prints()
        for at, frame in enumerate(prints):
            rows = self._sharing(frame.segments, medium)
            found.extend((row, -count, "segments", placing, at) for row, count, placing in rows)
        return self._agreed(found, len(prints))

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
        rows, which = self._hashes.find(keys.reshape(-1))
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

    def _near(self, frame: FramePrint, medium: Seen) -> list[tuple[int, int, str, str]]:
        prompt = name_key(medium.prompt)
        video = medium.modality is Modality.VIDEO
        out = []
        hits = self.within(frame.hashes, self._prompt_bits)
        kept = set(self._of_others(np.array([row for row, _, _ in hits], np.int64), medium).tolist())
        rows = self.journal.rows()
        for row, distance, which in hits:
            if row not in kept:
                continue
            same_prompt = bool(prompt) and int(rows[row]["prompt"]) == prompt
            # Several frames of a video have to agree, which is why each may be further away.
            if distance <= self._near_bits or same_prompt or video:
                kind = "store" if distance <= self._near_bits or not same_prompt else "prompt"
                out.append((row, distance, kind, PLACINGS[which]))
        return out

    def _sharing(self, segments: Segments, medium: Seen) -> list[tuple[int, int, str]]:
        if len(segments) < self._agreeing:
            return []
        both = (segments, mirrored(segments))
        keys = np.concatenate([_piece_keys(one.hashes).reshape(-1) for one in both])
        rows, which = self._pieces.find(keys, _LONGEST)
        if not len(rows):
            return []
        side = which >= len(keys) // 2
        # One segment found by two of its keys is one vote.
        votes = np.unique((rows * 2 + side) * SEGMENTS + which // _TABLES % len(segments)) // SEGMENTS
        places, counts = np.unique(votes, return_counts=True)
        told = counts >= _VOTES
        places, counts = places[told], counts[told]
        order = np.argsort(-counts, kind="stable")[:_LOOKED_AT]
        candidates = places[order]
        kept = set(self._of_others(np.unique(candidates // 2), medium).tolist())
        journal, out = self.journal.rows(), []
        for place in candidates.tolist():
            row, flipped = divmod(place, 2)
            if row in kept:
                held = journal[row]
                count = int(held["segments"])
                other = Segments(
                    np.ascontiguousarray(held["pieces"][:count]), held["places"][:count].astype(np.float32)
                )
                agreeing = agreement(both[flipped], other)
                if agreeing >= self._agreeing:
                    out.append((row, agreeing, PLACINGS[flipped]))
        return out

    def _agreed(self, found: list[tuple[int, int, str, str, int]], frames: int) -> Match | None:
        """The medium that enough frames point to, and the best of what was found."""
        by_name: dict[str, list[tuple[int, int, str, str, int]]] = {}
        for hit in found:
            by_name.setdefault(self._name(hit[0]), []).append(hit)
        enough = {
            name: min(hits, key=lambda hit: hit[1])
            for name, hits in by_name.items()
            if len({hit[4] for hit in hits}) >= _FRAMES_NEEDED * frames
        }
        if not enough:
            return None
        name, (row, value, kind, placing, at) = min(enough.items(), key=lambda item: (item[1][1], item[0]))
        del row, at
        return Match(name, max(0, value), kind=kind, placing=placing, agreeing=max(0, -value))

    def _of_others(self, rows: NDArray[np.int64], medium: Seen) -> NDArray[np.int64]:
        owner = name_key(medium.owner)
        return rows[self.journal.rows()["owner"][rows] != owner] if owner and len(rows) else rows

    def _name(self, row: int) -> str:
        return bytes(self.journal.rows()["sha256"][row]).hex()


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


def _key(table: int, value: int) -> int:
    return (value ^ (table + 1) * int(_SALT)) % 2**64


def _part_keys(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Keys of the parts of packed hashes: (n, 32) to (n, 9)."""
    bits = np.unpackbits(hashes, axis=1)
    cuts = np.linspace(0, HASH_BITS, _PARTS + 1).round().astype(int)
    out = np.empty((len(hashes), _PARTS), np.uint64)
    for table, (start, stop) in enumerate(pairwise(cuts.tolist())):
        packed = np.zeros((len(hashes), 8), np.uint8)
        part = np.packbits(bits[:, start:stop], axis=1)
        packed[:, : part.shape[1]] = part
        out[:, table] = packed.view("<u8")[:, 0] ^ np.uint64((table + 1) * int(_SALT) % 2**64)
    return out


def _hash_keys(rows: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    numbers = np.arange(len(rows))
    digests = np.ascontiguousarray(rows["sha256"][:, :8]).view("<u8")[:, 0]
    names = digests ^ np.uint64(11 * int(_SALT) % 2**64)
    known = np.flatnonzero(rows["pixels"])
    pixels = rows["pixels"][known].astype(np.uint64) ^ np.uint64(12 * int(_SALT) % 2**64)
    parts = _part_keys(np.ascontiguousarray(rows["hash"]))
    keys = np.concatenate([parts.reshape(-1), names, pixels])
    return keys, np.concatenate([np.repeat(numbers, _PARTS), numbers, known])


def _piece_keys(pieces: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Keys of segments: (n, 16) to (n, 4); each takes every fourth of the first 80 bits."""
    bits = np.unpackbits(pieces[:, : _TABLES * _KEY_BITS // 8], axis=1).reshape(len(pieces), _KEY_BITS, _TABLES)
    weights = np.uint64(1) << np.arange(_KEY_BITS, dtype=np.uint64)
    values = np.einsum("nkt,k->nt", bits.astype(np.uint64), weights)
    return np.asarray(values | (np.arange(_TABLES, dtype=np.uint64) << np.uint64(40)))


def _segment_keys(rows: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    filled = np.arange(SEGMENTS) < rows["segments"][:, None]
    numbers, _ = np.nonzero(filled)
    keys = _piece_keys(rows["pieces"][filled])
    return keys.reshape(-1), np.repeat(numbers, _TABLES)
