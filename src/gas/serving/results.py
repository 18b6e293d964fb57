"""The result store of serving miners: where a finished generation waits to be fetched, at most once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gas.clock import Clock

__all__ = ["InProcessResults", "ResultStore"]


class ResultStore(Protocol):
    """Keeps bytes for a while; the scaled implementation is Redis."""

    def put(self, key: str, data: bytes, ttl_seconds: float) -> None:
        """Keep ``data`` under ``key`` for ``ttl_seconds``."""
        ...

    def take(self, key: str) -> bytes | None:
        """Fetch and delete; None when it is unknown, fetched already or too old."""
        ...

    def delete(self, key: str) -> None:
        """Forget ``key``; unknown keys are no error."""
        ...


@dataclass(slots=True)
class InProcessResults:
    """Keeps results in a dictionary; for a miner of one process."""

    clock: Clock
    _items: dict[str, tuple[float, bytes]] = field(default_factory=dict, init=False)

    def put(self, key: str, data: bytes, ttl_seconds: float) -> None:
        """Keep ``data`` under ``key`` for ``ttl_seconds``, and drop what has outlived its time."""
        now = self.clock.monotonic()
        self._items = {k: v for k, v in self._items.items() if v[0] > now}
        self._items[key] = (now + ttl_seconds, data)

    def take(self, key: str) -> bytes | None:
        """Fetch and delete."""
        expires, data = self._items.pop(key, (0.0, b""))
        return data if expires > self.clock.monotonic() else None

    def delete(self, key: str) -> None:
        """Forget ``key``."""
        self._items.pop(key, None)
