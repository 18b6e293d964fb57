"""Times in which deliveries could not be taken through a fault of ours: the miners' tasks get them back.

A full disk, a store or a database that doesn't answer: the miner is told to come again, and meanwhile its time runs
out. So nobody is asked for anything new as long as that lasts, and what was open is given as much time as was lost.
When it lasts so long that miners have given up what they had, these tasks end without blame.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Final

from gas.clock import Clock
from gas.errors import StorageError
from gas.validator.tasks import GIVEN_UP_SECONDS, Challenges

__all__ = ["Hindrance", "Space"]

_SPACE_SECONDS: Final = 5.0
_FRESH_SECONDS: Final = 60.0
_NO_PLACE: Final = "no_place"


class Space:
    """Looks now and then whether the disk has room.

    Args:
        folder: On that disk; has to be there.
        min_free_bytes: Less than that is no room.
        clock: For looking again.
    """

    def __init__(self, folder: Path, min_free_bytes: int, clock: Clock) -> None:
        self._folder = folder
        self._least = min_free_bytes
        self._clock = clock
        self._looked = float("-inf")
        self._free = 0

    def check(self) -> None:
        """Raise :class:`gas.errors.StorageError` ``disk_full`` when it has none."""
        now = self._clock.monotonic()
        if now - self._looked >= _SPACE_SECONDS:
            self._looked, self._free = now, shutil.disk_usage(self._folder).free
        if self._free < self._least:
            raise StorageError(
                "The disk is nearly full.", code="disk_full", hint="Make room; CALLBACK_MIN_FREE_MB is the limit."
            )


class Hindrance:
    """What keeps deliveries out, and for how long.

    Args:
        challenges: Whose deadlines are moved.
        space: The disk that deliveries go to.
        clock: The time.
    """

    def __init__(self, challenges: Challenges, space: Space, clock: Clock) -> None:
        self._challenges = challenges
        self._space = space
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = False
        self._failed_at = float("-inf")
        self._no_place: set[tuple[str, str]] = set()
        self._settled_at = clock.time()
        self._began: float | None = None

    def check_space(self) -> None:
        """Raise :class:`gas.errors.StorageError` ``disk_full`` when the disk has no room."""
        self._space.check()

    def refused(self, miner: str, task_id: str, code: str) -> None:
        """A delivery of an open task was not taken, by no fault of the miner's.

        Args:
            miner: Hotkey.
            task_id: Of its task.
            code: Of our error. Where only too many came at a time (``no_place``) this task alone gets its time back:
                miners bring that about, and must not gain by it.
        """
        with self._lock:
            if code == _NO_PLACE:
                self._no_place.add((miner, task_id))
            else:
                self._failed, self._failed_at = True, self._clock.monotonic()

    def wrong(self) -> str | None:
        """Why nobody should be asked for media now, in one sentence; None when they can be delivered."""
        try:
            self._space.check()
        except StorageError as error:
            return error.message
        if self._is_fresh():
            return "Deliveries could not be taken a moment ago."
        return None

    def pending(self, miner: str, task_id: str) -> bool:
        """Whether this task's deadline is just about to be moved, so that nothing is late yet."""
        with self._lock:
            return self._failed or self._is_fresh() or (miner, task_id) in self._no_place or self._full()

    def settle(self) -> int:
        """Give back what was lost since the last call; to be called every few seconds, before late tasks are closed.

        Returns:
            Tasks whose deadline was moved.

        Raises:
            gas.errors.StorageError: The database does not answer; that time is given back, too, by a later call.
        """
        now, since = self._clock.time(), self._settled_at
        with self._lock:
            # Miners come again after up to half a minute: that none came meanwhile doesn't say that it is over.
            failed = self._failed or self._is_fresh() or self._full()
            alone, self._no_place, self._failed = self._no_place, set(), False
        try:
            if failed:
                moved = self._give_back(since, now)
            else:
                self._began = None
                moved = self._challenges.make_up(since, alone) if alone else 0
        except StorageError:
            self.failed()
            raise
        self._settled_at = now
        return moved

    def failed(self) -> None:
        """The database does not answer, so that no delivery can be taken."""
        with self._lock:
            self._failed, self._failed_at = True, self._clock.monotonic()

    def _give_back(self, since: float, now: float) -> int:
        self._began = since if self._began is None else self._began
        if now - self._began >= GIVEN_UP_SECONDS:
            self._challenges.let_go(self._began)
        return self._challenges.make_up(since)

    def _is_fresh(self) -> bool:
        return self._clock.monotonic() - self._failed_at < _FRESH_SECONDS

    def _full(self) -> bool:
        try:
            self._space.check()
        except StorageError:
            return True
        return False
