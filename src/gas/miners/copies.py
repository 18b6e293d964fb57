"""The operator's own copies of what was made, and the lock that keeps a second miner off one state folder."""

from __future__ import annotations

import fcntl
import mimetypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from gas.errors import ConfigurationError
from gas.miners.faults import ADVICE

__all__ = ["LocalCopies", "sole_owner"]

_ENDINGS: Final = {"image/webp": ".webp", "audio/wav": ".wav", "audio/flac": ".flac", "audio/ogg": ".ogg"}


class LocalCopies:
    """Keeps a copy of each medium; a copy that can't be kept is logged, and costs nobody the medium.

    Args:
        folder: Where they go: ``<task id><ending>``.

    Raises:
        ConfigurationError: ``output_dir``: the folder can't be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = structlog.get_logger("gas.miner")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"MINER_OUTPUT_DIR: {folder} can't be made ({error.strerror}).", code="output_dir"
            ) from error
        if not os.access(folder, os.W_OK):
            raise ConfigurationError(f"MINER_OUTPUT_DIR: {folder} can't be written.", code="output_dir")

    def keep(self, task_id: str, data: bytes, mime: str) -> None:
        """Write one copy, whole or not at all."""
        ending = _ENDINGS.get(mime) or mimetypes.guess_extension(mime) or ".bin"
        path = self._folder / f"{task_id}{ending}"
        aside = path.with_name(f".{path.name}.part")
        try:
            aside.write_bytes(data)
            aside.replace(path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            self._log.error("copy_not_kept", task=task_id, error=error.strerror, what_to_do=ADVICE["disk_full"])


@contextmanager
def sole_owner(folder: Path, *, patience_seconds: float = 0.0) -> Iterator[None]:
    """Hold a miner's state folder; the system lets it go however this process ends.

    Args:
        folder: The state folder; made when it isn't there.
        patience_seconds: How long to wait for another one that is just ending.

    Raises:
        ConfigurationError: ``state_in_use``, or ``state_dir`` when the folder can't be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"MINER_STATE_DIR: {folder} can't be used ({error.strerror}).", code="state_dir"
        ) from error
    try:
        end = time.monotonic() + patience_seconds
        while not _locked(handle):
            if time.monotonic() >= end:
                raise ConfigurationError(
                    f"Another generator works in {folder}.",
                    code="state_in_use",
                    hint="Stop it first, or give this one a MINER_STATE_DIR of its own.",
                )
            time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
