"""The workers of an arena as ``arena serve`` and ``arena worker`` run them: durable jobs, and who looks around."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gas.errors import ConfigurationError, GasError

if TYPE_CHECKING:
    from gas.arena.dispatch import Foreman
    from gas.arena.packages import PackageDesk
    from gas.arena.ports import ArenaConfig
    from gas.arena.submissions import Submissions
    from gas.chain.base import Chain
    from gas.chain.keys import KeySigner
    from gas.config import HomeSettings
    from gas.sandbox.spares import Spares
    from gas.storage.database import Database
    from gas.storage.jobs import DurableJobs

__all__ = ["Crew", "WorkerRules", "build_crew", "leave", "own_folder"]

_TICK_SECONDS = 0.5
_BEAT_SECONDS = 5.0
_LEAVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class WorkerRules:
    """Options of a worker.

    Attributes:
        processes: Model processes; None for as many as cores.
        batch_size: Samples in a batch.
        trust_model: Go on where nothing isolates.
        jobs: Evaluations side by side.
        lease_seconds: After how long without a heart beat a worker counts as dead.
        spares: Confined processes that wait for the next model.
    """

    processes: int | None
    batch_size: int
    trust_model: bool
    jobs: int = 1
    lease_seconds: float = 60.0
    spares: int = 1


@contextmanager
def own_folder(home: Path, name: str) -> Iterator[Path]:
    """The folder of one worker, for as long as it works; what a killed one left in it is swept.

    Args:
        home: The home.
        name: Of the worker; two workers of one home need two names.

    Raises:
        ConfigurationError: ``worker_name``: no usable name, or a worker of that name is at work here.
    """
    if not name or len(name) > 64 or not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigurationError("A worker's name has letters, digits, - and _.", code="worker_name")
    folder = home / "arena" / "workers" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"A worker called {name} is at work in {home}.",
                code="worker_name",
                hint="Give this one another --name.",
            ) from None
        # Journals stay: with them an evaluation goes on where the killed worker left it.
        for left in ("runs", "packages"):
            shutil.rmtree(folder / left, ignore_errors=True)
        yield folder


@dataclass(slots=True)
class Crew:
    """The worker of this process: the jobs, the foreman in a thread of its own, and the heart in another one.

    The heart beats by itself, because a look around may take long: a large package is scanned, a chain is slow.

    Attributes:
        jobs: Durable jobs.
        foreman: Looks around.
        stopping: Set to make everybody leave.
        broken: Whether the foreman or the heart fell.
        spares: What waits for the next model, if anything does.
    """

    jobs: DurableJobs
    foreman: Foreman
    stopping: threading.Event
    broken: bool = False
    spares: Spares | None = None
    _threads: tuple[threading.Thread, ...] = field(default=(), init=False)

    def start(self, on_broken: Any) -> None:
        """Begin to work."""
        self.foreman.job.register()
        self.jobs.start()
        beat = min(_BEAT_SECONDS, self.jobs.config.lease_seconds / 4)
        self._threads = tuple(
            threading.Thread(target=self._run, args=(work, pause, on_broken), name=name, daemon=True)
            for name, work, pause in (
                ("gas-foreman", self.foreman.tick, _TICK_SECONDS),
                ("gas-heart", self.jobs.heartbeat, beat),
            )
        )
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Leave; a run under way is given up at its next batch and resumed by the next worker."""
        self.stopping.set()
        for thread in self._threads:
            thread.join()
        self.foreman.loop.run(self.foreman.chain.close())
        self.foreman.loop.close()
        self.jobs.stop()
        if self.spares is not None:
            self.spares.close()

    def _run(self, work: Callable[[], object], pause: float, on_broken: Any) -> None:
        import structlog

        log = structlog.get_logger(__name__)
        while not self.stopping.is_set():
            try:
                work()
            except GasError as error:
                # The next time may succeed: a chain or a database comes back.
                name = threading.current_thread().name
                log.warning("worker_thread_failed", thread=name, code=error.error_code, message=error.message)
            except BaseException:
                self.broken = True
                on_broken()
                raise
            self.stopping.wait(pause)


def build_crew(
    settings: HomeSettings,
    config: ArenaConfig,
    rules: WorkerRules,
    signer: KeySigner,
    database: Database,
    submissions: Submissions,
    desk: PackageDesk,
    chain: Chain,
    work: Path,
) -> Crew:
    """Put a worker together; it begins with :meth:`Crew.start`.

    Args:
        settings: Where everything lies.
        config: The arena's rules.
        rules: The worker's own.
        signer: Signs receipts.
        database: State of everything; closed by the caller.
        submissions: The desk, for what a dead service left unscanned.
        desk: Unpacks packages.
        chain: A connection of the foreman's own, which it closes.
        work: The worker's folder, see :func:`own_folder`.

    Raises:
        gas.errors.SandboxUnavailable: Nothing isolates on this machine.
    """
    from gas.arena.dispatch import Foreman
    from gas.arena.evaluation import BenchEvaluator
    from gas.arena.workers import QUEUE, EvaluationJob
    from gas.bench.engine import RunConfig
    from gas.clock import RandomIds, SystemClock
    from gas.sandbox import Tier, best_sandbox
    from gas.sandbox.spares import Spares
    from gas.storage.jobs import DurableJobs, JobsConfig

    clock, stopping = SystemClock(), threading.Event()
    weakest = Tier.PLAIN if rules.trust_model else Tier.NAMESPACES
    url = settings.database_url or f"sqlite:///{settings.home / 'jobs.db'}"
    jobs = DurableJobs(
        database, JobsConfig(url, {QUEUE: rules.jobs}, lease_seconds=rules.lease_seconds), clock, RandomIds()
    )
    best = best_sandbox(weakest)
    spares = Spares(best, most=rules.spares, folder=work) if rules.spares else None
    evaluator = BenchEvaluator(
        blobs=submissions.blobs,
        sandbox=spares or best,
        prepare=desk.prepare,
        config=RunConfig(nonce="0" * 16, batch_size=rules.batch_size, processes=rules.processes, min_tier=weakest),
        work=work / "runs",
        cache=work / "pixels",
        clock=clock,
        stopping=stopping,
        journals=settings.home / "arena" / "journals",
    )
    job = EvaluationJob(
        database, submissions.blobs, evaluator, config, clock, signer, jobs, work / "packages", stopping
    )
    foreman = Foreman(database, chain, asyncio.Runner(), submissions, job, jobs, config, clock)
    return Crew(jobs, foreman, stopping, spares=spares)


def leave(status: int) -> None:
    """End the process, soon even when a model's batch is still being waited for."""
    deadline = time.monotonic() + _LEAVE_SECONDS
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in others):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    if status:
        raise SystemExit(status)
