"""The generator's worker: takes tasks from the queue, lets media be made and signed, and has them delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import structlog

from gas.chain.keys import Signer
from gas.clock import Clock, IdSource
from gas.errors import GasError, InfrastructureError, StorageError
from gas.generation.base import Service
from gas.miners.delivery import Courier, DeliveryRules
from gas.miners.faults import ADVICE, advice, free_bytes
from gas.miners.making import MakingRules, MediumMaker
from gas.miners.queue import FairQueue
from gas.miners.seal import Seal
from gas.miners.states import Recovery, Task, TaskState
from gas.miners.tasks import TaskStore
from gas.miners.webhooks import GuardedTransport
from gas.protocol.client import SignedClient
from gas.types import Modality

__all__ = ["GeneratorWorker", "WorkRules"]

_DAY: Final = 86_400.0
_LOOK_AGAIN: Final = 3.0


@dataclass(frozen=True, slots=True)
class WorkRules:
    """How the worker works.

    Attributes:
        concurrent: Media in the making at a time.
        making: How long making may take.
        delivery: How deliveries are tried.
        min_free_bytes: Free disk below which nothing new is begun.
        keep_seconds: After how long an ended task is forgotten.
        drain_seconds: How long a stop waits for paid calls that are under way.
        allow_local_webhooks: Whether deliveries may go to loop-back and private addresses.
    """

    concurrent: int = 5
    making: MakingRules = field(default_factory=MakingRules)
    delivery: DeliveryRules = field(default_factory=DeliveryRules)
    min_free_bytes: int = 0
    keep_seconds: float = 14 * _DAY
    drain_seconds: float = 8.0
    allow_local_webhooks: bool = False


class GeneratorWorker:
    """Works a task store off: some tasks at a time, deliveries beside them.

    Args:
        store: The tasks.
        services: Who makes each modality.
        seal: Signs what was made.
        signer: The miner's hotkey.
        clock: For the age of tasks and the time stamps of requests.
        ids: For the UUIDs of requests.
        rules: How to work.
        transport: How deliveries travel; the network, guarded as the rules say, when left out.
        keep: Keeps a copy of each signed medium for the operator: ``(task id, bytes, mime)``.
    """

    def __init__(
        self,
        store: TaskStore,
        services: Mapping[Modality, Service],
        seal: Seal,
        signer: Signer,
        clock: Clock,
        ids: IdSource,
        rules: WorkRules | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        keep: Callable[[str, bytes, str], None] | None = None,
    ) -> None:
        self._store = store
        self._seal = seal
        self._signer = signer
        self._clock = clock
        self._ids = ids
        self._rules = rules or WorkRules()
        self._transport = transport
        self._maker = MediumMaker(store, services, seal, clock, self._rules.making, keep=keep)
        self._queue = FairQueue()
        self._beside: set[asyncio.Task[Any]] = set()
        self._in_hand: set[str] = set()
        self._recovery: Recovery | None = None
        self._low = False
        self._log = structlog.get_logger("gas.miner").bind(miner=signer.ss58_address)

    def enqueue(self, task: Task) -> None:
        """Hand a stored task to the worker; one that it has already is not taken twice."""
        if task.id not in self._in_hand:
            self._in_hand.add(task.id)
            self._queue.put(task.validator, task.id)

    def obstacle(self) -> InfrastructureError | None:
        """Why no new work can be taken now: a full disk or an expired certificate; None when it can."""
        free = free_bytes(self._store.folder)
        if free < self._rules.min_free_bytes:
            if not self._low:
                self._log.error("disk_full", free_bytes=free, what_to_do=ADVICE["disk_full"])
            self._low = True
            return InfrastructureError("This miner has no room for media now.", code="disk_full")
        self._low = False
        try:
            self._seal.check()
        except InfrastructureError as error:
            return InfrastructureError("This miner can't sign media now.", code=error.error_code)
        return None

    async def prepare(self) -> None:
        """Settle what an earlier process left half done; to be called before the first task is taken."""
        self._recovery = await asyncio.to_thread(self._store.recover)

    async def run(self) -> None:
        """Work until cancelled; begins with what an earlier process left unfinished."""
        rules = self._rules.delivery
        transport = self._transport
        if transport is None and not self._rules.allow_local_webhooks:
            transport = GuardedTransport()
        # No proxy of the environment: the guard must see the address that is connected to.
        async with httpx.AsyncClient(timeout=rules.timeout_seconds, transport=transport, trust_env=False) as http:
            client = SignedClient(self._signer, http, self._clock, self._ids)
            courier = Courier(self._store, client, self._clock, rules)
            await self._resume(courier)
            lanes = [asyncio.create_task(self._lane(courier)) for _ in range(self._rules.concurrent)]
            lanes.append(asyncio.create_task(self._tidy()))
            try:
                await asyncio.gather(*lanes)
            finally:
                for lane in lanes:
                    lane.cancel()
                await asyncio.gather(*lanes, return_exceptions=True)
                await self._drain()

    async def _resume(self, courier: Courier) -> None:
        if self._recovery is None:
            await self.prepare()
        recovery, self._recovery = self._recovery or Recovery(()), None
        for task in recovery.uncertain:
            self._log.error(
                "generation_failed",
                task=task.id,
                validator=task.validator,
                service=task.service,
                code="provider_uncertain",
                what_to_do=ADVICE["provider_uncertain"],
            )
        # Jobs that run outside come first: they are paid for.
        for task in sorted(recovery.open, key=lambda task: task.state is not TaskState.RUNNING):
            if task.state is TaskState.DELIVERING:
                self._in_hand.add(task.id)
                self._deliver_beside(courier, task.id)
            else:
                self.enqueue(task)
        if recovery.open:
            self._log.info("resumed", tasks=len(recovery.open))

    async def _lane(self, courier: Courier) -> None:
        while True:
            task_id = await self._queue.get()
            # A task of its own, so that a stop can let a paid call come to its end.
            work = self._beside_us(self._work(courier, task_id))
            await asyncio.wait({work})
            # This is the loop's edge: a mistake of ours costs one task, and is told with its name.
            if not work.cancelled() and (error := work.exception()) is not None:
                await self._broken(courier, task_id, error)

    async def _work(self, courier: Courier, task_id: str) -> None:
        task = await asyncio.to_thread(self._store.get, task_id)
        if task is None or task.finished_at is not None:
            self._in_hand.discard(task_id)
            return
        if task.state is TaskState.DELIVERING:
            self._deliver_beside(courier, task_id)
            return
        obstacle = await asyncio.to_thread(self.obstacle)
        waits = obstacle is not None and obstacle.error_code == "disk_full" and task.job is None
        if waits and self._clock.time() < self._rules.making.deadline(task):
            self._later(task, _LOOK_AGAIN)
            return
        if waits:
            await asyncio.to_thread(self._store.fail_to_make, task_id, "The miner had no room.", code="disk_full")
        else:
            again = await self._maker.make(task)
            if again is not None:
                self._later(task, again)
                return
        self._deliver_beside(courier, task_id)

    async def _broken(self, courier: Courier, task_id: str, error: BaseException) -> None:
        if isinstance(error, StorageError):
            # The database does not answer: the task is as it was, and comes again.
            self._log.error("storing_failed", task=task_id, code=error.error_code, error=error.message)
            task = await self._looked_up(task_id)
            if task is not None:
                self._later(task, _LOOK_AGAIN)
                return
        code = error.error_code if isinstance(error, GasError) else "internal_error"
        self._log.error("generation_failed", task=task_id, code=code, what_to_do=advice(code), exc_info=error)
        try:
            await asyncio.to_thread(self._store.fail_to_make, task_id, "The miner could not make it.", code=code)
        except StorageError as failure:
            self._log.error("storing_failed", task=task_id, code=failure.error_code, error=failure.message)
            return
        self._deliver_beside(courier, task_id)

    async def _looked_up(self, task_id: str) -> Task | None:
        while True:
            try:
                return await asyncio.to_thread(self._store.get, task_id)
            except StorageError:
                await asyncio.sleep(_LOOK_AGAIN)

    def _later(self, task: Task, seconds: float) -> None:
        # It stays in hand: nobody else may bring it meanwhile.
        asyncio.get_running_loop().call_later(seconds, self._queue.put, task.validator, task.id)

    def _deliver_beside(self, courier: Courier, task_id: str) -> None:
        self._beside_us(self._deliver(courier, task_id))

    async def _deliver(self, courier: Courier, task_id: str) -> None:
        while True:
            try:
                await courier.deliver(task_id)
            except StorageError as error:
                self._log.error("storing_failed", task=task_id, code=error.error_code, error=error.message)
                await asyncio.sleep(_LOOK_AGAIN)
            else:
                self._in_hand.discard(task_id)
                return

    def _beside_us(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    async def _tidy(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._store.forget, before=self._clock.time() - self._rules.keep_seconds)
            except StorageError as error:
                self._log.warning("storing_failed", code=error.error_code, error=error.message)
            await asyncio.sleep(3600.0)

    async def _drain(self) -> None:
        """Let paid calls end within the time for it; end everything else."""
        if self._maker.asking:
            self._log.info("waiting_for_paid_calls", calls=len(self._maker.asking))
        end = self._clock.monotonic() + self._rules.drain_seconds
        while self._maker.asking and self._clock.monotonic() < end:  # noqa: ASYNC110  (several conditions, one place)
            await asyncio.sleep(0.02)
        left = list(self._beside)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
