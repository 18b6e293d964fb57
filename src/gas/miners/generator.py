"""The generator's HTTP service: takes signed prompts, answers at once, delivers later.

Calls (all signed but ``/health``): ``POST /gen_image``, ``/gen_video``, ``/gen_audio``, ``/mod_image``,
``GET /miner_info``, ``GET /status/{task_id}``, ``GET /health``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from gas import __version__
from gas.clock import IdSource, RandomIds
from gas.errors import InfrastructureError, RequestRefused, StorageError
from gas.generation.base import Service
from gas.miners.faults import ADVICE, advice, is_disk_full
from gas.miners.intake import MAX_EDIT_BYTES, MAX_REQUEST_BYTES, Wish, read_edit, read_wish
from gas.miners.states import Task, TaskState
from gas.miners.tasks import TaskStore
from gas.miners.webhooks import Resolve, check_webhook, check_webhook_host, resolve_host
from gas.miners.worker import GeneratorWorker
from gas.protocol.messages import EDITS, MinerInfo, MinerType, TaskAccepted, TaskStatus
from gas.protocol.messages import TaskState as WireState
from gas.protocol.server import EpistulaGate, error_response, install_error_handler
from gas.types import Modality

__all__ = ["GeneratorRules", "create_app"]

_WIRE = {
    TaskState.QUEUED: WireState.PENDING,
    TaskState.GENERATING: WireState.PROCESSING,
    TaskState.ASKING: WireState.PROCESSING,
    TaskState.RUNNING: WireState.PROCESSING,
    TaskState.DELIVERING: WireState.COMPLETED,
    TaskState.DELIVERED: WireState.DELIVERED,
    TaskState.FAILED: WireState.FAILED,
    TaskState.EXPIRED: WireState.FAILED,
}
_EDITS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class GeneratorRules:
    """What the operator allows.

    Attributes:
        max_open_tasks: Tasks that may be open at a time; more are answered 503.
        allow_local_webhooks: Whether deliveries may go to loop-back and private addresses: for a network on one
            machine; elsewhere it would let a validator reach into the operator's own network.
    """

    max_open_tasks: int = 32
    allow_local_webhooks: bool = False


def create_app(
    store: TaskStore,
    worker: GeneratorWorker,
    services: Mapping[Modality, Service],
    gate: EpistulaGate,
    hotkey: str,
    uid: int | None,
    rules: GeneratorRules,
    *,
    ids: IdSource | None = None,
    resolve: Resolve = resolve_host,
) -> FastAPI:
    """The service as an ASGI application; its worker runs while the application does.

    Args:
        store: The tasks; closed with the application.
        worker: Works them off.
        services: Who makes each modality; closed with the application.
        gate: Lets validators in.
        hotkey: The miner's own.
        uid: Its slot on the subnet, when known.
        rules: What the operator allows.
        ids: Names of files under way.
        resolve: How webhooks' names become addresses.
    """
    names, log = ids or RandomIds(), structlog.get_logger("gas.miner")
    editing = asyncio.Semaphore(_EDITS_AT_ONCE)
    failed: list[BaseException] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # Before the first request: what is taken from now on must not be mistaken for what a stop has left.
        await worker.prepare()
        running = asyncio.create_task(worker.run())
        running.add_done_callback(lambda task: None if task.cancelled() else _note(task.exception()))
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            for service in {id(service): service for service in services.values()}.values():
                await service.close()
            store.close()

    def _note(error: BaseException | None) -> None:
        if error is not None:
            log.error("worker_stopped", exc_info=error, what_to_do=ADVICE["internal_error"])
            failed.append(error)

    app = FastAPI(title="GAS generator", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    install_error_handler(app)

    async def webhook_of(request: Request) -> str:
        url = check_webhook(request.headers.get("x-webhook-url", ""), allow_local=rules.allow_local_webhooks)
        if not rules.allow_local_webhooks:
            await check_webhook_host(url, resolve)
        return url

    @contextmanager
    def telling(validator: str) -> Iterator[None]:
        try:
            yield
        except RequestRefused as error:
            code = error.error_code
            log.info("request_refused", validator=validator, code=code, what_to_do=advice(code))
            raise

    def ready(modality: Modality) -> None:
        if modality not in services:
            raise RequestRefused(f"This miner makes no {modality}.", status=422, code="modality_not_offered")
        obstacle = _obstacle()
        if obstacle is not None:
            raise obstacle

    def _obstacle() -> InfrastructureError | None:
        return InfrastructureError("This miner has stopped.", code="not_running") if failed else worker.obstacle()

    async def take(validator: str, modality: Modality, wish: Wish, webhook: str) -> JSONResponse:
        task = await asyncio.to_thread(_add, validator, modality, wish, webhook)
        if task is None:
            raise RequestRefused("The queue is full.", status=503, code="queue_full", hint="Try again later.")
        worker.enqueue(task)
        return JSONResponse(TaskAccepted(task_id=task.id).model_dump(), status_code=202)

    def _add(validator: str, modality: Modality, wish: Wish, webhook: str) -> Task | None:
        try:
            return store.add(
                validator,
                modality.value,
                wish.prompt,
                wish.parameters,
                webhook,
                limit=rules.max_open_tasks,
                service=services[modality].name,
                source=wish.image,
                mask=wish.mask,
            )
        except StorageError as error:
            code = "disk_full" if is_disk_full(error) else error.error_code
            log.error("task_not_taken", code=code, error=error.message, what_to_do=ADVICE.get(code, error.hint))
            raise StorageError("This miner can't store a task now.", code=code) from error

    def generate(modality: Modality) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def handle(request: Request) -> JSONResponse:
            signed = await gate.receive(request, limit=MAX_REQUEST_BYTES)
            with telling(signed.hotkey):
                ready(modality)
                wish = read_wish(signed.body, modality)
                webhook = await webhook_of(request)
            return await take(signed.hotkey, modality, wish, webhook)

        return handle

    for modality in Modality:
        app.post(f"/gen_{modality}", status_code=202)(generate(modality))

    @app.post("/mod_image", status_code=202)
    async def mod_image(request: Request) -> JSONResponse:
        async with editing:
            path = store.folder / f"incoming-{names.new()}"
            try:
                signed = await gate.receive_to(request, path, limit=MAX_EDIT_BYTES)
                with telling(signed.hotkey):
                    ready(Modality.IMAGE)
                    if not services[Modality.IMAGE].edits:
                        raise RequestRefused("This miner changes no pictures.", status=422, code="edits_not_offered")
                    wish = await read_edit(request.headers.get("content-type", ""), path)
                    webhook = await webhook_of(request)
                return await take(signed.hotkey, Modality.IMAGE, wish, webhook)
            except OSError as error:
                log.error("task_not_taken", code="disk_full", error=error.strerror, what_to_do=ADVICE["disk_full"])
                raise StorageError("This miner can't store a picture now.", code="disk_full") from error
            finally:
                await asyncio.to_thread(path.unlink, missing_ok=True)

    @app.get("/miner_info")
    async def miner_info(request: Request) -> MinerInfo:
        await gate.receive(request, limit=0)
        named = {modality.value: service.name for modality, service in sorted(services.items())}
        if Modality.IMAGE in services and services[Modality.IMAGE].edits:
            named[EDITS] = services[Modality.IMAGE].name
        return MinerInfo(
            miner_type=MinerType.GENERATOR,
            uid=uid,
            hotkey=hotkey,
            modalities=sorted(services),
            services=named,
            version=__version__,
        )

    @app.get("/status/{task_id}")
    async def status(task_id: str, request: Request) -> TaskStatus:
        signed = await gate.receive(request, limit=0)
        task = await asyncio.to_thread(store.get, task_id)
        if task is None or task.validator != signed.hotkey:
            raise RequestRefused("You have no task of that id here.", status=404, code="unknown_task")
        return TaskStatus(
            task_id=task.id,
            status=_WIRE[task.state],
            created_at=task.created_at,
            updated_at=task.updated_at or task.finished_at or task.created_at,
            error_message=task.error,
            error_code=task.error_code,
        )

    @app.get("/health")
    async def health() -> JSONResponse:
        obstacle = await asyncio.to_thread(_obstacle)
        if obstacle is not None:
            return error_response(obstacle)
        tasks = await asyncio.to_thread(store.counts)
        if await asyncio.to_thread(store.open_count) >= rules.max_open_tasks:
            return error_response(RequestRefused("The queue is full.", status=503, code="queue_full"))
        return JSONResponse({"status": "ok", "tasks": tasks})

    return app
