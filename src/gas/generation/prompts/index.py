"""An index over files of any size: any row of 10^8 is read by its number, and nothing is loaded.

A file of texts is cut into blocks: pages of a Parquet column, or some 64 KiB of lines. The index holds 48 bytes a
block and is mapped into memory, so a draw is a binary search, one read of one block (and of its dictionary), and one
text out of it. Building it reads the footers and page headers of Parquet files, and text files once from end to end.

The index file: a magic word, the records of all blocks, a JSON object about the files, its length, the magic word.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np

from gas.errors import ConfigurationError, MediaRejected, StorageError
from gas.generation.prompts.columns import PageOfTexts, read_texts, text_column, text_pages

__all__ = ["IndexedFile", "LocalPieces", "Pieces", "PromptIndex", "build_index"]

_MAGIC: Final = b"GASPRIX1"
_RECORD: Final = np.dtype(
    [
        ("first", "<u8"),
        ("offset", "<u8"),
        ("dictionary", "<u8"),
        ("size", "<u4"),
        ("dictionary_size", "<u4"),
        ("rows", "<u4"),
        ("file", "<u4"),
        ("codec", "u1"),
        ("optional", "u1"),
        ("spare", "<u2"),
        ("spare2", "<u4"),
    ]
)
_MAX_ABOUT: Final = 256 * 1024**2
_BLOCK: Final = 64 * 1024
_CHUNK: Final = 1024 * 1024
_MAX_LINE: Final = 1024 * 1024
_DRAWS: Final = 100


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file under an index.

    Attributes:
        path: On this machine, or its address on the web.
        size: Bytes.
        version: Changes when the file does: the time of its last change, or a hash.
        kind: ``parquet`` or ``text``.
        column: Of a Parquet file.
    """

    path: str
    size: int
    version: str
    kind: str
    column: str = ""


class Pieces(Protocol):
    """Where the bytes of a file come from."""

    def describe(self, path: str) -> tuple[int, str]:
        """Size in bytes and version of a file.

        Raises:
            gas.errors.ConfigurationError: There is none.
        """
        ...

    def open(self, path: str) -> IO[bytes]:
        """The file for reading and seeking."""
        ...

    def read(self, file: IndexedFile, offset: int, size: int) -> bytes:
        """Exactly these bytes.

        Raises:
            gas.errors.ConfigurationError: ``index_stale``: the file is another than when it was indexed.
            gas.errors.InfrastructureError: They can't be had.
        """
        ...


class LocalPieces:
    """Files of this machine."""

    def describe(self, path: str) -> tuple[int, str]:
        """See :meth:`Pieces.describe`."""
        try:
            status = Path(path).stat()
        except OSError as error:
            raise ConfigurationError(f"{path} can't be read ({error.strerror}).", code="file_missing") from error
        return status.st_size, str(status.st_mtime_ns)

    def open(self, path: str) -> IO[bytes]:
        """See :meth:`Pieces.open`."""
        try:
            return Path(path).open("rb")
        except OSError as error:
            raise ConfigurationError(f"{path} can't be read ({error.strerror}).", code="file_missing") from error

    def read(self, file: IndexedFile, offset: int, size: int) -> bytes:
        """See :meth:`Pieces.read`."""
        try:
            with Path(file.path).open("rb") as raw:
                status = os.fstat(raw.fileno())
                if (status.st_size, str(status.st_mtime_ns)) != (file.size, file.version):
                    raise _stale(file.path)
                data = os.pread(raw.fileno(), size, offset)
        except OSError as error:
            raise ConfigurationError(f"{file.path} can't be read ({error.strerror}).", code="file_missing") from error
        if len(data) != size:
            raise _stale(file.path)
        return data


