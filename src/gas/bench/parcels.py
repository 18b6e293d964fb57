"""Files on their way to the machine of a shard, and the folder that waits for them there.

A file is read where it lies when the machine can see it (a shared folder, or the same machine); otherwise it comes in
pieces of bounded size. Either way its SHA-256 is what says that it is the right one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gas.bench.executors.base import Executor, Shared
from gas.config import HomeSettings
from gas.errors import IntegrityError, StorageError
from gas.submissions.fingerprint import file_sha256

__all__ = ["Parcel", "machine_id", "node_folder", "parcel", "parcel_of_file", "place", "shard_folder"]

PIECE_BYTES: Final = 8 * 2**20
"""Largest piece that is handed to an executor."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file on its way.

    Attributes:
        sha256: Of its content, 64 hex digits.
        pieces: Its content, cut; empty when the receiver is expected to see the file itself.
        path: Where it lies for those who see it.
    """

    sha256: str
    pieces: tuple[Shared, ...] = ()
    path: str | None = None


def parcel(data: bytes, executor: Executor) -> Parcel:
    """Hand bytes to an executor."""
    cuts = range(0, max(1, len(data)), PIECE_BYTES)
    return Parcel(
        hashlib.sha256(data).hexdigest(), tuple(executor.share(data[start : start + PIECE_BYTES]) for start in cuts)
    )


def parcel_of_file(path: Path, sha256: str, executor: Executor) -> Parcel:
    """Hand a file to an executor, one piece in memory at a time.

    Raises:
        StorageError: It can't be read.
    """
    pieces = []
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                pieces.append(executor.share(piece))
    except OSError as error:
        raise StorageError(f"{path.name} can't be read ({error.strerror}).") from error
    return Parcel(sha256, tuple(pieces), str(path))


def place(sent: Parcel, target: Path) -> Path | None:
    """Where a parcel's file can be read on this machine.

    Args:
        sent: The parcel.
        target: Where it is written when it isn't here.

    Returns:
        The path; None when the file isn't here and no pieces came with it.

    Raises:
        IntegrityError: ``parcel_changed``: the pieces are not what was sent.
        StorageError: It can't be written.
    """
    if sent.path is not None:
        path = Path(sent.path)
        with suppress(OSError):
            if path.is_file() and file_sha256(path) == sent.sha256:
                return path
    if not sent.pieces:
        return None
    digest = hashlib.sha256()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for piece in sent.pieces:
                data = piece.load()
                digest.update(data)
                file.write(data)
    except OSError as error:
        raise StorageError(f"The data of the shard can't be written ({error.strerror}).") from error
    if digest.hexdigest() != sent.sha256:
        target.unlink()
        raise IntegrityError("A file has changed on its way to the machine of a shard.", code="parcel_changed")
    return target


def node_folder() -> Path:
    """Where this machine keeps what shards need: ``node`` in the home, or a private folder of the temporary one.

    Raises:
        StorageError: It can't be made, or belongs to somebody else.
    """
    home = HomeSettings().home
    folder = home / "node" if home.is_absolute() else Path(tempfile.gettempdir()) / f"gas-node-{os.getuid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise StorageError(f"The folder {folder} can't be made ({error.strerror}).") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StorageError(f"The folder {folder} belongs to somebody else.", hint="Set GAS_HOME on this machine.")
    return folder


@contextmanager
def shard_folder(node: Path) -> Iterator[Path]:
    """A folder for one shard, gone afterwards; those of shards that were killed go with it.

    Raises:
        StorageError: It can't be made.
    """
    shards = node / "shards"
    try:
        shards.mkdir(exist_ok=True)
        with _locked(shards):  # or another one would sweep this one away before it is held
            _sweep(shards)
            folder = Path(tempfile.mkdtemp(dir=shards))
            held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(held, fcntl.LOCK_SH)
    except OSError as error:
        raise StorageError(f"A folder for the shard can't be made ({error.strerror}).") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def machine_id() -> str:
    """The same for all processes under one kernel until it is started anew; empty where nobody knows."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _sweep(shards: Path) -> None:
    """Remove folders whose shard has died: nobody holds them."""
    for folder in shards.iterdir():
        with suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(fd)
