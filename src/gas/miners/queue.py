"""A queue in which nobody waits for another's burst: validators take turns, each one's tasks in their order."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["FairQueue"]


class FairQueue:
    """Names of tasks, for one event loop."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[str]] = {}
        self._turns: deque[str] = deque()
        self._there = asyncio.Semaphore(0)

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def put(self, owner: str, name: str) -> None:
        """Put a task at the end of its owner's line."""
        line = self._lines.setdefault(owner, deque())
        if not line:
            self._turns.append(owner)
        line.append(name)
        self._there.release()

    async def get(self) -> str:
        """The next task: the first of whoever's turn it is; waits for one."""
        await self._there.acquire()
        owner = self._turns.popleft()
        line = self._lines[owner]
        name = line.popleft()
        if line:
            self._turns.append(owner)
        else:
            del self._lines[owner]
        return name