def build_index(
    paths: Iterable[str],
    target: Path,
    *,
    column: str = "",
    pieces: Pieces | None = None,
    on_progress: Callable[[str, int], None] | None = None,
) -> PromptIndex:
    """Index files; in bounded memory, whatever their size.

    Args:
        paths: Parquet files (by their content), and files with one text a line otherwise. The same one may be named
            again.
        target: Where the index goes; replaced in one step when it is complete.
        column: Of Parquet files; found by its name when empty.
        pieces: Where the bytes come from; this machine when left out.
        on_progress: Told each file's path and the rows so far, after each file.

    Raises:
        ConfigurationError: A file is missing, has no such column, or has a line above 1 MiB; there is no file.
        MediaRejected: ``archive``: a Parquet file is damaged.
        StorageError: The index can't be written.
    """
    origin = pieces or LocalPieces()
    files: list[IndexedFile] = []
    aside = target.with_name(f"{target.name}.new")
    rows = blocks = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as out:
            out.write(_MAGIC)
            for path in paths:
                size, version = origin.describe(path)
                with origin.open(path) as raw:
                    kind = "parquet" if raw.read(4) == b"PAR1" else "text"
                    name = Path(path).name
                    found = text_column(raw, name, column) if kind == "parquet" else ""
                    files.append(IndexedFile(path, size, version, kind, found))
                    pages = text_pages(raw, name, found) if kind == "parquet" else _line_blocks(raw, name)
                    for page in pages:
                        out.write(_record(page, rows, len(files) - 1))
                        rows, blocks = rows + page.rows, blocks + 1
                if on_progress is not None:
                    on_progress(path, rows)
            about = json.dumps({"version": 1, "rows": rows, "blocks": blocks, "files": [asdict(f) for f in files]})
            encoded = about.encode("utf-8", "surrogateescape")
            out.write(encoded + struct.pack("<Q", len(encoded)) + _MAGIC)
        if not rows:
            raise ConfigurationError("The files hold no text.", code="no_prompts")
        aside.replace(target)
    except OSError as error:
        raise StorageError(f"The index could not be written ({error.strerror}).") from error
    finally:
        aside.unlink(missing_ok=True)
    return PromptIndex(target, origin)


class PromptIndex:
    """A finished index.

    Args:
        path: Its file.
        pieces: Where the bytes of the files come from; this machine when left out.

    Raises:
        ConfigurationError: ``index_broken``: there is no such index, or it is damaged.
    """

    def __init__(self, path: Path, pieces: Pieces | None = None) -> None:
        self._pieces = pieces or LocalPieces()
        try:
            about, self._records = _open(path)
            self.files = tuple(IndexedFile(**file) for file in about["files"])
            self.rows = int(about["rows"])
            _check(self._records, self.rows, len(self.files))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{path} is no index of prompts, or a damaged one.",
                code="index_broken",
                hint="Make it anew: gascli v prompts index FILES --out INDEX.",
            ) from error

    def __len__(self) -> int:
        return self.rows

    @property
    def blocks(self) -> int:
        """How many pieces the files are cut into."""
        return len(self._records)

    def at(self, row: int) -> str | None:
        """The text of a row, counted over all files from 0; None where a table holds null.

        Raises:
            IndexError: There is no such row.
            ConfigurationError: ``index_stale``, ``file_missing``.
            MediaRejected: ``archive``: the block is damaged.
        """
        if not 0 <= row < self.rows:
            raise IndexError(row)
        block = int(np.searchsorted(self._records["first"], row, side="right")) - 1
        record = self._records[block]
        return self._texts(record, row - int(record["first"]))[0]

    def draw(self, rng: np.random.Generator) -> str:
        """A text at random, each row equally likely; rows without a text are passed over.

        Raises:
            ConfigurationError: A hundred rows in a row hold none; or as :meth:`at`.
        """
        for _ in range(_DRAWS):
            text = self.at(int(rng.integers(self.rows)))
            if text is not None and text.strip():
                return text
        raise ConfigurationError("The files hold hardly any text.", code="no_prompts", hint="Is it the right column?")

    def stream(self) -> Iterator[str]:
        """All texts in their order, one block in memory at a time."""
        for record in self._records:
            yield from (text for text in self._texts(record) if text is not None)

    def _texts(self, record: Any, row: int | None = None) -> list[str | None]:
        file = self.files[int(record["file"])]
        data = self._pieces.read(file, int(record["offset"]), int(record["size"]))
        if file.kind == "text":
            lines = data.decode("utf-8", "replace").split("\n")
            lines = lines[:-1] if lines[-1] == "" else lines
            if len(lines) != int(record["rows"]):
                raise _stale(file.path)
            return [line.rstrip("\r") for line in (lines if row is None else lines[row : row + 1])]
        dictionary = b""
        if record["dictionary_size"]:
            dictionary = self._pieces.read(file, int(record["dictionary"]), int(record["dictionary_size"]))
        about = PageOfTexts(
            int(record["offset"]),
            int(record["size"]),
            int(record["rows"]),
            int(record["dictionary"]),
            int(record["dictionary_size"]),
            int(record["codec"]),
            bool(record["optional"]),
        )
        try:
            return read_texts(data, dictionary, about, Path(file.path).name, row)
        except IndexError as error:
            raise MediaRejected(f"{file.path} is damaged.", code="archive") from error


