"""``gascli arena``: the submission service and its worker."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gas.cli.endpoint import ChainEndpoint, home_settings, open_chain
from gas.errors import ConfigurationError, GasError

if TYPE_CHECKING:
    from gas.arena.dispatch import Foreman
    from gas.arena.ports import ArenaConfig
    from gas.arena.submissions import Submissions
    from gas.chain.base import Chain
    from gas.chain.keys import KeySigner
    from gas.config import HomeSettings
    from gas.storage.database import Database
    from gas.storage.jobs import DurableJobs

__all__ = ["app"]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Submission service and benchmark workers.")

_TICK_SECONDS = 0.5
_LEAVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Rules:
    """Options of ``arena serve`` that concern the worker."""

    processes: int | None
    batch_size: int
    trust_model: bool
    lease_seconds: float = 60.0


@app.command()
def serve(
    home: Annotated[
        Path, typer.Option(envvar="GAS_HOME", help="Home with the ledger, the wallets and the database.")
    ] = Path(".gas"),
    wallet_name: Annotated[str, typer.Option(help="Wallet whose hotkey signs receipts.")] = "validator",
    wallet_hotkey: Annotated[str, typer.Option(help="Name of the hotkey.")] = "default",
    netuid: Annotated[int, typer.Option(help="The subnet.")] = 1,
    chain_endpoint: ChainEndpoint = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8100,
    worker: Annotated[bool, typer.Option(help="Also examine and benchmark, in this process.")] = True,
    exam_accuracy: Annotated[float, typer.Option(min=0, max=1, help="Least accuracy of the entrance exam.")] = 0.8,
    slots: Annotated[int, typer.Option(min=1, help="Models of a hotkey in a modality.")] = 3,
    pushes: Annotated[int, typer.Option(min=1, help="Packages of a hotkey that a round examines.")] = 10,
    max_upload_mib: Annotated[int, typer.Option(min=1, help="Largest package, in MiB.")] = 2048,
    processes: Annotated[int | None, typer.Option(min=1, help="Model processes; as many as cores by default.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples in a batch.")] = 32,
    trust_model: Annotated[
        bool, typer.Option("--trust-model", help="Only for your own models: go on where nothing isolates.")
    ] = False,
) -> None:
    """Take submissions, wait for their commitments, examine, benchmark and sign receipts.

    Prints a line of JSON with the port when it serves; runs until SIGTERM or Ctrl-C. An interrupted run is resumed.
    """
    from gas.arena.ports import ArenaConfig
    from gas.cli.logs import configure_logs
    from gas.cli.processes import die_with_parent

    die_with_parent()
    configure_logs()
    config = ArenaConfig(
        netuid=netuid,
        slots=slots,
        pushes_per_round=pushes,
        max_upload_bytes=max_upload_mib * 2**20,
        exam_accuracy=exam_accuracy,
    )
    settings = home_settings(home, chain_endpoint=chain_endpoint)
    rules = _Rules(processes, batch_size, trust_model)
    status = asyncio.run(_serve(settings, config, rules, wallet_name, wallet_hotkey, host, port, worker=worker))
    _leave(status)


@app.command()
def status(
    home: Annotated[Path, typer.Option(envvar="GAS_HOME", help="Home with the database.")] = Path(".gas"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What the arena holds: submissions by state, rounds, runs, workers with a heart beat."""
    from sqlalchemy import select

    from gas.config import HomeSettings
    from gas.storage.database import open_database
    from gas.storage.tables import ExecutorRow
    from gas.web.views import rounds_view, stats_view

    settings = HomeSettings(home=home)
    url = settings.resolved_database_url
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        raise ConfigurationError(f"There is no database in {home}.", hint="Name the arena's home with --home.")
    database = open_database(url)
    try:
        with database.read() as session:
            now = time.time()
            beats = session.execute(select(ExecutorRow.id, ExecutorRow.heartbeat_at)).tuples()
            workers = [{"id": name, "seconds_since_beat": round(now - at, 1)} for name, at in beats]
            found: dict[str, Any] = {**stats_view(session), "workers": workers, "open_rounds": []}
            found["open_rounds"] = [r["round_id"] for r in rounds_view(session) if r["state"] == "open"]
    finally:
        database.close()
    if as_json:
        print(json.dumps(found))
        return
    states = ", ".join(f"{count} {state}" for state, count in sorted(found["submissions"].items())) or "none"
    print(f"Submissions: {states}")
    print(f"Rounds: {found['rounds']}, open: {', '.join(found['open_rounds']) or 'none'}")
    print(f"Runs: {found['runs']}  Media: {found['media']}  Judgements: {found['judgements']}")
    print("Workers: " + (", ".join(f"{w['id']} ({w['seconds_since_beat']} s ago)" for w in workers) or "none"))


