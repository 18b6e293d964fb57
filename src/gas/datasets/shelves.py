"""What the models of a round read: decoded and preprocessed once for each shape, whoever asks first.

A *shelf* is one file of equal slots, one a sample, for one target shape and one pass; a second file has one byte a slot
that says whether it is filled. Ten models of one shape cost one decode and nine reads of some 20 microseconds. Several
processes may use a folder at once: a slot's content depends on nothing but the medium, so the worst that a race can
do is to write the same bytes twice. A shelf is made by one version of this project and of the decoders, and not read by
another one: their pixels may differ.

What is covered: kill -9 at any moment (the flag is set after the slot is written), a power cut (nothing is flushed to
the disk, which would take longer than many a run: a shelf is emptied when the machine has been started anew), a full
disk (it goes on without keeping what doesn't fit).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import mmap
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from gas.errors import MediaRejected, StorageError
from gas.media.limits import DEFAULT_LIMITS, MediaLimits
from gas.media.target import Target, load_medium
from gas.media.transforms import SHARING_CHAIN, SHARING_CHAIN_AUDIO, SHARING_CHAIN_VIDEO
from gas.storage.blobs import BlobStore
from gas.types import Modality, Sample
from gas.versions import DECODERS, installed

__all__ = ["RoundShelves"]

_FORMAT: Final = 2
_LOCKS: Final = 64
_GOOD, _BAD = 1, 2
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CHAINS: Final = {
    Modality.IMAGE: SHARING_CHAIN,
    Modality.VIDEO: SHARING_CHAIN_VIDEO,
    Modality.AUDIO: SHARING_CHAIN_AUDIO,
}


class RoundShelves:
    """The media of one round, in every shape that a model has asked for; implements ``gas.bench.feed.RoundMedia``.

    Safe for several threads, and processes may share a folder.

    Args:
        samples: The round's samples.
        blobs: Where the encoded media lie.
        folder: Where the shelves go; made when missing, may be kept between runs and shared by rounds.
        max_bytes: Size that the shelves may reach. When a new shelf doesn't fit, those that nobody has open are
            removed, the longest unused first; if it still doesn't, only its first slots are kept and the rest is
            decoded each time.
        limits: What one medium may cost.

    Attributes:
        decodes: How many media this object has decoded.
        full: Whether the disk has run full, so that nothing more is kept.

    Raises:
        StorageError: The folder can't be made.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        blobs: BlobStore,
        folder: Path,
        *,
        max_bytes: int = 8 * 1024**3,
        limits: MediaLimits = DEFAULT_LIMITS,
    ) -> None:
        names = sorted(sample.sample_id for sample in samples)
        self._slots = {name: slot for slot, name in enumerate(names)}
        self._digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        self._blobs, self._folder = blobs, folder
        self._max_bytes, self._limits = max_bytes, limits
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._lock = threading.Lock()
        self._own = _OfThread()
        self._shelves: dict[tuple[Target, bool], _Shelf | _NoShelf] = {}
        self._errors: dict[str, MediaRejected] = {}
        self.decodes = 0
        self.full = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"The round's cache can't be made ({error.strerror}).") from error

    @property
    def errors(self) -> Mapping[str, MediaRejected]:
        """Media that this object found undecodable, by sample, with the reason."""
        with self._lock:
            return dict(self._errors)

    def fetch(
        self, sample_ids: Sequence[str], target: Target, *, robust: bool
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Inputs of some samples; called from several threads at once.

        Args:
            sample_ids: Of the round.
            target: Shape and dtype to deliver.
            robust: Whether the sharing chain is applied before preprocessing.

        Returns:
            Inputs, (n, *target.shape), and a mask (n,) that is false where the medium can't be decoded (zeros then).

        Raises:
            StorageError: A sample is not of the round, its blob is missing or damaged, or the cache can't be opened.
        """
        shelf = self._shelf(target, robust)
        out = np.empty((len(sample_ids), *target.shape), target.dtype)
        usable = np.ones(len(sample_ids), np.bool_)
        for k, sample_id in enumerate(sample_ids):
            slot = self._slots.get(sample_id)
            if slot is None:
                raise StorageError("The sample is not of this round.", code="sample_unknown")
            usable[k] = shelf.read(slot, out[k]) or self._make(sample_id, slot, shelf, out[k])
            if not usable[k]:
                out[k] = 0
        return out, usable

    def close(self) -> None:
        """Let go of the shelves."""
        with self._lock:
            for shelf in self._shelves.values():
                shelf.close()
            self._shelves.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make(self, sample_id: str, slot: int, shelf: _Shelf | _NoShelf, out: NDArray[np.generic]) -> bool:
        if shelf.is_bad(slot):
            return False
        with self._locks[slot % _LOCKS]:
            # Somebody else may have made it while this thread waited.
            found = shelf.read(slot, out)
            if found or shelf.is_bad(slot):
                return found
            data = self._blobs.get(sample_id)
            with self._lock:
                self.decodes += 1
            try:
                load_medium(
                    data, shelf.target, robust=shelf.robust, limits=self._limits, out=out, scratch=self._own.scratch
                )
            except MediaRejected as error:
                with self._lock:
                    self._errors[sample_id] = error
                self._keep(shelf, slot, None)
                return False
            self._keep(shelf, slot, out)
            return True

    def _keep(self, shelf: _Shelf | _NoShelf, slot: int, pixels: NDArray[np.generic] | None) -> None:
        if self.full:
            return
        try:
            shelf.write(slot, pixels)
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise StorageError(f"The round's cache can't be written ({error.strerror}).") from error
            self.full = True

    def _shelf(self, target: Target, robust: bool) -> _Shelf | _NoShelf:
        with self._lock:
            known = self._shelves.get((target, robust))
            if known is None:
                try:
                    known = self._shelves[target, robust] = self._open(target, robust)
                except OSError as error:
                    if error.errno not in _DISK_FULL:
                        raise StorageError(f"The round's cache can't be opened ({error.strerror}).") from error
                    known = self._shelves[target, robust] = _NoShelf(target, robust)
                    self.full = True
            return known

    def _open(self, target: Target, robust: bool) -> _Shelf:
        made_by = [_FORMAT, installed(DECODERS)]
        what = [*made_by, self._digest, str(target.modality), list(target.shape), target.dtype, target.rate]
        key = hashlib.sha256(json.dumps([*what, _CHAINS[target.modality] if robust else ""]).encode()).hexdigest()[:24]
        wanted = target.nbytes * len(self._slots)
        room = self._room(key, wanted)
        return _Shelf(
            self._folder / key, target, robust, len(self._slots), min(len(self._slots), room // target.nbytes)
        )

    def _room(self, key: str, wanted: int) -> int:
        """Bytes that a shelf may take, after old ones have made way."""
        sizes: dict[Path, os.stat_result] = {}
        for path in self._folder.glob("*.slots"):
            # Another process may be making room, too.
            with contextlib.suppress(FileNotFoundError):
                sizes[path] = path.stat()
        sizes.pop(self._folder / f"{key}.slots", None)
        taken = sum(stat.st_blocks * 512 for stat in sizes.values())
        for path in sorted(sizes, key=lambda path: sizes[path].st_mtime_ns):
            if taken + wanted <= self._max_bytes:
                break
            if _remove_unused(path):
                taken -= sizes[path].st_blocks * 512
        return max(0, self._max_bytes - taken)


class _OfThread(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        from gas.media.jpeg import Scratch

        self.scratch = Scratch()


class _Shelf:
    """One file of slots and one of flags, which is mapped: looking at a flag is no system call."""

    def __init__(self, path: Path, target: Target, robust: bool, count: int, capacity: int) -> None:
        self.target, self.robust = target, robust
        self._capacity, self._size = capacity, target.nbytes
        with contextlib.ExitStack() as opened:
            self._slots = _open_shared(path.with_suffix(".slots"))
            opened.callback(os.close, self._slots)
            flags = os.open(path.with_suffix(".flags"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                # Flags that another process has mapped are never cut off, not for a moment: it would be killed.
                fcntl.flock(flags, fcntl.LOCK_EX)
                _empty_after_a_power_cut(flags, path.with_suffix(".seal"))
                # Written, and no hole: on a full disk, setting a flag in a hole would kill the process.
                there = os.fstat(flags).st_size
                if there < count and os.pwrite(flags, bytes(count - there), there) != count - there:
                    raise OSError(errno.ENOSPC, "The disk is full")
                fcntl.flock(flags, fcntl.LOCK_UN)
                self._flags = mmap.mmap(flags, count)
            finally:
                os.close(flags)
            os.utime(self._slots)
            opened.pop_all()

    def read(self, slot: int, out: NDArray[np.generic]) -> bool:
        """Copy a filled slot into ``out``; false when there is nothing."""
        if self._flags[slot] != _GOOD:
            return False
        return os.preadv(self._slots, [out.data.cast("B")], slot * self._size) == self._size

    def is_bad(self, slot: int) -> bool:
        """Whether the medium is known to be undecodable."""
        return self._flags[slot] == _BAD

    def write(self, slot: int, pixels: NDArray[np.generic] | None) -> None:
        """Fill a slot, or mark it as undecodable."""
        if pixels is None:
            self._flags[slot] = _BAD
            return
        if slot >= self._capacity:
            return
        if os.pwrite(self._slots, np.ascontiguousarray(pixels).data.cast("B"), slot * self._size) != self._size:
            raise OSError(errno.ENOSPC, "The disk is full")
        self._flags[slot] = _GOOD

    def close(self) -> None:
        """Let go of the files."""
        self._flags.close()
        os.close(self._slots)


class _NoShelf:
    """Stands for a shelf that a full disk didn't let be opened: nothing is ever in it."""

    def __init__(self, target: Target, robust: bool) -> None:
        self.target, self.robust = target, robust

    def read(self, slot: int, out: NDArray[np.generic]) -> bool:  # noqa: ARG002
        return False

    def is_bad(self, slot: int) -> bool:  # noqa: ARG002
        return False

    def write(self, slot: int, pixels: NDArray[np.generic] | None) -> None:
        """Forget it."""

    def close(self) -> None:
        """There is nothing to let go of."""


def _empty_after_a_power_cut(flags: int, seal: Path) -> None:
    """Flags may have reached the disk before their slots, unless the machine has been up ever since."""
    boot = _boot_id()
    try:
        if seal.read_text(encoding="ascii") == boot:
            return
    except (OSError, UnicodeDecodeError):
        pass
    there = os.fstat(flags).st_size
    if os.pwrite(flags, bytes(there), 0) != there:
        raise OSError(errno.ENOSPC, "The disk is full")
    aside = seal.with_suffix(f".seal{os.getpid()}-{threading.get_ident()}")
    try:
        aside.write_text(boot, encoding="ascii")
        aside.replace(seal)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def _open_shared(path: Path) -> int:
    """Open a shelf's slots and hold them, so that no other process removes the shelf."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(fd, fcntl.LOCK_SH)
        # It may have been removed between the two calls; the name then belongs to another file, or to none.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(fd).st_ino:
                return fd
        os.close(fd)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def _remove_unused(path: Path) -> bool:
    """Remove a shelf that no process has open; returns whether it is gone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        for suffix in (".flags", ".seal", ".slots"):
            path.with_suffix(suffix).unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)
