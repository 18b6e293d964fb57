"""The part of ``sn34-validator`` that exchanges prints with other validators, see :mod:`gas.validator.double_sales`."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Final

import structlog
from fastapi import FastAPI
from sqlalchemy.exc import IntegrityError

from gas.chain.base import Axon
from gas.errors import ChainError, InfrastructureError, StorageError
from gas.protocol.client import SignedClient
from gas.protocol.epistula import ReplayGuard
from gas.protocol.server import EpistulaGate, MetagraphCache
from gas.validator.ground import Ground
from gas.validator.print_exchange import PrintExchange
from gas.validator.print_log import PrintLog, add_prints_route
from gas.validator.print_pruning import prune_prints

__all__ = ["PrintParts"]

_APPEND_SECONDS: Final = 5.0
_LOOKS: Final = 10
_LEAST_PAUSE: Final = 0.5
_OFFER_SECONDS: Final = 60.0
_PRUNE_SECONDS: Final = 3600.0


class PrintParts:
    """Our log and our looks at the others'; does nothing when the operator's settings say so.

    Args:
        ground: What the service stands on.
        graph: Who is a validator.
    """

    def __init__(self, ground: Ground, graph: MetagraphCache) -> None:
        self._ground = ground
        self._graph = graph
        self._seconds = ground.settings.callback_prints_seconds
        self._log = structlog.get_logger("gas.validator")
        self._lines = PrintLog(ground.database, ground.signer, ground.clock, reveal_seconds=self._seconds)

    def serve(self, app: FastAPI) -> None:
        """Show the log to validators with a permit."""
        if self._seconds:
            # A guard of its own: a validator that asks much must not use up what its deliveries may.
            gate = EpistulaGate(
                self._ground.hotkey, self._graph, self._ground.clock, ReplayGuard(), min_stake=1, need_permit=True
            )
            add_prints_route(app, self._lines, gate, self._ground.clock)

    async def run(self, client: SignedClient, port: int) -> None:
        """Write, look, for ever; what fails is logged and tried again.

        Args:
            client: Signs as the validator.
            port: That the callback server listens on.
        """
        if not self._seconds:
            await asyncio.Event().wait()
        ground = self._ground
        exchange = PrintExchange(
            ground.database,
            client,
            ground.hotkey,
            ground.clock,
            local=ground.settings.challenge_local_addresses,
            reveal_seconds=self._seconds,
        )
        await asyncio.gather(self._write(), self._look(exchange, port))

    async def _write(self) -> None:
        pause = max(_LEAST_PAUSE, min(_APPEND_SECONDS, self._seconds / (2 * _LOOKS)))
        ground, pruned = self._ground, float("-inf")
        while True:
            try:
                await asyncio.to_thread(self._lines.append)
                if ground.clock.monotonic() - pruned >= _PRUNE_SECONDS:
                    pruned = ground.clock.monotonic()
                    gone = await asyncio.to_thread(prune_prints, ground.database, ground.hotkey, ground.clock)
                    if gone:
                        self._log.info("prints_pruned", lines=gone)
            except StorageError as error:
                self._log.error("prints_failed", code=error.error_code, error=error.message)
            except IntegrityError as error:
                # The log is at odds with itself, as after a copy of the database was played back: no reason to stop
                # taking deliveries.
                self._log.error("prints_failed", code="prints_inconsistent", error=str(error.orig))
            await asyncio.sleep(pause)

    async def _look(self, exchange: PrintExchange, port: int) -> None:
        pause = max(_LEAST_PAUSE, self._seconds / _LOOKS)
        there, offered = self._address(port), float("-inf")
        while True:
            try:
                graph = await self._graph.get()
                own = graph.by_hotkey(self._ground.hotkey)
                missing = there is not None and own is not None and own.permit and own.axon != there
                if there is not None and missing and self._ground.clock.monotonic() - offered >= _OFFER_SECONDS:
                    offered = self._ground.clock.monotonic()
                    await self._offer(there)
                found = await exchange.look(graph)
                if found.lines or found.opened or found.void:
                    self._log.info("prints_fetched", lines=found.lines, opened=found.opened, void=found.void)
            except InfrastructureError as error:
                self._log.error("prints_failed", code=error.error_code, error=error.message)
            await asyncio.sleep(pause)

    def _address(self, port: int) -> Axon | None:
        """Where others find the log; None when the settings don't say."""
        settings = self._ground.settings
        address = ip_address(settings.external_callback_ip or settings.callback_ip)
        if address.is_unspecified:
            # Miners are told CALLBACK_URL; the chain takes addresses only.
            self._log.warning("prints_not_offered", why="EXTERNAL_CALLBACK_IP is not set")
            return None
        return Axon(str(address), settings.external_callback_port or port, address.version)

    async def _offer(self, there: Axon) -> None:
        """Say on the chain where the log is; tried again with the next look."""
        try:
            await self._ground.chain.serve_axon(self._ground.settings.bt_netuid, there)
        except ChainError as error:
            self._log.warning("prints_not_offered", why=str(error), code=error.error_code)
