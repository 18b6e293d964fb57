"""Files of postings: each covers a stretch of a journal's rows and never changes once it is there.

A posting is eight bytes: a number (a row, or a row and a place in it), counted from the file's first row, and a sketch
of 38 more bits of what the number stands for. A file holds for each table the ends of its buckets, then the postings
of each table and bucket. It is written aside, synced and renamed, so that there is never half a run; one that is
missing, damaged or of another version is built again from the journal.

Runs with as many buckets as codes have are merged bucket by bucket, in pieces that fit the processor's cache, without
going back to the rows.
"""

from __future__ import annotations

import mmap
import os
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gas.errors import StorageError
from gas.verification.journal import Journal

__all__ = [
    "CODE_BITS",
    "NUMBER_BITS",
    "SKETCH_BITS",
    "Entries",
    "EntriesOf",
    "Layout",
    "Run",
    "StoppedError",
    "build_run",
    "chain",
    "merge_runs",
    "packed",
    "read_run",
]

CODE_BITS: Final = 32
"""Of a code; its first bits choose the bucket."""
SKETCH_BITS: Final = 38
"""Of a sketch."""
NUMBER_BITS: Final = 64 - SKETCH_BITS
"""Of a number, counted from the run's first row."""

_MAGIC: Final = b"GASRUN03"
_HEADER: Final = 64
_AT_ONCE: Final = 16384
_BUCKETS: Final = 1 << 15
_FEWEST_BITS: Final = 8
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Entries:
    """Postings of rows, in the order of the rows.

    Attributes:
        codes: uint32, (m,); their first bits choose the bucket, and should differ.
        numbers: Integers, (m,): what a look-up gives back; row times ``Layout.per_row``, and the place in the row.
        sketches: uint64, (m,), below 2**38: more bits.
    """

    codes: NDArray[np.uint32]
    numbers: NDArray[Any]
    sketches: NDArray[np.uint64]


