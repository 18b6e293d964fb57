"""Sandboxes that wait: confined, with every library imported, and without a package.

Nearly all of a start is importing torch and building the confinement, and none of that depends on the package. A spare
has done it beforehand; it is then given one package, and never a second: each model has a process tree of its own that
ran nothing but our code before.

What is covered: a spare is made by the same rung with the same restrictions as any session, all of them in force before
it waits. Its package comes in through a folder of its own, which is empty until then, read-only inside, and bound
nowhere else; the memory for batches is sized and sealed before the submission's code begins. Limits are settled when a
spare is made, and one whose limits, libraries, threads or device are not those that are asked for is not used. Spares
die with the process that made them, and what a killed one left on the disk is swept by the next.

What is not: a spare takes memory while it waits (some 200 MB with torch), so that none is made where little is free.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import stat
import tempfile
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gas.errors import SandboxUnavailable
from gas.sandbox.base import DEFAULT_LIMITS, Environment, Limits, ModelSession, ModelSpec
from gas.sandbox.folders import HeldFolder
from gas.sandbox.free_memory import available_bytes
from gas.sandbox.opening import Rung, Waiting

__all__ = ["Spares"]

_PREFIX: Final = "gas-spares-"
_LEAST_FREE: Final = 2**30
_ABOUT: Final = 300 * 2**20
"""Bytes that a spare may still take which has not settled yet."""


@dataclass(frozen=True, slots=True)
class _Spare:
    waiting: Waiting
    folder: Path


class Spares:
    """A sandbox that keeps spares of another one; safe for several threads, and a context manager.

    Spares are made by a thread of its own, because the kernel ends a tree with the thread that started it: sessions end
    when this is closed.

    Args:
        rung: Makes them.
        most: How many may wait, at least 1.
        refill: Make another one whenever a session was started, of the same kind; otherwise only those that
            :meth:`prepare` asks for are made, and one more after a model has failed: it may well fail again.
        folder: Where the packages' files are placed, best on the disk of the unpacked packages: there they are linked
            and not copied. The system's folder for temporary files when left out.
        least_free: Bytes of memory that must be free for another spare.

    Attributes:
        tier: The rung's.
        taken: How many starts found a spare.
    """

    def __init__(
        self,
        rung: Rung,
        *,
        most: int = 1,
        refill: bool = True,
        folder: Path | None = None,
        least_free: int = _LEAST_FREE,
    ) -> None:
        if most < 1:
            raise ValueError("At least one spare must be allowed to wait.")
        self.tier = rung.tier
        self._rung, self._most, self._refill, self._least_free = rung, most, refill, least_free
        self._parent = folder
        self._lock = threading.Condition()
        self._waiting: deque[_Spare] = deque()
        self._ordered: list[Environment] = []
        self._orders: queue.SimpleQueue[Environment | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._root: HeldFolder | None = None
        self._closed = False
        self.taken = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def ready(self) -> int:
        """How many wait and have done all that can be done without a package."""
        with self._lock:
            return sum(spare.waiting.is_settled for spare in self._waiting)

    def pids(self) -> tuple[int, ...]:
        """Process ids of those that wait: of the outermost process of each."""
        with self._lock:
            return tuple(spare.waiting.pid for spare in self._waiting)

    def prepare(self, environment: Environment, count: int = 1) -> None:
        """Have spares made, if fewer of that kind wait; returns at once.

        Args:
            environment: What they are for.
            count: How many are wanted; no more than ``most`` will wait.
        """
        with self._lock:
            if self._closed:
                return
            there = sum(spare.waiting.environment == environment for spare in self._waiting)
            missing = min(count, self._most) - there - self._ordered.count(environment)
            for _ in range(missing):
                self._ordered.append(environment)
                self._orders.put(environment)
            if missing > 0 and (self._thread is None or not self._thread.is_alive()):
                thread = threading.Thread(target=self._make_all, name="gas-spares", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    # There are as many threads as there may be: models start without spares then.
                    self._ordered.clear()
                    return
                self._thread = thread

    def start(
        self, spec: ModelSpec, *, batch_size: int, limits: Limits = DEFAULT_LIMITS, threads: int = 1
    ) -> ModelSession:
        """Load a model in a spare if one waits, else in a new tree; see :class:`gas.sandbox.base.Sandbox`."""
        environment = Environment.of(spec, limits, threads)
        refill = self._refill
        try:
            while (spare := self._take(environment)) is not None:
                try:
                    return self._begin(spare, spec, batch_size, limits)
                except SandboxUnavailable:
                    continue  # it died while it waited
            return self._rung.start(spec, batch_size=batch_size, limits=limits, threads=threads)
        except ValueError:
            # No spare of that kind could be made, either.
            refill = False
            raise
        finally:
            # Only now: a start is not to share the processor with the making of a spare.
            if refill:
                self.prepare(environment, self._most)

    def close(self) -> None:
        """End the spares, and the sessions that were spares; may be called twice."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            self._orders.put(None)
            thread.join()
        while self._waiting:
            self._waiting.popleft().waiting.close()
        if self._root is not None:
            self._root.close()
            self._root = None

    def _take(self, environment: Environment) -> _Spare | None:
        with self._lock:
            while True:
                for spare in self._waiting:
                    if spare.waiting.environment == environment:
                        self._waiting.remove(spare)
                        return spare
                if self._closed or environment not in self._ordered:
                    return None
                # In a moment it is begun, earlier than anything that could be begun here.
                self._lock.wait()

    def _begin(self, spare: _Spare, spec: ModelSpec, batch_size: int, limits: Limits) -> ModelSession:
        def release(failed: bool) -> None:
            shutil.rmtree(spare.folder, ignore_errors=True)
            if failed:
                self.prepare(spare.waiting.environment)

        try:
            _place(spec.folder, spare.folder)
            session = spare.waiting.begin(spec, batch_size=batch_size, limits=limits, release=release)
        except BaseException:
            spare.waiting.close()
            shutil.rmtree(spare.folder, ignore_errors=True)
            raise
        session.load()
        with self._lock:
            self.taken += 1
        return session

    def _make_all(self) -> None:
        try:
            while (environment := self._orders.get()) is not None:
                spare = None if self._closed else self._make(environment)
                with self._lock:
                    if environment in self._ordered:
                        self._ordered.remove(environment)
                    if spare is not None:
                        self._waiting.append(spare)
                    self._lock.notify_all()
        finally:
            # Whatever has ended this thread: nobody is to wait for what it would have made.
            with self._lock:
                self._ordered.clear()
                if self._thread is threading.current_thread():
                    self._thread = None
                self._lock.notify_all()

    def _make(self, environment: Environment) -> _Spare | None:
        """Make one; None where that is not possible: then the next start says why."""
        self._make_room()
        with self._lock:
            young = sum(not spare.waiting.is_settled for spare in self._waiting)
        if available_bytes() - young * _ABOUT < self._least_free:
            return None
        folder = None
        try:
            if self._root is not None and not self._root.path.is_dir():
                # Somebody has tidied the temporary files up.
                self._root.close()
                self._root = None
            if self._root is None:
                self._root = HeldFolder(_PREFIX, self._parent)
            folder = Path(tempfile.mkdtemp(dir=self._root.path))
            folder.chmod(0o755)
            return _Spare(self._rung.wait(environment, folder), folder)
        except (OSError, SandboxUnavailable, ValueError, MemoryError):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            return None

    def _make_room(self) -> None:
        """Discard what nobody has asked for of late."""
        while True:
            with self._lock:
                if len(self._waiting) < self._most:
                    return
                old = self._waiting.popleft()
            old.waiting.close()
            shutil.rmtree(old.folder, ignore_errors=True)


def _place(package: Path, folder: Path) -> None:
    """Put a package's files where a spare sees them; links and subfolders stay out.

    Raises:
        gas.errors.SandboxUnavailable: They can't be read, or there is no room.
    """
    private = os.geteuid() == 0
    try:
        for path in package.iterdir():
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode):
                continue
            target = folder / path.name
            # The user inside is another one when we are root: what only we may read is copied.
            if mode & stat.S_IROTH or not private:
                with contextlib.suppress(OSError):
                    os.link(path, target, follow_symlinks=False)
                    continue
            shutil.copyfile(path, target)
            target.chmod(0o444)
    except OSError as error:
        raise SandboxUnavailable(f"The model's files can't be handed in: {error.strerror}.") from error
