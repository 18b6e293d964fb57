"""``gascli arena``: the submission service and its workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gas.cli.arena_crew import WorkerRules, build_crew, leave, own_folder
from gas.cli.arena_round import CompetitionsFile, competitions_command, competitions_of
from gas.cli.arena_round import app as round_app
from gas.cli.arena_rules import require_rules
from gas.cli.endpoint import ChainEndpoint, home_settings, open_chain
from gas.errors import ConfigurationError

if TYPE_CHECKING:
    from gas.arena.packages import PackageDesk
    from gas.arena.ports import ArenaConfig
    from gas.arena.submissions import Submissions
    from gas.chain.keys import KeySigner
    from gas.config import HomeSettings
    from gas.storage.database import Database

__all__ = ["app"]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Submission service, workers, rounds.")
app.add_typer(round_app, name="round")
app.command("competitions")(competitions_command)

_Home = Annotated[Path, typer.Option(envvar="GAS_HOME", help="Home with the ledger, the wallets and the database.")]
_Wallet = Annotated[str, typer.Option(help="Wallet whose hotkey signs receipts.")]
_Hotkey = Annotated[str, typer.Option(help="Name of the hotkey.")]
_Netuid = Annotated[int, typer.Option(help="The subnet.")]
_Processes = Annotated[int | None, typer.Option(min=1, help="Model processes; as many as cores by default.")]
_BatchSize = Annotated[int, typer.Option(min=1, help="Samples in a batch.")]
_Jobs = Annotated[int, typer.Option(min=1, help="Evaluations side by side.")]
_Lease = Annotated[float, typer.Option(min=1.0, help="Seconds without a heart beat after which a worker is dead.")]
_Spares = Annotated[
    int, typer.Option(min=0, help="Confined processes that wait for the next model; some 200 MB of memory each.")
]
_Trust = Annotated[bool, typer.Option("--trust-model", help="Only for your own models: go on where nothing isolates.")]
_Accuracy = Annotated[float, typer.Option(min=0, max=1, help="Least accuracy of the entrance exam.")]
_Slots = Annotated[int, typer.Option(min=1, help="Models of a hotkey in a competition.")]
_Pushes = Annotated[int, typer.Option(min=1, help="Packages of a hotkey that a round examines.")]
_Upload = Annotated[int, typer.Option(min=1, help="Largest package, in MiB.")]


@app.command()
def serve(
    home: _Home = Path(".gas"),
    wallet_name: _Wallet = "validator",
    wallet_hotkey: _Hotkey = "default",
    netuid: _Netuid = 1,
    chain_endpoint: ChainEndpoint = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8100,
    worker: Annotated[bool, typer.Option(help="Also examine and benchmark, in this process.")] = True,
    competitions: CompetitionsFile = None,
    exam_accuracy: _Accuracy = 0.8,
    slots: _Slots = 3,
    pushes: _Pushes = 10,
    max_upload_mib: _Upload = 2048,
    processes: _Processes = None,
    batch_size: _BatchSize = 32,
    lease_seconds: _Lease = 60.0,
    spares: _Spares = 1,
    trust_model: _Trust = False,
) -> None:
    """Take submissions, wait for their commitments, examine, benchmark and sign receipts.

    Prints a line of JSON with the port when it serves; runs until SIGTERM or Ctrl-C. An interrupted run is resumed.
    With a file of competitions its rules hold; the options for the exam, slots, pushes and size are for arenas
    without one.
    """
    config = _config(home, competitions, netuid, exam_accuracy, slots, pushes, max_upload_mib)
    rules = WorkerRules(processes, batch_size, trust_model, lease_seconds=lease_seconds, spares=spares)
    settings = home_settings(home, chain_endpoint=chain_endpoint)
    _begin()
    leave(asyncio.run(_serve(settings, config, rules, wallet_name, wallet_hotkey, host, port, worker=worker)))


@app.command("worker")
def worker_command(
    home: _Home = Path(".gas"),
    name: Annotated[str, typer.Option(help="Name of this worker in its home.")] = "worker",
    wallet_name: _Wallet = "validator",
    wallet_hotkey: _Hotkey = "default",
    netuid: _Netuid = 1,
    chain_endpoint: ChainEndpoint = None,
    competitions: CompetitionsFile = None,
    exam_accuracy: _Accuracy = 0.8,
    slots: _Slots = 3,
    pushes: _Pushes = 10,
    max_upload_mib: _Upload = 2048,
    processes: _Processes = None,
    batch_size: _BatchSize = 32,
    jobs: _Jobs = 1,
    lease_seconds: _Lease = 60.0,
    spares: _Spares = 1,
    trust_model: _Trust = False,
) -> None:
    """Examine and benchmark what an arena has taken, in this process and on this machine.

    On another machine than the service's, name its PostgreSQL and S3 with GAS_DATABASE_URL and GAS_BLOBS_URL, and
    the chain with --chain-endpoint. Rules must be the service's: give both the same file of competitions. Prints a
    line of JSON when it works; runs until SIGTERM or Ctrl-C, and what it leaves is taken over by another worker.
    """
    config = _config(home, competitions, netuid, exam_accuracy, slots, pushes, max_upload_mib)
    rules = WorkerRules(processes, batch_size, trust_model, jobs, lease_seconds, spares)
    settings = home_settings(home, chain_endpoint=chain_endpoint)
    _begin()
    leave(asyncio.run(_work(settings, config, rules, name, wallet_name, wallet_hotkey)))


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
            found["open_rounds"] = [r["round_id"] for r in rounds_view(session) if r["state"] != "closed"]
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


def _begin() -> None:
    from gas.cli.logs import configure_logs
    from gas.cli.processes import die_with_parent

    die_with_parent()
    configure_logs()


def _config(
    home: Path, file: Path | None, netuid: int, accuracy: float, slots: int, pushes: int, upload_mib: int
) -> ArenaConfig:
    from gas.arena.ports import ArenaConfig

    return ArenaConfig(
        netuid=netuid,
        slots=slots,
        pushes_per_round=pushes,
        max_upload_bytes=upload_mib * 2**20,
        exam_accuracy=accuracy,
        competitions=competitions_of(home, file),
    )


@dataclass(frozen=True, slots=True)
class _Desk:
    """What both the service and a worker stand on."""

    signer: KeySigner
    database: Database
    packages: PackageDesk
    submissions: Submissions


def _desk(settings: HomeSettings, config: ArenaConfig, wallet: str, hotkey: str, scratch: Path) -> _Desk:
    from gas.arena.packages import PackageDesk
    from gas.arena.submissions import Submissions
    from gas.chain.keys import load_hotkey
    from gas.clock import RandomIds, SystemClock
    from gas.storage.blobs import open_blobs
    from gas.storage.database import open_database
    from gas.submissions.limits import Limits

    signer = load_hotkey(settings.wallets_path, wallet, hotkey)
    packages = PackageDesk(Limits(packed_bytes=config.largest_upload))
    database = open_database(settings.resolved_database_url)
    blobs = open_blobs(settings.resolved_blobs_url)
    submissions = Submissions(database, blobs, packages.check, config, SystemClock(), RandomIds(), scratch)
    return _Desk(signer, database, packages, submissions)


async def _work(
    settings: HomeSettings, config: ArenaConfig, rules: WorkerRules, name: str, wallet: str, hotkey: str
) -> int:
    from gas.clock import SystemClock

    with own_folder(settings.home, name) as folder:
        desk = _desk(settings, config, wallet, hotkey, folder / "incoming")
        try:
            require_rules(desk.database, config)
            desk.submissions.sweep()
            chain = await open_chain(settings, desk.signer, SystemClock())
            crew = build_crew(
                settings, config, rules, desk.signer, desk.database, desk.submissions, desk.packages, chain, folder
            )
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop.set)
            await asyncio.to_thread(crew.start, lambda: loop.call_soon_threadsafe(stop.set))
            print(json.dumps({"event": "working", "worker": name, "pid": os.getpid()}), flush=True)
            try:
                await stop.wait()
            finally:
                await asyncio.to_thread(crew.stop)
            return 1 if crew.broken else 0
        finally:
            desk.database.close()


async def _serve(
    settings: HomeSettings,
    config: ArenaConfig,
    rules: WorkerRules,
    wallet: str,
    hotkey: str,
    host: str,
    port: int,
    *,
    worker: bool,
) -> int:
    from contextlib import ExitStack

    from gas.cli.servers import Server, listen
    from gas.clock import RandomIds, SystemClock
    from gas.protocol.epistula import ReplayGuard
    from gas.protocol.server import EpistulaGate, MetagraphCache
    from gas.web.api import ApiDependencies, create_app

    clock = SystemClock()
    socket = listen(host, port)
    with ExitStack() as stack:
        stack.callback(socket.close)
        folder = stack.enter_context(own_folder(settings.home, "service")) if worker else None
        desk = _desk(settings, config, wallet, hotkey, settings.home / "arena" / "incoming")
        stack.callback(desk.database.close)
        require_rules(desk.database, config)
        chain = await open_chain(settings, desk.signer, clock)
        # The foreman lives in another thread and loop than the API, so its connection is its own; it opens there.
        foremans = await open_chain(settings, desk.signer, clock) if worker else None
        crew = None
        try:
            desk.submissions.sweep()
            if not settings.database_url:
                # Before the first request nobody else scans: what a killed service left is taken up at once.
                await asyncio.to_thread(desk.submissions.resume_scans, older_than_seconds=0.0)
            metagraph = MetagraphCache(chain, config.netuid, clock)
            gate = EpistulaGate(desk.signer.ss58_address, metagraph, clock, ReplayGuard())
            lease = rules.lease_seconds if worker else None
            deps = ApiDependencies(
                desk.database, desk.submissions, gate, metagraph, clock, RandomIds(), desk.submissions.scratch, lease
            )
            server = Server(create_app(deps), socket)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, server.stop)
            if foremans is not None and folder is not None:
                crew = build_crew(
                    settings, config, rules, desk.signer, desk.database, desk.submissions, desk.packages, foremans,
                    folder,
                )  # fmt: skip
                await asyncio.to_thread(crew.start, lambda: loop.call_soon_threadsafe(server.stop))
            await server.start()
            hello = {"event": "serving", "hotkey": desk.signer.ss58_address, "port": server.port}
            print(json.dumps(hello), flush=True)
            await server.wait()
            return 1 if crew is not None and crew.broken else 0
        finally:
            if crew is not None:
                await asyncio.to_thread(crew.stop)
            elif foremans is not None:
                await foremans.close()
            await chain.close()
