"""Folders that go with the process that made them: by its own hand, or by the next one's after it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

__all__ = ["HeldFolder"]


class HeldFolder:
    """A new folder that is this process's as long as it lives; those of processes that were killed go.

    Args:
        prefix: Of its name; says which folders are swept.
        parent: Where; must exist. The system's folder for temporary files when left out.

    Attributes:
        path: The folder; only its owner may enter it.

    Raises:
        OSError: It can't be made.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        _sweep(prefix, parent)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            # Another process may sweep, and take it for a dead one's in the moment before it is held.
            try:
                self._held = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(self._held).st_nlink:
                    return
            os.close(self._held)

    def close(self) -> None:
        """Remove it with all that is in it; may be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


def _sweep(prefix: str, parent: Path) -> None:
    for left in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            held = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(held).st_uid == os.geteuid():
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(held)
