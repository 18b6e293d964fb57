"""The running services of a validator: everything that ``gascli v serve --service NAME`` puts together."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gas.chain.keys import load_hotkey
from gas.cli.endpoint import home_settings, open_chain
from gas.cli.servers import Server, listen
from gas.clock import RandomIds, SystemClock
from gas.errors import ConfigurationError
from gas.storage.blobs import open_blobs
from gas.storage.database import open_database
from gas.validator.ground import SERVICES, Ground
from gas.validator.settings import ValidatorSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["check", "run"]


def check(settings: ValidatorSettings) -> str:
    """Find what is wrong before a process is started (or a running one is stopped) for it.

    Returns:
        The validator's hotkey.

    Raises:
        ConfigurationError: Naming the variable at fault.
        gas.errors.StorageError: The database does not answer.
    """
    hotkey = load_hotkey(settings.wallets_path, settings.bt_wallet_name, settings.bt_wallet_hotkey).ss58_address
    settings.webhook_base(settings.callback_port or 1)
    if settings.bt_chain_endpoint == "local" and not (settings.gas_home / "chain.db").exists():
        raise ConfigurationError(
            f"BT_CHAIN_ENDPOINT=local, but {settings.gas_home} holds no ledger.",
            code="ledger_missing",
            hint="Make one with gascli chain start, or name a network.",
        )
    with _named("GAS_BLOBS_URL"):
        open_blobs(settings.blobs_url)
    settings.gas_home.mkdir(parents=True, exist_ok=True)
    with _named("GAS_DATABASE_URL"):
        open_database(settings.database_url).close()
    return hotkey


async def run(service: str, settings: ValidatorSettings) -> None:
    """Run one service until SIGTERM or SIGINT.

    It prints a line of JSON when it has started, and one with its port when it serves.

    Args:
        service: One of :data:`gas.validator.ground.SERVICES`.
        settings: The operator's.

    Raises:
        ConfigurationError: Something of the operator's is wrong.
        InfrastructureError: The chain or a store can't be reached.
    """
    body = _body(service)
    clock = SystemClock()
    signer = load_hotkey(settings.wallets_path, settings.bt_wallet_name, settings.bt_wallet_hotkey)
    home = home_settings(settings.gas_home, netuid=settings.bt_netuid, chain_endpoint=settings.bt_chain_endpoint)
    settings.state_path.mkdir(parents=True, exist_ok=True)
    with _named("GAS_BLOBS_URL"):
        blobs = open_blobs(settings.blobs_url)
    with _named("GAS_DATABASE_URL"):
        database = await asyncio.to_thread(open_database, settings.database_url)
    try:
        chain = await open_chain(home, signer, clock)
        try:
            ground = Ground(service, settings, database, blobs, chain, signer, clock, RandomIds())
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, ground.stop.set)
            print(json.dumps({"event": "started", "service": service, "hotkey": ground.hotkey}), flush=True)
            await body(ground)
        finally:
            await chain.close()
    finally:
        database.close()


def _body(service: str) -> Callable[[Ground], Awaitable[None]]:
    """What a service does; imported when it is run, because each needs other libraries."""
    if service == "sn34-validator":
        from gas.validator.service_validator import ValidatorService

        def serving(port: int) -> None:
            print(json.dumps({"event": "serving", "service": service, "port": port}), flush=True)

        return lambda ground: ValidatorService(ground, _listening, serving).run()
    if service == "sn34-generator":
        from gas.validator.service_generator import run as run_generator

        return run_generator
    if service == "sn34-data":
        from gas.validator.service_data import run as run_data

        return run_data
    raise ConfigurationError(f"There is no service {service[:60]!r}.", hint=f"Known are {', '.join(SERVICES)}.")


@asynccontextmanager
async def _listening(app: FastAPI, host: str, port: int) -> AsyncIterator[Server]:
    socket = listen(host, port)
    try:
        server = Server(app, socket)
        await server.start()
        try:
            yield server
        finally:
            server.stop()
            await server.wait()
    finally:
        socket.close()


class _named:
    """Says which variable an error of the operator's belongs to."""

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ConfigurationError) and not error.message.startswith(self._variable):
            raise ConfigurationError(
                f"{self._variable}: {error.message}", code=error.error_code, hint=error.hint
            ) from None
