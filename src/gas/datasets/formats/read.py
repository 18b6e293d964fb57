"""One way in for all formats: look at a file's first bytes and let the right reader have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gas.datasets.formats.base import DEFAULT_FORMAT_LIMITS, FormatLimits, RawItem, Wanted, set_aside
from gas.datasets.formats.magic import COMPRESSED, HEAD, PARQUET, ZIP, is_container, is_tar_header
from gas.datasets.formats.streams import open_stream
from gas.errors import ConfigurationError, MediaRejected, StorageError

__all__ = ["kind_of", "read_items"]

_FORMATS: Final = frozenset({"auto", "parquet", "zip", "tar", "files"})


def kind_of(file: Path) -> str:
    """Format of a file, by its content: ``parquet``, ``zip``, ``tar`` (compressed or not) or ``files``.

    Raises:
        StorageError: The file can't be read.
    """
    try:
        with file.open("rb") as source:
            head = source.read(HEAD)
    except OSError as error:
        raise StorageError(f"A fetched file can't be read ({error.strerror}).") from error
    if head.startswith(PARQUET):
        return "parquet"
    if head.startswith(ZIP):
        return "zip"
    if is_tar_header(head):
        return "tar"
    if head.startswith(tuple(COMPRESSED)):
        try:
            with open_stream(file, FormatLimits(), file.name) as stream:
                return "tar" if is_tar_header(stream.read(HEAD)) else "files"
        except MediaRejected:
            return "files"
    return "files"


def read_items(
    file: Path, name: str, wanted: Wanted, limits: FormatLimits = DEFAULT_FORMAT_LIMITS
) -> Iterator[RawItem]:
    """The media of one file, in an order that is the same everywhere, with bounded memory.

    Args:
        file: Where it lies; what it is called doesn't matter.
        name: What it is called in the source; the beginning of every item's path.
        wanted: What to read.
        limits: What it may cost.

    Yields:
        Media, and items with ``error`` set in place of those that can't be had.

    Raises:
        MediaRejected: ``archive``: the file as a whole is broken or hostile; what was yielded before stands.
        ConfigurationError: ``column_missing``, ``column_ambiguous``: the registry asks for something that the file
            doesn't have; ``bad_format``.
        StorageError: The file can't be read.
    """
    if wanted.format not in _FORMATS:
        raise ConfigurationError(f"There is no format {wanted.format[:40]!a}.", code="bad_format")
    kind = "files" if wanted.format == "files" else kind_of(file)
    if wanted.format not in ("auto", kind):
        yield set_aside(name, "wrong_format", f"Its content is {_WORDS[kind]}, not {_WORDS[wanted.format]}.")
        return
    try:
        if kind == "parquet":
            from gas.datasets.formats.tables import read_table

            yield from read_table(file, name, wanted, limits)
        elif kind == "zip":
            from gas.datasets.formats.zips import read_zip

            yield from read_zip(file, name, wanted, limits)
        elif kind == "tar":
            from gas.datasets.formats.tars import read_tar

            yield from read_tar(file, name, wanted, limits)
        else:
            yield _single(file, name, limits)
    except OSError as error:
        raise StorageError(f"A fetched file can't be read ({error.strerror}).") from error


_WORDS: Final = {"parquet": "a Parquet table", "zip": "a zip", "tar": "a tar", "files": "a single file"}


def _single(file: Path, name: str, limits: FormatLimits) -> RawItem:
    with file.open("rb") as source:
        data = source.read(limits.max_item_bytes + 1)
    if len(data) > limits.max_item_bytes:
        return set_aside(name, "too_large", f"It has more than the allowed {limits.max_item_bytes:,} bytes.")
    if not data:
        return set_aside(name, "empty", "It has no bytes.")
    if is_container(data[:HEAD]):
        return set_aside(name, "nested_archive", "It is an archive or something compressed, not a medium.")
    return RawItem(name, data)
