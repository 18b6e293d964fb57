"""Blobs as files of one folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from gas.errors import StorageError
from gas.storage.blob_base import checked_name, sha256_hex

__all__ = ["FolderBlobs", "flush_folder"]


def _copy(source: IO[bytes], sink: IO[bytes]) -> str:
    """Copy until the end and return the hex SHA-256 of what was copied."""
    digest = hashlib.sha256()
    while chunk := source.read(1 << 20):
        digest.update(chunk)
        sink.write(chunk)
    return digest.hexdigest()


class FolderBlobs:
    """Blobs as files of one folder, two levels deep.

    A blob is written aside, flushed to disk and renamed, so that a reader never sees half of one, and a killed
    writer leaves nothing but a temporary file in ``incoming``.

    A file whose content was hashed gets a mark with its size, time of change and inode (an extended attribute, where
    the file system has them). While they are the same it isn't hashed again: without instructions for SHA-256 that
    would cost as much as decoding a sound. Whoever changes a file and sets its time back is not noticed; nor is a
    disk that loses bits. ``rehash`` is for those who ask.

    Args:
        root: The folder; made with the first blob.
        rehash: Hash at every reading, whatever the marks say.
    """

    def __init__(self, root: Path, *, rehash: bool = False) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._start = f"{root}{os.sep}"
        self._rehash = rehash

    def put(self, data: bytes, *, name: str | None = None) -> str:
        """Store bytes durably."""
        if name is not None:
            checked_name(name)
        return self._store(data, name)

    def put_file(self, path: Path) -> str:
        """Store a file's bytes durably."""
        try:
            with path.open("rb") as source:
                return self._store(source)
        except OSError as error:
            raise StorageError(f"The file could not be read ({error.strerror}).") from error

    def get(self, name: str) -> bytes:
        """Fetch bytes and check them against their name."""
        checked_name(name)
        try:
            # Plain calls: pathlib and buffered files cost a picture's reader more than the reading.
            fd = os.open(f"{self._start}{name[:2]}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                before = os.fstat(fd)
                data = _read(fd, before.st_size)
                # Looked at after the reading: what was changed meanwhile is no longer as it was marked.
                after = os.fstat(fd)
                if self._rehash or not _is_marked(fd, after):
                    if sha256_hex(data) != name:
                        raise StorageError(f"Blob {name} is damaged.", code="blob_damaged")
                    if _mark_of(before) == _mark_of(after):
                        _mark(fd, after)
            finally:
                os.close(fd)
        except FileNotFoundError as error:
            raise StorageError(f"Blob {name} is not in the store.", code="blob_missing") from error
        except OSError as error:
            raise StorageError(f"Blob {name} could not be read ({error.strerror}).") from error
        return data

    def get_file(self, name: str, target: Path) -> None:
        """Fetch bytes into a file and check them against their name."""
        try:
            source = self._path(name).open("rb")
        except FileNotFoundError as error:
            raise StorageError(f"Blob {name} is not in the store.", code="blob_missing") from error
        except OSError as error:
            raise StorageError(f"Blob {name} could not be read ({error.strerror}).") from error
        try:
            with source, target.open("wb") as sink:
                found = _copy(source, sink)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise StorageError(f"The blob could not be copied ({error.strerror}).") from error
        if found != name:
            target.unlink(missing_ok=True)
            raise StorageError(f"Blob {name} is damaged.", code="blob_damaged")

    def exists(self, name: str) -> bool:
        """Whether the blob is there."""
        return self._path(name).exists()

    def delete(self, name: str) -> None:
        """Remove the blob."""
        self._path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """All names."""
        for path in self.root.glob("??/" + "?" * 64):
            yield path.name

    def _store(self, source: IO[bytes] | bytes, name: str | None = None) -> str:
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            fd, aside = tempfile.mkstemp(dir=self._incoming)
            try:
                with os.fdopen(fd, "wb") as file:
                    if isinstance(source, bytes):
                        found = name or sha256_hex(source)
                        file.write(source)
                    else:
                        found = _copy(source, file)
                    file.flush()
                    os.fsync(file.fileno())
                    if name is None:
                        _mark_own(file.fileno())
                target = self._path(found)
                made = not target.parent.is_dir()
                target.parent.mkdir(parents=True, exist_ok=True)
                Path(aside).replace(target)
                # A power cut must not take the name back, nor the folder's own.
                flush_folder(target.parent)
                if made:
                    flush_folder(self.root)
            except BaseException:
                Path(aside).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StorageError(f"The blob could not be stored ({error.strerror}).", hint="Is the disk full?") from error
        return found

    def _path(self, name: str) -> Path:
        return self.root / checked_name(name)[:2] / name


_MARK: Final = "user.gas.hashed"
_SETTLED_NS: Final = 2 * 10**9


def _read(fd: int, size: int) -> bytes:
    """A file from its beginning to its end, in one call as a rule."""
    data = os.read(fd, size + 1)
    if len(data) == size:
        return data
    parts = [data]
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _is_marked(fd: int, status: os.stat_result) -> bool:
    """Whether this very file was hashed before, and hasn't been touched since."""
    try:
        return os.getxattr(fd, _MARK) == _mark_of(status)
    except (OSError, AttributeError):
        return False


def _mark(fd: int, status: os.stat_result) -> None:
    """Remember that the content was right, unless the file is so young that a change might not show in its time."""
    if time.time_ns() - status.st_mtime_ns < _SETTLED_NS:
        return
    with suppress(OSError, AttributeError):
        os.setxattr(fd, _MARK, _mark_of(status))


def _mark_own(fd: int) -> None:
    """Mark what has just been written and hashed; its time is set back, so that any later change shows."""
    with suppress(OSError, AttributeError):
        before = os.fstat(fd).st_mtime_ns - _SETTLED_NS
        os.utime(fd, ns=(before, before))
        os.setxattr(fd, _MARK, _mark_of(os.fstat(fd)))


def _mark_of(status: os.stat_result) -> bytes:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}".encode()


def flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk before going on; raises :class:`OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
