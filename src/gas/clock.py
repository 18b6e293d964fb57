"""Time, randomness and ids as objects that tests replace."""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

__all__ = ["Clock", "IdSource", "ManualClock", "RandomIds", "SeededIds", "SystemClock", "derive_rng", "derive_seed"]


class Clock(Protocol):
    """Where a service takes the time from."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's own clock."""

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()


@dataclass(slots=True)
class ManualClock:
    """A clock that moves only when told to."""

    now: float = 1_700_000_000.0

    def time(self) -> float:
        """Seconds since the epoch."""
        return self.now

    def monotonic(self) -> float:
        """The same seconds; never goes back as long as nobody sets ``now`` back."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class IdSource(Protocol):
    """Where a service takes fresh ids from."""

    def new(self) -> str:
        """A fresh UUID in its canonical text form."""
        ...


class RandomIds:
    """Unpredictable ids (version 4 UUIDs)."""

    def new(self) -> str:
        """A fresh UUID."""
        return str(uuid.uuid4())


@dataclass(slots=True)
class SeededIds:
    """Predictable ids for tests."""

    seed: int = 0
    _count: int = field(default=0, init=False)

    def new(self) -> str:
        """The next UUID of the sequence."""
        self._count += 1
        digest = hashlib.sha256(f"{self.seed}/{self._count}".encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))


def derive_seed(seed: int, *parts: str | int) -> int:
    """Derive a 64-bit seed for one purpose from a round's seed.

    Args:
        seed: The round's seed.
        parts: What the draw is for, e.g. ``"jpeg"`` and the item's content hash. The same parts give the same
            seed on every machine, and other parts an unrelated one.

    Returns:
        An integer in [0, 2**64).
    """
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def derive_rng(seed: int, *parts: str | int) -> np.random.Generator:
    """A generator seeded by :func:`derive_seed`."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *parts)))
