"""Checking a fetched data set: every blob against its hash, the table against the manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gas.datasets.store_files import Layout
from gas.datasets.store_rows import content_hash
from gas.datasets.store_table import read_table
from gas.errors import StorageError
from gas.storage.blobs import FolderBlobs, sha256_hex

__all__ = ["Damage", "OnCount", "check_set"]

OnCount = Callable[[int, int], None]
"""Told how many steps are done and how many there are."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What a check of a set found.

    Attributes:
        missing: Paths of media (or masks) whose blob is not there.
        damaged: Paths of media (or masks) whose blob has other bytes than it should.
        table: The table itself is not the one that was fetched.
        checked: Blobs that were read.
    """

    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    table: bool
    checked: int

    @property
    def found(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.missing or self.damaged or self.table)


def check_set(
    layout: Layout, blobs: FolderBlobs, name: str, on_count: OnCount | None = None, *, discard: bool = False
) -> Damage:
    """See :meth:`gas.datasets.store.DataStore.verify`."""
    # A disk that loses bits changes no time, so that the marks of what was hashed before say nothing here.
    blobs = FolderBlobs(blobs.root, rehash=True)
    manifest = layout.manifest(name)
    path = layout.set_folder(name) / "items.parquet"
    try:
        intact = sha256_hex(path.read_bytes()) == manifest.table_sha256
    except OSError as error:
        raise StorageError(f"The table of the data set {name} is gone.") from error
    if not intact:
        return Damage((), (), table=True, checked=0)
    table = read_table(layout, name, ["path", "sha256", "mask_sha256"])
    wanted = [(row["path"], row["sha256"]) for row in table.to_pylist()]
    wanted += [(f"{row['path']} (mask)", row["mask_sha256"]) for row in table.to_pylist() if row["mask_sha256"]]
    missing: list[str] = []
    damaged: list[str] = []
    for done, (where, sha256) in enumerate(wanted, start=1):
        try:
            blobs.get(sha256)
        except StorageError as error:
            is_damaged = error.error_code == "blob_damaged"
            (damaged if is_damaged else missing).append(where)
            if discard and is_damaged:
                blobs.delete(sha256)
        if on_count:
            on_count(done, len(wanted))
    whole = content_hash(read_table(layout, name)) == manifest.content_hash
    return Damage(tuple(missing), tuple(damaged), table=not whole, checked=len(wanted))
