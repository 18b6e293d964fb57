"""What durable jobs must do, with their state in SQLite and on a PostgreSQL server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "arena"))

from arena_fakes import Arena
from postgres import PASSWORD, VARIABLE, PostgresPeer, own_database
from sqlalchemy import create_engine, select, text

from gas.clock import ManualClock, RandomIds, SystemClock
from gas.errors import StorageError
from gas.storage.database import Database, open_database
from gas.storage.jobs import DurableJobs, JobsConfig, JobState, process_identity
from gas.storage.tables import ExecutorRow, RunRow
from gas.types import SubmissionState

_WORKER = """
import os, sys, threading
from pathlib import Path
from gas.clock import RandomIds, SystemClock
from gas.storage.database import open_database
from gas.storage.jobs import DurableJobs, JobsConfig

home, url, jobs_url = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
database = open_database(url)
jobs = DurableJobs(database, JobsConfig(jobs_url, {"work": 1}, poll_seconds=0.05), SystemClock(), RandomIds())
pause = threading.Event()

def note(job, step):
    with (home / "log").open("a") as log:
        log.write(f"{job} {step} {os.getpid()}\\n")
    return {"pid": os.getpid()}

def second(job):
    note(job, "second")
    while not (home / "go").exists():
        pause.wait(0.02)
    return "end"

def job(name):
    began = jobs.step("first", lambda: note(name, "first"))
    jobs.step("second", lambda: second(name))
    jobs.step("third", lambda: note(name, f"begun-by-{began['pid']}"))

jobs.register("count", job)
jobs.start()
for name in ("a", "b"):
    jobs.enqueue("work", "count", f"job-{name}", name)
print("up", flush=True)
while not (home / "end").exists():
    jobs.beat()
    pause.wait(0.05)
jobs.stop()
database.close()
"""


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


@pytest.fixture(params=["sqlite", "postgresql"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """URL of the service's database, and of the jobs': on a server they are one, as operators have it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'gas.db'}", f"sqlite:///{tmp_path / 'jobs.db'}"
    peer: PostgresPeer = request.getfixturevalue("postgres")
    own = own_database(peer.url, tmp_path)
    return own, own


@pytest.fixture
def database(urls: tuple[str, str]) -> Iterator[Database]:
    database = open_database(urls[0])
    yield database
    database.close()


@pytest.fixture
def jobs(database: Database, urls: tuple[str, str]) -> Iterator[DurableJobs]:
    jobs = DurableJobs(database, JobsConfig(urls[1], {"work": 1}, poll_seconds=0.05), SystemClock(), RandomIds())
    yield jobs
    jobs.stop()


def test_of_two_workers_the_living_one_goes_on_where_the_killed_one_stopped(
    new_url: Callable[[str], str], tmp_path: Path
) -> None:
    # From nothing: the two set their tables up side by side.
    url = new_url("gas")
    urls = (url, new_url("jobs") if url.startswith("sqlite") else url)

    def lines() -> list[list[str]]:
        log = tmp_path / "log"
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    workers = [
        subprocess.Popen([sys.executable, "-c", _WORKER, str(tmp_path), *urls], stdout=subprocess.PIPE) for _ in "12"
    ]
    try:
        # Each worker runs one job at a time, so that each has one in its hands.
        wait_for(lambda: sum(line[1] == "second" for line in lines()) == 2)
        holder = {job: int(pid) for job, step, pid in lines() if step == "second"}
        assert set(holder.values()) == {worker.pid for worker in workers}
        victim, heir = holder["a"], holder["b"]
        os.kill(victim, signal.SIGKILL)
        (tmp_path / "go").touch()
        wait_for(lambda: sum(line[1].startswith("begun-by") for line in lines()) == 2)
        (tmp_path / "end").touch()
        assert {worker.wait(60) for worker in workers} == {0, -signal.SIGKILL}
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    of_a = [(step, int(pid)) for job, step, pid in lines() if job == "a"]
    assert of_a == [("first", victim), ("second", victim), ("second", heir), (f"begun-by-{victim}", heir)]
    assert [step for job, step, _ in lines() if job == "b"] == ["first", "second", f"begun-by-{heir}"]
    database = open_database(url)
    with database.read() as session:
        assert session.scalars(select(ExecutorRow.id)).all() == []
    database.close()


def test_nothing_is_pickled_and_one_id_is_one_job(jobs: DurableJobs, urls: tuple[str, str]) -> None:
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
    engine = create_engine(urls[1])
    schema = "dbos." if engine.dialect.name == "postgresql" else ""
    with engine.connect() as connection:
        for table in ("workflow_status", "operation_outputs"):
            found = connection.execute(text(f"SELECT serialization FROM {schema}{table}")).scalars()
            assert set(found) == {"portable_json"}
    engine.dispose()


