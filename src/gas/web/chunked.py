"""Large packages in pieces: an upload that was cut off goes on at the byte where it stopped.

Each piece is a signed request of its own, so that neither side ever holds more than one in memory, and nothing is
taken from a stranger. What is under way lies in a folder, named by a hash over the hotkey and the content.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gas.clock import Clock
from gas.errors import RequestRefused, StorageError
from gas.web.room import RESERVE_BYTES, room_left

__all__ = ["CHUNK_BYTES", "Pieces"]

CHUNK_BYTES: Final = 4 * 2**20
"""Most bytes of one piece."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class Pieces:
    """Uploads under way; may be called from several threads.

    Attributes:
        folder: Where they lie.
        clock: For their age.
        max_bytes: Largest file.
        per_hotkey: Uploads that one hotkey may have under way; the oldest one goes first.
        max_age_seconds: After how long without a piece an upload is thrown away.
        free: Bytes that are free where a folder lies.
    """

    folder: Path
    clock: Clock
    max_bytes: int
    per_hotkey: int = 3
    max_age_seconds: float = 24 * 3600.0
    free: Callable[[Path], int] = field(default=lambda folder: shutil.disk_usage(folder).free)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def offset(self, hotkey: str, sha256: str) -> int:
        """How many bytes of a content have arrived.

        Raises:
            RequestRefused: 422 ``bad_upload``: that is no SHA-256.
        """
        path = self._path(hotkey, sha256)
        with self._lock:
            return path.stat().st_size if path.exists() else 0

    def append(self, hotkey: str, sha256: str, offset: int, data: bytes) -> int:
        """Add a piece.

        Args:
            hotkey: Who sends it.
            sha256: Hex SHA-256 of the whole content.
            offset: Where the piece begins.
            data: The piece.

        Returns:
            How many bytes have arrived now. A piece that is there already is not written again.

        Raises:
            RequestRefused: 409 ``wrong_offset`` (the message says where to go on), 413 ``too_large``, 422
                ``bad_upload``.
            StorageError: The disk failed, or ``no_room``: it has next to nothing left.
        """
        path = self._path(hotkey, sha256)
        if offset < 0 or offset + len(data) > self.max_bytes:
            raise RequestRefused(f"The package is larger than {self.max_bytes} bytes.", status=413, code="too_large")
        try:
            with self._lock:
                path.parent.mkdir(parents=True, exist_ok=True)
                here = path.stat().st_size if path.exists() else 0
                if offset + len(data) <= here:
                    return here
                if offset != here:
                    raise RequestRefused(
                        f"The piece begins at {offset}, and {here} bytes have arrived.",
                        status=409,
                        code="wrong_offset",
                        hint="Ask GET /uploads/{sha256} where to go on.",
                    )
                if here == 0:
                    self._make_room(path.parent)
                if self.free(path.parent) < len(data) + RESERVE_BYTES:
                    raise room_left()
                self._write(path, here, data)
                return here + len(data)
        except OSError as error:
            raise StorageError(f"The piece could not be stored ({error.strerror}).") from error

    def take(self, hotkey: str, sha256: str) -> Path:
        """The whole content, checked; whoever takes it deletes it.

        Raises:
            RequestRefused: 404 ``unknown_upload``, or 422 ``wrong_hash``: what has arrived is not what was
                announced, and it is thrown away.
            StorageError: The disk failed.
        """
        path = self._path(hotkey, sha256)
        taken = path.with_suffix(".taken")
        try:
            with self._lock:
                if not path.exists():
                    raise RequestRefused("There is no such upload.", status=404, code="unknown_upload")
                path.replace(taken)
            with taken.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise StorageError(f"The upload could not be read ({error.strerror}).") from error
        if found != sha256:
            taken.unlink(missing_ok=True)
            raise RequestRefused(
                "What has arrived has another SHA-256 than was announced.",
                status=422,
                code="wrong_hash",
                hint="Push again; the upload begins anew.",
            )
        return taken

    def sweep(self) -> None:
        """Throw away what nobody has gone on with."""
        limit = self.clock.time() - self.max_age_seconds
        with self._lock:
            for path in self.folder.glob("*/*") if self.folder.is_dir() else ():
                if path.stat().st_mtime < limit:
                    path.unlink(missing_ok=True)

    def _path(self, hotkey: str, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise RequestRefused("An upload is named by the SHA-256 of its content.", status=422, code="bad_upload")
        return self.folder / hashlib.sha256(hotkey.encode()).hexdigest()[:32] / f"{sha256}.part"

    def _make_room(self, folder: Path) -> None:
        others = sorted(folder.glob("*.part"), key=lambda path: path.stat().st_mtime)
        for path in others[: max(0, len(others) - self.per_hotkey + 1)]:
            path.unlink()

    @staticmethod
    def _write(path: Path, here: int, data: bytes) -> None:
        with path.open("ab") as file:
            try:
                file.write(data)
                file.flush()
            except OSError:
                # Half a piece would shift all that follows.
                os.ftruncate(file.fileno(), here)
                raise