EntriesOf: TypeAlias = Callable[[NDArray[Any], int, int], Entries]
"""Postings of structured rows in one table: (rows, number of the first of them, table)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the runs of one index have in common.

    Attributes:
        folder: Where they are; None for memory.
        name: Of the files.
        journal: Whose rows are found.
        entries_of: Their postings.
        tables: How many codes an entry has; each table is asked with a code of its own.
        code_bits: So many first bits of a code say something; large runs have 2**code_bits buckets a table.
        per_row: How many numbers a row has.
        density: Mean number of postings a bucket of a small run.
        version: Of what codes and sketches mean; runs of another are built again.
    """

    folder: Path | None
    name: str
    journal: Journal
    entries_of: EntriesOf
    tables: int = 1
    code_bits: int = 22
    per_row: int = 1
    density: int = 2
    version: int = 0

    def bits(self, postings: int) -> int:
        """How many bits choose the bucket in a run of so many postings a table."""
        if 2 * postings >= 1 << self.code_bits:
            return self.code_bits
        return max(_FEWEST_BITS, min(self.code_bits, (max(1, postings // self.density) - 1).bit_length()))


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Postings of the rows from ``first`` to before ``last``.

    Attributes:
        first: The first row.
        last: The one after the last.
        bits: So many first bits of a code are the bucket.
        ends: uint32, (tables * (2**bits + 1),): where the buckets of each table end, each table's after its start.
        postings: uint64.
        path: Its file; None in memory.
    """

    first: int
    last: int
    bits: int
    ends: NDArray[np.uint32]
    postings: NDArray[np.uint64]
    path: Path | None

    def __len__(self) -> int:
        return self.last - self.first


class StoppedError(Exception):
    """The run is not wanted any more."""


class _Sink:
    """Takes a run's parts, in a file aside or in memory."""

    def __init__(self, layout: Layout, first: int, last: int, bits: int, *, kept: bool) -> None:
        self._layout, self._first, self._last, self._bits = layout, first, last, bits
        self.count = 0
        self._ends: list[NDArray[np.uint32]] = []
        self._parts: list[NDArray[np.uint64]] = []
        self._path = self._aside = None
        self._descriptor = -1
        self._start = _start(layout.tables, bits)
        if kept and layout.folder is not None:
            self._path = layout.folder / f"{layout.name}-{first:010d}-{last:010d}.run"
            self._aside = self._path.with_suffix(".new")
            self._descriptor = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)

    def ends(self, ends: NDArray[np.uint32]) -> None:
        """The next table's."""
        if self._descriptor >= 0:
            _write(self._descriptor, ends, _HEADER + 4 * len(self._ends) * len(ends))
            ends = ends[:0]
        self._ends.append(ends)

    def postings(self, part: NDArray[np.uint64]) -> None:
        """The next ones."""
        if self._descriptor >= 0:
            _write(self._descriptor, part, self._start + 8 * self.count)
        else:
            self._parts.append(part)
        self.count += len(part)

    def done(self) -> Run:
        """The run, on disk for good."""
        if self._aside is None or self._path is None:
            ends, parts = np.concatenate(self._ends), np.concatenate(self._parts)
            return Run(self._first, self._last, self._bits, ends, parts, None)
        layout = self._layout
        told = [self._first, self._last, self._bits, self.count, layout.tables, layout.version]
        fields = np.array(told, "<u8").tobytes()
        header = (_MAGIC + fields + zlib.crc32(fields).to_bytes(4, "little")).ljust(_HEADER, b"\0")
        _write(self._descriptor, np.frombuffer(header, np.uint8), 0)
        os.ftruncate(self._descriptor, self._start + 8 * self.count)
        os.fsync(self._descriptor)
        self._aside.replace(self._path)
        self._aside = None
        run = read_run(self._path, layout.tables, layout.version)
        if run is None:
            raise StorageError("A run of the index is not as it was written.")
        return run

    def close(self) -> None:
        """Leave nothing half done."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if self._aside is not None:
            self._aside.unlink(missing_ok=True)


def build_run(
    layout: Layout,
    rows: NDArray[Any],
    first: int,
    last: int,
    *,
    stop: threading.Event | None = None,
    bits: int | None = None,
    kept: bool = True,
) -> Run:
    """A run of the journal's rows; one table at a time is in memory.

    Args:
        layout: Of the index.
        rows: All rows of the journal.
        first: The first of the run.
        last: The one after its last.
        stop: Set when it is not wanted any more.
        bits: So many choose the bucket; by the number of postings when None.
        kept: Whether it is written to the folder.

    Raises:
        StorageError: The folder can't be written.
        StoppedError: ``stop`` was set.
    """
    sink = None
    try:
        if kept and layout.folder is not None:
            layout.journal.sync()
        for table in range(layout.tables):
            codes, postings = _gathered(layout, rows, first, last, table, stop)
            if sink is None:
                chosen = layout.bits(len(codes)) if bits is None else bits
                sink = _Sink(layout, first, last, chosen, kept=kept)
            codes >>= np.uint32(CODE_BITS - chosen)
            ends = np.empty((1 << chosen) + 1, np.uint32)
            ends[0] = 0
            np.cumsum(np.bincount(codes, minlength=1 << chosen), out=ends[1:], dtype=np.uint32)
            ends += np.uint32(sink.count)
            # Sorting numbers is several times quicker than sorting by them.
            order = codes.astype(np.uint64) << np.uint64(32) | np.arange(len(codes), dtype=np.uint64)
            order.sort()
            sink.ends(ends)
            sink.postings(postings[order & np.uint64(0xFFFFFFFF)])
        if sink is None:
            raise StorageError("An index needs a table.")
        return sink.done()
    except OSError as error:
        raise StorageError(f"The index can't be written ({error.strerror}).") from error
    finally:
        if sink is not None:
            sink.close()


def merge_runs(
    layout: Layout, rows: NDArray[Any], group: Sequence[Run], *, stop: threading.Event | None = None, kept: bool = True
) -> Run:
    """One run of several that follow one another.

    Args:
        layout: Of the index.
        rows: All rows of the journal.
        group: The runs.
        stop: Set when it is not wanted any more.
        kept: Whether it is written to the folder.

    Raises:
        StorageError: The folder can't be written.
        StoppedError: ``stop`` was set.
    """
    bits = layout.code_bits
    if not any(run.bits == bits for run in group):
        return build_run(layout, rows, group[0].first, group[-1].last, stop=stop, kept=kept)
    # The others are small, and get as many buckets for it.
    runs = [
        run if run.bits == bits else build_run(layout, rows, run.first, run.last, stop=stop, bits=bits, kept=False)
        for run in group
    ]
    moved = [np.uint64((run.first - group[0].first) * layout.per_row << SKETCH_BITS) for run in runs]
    sink = None
    try:
        sink = _Sink(layout, group[0].first, group[-1].last, bits, kept=kept)
        size = (1 << bits) + 1
        for table in range(layout.tables):
            tables = [run.ends[table * size : (table + 1) * size] for run in runs]
            ends = np.zeros(size, np.uint32)
            for held in tables:
                ends += held
                ends -= held[0]
            ends += np.uint32(sink.count)
            sink.ends(ends)
            for begin in range(0, size - 1, _BUCKETS):
                _check(stop)
                end = min(size - 1, begin + _BUCKETS)
                sink.postings(_interleaved(runs, moved, [held[begin : end + 1] for held in tables]))
        return sink.done()
    except OSError as error:
        raise StorageError(f"The index can't be written ({error.strerror}).") from error
    finally:
        if sink is not None:
            sink.close()


def _interleaved(
    runs: Sequence[Run], moved: Sequence[np.uint64], ends: Sequence[NDArray[np.uint32]]
) -> NDArray[np.uint64]:
    """Postings of some buckets, those of each bucket together."""
    places = [held.astype(np.int64) for held in ends]
    total = sum((held - held[0] for held in places), np.zeros(len(places[0]), np.int64))
    out = np.empty(int(total[-1]), np.uint64)
    free = total[:-1].copy()
    for run, shift, held in zip(runs, moved, places, strict=True):
        counts = np.diff(held)
        to = np.repeat(free - held[:-1], counts)
        to += np.arange(held[0], held[-1])
        out[to] = run.postings[held[0] : held[-1]] + shift
        free += counts
    return out


def _gathered(
    layout: Layout, rows: NDArray[Any], first: int, last: int, table: int, stop: threading.Event | None
) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    codes, postings = [], []
    for start in range(first, last, _AT_ONCE):
        _check(stop)
        part = layout.entries_of(rows[start : min(last, start + _AT_ONCE)], start, table)
        codes.append(part.codes)
        postings.append(packed(part, first * layout.per_row))
    return np.concatenate(codes), np.concatenate(postings)


def packed(entries: Entries, base: int) -> NDArray[np.uint64]:
    """Postings of entries, (m,), their numbers counted from ``base``."""
    return (entries.numbers.astype(np.int64) - base).astype(np.uint64) << np.uint64(SKETCH_BITS) | entries.sketches


def chain(
    folder: Path, name: str, tables: int, version: int = 0, known: dict[Path | None, Run] | None = None
) -> list[Run]:
    """The runs on disk that follow one another from the first row on; the longest first where two overlap."""
    known = known or {}
    runs: list[Run] = []
    for _ in range(_TRIES):
        found: dict[int, list[Path]] = defaultdict(list)
        for path in folder.glob(f"{name}-*.run"):
            found[int(path.stem.rsplit("-", 2)[1])].append(path)
        runs, at = [], 0
        while at in found:
            read = (known.get(path) or read_run(path, tables, version) for path in sorted(found[at], reverse=True))
            run = next((run for run in read if run is not None), None)
            if run is None:
                break
            runs.append(run)
            at = run.last
        # A file that was there a moment ago was merged into another one by the writer: look again.
        if all(path.exists() for paths in found.values() for path in paths):
            break
    return runs


def read_run(path: Path, tables: int, version: int) -> Run | None:
    """A run, mapped; None when it is not whole, or of another version."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    except (OSError, ValueError):
        return None
    fields = data[8:56]
    if data[:8] != _MAGIC or zlib.crc32(fields).to_bytes(4, "little") != data[56:60]:
        return None
    first, last, bits, count, *held = (int(value) for value in np.frombuffer(fields, "<u8"))
    if held != [tables, version] or len(data) != _start(tables, bits) + 8 * count:
        return None
    # Look-ups go everywhere in the file, and should find it read.
    data.madvise(mmap.MADV_WILLNEED)
    ends = np.frombuffer(data, np.uint32, tables * ((1 << bits) + 1), _HEADER)
    return Run(first, last, bits, ends, np.frombuffer(data, np.uint64, count, _start(tables, bits)), path)


def _start(tables: int, bits: int) -> int:
    """Where in the file of a run the postings begin."""
    return _HEADER + (4 * tables * ((1 << bits) + 1) + 7) // 8 * 8


def _write(descriptor: int, array: NDArray[Any], at: int) -> None:
    view = array.view(np.uint8).data
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def _check(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise StoppedError
