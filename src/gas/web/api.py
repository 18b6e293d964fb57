"""The control plane: ``/api/v1`` for authors and the public, and what operators' tools ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from gas import __version__
from gas.arena.pushes import PushLabel
from gas.arena.states import IllegalTransition
from gas.arena.submissions import Received, Submissions
from gas.clock import Clock, IdSource
from gas.errors import GasError, RequestRefused, StorageError
from gas.protocol.epistula import Claim
from gas.protocol.server import EpistulaGate, MetagraphCache, install_error_handler
from gas.storage.database import Database
from gas.storage.tables import ExecutorRow, SubmissionRow
from gas.types import Modality, Vertical
from gas.web import views
from gas.web.chunked import CHUNK_BYTES, Pieces
from gas.web.document import JPEG, PIECE, UPLOAD, install_validation_handler, refusals
from gas.web.room import UploadRoom, in_time
from gas.web.uploads import FORM_OVERHEAD_BYTES, read_upload, temporary_file

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["ApiDependencies", "create_app"]

T = TypeVar("T")

_UPLOAD_PATH = "/submissions"
Name = Annotated[str, PathParameter(max_length=256, pattern=r"^[^\x00-\x1f]+$")]
"""What a path may name a thing by: databases choke on the rest."""


@dataclass(frozen=True, slots=True)
class ApiDependencies:
    """What the API stands on.

    Attributes:
        database: State of everything.
        submissions: The desk.
        gate: Lets signed requests of registered hotkeys in.
        metagraph: For readiness.
        clock: For readiness.
        ids: For names of files under way.
        scratch: Folder of files under way.
        worker_lease_seconds: With a number, readiness needs a worker with a heart beat younger than that; None when
            this service works without one.
    """

    database: Database
    submissions: Submissions
    gate: EpistulaGate
    metagraph: MetagraphCache
    clock: Clock
    ids: IdSource
    scratch: Path
    worker_lease_seconds: float | None = None


def create_app(deps: ApiDependencies) -> FastAPI:
    """Build the application; it opens nothing and starts nothing."""
    from prometheus_client import CollectorRegistry

    # Interactive pages would load scripts from elsewhere; the schema itself is published.
    app = FastAPI(title="GAS arena", version=__version__, openapi_url="/api/v1/openapi.json", docs_url=None)
    app.router.redirect_slashes = False
    install_error_handler(app)
    install_validation_handler(app)
    registry = CollectorRegistry()
    _count_requests(app, registry)
    app.include_router(_author_routes(deps), prefix="/api/v1", tags=["authors"])
    app.include_router(_public_routes(deps), prefix="/api/v1", tags=["public"])
    app.include_router(_operator_routes(deps, registry), tags=["operators"])
    return app


def _author_routes(deps: ApiDependencies) -> APIRouter:
    router = APIRouter()
    room = UploadRoom(deps.scratch, deps.submissions.config.largest_upload + FORM_OVERHEAD_BYTES)

    @router.post(_UPLOAD_PATH, status_code=201, responses=refusals(408, 415, 422, signed=True), openapi_extra=UPLOAD)
    async def submit(request: Request) -> JSONResponse:
        """Hand in a package: multipart form with ``zip``, ``modality`` and optionally ``vertical``; signed.

        Packages of several modalities with the same ``push`` and ``push_modalities`` are judged in their exams by the
        average of their accuracies.
        """
        return _received(await _receive(deps, room, request))

    blobs = deps.submissions.blobs
    pieces = Pieces(deps.scratch.parent / "uploads", deps.clock, deps.submissions.config.largest_upload)

    @router.get("/uploads/{sha256}", responses=refusals(422, signed=True))
    async def upload_offset(request: Request, sha256: str) -> dict[str, Any]:
        """How much of a package has arrived, and how large a piece may be; signed."""
        hotkey = await _signed(deps, request)
        await asyncio.to_thread(pieces.sweep)
        return {"offset": await asyncio.to_thread(pieces.offset, hotkey, sha256), "chunk_bytes": CHUNK_BYTES}

    @router.put("/uploads/{sha256}", responses=refusals(408, 422, signed=True), openapi_extra=PIECE)
    async def upload_piece(request: Request, sha256: str) -> dict[str, Any]:
        """Add the piece that begins at the header ``Upload-Offset``; signed."""
        offset = _offset(request.headers.get("upload-offset", ""))
        claim = await deps.gate.claim(request)
        await asyncio.to_thread(deps.scratch.mkdir, parents=True, exist_ok=True)
        async with room.admit(request, claim) as most, in_time(CHUNK_BYTES):
            signed = await deps.gate.receive(request, limit=min(most, CHUNK_BYTES), claim=claim)
        return {"offset": await asyncio.to_thread(pieces.append, signed.hotkey, sha256, offset, signed.body)}

    @router.post("/uploads/{sha256}/submit", status_code=201, responses=refusals(404, 422, signed=True))
    async def submit_upload(
        request: Request,
        sha256: str,
        modality: Modality,
        vertical: Vertical = Vertical.GENERAL,
        push: str | None = None,
        push_modalities: str | None = None,
    ) -> JSONResponse:
        """Hand in a package that has arrived in pieces; answers as ``POST /submissions``; signed."""
        hotkey = await _signed(deps, request)
        label = PushLabel.parse(push, push_modalities, modality)
        package = await asyncio.to_thread(pieces.take, hotkey, sha256)
        try:
            receive = deps.submissions.receive
            return _received(await asyncio.to_thread(receive, hotkey, package, modality, vertical, label))
        finally:
            package.unlink(missing_ok=True)

    @router.get("/submissions", responses=refusals(422, signed=True))
    async def mine(request: Request, modality: Modality | None = None) -> list[dict[str, Any]]:
        """Your submissions; signed."""
        hotkey = await _signed(deps, request)
        return await _read(deps, lambda session: views.submissions_view(session, hotkey, modality))

    @router.get("/submissions/{submission_id}", responses=refusals(404, 422, signed=True))
    async def one_of_mine(request: Request, submission_id: Name) -> dict[str, Any]:
        """One of your submissions, with its runs and what to fix; signed."""
        hotkey = await _signed(deps, request)
        rules = deps.submissions.config.rules_of
        found = await _read(deps, lambda session: views.submission_view(session, hotkey, submission_id, rules))
        return _or_404(found, "submission")

    @router.get("/submissions/{submission_id}/errors", responses=refusals(404, 422, signed=True))
    async def errors(request: Request, submission_id: Name) -> list[dict[str, Any]]:
        """The worst errors of one of your submissions among public media; signed."""
        hotkey = await _signed(deps, request)
        found = await _read(deps, lambda session: views.errors_view(session, blobs, hotkey, submission_id))
        return _or_404(found, "submission")

    @router.get(
        "/submissions/{submission_id}/errors/{sample_id}",
        response_class=Response,
        responses={**refusals(404, 422, signed=True), **JPEG},
    )
    async def picture(request: Request, submission_id: Name, sample_id: Name) -> Response:
        """A small picture of one of these errors, JPEG; signed."""
        hotkey = await _signed(deps, request)
        found = await _read(deps, lambda session: views.picture_view(session, blobs, hotkey, submission_id, sample_id))
        return Response(_or_404(found, "error"), media_type="image/jpeg")

    @router.delete("/submissions/{submission_id}", status_code=204, responses=refusals(404, 422, signed=True))
    async def withdraw(request: Request, submission_id: Name) -> Response:
        """Withdraw one of your submissions; signed."""
        hotkey = await _signed(deps, request)
        try:
            await asyncio.to_thread(deps.submissions.withdraw, hotkey, submission_id)
        except IllegalTransition as error:
            raise RequestRefused(error.message, status=409, code=error.error_code) from error
        return Response(status_code=204)

    return router


def _public_routes(deps: ApiDependencies) -> APIRouter:
    router = APIRouter()

    @router.get("/leaderboard/{modality}", responses=refusals(422))
    async def leaderboard(modality: Modality, vertical: Vertical = Vertical.GENERAL) -> dict[str, Any]:
        """Standings of the last closed round of a competition."""
        return await _read(deps, lambda session: views.leaderboard_view(session, modality, vertical))

    @router.get("/competitions")
    async def competitions() -> list[dict[str, Any]]:
        """What the arena offers, and the rules of each competition."""
        return [one.as_dict() for one in deps.submissions.config.offered.all]

    @router.get("/rounds", responses=refusals())
    async def rounds() -> list[dict[str, Any]]:
        """All rounds."""
        return await _read(deps, views.rounds_view)

    @router.get("/runs/{run_id}", responses=refusals(404, 422, signed=True))
    async def run(request: Request, run_id: Name) -> dict[str, Any]:
        """One run; its scores after the end of the round, or at once for its author (signed)."""
        reader = await _maybe_signed(deps, request)
        return _or_404(await _read(deps, lambda session: views.run_view(session, run_id, reader)), "run")

    @router.get("/runs/{run_id}/receipt", responses=refusals(404, 422, signed=True))
    async def receipt(request: Request, run_id: Name) -> dict[str, Any]:
        """The validator's signed receipt of one run."""
        reader = await _maybe_signed(deps, request)
        found = await _read(deps, lambda session: views.receipt_view(session, run_id, reader))
        return dict(_or_404(found, "receipt"))

    @router.get("/generators", responses=refusals())
    async def generators() -> list[dict[str, Any]]:
        """Verified media and fool counts of each generator."""
        return await _read(deps, views.generators_view)

    @router.get("/stats", responses=refusals())
    async def stats() -> dict[str, Any]:
        """How much there is of everything."""
        return await _read(deps, views.stats_view)

    return router


