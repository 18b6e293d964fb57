"""An append-only file of rows of one size, each with a checksum: what a crash leaves of it is found out by reading.

What is covered: a process killed at any point while it appends (the torn row is cut off at the next start), rows of
zeros that a power failure leaves, two writers at once (the second is refused), readers beside the writer. What is
not: rows lost in a power failure before :meth:`Journal.sync`; the database knows them, and the index is built again.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gas.errors import ConfigurationError, IntegrityError, StorageError

__all__ = ["Journal"]

_HEADER: Final = 64
_MAGIC: Final = b"GASROWS1"
_FIRST: Final = 64
_AHEAD: Final = 1 << 16


class Journal:
    """Rows on disk or, without a folder, in memory.

    One process writes; others read with ``writable=False`` and call :meth:`refresh`. Not safe to be shared by threads
    without a lock.

    Args:
        folder: Where the file is or will be; None keeps the rows in memory only.
        name: Of the file, without its ending.
        dtype: Structured; its last field is ``crc``, four bytes.
        trusted: So many rows from the start are known to be whole (an index was built from them).
        writable: Whether rows will be appended; takes the file's lock.

    Raises:
        ConfigurationError: Another process writes this file, or it is of another version.
        StorageError: The folder can't be written.
    """

    def __init__(
        self, folder: Path | None, name: str, dtype: np.dtype[Any], *, trusted: int = 0, writable: bool = True
    ) -> None:
        self.dtype = dtype
        self.writable = writable
        self._length = 0
        self._reserved = 0
        self._descriptor = -1
        self._memory: NDArray[Any] = np.zeros(0 if folder else _FIRST, dtype)
        self._map: mmap.mmap | None = None
        self.dropped = 0
        if folder is None:
            return
        self._path = folder / f"{name}.rows"
        try:
            if writable:
                folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
            self._descriptor = os.open(self._path, flags | os.O_CLOEXEC, 0o644)
            if writable:
                self._take()
        except FileNotFoundError as error:
            raise ConfigurationError(f"There is no index {name} in {folder}.", code="no_index") from error
        except OSError as error:
            self.close()
            raise StorageError(f"The index {name} can't be opened ({error.strerror}).") from error
        except (ConfigurationError, IntegrityError):
            self.close()
            raise
        self._length = min(trusted, self._whole())
        self.refresh()
        if writable:
            self._cut()

    def __len__(self) -> int:
        return self._length

    def close(self) -> None:
        """Give the file and its lock back; rows that were handed out stay readable."""
        if self._descriptor >= 0:
            if self._reserved:
                self._cut()
            # A map that is still in use holds a copy of the descriptor, and with it the lock.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = -1

    def rows(self) -> NDArray[Any]:
        """All rows; a read-only view of the file, or of memory, valid as of now."""
        if self._descriptor < 0:
            return self._memory[: self._length]
        if len(self._memory) < self._length:
            # With the room kept for rows to come: a new map costs a page fault for each page that is looked at again.
            count = max(self._length, self._whole())
            self._map = mmap.mmap(self._descriptor, _HEADER + count * self.dtype.itemsize, prot=mmap.PROT_READ)
            self._memory = np.frombuffer(self._map, self.dtype, count, _HEADER)
        return self._memory[: self._length]

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows at the end; their checksums are set here.

        Raises:
            StorageError: The disk is full or failed; what was written of it is cut off again.
        """
        rows["crc"] = [_checksum(row) for row in rows]
        if self._descriptor < 0:
            needed = self._length + len(rows)
            if needed > len(self._memory):
                grown = np.zeros(max(needed, 2 * len(self._memory)), self.dtype)
                grown[: self._length] = self._memory[: self._length]
                self._memory = grown
            self._memory[self._length : needed] = rows
            self._length = needed
            return
        at = _HEADER + self._length * self.dtype.itemsize
        view = memoryview(rows.tobytes())
        try:
            self._reserve(self._length + len(rows))
            while view:
                written = os.pwrite(self._descriptor, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            self._cut()
            raise StorageError(f"The index can't be written ({error.strerror}).") from error
        self._length += len(rows)

    def sync(self) -> None:
        """Have what was appended survive a power failure."""
        if self._descriptor >= 0:
            os.fdatasync(self._descriptor)

    def refresh(self) -> int:
        """Look for whole rows after the known ones; returns how many there are in all."""
        if self._descriptor < 0:
            return self._length
        step, known = 4096, self._length
        total = self._whole()
        while known < total:
            count = min(step, total - known)
            data = os.pread(self._descriptor, count * self.dtype.itemsize, _HEADER + known * self.dtype.itemsize)
            rows = np.frombuffer(data, self.dtype, len(data) // self.dtype.itemsize)
            bad = next((at for at, row in enumerate(rows) if int(row["crc"]) != _checksum(row)), None)
            known += len(rows) if bad is None else bad
            if bad is not None or not len(rows):
                break
        self._length = known
        return known

    def _whole(self) -> int:
        return max(0, os.fstat(self._descriptor).st_size - _HEADER) // self.dtype.itemsize

    def _take(self) -> None:
        """Lock the file; a new one gets its header."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                "Another process keeps this index.", code="index_in_use", hint="Stop it first, or open to read only."
            ) from error
        header = (_MAGIC + self.dtype.itemsize.to_bytes(4, "little")).ljust(_HEADER, b"\0")
        found = os.pread(self._descriptor, _HEADER, 0)
        if len(found) < _HEADER:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, header, 0)
        elif found != header:
            raise IntegrityError(f"The index {self._path} is of another version.", hint="Build it again.")

    def _reserve(self, rows: int) -> None:
        """Have the file end in room for more rows: a hole, which reads as rows of zeros, which are no rows."""
        if rows > self._reserved:
            self._reserved = rows + min(_AHEAD, max(_FIRST, rows // 8))
            os.ftruncate(self._descriptor, _HEADER + self._reserved * self.dtype.itemsize)

    def _cut(self) -> None:
        """Cut a torn end off, so that the next row begins where it should."""
        self._reserved = 0
        end = _HEADER + self._length * self.dtype.itemsize
        self.dropped = os.fstat(self._descriptor).st_size - end
        if self.dropped:
            os.ftruncate(self._descriptor, end)


def _checksum(row: Any) -> int:
    # Never zero, so that a row of zeros is no row.
    return zlib.crc32(row.tobytes()[:-4]) | 1
