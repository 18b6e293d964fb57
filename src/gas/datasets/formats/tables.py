"""Media out of Parquet tables, group of rows by group of rows, in batches that fit into memory.

Covered: pages and values larger than allowed, values that are repeated by reference, rows that hold millions of
values, metadata that lie, deep schemas, damaged pages (their group of rows is set aside, and reading goes on).
Not covered: faults of the Parquet library itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from gas.datasets.formats.base import FormatLimits, RawItem, Wanted, broken, clean_label, set_aside
from gas.datasets.formats.magic import is_container
from gas.datasets.formats.pages import Group, check_pages, read_footer
from gas.errors import ConfigurationError, MediaRejected
from gas.types import Modality

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["read_table"]

_MAX_ROWS_A_BATCH: Final = 256
_MAX_TEXT: Final = 4096
_MAX_STRINGS: Final = 16 << 20
_MAX_CONTAINERS: Final = 1_000_000
_MAX_CLASSES: Final = 1 << 20
_COMMON_NAMES: Final = ("bytes", "data", "content", "file", "media")
_NAMES: Final = {
    Modality.IMAGE: ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp"),
    Modality.VIDEO: ("video", "mp4", "clip", "webm"),
    Modality.AUDIO: ("audio", "wav", "mp3", "flac", "speech", "sound"),
}


@dataclass(frozen=True, slots=True)
class _Column:
    """A column that holds media or masks.

    Attributes:
        name: Its name.
        is_list: Whether a row holds many.
        is_struct: Whether each is a pair of bytes and path.
    """

    name: str
    is_list: bool
    is_struct: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which columns are read, and how."""

    media: tuple[_Column, ...]
    mask: _Column | None
    texts: tuple[str, ...]
    classes: dict[str, tuple[str, ...]]

    @property
    def columns(self) -> list[str]:
        names = [column.name for column in self.media] + ([self.mask.name] if self.mask else []) + list(self.texts)
        return list(dict.fromkeys(names))


