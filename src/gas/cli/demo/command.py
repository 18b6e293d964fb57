"""``gascli demo``: runs the steps in order, each once, and prints what came of it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["demo"]

_DEFAULT_SEED = 7


def demo(
    home: Annotated[Path, typer.Option(help="Folder of the demo.")] = Path(".gas"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw an earlier demo in that folder away.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of a new demo.")] = _DEFAULT_SEED,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Play one whole adversarial round on real input, on this machine, offline.

    Generators answer prompts, a validator verifies their media, detectors are pushed, examined and benchmarked in a
    sandbox on a frozen round, weights are set, epochs of consensus run and emission is paid. Takes some minutes; a
    run that was interrupted is gone on with by the same command.
    """
    from gas.cli.demo.home import DemoHome
    from gas.cli.logs import configure_logs

    configure_logs(logging.WARNING)
    with DemoHome.open(home.absolute(), seed=seed, fresh=fresh) as opened:
        asyncio.run(_play(opened))
        result = opened.results["outcome"]
    from gas.cli.demo.outcome import print_tables

    if json_output:
        print(json.dumps(result))
    else:
        print_tables(result)


async def _play(home: Any) -> None:
    from gas.chain.local.ledger import Ledger
    from gas.cli.demo import cast, detectors, material, media, outcome, pay, rounds
    from gas.cli.demo.processes import Processes
    from gas.cli.demo.progress import Display
    from gas.clock import SystemClock
    from gas.storage.database import open_database

    steps: list[tuple[str, str, Callable[[Callable[[int, int], None]], Awaitable[Any]]]] = [
        ("found", "Wallets, chain, subnet, stake", lambda r: asyncio.to_thread(cast.found, home, SystemClock(), r)),
        ("photos", "Photos from installed packages", lambda r: asyncio.to_thread(material.collect, home, r)),
        ("media", "Generators answer prompts", lambda r: media.generate(home, database, processes, r)),
        ("round", "Frozen round", lambda r: rounds.freeze(home, database, r)),
        ("detectors", "Detectors: check, exam, benchmark", lambda r: detectors.submit(home, database, processes, r)),
        ("pay", "Scores, weights, consensus, emission", lambda r: pay.pay(home, database, r)),
        ("outcome", "Report", lambda r: asyncio.to_thread(outcome.conclude, home, database, r)),
    ]
    database = open_database(home.settings.resolved_database_url)
    processes = Processes(home.path / "logs")
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupted.set)
    ticking: asyncio.Task[None] | None = None
    try:
        with Display(len(steps)) as display:
            for name, title, run in steps:
                if name in home.results:
                    display.skipped(title)
                else:
                    with display.step(title) as report:
                        home.done(name, await _unless(interrupted, run(report)))
                if name == "found" and ticking is None and not home.finished:
                    ledger = Ledger(home.settings.ledger_path, SystemClock())
                    ticking = asyncio.create_task(_blocks(ledger, cast.BLOCK_SECONDS))
    except asyncio.CancelledError:
        print("gascli demo: interrupted; the same command goes on from here.", file=sys.stderr)
        # Worker threads may be deep in native code; nothing that matters is left to be done in this process.
        processes.stop()
        os._exit(130)
    finally:
        processes.stop()
        if ticking is not None:
            ticking.cancel()
        database.close()


async def _unless(interrupted: asyncio.Event, work: Awaitable[Any]) -> Any:
    """Await ``work``, unless the user interrupts first."""
    task = asyncio.ensure_future(work)
    stop = asyncio.create_task(interrupted.wait())
    await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=5)
        raise asyncio.CancelledError
    return task.result()


async def _blocks(ledger: Any, seconds: float) -> None:
    """Let blocks pass while the demo runs."""
    from gas.errors import ChainError

    while True:
        await asyncio.sleep(seconds)
        # A ledger that is busy for once makes a block late; time goes on.
        with suppress(ChainError):
            await asyncio.to_thread(ledger.advance, 1)
