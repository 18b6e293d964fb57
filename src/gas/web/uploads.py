"""Multipart forms with one file part and a few short fields, read from disk to disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gas.errors import RequestRefused, StorageError

__all__ = ["FORM_OVERHEAD_BYTES", "Upload", "read_upload", "temporary_file"]

_CHUNK = 1 << 20
_MAX_FIELD_BYTES = 256
FORM_OVERHEAD_BYTES = 64 * 1024
"""What the multipart form may add to the file: boundaries, headers, short fields."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A parsed form.

    Attributes:
        fields: The short fields.
        size: Bytes of the file part.
    """

    fields: Mapping[str, str]
    size: int


@contextmanager
def temporary_file(folder: Path) -> Iterator[Path]:
    """A file that is gone when the block ends, however it ends.

    Raises:
        gas.errors.StorageError: The folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder, suffix=".upload")
    except OSError as error:
        raise StorageError(f"No upload can be stored ({error.strerror}).") from error
    os.close(descriptor)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def read_upload(
    content_type: str,
    body: Path,
    target: Path,
    *,
    file_part: str,
    required: frozenset[str],
    optional: frozenset[str] = frozenset(),
    max_file_bytes: int,
) -> Upload:
    """Take the file out of a proven body.

    Args:
        content_type: The request's header.
        body: The body as received.
        target: Where the file part goes.
        file_part: Name of the part that is the file.
        required: Names of the fields that must be there, once.
        optional: Names of the fields that may be there, once.
        max_file_bytes: Limit of the file part.

    Raises:
        gas.errors.RequestRefused: 413 ``too_large``, 415 ``not_multipart``, 422 ``bad_form``.
        gas.errors.StorageError: The file can't be written.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise RequestRefused("The body must be multipart/form-data.", status=415, code="not_multipart")
    try:
        with body.open("rb") as source, target.open("wb") as sink:
            form = _Form(sink, file_part, required | optional, max_file_bytes)
            parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": form.part_begin,
                    "on_header_field": form.header_field,
                    "on_header_value": form.header_value,
                    "on_header_end": form.header_end,
                    "on_headers_finished": form.headers_finished,
                    "on_part_data": form.part_data,
                    "on_part_end": form.part_end,
                    "on_end": form.end,
                },
            )
            while chunk := source.read(_CHUNK):
                parser.write(chunk)
            parser.finalize()
    except FormParserError as error:
        raise _bad_form("The multipart form can't be parsed.") from error
    except OSError as error:
        raise StorageError(f"The upload could not be stored ({error.strerror}).") from error
    if not form.complete:
        raise _bad_form("The multipart form ends too early.")
    missing = (required | {file_part}) - form.seen
    if missing:
        raise _bad_form(f"The form lacks {', '.join(sorted(missing))}.")
    return Upload(form.values, form.size)


def _too_large(limit: int) -> RequestRefused:
    return RequestRefused(f"The package may have {limit} bytes at most.", status=413, code="too_large")


def _bad_form(message: str) -> RequestRefused:
    return RequestRefused(message, status=422, code="bad_form")


@dataclass(slots=True)
class _Form:
    """Receives the parser's events."""

    sink: IO[bytes]
    file_part: str
    field_names: frozenset[str]
    max_file_bytes: int
    seen: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    size: int = 0
    complete: bool = False
    _name: str = ""
    _data: bytearray = field(default_factory=bytearray)
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)

    def part_begin(self) -> None:
        self._name = ""
        self._data.clear()
        self._header.clear()
        self._value.clear()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            options = parse_options_header(self._value.decode("latin-1"))[1]
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def headers_finished(self) -> None:
        if self._name not in self.field_names and self._name != self.file_part:
            raise _bad_form("The form has a part that is not known here.")
        if self._name in self.seen:
            raise _bad_form(f"The form has {self._name} twice.")
        self.seen.add(self._name)

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == self.file_part:
            self.size += end - start
            if self.size > self.max_file_bytes:
                raise _too_large(self.max_file_bytes)
            self.sink.write(data[start:end])
        else:
            self._data += data[start:end]
            if len(self._data) > _MAX_FIELD_BYTES:
                raise _bad_form(f"The field {self._name} is too long.")

    def part_end(self) -> None:
        if self._name in self.field_names:
            self.values[self._name] = self._data.decode("utf-8", "replace")

    def end(self) -> None:
        self.complete = True
