"""Fetching one data set: list, transfer, read, look at each medium, write down.

Each file of the source is transferred into a part file (which a later run goes on with), read medium by medium into
the blobs, and written down in the journal as done. A kill, a full disk or a hub that stops answering loses at most
the files that were in hand, and of those only what had not arrived. The set becomes visible when all is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gas.datasets.entries import DatasetEntry
from gas.datasets.sources.base import RemoteFile, Source
from gas.datasets.store_files import FileRecord, Journal, Layout, locked, part_name
from gas.datasets.store_room import NoRoom, Room
from gas.datasets.store_rows import Filled, Row, mixes_modalities
from gas.datasets.store_take import Taker
from gas.errors import ConfigurationError, MediaRejected, SourceUnreachable, StorageError
from gas.media.limits import DEFAULT_LIMITS, MediaLimits
from gas.storage.blobs import FolderBlobs

if TYPE_CHECKING:
    from gas.datasets.formats import FormatLimits, Wanted
    from gas.media.guard import GuardedDecoder

__all__ = ["FetchOptions", "FetchProgress", "fetch_files"]

_TRUSTED: Final = frozenset({"folder", "npm", "pypi", "debian", "python"})


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """How far a fetch is.

    Attributes:
        name: Of the set.
        files_done: Files read to their end, those of earlier runs included.
        files: Files of the source that belong to the set.
        bytes_done: Bytes that have arrived, of earlier runs included.
        bytes: Bytes of all files; None where the source doesn't say.
        items: Good media so far.
        rejected: Media set aside so far.
        current: Path of a file in hand.
    """

    name: str
    files_done: int
    files: int
    bytes_done: int
    bytes: int | None
    items: int
    rejected: int
    current: str = ""


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to fetch.

    Attributes:
        jobs: Files in hand at once, at least 1.
        disk_budget: The most bytes that the whole store may take, unfinished files included; None: no bound but the
            disk's.
        pinned: SHA-256 of blobs that may not be pruned to make room.
        refresh: Ask the source again for what it has, although the set is here.
        wait: For another fetch of the same set to end.
        limits: What one medium may cost.
        guarded: Decode in processes of their own, which end with their time or memory; None: media of other sources
            than folders and pinned packages.
        on_progress: Told often, from several threads, one at a time.
        on_wait: Told before waiting for another fetch of the set.
    """

    jobs: int = 4
    disk_budget: int | None = None
    pinned: frozenset[str] = frozenset()
    refresh: bool = False
    wait: bool = True
    limits: MediaLimits = DEFAULT_LIMITS
    guarded: bool | None = None
    on_progress: Callable[[FetchProgress], None] | None = None
    on_wait: Callable[[], None] | None = None


class Stopped(Exception):
    """Another file failed, or the user has had enough."""


class _State:
    """What the threads of one fetch share.

    Args:
        entry: Of the set.
        listed: Its files, in the order of paths.
        done: Those that an earlier run read.
    """

    def __init__(self, entry: DatasetEntry, listed: tuple[RemoteFile, ...], done: Mapping[str, FileRecord]) -> None:
        self.entry = entry
        self.listed = listed
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.done: dict[str, FileRecord] = {}
        self.bytes = sum(file.size for file in listed if file.size is not None)
        self.bytes_known = all(file.size is not None for file in listed)
        self.bytes_done = 0
        self.items = 0
        self.rejected = 0
        self._filled = Filled(entry)
        self._next = 0
        for record in done.values():
            self.bytes_done += record.file.size or 0
            self.add(record)

    def add(self, record: FileRecord) -> None:
        """A file was read to its end."""
        with self.lock:
            self.done[record.file.path] = record
            self.items += len(record.rows)
            self.rejected += len(record.rejected)
            while self._next < len(self.listed) and (file := self.listed[self._next]).path in self.done:
                self._filled.add(self.done[file.path])
                self._next += 1

    @property
    def is_full(self) -> bool:
        """Whether the first files, without a gap, already fill the entry's limits."""
        return self._filled.full

    def progress(self, current: str) -> FetchProgress:
        """For the user."""
        with self.lock:
            return FetchProgress(
                name=self.entry.name,
                files_done=len(self.done),
                files=len(self.listed),
                bytes_done=self.bytes_done,
                bytes=self.bytes if self.bytes_known else None,
                items=self.items,
                rejected=self.rejected,
                current=current,
            )


