"""Which rows hold a key: sorted runs of postings on disk, mapped into memory, and a small table for the newest rows.

A posting is eight bytes: a number (a row, or a row and a place in it) and a sketch of 32 more bits of what the number
stands for. A look-up reads the buckets of its codes one after the other and keeps the postings whose sketch is near to
the one that is asked for; what a sketch refuses is never fetched from the rows.

A run covers a stretch of a journal's rows and is one file: for each table the ends of its buckets, then the postings
of each table and bucket. It is written aside, synced and renamed, so that there is never half a run; a run that is
missing is built again from the journal. Runs of one size are merged four at a time. Callers check what they get:
a bucket holds postings of other codes too.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gas.errors import StorageError
from gas.verification.journal import Journal

__all__ = ["Entries", "EntriesOf", "Postings", "spread_codes", "trusted_rows"]


@dataclass(frozen=True, slots=True)
class Entries:
    """Postings of rows, in the order of the rows.

    Attributes:
        codes: uint32, (m,); their first bits choose the bucket, and should differ.
        numbers: uint32, (m,): what a look-up gives back.
        sketches: uint32, (m,): 32 bits more.
    """

    codes: NDArray[np.uint32]
    numbers: NDArray[np.uint32]
    sketches: NDArray[np.uint32]


EntriesOf: TypeAlias = Callable[[NDArray[Any], int, int], Entries]
"""Postings of structured rows in one table: (rows, number of the first of them, table)."""

_MAGIC: Final = b"GASRUN02"
_HEADER: Final = 64
_FLUSH: Final = 1024
_FANOUT: Final = 4
_AT_ONCE: Final = 16384
_CODE_BITS: Final = 32
_SKETCH: Final = np.uint64(0xFFFFFFFF)
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class _Run:
    first: int
    last: int
    bits: int
    ends: NDArray[np.uint32]
    postings: NDArray[np.uint64]
    path: Path | None

    def __len__(self) -> int:
        return self.last - self.first


class Postings:
    """Numbers by code. Not safe to be shared by threads without a lock.

    Args:
        folder: Of the runs; None keeps everything in memory.
        name: Of the runs' files.
        journal: Whose rows are found.
        entries_of: Their postings.
        tables: How many codes an entry has; each table is asked with a code of its own.
        code_bits: So many first bits of a code say something.
        largest: Rows of the largest run; bounds the memory of a merge.
        density: Mean number of postings a bucket.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        journal: Journal,
        entries_of: EntriesOf,
        *,
        tables: int = 1,
        code_bits: int = _CODE_BITS,
        largest: int = 262144,
        density: int = 2,
    ) -> None:
        self._folder, self._name, self._journal, self._entries_of = folder, name, journal, entries_of
        self._tables, self._code_bits, self._largest, self._density = tables, code_bits, largest, density
        self._runs: list[_Run] = []
        self._tail: defaultdict[int, list[int]] = defaultdict(list)
        self._covered = 0
        self._known = 0
        if folder is not None and journal.writable:
            self._load(folder)
        self.refresh()

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    def refresh(self) -> None:
        """Take in the rows that the journal has by now."""
        if self._folder is not None and not self._journal.writable:
            # Runs of the writer's that were merged away stay readable for who has them mapped.
            self._load(self._folder)
        total = len(self._journal)
        while total - self._covered >= _FLUSH:
            self._flush(min(total, self._covered + self._bulk(total - self._covered)))
        if total > self._known:
            rows = self._journal.rows()[self._known : total]
            for table in range(self._tables):
                new = self._entries_of(rows, self._known, table)
                keys = new.codes.astype(np.uint64) | np.uint64(table << _CODE_BITS)
                for key, posting in zip(keys.tolist(), _packed(new).tolist(), strict=True):
                    self._tail[key].append(posting)
            self._known = total

    def find(
        self, codes: NDArray[np.uint32], sketches: NDArray[np.uint32], near: int, longest: int = 1 << 30
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers that may be meant.

        Args:
            codes: uint32, (tables, k).
            sketches: uint32, (k,).
            near: Largest distance of sketches, 0..32 bits.
            longest: Buckets with more postings say too little and are passed over.

        Returns:
            Numbers and the positions 0..k-1 of what was asked, both (m,); in no order, and the same pair as often as
            it was found.
        """
        found, which = self._in_runs(codes, sketches, near, longest)
        if self._tail:
            keys = codes.astype(np.uint64) | np.arange(len(codes), dtype=np.uint64)[:, None] << np.uint64(_CODE_BITS)
            held = ((at, self._tail[key]) for at, key in enumerate(keys.ravel().tolist()) if key in self._tail)
            pairs = [(posting, at % len(sketches)) for at, postings in held for posting in postings]
            if pairs:
                newest = np.array([posting for posting, _ in pairs], np.uint64)
                asked = np.array([at for _, at in pairs], np.int64)
                kept = np.flatnonzero(np.bitwise_count(newest.astype(np.uint32) ^ sketches[asked]) <= near)
                found = np.concatenate([found, (newest[kept] >> np.uint64(32)).astype(np.int64)])
                which = np.concatenate([which, asked[kept]])
        return found, which

    def _in_runs(
        self, codes: NDArray[np.uint32], sketches: NDArray[np.uint32], near: int, longest: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers whose sketch is near, and which of those asked for each is meant.

        All runs are asked together: for so few numbers a call costs more than what it does.
        """
        tables, asked = codes.shape
        bits = np.array([run.bits for run in self._runs], np.uint32)[:, None]
        buckets = (codes.reshape(1, -1) >> (np.uint32(_CODE_BITS) - bits)).astype(np.int64)
        if tables > 1:
            buckets += ((1 << bits.astype(np.int64)) + 1) * np.repeat(np.arange(tables), asked)
        starts, stops = np.empty(buckets.shape, np.uint32), np.empty(buckets.shape, np.uint32)
        for at, run in enumerate(self._runs):
            # Clipping spares the copy that numpy takes to be able to refuse; no bucket is outside.
            np.take(run.ends, buckets[at], out=starts[at], mode="clip")
            np.take(run.ends[1:], buckets[at], out=stops[at], mode="clip")
        counts = (stops - starts).astype(np.int64)
        counts[counts > longest] = 0
        ends = np.cumsum(counts).reshape(counts.shape)
        total = int(ends[-1, -1]) if ends.size else 0
        if not total:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        places = np.repeat((starts - (ends - counts)).ravel(), counts.ravel())
        places += np.arange(total)
        postings, begin = np.empty(total, np.uint64), 0
        for at, run in enumerate(self._runs):
            end = int(ends[at, -1])
            np.take(run.postings, places[begin:end], out=postings[begin:end], mode="clip")
            begin = end
        all_sketches = np.repeat(np.tile(sketches, tables * len(self._runs)), counts.ravel())
        kept = np.flatnonzero(np.bitwise_count(postings.astype(np.uint32) ^ all_sketches) <= near)
        which = np.repeat(np.tile(np.arange(asked, dtype=np.int32), tables * len(self._runs)), counts.ravel())
        return (postings[kept] >> np.uint64(32)).astype(np.int64), which[kept].astype(np.int64)

    def _bulk(self, waiting: int) -> int:
        """How many waiting rows go into one run: as many as a merge would bring together anyway."""
        size = _FLUSH
        while size * _FANOUT <= min(waiting, self._largest):
            size *= _FANOUT
        return size

    def _flush(self, last: int) -> None:
        self._runs.append(self._build(self._covered, last))
        self._covered = self._known = last
        self._tail.clear()
        while len(self._runs) >= _FANOUT:
            group = self._runs[-_FANOUT:]
            size = len(group[-1])
            if any(len(run) != size for run in group) or size * _FANOUT > self._largest:
                break
            merged = self._build(group[0].first, group[-1].last)
            self._runs[-_FANOUT:] = [merged]
            for run in group:
                if run.path is not None and self._journal.writable:
                    run.path.unlink(missing_ok=True)

    def _build(self, first: int, last: int) -> _Run:
        """A run of rows; on disk when this process writes the index. One table at a time is in memory."""
        bits, postings, ends = 0, 0, []
        aside = path = None
        parts: list[NDArray[np.uint64]] = []
        descriptor = -1
        if self._folder is not None and self._journal.writable:
            self._journal.sync()
            path = self._folder / f"{self._name}-{first:010d}-{last:010d}.run"
            aside = path.with_suffix(".new")
        try:
            for table in range(self._tables):
                codes, packed = self._gathered(first, last, table)
                if not table:
                    wanted = (max(1, len(codes) // self._density) - 1).bit_length()
                    bits = max(8, min(self._code_bits, wanted))
                    start = _start(self._tables, bits)
                    if aside is not None:
                        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
                codes >>= np.uint32(_CODE_BITS - bits)
                table_ends = np.empty((1 << bits) + 1, np.uint32)
                table_ends[0] = postings
                np.cumsum(np.bincount(codes, minlength=1 << bits), out=table_ends[1:], dtype=np.uint32)
                table_ends[1:] += np.uint32(postings)
                # Sorting numbers is several times quicker than sorting by them.
                order = codes.astype(np.uint64) << np.uint64(32) | np.arange(len(codes), dtype=np.uint64)
                order.sort()
                packed = packed[order & np.uint64(0xFFFFFFFF)]
                if descriptor < 0:
                    ends.append(table_ends)
                    parts.append(packed)
                else:
                    _write(descriptor, table_ends, _HEADER + 4 * table * len(table_ends))
                    _write(descriptor, packed, start + 8 * postings)
                postings += len(packed)
            if descriptor >= 0:
                fields = np.array([first, last, bits, postings, self._tables], "<u8").tobytes()
                header = (_MAGIC + fields + zlib.crc32(fields).to_bytes(4, "little")).ljust(_HEADER, b"\0")
                _write(descriptor, np.frombuffer(header, np.uint8), 0)
                os.ftruncate(descriptor, start + 8 * postings)
                os.fsync(descriptor)
        except OSError as error:
            raise StorageError(f"The index can't be written ({error.strerror}).") from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if aside is None or path is None:
            return _Run(first, last, bits, np.concatenate(ends), np.concatenate(parts), None)
        try:
            aside.replace(path)
        except OSError as error:
            raise StorageError(f"The index can't be written ({error.strerror}).") from error
        run = _read_run(path, self._tables)
        if run is None:
            raise StorageError("A run of the index is not as it was written.")
        return run

    def _gathered(self, first: int, last: int, table: int) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        rows = self._journal.rows()
        codes, packed = [], []
        for start in range(first, last, _AT_ONCE):
            part = self._entries_of(rows[start : min(last, start + _AT_ONCE)], start, table)
            codes.append(part.codes)
            packed.append(_packed(part))
        return np.concatenate(codes), np.concatenate(packed)

    def _load(self, folder: Path) -> None:
        """The runs on disk that follow one another from the first row on; the longest first where two overlap."""
        chain = _chain(folder, self._name, self._tables, {run.path: run for run in self._runs})
        runs = [run for run in chain if run.last <= len(self._journal)]
        covered = runs[-1].last if runs else 0
        if self._journal.writable:
            for path in folder.glob(f"{self._name}-*"):
                if path not in {run.path for run in runs}:
                    path.unlink(missing_ok=True)
        if covered > self._covered:
            self._runs, self._covered = runs, covered
            self._tail.clear()
            self._known = covered


def spread_codes(keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Codes whose first bits are spread evenly, of keys that may be alike; uint64 (m,) to uint32 (m,)."""
    mixed = (keys ^ keys >> np.uint64(32)) * _SPREAD
    return ((mixed ^ mixed >> np.uint64(29)) * _SPREAD >> np.uint64(32)).astype(np.uint32)


def trusted_rows(folder: Path | None, name: str, tables: int = 1) -> int:
    """How many rows the runs on disk cover: so many of the journal were whole and synced."""
    return 0 if folder is None else max((run.last for run in _chain(folder, name, tables, {})), default=0)


def _packed(entries: Entries) -> NDArray[np.uint64]:
    return entries.numbers.astype(np.uint64) << np.uint64(32) | entries.sketches.astype(np.uint64)


def _start(tables: int, bits: int) -> int:
    """Where in the file of a run the postings begin."""
    return _HEADER + (4 * tables * ((1 << bits) + 1) + 7) // 8 * 8


def _write(descriptor: int, array: NDArray[Any], at: int) -> None:
    view = array.view(np.uint8).data
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def _chain(folder: Path, name: str, tables: int, known: dict[Path | None, _Run]) -> list[_Run]:
    runs: list[_Run] = []
    for _ in range(_TRIES):
        found: dict[int, list[Path]] = defaultdict(list)
        for path in folder.glob(f"{name}-*.run"):
            found[int(path.stem.rsplit("-", 2)[1])].append(path)
        runs, at = [], 0
        while at in found:
            read = (known.get(path) or _read_run(path, tables) for path in sorted(found[at], reverse=True))
            run = next((run for run in read if run is not None), None)
            if run is None:
                break
            runs.append(run)
            at = run.last
        # A file that was there a moment ago was merged into another one by the writer: look again.
        if all(path.exists() for paths in found.values() for path in paths):
            break
    return runs


def _read_run(path: Path, tables: int) -> _Run | None:
    """A run, mapped; None when it is not whole."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    except (OSError, ValueError):
        return None
    fields = data[8:48]
    if data[:8] != _MAGIC or zlib.crc32(fields).to_bytes(4, "little") != data[48:52]:
        return None
    first, last, bits, count, held = (int(value) for value in np.frombuffer(fields, "<u8"))
    if held != tables or len(data) != _start(tables, bits) + 8 * count:
        return None
    # Look-ups go everywhere in the file, and should find it read.
    data.madvise(mmap.MADV_WILLNEED)
    ends = np.frombuffer(data, np.uint32, tables * ((1 << bits) + 1), _HEADER)
    return _Run(first, last, bits, ends, np.frombuffer(data, np.uint64, count, _start(tables, bits)), path)
