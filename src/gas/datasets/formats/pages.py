"""The shape of a Parquet file, looked at before Arrow reads it: how deep, how large, how often repeated.

Metadata are read here and not asked of Arrow, whose accessors end the process when some of them are damaged. Arrow
unpacks a page as a whole, to the size that the page's own header declares, and a dictionary or a prefix that
is referred to a million times becomes a million copies. So headers of pages are walked first; a page costs one seek.
The format: parquet.thrift of Apache Parquet, in Thrift's compact protocol.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO, Any, Final

from gas.datasets.formats.base import FormatLimits, broken
from gas.errors import MediaRejected

__all__ = [
    "Chunk",
    "ChunkShape",
    "CompactReader",
    "Group",
    "Truncated",
    "check_pages",
    "read_footer",
    "read_page_header",
]

_MAGIC: Final = b"PAR1"
_MAX_DEPTH: Final = 32
_MAX_COLUMNS: Final = 10_000
_MAX_ELEMENTS: Final = 100_000
_MAX_VALUES: Final = 4_000_000
_MAX_NAME: Final = 1024
_REPEATED: Final = 2
_MAX_FIELD: Final = 1000
_FIRST_LOOK: Final = 4096
_MAX_PAGE_HEADER: Final = 16 << 20
_DICTIONARY_PAGE: Final = 2
_DATA_PAGES: Final = (0, 3)
_DELTA_BYTE_ARRAY: Final = 7
_STRUCT: Final = 12
_LISTS: Final = (9, 10)
_MAP: Final = 11


class Truncated(Exception):
    """The bytes end in the middle of a value."""


class CompactReader:
    """Thrift's compact protocol, as far as Parquet's headers need it.

    Args:
        data: Bytes that begin with a struct; untrusted.

    Attributes:
        at: How many of them have been read.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self._left = _MAX_VALUES

    def _byte(self) -> int:
        if self.at >= len(self.data):
            raise Truncated
        self.at += 1
        return self.data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def fields(self, depth: int) -> dict[int, Any]:
        """Fields of a struct up to its end: numbers, short texts, lists and structs; the rest is passed over.

        Args:
            depth: How deep the struct lies in others; 0 for the outermost.

        Raises:
            Truncated: The bytes end before the struct does.
            ValueError: They are no such struct, or one beyond the limits.
        """
        if depth > _MAX_DEPTH:
            raise ValueError
        out: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            kind = header & 0x0F
            number = number + (header >> 4) if header >> 4 else self._zigzag()
            if not 0 < number < _MAX_FIELD:
                raise ValueError
            if kind in (1, 2):
                out[number] = kind == 1
            else:
                out[number] = self._value(kind, depth)
        return out

    def _value(self, kind: int, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            self._skip(8)
        elif kind == 8:
            size = self._varint()
            self._skip(size)
            return self.data[self.at - size : self.at] if size <= _MAX_NAME else b""
        elif kind in _LISTS:
            return self._items(depth)
        elif kind == _MAP:
            count = self._varint()
            kinds = self._byte() if count else 0
            for _ in range(count):
                self._value(kinds >> 4, depth + 1)
                self._value(kinds & 0x0F, depth + 1)
        elif kind == _STRUCT:
            return self.fields(depth + 1)
        else:
            raise ValueError
        return None

    def _items(self, depth: int) -> list[Any]:
        head = self._byte()
        count = head >> 4 if head >> 4 != 15 else self._varint()
        if depth > _MAX_DEPTH or count > _MAX_ELEMENTS:
            raise ValueError
        return [self._value(head & 0x0F, depth + 1) for _ in range(count)]

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self.data):
            raise Truncated


@dataclass(frozen=True, slots=True)
class ChunkShape:
    """What the pages of one column of one group of rows declare.

    Attributes:
        values: In all pages together.
        largest_page: Unpacked bytes.
        largest_shared: Unpacked bytes of the largest page whose content may be repeated by reference: one value of
            the column can be as large as this, and every row can have it.
    """

    values: int
    largest_page: int
    largest_shared: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """One column of one group of rows, as the metadata declare it.

    Attributes:
        column: Name of the table's column that it belongs to.
        repeats: Whether a row may hold many of its values.
        start: Where its first page begins.
        size: Bytes of its pages, packed.
        unpacked: Bytes of its pages, unpacked.
        values: How many values.
    """

    column: str
    repeats: bool
    start: int
    size: int
    unpacked: int
    values: int


@dataclass(frozen=True, slots=True)
class Group:
    """One group of rows."""

    rows: int
    chunks: tuple[Chunk, ...]


def read_footer(file: IO[bytes], name: str, limits: FormatLimits) -> tuple[Group, ...]:
    """Groups of rows and their columns, out of a Parquet file's metadata.

    Raises:
        MediaRejected: ``archive``: the metadata are cut off, encrypted, too large, nested too deeply, or don't agree
            with each other.
        OSError: The file can't be read.
    """
    end = file.seek(0, 2)
    file.seek(max(0, end - 8))
    tail = file.read(8)
    if len(tail) < 8 or tail[4:] != _MAGIC or end < 12:
        raise broken(name, "is a Parquet table that is cut off or encrypted")
    (size,) = struct.unpack("<I", tail[:4])
    if size > limits.max_footer_bytes or size > end - 12:
        raise broken(name, "is a Parquet table whose metadata are larger than allowed")
    file.seek(end - 8 - size)
    try:
        footer = CompactReader(file.read(size)).fields(0)
    except (Truncated, ValueError) as error:
        raise broken(name, "is a Parquet table whose metadata can't be read") from error
    schema = footer.get(2)
    if not isinstance(schema, list) or not 0 < len(schema) <= _MAX_COLUMNS:
        raise broken(name, "is a Parquet table with more columns than allowed, or none")
    leaves = _leaves(schema, name)
    groups = footer.get(4, [])
    if not isinstance(groups, list):
        raise _confused(name)
    return tuple(_group(group, leaves, name) for group in groups)


