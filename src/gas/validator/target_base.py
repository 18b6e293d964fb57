"""What a target of publishing is, whoever keeps it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Protocol

from gas.errors import ConfigurationError

__all__ = ["Target", "checked_path"]

_PATH: Final = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.-]{0,99}/){0,2}[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Target(Protocol):
    """Takes files under names; a file is seen when it is whole, and the same file may be brought again.

    Attributes:
        address: Of the target, without secrets; fit to be shown and kept.
    """

    address: str

    def put(self, path: str, file: Path, sha256: str) -> bool:
        """Bring a file.

        Args:
            path: Its name there, with at most two folders.
            file: Its content, which does not change meanwhile.
            sha256: Of the content, hex.

        Returns:
            Whether it had to be sent; False when the target says that these very bytes are there.

        Raises:
            gas.errors.StorageError: It can't be written there.
            gas.errors.SourceUnreachable: No answer after three tries.
            gas.errors.ConfigurationError: There is no such target, or it is not for us.
        """
        ...

    def close(self) -> None:
        """Drop connections."""
        ...


def checked_path(path: str) -> str:
    """The path, when it may be one; raises :class:`gas.errors.ConfigurationError` otherwise."""
    if not _PATH.fullmatch(path) or ".." in path:
        raise ConfigurationError(f"{path[:80]!a} is no name of a published file.", code="publish_address")
    return path
