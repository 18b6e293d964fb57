"""One page of a text column of a Parquet file, without the rest of its group of rows.

A group of rows may hold a million texts. Their column is stored in pages of about a megabyte, and each page can be
unpacked alone, given the group's dictionary page. Here the pages are found by their headers; to read one, a Parquet
file of that one page is put together in memory and handed to Arrow, which knows every codec and encoding.

Covered: metadata that lie or point outside, pages larger than allowed, columns that repeat or nest (refused).
Not covered: faults of the Parquet library itself.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from gas.datasets.formats.base import FormatLimits, broken
from gas.datasets.formats.pages import Chunk, CompactReader, Truncated, read_footer, read_page_header
from gas.errors import ConfigurationError, MediaRejected

__all__ = ["TEXT_LIMITS", "PageOfTexts", "read_texts", "text_column", "text_pages"]

TEXT_LIMITS: Final = FormatLimits(max_page_bytes=64 * 1024**2, max_footer_bytes=256 * 1024**2)
"""A page of texts takes a few megabytes; writers that put a whole group of rows into one page exist."""

_BYTE_ARRAY: Final = 6
_DICTIONARY_PAGE: Final = 2
_DATA_PAGES: Final = {0: 5, 3: 8}
_CODECS: Final = frozenset({0, 1, 2, 4, 6, 7})
_USUAL: Final = ("prompt", "text", "caption", "description", "sentence", "instruction", "title", "query")


@dataclass(frozen=True, slots=True)
class PageOfTexts:
    """Where a page lies and what it takes to read it.

    Attributes:
        offset: Of its header in the file.
        size: Bytes with the header.
        rows: Texts in it, nulls included.
        dictionary: Offset of its group's dictionary page; 0 for none.
        dictionary_size: Bytes of that, with its header.
        codec: Parquet's number of the compression.
        optional: Whether texts may be null.
    """

    offset: int
    size: int
    rows: int
    dictionary: int
    dictionary_size: int
    codec: int
    optional: bool


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A text column, as the footer declares it."""

    number: int
    name: str
    optional: bool


def text_column(file: IO[bytes], name: str, wanted: str = "") -> str:
    """Name of the column that holds the prompts.

    Args:
        file: A Parquet file.
        name: Its name, for messages.
        wanted: The column, if it is known; else one of a usual name, or the only text column.

    Raises:
        ConfigurationError: ``column_missing``, ``column_ambiguous``.
        MediaRejected: ``archive``: the file is damaged.
    """
    return _leaf(_footer(file, name), name, wanted).name


def text_pages(file: IO[bytes], name: str, column: str = "") -> Iterator[PageOfTexts]:
    """All pages of a column, in the order of the rows; reads the footer and one header a page.

    Args:
        file: A Parquet file that can seek.
        name: Its name, for messages.
        column: As in :func:`text_column`.

    Raises:
        ConfigurationError: There is no such column.
        MediaRejected: ``archive``: the file is damaged, or beyond a limit.
        OSError: The file can't be read.
    """
    footer = _footer(file, name)
    leaf = _leaf(footer, name, column)
    groups = read_footer(file, name, TEXT_LIMITS)
    codecs = [_codec(group, leaf, name) for group in footer.get(4, [])]
    end = file.seek(0, 2)
    for group, codec in zip(groups, codecs, strict=True):
        chunk = group.chunks[leaf.number]
        if group.rows:
            if chunk.values != group.rows or chunk.start < 4 or chunk.start + chunk.size > end:
                raise broken(name, "is a Parquet table whose metadata don't agree with each other")
            yield from _chunk_pages(file, chunk, codec, leaf.optional, name)


