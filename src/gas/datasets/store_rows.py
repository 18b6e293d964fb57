"""From the journal of a fetch to a data set's table: one order, no copies, one hash.

Everything here depends on what the files hold and on their paths, never on the order in which they came.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from gas.datasets.entries import DatasetEntry
from gas.datasets.items import item_schema
from gas.datasets.store_files import FileRecord
from gas.types import Modality

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Assembled", "Filled", "Rejected", "Row", "assemble", "content_hash", "mixes_modalities"]

HASHED: Final = (
    "sha256", "mask_sha256", "dataset", "modality", "media_type", "mime", "size", "path", "source", "origin",
    "generator", "category", "licence", "hotkey",
)  # fmt: skip
"""Columns under the content hash; what a decoder's version may see otherwise (lengths, rates) is left out."""

_ROWS_AT_ONCE: Final = 20_000


class Row(NamedTuple):
    """A medium as the journal holds it, a list of these; fields as in :class:`gas.datasets.items.Item`.

    ``source`` and ``origin`` are empty where nothing finer is known than the data set and the medium itself; ``place``
    is the medium's number in its file.
    """

    path: str
    sha256: str
    size: int
    mime: str
    media_type: str
    width: int | None
    height: int | None
    seconds: float | None
    rate: float | None
    codec: str
    mask_sha256: str | None
    source: str
    origin: str
    generator: str
    category: str
    hotkey: str | None
    place: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A medium that was set aside.

    Attributes:
        path: Where it was found, as :attr:`gas.datasets.items.Item.path`.
        code: Why, for machines.
        message: Why, for people.
    """

    path: str
    code: str
    message: str

    def as_dict(self) -> dict[str, str]:
        """A line of ``rejected.jsonl``."""
        return {"path": self.path, "code": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class Assembled:
    """A data set's content.

    Attributes:
        table: Of :func:`gas.datasets.items.item_schema`, in the order of files and of media in them.
        rejected: What was set aside, in the same order.
        bytes: Of all media.
        content_hash: Of the table.
    """

    table: pa.Table
    rejected: tuple[Rejected, ...]
    bytes: int
    content_hash: str


def assemble(entry: DatasetEntry, records: Iterable[FileRecord]) -> Assembled:
    """Bring the files' rows into their order, drop copies, and cut at the entry's limits.

    Of media with the same bytes the first stays. Shots of a series share the smallest hash as their origin.

    Args:
        entry: Of the data set.
        records: Of its files, in any order.
    """
    rows: list[Row] = []
    rejected: list[Rejected] = []
    first: dict[str, str] = {}
    total = 0
    for record in sorted(records, key=lambda r: r.file.path):
        found_here: list[tuple[int, Row | Rejected]] = [(row.place, row) for row in map(Row._make, record.rows)]
        found_here += [(index, Rejected(path, code, message)) for index, path, code, message in record.rejected]
        for _, found in sorted(found_here, key=lambda pair: pair[0]):
            if _full(entry, len(rows), total):
                break
            if isinstance(found, Rejected):
                rejected.append(found)
            elif found.sha256 in first:
                rejected.append(Rejected(found.path, "duplicate", f"The same bytes as {first[found.sha256]}."))
            elif entry.max_bytes is not None and total + found.size > entry.max_bytes:
                total = entry.max_bytes
            else:
                first[found.sha256] = found.path
                total += found.size
                rows.append(found)
    table = _table(entry, rows)
    return Assembled(table, tuple(rejected), sum(row.size for row in rows), content_hash(table))


def content_hash(table: pa.Table) -> str:
    """Hex SHA-256 over the rows of a data set, whatever their order.

    Each row counts by the SHA-256 of the canonical JSON of the columns of ``HASHED``; the sorted digests are hashed.
    """
    columns = table.select(list(HASHED))
    encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True)
    digests: list[bytes] = []
    for batch in columns.to_batches(max_chunksize=_ROWS_AT_ONCE):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        digests += [hashlib.sha256(encoder.encode(row).encode()).digest() for row in rows]
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


class Filled:
    """Whether files, added in the order of their paths, fill the entry's limits already."""

    def __init__(self, entry: DatasetEntry) -> None:
        self._entry = entry
        self._seen: dict[str, int] = {}
        self._total = 0
        self.full = False

    def add(self, record: FileRecord) -> None:
        """The next file."""
        if self.full or (self._entry.max_items is None and self._entry.max_bytes is None):
            return
        for row in map(Row._make, record.rows):
            if row.sha256 not in self._seen:
                self._seen[row.sha256] = row.size
                self._total += row.size
        self.full = _full(self._entry, len(self._seen), self._total)


def _full(entry: DatasetEntry, count: int, size: int) -> bool:
    return (entry.max_items is not None and count >= entry.max_items) or (
        entry.max_bytes is not None and size >= entry.max_bytes
    )


def _table(entry: DatasetEntry, rows: Sequence[Row]) -> pa.Table:
    import pyarrow as pa

    origins = _origins(entry, rows)
    parts = [
        _part(entry, rows[start : start + _ROWS_AT_ONCE], origins[start : start + _ROWS_AT_ONCE])
        for start in range(0, len(rows), _ROWS_AT_ONCE)
    ]
    return pa.concat_tables(parts) if parts else item_schema().empty_table()


def _part(entry: DatasetEntry, rows: Sequence[Row], origins: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    constant: Mapping[str, str] = {
        "dataset": entry.name,
        "modality": entry.modality.value,
        "licence": entry.licence,
    }
    own = dict(zip(Row._fields, zip(*rows, strict=True), strict=True))
    columns: dict[str, Sequence[object]] = {}
    for name in item_schema().names:
        if name in constant:
            columns[name] = [constant[name]] * len(rows)
        elif name == "origin":
            columns[name] = origins
        elif name == "source":
            columns[name] = [source or entry.name for source in own[name]]
        else:
            columns[name] = own[name]
    return pa.table(columns, schema=item_schema())


def _origins(entry: DatasetEntry, rows: Sequence[Row]) -> list[str]:
    if not entry.series:
        return [row.origin or row.sha256 for row in rows]
    smallest: dict[str, str] = {}
    keys = [entry.series_of(row.path) for row in rows]
    for key, row in zip(keys, rows, strict=True):
        smallest[key] = min(smallest.get(key, row.sha256), row.sha256)
    return [row.origin or smallest[key] for key, row in zip(keys, rows, strict=True)]


def mixes_modalities(entry: DatasetEntry, columns: Mapping[str, object]) -> bool:
    """Whether a row of a shard is of another modality than the data set's."""
    named = columns.get("modality")
    return entry.source == "arena" and named is not None and named in set(Modality) and named != entry.modality
