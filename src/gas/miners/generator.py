"""The generator's HTTP service: takes signed prompts, answers at once, delivers later.

Calls (all signed but ``/health``): ``POST /gen_image``, ``/gen_video``, ``/gen_audio``, ``GET /miner_info``,
``GET /status/{task_id}``, ``GET /health``.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from gas import __version__
from gas.errors import RequestRefused
from gas.generation.base import Pipeline
from gas.miners.tasks import TaskState, TaskStore
from gas.miners.worker import GeneratorWorker
from gas.protocol.messages import (
    GenerationRequest,
    MinerInfo,
    MinerType,
    TaskAccepted,
    TaskStatus,
    parse_message,
)
from gas.protocol.messages import TaskState as WireState
from gas.protocol.server import EpistulaGate, install_error_handler
from gas.types import Modality

__all__ = ["GeneratorRules", "create_app"]

_MAX_REQUEST_BYTES = 64 * 1024
_MAX_URL = 2048
_WIRE = {
    TaskState.QUEUED: WireState.PENDING,
    TaskState.GENERATING: WireState.PROCESSING,
    TaskState.DELIVERING: WireState.COMPLETED,
    TaskState.DELIVERED: WireState.DELIVERED,
    TaskState.FAILED: WireState.FAILED,
    TaskState.EXPIRED: WireState.FAILED,
}


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
    pipeline: Pipeline,
    gate: EpistulaGate,
    hotkey: str,
    uid: int | None,
    rules: GeneratorRules,
) -> FastAPI:
    """The service as an ASGI application; its worker runs while the application does.

    Args:
        store: The tasks.
        worker: Works them off.
        pipeline: What it offers.
        gate: Lets validators in.
        hotkey: The miner's own.
        uid: Its slot on the subnet, when known.
        rules: What the operator allows.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            store.close()

    app = FastAPI(title="GAS generator", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    install_error_handler(app)

    def generate(modality: Modality) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def handle(request: Request) -> JSONResponse:
            signed = await gate.receive(request, limit=_MAX_REQUEST_BYTES)
            wish = parse_message(GenerationRequest, signed.body)
            webhook = check_webhook(request.headers.get("x-webhook-url", ""), allow_local=rules.allow_local_webhooks)
            if modality not in pipeline.modalities:
                raise RequestRefused(f"This miner makes no {modality}.", status=422, code="modality_not_offered")
            task = await asyncio.to_thread(
                store.add,
                signed.hotkey,
                modality.value,
                wish.prompt,
                wish.parameters.model_dump(exclude_none=True),
                webhook,
                limit=rules.max_open_tasks,
            )
            if task is None:
                raise RequestRefused("The queue is full.", status=503, code="queue_full", hint="Try again later.")
            worker.enqueue(task)
            return JSONResponse(TaskAccepted(task_id=task.id).model_dump(), status_code=202)

        return handle

    for modality in Modality:
        app.post(f"/gen_{modality}", status_code=202)(generate(modality))

    @app.get("/miner_info")
    async def miner_info(request: Request) -> MinerInfo:
        await gate.receive(request, limit=0)
        return MinerInfo(
            miner_type=MinerType.GENERATOR,
            uid=uid,
            hotkey=hotkey,
            modalities=sorted(pipeline.modalities),
            services=[pipeline.name],
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
            updated_at=task.finished_at or task.created_at,
            error_message=task.error,
        )

    @app.get("/health")
    async def health() -> dict[str, object]:
        return {"status": "ok", "tasks": await asyncio.to_thread(store.counts)}

    return app


def check_webhook(url: str, *, allow_local: bool) -> str:
    """The webhook's address, when it is one that we would send a medium to.

    Args:
        url: As the validator gave it.
        allow_local: Whether loop-back and private addresses will do.

    Raises:
        RequestRefused: 422 ``bad_webhook``.
    """

    def refusal(message: str) -> RequestRefused:
        return RequestRefused(message, status=422, code="bad_webhook", hint="Send it in the header X-Webhook-URL.")

    if not 0 < len(url) <= _MAX_URL:
        raise refusal("The webhook's address is missing or too long.")
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise refusal("The webhook's address is no URL.") from None
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.password or parts.fragment:
        raise refusal("The webhook must be a plain http or https address.")
    if allow_local:
        return url
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if host == "localhost" or host.endswith((".localhost", ".local", ".internal")) or "." not in host:
            raise refusal("The webhook's address is local.") from None
        return url
    if not address.is_global:
        raise refusal("The webhook's address is local.")
    return url
