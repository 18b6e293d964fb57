"""A file of a package where it lies: a file of its own, or a stretch of the archive that holds it.

What an archive stores without squeezing it need not be written to the disk to be looked at. Bytes are read at places
into buffers of the reader's own and never mapped, so that a file that shrinks meanwhile is an error, and no crash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gas.errors import InfrastructureError

__all__ = ["Part", "Reader"]


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of a file.

    Attributes:
        file: Which file.
        offset: Where the part starts in it, in bytes.
        size: Its length in bytes.
        name: What the part is called in the package.
    """

    file: Path
    offset: int
    size: int
    name: str

    @classmethod
    def of(cls, source: Part | Path) -> Part:
        """A part as it is, or a whole file as a part.

        Raises:
            gas.errors.InfrastructureError: The file can't be read.
        """
        if isinstance(source, Part):
            return source
        try:
            return cls(source, 0, source.stat().st_size, source.name)
        except OSError as error:
            raise InfrastructureError(f"The file {source.name} can't be read: {error.strerror}.") from error

    @contextmanager
    def open(self) -> Iterator[Reader]:
        """Read it.

        Raises:
            gas.errors.InfrastructureError: The file can't be opened.
        """
        try:
            descriptor = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InfrastructureError(f"The file {self.name} can't be read: {error.strerror}.") from error
        try:
            yield Reader(self, descriptor)
        finally:
            os.close(descriptor)


class Reader:
    """Reads one part at any place; threads need readers of their own only for buffers of their own.

    Args:
        part: What to read.
        descriptor: Its open file.
    """

    def __init__(self, part: Part, descriptor: int) -> None:
        self._part = part
        self._descriptor = descriptor

    def read(self, begin: int, size: int) -> bytes:
        """Bytes from a place on; fewer than wanted only at the end of the part.

        Raises:
            gas.errors.InfrastructureError: The file can't be read, or has shrunk.
        """
        buffer = bytearray(max(0, min(size, self._part.size - begin)))
        self.fill(begin, memoryview(buffer))
        return bytes(buffer)

    def fill(self, begin: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from a place on.

        Raises:
            gas.errors.InfrastructureError: The file can't be read, or ends before the buffer is full.
        """
        at = 0
        while at < len(buffer):
            try:
                got = os.preadv(self._descriptor, [buffer[at:]], self._part.offset + begin + at)
            except OSError as error:
                raise InfrastructureError(f"The file {self._part.name} can't be read: {error.strerror}.") from error
            if got == 0:
                raise InfrastructureError(f"The file {self._part.name} changed while it was read.")
            at += got

    def chunks(self, begin: int, end: int, buffer: memoryview) -> Iterator[memoryview]:
        """Bytes between two places, as views of one buffer that each step fills anew.

        Raises:
            gas.errors.InfrastructureError: As :meth:`fill`.
        """
        for at in range(begin, end, len(buffer)):
            view = buffer[: min(len(buffer), end - at)]
            self.fill(at, view)
            yield view