def read_table(file: Path, name: str, wanted: Wanted, limits: FormatLimits) -> Iterator[RawItem]:
    """The media of a Parquet table, by row and column.

    Raises:
        MediaRejected: ``archive``: broken as a whole, or beyond a limit.
        ConfigurationError: ``column_missing``, ``column_ambiguous``.
        OSError: The file can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with file.open("rb") as raw:
        groups = read_footer(raw, name, limits)
        try:
            # One thread and no read-ahead: what is in memory is one page a column and one batch.
            table = pq.ParquetFile(
                raw,
                pre_buffer=False,
                buffer_size=1 << 20,
                page_checksum_verification=True,
                thrift_string_size_limit=_MAX_STRINGS,
                thrift_container_size_limit=_MAX_CONTAINERS,
            )
            schema = table.schema_arrow
        except (pa.ArrowException, OSError, ValueError) as error:
            raise broken(name, "is a Parquet table whose metadata can't be read") from error
        plan = _plan(schema, wanted, name)
        row = 0
        for number, group in enumerate(groups):
            if group.rows == 0:
                continue
            with file.open("rb") as pages:
                yield from _Group(table, pages, number, group, row, name, wanted, limits).items(plan)
            row += group.rows


class _Group:
    """One group of rows."""

    def __init__(
        self,
        table: pq.ParquetFile,
        pages: IO[bytes],
        number: int,
        group: Group,
        first: int,
        name: str,
        wanted: Wanted,
        limits: FormatLimits,
    ) -> None:
        self._table = table
        self._pages = pages
        self._number = number
        self._group = group
        self._first = first
        self._name = name
        self._wanted = wanted
        self._limits = limits
        self._rows = group.rows

    def items(self, plan: _Plan) -> Iterator[RawItem]:
        """Media of the wanted rows; one item in place of all when a page is damaged."""
        import pyarrow as pa

        row = self._first
        try:
            keep = self._filter(plan)
            if keep is not None and not any(keep):
                return
            batches = self._batches(plan.columns)
            for batch in batches:
                yield from self._of_batch(batch, row, plan, keep)
                row += batch.num_rows
        except MediaRejected as error:
            yield self._lost(row, error.message)
        except (pa.ArrowException, OSError, ValueError, IndexError, UnicodeDecodeError):
            yield self._lost(row, "A page of the table is damaged.")

    def _lost(self, row: int, why: str) -> RawItem:
        last = self._first + self._rows - 1
        return set_aside(f"{self._name}#{row}-{last}", "rows_damaged", f"Rows {row} to {last} can't be read. {why}")

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        size = self._batch_rows(columns)
        batches: Iterator[pa.RecordBatch] = self._table.iter_batches(
            batch_size=size, row_groups=[self._number], columns=columns, use_threads=False
        )
        return batches

    def _batch_rows(self, columns: list[str]) -> int:
        """How many rows fit into a batch, after a look at every page that will be unpacked."""
        most = 1
        for chunk in self._group.chunks:
            if chunk.column not in columns:
                continue
            shape = check_pages(self._pages, chunk, self._name, self._limits)
            if chunk.repeats and shape.values > self._limits.max_values:
                raise broken(self._name, "is a Parquet table with more values in its rows than allowed")
            if not chunk.repeats and shape.values != self._rows:
                raise broken(self._name, "is a Parquet table whose columns have unequal lengths")
            most = max(most, chunk.unpacked // self._rows, shape.largest_shared)
        return max(1, min(_MAX_ROWS_A_BATCH, self._limits.batch_bytes // most))

    def _filter(self, plan: _Plan) -> list[bool] | None:
        """For each row of the group whether it is wanted; read before the media, which may then be left alone."""
        column = self._wanted.filter_column
        if not column:
            return None
        values = frozenset(self._wanted.filter_values)
        keep: list[bool] = []
        for batch in self._batches([column]):
            for value in _decoded(batch.column(0)).to_pylist():
                texts = {str(value), _text(value, plan.classes.get(column))}
                keep.append(not values.isdisjoint(texts | {str(value).lower()} if isinstance(value, bool) else texts))
        return keep

    def _of_batch(self, batch: pa.RecordBatch, first: int, plan: _Plan, keep: list[bool] | None) -> Iterator[RawItem]:
        columns = {name: _decoded(batch.column(name)) for name in plan.columns}
        for at in range(batch.num_rows):
            row = first + at
            if keep is not None and not keep[row - self._first]:
                continue
            texts = {
                name: _text(value, plan.classes.get(name))
                for name in plan.texts
                if (value := columns[name][at].as_py()) is not None
            }
            masks = list(_cells(columns[plan.mask.name][at], plan.mask)) if plan.mask else []
            for medium in plan.media:
                cells = list(_cells(columns[medium.name][at], medium))
                for number, (cell, label) in enumerate(cells):
                    path = f"{self._name}#{row}:{clean_label(medium.name)}" + (f"[{number}]" if medium.is_list else "")
                    # A list of masks goes with a list of media; a single one with whatever the row holds.
                    at_mask = number if plan.mask is not None and plan.mask.is_list else 0
                    mask = masks[at_mask][0] if at_mask < len(masks) else None
                    yield self._item(path, cell, label, mask, texts)

    def _item(self, path: str, cell: Any, label: str, mask: Any, texts: dict[str, str]) -> RawItem:
        most = self._limits.max_item_bytes
        if cell is None and label:
            return set_aside(path, "outside", f"The table holds only the path {label[:80]!a}, not the bytes.")
        if cell is None or cell.size == 0:
            return set_aside(path, "empty", "It has no bytes.")
        if cell.size > most or (mask is not None and mask.size > most):
            return set_aside(path, "too_large", f"It or its mask has more than the allowed {most:,} bytes.")
        data = cell.to_pybytes()
        if is_container(data[:512]):
            return set_aside(path, "nested_archive", "It is an archive or something compressed, not a medium.")
        return RawItem(path, data, texts, mask.to_pybytes() if mask is not None and mask.size else None)


def _plan(schema: pa.Schema, wanted: Wanted, name: str) -> _Plan:
    """Find the columns that are asked for.

    Raises:
        ConfigurationError: One isn't there, can't hold media, or several could be meant.
    """
    shapes = [_column(field.name, field.type) for field in schema]
    media = {shape.name: shape for shape in shapes if shape is not None}
    asked = [*wanted.data_columns, *wanted.text_columns]
    asked += [column for column in (wanted.mask_column, wanted.filter_column) if column]
    there = ", ".join(ascii(column[:60]) for column in schema.names[:50])
    for column in asked:
        if schema.names.count(column) != 1:
            raise ConfigurationError(
                f"{clean_label(name)} has no column {column[:60]!a}.",
                code="column_missing",
                hint=f"Its columns are {there}.",
            )
    for column in (*wanted.data_columns, *((wanted.mask_column,) if wanted.mask_column else ())):
        if column not in media:
            kind = str(schema.field(column).type)[:80]
            raise ConfigurationError(
                f"The column {column[:60]!a} of {clean_label(name)} holds {kind}, not bytes.",
                code="column_missing",
                hint=f"Columns with bytes are {', '.join(ascii(found[:60]) for found in media) or 'none'}.",
            )
    chosen = wanted.data_columns or (_guess(media, wanted, name, there),)
    texts = tuple(dict.fromkeys(wanted.text_columns))
    return _Plan(
        tuple(media[column] for column in chosen),
        media[wanted.mask_column] if wanted.mask_column else None,
        texts,
        _classes(schema, {*texts, wanted.filter_column}),
    )


def _guess(media: dict[str, _Column], wanted: Wanted, name: str, there: str) -> str:
    """The one column that can be meant."""
    found = [column for column in media if column not in (wanted.mask_column, wanted.filter_column)]
    if len(found) > 1:
        usual = _NAMES[wanted.modality] if wanted.modality else sum(_NAMES.values(), ())
        for names in (usual, _COMMON_NAMES):
            named = [column for column in found if column.lower().rpartition(".")[2] in names]
            if named:
                found = named
                break
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigurationError(
            f"{clean_label(name)} has no column that holds media.",
            code="column_missing",
            hint=f"Its columns are {there}.",
        )
    raise ConfigurationError(
        f"{clean_label(name)} has several columns that may hold media: {', '.join(ascii(f[:60]) for f in found)}.",
        code="column_ambiguous",
        hint="Name the ones that are meant in data_columns.",
    )


def _column(name: str, kind: pa.DataType) -> _Column | None:
    """How a column holds media; None when it doesn't."""
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    inner = kind.value_type if is_list else kind
    if _is_bytes(inner):
        return _Column(name, is_list, False)
    if pa.types.is_struct(inner):
        index = inner.get_field_index("bytes")
        if index >= 0 and _is_bytes(inner.field(index).type):
            return _Column(name, is_list, True)
    return None


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _decoded(column: pa.Array) -> pa.Array:
    import pyarrow as pa

    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _cells(value: pa.Scalar, column: _Column) -> Iterator[tuple[Any, str]]:
    """Buffers and paths that one cell holds; a missing medium is a pair of None and its path."""
    values = [] if column.is_list else [value]
    if column.is_list and value.is_valid:
        values = [value.values[at] for at in range(len(value.values))]
    for one in values:
        if column.is_struct:
            if not one.is_valid:
                yield None, ""
                continue
            names = {field.name for field in one.type}
            path = one["path"].as_py() if "path" in names else None
            yield one["bytes"].as_buffer() if one["bytes"].is_valid else None, str(path or "")
        else:
            yield one.as_buffer() if one.is_valid else None, ""


def _text(value: Any, classes: tuple[str, ...] | None) -> str:
    """A value as text; the name of a class in place of its number."""
    if classes is not None and isinstance(value, int) and 0 <= value < len(classes):
        return classes[value]
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return text[:_MAX_TEXT]


def _classes(schema: pa.Schema, columns: set[str]) -> dict[str, tuple[str, ...]]:
    """Names of classes that Hugging Face's ``datasets`` leaves in a table's metadata."""
    raw = (schema.metadata or {}).get(b"huggingface", b"")
    if not raw or len(raw) > _MAX_CLASSES:
        return {}
    try:
        features = json.loads(raw)["info"]["features"]
        return {
            column: tuple(str(label) for label in features[column]["names"])
            for column in columns
            if column in features and isinstance(features[column].get("names"), list)
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
