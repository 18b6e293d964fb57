"""The data store: fetched data sets, their media byte for byte as published, and how much of the disk they take.

Media of all sets lie under the hash of their bytes, once. A set is a table with one row a medium
(:mod:`gas.datasets.items`), a list of what was set aside and why, and a manifest that is written last: what has one
is complete. Re-encoding would destroy the traces that detectors look for, so nothing is ever converted here.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gas.clock import Clock, SystemClock
from gas.config import HomeSettings
from gas.datasets.entries import DatasetEntry
from gas.datasets.items import Item, item_schema, items_from_table
from gas.datasets.registry import add_entry, load_registry, remove_entry
from gas.datasets.sources.base import Source
from gas.datasets.store_fetch import FetchOptions, fetch_files
from gas.datasets.store_files import Journal, Layout, SetManifest, locked, write_aside
from gas.datasets.store_prune import PruneResult, drop_set, prune_sets, store_size, sweep
from gas.datasets.store_room import Room
from gas.datasets.store_rows import Rejected, assemble
from gas.datasets.store_stats import SetStats, set_stats
from gas.datasets.store_table import read_rejected, read_table, write_files
from gas.datasets.store_verify import Damage, OnCount, check_set
from gas.errors import ConfigurationError, StorageError
from gas.storage.blobs import FolderBlobs, sha256_hex
from gas.types import Provenance

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Damage", "DataStore", "PruneResult", "open_store"]


def open_store(home: Path | None = None, clock: Clock | None = None) -> DataStore:
    """The store of a home (``HOME/data``); nothing is made until something is written.

    Args:
        home: The home; ``GAS_HOME`` or ``.gas`` when left out.
        clock: Where the store takes the time from; the machine's when left out.
    """
    return DataStore((HomeSettings().home if home is None else home) / "data", clock or SystemClock())


class DataStore:
    """Fetched data sets in one folder.

    Args:
        folder: Of the store; made when something is first written.
        clock: For the manifests' dates.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self._clock = clock
        self._layout = Layout(folder)
        self.blobs = FolderBlobs(self._layout.blobs)

    @property
    def registry_path(self) -> Path:
        """The store's own registry file; may not exist yet."""
        return self._layout.registry

    def add(self, entry: DatasetEntry) -> None:
        """Write a data set into the store's own registry.

        Raises:
            ConfigurationError: The name is taken, or the registry is wrong already.
            StorageError: The file can't be written.
        """
        with locked(self.folder / "locks" / "registry"):
            add_entry(self.registry_path, entry)

    def entries(self) -> tuple[DatasetEntry, ...]:
        """The store's own registry; empty where there is none.

        Raises:
            ConfigurationError: It is wrong.
        """
        return load_registry(self.registry_path).datasets if self.registry_path.exists() else ()

    def names(self) -> tuple[str, ...]:
        """Sets that are here, complete."""
        return self._layout.names()

    def under_way(self) -> tuple[str, ...]:
        """Sets whose fetch has begun and was not finished."""
        return self._layout.under_way()

    def manifest(self, name: str) -> SetManifest:
        """What is known about a complete set.

        Raises:
            ConfigurationError: ``not_fetched``.
            StorageError: The manifest is broken.
        """
        return self._layout.manifest(name)

    def provenances(self) -> dict[str, Provenance]:
        """Of each complete set: arena where it comes from one, holdout until it is released, public otherwise.

        Raises:
            StorageError: A manifest is broken.
        """
        return {name: self.provenance(self.manifest(name).entry) for name in self.names()}

    def provenance(self, entry: DatasetEntry) -> Provenance:
        """As :meth:`provenances`, of one set, whether it is here or not."""
        if entry.source == "arena":
            return Provenance.ARENA
        held = entry.holdout and not self._layout.released(entry.name).exists()
        return Provenance.HOLDOUT if held else Provenance.PUBLIC

    def release(self, name: str) -> bool:
        """Make a releasable holdout public for the rounds to come, for ever.

        Returns:
            Whether it was a holdout until now.

        Raises:
            ConfigurationError: ``not_fetched``, or ``not_releasable``.
            StorageError: The store can't be written.
        """
        entry = self.manifest(name).entry
        if not entry.holdout or not entry.releasable:
            raise ConfigurationError(
                f"The data set {name} is no holdout that may be released.",
                code="not_releasable",
                hint="Its entry must say `holdout: true` and `releasable: true`.",
            )
        marker = self._layout.released(name)
        if marker.exists():
            return False
        try:
            marker.parent.mkdir(parents=True, exist_ok=True)
            write_aside(marker, f"{self._clock.time()!r}\n")
        except OSError as error:
            raise StorageError(f"The data store can't be written ({error.strerror}).") from error
        return True

    def fetch(self, entry: DatasetEntry, source: Source, options: FetchOptions | None = None) -> SetManifest:
        """Fetch a set, or go on with it. A set that is here already is left alone unless a refresh is asked for.

        Args:
            entry: Of the set.
            source: From :func:`gas.datasets.sources.open.open_source`; not closed here.
            options: How.

        Returns:
            The manifest of the complete set.

        Raises:
            ConfigurationError: ``no_files``, ``empty_set`` (no file or no medium can be used; ``rejected.jsonl`` in
                the folder that the message names says why), a column that isn't there, or what the source raises.
            SourceUnreachable: The source stopped answering; what has arrived is kept.
            IntegrityError: A file is not what the source promised.
            StorageError: ``disk_budget``, ``busy``, or the disk is full; what was done is kept.
        """
        chosen = options or FetchOptions()
        began = self._clock.time()
        with locked(self._layout.lock_of(entry.name), wait=chosen.wait, on_wait=chosen.on_wait):
            present = self._present(entry)
            if present is not None and (not chosen.refresh or present.fetched_at > began):
                return present
            room = Room(chosen.disk_budget, self.size, lambda limit: self._make_room(entry.name, limit, chosen.pinned))
            # Either a prune sees the journal that is begun with, or the fetch sees what the prune has removed.
            with locked(self._layout.store_lock, shared=True):
                self._begin(entry)
            records = fetch_files(self._layout, self.blobs, entry, source, chosen, room)
            found = assemble(entry, records)
            folder = self._layout.fetching(entry.name)
            files = write_files(folder, found.table, found.rejected)
            if not found.table.num_rows:
                raise _empty(entry, found.rejected, folder / "rejected.jsonl")
            now = self._clock.time()
            manifest = SetManifest(
                entry=entry,
                revision=source.revision,
                items=found.table.num_rows,
                rejected=len(found.rejected),
                bytes=found.bytes,
                content_hash=found.content_hash,
                table_sha256=sha256_hex((folder / "items.parquet").read_bytes()),
                fetched_at=now,
                last_used=now,
            )
            with locked(self._layout.store_lock, shared=True):
                self._layout.publish(entry.name, files, manifest)
                shutil.rmtree(folder, ignore_errors=True)
            return manifest

    def table(self, name: str, columns: Sequence[str] | None = None, *, use: bool = True) -> pa.Table:
        """The rows of a set (:func:`gas.datasets.items.item_schema`), memory-mapped.

        Args:
            name: Of a complete set.
            columns: Only these; all when left out.
            use: Whether it counts as a use of the set; see :meth:`touch`.

        Raises:
            ConfigurationError: ``not_fetched``.
            StorageError: The table is missing or broken.
        """
        self.manifest(name)
        if use:
            self.touch([name])
        return read_table(self._layout, name, columns)

    def touch(self, names: Iterable[str]) -> None:
        """Note a use of complete sets, which pruning goes by; a store that can't be written is still good to read."""
        now = repr(self._clock.time())
        for name in names:
            with contextlib.suppress(OSError):
                write_aside(self._layout.set_folder(name) / "used", now)

    def tables(self, names: Iterable[str], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of several sets, one after the other."""
        import pyarrow as pa

        found = [self.table(name, columns) for name in names]
        return pa.concat_tables(found) if found else item_schema().empty_table().select(columns or item_schema().names)

    def items(self, name: str) -> tuple[Item, ...]:
        """The rows of a set as objects; for sets of a few thousand."""
        return items_from_table(self.table(name))

    def item(self, name: str, index: int) -> Item:
        """One row of a set.

        Raises:
            ConfigurationError: ``not_fetched`` or ``item_unknown``.
        """
        table = self.table(name)
        if not 0 <= index < table.num_rows:
            raise ConfigurationError(
                f"The data set {name} has no item {index}: it has {table.num_rows:,}.", code="item_unknown"
            )
        return items_from_table(table.slice(index, 1))[0]

    def find(self, prefix: str) -> Item:
        """The medium whose SHA-256 begins so, in whichever set; of several sets the first by name.

        Raises:
            ConfigurationError: ``item_unknown`` or ``item_ambiguous``.
        """
        import pyarrow.compute as pc

        if not re.fullmatch(r"[0-9a-f]{6,64}", prefix):
            raise ConfigurationError("Give at least 6 hex digits of a medium's SHA-256.", code="item_unknown")
        found: dict[str, Item] = {}
        for name in self.names():
            table = self.table(name, use=False)
            for item in items_from_table(table.filter(pc.starts_with(table.column("sha256"), prefix)).slice(0, 2)):
                found.setdefault(item.sha256, item)
        if not found:
            raise ConfigurationError(f"No medium here begins with {prefix}.", code="item_unknown")
        if len(found) > 1:
            raise ConfigurationError(f"Several media begin with {prefix}.", code="item_ambiguous")
        item = next(iter(found.values()))
        self.touch([item.dataset])
        return item

    def get(self, sha256: str) -> bytes:
        """A blob's bytes, checked.

        Raises:
            StorageError: ``blob_missing`` or ``blob_damaged``.
        """
        try:
            return self.blobs.get(sha256)
        except StorageError as error:
            error.hint = "`gascli data verify --discard` finds whose it is; a fetch with --refresh brings it again."
            raise

    def read(self, item: Item) -> bytes:
        """A medium as it was published, checked."""
        return self.get(item.sha256)

    def read_mask(self, item: Item) -> bytes | None:
        """A medium's mask, checked; None where it has none."""
        return None if item.mask_sha256 is None else self.get(item.mask_sha256)

    def rejected(self, name: str) -> tuple[Rejected, ...]:
        """What was set aside when the set was fetched."""
        self.manifest(name)
        return read_rejected(self._layout, name)

    def stats(self, name: str) -> SetStats:
        """What a set is made of."""
        return set_stats(read_table(self._layout, name), (row.code for row in self.rejected(name)))

    def verify(self, name: str, on_count: OnCount | None = None, *, discard: bool = False) -> Damage:
        """Read every blob of a set and check it against its hash, and the table against the manifest.

        Args:
            name: Of a complete set.
            on_count: Told after each blob.
            discard: Delete damaged blobs, so that a refreshing fetch brings them again.

        Raises:
            ConfigurationError: ``not_fetched``.
            StorageError: The table is gone.
        """
        return check_set(self._layout, self.blobs, name, on_count, discard=discard)

    def prune(self, max_bytes: int, pinned: Collection[str] = ()) -> PruneResult:
        """Remove blobs of no set, then whole sets, least recently used first, until the store is small enough.

        Args:
            max_bytes: That the store may take.
            pinned: SHA-256 of blobs that stay whatever happens: those of open rounds.

        Raises:
            StorageError: The store can't be written.
        """
        before = self.size()
        with locked(self._layout.store_lock):
            removed, kept = prune_sets(self._layout, self.blobs, max_bytes, frozenset(pinned), frozenset())
        now = self.size()
        return PruneResult(removed, before - now, now, kept)

    def remove(self, name: str, pinned: Collection[str] = ()) -> int:
        """Remove a set, whatever of it was fetched, and the blobs that no other set has; returns the bytes freed.

        The store's own registry keeps its entry; see :meth:`forget`.

        Raises:
            ConfigurationError: ``not_fetched``: there is nothing of it.
            StorageError: ``busy``: it is being fetched.
        """
        if name not in self.names() and name not in self.under_way():
            raise ConfigurationError(f"The data set {name} is not here.", code="not_fetched")
        before = self.size()
        with locked(self._layout.lock_of(name), wait=False), locked(self._layout.store_lock):
            shutil.rmtree(self._layout.fetching(name), ignore_errors=True)
            drop_set(self._layout, name)
            sweep(self._layout, self.blobs, frozenset(pinned))
        return before - self.size()

    def forget(self, name: str) -> bool:
        """Take a set out of the store's own registry; returns whether it was there."""
        if not self.registry_path.exists():
            return False
        with locked(self.folder / "locks" / "registry"):
            return remove_entry(self.registry_path, name)

    def size(self) -> int:
        """Bytes that the store takes, unfinished files included."""
        return store_size(self.folder)

    def _present(self, entry: DatasetEntry) -> SetManifest | None:
        """The manifest of the set if it was fetched by the very same entry."""
        if entry.name not in self.names():
            return None
        try:
            manifest = self.manifest(entry.name)
        except StorageError:
            return None
        return manifest if manifest.entry.digest == entry.digest else None

    def _begin(self, entry: DatasetEntry) -> None:
        """Let a refresh go on from what the complete set has."""
        old = self._layout.set_folder(entry.name) / "files.jsonl"
        new = self._layout.fetching(entry.name) / "files.jsonl"
        if new.exists() and any(True for _ in Journal(new, entry.digest).read()):
            return
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            new.unlink(missing_ok=True)
            if old.exists():
                aside = new.with_suffix(".copy")
                shutil.copyfile(old, aside)
                aside.replace(new)
        except OSError as error:
            raise StorageError(
                f"The data store can't be written ({error.strerror}).", hint="Is the disk full?"
            ) from error

    def _make_room(self, name: str, limit: int, pinned: frozenset[str]) -> None:
        with locked(self._layout.store_lock):
            prune_sets(self._layout, self.blobs, limit, pinned, frozenset({name}))


def _empty(entry: DatasetEntry, rejected: Sequence[Rejected], path: Path) -> ConfigurationError:
    codes: dict[str, int] = {}
    for row in rejected:
        codes[row.code] = codes.get(row.code, 0) + 1
    why = ", ".join(f"{count} {code}" for code, count in sorted(codes.items(), key=lambda pair: -pair[1]))
    if why:
        text, hint = f"all were set aside ({why})", f"{path} lists each with its reason."
    elif entry.filter_column:
        values = ", ".join(repr(value) for value in entry.filter_values[:5])
        text, hint = f"no row has {values} in the column {entry.filter_column!r}", "Values are compared as text."
    else:
        text, hint = "its files hold none", "Look at its columns and globs."
    return ConfigurationError(f"The data set {entry.name} has no usable media: {text}.", code="empty_set", hint=hint)
