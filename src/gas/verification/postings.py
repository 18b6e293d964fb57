"""Which rows hold a key: sorted runs of postings on disk, mapped into memory, and a small table for the newest rows.

A run covers a stretch of a journal's rows and is one file: the buckets' ends, then the rows of each bucket. It is
written aside, synced and renamed, so that there is never half a run; a run that is missing is built again from the
journal. Small runs are merged into larger ones, eight at a time. Keys are spread over buckets by a multiplication,
so a bucket also holds rows of a few other keys: callers check what they get.
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

__all__ = ["KeysOf", "Postings", "trusted_rows"]

KeysOf: TypeAlias = Callable[[NDArray[Any]], tuple[NDArray[np.uint64], NDArray[np.int64]]]
"""Keys of rows: from structured rows to (m,) keys and, for each, the number of its row among those given."""

_MAGIC: Final = b"GASRUN01"
_HEADER: Final = 64
_FLUSH: Final = 1024
_FANOUT: Final = 8
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class _Run:
    first: int
    last: int
    bits: int
    ends: NDArray[np.uint32]
    rows: NDArray[np.uint32]
    path: Path | None

    def __len__(self) -> int:
        return self.last - self.first


class Postings:
    """Rows by key. Not safe to be shared by threads without a lock.

    Args:
        folder: Of the runs; None keeps everything in memory.
        name: Of the runs' files.
        journal: Whose rows are found.
        keys_of: Their keys.
        largest: Rows of the largest run; bounds the memory of a merge.
        density: Mean number of postings a bucket.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        journal: Journal,
        keys_of: KeysOf,
        *,
        largest: int = 65536,
        density: int = 2,
    ) -> None:
        self._folder, self._name, self._journal, self._keys_of = folder, name, journal, keys_of
        self._largest, self._density = largest, density
        self._runs: list[_Run] = []
        self._tail: defaultdict[int, list[int]] = defaultdict(list)
        self._covered = 0
        self._known = 0
        self.refresh()

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    def refresh(self) -> None:
        """Take in the rows that the journal has by now."""
        if self._folder is not None and not self._journal.writable:
            # Runs of the writer's that were merged away stay readable for who has them mapped.
            self._load()
        elif self._folder is not None and not self._runs:
            self._load()
        total = len(self._journal)
        while self._journal.writable and total - self._covered >= _FLUSH:
            self._flush(min(total, self._covered + self._bulk(total - self._covered)))
        if total > self._known:
            keys, numbers = self._keys_of(self._journal.rows()[self._known : total])
            for key, number in zip(keys.tolist(), (numbers + self._known).tolist(), strict=True):
                self._tail[key].append(number)
            self._known = total

    def find(self, keys: NDArray[np.uint64], longest: int = 1 << 30) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows that may hold the keys.

        Args:
            keys: uint64, (k,).
            longest: Buckets with more rows say too little and are passed over.

        Returns:
            Rows and the positions of their keys, both (m,); in no order.
        """
        rows: list[NDArray[np.int64]] = []
        which: list[NDArray[np.int64]] = []
        spread = _spread(keys)
        for run in self._runs:
            bucket = spread >> np.uint64(64 - run.bits)
            start, stop = run.ends[bucket].astype(np.int64), run.ends[bucket + np.uint64(1)].astype(np.int64)
            count = stop - start
            count[count > longest] = 0
            held = np.flatnonzero(count)
            if len(held):
                count, start = count[held], start[held]
                shift = np.repeat(start - np.cumsum(count) + count, count)
                rows.append(run.rows[shift + np.arange(len(shift))].astype(np.int64))
                which.append(np.repeat(held, count))
        if self._tail:
            found = [(number, at) for at, key in enumerate(keys.tolist()) for number in self._tail.get(key, ())]
            if found:
                pairs = np.array(found, np.int64)
                rows.append(pairs[:, 0])
                which.append(pairs[:, 1])
        nothing = np.zeros(0, np.int64)
        return np.concatenate([nothing, *rows]), np.concatenate([nothing, *which])

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
                if run.path is not None:
                    run.path.unlink(missing_ok=True)

    def _build(self, first: int, last: int) -> _Run:
        keys, numbers = self._keys_of(self._journal.rows()[first:last])
        bits = max(8, min(30, (max(1, len(keys) // self._density) - 1).bit_length()))
        bucket = (_spread(keys) >> np.uint64(64 - bits)).astype(np.uint32)
        order = np.argsort(bucket, kind="stable")
        ends = np.zeros((1 << bits) + 1, np.uint32)
        ends[1:] = np.cumsum(np.bincount(bucket, minlength=1 << bits), dtype=np.uint32)
        rows = (numbers + first).astype(np.uint32)[order]
        if self._folder is None:
            return _Run(first, last, bits, ends, rows, None)
        self._journal.sync()
        path = self._folder / f"{self._name}-{first:010d}-{last:010d}.run"
        fields = np.array([first, last, bits, len(rows)], "<u8").tobytes()
        header = (_MAGIC + fields + zlib.crc32(fields).to_bytes(4, "little")).ljust(_HEADER, b"\0")
        aside = path.with_suffix(".new")
        try:
            with aside.open("wb") as file:
                for part in (header, ends.tobytes(), rows.tobytes()):
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as error:
            raise StorageError(f"The index can't be written ({error.strerror}).") from error
        run = _read_run(path)
        if run is None:
            raise StorageError("A run of the index is not as it was written.")
        return run

    def _load(self) -> None:
        """The runs on disk that follow one another from the first row on; the longest first where two overlap."""
        if self._folder is None:
            return
        covered, runs = 0, []
        for run in _chain(self._folder, self._name):
            if run.last > len(self._journal):
                break
            runs.append(run)
            covered = run.last
        if self._journal.writable:
            for path in self._folder.glob(f"{self._name}-*"):
                if path not in {run.path for run in runs}:
                    path.unlink(missing_ok=True)
        if covered > self._covered:
            self._runs, self._covered = runs, covered
            self._tail.clear()
            self._known = covered


def trusted_rows(folder: Path | None, name: str) -> int:
    """How many rows the runs on disk cover: so many of the journal were whole and synced."""
    return 0 if folder is None else max((run.last for run in _chain(folder, name)), default=0)


def _chain(folder: Path, name: str) -> list[_Run]:
    found: dict[int, list[Path]] = defaultdict(list)
    for path in folder.glob(f"{name}-*.run"):
        found[int(path.stem.rsplit("-", 2)[1])].append(path)
    runs: list[_Run] = []
    at = 0
    while at in found:
        run = next((run for path in sorted(found[at], reverse=True) if (run := _read_run(path)) is not None), None)
        if run is None:
            break
        runs.append(run)
        at = run.last
    return runs


def _read_run(path: Path) -> _Run | None:
    """A run, mapped; None when it is not whole."""
    try:
        with path.open("rb") as file:
            # Look-ups go everywhere in the file: a page fault each would cost more than all the rest.
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            data = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
    except (OSError, ValueError):
        return None
    fields = data[8:40]
    if data[:8] != _MAGIC or zlib.crc32(fields).to_bytes(4, "little") != data[40:44]:
        return None
    first, last, bits, count = (int(value) for value in np.frombuffer(fields, "<u8"))
    buckets = (1 << bits) + 1
    if len(data) != _HEADER + 4 * (buckets + count):
        return None
    ends = np.frombuffer(data, np.uint32, buckets, _HEADER)
    return _Run(first, last, bits, ends, np.frombuffer(data, np.uint32, count, _HEADER + 4 * buckets), path)


def _spread(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = (keys ^ keys >> np.uint64(32)) * _SPREAD
    return (mixed ^ mixed >> np.uint64(29)) * _SPREAD