def read_texts(
    page: bytes, dictionary: bytes, about: PageOfTexts, name: str, row: int | None = None
) -> list[str | None]:
    """The texts of a page; bytes that are no UTF-8 come as U+FFFD, so that the quality gate sees them.

    Args:
        page: Its bytes, with the header.
        dictionary: Bytes of the dictionary page, with the header; empty for none.
        about: The page.
        name: Of the file, for messages.
        row: Only this one, counted from the page's first.

    Raises:
        MediaRejected: ``archive``: the page is damaged, or is not the one that was indexed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _same_page(page, about, name)
    try:
        table = pq.ParquetFile(pa.BufferReader(_one_page_file(page, dictionary, about)), pre_buffer=False)
        column = table.read(use_threads=False).column(0)
        values = column.to_pylist() if row is None else [column[row].as_py()]
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:
        raise broken(name, "is a Parquet table with a damaged page") from error
    return [None if value is None else bytes(value).decode("utf-8", "replace") for value in values]


def _chunk_pages(file: IO[bytes], chunk: Chunk, codec: int, optional: bool, name: str) -> Iterator[PageOfTexts]:
    at, stop, found = chunk.start, chunk.start + chunk.size, 0
    dictionary = dictionary_size = 0
    while at < stop and found < chunk.values:
        header, length = read_page_header(file, at, stop, name)
        kind, unpacked, packed = (header.get(number) for number in (1, 2, 3))
        if not isinstance(packed, int) or not isinstance(unpacked, int) or packed < 0 or at + length + packed > stop:
            raise broken(name, "is a Parquet table with a damaged page")
        if max(packed, unpacked) > TEXT_LIMITS.max_page_bytes:
            raise broken(name, f"is a Parquet table with a page of {max(packed, unpacked):,} bytes; too many")
        if kind == _DICTIONARY_PAGE:
            dictionary, dictionary_size = at, length + packed
        elif kind in _DATA_PAGES:
            rows = _rows_of(header)
            if rows <= 0 or found + rows > chunk.values:
                raise broken(name, "is a Parquet table with a damaged page")
            yield PageOfTexts(at, length + packed, rows, dictionary, dictionary_size, codec, optional)
            found += rows
        at += length + packed
    if found != chunk.values:
        raise broken(name, "is a Parquet table whose pages don't hold the values that it promises")


def _rows_of(header: dict[int, Any]) -> int:
    inner = header.get(_DATA_PAGES[header[1]])
    rows = inner.get(1) if isinstance(inner, dict) else None
    return rows if isinstance(rows, int) and not isinstance(rows, bool) else 0


def _same_page(page: bytes, about: PageOfTexts, name: str) -> None:
    """The file may be another than when it was indexed: what is read now has to be what was looked at then."""
    header, length = read_page_header(io.BytesIO(page), 0, len(page), name)
    unpacked = header.get(2)
    good = header.get(1) in _DATA_PAGES and _rows_of(header) == about.rows and header.get(3) == len(page) - length
    if not good or not isinstance(unpacked, int) or not 0 <= unpacked <= TEXT_LIMITS.max_page_bytes:
        raise MediaRejected(f"{name} is another file than the one that was indexed.", code="archive")


def _footer(file: IO[bytes], name: str) -> dict[int, Any]:
    """The whole metadata, after :func:`read_footer` has found them sound."""
    read_footer(file, name, TEXT_LIMITS)
    end = file.seek(-8, 2)
    (size,) = struct.unpack("<I", file.read(4))
    file.seek(end - size)
    try:
        return CompactReader(file.read(size)).fields(0)
    except (Truncated, ValueError) as error:
        raise broken(name, "is a Parquet table whose metadata can't be read") from error


def _leaf(footer: dict[int, Any], name: str, wanted: str) -> _Leaf:
    """The column among the leaves; only those directly below the root that hold bytes and don't repeat."""
    schema = footer[2]
    leaves: list[_Leaf] = []
    number, at = 0, 1
    while at < len(schema):
        element = schema[at]
        children = int(element.get(5, 0))
        if children:
            at, skipped = _after(schema, at)
            number += skipped
            continue
        if element.get(1) == _BYTE_ARRAY and element.get(3, 0) in (0, 1):
            leaves.append(_Leaf(number, element[4].decode("utf-8", "backslashreplace"), element.get(3) == 1))
        number, at = number + 1, at + 1
    named = [leaf for leaf in leaves if leaf.name == wanted] if wanted else leaves
    if not wanted and len(named) > 1:
        usual = [leaf for word in _USUAL for leaf in leaves if leaf.name.lower() == word]
        named = usual[:1] or named
    if len(named) == 1:
        return named[0]
    there = ", ".join(ascii(leaf.name[:60]) for leaf in leaves[:40]) or "none"
    if not named:
        which = f"no text column {wanted[:60]!a}" if wanted else "no text column"
        raise ConfigurationError(f"{name} has {which}.", code="column_missing", hint=f"Its text columns: {there}.")
    raise ConfigurationError(
        f"{name} has several text columns.", code="column_ambiguous", hint=f"Name one with --column: {there}."
    )


def _after(schema: list[Any], at: int) -> tuple[int, int]:
    """Past an element with everything below it, and how many leaves that were."""
    left, leaves = 1, 0
    while left:
        children = int(schema[at].get(5, 0))
        leaves += children == 0
        left += children - 1
        at += 1
    return at, leaves


def _codec(group: dict[int, Any], leaf: _Leaf, name: str) -> int:
    codec = group[1][leaf.number][3].get(4)
    if codec not in _CODECS:
        raise broken(name, "is a Parquet table with an unknown compression")
    return int(codec)


def _one_page_file(page: bytes, dictionary: bytes, about: PageOfTexts) -> bytes:
    """A Parquet file of one column and one group of rows, with exactly these pages."""
    start = 4 + len(dictionary)
    size = len(dictionary) + len(page)
    meta: list[tuple[int, Any]] = [
        (1, _BYTE_ARRAY),
        (2, [0, 3, 8]),
        (3, [b"p"]),
        (4, about.codec),
        (5, _Long(about.rows)),
        (6, _Long(size)),
        (7, _Long(size)),
        (9, _Long(start)),
    ]
    if dictionary:
        meta.append((11, _Long(4)))
    schema = [[(4, b"s"), (5, 1)], [(1, _BYTE_ARRAY), (3, int(about.optional)), (4, b"p")]]
    group = [(1, [[(2, _Long(start)), (3, meta)]]), (2, _Long(size)), (3, _Long(about.rows))]
    footer = _struct([(1, 2), (2, schema), (3, _Long(about.rows)), (4, [group])])
    return b"".join([b"PAR1", dictionary, page, footer, struct.pack("<I", len(footer)), b"PAR1"])


class _Long(int):
    """A number that Thrift writes as ``i64``."""


def _struct(fields: list[tuple[int, Any]]) -> bytes:
    """A struct in Thrift's compact protocol: numbers, byte strings, and lists of these or of structs."""
    out, before = bytearray(), 0
    for number, value in fields:
        out.append((number - before) << 4 | _kind(value))
        out += _value(value)
        before = number
    return bytes(out) + b"\x00"


def _kind(value: Any) -> int:
    if isinstance(value, int):
        return 6 if isinstance(value, _Long) else 5
    if isinstance(value, bytes):
        return 8
    return 12 if value and isinstance(value[0], tuple) else 9


def _value(value: Any) -> bytes:
    if isinstance(value, int):
        return _varint(value << 1)
    if isinstance(value, bytes):
        return _varint(len(value)) + value
    if _kind(value) == 12:
        return _struct(value)
    return bytes([len(value) << 4 | _kind(value[0])]) + b"".join(map(_value, value))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
