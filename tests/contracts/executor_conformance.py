"""What every executor must do, wherever it computes."""

from __future__ import annotations

import math
import operator
import os
import signal
from pathlib import Path

import pytest

from gas.bench.executors.base import Executor, Shared


def count_to(number: int) -> range:
    """Pieces of an item."""
    return range(number)


def one_then_fail(number: int):
    """A piece, and then a failure of the function's own."""
    yield number
    raise LookupError("the shelf is empty")


def read(parts: tuple[Shared, ...]) -> bytes:
    """What was shared, in the order of the parts."""
    return b"".join(part.load() for part in parts)


def leave_a_mark(path: str) -> str:
    """Says that it has run."""
    with Path(path).open("a") as file:
        file.write("x")
    return path


def die(number: int):
    """Kills the process that it runs in."""
    os.kill(os.getpid(), signal.SIGKILL)
    yield number


def die_once(mark: str):
    """The same, unless it has been here before."""
    yield "begun"
    if not Path(mark).exists():
        Path(mark).touch()
        yield from die(0)
    yield "back"


class ExecutorConformance:
    """Runs on the fixture ``executor``, which has room for two items at once."""

    def test_every_item_comes_back_once_with_its_index(self, executor: Executor):
        items = list(range(20))
        assert sorted(executor.map(operator.neg, items)) == [(i, -i) for i in items]

    def test_no_items_give_no_results(self, executor: Executor):
        assert list(executor.map(operator.neg, [])) == []
        assert list(executor.stream(count_to, [])) == []

    def test_a_functions_exception_reaches_the_caller_with_its_own_type(self, executor: Executor):
        with pytest.raises(ValueError, match=r"math domain|nonnegative"):
            list(executor.map(math.sqrt, [4.0, -1.0]))
        with pytest.raises(LookupError, match="the shelf is empty"):
            list(executor.stream(one_then_fail, [1]))

    def test_a_functions_failure_is_its_own_and_is_not_tried_again(self, executor: Executor, tmp_path):
        lost = []
        with pytest.raises(LookupError):
            list(executor.stream(one_then_fail, [1], lambda *why: lost.append(why)))
        assert lost == []
        assert [index for index, _ in executor.map(leave_a_mark, [str(tmp_path / "mark")])] == [0]
        assert (tmp_path / "mark").read_text() == "x"

    def test_it_goes_on_after_a_failed_map(self, executor: Executor):
        with pytest.raises(ValueError):
            list(executor.map(math.sqrt, [-1.0]))
        assert dict(executor.map(math.sqrt, [9.0])) == {0: 3.0}

    def test_a_caller_may_stop_early(self, executor: Executor):
        results = executor.map(operator.neg, list(range(50)))
        next(results)
        results.close()
        pieces = executor.stream(count_to, [5] * 20)
        next(pieces)
        pieces.close()
        assert dict(executor.map(operator.neg, [1])) == {0: -1}

    def test_pieces_of_an_item_come_in_their_order_and_an_item_may_have_none(self, executor: Executor):
        said: dict[int, list[int]] = {}
        for index, piece in executor.stream(count_to, [3, 0, 5]):
            said.setdefault(index, []).append(piece)
        assert said == {0: [0, 1, 2], 2: [0, 1, 2, 3, 4]}

    def test_shared_bytes_are_read_where_the_function_runs(self, executor: Executor):
        big = bytes(range(256)) * 4096
        parts = executor.share(big), executor.share(b""), executor.share(b"end")
        assert dict(executor.map(read, [parts, parts[1:]])) == {0: big + b"end", 1: b"end"}

    def test_it_says_how_much_it_computes_at_once(self, executor: Executor):
        assert executor.slots == 2