async def _serve(
    settings: HomeSettings,
    config: ArenaConfig,
    rules: _Rules,
    wallet: str,
    hotkey: str,
    host: str,
    port: int,
    *,
    worker: bool,
) -> int:
    from gas.arena.packages import PackageDesk
    from gas.arena.submissions import Submissions
    from gas.chain.keys import load_hotkey
    from gas.cli.servers import Server, listen
    from gas.clock import RandomIds, SystemClock
    from gas.protocol.epistula import ReplayGuard
    from gas.protocol.server import EpistulaGate, MetagraphCache
    from gas.storage.blobs import open_blobs
    from gas.storage.database import open_database
    from gas.submissions.limits import Limits
    from gas.web.api import ApiDependencies, create_app

    clock, ids = SystemClock(), RandomIds()
    signer = load_hotkey(settings.wallets_path, wallet, hotkey)
    chain = await open_chain(settings, signer, clock)
    # The foreman lives in another thread and loop than the API, so its connection is its own; it opens there.
    foremans = await open_chain(settings, signer, clock) if worker else None
    socket = listen(host, port)
    database = open_database(settings.resolved_database_url)
    crew: _Crew | None = None
    try:
        scratch = settings.home / "arena" / "incoming"
        desk = PackageDesk(Limits(packed_bytes=config.max_upload_bytes))
        blobs = open_blobs(settings.resolved_blobs_url)
        submissions = Submissions(database, blobs, desk.check, config, clock, ids, scratch)
        submissions.sweep()
        if not settings.database_url:
            # Before the first request nobody else scans: what a killed service left is taken up at once.
            await asyncio.to_thread(submissions.resume_scans, older_than_seconds=0.0)
        metagraph = MetagraphCache(chain, config.netuid, clock)
        gate = EpistulaGate(signer.ss58_address, metagraph, clock, ReplayGuard())
        lease = rules.lease_seconds if worker else None
        server = Server(
            create_app(ApiDependencies(database, submissions, gate, metagraph, clock, ids, scratch, lease)), socket
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.stop)
        if foremans is not None:
            crew = _crew(settings, config, rules, signer, database, submissions, desk, foremans)
            await asyncio.to_thread(crew.start, lambda: loop.call_soon_threadsafe(server.stop))
        await server.start()
        print(json.dumps({"event": "serving", "hotkey": signer.ss58_address, "port": server.port}), flush=True)
        await server.wait()
        return 1 if crew is not None and crew.broken else 0
    finally:
        socket.close()
        if crew is not None:
            await asyncio.to_thread(crew.stop)
        elif foremans is not None:
            await foremans.close()
        await chain.close()
        database.close()


@dataclass(slots=True)
class _Crew:
    """The worker of this process: the jobs, and the foreman in a thread of its own.

    Attributes:
        jobs: Durable jobs.
        foreman: Looks around.
        stopping: Set to make everybody leave.
        broken: Whether the foreman fell.
    """

    jobs: DurableJobs
    foreman: Foreman
    stopping: threading.Event
    broken: bool = False
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self, on_broken: Any) -> None:
        """Begin to work."""
        self.foreman.job.register()
        self.jobs.start()
        self._thread = threading.Thread(target=self._run, args=(on_broken,), name="gas-foreman", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave; a run under way is given up at its next batch and resumed by the next worker."""
        self.stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.foreman.loop.run(self.foreman.chain.close())
        self.foreman.loop.close()
        self.jobs.stop()

    def _run(self, on_broken: Any) -> None:
        import structlog

        log = structlog.get_logger(__name__)
        while not self.stopping.is_set():
            try:
                self.foreman.tick()
            except GasError as error:
                # The next look around may succeed: a chain or a database comes back.
                log.warning("foreman_tick_failed", code=error.error_code, message=error.message)
            except BaseException:
                self.broken = True
                on_broken()
                raise
            self.stopping.wait(_TICK_SECONDS)


def _crew(
    settings: HomeSettings,
    config: ArenaConfig,
    rules: _Rules,
    signer: KeySigner,
    database: Database,
    submissions: Submissions,
    desk: Any,
    chain: Chain,
) -> _Crew:
    from gas.arena.dispatch import Foreman
    from gas.arena.evaluation import BenchEvaluator
    from gas.arena.workers import QUEUE, EvaluationJob
    from gas.bench.engine import RunConfig
    from gas.clock import RandomIds, SystemClock
    from gas.sandbox import Tier, best_sandbox
    from gas.storage.jobs import DurableJobs, JobsConfig

    clock, stopping = SystemClock(), threading.Event()
    weakest = Tier.PLAIN if rules.trust_model else Tier.NAMESPACES
    work = settings.home / "arena"
    # What a killed worker left: a home has one worker, and that is this one.
    for left in (work / "runs", work / "packages"):
        shutil.rmtree(left, ignore_errors=True)
    url = settings.database_url or f"sqlite:///{settings.home / 'jobs.db'}"
    jobs = DurableJobs(database, JobsConfig(url, {QUEUE: 1}, lease_seconds=rules.lease_seconds), clock, RandomIds())
    evaluator = BenchEvaluator(
        blobs=submissions.blobs,
        sandbox=best_sandbox(weakest),
        prepare=desk.prepare,
        config=RunConfig(nonce="0" * 16, batch_size=rules.batch_size, processes=rules.processes, min_tier=weakest),
        work=work / "runs",
        cache=work / "pixels",
        clock=clock,
        stopping=stopping,
    )
    job = EvaluationJob(
        database, submissions.blobs, evaluator, config, clock, signer, jobs, work / "packages", stopping
    )
    foreman = Foreman(database, chain, asyncio.Runner(), submissions, job, jobs, config, clock)
    return _Crew(jobs, foreman, stopping)


def _leave(status: int) -> None:
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
