"""What every executor must do, run on the embedded one with threads and with processes."""

import math
import operator

import pytest

from gas.bench.executors.base import Executor
from gas.bench.executors.local import LocalExecutor


@pytest.fixture(scope="module", params=["threads", "processes"])
def executor(request):
    with LocalExecutor(2, kind=request.param) as made:
        yield made


def test_every_item_comes_back_once_with_its_index(executor: Executor):
    items = list(range(20))
    assert dict(executor.map(operator.neg, items)) == {i: -i for i in items}


def test_no_items_give_no_results(executor: Executor):
    assert list(executor.map(operator.neg, [])) == []


def test_a_functions_exception_reaches_the_caller_with_its_own_type(executor: Executor):
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(executor.map(math.sqrt, [4.0, -1.0]))


def test_the_pool_goes_on_after_a_failed_map(executor: Executor):
    with pytest.raises(ValueError):
        list(executor.map(math.sqrt, [-1.0]))
    assert dict(executor.map(math.sqrt, [9.0])) == {0: 3.0}


def test_a_caller_may_stop_early(executor: Executor):
    results = executor.map(operator.neg, list(range(50)))
    next(results)
    results.close()
    assert dict(executor.map(operator.neg, [1])) == {0: -1}


def test_the_name_says_where_shards_run(executor: Executor):
    assert executor.name == "local"


def test_a_pool_without_workers_is_refused():
    with pytest.raises(ValueError, match="workers"):
        LocalExecutor(0)


def test_closing_twice_is_closing_once():
    made = LocalExecutor(1)
    made.close()
    made.close()