def _leaves(schema: list[Any], name: str) -> list[tuple[str, bool]]:
    """For each leaf of a schema the top column that it belongs to, and whether it repeats.

    A schema is a tree, written as a flat list of elements that say how many children follow them.
    """
    found: list[tuple[str, bool]] = []
    # For each open element: how many children are still to come, and whether it or one above it repeats.
    above: list[tuple[int, bool]] = []
    top = ""
    for number, element in enumerate(schema):
        if not isinstance(element, dict) or (number > 0 and not above):
            raise _confused(name)
        children, title = element.get(5, 0), element.get(4, b"")
        if not isinstance(children, int) or not isinstance(title, bytes) or children < 0:
            raise _confused(name)
        repeats = False
        if above:
            left, repeats = above[-1]
            above[-1] = (left - 1, repeats)
            repeats = repeats or element.get(3) == _REPEATED
        if len(above) == 1:
            top = title.decode("utf-8", "backslashreplace")
        if children > 0 or number == 0:
            above.append((children, repeats))
            if len(above) > _MAX_DEPTH:
                raise broken(name, "is a Parquet table with deeper columns than allowed")
        else:
            found.append((top, repeats))
        while above and above[-1][0] <= 0:
            above.pop()
    if above:
        raise _confused(name)
    return found


def _group(group: Any, leaves: list[tuple[str, bool]], name: str) -> Group:
    chunks = group.get(1) if isinstance(group, dict) else None
    if not isinstance(chunks, list) or len(chunks) != len(leaves):
        raise _confused(name)
    found = []
    for chunk, (column, repeats) in zip(chunks, leaves, strict=True):
        about = chunk.get(3) if isinstance(chunk, dict) else None
        if not isinstance(about, dict):
            raise _confused(name)
        if chunk.get(1) or 8 in chunk or 9 in chunk:
            raise broken(name, "is a Parquet table with columns in other files, or encrypted ones")
        values, unpacked, size, start = (_number(about.get(number), name) for number in (5, 6, 7, 9))
        dictionary = about.get(11)
        if isinstance(dictionary, int) and 0 < dictionary < start:
            start = dictionary
        found.append(Chunk(column, repeats, start, size, unpacked, values))
    return Group(_number(group.get(3), name), tuple(found))


def _number(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise _confused(name)
    return value


def _confused(name: str) -> MediaRejected:
    return broken(name, "is a Parquet table whose metadata don't agree with each other")


def check_pages(file: IO[bytes], chunk: Chunk, name: str, limits: FormatLimits) -> ChunkShape:
    """Walk the headers of one column's pages in one group of rows.

    Args:
        file: The Parquet file.
        chunk: The column in its group of rows.
        name: For messages.
        limits: ``max_page_bytes``.

    Raises:
        MediaRejected: ``archive``: headers that can't be read, or pages larger than allowed.
        OSError: The file can't be read.
    """
    end = file.seek(0, 2)
    start, size, values = chunk.start, chunk.size, chunk.values
    if start < 4 or start + size > end:
        raise broken(name, "is a Parquet table whose metadata point outside of it")
    found = largest = shared = 0
    at, stop = start, start + size
    while at < stop and found < values:
        header, length = read_page_header(file, at, stop, name)
        kind, unpacked, packed = (_whole(header.get(number), name) for number in (1, 2, 3))
        if unpacked > limits.max_page_bytes:
            raise broken(name, f"is a Parquet table with a page of {unpacked:,} bytes; too many")
        at += length + packed
        if at > stop:
            raise broken(name, "is a Parquet table with a page that leaves its column")
        largest = max(largest, unpacked)
        if kind == _DICTIONARY_PAGE:
            shared = max(shared, unpacked)
        elif kind in _DATA_PAGES:
            inner = header.get(5 if kind == 0 else 8)
            if not isinstance(inner, dict):
                raise broken(name, "is a Parquet table with a damaged page")
            found += _whole(inner.get(1), name)
            if inner.get(2 if kind == 0 else 4) == _DELTA_BYTE_ARRAY:
                shared = max(shared, unpacked)
    if found != values:
        raise broken(name, "is a Parquet table whose pages don't hold the values that it promises")
    return ChunkShape(found, largest, shared)


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, int) or value < 0:
        raise broken(name, "is a Parquet table with a damaged page")
    return value


def read_page_header(file: IO[bytes], at: int, stop: int, name: str) -> tuple[dict[int, Any], int]:
    """The header of a page, by the numbers of its fields, and its length.

    Args:
        file: A Parquet file; its position is moved.
        at: Where the page begins, bytes.
        stop: Where its column ends, bytes.
        name: Of the file, for errors.

    Raises:
        MediaRejected: There is no page header, or a damaged one.
    """
    look = _FIRST_LOOK
    while True:
        file.seek(at)
        data = file.read(min(look, stop - at))
        reader = CompactReader(data)
        try:
            return reader.fields(0), reader.at
        except ValueError as error:
            raise broken(name, "is a Parquet table with a damaged page") from error
        except Truncated as error:
            if len(data) < look or look >= _MAX_PAGE_HEADER:
                raise broken(name, "is a Parquet table with a damaged page") from error
            look *= 16
