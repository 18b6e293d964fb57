"""``sn34-validator``: challenges by the chain's blocks, the webhook that takes deliveries, expiry, epochs.

Its parts run side by side and meet only in the database. A part that fails for a reason of ours is logged and goes on
with the next block; what nobody has foreseen ends the process, which is started again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx
import structlog
from fastapi import FastAPI

from gas.arena.competitions import competitions_of
from gas.chain.base import Metagraph
from gas.errors import ChainError, InfrastructureError, StorageError
from gas.generation.prompts.embedding import HashedEmbedder
from gas.protocol.client import SignedClient
from gas.protocol.epistula import ReplayGuard, Standing
from gas.protocol.server import EpistulaGate, MetagraphCache
from gas.scoring.weights import EMISSION_PROFILES
from gas.validator.asking import Asking
from gas.validator.doors import Doors
from gas.validator.edit_blobs import EditBlobs
from gas.validator.epochs import EpochRunner
from gas.validator.ground import Ground, ServiceState
from gas.validator.hindrance import Hindrance, Space
from gas.validator.metrics import create_metrics_app
from gas.validator.offences import Offences
from gas.validator.prompts import PromptBank
from gas.validator.receiving import CALLBACK_PATH, ReceivingCounts, create_spool_app
from gas.validator.reckoning import PayRules
from gas.validator.rounds import ChallengeRounds, RoundRules
from gas.validator.service_prints import PrintParts
from gas.validator.tasks import Challenges

if TYPE_CHECKING:
    from gas.validator.edit_sources import EditSources

__all__ = ["Blocks", "Listen", "Listening", "ValidatorService", "WatchedMetagraph"]

_METAGRAPH_SECONDS: Final = 12.0
_LATE_BLOCK_SECONDS: Final = 300.0
_BEAT_SECONDS: Final = 15.0
_EXPIRY_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 5.0
_SWEEP_SECONDS: Final = 300.0


class Listening(Protocol):
    """A server that answers."""

    @property
    def port(self) -> int:
        """The port that it listens on."""
        ...


Listen = Callable[[FastAPI, str, int], Any]
"""Opens a server for an application at an address and port: an asynchronous context manager of :class:`Listening`."""


class WatchedMetagraph(MetagraphCache):
    """A metagraph that the service keeps young itself, so that no delivery waits for the chain."""

    async def standing(self, hotkey: str) -> Standing | None:
        """What is known of a hotkey; only for one that is new is the chain asked again."""
        return self.known(hotkey) or await super().standing(hotkey)


@dataclass(slots=True)
class Blocks:
    """The newest block, for all who wait for one; those that came in between are not seen twice.

    Attributes:
        latest: Its number; -1 before the first.
    """

    latest: int = -1
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, block: int) -> None:
        """A block has come."""
        if block != self.latest:
            self.latest = block
            self._news.set()
            self._news = asyncio.Event()

    async def after(self, block: int) -> int:
        """The newest block, as soon as it is another one than this."""
        while self.latest == block:
            await self._news.wait()
        return self.latest


class ValidatorService:
    """The service's parts.

    Args:
        ground: What it stands on.
        listen: Opens its two servers.
        on_serving: Told the port of the webhook, once it answers.
    """

    def __init__(self, ground: Ground, listen: Listen, on_serving: Callable[[int], None] = lambda _port: None) -> None:
        self._ground = ground
        self._on_serving = on_serving
        self._listen = listen
        self._settings = ground.settings
        self._log = structlog.get_logger("gas.validator")
        self._blocks = Blocks()
        self._counts = ReceivingCounts()
        self._graph = WatchedMetagraph(
            ground.chain,
            self._settings.bt_netuid,
            ground.clock,
            max_age_seconds=_METAGRAPH_SECONDS,
            # Who registered a moment ago has no task here, and strangers mustn't keep us asking the chain.
            newcomer_seconds=_METAGRAPH_SECONDS,
        )
        self._challenges = Challenges(ground.database, ground.hotkey, ground.clock)
        self._asking = Asking(ground.database, ground.hotkey, ground.clock)
        self._doors = Doors(self._challenges, ground.clock, uploads=self._settings.callback_uploads)
        self._offences = Offences(
            ground.database, ground.hotkey, ground.clock, max_bytes=self._settings.callback_max_mb * 2**20
        )
        self._prints = PrintParts(ground, self._graph)
        self._incoming = self._settings.state_path / "incoming"
        space = Space(self._incoming, self._settings.callback_min_free_mb * 2**20, ground.clock)
        self._hindrance = Hindrance(self._challenges, space, ground.clock)
        self._sent_along = EditBlobs(ground.database, ground.blobs, ground.state, ground.clock)
        self._last_block_at = ground.clock.monotonic()

    async def run(self) -> None:
        """Serve until the ground's ``stop`` is set.

        Raises:
            ConfigurationError: A setting makes no sense here.
            InfrastructureError: The chain or the database can't be reached at the start.
        """
        ground, settings = self._ground, self._settings
        await self._graph.get()
        await asyncio.to_thread(self._make_up)
        await self._tell_doors()
        async with self._servers() as port:
            webhook = settings.webhook_base(port) + CALLBACK_PATH
            # Now that the port is ours, nobody else asks in this validator's name.
            await asyncio.to_thread(self._asking.end_interrupted)
            async with httpx.AsyncClient(timeout=httpx.Timeout(settings.challenge_timeout + 5, connect=5.0)) as http:
                client = SignedClient(ground.signer, http, ground.clock, ground.ids)
                rounds = self._rounds(client, webhook)
                epochs = self._epochs()
                self._log.info("serving", hotkey=ground.hotkey, port=port, webhook=webhook)
                self._on_serving(port)
                await self._run_parts(rounds, epochs, self._prints.run(client, port))

    async def _run_parts(self, rounds: ChallengeRounds, epochs: EpochRunner, prints: Awaitable[None]) -> None:
        async def challenge(block: int, graph: Metagraph) -> None:
            await rounds.tick(block, graph)

        async def settle(block: int, graph: Metagraph) -> None:
            await self._end_replaced(graph)
            await epochs.tick(block)

        parts: list[Awaitable[None]] = [
            self._watch(),
            self._on_blocks("challenges", challenge),
            self._on_blocks("epochs", settle),
            self._close_late(),
            self._every(_EXPIRY_SECONDS, "offences", self._offences.flush),
            self._every(_BEAT_SECONDS, "heartbeat", self._beat),
            prints,
            self._every(_SWEEP_SECONDS, "sweep", self._sent_along.sweep),
        ]
        running = [asyncio.ensure_future(part) for part in parts]
        stopping = asyncio.ensure_future(self._ground.stop.wait())
        try:
            await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*running, stopping):
                task.cancel()
            results = await asyncio.gather(*running, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _watch(self) -> None:
        """Keep the newest block and the metagraph at hand, through every trouble with the chain."""
        ground = self._ground
        while True:
            try:
                async for block in ground.chain.blocks():
                    self._last_block_at = ground.clock.monotonic()
                    self._blocks.see(block)
            except ChainError as error:
                self._log.error("chain_lost", code=error.error_code, error=error.message, what_to_do=error.hint)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _on_blocks(self, what: str, work: Callable[[int, Metagraph], Awaitable[None]]) -> None:
        """Do something at each block; at the newest one only, when it takes longer than a block."""
        block = -1
        while True:
            block = await self._blocks.after(block)
            try:
                await work(block, await self._graph.get())
            except InfrastructureError as error:
                self._log.error(f"{what}_failed", block=block, code=error.error_code, error=error.message)

    async def _every(self, seconds: float, what: str, work: Callable[[], object]) -> None:
        while True:
            try:
                await asyncio.to_thread(work)
            except StorageError as error:
                self._log.error(f"{what}_failed", code=error.error_code, error=error.message, what_to_do=error.hint)
            await asyncio.sleep(seconds)

    async def _close_late(self) -> None:
        """Close what is past its deadline, after the time is given back in which nobody could deliver."""
        while True:
            try:
                moved = await asyncio.to_thread(self._hindrance.settle)
                if moved:
                    self._log.warning("deadlines_moved", tasks=moved, why="deliveries could not be taken")
                    await self._tell_doors()
                await asyncio.to_thread(self._challenges.expire)
            except StorageError as error:
                self._hindrance.failed()
                self._log.error("expiry_failed", code=error.error_code, error=error.message, what_to_do=error.hint)
            await asyncio.sleep(_EXPIRY_SECONDS)

    async def _tell_doors(self) -> None:
        for (miner, task_id), deadline in (await asyncio.to_thread(self._challenges.open_tasks)).items():
            self._doors.opened(miner, task_id, deadline)

    async def _end_replaced(self, graph: Metagraph) -> None:
        hotkeys = {neuron.hotkey for neuron in graph.neurons}
        ended = await asyncio.to_thread(self._asking.end_replaced, hotkeys)
        if ended:
            self._log.info("challenges_of_replaced_hotkeys_ended", count=ended)

    def _make_up(self) -> None:
        """Give open tasks back the time since the last sign of life; then give one, so that this happens once."""
        last = ServiceState.heartbeats(self._ground.database).get(self._ground.service)
        if last is not None:
            count = self._challenges.make_up(last[0])
            if count:
                self._log.info("deadlines_moved", tasks=count, seconds=round(self._ground.clock.time() - last[0], 1))
        self._beat()

    def _beat(self) -> None:
        self._ground.beat(
            block=max(0, self._blocks.latest),
            deliveries=self._counts.deliveries,
            refused=sum(self._counts.refused.values()),
        )

    def _obstacle(self) -> str | None:
        if self._ground.clock.monotonic() - self._last_block_at > _LATE_BLOCK_SECONDS:
            return "The chain has shown no block for minutes."
        return None

    def _rounds(self, client: SignedClient, webhook: str) -> ChallengeRounds:
        ground, settings = self._ground, self._settings
        rules = RoundRules(
            webhook_url=webhook,
            interval_blocks=settings.challenge_interval_blocks,
            sample_size=settings.challenge_sample_size,
            modalities=settings.modalities,
            seconds_for=settings.seconds_for,
            timeout=settings.challenge_timeout,
            at_once=settings.challenge_at_once,
            max_open=settings.challenge_max_open,
            max_backlog=settings.challenge_max_backlog,
            local_addresses=settings.challenge_local_addresses,
            semisynthetic_share=settings.challenge_semisynthetic_share,
        )
        # The embedder finds near repeats among prompts that are added; none are added here.
        bank = PromptBank(ground.database, HashedEmbedder(), ground.clock)
        return ChallengeRounds(
            self._asking, ground.state, bank, client, ground.clock, ground.ids, rules, ground.hotkey,
            seed=secrets.randbits(64), edits=self._edits(), on_task=self._doors.opened,
            obstacle=lambda: self._obstacle() or self._hindrance.wrong(),
        )  # fmt: skip

    def _edits(self) -> EditSources | None:
        """Photos to be changed, where any challenge is to be one of that kind."""
        if not self._settings.challenge_semisynthetic_share:
            return None
        from gas.datasets.store import open_store
        from gas.validator.edit_sources import EditSources

        return EditSources(
            open_store(self._settings.gas_home, self._ground.clock), self._sent_along, self._ground.clock
        )

    def _epochs(self) -> EpochRunner:
        ground, settings = self._ground, self._settings
        found = competitions_of(settings.gas_home, settings.competitions)
        rules = PayRules() if found is None else PayRules(competitions=found)
        return EpochRunner(
            ground.database, ground.chain, ground.hotkey, EMISSION_PROFILES[settings.emission_profile], ground.clock,
            netuid=settings.bt_netuid, home=settings.gas_home, endpoint=settings.bt_chain_endpoint, rules=rules,
            version_key=settings.version_key,
        )  # fmt: skip

    @asynccontextmanager
    async def _servers(self) -> AsyncIterator[int]:
        """Both servers; gives the port of the webhook."""
        ground, settings = self._ground, self._settings
        gate = EpistulaGate(ground.hotkey, self._graph, ground.clock, ReplayGuard())
        app = create_spool_app(
            self._challenges,
            self._doors,
            ground.blobs,
            gate,
            ground.clock,
            folder=self._incoming,
            max_bytes=settings.callback_max_mb * 2**20,
            seconds=settings.callback_seconds,
            ids=ground.ids,
            counts=self._counts,
            obstacle=self._obstacle,
            offences=self._offences,
            hindrance=self._hindrance,
        )
        self._prints.serve(app)
        async with self._listen(app, settings.callback_ip, settings.callback_port) as server:
            if not settings.metrics_port:
                yield server.port
                return
            watched = create_metrics_app(ground.database, ground.hotkey, ground.clock, self._counts)
            async with self._listen(watched, settings.metrics_ip, settings.metrics_port):
                yield server.port
