"""Block numbers come once each and in order, whatever the node does to the subscription."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gas.chain.bittensor.heads import follow_heads
from gas.clock import ManualClock
from gas.errors import ChainUnreachable

STALL = object()
DROP = object()


class Notices:
    def __init__(self, script: list[Any], clock: ManualClock) -> None:
        self._script, self._clock = script, clock

    async def next(self, seconds: float) -> Any:
        step = self._script.pop(0) if self._script else STALL
        if step is STALL:
            self._clock.advance(20)
            raise TimeoutError
        if step is DROP:
            raise ChainUnreachable("dropped")
        return {"number": hex(step)}


class ScriptedNode:
    """Each subscription plays the next script; the newest block is asked for apart."""

    def __init__(self, clock: ManualClock, newest: Callable[[int], int], *scripts: list[Any]) -> None:
        self.closed = False
        self.subscriptions = 0
        self._clock, self._newest, self._scripts = clock, newest, list(scripts)

    async def request(self, method: str) -> Any:
        assert method == "chain_getHeader"
        return {"number": hex(self._newest(self.subscriptions))}

    @asynccontextmanager
    async def subscribe(self, method: str, *, unsubscribe: str) -> AsyncIterator[Notices]:
        assert (method, unsubscribe) == ("chain_subscribeNewHeads", "chain_unsubscribeNewHeads")
        if self.closed:
            raise ChainUnreachable("closed")
        self.subscriptions += 1
        yield Notices(self._scripts.pop(0) if self._scripts else [], self._clock)


def watch(node: ScriptedNode, clock: ManualClock) -> list[int]:
    async def work() -> list[int]:
        seen: list[int] = []
        with pytest.raises(ChainUnreachable):
            async for block in follow_heads(node, clock, retry_seconds=0):
                seen.append(block)
        return seen

    return asyncio.run(work())


def test_the_newest_block_comes_first_though_the_node_is_silent_about_it() -> None:
    clock = ManualClock()
    assert watch(ScriptedNode(clock, lambda _: 7, [8, 9]), clock) == [7, 8, 9]


def test_numbers_that_went_by_are_made_up_for() -> None:
    clock = ManualClock()
    node = ScriptedNode(clock, lambda n: 7 if n == 1 else 12, [7, 9, DROP], [15])
    assert watch(node, clock) == list(range(7, 16))


def test_a_fork_that_falls_back_repeats_nothing() -> None:
    clock = ManualClock()
    assert watch(ScriptedNode(clock, lambda _: 7, [8, 9, 8, 9, 10, 7, 11]), clock) == [7, 8, 9, 10, 11]


def test_a_subscription_that_fell_asleep_is_made_anew_before_the_stall_is_reported() -> None:
    clock = ManualClock()
    node = ScriptedNode(clock, lambda n: 7 if n == 1 else 9, [8, STALL, STALL, STALL, STALL])
    assert watch(node, clock) == [7, 8, 9]
    assert node.subscriptions > 2


def test_a_stall_is_reported_after_two_minutes() -> None:
    clock = ManualClock()
    began = clock.now
    assert watch(ScriptedNode(clock, lambda _: 7), clock) == [7]
    assert 120 < clock.now - began <= 160


def test_a_node_that_leaps_into_the_future_is_not_followed() -> None:
    clock = ManualClock()
    assert watch(ScriptedNode(clock, lambda _: 7, [8, 2**32 - 1]), clock) == [7, 8]
    assert watch(ScriptedNode(clock, lambda _: 7, [8, 2**64]), clock) == [7, 8]


def test_a_closed_connection_ends_the_blocks_at_once() -> None:
    clock = ManualClock()
    node = ScriptedNode(clock, lambda _: 7)
    node.closed = True
    assert watch(node, clock) == []
    assert clock.now == ManualClock().now


@given(st.lists(st.lists(st.one_of(st.integers(0, 40), st.just(DROP), st.just(STALL)), max_size=8), max_size=5))
def test_whatever_the_node_says_no_number_is_skipped_or_doubled(scripts: list[list[Any]]) -> None:
    clock = ManualClock()
    seen = watch(ScriptedNode(clock, lambda n: min(3 * n, 12), *scripts), clock)
    assert seen == list(range(seen[0], seen[0] + len(seen)))
