"""Durable jobs: functions that go on after their last finished step, whatever process dies.

DBOS keeps the state of every job in a database of its own (SQLite in the home, or PostgreSQL). This module adds what
makes several workers safe: each worker process writes a heart beat, and any living worker adopts the jobs of a dead
one. Nothing is pickled: arguments, results and errors are stored as portable JSON, so they must be plain JSON values.
No telemetry leaves the process.

DBOS allows one instance in a process; so does this module.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar, cast

from sqlalchemy import delete, select
from sqlalchemy.engine import make_url

from gas.clock import Clock, IdSource
from gas.errors import StorageError
from gas.storage.database import Database
from gas.storage.failures import storage_failures
from gas.storage.tables import ExecutorRow

__all__ = ["DurableJobs", "JobInterrupted", "JobState", "JobsConfig", "process_identity"]

T = TypeVar("T")


class JobInterrupted(BaseException):
    """Raised inside a job whose process is leaving: the job stays as it is, and the next worker goes on with it.

    No ``Exception``, because DBOS records those as the job's own end.
    """


class JobState(StrEnum):
    """Where a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


_STATES = {
    "DELAYED": JobState.WAITING,
    "ENQUEUED": JobState.WAITING,
    "PENDING": JobState.RUNNING,
    "SUCCESS": JobState.DONE,
    "ERROR": JobState.FAILED,
    "CANCELLED": JobState.FAILED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": JobState.FAILED,
}


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """How durable jobs are run.

    Attributes:
        url: SQLAlchemy URL of the jobs' own database; SQLite or PostgreSQL.
        queues: Name of each queue and how many of its jobs one worker runs at a time.
        version: Version of the jobs' shapes. Workers take only jobs of their own version: change it when the steps
            of a job change so that an interrupted one could not go on.
        lease_seconds: A worker whose last heart beat is older counts as dead.
        poll_seconds: How often a worker looks for new jobs.
    """

    url: str = field(repr=False)
    queues: Mapping[str, int]
    version: str = "1"
    lease_seconds: float = 60.0
    poll_seconds: float = 0.25


