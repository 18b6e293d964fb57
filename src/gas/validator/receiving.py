"""The running validator's webhook: takes media from miners and keeps them; another process judges them.

``POST /generation/callback`` takes a delivery (202 ``{"status": "received"}``), ``GET /generation/status/{task_id}``
tells the miner what came of it, ``GET /health`` is unsigned. A refusal stores nothing; the order is that of
:mod:`gas.protocol.epistula`, then 404 ``unknown_task``, 409 ``already_delivered``, 410 ``too_late``, 429, all before
the body is read, then 408, 413 and 400 while it streams in. Of refused deliveries some bodies are read all the same,
to know who floods: see :mod:`gas.validator.offences`.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from gas import __version__
from gas.clock import Clock, IdSource, RandomIds
from gas.errors import InfrastructureError, RequestRefused, StorageError
from gas.protocol.epistula import Claim
from gas.protocol.messages import GenerationFailure, parse_message
from gas.protocol.server import EpistulaGate, SignedBody, error_response, install_error_handler
from gas.storage.blobs import BlobStore
from gas.validator.doors import Doors
from gas.validator.hindrance import Hindrance, Space
from gas.validator.offences import KINDS, Offences
from gas.validator.prints import Proof
from gas.validator.spool import Spool
from gas.validator.tasks import Challenges, ChallengeState, unknown_task

__all__ = ["CALLBACK_PATH", "STATUS_PATH", "ReceivingCounts", "create_spool_app"]

CALLBACK_PATH = "/generation/callback"
"""Where deliveries go, below the validator's public address."""

STATUS_PATH = "/generation/status"
"""Below which a miner asks what came of a delivery."""

_IN_MEMORY: Final = 1 << 20
"""Deliveries up to so many bytes are held in memory, larger ones go to a file while they come."""

_MAX_FAILURE_BYTES: Final = 16 * 1024
_LATE: Final = "too_late"
_TOLD: Final = {
    ChallengeState.ACCEPTED: "pending",
    ChallengeState.DELIVERED: "received",
    ChallengeState.VERIFIED: "verified",
    ChallengeState.REFUSED: "refused",
    ChallengeState.FAILED: "failed",
    ChallengeState.EXPIRED: "expired",
}


@dataclass(slots=True)
class ReceivingCounts:
    """What the webhook has done since it started.

    Attributes:
        deliveries: Media taken.
        bytes: Their bytes.
        refused: Refusals by code.
    """

    deliveries: int = 0
    bytes: int = 0
    refused: dict[str, int] = field(default_factory=dict)


