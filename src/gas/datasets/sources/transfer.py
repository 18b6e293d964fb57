"""What every transfer of a file has in common: limits, tries, and a part file that knows what it holds."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Self, TypeVar

from gas.clock import Clock, SystemClock
from gas.datasets.sources.base import OnBytes, RemoteFile
from gas.errors import IntegrityError, SourceUnreachable, StorageError

__all__ = ["CHUNK", "Interrupted", "PartFile", "Patience", "TransferLimits", "sidecar_of"]

CHUNK: Final = 1 << 20
"""Bytes that are moved at a time."""

_MAX_SIDECAR: Final = 64 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """What a source may cost.

    Attributes:
        tries: Attempts before a source counts as unreachable.
        first_wait: Seconds before the second try; doubled for each further one.
        longest_wait: Seconds; a server that asks for more patience (``Retry-After``) is waited for this long.
        connect_seconds: Until a connection stands.
        read_seconds: Between two pieces of an answer.
        slow_seconds: How long a transfer may stay below ``slow_rate`` before it is broken off.
        slow_rate: Bytes a second.
        redirects: Followed at most, one after the other.
        max_file_bytes: Of one file.
        max_listing_bytes: Of one page of a listing.
        max_files: In one listing.
    """

    tries: int = 3
    first_wait: float = 1.0
    longest_wait: float = 120.0
    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    slow_seconds: float = 60.0
    slow_rate: float = 1024.0
    redirects: int = 5
    max_file_bytes: int = 256 * 1024**3
    max_listing_bytes: int = 64 * 1024**2
    max_files: int = 1_000_000


class Interrupted(Exception):
    """One try failed in a way that another may not.

    Args:
        reason: What happened, without addresses and secrets; goes on from "the last time".
        wait: Seconds that the source asked for.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Patience:
    """How often something is tried, and how the time between is spent."""

    limits: TransferLimits = field(default_factory=TransferLimits)
    clock: Clock = field(default_factory=SystemClock)
    sleep: Callable[[float], None] = time.sleep

    def repeat(self, what: str, action: Callable[[], T]) -> T:
        """Call ``action`` until it isn't interrupted, at most ``limits.tries`` times.

        Args:
            what: Subject of the error's sentence; free of secrets.
            action: Raises :class:`Interrupted` when another try makes sense.

        Raises:
            SourceUnreachable: Every try was interrupted.
        """
        reason = ""
        for attempt in range(self.limits.tries):
            try:
                return action()
            except Interrupted as broken:
                reason = broken.reason
                wait = broken.wait if broken.wait is not None else self.limits.first_wait * 2**attempt
            if attempt + 1 < self.limits.tries:
                self.sleep(max(0.0, min(wait, self.limits.longest_wait)))
        raise SourceUnreachable(
            f"{what} could not be reached: {self.limits.tries} tries failed, the last one because {reason}.",
            hint="What has arrived so far is kept; the same command goes on from there.",
        )


def sidecar_of(part: Path) -> Path:
    """The small file beside an unfinished part that says which version its bytes are of."""
    return part.with_name(part.name + ".from")


