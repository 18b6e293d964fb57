"""Data sets in a folder of this machine."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO, Final

from gas.datasets.sources.base import OnBytes, RemoteFile
from gas.datasets.sources.listing import check_pin, checked_listing, listing_hash
from gas.datasets.sources.transfer import CHUNK, PartFile, TransferLimits
from gas.errors import ConfigurationError, StorageError

__all__ = ["FolderSource"]

_HIDDEN: Final = "."


class FolderSource:
    """Files below a folder; links that lead out of it are refused, hidden files are left out.

    Args:
        root: The folder.
        limits: ``max_files`` and ``max_file_bytes``.
        revision: The pinned revision, or empty.

    Raises:
        ConfigurationError: There is no such folder.
    """

    def __init__(self, root: Path, limits: TransferLimits | None = None, revision: str = "") -> None:
        if not root.is_dir():
            raise ConfigurationError(
                f"The folder {root} is missing.",
                code="material_missing",
                hint="A relative path counts from the folder of the registry file.",
            )
        self._root = root.resolve()
        self._limits = limits or TransferLimits()
        self._pinned = revision
        self._paths: dict[str, Path] = {}
        self._listing: tuple[RemoteFile, ...] | None = None

    @property
    def revision(self) -> str:
        """Hash over paths, sizes and times of change: made anew by whatever changes a file."""
        return listing_hash(self.files())

    def files(self) -> tuple[RemoteFile, ...]:
        """Every regular file, by path.

        Raises:
            ConfigurationError: ``link_leaves_folder``; or the folder can't be read.
            IntegrityError: The folder has changed since its revision was pinned, or has too many files.
        """
        if self._listing is None:
            paths: dict[str, Path] = {}
            found = []
            for path in self._walk():
                label = _label(path.relative_to(self._root))
                info = path.stat()
                paths[label] = path
                found.append(RemoteFile(label, info.st_size, None, _version(info)))
                if len(found) > self._limits.max_files:
                    break
            listing = checked_listing(found, self._limits.max_files)
            check_pin(self._pinned, listing_hash(listing))
            self._paths, self._listing = paths, listing
        return self._listing

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes | None = None) -> None:
        """Copy one file to ``part``; see :class:`gas.datasets.sources.base.Source`."""
        self.files()
        path = self._paths.get(file.path)
        if path is None:
            raise ConfigurationError(f"The folder has no file {file.path[:80]!a}.", code="source_missing")
        with PartFile(part, file, self._limits, on_bytes) as target:
            try:
                # Opened without following a link that took the file's place since the listing.
                descriptor = os.open(path.resolve(), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            except OSError as error:
                raise ConfigurationError(
                    f"The file {file.path[:80]!a} can't be read ({error.strerror}).", code="source_missing"
                ) from error
            with os.fdopen(descriptor, "rb") as source:
                if not _is_version(source, file):
                    raise target.refuse("has changed since it was listed")
                source.seek(target.size)
                while chunk := _read(source):
                    target.write(chunk)
                if not _is_version(source, file):
                    raise target.refuse("has changed while it was read")
            target.finish()

    def close(self) -> None:
        """Nothing is kept open."""

    def _walk(self) -> list[Path]:
        """Regular files, and links to such inside of the folder."""
        found = []

        def fail(error: OSError) -> None:
            raise ConfigurationError(
                f"The folder {self._root} can't be read ({error.strerror}).", code="material_missing"
            ) from error

        for folder, folders, names in os.walk(self._root, onerror=fail):
            for name in folders:
                self._check_link(Path(folder) / name)
            folders[:] = sorted(name for name in folders if not name.startswith(_HIDDEN))
            for name in sorted(names):
                path = Path(folder) / name
                if name.startswith(_HIDDEN):
                    continue
                self._check_link(path)
                if path.is_file():
                    found.append(path)
        return found

    def _check_link(self, path: Path) -> None:
        if path.is_symlink() and not path.resolve().is_relative_to(self._root):
            raise ConfigurationError(
                f"{path.relative_to(self._root).as_posix()!a} is a link that leads out of the data set's folder.",
                code="link_leaves_folder",
                hint="Copy what it points to into the folder, or name that folder itself.",
            )


def _version(info: os.stat_result) -> str:
    return f"{info.st_size}-{info.st_mtime_ns}"


def _is_version(source: IO[bytes], file: RemoteFile) -> bool:
    info = os.fstat(source.fileno())
    return stat.S_ISREG(info.st_mode) and _version(info) == file.version


def _read(source: IO[bytes]) -> bytes:
    try:
        return source.read(CHUNK)
    except OSError as error:
        raise StorageError(f"A file of the data set can't be read ({error.strerror}).") from error


def _label(relative: Path) -> str:
    """The path as text that is the same everywhere: what isn't UTF-8 or printable is written as ``%XX``."""
    raw = os.fsencode(relative.as_posix())
    text = raw.decode("utf-8", "surrogateescape")
    out = []
    for sign in text:
        code = ord(sign)
        if 0xDC80 <= code <= 0xDCFF:
            out.append(f"%{code - 0xDC00:02X}")
        elif code < 0x20 or code == 0x7F or sign == "\\":
            out.append(f"%{code:02X}")
        else:
            out.append(sign)
    return "".join(out)