def create_spool_app(
    challenges: Challenges,
    doors: Doors,
    blobs: BlobStore,
    gate: EpistulaGate,
    clock: Clock,
    *,
    folder: Path | None = None,
    max_bytes: int = 64 * 2**20,
    seconds: float = 60.0,
    min_free_bytes: int = 0,
    ids: IdSource | None = None,
    counts: ReceivingCounts | None = None,
    obstacle: Callable[[], str | None] = lambda: None,
    offences: Offences | None = None,
    hindrance: Hindrance | None = None,
) -> FastAPI:
    """The webhook as an ASGI application.

    Args:
        challenges: What was asked of whom.
        doors: Lets deliveries in.
        blobs: Where they are kept.
        gate: Lets miners in.
        clock: The time.
        folder: For large deliveries under way; emptied at the start. A temporary one when left out.
        max_bytes: Largest medium.
        seconds: Wall clock of one delivery.
        min_free_bytes: Free disk below which none is taken; ``hindrance`` knows better.
        ids: Names of files under way.
        counts: Kept up to date.
        obstacle: What is wrong with the rest of the service, in one sentence; None when all is well.
        offences: Counts what miners do in vain on purpose; its owner flushes it.
        hindrance: Told of deliveries that we could not take; its owner settles it.
    """
    names, told, log = ids or RandomIds(), counts or ReceivingCounts(), structlog.get_logger("gas.validator")
    aside = folder or Path(tempfile.mkdtemp(prefix="gas-incoming-"))
    aside.mkdir(parents=True, exist_ok=True)
    spool = Spool(challenges.database, blobs, challenges.validator)
    hindered = hindrance or Hindrance(challenges, Space(aside, min_free_bytes, clock), clock)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(_empty, aside)
        try:
            yield
        finally:
            spool.close()
            if folder is None:
                shutil.rmtree(aside, ignore_errors=True)

    app = FastAPI(title="GAS validator", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    install_error_handler(app)

    async def keep(signed: SignedBody, task_id: str, body: bytes | Path, claim: Claim) -> None:
        try:
            await spool.keep(signed.hotkey, task_id, body, signed.sha256, clock.time(), Proof.of(claim))
        except RequestRefused as refusal:
            # Another process or another connection was faster.
            if offences is not None and refusal.error_code in KINDS:
                offences.note(signed.hotkey, task_id, signed.sha256, refusal.error_code)
            raise

    async def take(request: Request, claim: Claim, task_id: str) -> None:
        declared = request.headers.get("content-length", "")
        small = declared.isascii() and declared.isdigit() and len(declared) < 10 and int(declared) <= _IN_MEMORY
        if small:
            signed = await gate.receive(request, limit=max_bytes, claim=claim)
            await keep(signed, task_id, signed.body, claim)
        else:
            path = aside / names.new()
            signed = await gate.receive_to(request, path, limit=max_bytes, claim=claim)
            try:
                await keep(signed, task_id, path, claim)
            finally:
                await asyncio.to_thread(path.unlink)
        told.deliveries += 1
        told.bytes += signed.size

    async def deliver(request: Request) -> JSONResponse:
        claim = await gate.claim(request)
        task_id = request.headers.get("task-id", "")
        if not 0 < len(task_id) <= 64:
            raise RequestRefused("The header task-id is missing.", status=400, code="no_task_id")
        try:
            await doors.admit(claim.hotkey, task_id)
        except RequestRefused as refusal:
            if offences is not None and request.headers.get("task-status") != "failed":
                await offences.attribute(request, claim, task_id, refusal.error_code)
            raise
        try:
            async with doors.upload(claim.hotkey, task_id):
                answer = await receive(request, claim, task_id)
        except InfrastructureError as error:
            hindered.refused(claim.hotkey, task_id, error.error_code)
            raise
        doors.closed(claim.hotkey, task_id)
        return answer

    async def receive(request: Request, claim: Claim, task_id: str) -> JSONResponse:
        if request.headers.get("task-status") == "failed":
            signed = await gate.receive(request, limit=_MAX_FAILURE_BYTES, claim=claim)
            failure = parse_message(GenerationFailure, signed.body)
            await asyncio.to_thread(challenges.give_up, signed.hotkey, task_id, failure.error_message)
            return JSONResponse({"status": "noted"})
        hindered.check_space()
        try:
            async with asyncio.timeout(seconds):
                await take(request, claim, task_id)
        except TimeoutError:
            raise RequestRefused("The delivery took too long.", status=408, code="too_slow") from None
        except OSError as error:
            raise StorageError("There is no room for deliveries.", code="disk_full") from error
        return JSONResponse({"status": "received"}, status_code=202)

    async def in_time(request: Request) -> JSONResponse:
        try:
            return await deliver(request)
        except RequestRefused as refusal:
            task = request.headers.get("epistula-signed-by", ""), request.headers.get("task-id", "")
            if refusal.error_code == _LATE and hindered.pending(*task):
                raise InfrastructureError(
                    "The validator could take no deliveries, and is about to move this task's deadline.",
                    code="not_ready",
                ) from None
            raise

    async def callback(request: Request) -> JSONResponse:
        try:
            return await in_time(request)
        except RequestRefused as refusal:
            told.refused[refusal.error_code] = told.refused.get(refusal.error_code, 0) + 1
            raise
        except InfrastructureError as error:
            log.error("delivery_not_taken", code=error.error_code, error=error.message, what_to_do=error.hint)
            raise

    # Without the layer that reads parameters from requests, which costs a tenth of a delivery and finds none here.
    app.add_route(CALLBACK_PATH, callback, methods=["POST"])

    @app.get(STATUS_PATH + "/{task_id}")
    async def status(task_id: str, request: Request) -> dict[str, object]:
        signed = await gate.receive(request, limit=0)
        found = await asyncio.to_thread(challenges.peek, signed.hotkey, task_id) if len(task_id) <= 64 else None
        if found is None or found.state not in _TOLD:
            raise unknown_task()
        return {"status": _TOLD[found.state], "reasons": list(found.reasons)}

    @app.get("/health")
    async def health() -> JSONResponse:
        wrong = obstacle()
        if wrong is not None:
            return error_response(InfrastructureError(wrong, code="not_ready"))
        try:
            hindered.check_space()
        except InfrastructureError as error:
            return error_response(error)
        return JSONResponse({"status": "ok"})

    return app


def _empty(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
