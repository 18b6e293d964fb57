"""Blobs: immutable bytes under the name of their SHA-256."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import parse_qs, urlsplit

from gas.errors import ConfigurationError, StorageError

__all__ = ["BlobStore", "FolderBlobs", "checked_name", "open_blobs", "sha256_hex"]

_NAME = re.compile(r"[0-9a-f]{64}")


def sha256_hex(data: bytes) -> str:
    """Hex SHA-256, the name of a blob."""
    return hashlib.sha256(data).hexdigest()


def checked_name(name: str) -> str:
    """The name, when it is one; raises :class:`gas.errors.StorageError` ``blob_name`` otherwise."""
    if not _NAME.fullmatch(name):
        raise StorageError("A blob's name is 64 lower-case hex digits.", code="blob_name")
    return name


class BlobStore(Protocol):
    """Content-addressed store: a folder, or a bucket that speaks S3."""

    def put(self, data: bytes, *, name: str | None = None) -> str:
        """Store bytes, durably, and return their name; storing twice is storing once.

        Args:
            data: The bytes.
            name: Their name, where the caller has just computed it from these very bytes; it is believed.
        """
        ...

    def put_file(self, path: Path) -> str:
        """Store a file's bytes without holding them in memory; the file itself stays."""
        ...

    def get(self, name: str) -> bytes:
        """Fetch bytes; raises :class:`gas.errors.StorageError` when unknown or damaged."""
        ...

    def get_file(self, name: str, target: Path) -> None:
        """Fetch bytes into a file without holding them in memory; raises like :meth:`get`, and leaves no file then."""
        ...

    def exists(self, name: str) -> bool:
        """Whether the blob is there."""
        ...

    def delete(self, name: str) -> None:
        """Remove the blob; an unknown name is no error."""
        ...

    def names(self) -> Iterator[str]:
        """All names, in no order."""
        ...


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
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"

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
        try:
            data = self._path(name).read_bytes()
        except FileNotFoundError as error:
            raise StorageError(f"Blob {name} is not in the store.", code="blob_missing") from error
        except OSError as error:
            raise StorageError(f"Blob {name} could not be read ({error.strerror}).") from error
        if sha256_hex(data) != name:
            raise StorageError(f"Blob {name} is damaged.", code="blob_damaged")
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
                target = self._path(found)
                target.parent.mkdir(parents=True, exist_ok=True)
                Path(aside).replace(target)
            except BaseException:
                Path(aside).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StorageError(f"The blob could not be stored ({error.strerror}).", hint="Is the disk full?") from error
        return found

    def _path(self, name: str) -> Path:
        return self.root / checked_name(name)[:2] / name


def open_blobs(url: str | Path, env: Mapping[str, str] | None = None) -> BlobStore:
    """The blob store at an address.

    Args:
        url: A folder, or ``s3://bucket/prefix?endpoint=https://host:port&region=name`` (prefix and options may be
            left out). Keys have no place in it.
        env: The ``AWS_*`` variables with the keys; the process's environment when left out.

    Raises:
        gas.errors.ConfigurationError: ``blobs_address``: the address names no store, or carries what it may not;
            ``not_installed``: obstore is missing.
    """
    text = str(url)
    if isinstance(url, Path) or "://" not in text:
        return FolderBlobs(Path(url))
    # No message repeats the address: somebody may have put keys into it.
    try:
        parts = urlsplit(text)
        options = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
        endpoint = urlsplit(options.get("endpoint", ["https://"])[0])
        bad = parts.scheme != "s3" or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc)
        bad |= bool(parts.fragment) or not options.keys() <= {"endpoint", "region"}
        bad |= any(len(values) > 1 for values in options.values())
        bad |= endpoint.scheme not in ("http", "https") or "@" in endpoint.netloc
        bad |= "endpoint" in options and not endpoint.hostname
    except ValueError:
        bad = True
    if bad:
        raise ConfigurationError(
            "The address of the blobs can't be used.",
            code="blobs_address",
            hint="Give a folder, or s3://bucket/prefix?endpoint=https://host:port&region=name; "
            "keys belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    try:
        from gas.storage.s3_blobs import S3Blobs
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The package {error.name} is not installed.", code="not_installed", hint="Install gas[bench]."
        ) from error
    return S3Blobs(
        parts.netloc,
        parts.path,
        endpoint=options.get("endpoint", [""])[0],
        region=options.get("region", [""])[0],
        env=os.environ if env is None else env,
    )
