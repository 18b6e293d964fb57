"""The webhook to which generators deliver: takes a medium once, from the right miner, in time, and judges it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from gas import __version__
from gas.clock import Clock
from gas.errors import RequestRefused
from gas.protocol.messages import GenerationFailure, parse_message
from gas.protocol.server import EpistulaGate, install_error_handler
from gas.storage.blobs import BlobStore
from gas.storage.tables import MediumRow
from gas.types import MediaType
from gas.validator.doors import Doors
from gas.validator.receiving import CALLBACK_PATH, create_spool_app
from gas.validator.tasks import Challenge, Challenges
from gas.verification.base import Verdict

__all__ = ["CALLBACK_PATH", "Judge", "create_app"]

_MAX_FAILURE_BYTES = 16 * 1024

Judge = Callable[[bytes, Challenge], Verdict]
"""Verifies one delivered medium; runs in a worker thread, one at a time."""


def create_app(
    challenges: Challenges,
    judge: Judge | None,
    blobs: BlobStore,
    gate: EpistulaGate,
    validator: str,
    clock: Clock,
    *,
    max_bytes: int = 64 * 2**20,
    on_settled: Callable[[Challenge, Verdict | None], None] | None = None,
) -> FastAPI:
    """The webhook as an ASGI application.

    Args:
        challenges: What was asked of whom.
        judge: Verifies a medium while its sender waits; None leaves that to another process, see
            :func:`gas.validator.receiving.create_spool_app`.
        blobs: Where verified media are kept; a refused one leaves nothing.
        gate: Lets miners in.
        validator: Our hotkey.
        clock: For the time of verification.
        max_bytes: Largest medium.
        on_settled: Told, in the event loop, of every delivery: its verdict, or None for a failure of the miner's.
    """
    if judge is None:
        return create_spool_app(challenges, Doors(challenges, clock), blobs, gate, clock, max_bytes=max_bytes)
    app = FastAPI(title="GAS validator", version=__version__, docs_url=None, redoc_url=None)
    install_error_handler(app)
    log = structlog.get_logger("gas.validator").bind(validator=validator)
    # One at a time: two copies of one medium must not pass side by side.
    judging = asyncio.Lock()

    def work(judge: Judge, data: bytes, challenge: Challenge) -> Verdict:
        verdict = judge(data, challenge)
        medium = None
        if verdict.verified:
            blobs.put(data)
            medium = MediumRow(
                sha256=verdict.sha256,
                validator=validator,
                generator=challenge.miner,
                task_id=challenge.task_id,
                modality=challenge.modality.value,
                media_type=MediaType.SYNTHETIC.value,
                width=verdict.width,
                height=verdict.height,
                mime=str(verdict.facts.get("mime", "")),
                phash=str(verdict.facts["phash"]) if "phash" in verdict.facts else None,
                issuer=verdict.issuer,
                verified_at=clock.time(),
            )
        challenges.judge(challenge, verdict, medium)
        return verdict

    def tell(challenge: Challenge, verdict: Verdict | None) -> None:
        if on_settled is not None:
            on_settled(challenge, verdict)

    @app.post(CALLBACK_PATH)
    async def deliver(request: Request) -> JSONResponse:
        task_id = request.headers.get("task-id", "")
        if not 0 < len(task_id) <= 64:
            raise RequestRefused("The header task-id is missing.", status=400, code="no_task_id")
        failed = request.headers.get("task-status") == "failed"
        signed = await gate.receive(request, limit=_MAX_FAILURE_BYTES if failed else max_bytes)
        if failed:
            failure = parse_message(GenerationFailure, signed.body)
            challenge = await asyncio.to_thread(challenges.claim, signed.hotkey, task_id)
            await asyncio.to_thread(challenges.fail, challenge, failure.error_message)
            tell(challenge, None)
            return JSONResponse({"status": "noted"})
        challenge = await asyncio.to_thread(challenges.claim, signed.hotkey, task_id)
        async with judging:
            verdict = await asyncio.to_thread(work, judge, signed.body, challenge)
        codes = [reason.code for reason in verdict.reasons]
        log.info("medium_judged", miner=challenge.miner, task=task_id, verified=verdict.verified, reasons=codes)
        tell(challenge, verdict)
        # The delivery has been taken either way; what came of it is the miner's to know.
        status = "verified" if verdict.verified else "refused"
        return JSONResponse({"status": status, "reasons": [reason.as_dict() for reason in verdict.reasons]})

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app
