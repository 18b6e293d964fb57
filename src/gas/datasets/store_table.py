"""The files of a fetched data set: its table and the list of what was set aside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gas.datasets.store_files import Layout, write_aside
from gas.datasets.store_rows import Rejected
from gas.errors import StorageError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_rejected", "read_table", "write_files"]


def write_files(folder: Path, table: pa.Table, rejected: Sequence[Rejected]) -> dict[str, Path]:
    """Write the files of a set into the folder of its fetch.

    Returns:
        Name in the complete set -> where the file lies.

    Raises:
        StorageError: The disk is full or can't be written.
    """
    import pyarrow.parquet as pq

    lines = "".join(json.dumps(row.as_dict(), ensure_ascii=True) + "\n" for row in rejected)
    try:
        pq.write_table(table, folder / "items.parquet", compression="zstd")
        write_aside(folder / "rejected.jsonl", lines)
    except OSError as error:
        raise StorageError(
            f"The table could not be written ({error.strerror}).", hint="Is the disk full? Run it again to go on."
        ) from error
    return {name: folder / name for name in ("items.parquet", "rejected.jsonl", "files.jsonl")}


def read_table(layout: Layout, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a complete set, memory-mapped.

    Args:
        layout: Of the store.
        name: Of the set.
        columns: Only these; all when left out.

    Raises:
        StorageError: The table is missing or broken.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = layout.set_folder(name) / "items.parquet"
    try:
        return pq.read_table(path, columns=list(columns) if columns else None, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"The table of the data set {name} is broken.", hint=f"Run `gascli data fetch {name} --refresh`."
        ) from error


def read_rejected(layout: Layout, name: str) -> tuple[Rejected, ...]:
    """What was set aside when a complete set was fetched.

    Raises:
        StorageError: The list is missing or broken.
    """
    try:
        text = (layout.set_folder(name) / "rejected.jsonl").read_text(encoding="utf-8")
        return tuple(Rejected(**json.loads(line)) for line in text.splitlines())
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"The list of rejected media of {name} can't be read.") from error
