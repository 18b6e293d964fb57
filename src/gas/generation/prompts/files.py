"""Texts out of files, one at a time: lines, a column of a CSV file, a column of a Parquet file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from gas.errors import ConfigurationError
from gas.generation.prompts.columns import read_texts, text_column, text_pages

__all__ = ["texts_of"]

_MAX_LINE: Final = 1024 * 1024
_USUAL: Final = ("prompt", "text", "caption", "description")


def texts_of(path: Path, column: str = "") -> Iterator[str]:
    """The texts of a file, in bounded memory.

    A Parquet file is known by its content, CSV and TSV by their ending (``.csv``, ``.tsv``; the first row names the
    columns); anything else has one text a line. Bytes that are no UTF-8 come as U+FFFD.

    Args:
        path: The file.
        column: Of a table; found by its name when empty.

    Raises:
        ConfigurationError: ``file_missing``, ``column_missing``, ``line_too_long``.
        MediaRejected: ``archive``: a Parquet file is damaged.
    """
    try:
        with path.open("rb") as raw:
            if raw.read(4) == b"PAR1":
                yield from _of_parquet(raw, path.name, column)
                return
        if path.suffix.lower() in (".csv", ".tsv"):
            yield from _of_csv(path, column)
        else:
            yield from _of_lines(path)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read ({error.strerror}).", code="file_missing") from error


def _of_parquet(raw: IO[bytes], name: str, column: str) -> Iterator[str]:
    for page in text_pages(raw, name, text_column(raw, name, column)):
        raw.seek(page.dictionary)
        dictionary = raw.read(page.dictionary_size)
        raw.seek(page.offset)
        yield from (text for text in read_texts(raw.read(page.size), dictionary, page, name) if text is not None)


def _of_csv(path: Path, column: str) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        rows = csv.reader(
            (line for line in _bounded(text, path.name)), "excel-tab" if path.suffix == ".tsv" else "excel"
        )
        try:
            head = next(rows, [])
            names = [name.strip() for name in head]
            wanted = [column] if column else [name for usual in _USUAL for name in names if name.lower() == usual]
            if not wanted and len(names) == 1:
                wanted = names
            if not wanted or wanted[0] not in names:
                raise ConfigurationError(
                    f"{path.name} has no column {column[:60]!a}." if column else f"Which column of {path.name}?",
                    code="column_missing",
                    hint=f"Name one with --column: {', '.join(ascii(name[:60]) for name in names[:40]) or 'none'}.",
                )
            at = names.index(wanted[0])
            yield from (row[at] for row in rows if at < len(row))
        except csv.Error as error:
            raise ConfigurationError(f"{path.name} is no CSV file ({error}).", code="column_missing") from error


def _of_lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace", newline="\n") as text:
        yield from (line.rstrip("\r\n") for line in _bounded(text, path.name))


def _bounded(text: IO[str], name: str) -> Iterator[str]:
    while line := text.readline(_MAX_LINE + 1):
        if len(line) > _MAX_LINE:
            raise ConfigurationError(
                f"{name} has a line of more than 1 MiB: it is no file with a prompt a line.", code="line_too_long"
            )
        yield line
