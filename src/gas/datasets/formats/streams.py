"""Compressed files as streams of bounded reads: no more is unpacked at a time than was asked for."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol

from gas.datasets.formats.base import FormatLimits, broken
from gas.datasets.formats.magic import COMPRESSED
from gas.errors import MediaRejected

__all__ = ["Stream", "open_stream"]

_CHUNK: Final = 1 << 18
_FREE: Final = 64 << 20
_XZ_MEMORY: Final = 256 << 20


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the manners of bz2's: input that didn't fit is kept inside."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


class Stream:
    """Bytes of a file, unpacked where it is compressed, read from front to back.

    Args:
        file: Open file, at its start.
        name: For messages.
        limits: ``max_ratio`` and ``max_total_bytes``.
    """

    def __init__(self, file: IO[bytes], name: str, limits: FormatLimits) -> None:
        self._file = file
        self._name = name
        self._limits = limits
        self._got = 0
        self._pending = b""
        self._stopped = False
        head = file.read(6)
        file.seek(0)
        self._magic = next((magic for magic in COMPRESSED if head.startswith(magic)), b"")
        self._kind = COMPRESSED.get(self._magic, "")
        self._decompressor = self._begin() if self._kind and self._kind != "zstd" else None
        self._zstd = _zstd(file) if self._kind == "zstd" else None

    def read(self, count: int) -> bytes:
        """The next bytes; fewer at the end only.

        Raises:
            MediaRejected: ``archive``: the compressed data are broken, or unpack to too much.
        """
        if not self._kind:
            return self._file.read(count)
        parts, left = [], count
        while left and (part := self._some(left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def skip(self, count: int) -> bool:
        """Pass over bytes; False when the file ends before.

        Raises:
            MediaRejected: As for :meth:`read`.
        """
        if not self._kind:
            here = self._file.tell()
            end = self._file.seek(0, 2)
            self._file.seek(min(here + count, end))
            return here + count <= end
        left = count
        while left:
            part = self._some(min(left, _CHUNK))
            if not part:
                return False
            left -= len(part)
        return True

    def _some(self, most: int) -> bytes:
        """At least one byte and at most ``most``; nothing at the end."""
        try:
            data = self._from_zstd(most) if self._zstd is not None else self._unpack(min(most, _CHUNK))
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise broken(self._name, "holds compressed data that are broken") from error
        self._got += len(data)
        packed = max(1, self._file.tell())
        if self._got > _FREE + packed * self._limits.max_ratio or self._got > self._limits.max_total_bytes:
            raise broken(self._name, "unpacks to far more than its size allows")
        return data

    def _from_zstd(self, most: int) -> bytes:
        return bytes(self._zstd.read(most)) if self._zstd is not None else b""

    def _unpack(self, most: int) -> bytes:
        while not self._stopped:
            if self._decompressor is None:
                # Files may be several compressed streams one behind the other; anything else there is padding.
                if len(self._pending) < len(self._magic):
                    self._pending += self._file.read(_CHUNK)
                if not self._pending.startswith(self._magic):
                    self._stopped = True
                    break
                self._decompressor = self._begin()
            hungry = self._decompressor.needs_input
            if hungry and not self._pending:
                self._pending = self._file.read(_CHUNK)
            is_last = hungry and not self._pending
            given, self._pending = (self._pending, b"") if hungry else (b"", self._pending)
            data = self._decompressor.decompress(given, most)
            if self._decompressor.eof:
                self._pending = self._decompressor.unused_data + self._pending
                self._decompressor = None
            if data:
                return data
            if is_last and self._decompressor is not None:
                raise EOFError
        return b""

    def _begin(self) -> _Decompressor:
        if self._kind == "gzip":
            return _Gzip()
        if self._kind == "bzip2":
            return bz2.BZ2Decompressor()
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _zstd(file: IO[bytes]) -> IO[bytes]:
    import pyarrow as pa

    stream: IO[bytes] = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
    return stream


@contextmanager
def open_stream(path: Path, limits: FormatLimits, name: str) -> Iterator[Stream]:
    """Open a file for reading from front to back.

    Raises:
        MediaRejected: ``archive``: it is compressed in a way that can't be read here.
        OSError: The file can't be read.
    """
    with path.open("rb") as file:
        try:
            stream = Stream(file, name, limits)
        except ImportError as error:
            raise MediaRejected(f"{name} needs pyarrow to be unpacked.", code="archive") from error
        yield stream
