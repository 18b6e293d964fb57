"""The generator's worker: takes tasks from the queue, makes media, signs and delivers them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import structlog

from gas.chain.keys import Signer
from gas.clock import Clock, IdSource
from gas.errors import GasError, RequestRefused
from gas.generation.base import GenerationTask, Pipeline
from gas.miners.tasks import Task, TaskState, TaskStore
from gas.protocol.client import PeerUnreachable, SignedClient, encode_json
from gas.protocol.messages import GenerationFailure
from gas.types import Modality

__all__ = ["DeliveryRules", "GeneratorWorker"]

_FINAL_REFUSALS = frozenset({400, 401, 403, 409, 410, 413, 422})
_UNKNOWN_TASK = 404
_GRACE_FOR_UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class DeliveryRules:
    """When to give a delivery up.

    Attributes:
        max_age_seconds: A task older than this is not delivered any more.
        first_pause_seconds: Pause after the first failed attempt; it doubles from one to the next.
        max_pause_seconds: Longest pause.
        timeout_seconds: Wall clock of one attempt.
    """

    max_age_seconds: float = 600.0
    first_pause_seconds: float = 0.5
    max_pause_seconds: float = 30.0
    timeout_seconds: float = 30.0


class GeneratorWorker:
    """Works a task store off: one task after the other, deliveries beside the next generation.

    Args:
        store: The tasks.
        pipeline: Makes the media; called from one thread.
        seal: Turns ``(bytes, mime, model)`` into signed bytes (C2PA).
        signer: The miner's hotkey.
        clock: For the age of tasks and the time stamps of requests.
        ids: For the UUIDs of requests.
        rules: When to give a delivery up.
        transport: How deliveries travel; the network when left out.
    """

    def __init__(
        self,
        store: TaskStore,
        pipeline: Pipeline,
        seal: Callable[[bytes, str, str], bytes],
        signer: Signer,
        clock: Clock,
        ids: IdSource,
        rules: DeliveryRules | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._seal = seal
        self._signer = signer
        self._clock = clock
        self._ids = ids
        self._rules = rules or DeliveryRules()
        self._transport = transport
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._deliveries: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("gas.miner").bind(miner=signer.ss58_address)

    def enqueue(self, task: Task) -> None:
        """Hand a stored task to the worker."""
        self._queue.put_nowait(task.id)

    async def run(self) -> None:
        """Work until cancelled; begins with what an earlier process left unfinished."""
        async with httpx.AsyncClient(timeout=self._rules.timeout_seconds, transport=self._transport) as http:
            client = SignedClient(self._signer, http, self._clock, self._ids)
            for task in await asyncio.to_thread(self._store.unfinished):
                if task.state is TaskState.DELIVERING:
                    self._deliver_beside(client, task.id)
                else:
                    self.enqueue(task)
            try:
                while True:
                    task_id = await self._queue.get()
                    await asyncio.to_thread(self._make, task_id)
                    self._deliver_beside(client, task_id)
            finally:
                for delivery in self._deliveries:
                    delivery.cancel()
                await asyncio.gather(*self._deliveries, return_exceptions=True)

    def _make(self, task_id: str) -> None:
        task = self._store.get(task_id)
        if task is None or self._too_old(task):
            return
        self._store.start(task_id)
        seed = int.from_bytes(hashlib.sha256(task.id.encode()).digest()[:8], "big")
        wish = GenerationTask(Modality(task.modality), task.prompt, seed, task.parameters)
        try:
            medium = self._pipeline.generate(wish)
            self._store.generated(task_id, self._seal(medium.data, medium.mime, medium.model), medium.mime)
        except GasError as error:
            self._log.warning("generation_failed", task=task_id, code=error.error_code)
            # What went wrong inside is the operator's; the validator learns only what it may act on.
            told = error.message if isinstance(error, RequestRefused) else "The pipeline failed."
            self._store.fail_to_make(task_id, told)

    def _deliver_beside(self, client: SignedClient, task_id: str) -> None:
        delivery = asyncio.create_task(self._deliver(client, task_id))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)

    async def _deliver(self, client: SignedClient, task_id: str) -> None:
        task = await asyncio.to_thread(self._store.get, task_id)
        if task is None:
            return
        pause = self._rules.first_pause_seconds
        unknown = 0
        while not self._too_old(task):
            status = await self._attempt(client, task)
            if status is not None and 200 <= status < 300:
                state = TaskState.FAILED if task.error else TaskState.DELIVERED
                await asyncio.to_thread(self._store.finish, task, state, task.error)
                return
            if status == _UNKNOWN_TASK:
                # The delivery may overtake the answer that tells the validator the task's id.
                unknown += 1
            if status in _FINAL_REFUSALS or unknown > _GRACE_FOR_UNKNOWN:
                self._log.warning("delivery_refused", task=task.id, status=status)
                await asyncio.to_thread(self._store.finish, task, TaskState.FAILED, f"Refused with {status}.")
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._rules.max_pause_seconds)
        await asyncio.to_thread(self._store.finish, task, TaskState.EXPIRED, "Too old to be delivered.")

    async def _attempt(self, client: SignedClient, task: Task) -> int | None:
        """Status of the validator's answer, None when there was none."""
        if task.error is not None:
            body, mime = encode_json(GenerationFailure(error_message=task.error)), "application/json"
            headers = {"task-id": task.id, "task-status": "failed"}
        else:
            body, mime = await asyncio.to_thread(self._store.medium, task), task.mime or "application/octet-stream"
            headers = {"task-id": task.id}
        try:
            answer = await client.send(
                "POST", task.webhook_url, body=body, content_type=mime, signed_for=task.validator, headers=headers
            )
        except RequestRefused as refusal:
            return refusal.status
        except PeerUnreachable as error:
            self._log.info("delivery_attempt_failed", task=task.id, code=error.error_code)
            return None
        return answer.status

    def _too_old(self, task: Task) -> bool:
        return self._clock.time() - task.created_at > self._rules.max_age_seconds
