"""Where the bytes of a data set come from: the seam that every kind of source implements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["OnBytes", "RemoteFile", "Source"]

OnBytes = Callable[[int], None]
"""Told how many more bytes have arrived; may raise to stop the transfer (a limit, an interrupt)."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file that a source offers.

    Attributes:
        path: Its path inside the source, with ``/``, never absolute, without ``..``.
        size: Bytes, where the source says so.
        sha256: Hex SHA-256, where the source says so.
        version: Changes whenever the content does: a revision, an ETag, a hash; empty when unknown.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    version: str = ""


class Source(Protocol):
    """One place that media come from; the contract suite runs on every implementation."""

    @property
    def revision(self) -> str:
        """The pinned revision that was resolved: a commit, a version, a hash over the listing."""
        ...

    def files(self) -> tuple[RemoteFile, ...]:
        """Every file on offer, by path.

        Raises:
            gas.errors.SourceUnreachable: No answer after three tries.
            gas.errors.ConfigurationError: There is no such source or revision.
        """
        ...

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes | None = None) -> None:
        """Bring one file to ``part``, going on after the bytes that it already holds.

        When this returns, ``part`` is complete and agrees with the file's size and hash, where those are known.

        Raises:
            gas.errors.SourceUnreachable: The transfer broke off three times; what has arrived is kept.
            gas.errors.IntegrityError: The content is not what the source promised; ``part`` is removed.
            gas.errors.StorageError: The disk is full or can't be written.
        """
        ...

    def close(self) -> None:
        """Free connections."""
        ...