def process_identity(pid: int) -> tuple[str, str]:
    """Name the machine's pid name space and the start of a process, so that a reused pid is told apart.

    Returns:
        ``(host, started)``; ``started`` is empty when no such process runs, or where there is no /proc.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        host = f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return os.uname().nodename, ""
    try:
        # The second field is the command in brackets and may hold spaces; the start time is the 22nd field.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return host, ""
    return host, "" if fields[0] == "Z" else fields[19]


def _plain(function: Callable[..., object]) -> Callable[..., object]:
    """The function as one that DBOS can put its marks on, which a bound method is not."""

    def job(*arguments: object) -> object:
        return function(*arguments)

    return job


@dataclass(slots=True)
class DurableJobs:
    """Runs jobs, and keeps them running.

    Use: ``register`` every kind of job, ``start``, then ``beat`` every few seconds; ``stop`` at the end. While the
    jobs' database is away, calls wait for it.

    Attributes:
        database: The service's database, which holds the workers' heart beats.
        config: See :class:`JobsConfig`.
        clock: For the heart beats.
        ids: For the name of this worker.
    """

    database: Database
    config: JobsConfig
    clock: Clock
    ids: IdSource
    executor_id: str = field(init=False)
    _functions: dict[str, Callable[..., object]] = field(init=False, default_factory=dict)
    _started: bool = field(init=False, default=False)
    _beaten: float | None = field(init=False, default=None)
    _patient_until: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.executor_id = f"worker-{self.ids.new()}"

    def register(self, kind: str, function: Callable[..., object]) -> None:
        """Name a function as a kind of job; before :meth:`start`.

        The function must do everything that is not repeatable inside :meth:`step`.
        """
        self._functions[kind] = function

    def start(self) -> None:
        """Launch DBOS in this process and begin to take jobs.

        On PostgreSQL the user must own the database: DBOS keeps its tables in a schema ``dbos``.

        Raises:
            gas.errors.StorageError: The jobs' database does not answer, or does not take us in.
        """
        from dbos import DBOS, DBOSConfig
        from dbos._serialization import DBOSPortableJSON

        url = self.config.url
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(parsed.database)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        settings: DBOSConfig = {
            "name": "gas",
            "system_database_url": url,
            "application_version": self.config.version,
            "executor_id": self.executor_id,
            "serializer": DBOSPortableJSON,
            "enable_otlp": False,
            "log_level": "ERROR",
            "notification_listener_polling_interval_sec": max(0.05, self.config.poll_seconds),
        }
        self.heartbeat()
        DBOS(config=settings)
        for kind, function in self._functions.items():
            DBOS.workflow(name=kind, max_recovery_attempts=None)(_plain(function))
        DBOS.listen_queues(list(self.config.queues))
        self._started = True
        try:
            with storage_failures():
                DBOS.launch()
                for name, concurrency in self.config.queues.items():
                    DBOS.register_queue(
                        name,
                        worker_concurrency=concurrency,
                        polling_interval_sec=self.config.poll_seconds,
                        on_conflict="always_update",
                    )
        except StorageError:
            self.stop()
            raise

    def stop(self) -> None:
        """Take no more jobs and leave; a job under way is adopted by the next worker."""
        if not self._started:
            return
        from dbos import DBOS

        self._started = False
        DBOS.destroy(destroy_registry=True)
        with self.database.write() as session:
            session.execute(delete(ExecutorRow).where(ExecutorRow.id == self.executor_id))

    def enqueue(self, queue: str, kind: str, job_id: str, *arguments: object) -> None:
        """Put a job in a queue; an id that was used before changes nothing.

        Args:
            queue: One of the configured queues.
            kind: As registered.
            job_id: Chosen by the caller, so that a repeated call is harmless.
            arguments: JSON values.
        """
        from dbos import DBOS

        DBOS.enqueue_workflow_with_options(
            {
                "queue_name": queue,
                "workflow_name": kind,
                "workflow_id": job_id,
                "app_version": self.config.version,
            },
            *arguments,
        )

    def step(self, name: str, function: Callable[[], T]) -> T:
        """Inside a job: run a function once; after a restart its recorded result is returned instead.

        The function may run again when the process dies before its result is recorded.

        Returns:
            The function's result, a JSON value.
        """
        from dbos import DBOS

        return cast(T, DBOS.run_step({"name": name}, function))

    def state(self, job_id: str) -> JobState | None:
        """Where a job is; None when there is none of that id."""
        from dbos import DBOS

        found = DBOS.list_workflows(workflow_ids=[job_id], load_input=False, load_output=False)
        return _STATES[found[0].status] if found else None

    def cancel(self, job_id: str) -> None:
        """Make a job end before its next step; a job that has ended, or an unknown one, is left alone."""
        from dbos import DBOS

        if self.state(job_id) in (JobState.WAITING, JobState.RUNNING):
            DBOS.cancel_workflow(job_id)

    def beat(self) -> Sequence[str]:
        """Write the heart beat, and adopt the jobs of dead workers.

        Whoever could not write its own for a whole lease calls nobody dead for another one: the database was away,
        and the others are only about to come back.

        Returns:
            Ids of the adopted jobs.
        """
        self.heartbeat()
        now, lease = self.clock.time(), self.config.lease_seconds
        if self._beaten is not None and now - self._beaten > lease:
            self._patient_until = now + lease
        self._beaten = now
        return self.adopt() if now >= self._patient_until else ()

    def heartbeat(self) -> None:
        """Say that this worker lives."""
        host, started = process_identity(os.getpid())
        row = {"host": host, "pid": os.getpid(), "process_started": started, "heartbeat_at": self.clock.time()}
        self.database.transact(lambda session: session.merge(ExecutorRow(id=self.executor_id, **row)))

    def adopt(self) -> Sequence[str]:
        """Queue again what dead workers were running."""
        from dbos import DBOS

        adopted: list[str] = []
        # The write lock makes the workers do this one after the other: DBOS would resume a job twice.
        with self.database.write() as session:
            rows = session.scalars(select(ExecutorRow).with_for_update()).all()
            living = {row.id for row in rows if self._lives(row)}
            for row in rows:
                if row.id not in living:
                    session.delete(row)
            for job in DBOS.list_workflows(status="PENDING", load_input=False, load_output=False):
                if job.executor_id not in living:
                    DBOS.resume_workflow(job.workflow_id, queue_name=job.queue_name)
                    adopted.append(job.workflow_id)
        return adopted

    def _lives(self, row: ExecutorRow) -> bool:
        if row.id == self.executor_id:
            return True
        if self.clock.time() - row.heartbeat_at > self.config.lease_seconds:
            return False
        host, started = process_identity(row.pid)
        # On this machine the kernel knows better than the lease; elsewhere only the lease is known.
        return row.host != host or not row.process_started or started == row.process_started
