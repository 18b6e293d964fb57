"""From a task to a medium that waits for its delivery, without ever paying twice."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from gas.clock import Clock
from gas.errors import GasError, InfrastructureError, RequestRefused, ServiceUnavailable, StorageError
from gas.generation.base import GeneratedMedium, GenerationTask, Job, Service, SourceImage
from gas.miners.faults import advice, is_disk_full
from gas.miners.seal import Seal
from gas.miners.states import Task, TaskState
from gas.miners.tasks import TaskStore
from gas.types import Modality

__all__ = ["MakingRules", "MediumMaker"]

_TOLD: Final = "The miner could not make it."
_KNOWN_CONTAINERS: Final = frozenset({"video/mp4", "video/webm"})


@dataclass(frozen=True, slots=True)
class MakingRules:
    """How long a task may take.

    Attributes:
        max_age_seconds: Age at which a task is given up.
        margin_seconds: What is kept of that for the delivery: making is given up so much earlier.
        least_pause_seconds: Shortest pause before a provider is asked again.
        storing_seconds: How long storing is tried when the disk is full or the database is locked.
        storing_pause_seconds: Pause between two such tries.
    """

    max_age_seconds: float = 600.0
    margin_seconds: float = 15.0
    least_pause_seconds: float = 1.0
    storing_seconds: float = 20.0
    storing_pause_seconds: float = 0.5

    def deadline(self, task: Task) -> float:
        """When the making of a task is given up, seconds since the epoch."""
        return task.created_at + self.max_age_seconds - min(self.margin_seconds, self.max_age_seconds / 5)


class MediumMaker:
    """Makes the media of tasks.

    Args:
        store: The tasks.
        services: Who makes each modality.
        seal: Signs what was made.
        clock: For deadlines.
        rules: How long a task may take.
        keep: Called with each signed medium: ``(task id, bytes, mime)``; keeps a copy for the operator.
        sleep: How pauses are waited for.
    """

    def __init__(
        self,
        store: TaskStore,
        services: Mapping[Modality, Service],
        seal: Seal,
        clock: Clock,
        rules: MakingRules,
        *,
        keep: Callable[[str, bytes, str], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._services = services
        self._seal = seal
        self._clock = clock
        self._rules = rules
        self._keep = keep
        self._sleep = sleep
        self._resting: dict[str, float] = {}
        self.asking: set[str] = set()
        self._storage_code = "storage"
        self._log = structlog.get_logger("gas.miner")

    async def make(self, task: Task) -> float | None:
        """Make a task's medium, or its failure.

        Returns:
            None once the task waits for delivery; otherwise the seconds after which to come again: it is queued, and
            nothing has been paid.

        Raises:
            StorageError: The task could not be noted as begun; nothing has been asked.
        """
        service = self._service(task)
        if service is None:
            return await self._fail(task, InfrastructureError("Its service is not set up here.", code="service_gone"))
        if task.state is TaskState.ASKING:
            return await self._fail(task, ServiceUnavailable("The answer was lost.", code="provider_uncertain"))
        left = self._rules.deadline(task) - self._clock.time()
        rest = self._resting.get(service.name, 0.0) - self._clock.monotonic()
        if task.job is None and 0 < rest < left:
            return rest
        try:
            return await self._make(task, service, max(left, 0.0))
        finally:
            self.asking.discard(task.id)

    async def _make(self, task: Task, service: Service, left: float) -> float | None:
        try:
            async with asyncio.timeout(left):
                medium = await self._obtain(task, service)
        except TimeoutError:
            return await self._fail(task, self._late(task, service))
        except ServiceUnavailable as error:
            return await self._unavailable(task, service, error)
        except GasError as error:
            return await self._fail(task, error)
        return await self._settle(task, medium)

    def _service(self, task: Task) -> Service | None:
        if task.job is not None:
            return next((s for s in self._services.values() if s.name == task.service), None)
        return self._services.get(Modality(task.modality))

    async def _obtain(self, task: Task, service: Service) -> GeneratedMedium:
        job = task.job
        if job is None:
            wish = await asyncio.to_thread(self._wish, task)
            # Before anything is paid: what can't be signed can't be delivered.
            self._seal.check()
            await asyncio.to_thread(self._store.start, task.id, service.name, paid=service.paid)
            self._log.info("making", task=task.id, service=service.name)
            if service.paid:
                self.asking.add(task.id)
            made = await service.submit(wish)
            if isinstance(made, GeneratedMedium):
                return made
            job = made
            # When this fails for good the job goes on in memory; a restart then finds the task as "asking".
            await self._stored(self._store.running, task.id, job)
            self.asking.discard(task.id)
            self._log.info("job_running", task=task.id, service=service.name, job=job.id)
            return await self._collect(task, service, job, job.poll_seconds)
        # After a restart: it has had its time.
        return await self._collect(task, service, job, 0.0)

    async def _collect(self, task: Task, service: Service, job: Job, pause: float) -> GeneratedMedium:
        while True:
            await self._sleep(pause)
            pause = job.poll_seconds
            try:
                medium = await service.collect(job)
            except ServiceUnavailable as error:
                if error.retry_after is None:
                    raise
                pause = max(error.retry_after, pause)
                self._log.warning(
                    "job_not_reachable", task=task.id, service=service.name, code=error.error_code, again_in=pause
                )
                continue
            if medium is not None:
                return medium

    def _wish(self, task: Task) -> GenerationTask:
        # The same task gives the same draws after a restart.
        seed = int.from_bytes(hashlib.sha256(task.id.encode()).digest()[:8], "big")
        source = None
        if task.source_blob is not None:
            mask = self._store.source(task.mask_blob) if task.mask_blob is not None else None
            source = SourceImage(self._store.source(task.source_blob), mask)
        return GenerationTask(Modality(task.modality), task.prompt, seed, task.parameters, source)

    async def _unavailable(self, task: Task, service: Service, error: ServiceUnavailable) -> float | None:
        if error.retry_after is None or error.error_code == "provider_uncertain":
            return await self._fail(task, error)
        pause = max(error.retry_after, self._rules.least_pause_seconds)
        if task.job is None:
            self._resting[service.name] = self._clock.monotonic() + pause
        if self._clock.time() + pause >= self._rules.deadline(task):
            return await self._fail(task, error)
        self._log.warning(
            "provider_not_now",
            task=task.id,
            service=service.name,
            code=error.error_code,
            again_in=round(pause, 1),
            what_to_do=advice(error.error_code, error),
        )
        # Back in the queue before the pause: a restart in it must find that nothing was paid.
        if not await self._stored(self._store.requeue, task.id):
            return await self._fail(task, error)
        return pause

    def _late(self, task: Task, service: Service) -> GasError:
        if task.id in self.asking and service.paid:
            return ServiceUnavailable("No answer until the task was too old.", code="provider_uncertain")
        return InfrastructureError("It was not made in time.", code="task_timeout")

    async def _settle(self, task: Task, medium: GeneratedMedium) -> float | None:
        try:
            mime, size = await asyncio.to_thread(_examine, medium, Modality(task.modality))
            data = await asyncio.to_thread(self._seal.sign, medium)
        except GasError as error:
            return await self._fail(task, error)
        if not await self._stored(self._keep_medium, task.id, data, mime, medium, size):
            return await self._fail(
                task, StorageError("The medium could not be stored.", code=self._storage_code, hint=None)
            )
        self._log.info("medium_made", task=task.id, service=task.service, model=medium.model, bytes=len(data))
        if self._keep is not None:
            await asyncio.to_thread(self._keep, task.id, data, mime)
        return None

    def _keep_medium(
        self, task_id: str, data: bytes, mime: str, medium: GeneratedMedium, size: tuple[int, int] | None
    ) -> None:
        self._store.generated(task_id, data, mime, medium=medium, size=size)

    async def _fail(self, task: Task, error: GasError) -> float | None:
        code = error.error_code
        self._log.warning(
            "generation_failed",
            task=task.id,
            validator=task.validator,
            service=task.service,
            code=code,
            error=error.message,
            what_to_do=advice(code, error),
        )
        # What went wrong inside is the operator's; the validator learns what it may act on, and the code.
        told = error.message if isinstance(error, RequestRefused) else _TOLD
        if not await self._stored(self._fail_in_store, task.id, told, code):
            # Not noted, so not ended: it is looked at again, and a paid call is not made again.
            return self._rules.storing_seconds
        return None

    def _fail_in_store(self, task_id: str, told: str, code: str) -> None:
        self._store.fail_to_make(task_id, told, code=code)

    async def _stored(self, write: Callable[..., None], *arguments: object) -> bool:
        """Write to the store, again and again for a while; whether it worked."""
        tries = max(1, int(self._rules.storing_seconds / self._rules.storing_pause_seconds))
        for attempt in range(tries):
            try:
                await asyncio.to_thread(write, *arguments)
            except StorageError as error:
                self._storage_code = "disk_full" if is_disk_full(error) else error.error_code
                if attempt == 0:
                    self._log.error(
                        "storing_failed",
                        code=self._storage_code,
                        error=error.message,
                        what_to_do=advice(self._storage_code, error if self._storage_code != "disk_full" else None),
                    )
                await self._sleep(self._rules.storing_pause_seconds)
            else:
                return True
        return False


def _examine(medium: GeneratedMedium, modality: Modality) -> tuple[str, tuple[int, int] | None]:
    """The medium's type by its bytes, and a picture's size.

    Raises:
        InfrastructureError: ``bad_medium``.
    """
    from gas.errors import MediaRejected
    from gas.media.image import probe_image, sniff_mime

    mime = sniff_mime(medium.data)
    if mime in _KNOWN_CONTAINERS and modality is Modality.AUDIO and medium.mime.startswith("audio/"):
        return medium.mime, None
    if mime is None or not mime.startswith(f"{modality}/"):
        raise InfrastructureError(f"What was made is no {modality}.", code="bad_medium")
    if modality is not Modality.IMAGE:
        return mime, None
    try:
        return mime, probe_image(medium.data)
    except MediaRejected as error:
        raise InfrastructureError(f"What was made is no picture: {error.message}", code="bad_medium") from error
