"""What any result store must do; the embedded one does it."""

from __future__ import annotations

from gas.clock import ManualClock
from gas.serving.results import InProcessResults, ResultStore


class ResultStoreContract:
    """To be subclassed by the test of each implementation."""

    def make(self, clock: ManualClock) -> ResultStore:
        raise AssertionError("the subclass makes its store")

    def test_a_result_is_fetched_at_most_once(self) -> None:
        store = self.make(ManualClock())
        store.put("a", b"1", 60.0)
        assert store.take("a") == b"1"
        assert store.take("a") is None

    def test_a_result_is_gone_after_its_time(self) -> None:
        clock = ManualClock()
        store = self.make(clock)
        store.put("a", b"1", 60.0)
        clock.advance(61.0)
        assert store.take("a") is None

    def test_a_deleted_result_is_gone_and_unknown_ones_are_no_error(self) -> None:
        store = self.make(ManualClock())
        store.put("a", b"1", 60.0)
        store.delete("a")
        store.delete("a")
        assert store.take("a") is None

    def test_a_later_result_takes_the_place_of_an_earlier_one(self) -> None:
        store = self.make(ManualClock())
        store.put("a", b"1", 60.0)
        store.put("a", b"2", 60.0)
        assert store.take("a") == b"2"


class TestInProcessResults(ResultStoreContract):
    def make(self, clock: ManualClock) -> ResultStore:
        return InProcessResults(clock)