class PartFile:
    """A file that grows towards what a source has promised; hashed while it grows.

    Use it as a context manager. The bytes that are there already are kept when the file beside them says that
    they are of the same version, and dropped otherwise, so that two versions never mix.

    Args:
        path: Where the bytes go.
        promised: Size, hash and version, as far as the source says.
        limits: ``max_file_bytes`` ends a body without end.
        on_bytes: Told of every piece.
        git_oid: Name of the content as git gives it (SHA-1 over header and bytes), where the source knows no
            SHA-256.

    Raises:
        StorageError: The disk is full or can't be written.
    """

    def __init__(
        self,
        path: Path,
        promised: RemoteFile,
        limits: TransferLimits,
        on_bytes: OnBytes | None = None,
        git_oid: str | None = None,
    ) -> None:
        self.path = path
        self.promised = promised
        self.size = 0
        self.etag = ""
        self.resumed = False
        self._limits = limits
        self._on_bytes = on_bytes
        self._git_oid = git_oid if promised.size is not None else None
        self._file: IO[bytes] | None = None
        self._restart_hashes()

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            self._take_over()
        except OSError as error:
            self.close()
            raise _disk(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what it holds stays."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                raise _disk(error) from error

    @property
    def is_verifiable(self) -> bool:
        """Whether a hash will tell if the bytes are the right ones."""
        return self.promised.sha256 is not None or self._git_oid is not None

    @property
    def is_full(self) -> bool:
        """Whether all promised bytes are there; False where the size is unknown."""
        return self.promised.size is not None and self.size == self.promised.size

    def restart(self, etag: str = "") -> None:
        """Drop what is there and begin anew.

        Args:
            etag: The server's name for the version that follows.
        """
        try:
            file = self._opened()
            file.seek(0)
            file.truncate(0)
            self.size, self.etag, self.resumed = 0, etag, False
            self._restart_hashes()
            sidecar_of(self.path).write_text(json.dumps({"key": self._key(), "etag": etag}), encoding="utf-8")
        except OSError as error:
            raise _disk(error) from error

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            IntegrityError: More than promised or allowed; the file is removed.
            StorageError: The disk is full.
        """
        if not chunk:
            return
        after = self.size + len(chunk)
        if self.promised.size is not None and after > self.promised.size:
            raise self.refuse(f"is longer than the {self.promised.size:,} bytes that the source promised")
        if after > self._limits.max_file_bytes:
            raise self.refuse(f"is longer than the allowed {self._limits.max_file_bytes:,} bytes", "too_large")
        try:
            self._opened().write(chunk)
        except OSError as error:
            raise _disk(error) from error
        self.size = after
        self._update(chunk)
        if self._on_bytes is not None:
            self._on_bytes(len(chunk))

    def finish(self) -> None:
        """Check what has arrived; call it when the source says that this was all.

        Raises:
            Interrupted: The bytes of an earlier transfer don't fit to the others; the file begins anew.
            IntegrityError: Size or hash is not what was promised; the file is removed.
            StorageError: The disk is full.
        """
        try:
            self._opened().flush()
        except OSError as error:
            raise _disk(error) from error
        if self.promised.size is not None and self.size != self.promised.size:
            raise self.refuse(f"has {self.size:,} bytes, and the source promised {self.promised.size:,}")
        wrong = (self.promised.sha256 is not None and self._sha256.hexdigest() != self.promised.sha256) or (
            self._git_oid is not None and self._sha1.hexdigest() != self._git_oid
        )
        if wrong and self.resumed:
            self.restart()
            raise Interrupted("the bytes of an earlier transfer were not of this version")
        if wrong:
            raise self.refuse("has another hash than the source promised")
        self._remove_sidecar()

    def refuse(self, what: str, code: str = "integrity") -> IntegrityError:
        """Remove the file, and make the error that says why.

        Args:
            what: Goes on from "The file such-and-such".
            code: Of the error.
        """
        self.close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise _disk(error) from error
        self._remove_sidecar()
        return IntegrityError(f"The file {self.promised.path} {what}; it was not kept.", code=code)

    def _key(self) -> str:
        return self.promised.sha256 or self.promised.version

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise StorageError("The part file is closed.")
        return self._file

    def _take_over(self) -> None:
        """Decide whether the bytes that are there are of this version, and hash them if so."""
        there = self.path.stat().st_size
        if there == 0:
            self.restart()
            return
        try:
            text = sidecar_of(self.path).read_bytes()[:_MAX_SIDECAR].decode()
            said = json.loads(text)
            key, etag = str(said["key"]), str(said["etag"])
        except (OSError, ValueError, KeyError, TypeError):
            key, etag = "", ""
        known = self._key()
        too_long = self.promised.size is not None and there > self.promised.size
        if key != known or (not known and not etag) or too_long:
            self.restart()
            return
        self.etag, self.resumed = etag, True
        with self.path.open("rb") as held:
            while chunk := held.read(CHUNK):
                self._update(chunk)
                self.size += len(chunk)

    def _restart_hashes(self) -> None:
        self._sha256 = hashlib.sha256()
        self._sha1 = hashlib.sha1(f"blob {self.promised.size}\0".encode(), usedforsecurity=False)

    def _update(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        if self._git_oid is not None:
            self._sha1.update(chunk)

    def _remove_sidecar(self) -> None:
        try:
            sidecar_of(self.path).unlink(missing_ok=True)
        except OSError as error:
            raise _disk(error) from error


def _disk(error: OSError) -> StorageError:
    return StorageError(f"What arrives can't be written ({error.strerror}).", hint="Is the disk full?")