def _operator_routes(deps: ApiDependencies, registry: CollectorRegistry) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"description": "Something is missing; the body says what."}})
    async def readyz() -> JSONResponse:
        """Database, chain and, where one belongs to it, a worker are there."""
        checks = {
            "database": await _passes(_read(deps, _answers)),
            "chain": await _passes(deps.metagraph.get()),
        }
        if deps.worker_lease_seconds is not None:
            since = deps.clock.time() - deps.worker_lease_seconds
            checks["worker"] = await _passes(_read(deps, lambda session: _worker_since(session, since)))
        ready = all(checks.values())
        return JSONResponse({"ready": ready, "checks": checks}, status_code=200 if ready else 503)

    @router.get("/metrics", response_class=PlainTextResponse, responses=refusals())
    async def metrics() -> Response:
        """Prometheus' text format."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        states = await _read(deps, _states)
        lines = ["# HELP gas_submissions Submissions by state.", "# TYPE gas_submissions gauge"]
        lines += [f'gas_submissions{{state="{state}"}} {count}' for state, count in sorted(states.items())]
        body = generate_latest(registry).decode() + "\n".join(lines) + "\n"
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    return router


async def _receive(deps: ApiDependencies, room: UploadRoom, request: Request) -> Received:
    claim = await deps.gate.claim(request)
    await asyncio.to_thread(deps.scratch.mkdir, parents=True, exist_ok=True)
    async with room.admit(request, claim) as most:
        return await _receive_form(deps, request, claim, most)


async def _receive_form(deps: ApiDependencies, request: Request, claim: Claim, most: int) -> Received:
    limit = deps.submissions.config.largest_upload
    body = deps.scratch / f"{deps.ids.new()}.body"
    try:
        async with in_time(most):
            signed = await deps.gate.receive_to(request, body, limit=most, claim=claim)
        with temporary_file(deps.scratch) as package:
            upload = await asyncio.to_thread(
                read_upload,
                request.headers.get("content-type", ""),
                body,
                package,
                file_part="zip",
                required=frozenset({"modality"}),
                optional=frozenset({"vertical", "push", "push_modalities"}),
                max_file_bytes=limit,
            )
            body.unlink()
            modality = _choice(Modality, "modality", upload.fields["modality"])
            vertical = _choice(Vertical, "vertical", upload.fields.get("vertical", Vertical.GENERAL))
            push = PushLabel.parse(upload.fields.get("push"), upload.fields.get("push_modalities"), modality)
            return await asyncio.to_thread(deps.submissions.receive, signed.hotkey, package, modality, vertical, push)
    except OSError as error:
        raise StorageError(f"The upload could not be stored ({error.strerror}).") from error
    finally:
        body.unlink(missing_ok=True)


def _received(received: Received) -> JSONResponse:
    if received.created:
        return JSONResponse(_receipt(received), status_code=201)
    return JSONResponse(
        {
            "error": {
                "code": "content_known",
                "message": f"This hotkey has handed in this content already; it is {received.state}.",
                **_receipt(received),
                "state": received.state.value,
                "reasons": [reason.as_dict() for reason in received.reasons],
            }
        },
        status_code=409,
    )


def _offset(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise RequestRefused("The header Upload-Offset must be a number of bytes.", status=422, code="bad_upload")
    return int(text)


E = TypeVar("E", Modality, Vertical)


def _choice(kind: type[E], name: str, value: str) -> E:
    try:
        return kind(value)
    except ValueError as error:
        raise RequestRefused(
            f"The field {name} must be one of {', '.join(kind)}.", status=422, code="bad_form"
        ) from error


def _receipt(received: Received) -> dict[str, Any]:
    return {
        "model_id": received.model_id,
        "key": received.key,
        "sha256": received.sha256,
        "slot": received.slot,
        "slots": received.slots,
    }


async def _signed(deps: ApiDependencies, request: Request) -> str:
    return (await deps.gate.receive(request, limit=0)).hotkey


async def _maybe_signed(deps: ApiDependencies, request: Request) -> str | None:
    """The signer of a request that says to be signed; a wrong signature is refused, none is fine."""
    return await _signed(deps, request) if "epistula-version" in request.headers else None


async def _read(deps: ApiDependencies, view: Callable[[Session], T]) -> T:
    def work() -> T:
        with deps.database.read() as session:
            return view(session)

    return await asyncio.to_thread(work)


def _or_404(found: T | None, what: str) -> T:
    if found is None:
        raise RequestRefused(f"There is no such {what}.", status=404, code=f"unknown_{what}")
    return found


async def _passes(check: Awaitable[object]) -> bool:
    try:
        return (await check) is not None
    except GasError:
        return False


def _answers(session: Session) -> object:
    return session.execute(text("SELECT 1")).scalar()


def _worker_since(session: Session, since: float) -> object:
    return session.scalar(select(ExecutorRow.id).where(ExecutorRow.heartbeat_at >= since).limit(1))


def _states(session: Session) -> dict[str, int]:
    rows = session.execute(select(SubmissionRow.state, func.count()).group_by(SubmissionRow.state)).tuples().all()
    return dict(rows)


def _count_requests(app: FastAPI, registry: CollectorRegistry) -> None:
    from prometheus_client import Counter

    labels = ["endpoint", "status"]
    counter = Counter("gas_http_requests", "Requests by endpoint and status.", labels, registry=registry)

    @app.middleware("http")
    async def count(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        # The handler's name, never the path: a stranger must not be able to make labels.
        endpoint = request.scope.get("endpoint")
        counter.labels(getattr(endpoint, "__name__", "none"), str(response.status_code)).inc()
        return response
