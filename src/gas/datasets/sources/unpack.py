"""Wanted files out of a packed package: gzipped tar (npm, source packages), wheel, Debian package.

Only regular files that the registry asks for are written, under their path inside the package; links, devices and
everything else are passed over. Sizes and counts are limited though the content's hash is pinned: the pin says what
somebody meant, not that it is harmless.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final, cast

from gas.datasets.registry import DatasetEntry
from gas.errors import InfrastructureError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["unpack"]

_MAX_FILE: Final = 64 * 1024 * 1024
_MAX_TOTAL: Final = 1024 * 1024 * 1024
_MAX_MEMBERS: Final = 100_000

_AR_MAGIC: Final = b"!<arch>\n"
_AR_HEADER: Final = 60


def unpack(packed: Path, entry: DatasetEntry, target: Path) -> dict[str, int]:
    """Unpack the wanted regular files of a package, and nothing else.

    Args:
        packed: The package; what it is, its first bytes say.
        entry: Says which files are wanted. Paths are those inside the package; an npm package's or a source
            package's one top folder is left out of them.
        target: New folder for them.

    Returns:
        Relative path and size of each file.

    Raises:
        InfrastructureError: ``archive``: broken, a member outside the package's folder, or too large.
    """
    sink = _Sink(entry, target)
    try:
        with packed.open("rb") as file:
            head = file.read(len(_AR_MAGIC))
            file.seek(0)
            if head == _AR_MAGIC:
                with _debian_data(file, entry) as archive:
                    _tar(archive, sink, top_folder=False)
            elif head.startswith(b"PK"):
                _wheel(file, sink)
            else:
                with tarfile.open(fileobj=file, mode="r:gz") as archive:
                    _tar(archive, sink, top_folder=True)
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise _bad(entry, "is broken") from error
    except (EOFError, ValueError, NotImplementedError) as error:
        raise _bad(entry, "is broken") from error
    if not sink.sizes:
        raise _bad(entry, "has none of the wanted files")
    return sink.sizes


class _Sink:
    """Takes members one by one, checks each, and writes what is wanted."""

    def __init__(self, entry: DatasetEntry, target: Path) -> None:
        self.entry = entry
        self.sizes: dict[str, int] = {}
        self._target = target
        self._members = 0

    def offer(self, name: str, size: int, regular: bool, source: Callable[[], IO[bytes] | None], *, top: bool) -> None:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise _bad(self.entry, "has too many members")
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name:
            raise _bad(self.entry, "has a member outside its folder")
        relative = "/".join(parts[1:] if top else parts)
        if not regular or not self.entry.wants(relative):
            return
        if size > _MAX_FILE or sum(self.sizes.values()) + size > _MAX_TOTAL:
            raise _bad(self.entry, "is too large")
        file = source()
        if file is not None:
            path = self._target / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            data = file.read(size)
            path.write_bytes(data)
            self.sizes[relative] = len(data)


def _tar(archive: tarfile.TarFile, sink: _Sink, *, top_folder: bool) -> None:
    for member in archive:

        def source(member: tarfile.TarInfo = member) -> IO[bytes] | None:
            return archive.extractfile(member)

        sink.offer(member.name, member.size, member.isreg(), source, top=top_folder)


def _wheel(file: IO[bytes], sink: _Sink) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():

            def source(member: zipfile.ZipInfo = member) -> IO[bytes]:
                return archive.open(member)

            sink.offer(member.filename, member.file_size, not member.is_dir(), source, top=False)


@contextmanager
def _debian_data(file: IO[bytes], entry: DatasetEntry) -> Iterator[tarfile.TarFile]:
    """The data part of a Debian package: an ``ar`` archive whose member ``data.tar.*`` holds the files (deb(5))."""
    file.seek(len(_AR_MAGIC))
    while len(header := file.read(_AR_HEADER)) == _AR_HEADER:
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
        if name in ("data.tar.xz", "data.tar.gz", "data.tar"):
            opener = {"data.tar.xz": lzma.LZMAFile, "data.tar.gz": gzip.GzipFile}.get(name, io.BufferedReader)
            with (
                opener(_Part(file, size)) as unpacked,
                tarfile.open(fileobj=cast(IO[bytes], unpacked), mode="r|") as tar,
            ):
                yield tar
            return
        if name.startswith("data.tar"):
            raise _bad(entry, f"is packed in a way that can't be read here ({name})")
        file.seek(size + size % 2, io.SEEK_CUR)
    raise _bad(entry, "has no data part")


class _Part(io.RawIOBase):
    """The next ``size`` bytes of a file, as a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._file.read(min(len(view), self._left))
        view[: len(data)] = data
        self._left -= len(data)
        return len(data)


def _bad(entry: DatasetEntry, what: str) -> InfrastructureError:
    return InfrastructureError(f"The package {entry.package} {what}.", code="archive")
