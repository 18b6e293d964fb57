"""The part of the index of copies that knows sounds, and the part that knows embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from gas.errors import IntegrityError
from gas.media.soundprint import SHORTEST, overlap
from gas.verification.journal import Journal
from gas.verification.pictures import Match, name_key
from gas.verification.postings import SKETCH_BITS, Entries, Postings, spread_codes, trusted_rows
from gas.verification.prints import Seen

__all__ = ["SOUND_BITS", "EmbeddingIndex", "SoundIndex"]

SOUND_BITS: Final = 0.16
"""Two sounds whose fingerprints differ in at most this share of their bits are one."""

_WORDS: Final = 256
_ROW: Final = np.dtype(
    [
        ("sha256", np.uint8, 32),
        ("prompt", "<u8"),
        ("owner", "<u8"),
        ("part", "<u2"),
        ("count", "<u2"),
        ("words", "<u4", _WORDS),
        ("crc", "<u4"),
    ]
)
_LONGEST: Final = 512
_LOOKED_AT: Final = 48
_TRIED: Final = 8
_HOPEFUL: Final = 0.25
_PARTS: Final = 40
_FURTHEST: Final = 1 << 20


class SoundIndex:
    """Copies of sounds. Not safe to be shared by threads without a lock.

    Args:
        folder: Where it is kept; None for memory only.
        writable: Whether this process adds to it.
        most: Largest share of bits that differ.
    """

    def __init__(self, folder: Path | None, *, writable: bool = True, most: float = SOUND_BITS) -> None:
        self._most = most
        trusted = trusted_rows(folder, "words")
        self.journal = Journal(folder, "sounds", _ROW, trusted=trusted, writable=writable)
        self._words = Postings(folder, "words", self.journal, _word_entries, per_row=_WORDS)

    def __len__(self) -> int:
        return len(self.journal)

    def close(self) -> None:
        """Give the files and the lock back."""
        self._words.close()
        self.journal.close()

    def settle(self) -> None:
        """Wait until nothing is left to be merged."""
        self._words.settle()

    def refresh(self) -> None:
        """Take in what the writing process has added."""
        self.journal.refresh()
        self._words.refresh()

    def add(self, medium: Seen) -> None:
        """Remember a sound; six seconds a row."""
        parts = [medium.words[at : at + _WORDS] for at in range(0, len(medium.words), _WORDS)][:_PARTS]
        rows = np.zeros(max(1, len(parts)), _ROW)
        rows["sha256"] = np.frombuffer(bytes.fromhex(medium.sha256), np.uint8)
        rows["prompt"], rows["owner"] = name_key(medium.prompt), name_key(medium.owner)
        for at, part in enumerate(parts):
            rows[at]["part"], rows[at]["count"] = at, len(part)
            rows[at]["words"][: len(part)] = part
        self.add_rows(rows)

    def add_rows(self, rows: NDArray[Any]) -> None:
        """Remember rows of the journal's type, many at once."""
        self.journal.append(rows)
        self._words.refresh()

    def same(self, medium: Seen) -> Match | None:
        """The sound of the same bytes."""
        digest = np.frombuffer(bytes.fromhex(medium.sha256), np.uint8)
        codes, sketches = _names(digest[None])
        found, _ = self._words.find(codes[None], sketches, 0)
        for row in self._of_others(np.unique(found // _WORDS), medium).tolist():
            if bytes(self.journal.rows()["sha256"][row]) == digest.tobytes():
                return Match(medium.sha256, 0, exact=True, kind="bytes")
        return None

    def near(self, medium: Seen) -> Match | None:
        """The sound whose fingerprint lies best over this one's, when it is near enough."""
        return next(iter(self.all_near(medium)), None)

    def all_near(self, medium: Seen) -> list[Match]:
        """Sounds whose fingerprints lie well over this one's, the best first; of very many some of the best."""
        places = np.flatnonzero(medium.words)
        words = medium.words[places]
        if not len(words):
            return []
        numbers, which = self._words.find(
            spread_codes(words.astype(np.uint64))[None], words.astype(np.uint64), 0, _LONGEST
        )
        rows, at = np.divmod(numbers, _WORDS)
        # Words that both have at the same distance of time: a copy has many, chance one or two.
        shifts = at - places[which] + _FURTHEST
        slots, counts = np.unique(rows * (2 * _FURTHEST) + shifts, return_counts=True)
        rows, shifts = np.divmod(slots[np.argsort(-counts, kind="stable")[:_LOOKED_AT]], 2 * _FURTHEST)
        best: dict[str, float] = {}
        for row in self._hopeful(medium, rows, shifts - _FURTHEST):
            held = self.journal.rows()[row]
            rate, count = overlap(medium.words, held["words"][: int(held["count"])].astype(np.uint32))
            if count and rate <= self._most:
                name = bytes(held["sha256"]).hex()
                best[name] = min(rate, best.get(name, 1.0))
        return [
            Match(name, round(256 * rate), kind="sound") for name, rate in sorted(best.items(), key=lambda one: one[1])
        ]

    def _hopeful(self, medium: Seen, rows: NDArray[np.int64], shifts: NDArray[np.int64]) -> list[int]:
        """Rows of others that are alike when laid at these shifts, the likest first."""
        if not len(rows):
            return []
        at = np.arange(_WORDS) - shifts[:, None]
        inside = (at >= 0) & (at < len(medium.words))
        mine = np.where(inside, medium.words[at.clip(0, len(medium.words) - 1)], 0)
        theirs = self.journal.rows()["words"][rows].astype(np.uint32)
        told = (mine != 0) & (theirs != 0)
        counts = told.sum(axis=1)
        rates = (np.bitwise_count(mine ^ theirs) * told).sum(axis=1) / np.maximum(1, 32 * counts)
        rates[counts < SHORTEST] = 1
        order = np.argsort(rates, kind="stable")
        likely = self._of_others(rows[order[rates[order] <= _HOPEFUL]], medium)
        return list(dict.fromkeys(likely.tolist()))[:_TRIED]

    def _of_others(self, rows: NDArray[np.int64], medium: Seen) -> NDArray[np.int64]:
        owner = name_key(medium.owner)
        return rows[self.journal.rows()["owner"][rows] != owner] if owner and len(rows) else rows


class EmbeddingIndex:
    """Media whose embeddings nearly coincide; all are compared, one byte a number in memory.

    Args:
        folder: Where it is kept; None for memory only.
        size: Numbers of one embedding.
        threshold: Smallest cosine of a copy.
        writable: Whether this process adds to it.
    """

    def __init__(self, folder: Path | None, size: int, threshold: float, *, writable: bool = True) -> None:
        row = np.dtype([("sha256", np.uint8, 32), ("owner", "<u8"), ("vector", "<f2", size), ("crc", "<u4")])
        self._threshold, self._size = threshold, size
        self.journal = Journal(folder, f"embeddings-{size}", row, writable=writable)
        self._index = faiss.IndexScalarQuantizer(
            size, faiss.ScalarQuantizer.QT_8bit_uniform, faiss.METRIC_INNER_PRODUCT
        )
        # Trained once on the range that numbers of a unit vector can have, not on what came first.
        self._index.train(np.array([[-1.0] * size, [1.0] * size], np.float32))
        self._known = 0
        self.refresh()

    def __len__(self) -> int:
        return len(self.journal)

    def close(self) -> None:
        """Give the files and the lock back."""
        self.journal.close()

    def refresh(self) -> None:
        """Take in what the journal has by now."""
        total = self.journal.refresh()
        for start in range(self._known, total, 65536):
            part = self.journal.rows()[start : min(total, start + 65536)]
            self._index.add(np.ascontiguousarray(part["vector"], np.float32))
        self._known = total

    def add(self, medium: Seen) -> None:
        """Remember a medium's embedding."""
        if len(medium.embedding) != self._size:
            raise IntegrityError(f"An embedding of {len(medium.embedding)} numbers doesn't fit {self._size}.")
        rows = np.zeros(1, self.journal.dtype)
        rows["sha256"] = np.frombuffer(bytes.fromhex(medium.sha256), np.uint8)
        rows["owner"], rows["vector"] = name_key(medium.owner), medium.embedding
        self.journal.append(rows)
        self.refresh()

    def near(self, medium: Seen) -> Match | None:
        """The medium whose embedding is nearest, when its cosine reaches the threshold."""
        if not self._known or len(medium.embedding) != self._size:
            return None
        _, found = self._index.search(np.ascontiguousarray(medium.embedding[None], np.float32), min(8, self._known))
        owner = name_key(medium.owner)
        best: tuple[float, str] | None = None
        for row in found[0].tolist():
            held = self.journal.rows()[row]
            cosine = float(held["vector"].astype(np.float32) @ medium.embedding)
            if cosine >= self._threshold and (not owner or int(held["owner"]) != owner):
                best = max(best or (0.0, ""), (cosine, bytes(held["sha256"]).hex()))
        return Match(best[1], round(128 * (1 - best[0])), kind="embedding") if best else None


def _names(digests: NDArray[np.uint8]) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """Codes and sketches of digests (n, 32)."""
    words = np.ascontiguousarray(digests[:, :16]).view("<u8").astype(np.uint64)
    return spread_codes(words[:, 0] | np.uint64(1 << 63)), words[:, 1] >> np.uint64(64 - SKETCH_BITS)


def _word_entries(rows: NDArray[Any], first: int, table: int) -> Entries:
    del table
    numbers, at = np.nonzero(rows["words"])
    words = rows["words"][numbers, at].astype(np.uint32)
    names = _names(rows["sha256"])
    every = np.arange(len(rows))
    return Entries(
        np.concatenate([spread_codes(words.astype(np.uint64)), names[0]]),
        (np.concatenate([numbers, every]) + first) * _WORDS + np.concatenate([at, 0 * every]),
        np.concatenate([words.astype(np.uint64), names[1]]),
    )