def test_a_job_that_raises_has_failed_and_a_cancelled_one_too(jobs: DurableJobs) -> None:
    entered, leave = threading.Event(), threading.Event()

    def broken() -> None:
        raise ValueError("no")

    def slow() -> None:
        entered.set()
        leave.wait(60)
        jobs.step("never", lambda: None)

    jobs.register("broken", broken)
    jobs.register("slow", slow)
    jobs.start()
    jobs.enqueue("work", "broken", "job-1")
    wait_for(lambda: jobs.state("job-1") is JobState.FAILED)
    jobs.cancel("job-1")
    jobs.cancel("unknown")
    assert jobs.state("job-1") is JobState.FAILED
    jobs.enqueue("work", "slow", "job-2")
    assert entered.wait(60)
    jobs.cancel("job-2")
    assert jobs.state("job-2") is JobState.FAILED
    leave.set()


def test_a_worker_counts_as_dead_by_its_lease_or_by_its_process(database: Database, urls: tuple[str, str]) -> None:
    clock = ManualClock()
    jobs = DurableJobs(database, JobsConfig(urls[1], {"work": 1}, lease_seconds=60), clock, RandomIds())
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
    for _ in range(2):
        clock.advance(31)
        jobs.beat()
    with database.read() as session:
        assert set(session.scalars(select(ExecutorRow.id))) == {jobs.executor_id}
    jobs.stop()
    with database.read() as session:
        assert list(session.scalars(select(ExecutorRow.id))) == []


def test_after_an_outage_the_first_one_back_calls_nobody_dead(database: Database, urls: tuple[str, str]) -> None:
    clock = ManualClock()
    jobs = DurableJobs(database, JobsConfig(urls[1], {"work": 1}, lease_seconds=60), clock, RandomIds())
    jobs.start()
    jobs.beat()
    with database.write() as session:
        session.add(ExecutorRow(id="other", host="h", pid=1, process_started="5", heartbeat_at=clock.time()))

    def known() -> set[str]:
        jobs.beat()
        with database.read() as session:
            return set(session.scalars(select(ExecutorRow.id)))

    clock.advance(300)
    assert known() == {jobs.executor_id, "other"}
    clock.advance(59)
    assert known() == {jobs.executor_id, "other"}
    clock.advance(1)
    assert known() == {jobs.executor_id}
    jobs.stop()


# ---- a server


@pytest.fixture
def served(postgres: PostgresPeer, tmp_path: Path) -> Iterator[DurableJobs]:
    url = own_database(postgres.url, tmp_path)
    database = open_database(url)
    jobs = DurableJobs(database, JobsConfig(url, {"work": 1}, poll_seconds=0.05), SystemClock(), RandomIds())
    yield jobs
    jobs.stop()
    database.close()


def test_a_job_outlives_a_restart_of_the_server(
    postgres: PostgresPeer, served: DurableJobs, capfd: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    halfway, go_on = threading.Event(), threading.Event()

    def job() -> None:
        served.step("first", lambda: ran.append("first"))
        halfway.set()
        go_on.wait(60)
        served.step("second", lambda: ran.append("second"))

    served.register("count", job)
    served.start()
    served.beat()
    served.enqueue("work", "count", "job-1")
    assert halfway.wait(60)
    postgres.stop()
    postgres.start()
    go_on.set()
    assert list(served.beat()) == []
    wait_for(lambda: served.state("job-1") is JobState.DONE)
    assert ran == ["first", "second"]
    served.enqueue("work", "count", "job-2")
    wait_for(lambda: served.state("job-2") is JobState.DONE)
    assert PASSWORD not in "".join(capfd.readouterr())


def test_an_arena_takes_a_submission_to_its_score(
    postgres: PostgresPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, postgres.url)
    arena = Arena(tmp_path, SystemClock())
    arena.jobs.start()
    try:
        arena.open_round()
        received = arena.push("alice", "good", block=5)

        def scored() -> bool:
            arena.foreman.tick()
            return arena.state(received.model_id) is SubmissionState.SCORED

        wait_for(scored)
        with arena.database.read() as session:
            runs = session.execute(select(RunRow.kind, RunRow.state)).tuples().all()
            assert session.get_bind().dialect.name == "postgresql"
        assert sorted(runs) == [("exam", "done"), ("full", "done")]
    finally:
        arena.close()


def test_jobs_cannot_start_without_their_server(
    postgres: PostgresPeer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from sqlalchemy.engine import make_url

    database = open_database(f"sqlite:///{tmp_path / 'gas.db'}")
    gone = make_url(postgres.url).set(port=1).render_as_string(hide_password=False)
    jobs = DurableJobs(database, JobsConfig(gone, {"work": 1}), SystemClock(), RandomIds())
    with pytest.raises(StorageError) as refused:
        jobs.start()
    assert refused.value.error_code == "database_unreachable"
    for shown in (str(refused.value), repr(jobs), *capfd.readouterr()):
        assert PASSWORD not in shown
        assert "s3cret" not in shown
    with database.read() as session:
        assert session.scalars(select(ExecutorRow)).all() == []
    database.close()