def _line_blocks(file: IO[bytes], name: str) -> Iterator[PageOfTexts]:
    """Blocks of whole lines, of about 64 KiB."""
    file.seek(0)
    offset, buffer = 0, b""
    while chunk := file.read(_CHUNK):
        buffer += chunk
        start = 0
        while len(buffer) - start > _BLOCK:
            end = buffer.rfind(b"\n", start, start + _BLOCK)
            if end < 0:
                end = buffer.find(b"\n", start + _BLOCK)
            if end < 0:
                break
            yield _lines(offset + start, end + 1 - start, buffer.count(b"\n", start, end + 1))
            start = end + 1
        offset, buffer = offset + start, buffer[start:]
        if len(buffer) > _MAX_LINE + _BLOCK:
            raise ConfigurationError(
                f"{name} has a line of more than 1 MiB: it is no file with a prompt a line.", code="line_too_long"
            )
    if buffer:
        yield _lines(offset, len(buffer), buffer.count(b"\n") + (not buffer.endswith(b"\n")))


def _lines(offset: int, size: int, rows: int) -> PageOfTexts:
    return PageOfTexts(offset, size, rows, 0, 0, 0, optional=False)


def _record(page: PageOfTexts, first: int, file: int) -> bytes:
    record = np.zeros(1, _RECORD)
    record["first"], record["file"] = first, file
    for name in ("offset", "size", "rows", "dictionary", "dictionary_size", "codec", "optional"):
        record[name] = getattr(page, name)
    return record.tobytes()


def _open(path: Path) -> tuple[dict[str, Any], Any]:
    """The JSON object and the mapped records.

    Raises:
        ValueError: It is no index.
    """
    with path.open("rb") as raw:
        end = raw.seek(0, 2)
        raw.seek(max(0, end - 16))
        tail = raw.read(16)
        raw.seek(0)
        if end < 24 or raw.read(8) != _MAGIC or tail[8:] != _MAGIC:
            raise ValueError
        (size,) = struct.unpack("<Q", tail[:8])
        count, rest = divmod(end - 24 - size, _RECORD.itemsize)
        if not 0 < size <= min(_MAX_ABOUT, end - 24) or rest:
            raise ValueError
        raw.seek(end - 16 - size)
        about = json.loads(raw.read(size).decode("utf-8", "surrogateescape"))
    if not isinstance(about, dict) or about.get("version") != 1 or about.get("blocks") != count or not count:
        raise ValueError
    return about, np.memmap(path, _RECORD, "r", offset=8, shape=(count,))


def _check(records: Any, rows: int, files: int) -> None:
    """Whether the last block ends where the rows do; what lies between is checked when it is read.

    Raises:
        ValueError: It doesn't.
    """
    last = records[-1]
    if int(records[0]["first"]) != 0 or int(last["first"]) + int(last["rows"]) != rows or int(last["file"]) >= files:
        raise ValueError


def _stale(path: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} has changed since it was indexed.",
        code="index_stale",
        hint="Make the index anew: gascli v prompts index FILES --out INDEX.",
    )
