"""Durable jobs: a killed worker's job goes on after its last finished step."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from gas.clock import ManualClock, RandomIds, SystemClock
from gas.storage.database import Database, open_database
from gas.storage.jobs import DurableJobs, JobsConfig, JobState, process_identity
from gas.storage.tables import ExecutorRow

_DYING_WORKER = """
import os, signal, sys
from pathlib import Path
from gas.clock import RandomIds, SystemClock
from gas.storage.database import open_database
from gas.storage.jobs import DurableJobs, JobsConfig
import threading

home = Path(sys.argv[1])
database = open_database(f"sqlite:///{home / 'gas.db'}")
config = JobsConfig(f"sqlite:///{home / 'jobs.db'}", {"work": 1}, poll_seconds=0.05)
jobs = DurableJobs(database, config, SystemClock(), RandomIds())

def note(step):
    with (home / "log").open("a") as log:
        log.write(f"{step}\\n")

def first():
    note("first")
    return {"value": 7}

def second():
    note("second")
    os.kill(os.getpid(), signal.SIGKILL)

def job(name):
    jobs.step("first", first)
    jobs.step("second", second)

jobs.register("count", job)
jobs.start()
jobs.enqueue("work", "count", "job-1", "a")
threading.Event().wait(60)
"""


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'gas.db'}")
    yield database
    database.close()


@pytest.fixture
def jobs(database: Database, tmp_path: Path) -> Iterator[DurableJobs]:
    config = JobsConfig(f"sqlite:///{tmp_path / 'jobs.db'}", {"work": 1}, poll_seconds=0.05)
    jobs = DurableJobs(database, config, SystemClock(), RandomIds())
    yield jobs
    jobs.stop()


def test_a_job_of_a_killed_worker_goes_on_after_its_last_step(jobs: DurableJobs, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _DYING_WORKER, str(tmp_path)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    results: list[object] = []

    def first() -> dict[str, int]:
        raise AssertionError("a finished step ran again")

    def job(name: str) -> str:
        results.append(jobs.step("first", first))
        results.append(jobs.step("second", lambda: "again"))
        return name

    jobs.register("count", job)
    jobs.start()
    assert list(jobs.beat()) == ["job-1"]
    wait_for(lambda: jobs.state("job-1") is JobState.DONE)
    assert results == [{"value": 7}, "again"]
    assert (tmp_path / "log").read_text().split() == ["first", "second"]
    assert list(jobs.beat()) == []


def test_nothing_is_pickled_and_one_id_is_one_job(jobs: DurableJobs, tmp_path: Path) -> None:
    ran: list[str] = []
    jobs.register("note", lambda text: jobs.step("note", lambda: ran.append(text)))
    jobs.start()
    for _ in range(3):
        jobs.enqueue("work", "note", "job-1", "ä")
    wait_for(lambda: jobs.state("job-1") is JobState.DONE)
    jobs.enqueue("work", "note", "job-1", "b")
    assert jobs.state("job-1") is JobState.DONE
    assert jobs.state("unknown") is None
    assert ran == ["ä"]
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        assert set(connection.execute("SELECT serialization FROM workflow_status")) == {("portable_json",)}
        assert set(connection.execute("SELECT serialization FROM operation_outputs")) == {("portable_json",)}


def test_a_job_that_raises_has_failed_and_a_cancelled_one_too(jobs: DurableJobs) -> None:
    def broken() -> None:
        raise ValueError("no")

    jobs.register("broken", broken)
    jobs.start()
    jobs.enqueue("work", "broken", "job-1")
    wait_for(lambda: jobs.state("job-1") is JobState.FAILED)
    jobs.cancel("job-1")
    jobs.cancel("unknown")
    assert jobs.state("job-1") is JobState.FAILED


def test_a_worker_counts_as_dead_by_its_lease_or_by_its_process(database: Database, tmp_path: Path) -> None:
    clock = ManualClock()
    config = JobsConfig(f"sqlite:///{tmp_path / 'jobs.db'}", {"work": 1}, lease_seconds=60)
    jobs = DurableJobs(database, config, clock, RandomIds())
    jobs.start()
    host, started = process_identity(os.getpid())
    others = {
        "elsewhere": ("another-host", 1, "5"),
        "same-process": (host, os.getpid(), started),
        "reused-pid": (host, os.getpid(), "1"),
    }
    with database.write() as session:
        for name, (where, pid, since) in others.items():
            session.add(ExecutorRow(id=name, host=where, pid=pid, process_started=since, heartbeat_at=clock.time()))
    jobs.beat()
    with database.read() as session:
        assert set(session.scalars(select(ExecutorRow.id))) == {"elsewhere", "same-process", jobs.executor_id}
    clock.advance(61)
    jobs.beat()
    with database.read() as session:
        assert set(session.scalars(select(ExecutorRow.id))) == {jobs.executor_id}
    jobs.stop()
    with database.read() as session:
        assert list(session.scalars(select(ExecutorRow.id))) == []
