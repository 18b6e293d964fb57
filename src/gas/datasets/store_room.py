"""The bound of the disk: how many bytes a fetch may still write."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gas.errors import StorageError

__all__ = ["NoRoom", "Room"]


class Room:
    """Counts the bytes of a store against a budget.

    Args:
        budget: The most it may take; None: no bound.
        used: Tells the bytes that the store takes now; asked only when there is a budget.
        make: Frees room: told the bytes that the store may take afterwards; may free less.
    """

    def __init__(self, budget: int | None, used: Callable[[], int], make: Callable[[int], None]) -> None:
        self._budget = budget
        self._measure = used
        self._make = make
        self._counting = threading.Lock()
        self._making = threading.Lock()
        self._used = used() if budget is not None else 0

    def take(self, count: int) -> None:
        """Bytes are being written.

        Raises:
            NoRoom: They are too many.
        """
        with self._counting:
            if self._budget is not None and self._used + count > self._budget:
                raise NoRoom(count)
            self._used += count

    def give(self, count: int) -> None:
        """Bytes have been removed."""
        with self._counting:
            self._used -= count

    def need(self, count: int) -> None:
        """Make sure that so many bytes can be written, removing what was not used for longest when they can't.

        Raises:
            StorageError: ``disk_budget``.
        """
        if self._budget is None:
            return
        # Counting goes on meanwhile: those whom making room waits for must be able to finish.
        with self._making:
            if self._used + count <= self._budget:
                return
            self._make(max(0, self._budget - count))
            used = self._measure()
            with self._counting:
                self._used = used
            if used + count > self._budget:
                raise StorageError(
                    f"The data store would take more than the {self._budget:,} bytes that it may.",
                    code="disk_budget",
                    hint="Allow more with --max-disk, or remove a data set. What was fetched is kept.",
                )


class NoRoom(Exception):
    """The budget is used up in the middle of something; room is made, and the thing begun again.

    Args:
        count: Bytes that could not be written.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