def fetch_files(
    layout: Layout, blobs: FolderBlobs, entry: DatasetEntry, source: Source, options: FetchOptions, room: Room
) -> list[FileRecord]:
    """Bring every file of a set, or as many as its limits take, and read them.

    The caller holds the set's lock.

    Args:
        layout: Of the store.
        blobs: Where media go.
        entry: Of the set.
        source: Where its files come from.
        options: How.
        room: Bound of the disk.

    Returns:
        A record for each file, in the order of paths.

    Raises:
        ConfigurationError: ``no_files``: nothing of the source belongs to the set; a column that isn't there; what
            the source raises.
        SourceUnreachable: The source stopped answering; says how much is here.
        IntegrityError: A file is not what the source promised.
        StorageError: ``disk_budget``, or the disk is full.
    """
    return _Fetch(layout, blobs, entry, source, options, room).run()


class _Fetch:
    def __init__(
        self, layout: Layout, blobs: FolderBlobs, entry: DatasetEntry, source: Source, options: FetchOptions, room: Room
    ) -> None:
        self.layout = layout
        self.blobs = blobs
        self.entry = entry
        self.source = source
        self.options = options
        self.room = room
        self.folder = layout.fetching(entry.name)
        self.journal = Journal(self.folder / "files.jsonl", entry.digest)
        self.masks: Mapping[str, RemoteFile] = {}
        self.reporting = threading.Lock()
        self.guard: GuardedDecoder | None = None

    def run(self) -> list[FileRecord]:
        try:
            return self._run()
        except SourceUnreachable as error:
            here = sum(1 for _ in self.journal.peek())
            error.hint = f"{here:,} of its files are here and kept: run it again to go on."
            raise

    def _run(self) -> list[FileRecord]:
        from gas.media.guard import GuardedDecoder

        guarded = self.options.guarded
        if guarded is False or (guarded is None and self.entry.source in _TRUSTED):
            return self._fetch()
        with GuardedDecoder(self.options.limits, workers=max(1, self.options.jobs)) as self.guard:
            return self._fetch()

    def _fetch(self) -> list[FileRecord]:
        listed, self.masks = self._listed()
        wanted = {part_name(file): file for file in listed}
        done = {record.file.path: record for record in self._written_down() if part_name(record.file) in wanted}
        self._sweep({*wanted, *(part_name(mask) for mask in self.masks.values())})
        state = _State(self.entry, listed, done)
        self._report(state)
        pool = ThreadPoolExecutor(max_workers=max(1, self.options.jobs), thread_name_prefix="fetch")
        try:
            self._drive(pool, state)
        finally:
            state.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        return [state.done[file.path] for file in listed if file.path in state.done]

    def _listed(self) -> tuple[tuple[RemoteFile, ...], dict[str, RemoteFile]]:
        """Files that hold media, in the order of paths, and the mask of each that has one as a file."""
        from gas.datasets.formats import is_side_file, masks_among

        offered = {file.path: file for file in sorted(self.source.files(), key=lambda f: f.path)}
        rule = self.entry.mask_column
        pairs = masks_among(list(offered), rule) if "{" in rule else {}
        others = set(pairs.values())
        listed = tuple(
            file
            for path, file in offered.items()
            if path not in others and self.entry.wants(path) and (self.entry.include or not is_side_file(path))
        )
        if not listed:
            raise ConfigurationError(
                f"None of the {len(offered):,} files of the data set {self.entry.name} belongs to it."
                if offered
                else f"The source of the data set {self.entry.name} is empty.",
                code="no_files",
                hint="Look at include and exclude." if offered else "",
            )
        return listed, {path: offered[pairs[path]] for path in pairs}

    def _written_down(self) -> Iterator[FileRecord]:
        """Files that an earlier run read to their end and whose media are all still here."""
        for record in self.journal.read():
            if all(
                self.blobs.exists(row.sha256) and (row.mask_sha256 is None or self.blobs.exists(row.mask_sha256))
                for row in map(Row._make, record.rows)
            ):
                yield record

    def _sweep(self, wanted: set[str]) -> None:
        """Remove part files that nothing will go on with."""
        parts = self.folder / "parts"
        for left in parts.iterdir() if parts.is_dir() else ():
            if left.name.partition(".part")[0] + ".part" not in wanted:
                self.room.give(left.stat().st_size)
                left.unlink()

    def _drive(self, pool: ThreadPoolExecutor, state: _State) -> None:
        todo = iter([file for file in state.listed if file.path not in state.done])
        running: set[Future[None]] = set()
        while True:
            while len(running) < max(1, self.options.jobs) and not state.is_full:
                file = next(todo, None)
                if file is None:
                    break
                running.add(pool.submit(self._bring, file, state))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()

    def _bring(self, file: RemoteFile, state: _State) -> None:
        mask = self.masks.get(file.path)
        part = self._transfer(file, state)
        mask_part = self._transfer(mask, state) if mask is not None else None
        while True:
            try:
                # Until the journal has the media, nobody may take their blobs for unused.
                with locked(self.layout.store_lock, shared=True):
                    record = self._read(file, part, mask_part, state)
                    self.journal.append(record)
                break
            except NoRoom as error:
                self.room.need(error.count)
        for path in (part, mask_part):
            if path is not None:
                size = path.stat().st_size
                path.unlink()
                self.room.give(size)
        state.add(record)
        self._report(state, file.path)

    def _transfer(self, file: RemoteFile, state: _State) -> Path:
        part = self.folder / "parts" / part_name(file)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            here = part.stat().st_size if part.exists() else 0
        except OSError as error:
            raise StorageError(f"The data store can't be written ({error.strerror}).") from error
        # Part and media lie beside each other for a while.
        self.room.need(2 * (file.size or 0) - here)
        with state.lock:
            state.bytes_done += here

        def on_bytes(count: int) -> None:
            if state.stop.is_set():
                raise Stopped
            self.room.take(count)
            with state.lock:
                state.bytes_done += count
            self._report(state, file.path)

        while True:
            try:
                self.source.fetch(file, part, on_bytes)
                return part
            except NoRoom as error:
                self.room.need(error.count)

    def _read(self, file: RemoteFile, part: Path, mask_part: Path | None, state: _State) -> FileRecord:
        from gas.datasets.formats import read_items

        taker = Taker(self.entry, self.blobs, self.room, self.options.limits, self.guard)
        rows: list[Row] = []
        rejected: list[tuple[int, str, str, str]] = []
        paired = mask_part.read_bytes() if mask_part is not None else None
        index = -1
        try:
            for index, raw in enumerate(read_items(part, file.path, self._wanted(file.path), self._format_limits())):
                if state.stop.is_set():
                    raise Stopped
                if raw.error is not None:
                    rejected.append((index, raw.path, raw.error.code, raw.error.message))
                    continue
                if mixes_modalities(self.entry, raw.columns):
                    continue
                try:
                    rows.append(taker.take(raw, raw.mask if raw.mask is not None else paired, index))
                except MediaRejected as error:
                    rejected.append((index, raw.path, error.error_code, error.message))
        except MediaRejected as error:
            # The file as a whole breaks off here; what came before is good.
            rejected.append((index + 1, file.path, error.error_code, error.message))
        return FileRecord(file, rows, rejected)

    def _format_limits(self) -> FormatLimits:
        from gas.datasets.formats import FormatLimits

        return FormatLimits(max_item_bytes=self.options.limits.max_bytes)

    def _wanted(self, path: str) -> Wanted:
        from gas.datasets.formats import Wanted
        from gas.datasets.sources.arena import SHARD_WANTED

        entry = self.entry
        if entry.source == "arena":
            return SHARD_WANTED
        return Wanted(
            format=entry.format,
            modality=entry.modality,
            member=entry.member_filter(path),
            data_columns=entry.data_columns,
            mask_column=entry.mask_column,
            filter_column=entry.filter_column,
            filter_values=entry.filter_values,
        )

    def _report(self, state: _State, current: str = "") -> None:
        if self.options.on_progress is not None:
            with self.reporting:
                self.options.on_progress(state.progress(current))
