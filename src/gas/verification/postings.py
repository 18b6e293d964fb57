"""Which rows hold a key: sorted runs of postings (:mod:`gas.verification.runs`), and a small table for the newest rows.

A look-up reads the buckets of its codes one after the other and keeps the postings whose sketch is near to the one
that is asked for; what a sketch refuses is never fetched from the rows. Callers check what they get: a bucket holds
postings of other codes too.

A run that is no larger than twice all that came after it is merged with them, so that there are few. Runs of fewer than
1,024 rows are in memory only. Small merges are done at once, large ones by a thread beside: look-ups and additions go
on with the runs that there are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gas.errors import StorageError
from gas.verification.journal import Journal
from gas.verification.runs import (
    CODE_BITS,
    NUMBER_BITS,
    SKETCH_BITS,
    Entries,
    EntriesOf,
    Layout,
    Run,
    StoppedError,
    build_run,
    chain,
    merge_runs,
    packed,
)

__all__ = ["SKETCH_BITS", "Entries", "EntriesOf", "Postings", "spread_codes", "trusted_rows"]

_FRESH: Final = 64
_FLUSH: Final = 1024
_AT_ONCE: Final = 1024
_REST: Final = 4096
"""Rows that come in before a merge is tried again that has failed, as on a full disk."""
_RATIO: Final = 2
_BULK: Final = 1 << 16
_BULK_NUMBERS: Final = 1 << 21
_LARGEST: Final = 1 << 21
_USUAL: Final = 1 << 18
_SHIFT: Final = np.uint64(SKETCH_BITS)
_NUMBERS: Final = np.uint64(NUMBER_BITS)
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)


@dataclass(slots=True)
class _Merge:
    """One that is under way beside."""

    group: list[Run]
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    run: Run | None = None
    error: StorageError | None = None


class Postings:
    """Numbers by code. Not safe to be shared by threads without a lock.

    Args:
        folder: Of the runs; None keeps everything in memory.
        name: Of the runs' files.
        journal: Whose rows are found.
        entries_of: Their postings.
        tables: How many codes an entry has; each table is asked with a code of its own.
        code_bits: So many first bits of a code say something; large runs have as many buckets.
        per_row: How many numbers a row has.
        density: Mean number of postings a bucket of a small run.
        version: Of what codes and sketches mean; runs of another are built again.
        newest: The same postings of few rows in all tables; a quicker way than to ask table by table.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        journal: Journal,
        entries_of: EntriesOf,
        *,
        tables: int = 1,
        code_bits: int = 22,
        per_row: int = 1,
        density: int = 2,
        version: int = 0,
        newest: Callable[[NDArray[Any], int], list[Entries]] | None = None,
    ) -> None:
        self._folder, self._journal, self._tables, self._per_row = folder, journal, tables, per_row
        self._newest = newest or (lambda rows, first: [entries_of(rows, first, table) for table in range(tables)])
        self._layout = Layout(folder, name, journal, entries_of, tables, code_bits, per_row, density, version)
        self._largest = min(_LARGEST, (1 << NUMBER_BITS) // per_row)
        self._runs: list[Run] = []
        # Hardly a key has two postings, and thousands of lists keep the garbage collector busy.
        self._tail: dict[int, int | list[int]] = {}
        self._covered = 0
        self._known = 0
        self._merging: _Merge | None = None
        self._rest_until = 0
        if folder is not None and journal.writable:
            self._load(folder)
        self.refresh()

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    def close(self) -> None:
        """Stop what is done beside; nothing of it is left."""
        merge, self._merging = self._merging, None
        if merge is not None and merge.thread is not None:
            merge.stop.set()
            merge.thread.join()

    def settle(self) -> None:
        """Wait until nothing is left to be merged.

        Raises:
            StorageError: The folder can't be written.
        """
        while self._merging is not None and self._merging.thread is not None:
            self._merging.thread.join()
            self._merge()

    def refresh(self) -> None:
        """Take in the rows that the journal has by now.

        Raises:
            StorageError: The folder can't be written, or couldn't be since the last time.
        """
        if self._folder is not None and not self._journal.writable:
            # Runs of the writer's that were merged away stay readable for who has them mapped.
            self._load(self._folder)
        self._merge()
        total, most = len(self._journal), min(_BULK, _BULK_NUMBERS // self._per_row)
        while (waiting := total - self._lasting()) >= _FLUSH:
            self._flush(self._lasting(), total - waiting + min(most, waiting) // _FLUSH * _FLUSH)
        if total - self._covered >= _FRESH:
            self._flush(self._covered, total)
        if total > self._known:
            rows = self._journal.rows()[self._known : total]
            for table, new in enumerate(self._newest(rows, self._known)):
                keys = new.codes.astype(np.uint64) | np.uint64(table << CODE_BITS)
                postings = packed(new, self._covered * self._per_row)
                for key, posting in zip(keys.tolist(), postings.tolist(), strict=True):
                    held = self._tail.setdefault(key, posting)
                    if isinstance(held, list):
                        held.append(posting)
                    elif held is not posting:
                        self._tail[key] = [held, posting]
            self._known = total

    def find(
        self, codes: NDArray[np.uint32], sketches: NDArray[np.uint64], near: int, longest: int = 1 << 30
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers that may be meant.

        Args:
            codes: uint32, (tables, k).
            sketches: uint64, (tables, k) or, when they are the same for each table, (k,).
            near: Largest distance of sketches, 0..38 bits.
            longest: Buckets with more postings than so many in 2**18 rows say too little and are passed over.

        Returns:
            Numbers and the positions 0..k-1 of what was asked, both (m,); in no order, and the same pair as often as
            it was found.
        """
        flat = sketches.ravel() if sketches.ndim > 1 else np.tile(sketches, self._tables)
        found, which = self._in_runs(codes, flat, near, longest)
        if self._tail:
            keys = codes.astype(np.uint64) | np.arange(len(codes), dtype=np.uint64)[:, None] << np.uint64(CODE_BITS)
            held = ((at, self._tail[key]) for at, key in enumerate(keys.ravel().tolist()) if key in self._tail)
            pairs = [(one, at) for at, some in held for one in (some if isinstance(some, list) else (some,))]
            if pairs:
                newest = np.array([posting for posting, _ in pairs], np.uint64)
                places = np.array([at for _, at in pairs], np.int64)
                kept = np.flatnonzero(np.bitwise_count((newest ^ flat[places]) << _NUMBERS) <= near)
                numbers = (newest[kept] >> _SHIFT).astype(np.int64) + self._covered * self._per_row
                found = np.concatenate([found, numbers])
                which = np.concatenate([which, places[kept] % codes.shape[1]])
        return found, which

    def _in_runs(
        self, codes: NDArray[np.uint32], sketches: NDArray[np.uint64], near: int, longest: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers whose sketch is near, and which of those asked for each is meant.

        All runs are asked together: for so few numbers a call costs more than what it does.
        """
        tables, asked = codes.shape
        flat, of_table = codes.ravel(), np.repeat(np.arange(tables), asked) if tables > 1 else None
        starts, stops = np.empty((2, len(self._runs), codes.size), np.uint32)
        buckets, known = np.zeros(0, np.int64), -1
        for at, run in enumerate(self._runs):
            if run.bits != known:
                buckets, known = (flat >> np.uint32(CODE_BITS - run.bits)).astype(np.int64), run.bits
                if of_table is not None:
                    buckets += of_table * ((1 << known) + 1)
            # Clipping spares the copy that numpy takes to be able to refuse; no bucket is outside.
            np.take(run.ends, buckets, out=starts[at], mode="clip")
            np.take(run.ends[1:], buckets, out=stops[at], mode="clip")
        counts = (stops - starts).astype(np.int64)
        limits = [longest * max(1.0, len(run) / _USUAL) for run in self._runs]
        counts[counts > np.array(limits)[:, None]] = 0
        ends = np.cumsum(counts).reshape(counts.shape)
        total = int(ends[-1, -1]) if ends.size else 0
        if not total:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        slots = np.repeat(np.arange(counts.size), counts.ravel())
        places = (starts - (ends - counts)).ravel().take(slots)
        places += np.arange(total)
        postings, begin = np.empty(total, np.uint64), 0
        for at, run in enumerate(self._runs):
            end = int(ends[at, -1])
            np.take(run.postings, places[begin:end], out=postings[begin:end], mode="clip")
            begin = end
        wanted = np.tile(sketches, len(self._runs)).take(slots)
        wanted ^= postings
        wanted <<= _NUMBERS
        kept = np.flatnonzero(np.bitwise_count(wanted) <= near)
        slots = slots[kept]
        numbers = (postings[kept] >> _SHIFT).astype(np.int64)
        firsts = np.array([run.first * self._per_row for run in self._runs])
        numbers += np.repeat(firsts, codes.size).take(slots)
        return numbers, np.tile(np.arange(asked), tables * len(self._runs)).take(slots)

    def _lasting(self) -> int:
        """Up to which row there are runs that are large enough to be kept."""
        return next((run.last for run in reversed(self._runs) if len(run) >= _FLUSH), 0)

    def _flush(self, first: int, last: int) -> None:
        """Make a run of rows, in the place of smaller ones."""
        kept = self._journal.writable and last - first >= _FLUSH
        new = build_run(self._layout, self._journal.rows(), first, last, kept=kept)
        self._runs = [*(run for run in self._runs if run.first < first), new]
        self._covered = self._known = last
        self._tail.clear()
        self._merge()

    def _merge(self) -> None:
        """Take over what was merged beside, and begin what is due; files are left to the writer."""
        rows = self._journal.rows()
        while group := self._due(lasting=False):
            self._take_over(group, merge_runs(self._layout, rows, group, kept=False))
        merge = self._merging
        if merge is not None and merge.thread is not None:
            if merge.thread.is_alive():
                return
            self._merging = None
            if merge.error is not None:
                # What isn't merged is searched all the same; the same is not tried again at once.
                self._rest_until = self._covered + _REST
                raise merge.error
            if merge.run is not None:
                self._take_over(merge.group, merge.run)
        while self._journal.writable and self._covered >= self._rest_until and (group := self._due(lasting=True)):
            if group[-1].last - group[0].first > _AT_ONCE:
                self._merging = merge = _Merge(group)
                merge.thread = threading.Thread(
                    target=self._work, args=(merge, rows), name=f"merge-{self._layout.name}"
                )
                merge.thread.start()
                return
            self._take_over(group, merge_runs(self._layout, rows, group))

    def _due(self, *, lasting: bool) -> list[Run]:
        """The longest stretch of newest runs whose first is not much larger than the others together."""
        runs = [run for run in self._runs if (len(run) >= _FLUSH) == lasting]
        for at, run in enumerate(runs[:-1]):
            if len(run) <= _RATIO * (runs[-1].last - run.last) and runs[-1].last - run.first <= self._largest:
                return runs[at:]
        return []

    def _work(self, merge: _Merge, rows: NDArray[np.void]) -> None:
        """What the thread does; it touches nothing that others see."""
        try:
            merge.run = merge_runs(self._layout, rows, merge.group, stop=merge.stop)
        except StoppedError:
            return
        except StorageError as error:
            merge.error = error
        except MemoryError:
            merge.error = StorageError("There is no memory to merge the index of copies.", code="index_unmerged")

    def _take_over(self, group: list[Run], merged: Run) -> None:
        at = self._runs.index(group[0])
        self._runs[at : at + len(group)] = [merged]
        for run in group:
            if run.path is not None:
                run.path.unlink(missing_ok=True)

    def _load(self, folder: Path) -> None:
        """The runs on disk that follow one another from the first row on."""
        known = {run.path: run for run in self._runs}
        found = chain(folder, self._layout.name, self._tables, self._layout.version, known)
        runs = [run for run in found if run.last <= len(self._journal)]
        covered = runs[-1].last if runs else 0
        if self._journal.writable:
            for path in folder.glob(f"{self._layout.name}-*"):
                if path not in {run.path for run in runs}:
                    path.unlink(missing_ok=True)
        lasting = sum(len(run) >= _FLUSH for run in self._runs)
        if covered > self._lasting() or (covered == self._lasting() and len(runs) < lasting):
            self._runs, self._covered = runs, covered
            self._tail.clear()
            self._known = covered


def spread_codes(keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Codes whose first bits are spread evenly, of keys that may be alike; uint64 (m,) to uint32 (m,)."""
    mixed = (keys ^ keys >> np.uint64(32)) * _SPREAD
    return ((mixed ^ mixed >> np.uint64(29)) * _SPREAD >> np.uint64(32)).astype(np.uint32)


def trusted_rows(folder: Path | None, name: str, tables: int = 1) -> int:
    """How many rows the runs on disk cover: so many of the journal were whole and synced."""
    return 0 if folder is None else max((run.last for run in chain(folder, name, tables)), default=0)
