"""Who may deliver what, decided before a byte of the body is read: open tasks, floods, places for uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from gas.clock import Clock
from gas.errors import InfrastructureError, RequestRefused
from gas.validator.tasks import Challenges, ChallengeState, delivery_refusal, unknown_task

__all__ = ["Doors", "Floods"]

_REMEMBERED: Final = 100_000
_PLACE_SECONDS: Final = 10.0


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Floods:
    """Counts what each hotkey does in vain, so that none can keep us busy.

    Args:
        clock: The time.
        burst: How often at once.
        per_second: How fast that comes back.
    """

    def __init__(self, clock: Clock, *, burst: int, per_second: float) -> None:
        self._clock = clock
        self._burst = burst
        self._rate = per_second
        self._buckets: dict[str, _Bucket] = {}

    def spend(self, hotkey: str) -> None:
        """Count one attempt.

        Raises:
            RequestRefused: 429 ``too_many_requests``: there have been too many.
        """
        bucket = self._fill(hotkey)
        if bucket.left < 1:
            raise _too_many()
        bucket.left -= 1

    def check(self, hotkey: str) -> None:
        """Raise as :meth:`spend`, without counting."""
        if self._fill(hotkey).left < 1:
            raise _too_many()

    def _fill(self, hotkey: str) -> _Bucket:
        now = self._clock.monotonic()
        if len(self._buckets) >= _REMEMBERED:
            self._buckets.clear()
        bucket = self._buckets.setdefault(hotkey, _Bucket(self._burst, now))
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._rate)
        bucket.at = now
        return bucket


class Doors:
    """Lets deliveries in.

    What is remembered here only saves questions to the database, which decides in the end. Two counts are kept apart:
    deliveries for tasks that don't exist, which anybody can send in a hotkey's name before a signature is looked at,
    must not shut out that hotkey's own deliveries, whose task ids only it knows.

    Args:
        challenges: What was asked of whom.
        clock: The time.
        uploads: Deliveries that are received at a time.
    """

    def __init__(self, challenges: Challenges, clock: Clock, *, uploads: int = 64) -> None:
        self._challenges = challenges
        self._clock = clock
        self._open: dict[tuple[str, str], float] = {}
        self._busy: set[tuple[str, str]] = set()
        self._places = asyncio.Semaphore(uploads)
        self._vain = Floods(clock, burst=60, per_second=1.0)
        self._broken = Floods(clock, burst=30, per_second=0.2)

    def opened(self, miner: str, task_id: str, deadline: float) -> None:
        """A task may be delivered from now on until its deadline (seconds since the epoch)."""
        if len(self._open) >= _REMEMBERED:
            now = self._clock.time()
            self._open = {key: until for key, until in self._open.items() if until >= now}
        self._open[miner, task_id] = deadline

    async def admit(self, miner: str, task_id: str) -> None:
        """Whether a delivery of this task by this hotkey makes sense now.

        Raises:
            RequestRefused: 404, 409, 410, 429.
        """
        key = (miner, task_id)
        if key not in self._open:
            self._vain.spend(miner)
            found = await asyncio.to_thread(self._challenges.peek, miner, task_id)
            refusal = delivery_refusal(found.state, found.deadline, self._clock.time()) if found else unknown_task()
            if found is None or refusal is not None:
                raise refusal or unknown_task()
            self.opened(miner, task_id, found.deadline)
        refusal = delivery_refusal(ChallengeState.ACCEPTED, self._open[key], self._clock.time())
        if refusal is not None:
            raise refusal
        self._broken.check(miner)

    @asynccontextmanager
    async def upload(self, miner: str, task_id: str) -> AsyncIterator[None]:
        """A place for receiving one delivery; what goes wrong inside counts against the hotkey.

        Raises:
            RequestRefused: 429 ``delivery_under_way``: this task is just being delivered.
            InfrastructureError: ``no_place``: too many deliveries come at once; to be tried again.
        """
        key = (miner, task_id)
        if key in self._busy:
            raise RequestRefused("This task is just being delivered.", status=429, code="delivery_under_way")
        self._busy.add(key)
        try:
            try:
                async with asyncio.timeout(_PLACE_SECONDS):
                    await self._places.acquire()
            except TimeoutError:
                raise InfrastructureError("Too many deliveries come at once.", code="no_place") from None
            try:
                yield
            except RequestRefused:
                self._broken.spend(miner)
                raise
            finally:
                self._places.release()
        finally:
            self._busy.discard(key)

    def closed(self, miner: str, task_id: str) -> None:
        """The task has been delivered."""
        self._open.pop((miner, task_id), None)


def _too_many() -> RequestRefused:
    return RequestRefused(
        "Too many requests that came to nothing.", status=429, code="too_many_requests", hint="Wait a minute."
    )
