"""The embedded executor passes the suite, with threads and with processes."""

import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from executor_conformance import ExecutorConformance, count_to

from gas.bench.executors.local import LocalExecutor


class Local(ExecutorConformance):
    def test_the_name_says_where_shards_run(self, executor):
        assert executor.name == "local"


class TestThreads(Local):
    @pytest.fixture(scope="class")
    def executor(self):
        with LocalExecutor(2) as made:
            yield made

    def test_pieces_come_before_the_item_is_done(self, executor):
        heard = threading.Event()

        def speak(item):
            yield "first"
            yield heard.wait(60)

        for _, piece in executor.stream(speak, [None]):
            heard.set()
            assert piece in ("first", True)


class TestProcesses(Local):
    @pytest.fixture(scope="class")
    def executor(self):
        with LocalExecutor(2, kind="processes") as made:
            yield made


def test_closing_twice_is_closing_once():
    made = LocalExecutor(1)
    made.close()
    made.close()


def test_a_pool_without_workers_is_refused():
    with pytest.raises(ValueError, match="workers"):
        LocalExecutor(0)


def test_threads_and_processes_agree():
    answers = []
    for kind in ("threads", "processes"):
        with LocalExecutor(1, kind=kind) as executor:
            answers.append(list(executor.stream(count_to, [2, 1])))
    assert answers[0] == answers[1]
