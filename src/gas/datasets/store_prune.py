"""Keeping the data store small: what may go, and in which order."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from gas.datasets.store_files import Journal, Layout
from gas.datasets.store_rows import Row
from gas.datasets.store_table import read_table
from gas.errors import StorageError
from gas.storage.blobs import FolderBlobs

__all__ = ["PruneResult", "drop_set", "prune_sets", "store_size", "sweep"]


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What pruning did.

    Attributes:
        removed: Sets that were taken out, least recently used first.
        freed: Bytes.
        bytes: That the store takes now.
        pinned: Blobs that stayed although no set has them, because they are in use.
    """

    removed: tuple[str, ...]
    freed: int
    bytes: int
    pinned: int


def prune_sets(
    layout: Layout, blobs: FolderBlobs, limit: int, pinned: frozenset[str], spared: frozenset[str]
) -> tuple[tuple[str, ...], int]:
    """Remove blobs of no set, then sets by least recent use, until the store takes ``limit`` bytes at most.

    Args:
        layout: Of the store, whose lock the caller holds alone.
        blobs: Its blobs.
        limit: Bytes.
        pinned: Blobs that stay.
        spared: Sets that stay.

    Returns:
        The sets that went, and how many blobs only a pin has kept.
    """
    removed: list[str] = []
    kept = sweep(layout, blobs, pinned)
    by_use = sorted((_last_used(layout, name), name) for name in layout.names() if name not in spared)
    for _, name in by_use:
        if store_size(layout.root) <= limit:
            break
        drop_set(layout, name)
        removed.append(name)
        kept = sweep(layout, blobs, pinned)
    return tuple(removed), kept


def _last_used(layout: Layout, name: str) -> float:
    try:
        return layout.manifest(name).last_used
    except StorageError:
        return 0.0


def drop_set(layout: Layout, name: str) -> None:
    """Remove a set's table and manifest; its blobs are :func:`sweep`'s."""
    folder = layout.set_folder(name)
    # The manifest goes first: a set that is half gone is none.
    (folder / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def sweep(layout: Layout, blobs: FolderBlobs, pinned: frozenset[str]) -> int:
    """Delete blobs that no set and no fetch under way has; returns how many were kept by a pin alone."""
    used: set[str] = set()
    for name in layout.names():
        table = read_table(layout, name, ["sha256", "mask_sha256"])
        for column in table.columns:
            used.update(value for value in column.to_pylist() if value)
    for name in layout.under_way():
        path = layout.fetching(name) / "files.jsonl"
        for record in Journal(path, "").peek():
            for row in map(Row._make, record.rows):
                used.update(value for value in (row.sha256, row.mask_sha256) if value)
    kept = 0
    for blob in tuple(blobs.names()):
        if blob in used:
            continue
        if blob in pinned:
            kept += 1
        else:
            blobs.delete(blob)
    return kept


def store_size(root: Path) -> int:
    """Bytes of all files under a folder."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += (Path(folder) / name).lstat().st_size
            except FileNotFoundError:
                continue  # A fetch under way has moved it.
    return total
