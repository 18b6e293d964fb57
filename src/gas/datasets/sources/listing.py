"""Listings of files as sources give them: their paths checked, and a hash over the whole as a revision."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from gas.datasets.sources.base import RemoteFile
from gas.errors import ConfigurationError, IntegrityError

__all__ = ["check_pin", "checked_listing", "listing_hash", "safe_path"]

_MAX_PATH: Final = 1024
_BAD: Final = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def safe_path(path: str) -> str:
    """The path itself, when it is relative and stays inside.

    Raises:
        IntegrityError: ``bad_path``: absolute, with ``..``, empty parts, backslashes or control characters, or too
            long.
    """
    parts = path.split("/")
    if not path or len(path) > _MAX_PATH or _BAD.search(path) or any(part in ("", ".", "..") for part in parts):
        raise IntegrityError(
            f"The source lists the path {path[:80]!a}, which is not a plain path inside of it.", code="bad_path"
        )
    return path


def checked_listing(files: Iterable[RemoteFile], most: int) -> tuple[RemoteFile, ...]:
    """Files of a listing, by path.

    Args:
        files: As the source gives them.
        most: Files that a listing may have.

    Raises:
        IntegrityError: A path leads out of the source or comes twice, a size or a hash is no such thing, or there
            are too many.
    """
    found: dict[str, RemoteFile] = {}
    for file in files:
        if safe_path(file.path) in found:
            raise IntegrityError(f"The source lists {file.path[:80]!a} twice.", code="bad_listing")
        if (file.size is not None and file.size < 0) or (file.sha256 and not _SHA256.fullmatch(file.sha256)):
            raise IntegrityError(f"The source lists {file.path[:80]!a} with a wrong figure.", code="bad_listing")
        if len(found) >= most:
            raise IntegrityError(f"The source lists more than the allowed {most:,} files.", code="too_many_files")
        found[file.path] = file
    return tuple(found[path] for path in sorted(found))


def listing_hash(files: Iterable[RemoteFile]) -> str:
    """Hex SHA-256 over path, size, hash and version of every file; the order doesn't matter."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda f: f.path):
        line = "\x1f".join((file.path, str(file.size), file.sha256 or "", file.version if not file.sha256 else ""))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def check_pin(pinned: str, found: str) -> None:
    """Compare a pinned revision with what the source has now.

    Raises:
        ConfigurationError: The pin is no revision of this kind of source.
        IntegrityError: The source has changed since.
    """
    if not pinned or pinned == found:
        return
    if not _SHA256.fullmatch(pinned):
        raise ConfigurationError(
            f"The revision {pinned[:80]!a} is none of this kind of source.",
            hint="It is the 64 hex digits that `gascli data list` shows after a fetch; leave it out for the newest.",
        )
    raise IntegrityError(
        "The source has changed since its revision was pinned; nothing was fetched.",
        hint="Look at what has changed, then pin the new revision.",
    )
