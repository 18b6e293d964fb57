"""What a blob store is, whoever keeps it: immutable bytes under the name of their SHA-256."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from gas.errors import StorageError

__all__ = ["BlobStore", "checked_name", "sha256_hex"]

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
