"""The receiving side of signed HTTP: bodies with a limit, verification, and refusals as JSON.

The body is counted and hashed while it streams in, whatever ``Content-Length`` says.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from gas.chain.base import Chain, Metagraph, Neuron
from gas.clock import Clock
from gas.errors import (
    ChainError,
    ConfigurationError,
    GasError,
    InfrastructureError,
    MediaRejected,
    PackageRejected,
    RateLimited,
    RequestRefused,
    SubmissionError,
)
from gas.protocol.epistula import Claim, ReplayGuard, Standing, check_body, check_headers
from gas.types import Hotkey

__all__ = [
    "EpistulaGate",
    "MetagraphCache",
    "SignedBody",
    "error_response",
    "install_error_handler",
    "parse_multipart",
    "read_body",
]

_CHUNK: Final = 1 << 20
_IN_LOOP: Final = 1 << 16
"""Bodies up to so many bytes are hashed in the event loop; above that a thread costs less."""


@dataclass(frozen=True, slots=True)
class SignedBody:
    """A proven request.

    Attributes:
        hotkey: Who signed.
        body: The bytes; empty when they went to a file.
        sha256: Their hex SHA-256.
        size: How many there are.
    """

    hotkey: Hotkey
    body: bytes
    sha256: str
    size: int


class MetagraphCache:
    """Who is registered, refreshed now and then; one for a service.

    Those who wait for the chain share one look. A signer that is known never waits for one that isn't: anybody can name
    a hotkey, also one that was never registered.

    Args:
        chain: Where the metagraph comes from.
        netuid: Which subnet.
        clock: For ages.
        max_age_seconds: After how long a snapshot is fetched again.
        stale_seconds: How old a snapshot may get when the chain doesn't answer.
        newcomer_seconds: How soon after the last fetch an unknown signer makes us look again.
    """

    def __init__(
        self,
        chain: Chain,
        netuid: int,
        clock: Clock,
        *,
        max_age_seconds: float = 60.0,
        stale_seconds: float = 3600.0,
        newcomer_seconds: float = 2.0,
    ) -> None:
        self._chain = chain
        self._netuid = netuid
        self._clock = clock
        self._max_age = max_age_seconds
        self._stale = stale_seconds
        self._newcomer = newcomer_seconds
        self._lock = asyncio.Lock()
        self._snapshot: Metagraph | None = None
        self._neurons: dict[str, Neuron] = {}
        self._fetched = 0.0
        self._tried = 0.0

    async def get(self) -> Metagraph:
        """A snapshot that is young enough.

        Raises:
            ChainUnreachable: The chain doesn't answer, and the last snapshot is too old.
        """
        return await self._refresh(self._max_age)

    async def standing(self, hotkey: str) -> Standing | None:
        """What the metagraph says of a hotkey; looks again when the hotkey is new to us.

        Raises:
            ChainUnreachable: As :meth:`get`.
        """
        await self.get()
        if hotkey not in self._neurons:
            await self._refresh(self._newcomer)
        return self.known(hotkey)

    def _young(self, max_age: float) -> Metagraph | None:
        if self._snapshot is not None and self._clock.monotonic() - self._tried < max_age:
            return self._snapshot
        return None

    def known(self, hotkey: str) -> Standing | None:
        """What the last snapshot says of a hotkey."""
        neuron = self._neurons.get(hotkey)
        return None if neuron is None else Standing(neuron.uid, neuron.stake, neuron.permit)

    async def _refresh(self, max_age: float) -> Metagraph:
        if (young := self._young(max_age)) is not None:
            return young
        async with self._lock:
            # Somebody else may have looked while this one waited.
            if (young := self._young(max_age)) is not None:
                return young
            began = self._clock.monotonic()
            try:
                snapshot = await self._chain.metagraph(self._netuid)
            except ChainError:
                if self._snapshot is None or began - self._fetched > self._stale:
                    raise
                return self._snapshot
            finally:
                # From its end: of a look that takes longer than ``max_age`` those who waited must have something, too.
                self._tried = self._clock.monotonic()
            self._snapshot, self._fetched = snapshot, began
            self._neurons = {neuron.hotkey: neuron for neuron in snapshot.neurons}
            return snapshot


class EpistulaGate:
    """Lets signed requests in, in the order of refusals of :mod:`gas.protocol.epistula`.

    Args:
        hotkey: Ours; requests must be signed for it.
        metagraph: Who is registered.
        clock: Ours.
        guard: Remembers requests; one for a service, shared by all of its gates.
        min_stake: Rao that a signer must have staked.
        need_permit: Whether a signer must be a validator.
        accept_unaddressed: Whether a request signed for nobody in particular will do.
    """

    def __init__(
        self,
        hotkey: str,
        metagraph: MetagraphCache,
        clock: Clock,
        guard: ReplayGuard,
        *,
        min_stake: int = 0,
        need_permit: bool = False,
        accept_unaddressed: bool = False,
    ) -> None:
        self._hotkey = hotkey
        self._metagraph = metagraph
        self._clock = clock
        self._guard = guard
        self._min_stake = min_stake
        self._need_permit = need_permit
        self._accept_unaddressed = accept_unaddressed

    async def claim(self, request: Request) -> Claim:
        """Check everything that the headers alone decide, the body unread.

        Raises:
            RequestRefused: In the order of :mod:`gas.protocol.epistula`.
            ChainUnreachable: Nobody can say who is registered.
        """
        await self._metagraph.standing(request.headers.get("epistula-signed-by", ""))
        return check_headers(
            request.headers,
            receiver=self._hotkey,
            now_ms=self._now_ms(),
            standing=self._metagraph.known,
            min_stake=self._min_stake,
            need_permit=self._need_permit,
            accept_unaddressed=self._accept_unaddressed,
        )

    async def receive(self, request: Request, *, limit: int, claim: Claim | None = None) -> SignedBody:
        """Read and prove a request whose body fits in memory.

        Args:
            request: The request, its body unread.
            limit: Most bytes of the body.
            claim: From :meth:`claim`, where more was checked before the body.

        Raises:
            RequestRefused: In the order of :mod:`gas.protocol.epistula`.
            ChainUnreachable: Nobody can say who is registered.
        """
        claim = claim or await self.claim(request)
        body = b"".join([chunk async for chunk in read_body(request, limit=limit)])
        # A millisecond of hashing in the loop is a millisecond for which nobody else is read.
        digest = await asyncio.to_thread(_sha256_hex, body) if len(body) > _IN_LOOP else _sha256_hex(body)
        return SignedBody(self._prove(claim, digest), body, digest, len(body))

    async def receive_to(self, request: Request, path: Path, *, limit: int, claim: Claim | None = None) -> SignedBody:
        """Read a large body into a new file and prove it; a refused request leaves no file.

        Raises:
            RequestRefused: As :meth:`receive`.
            FileExistsError: ``path`` is there already.
        """
        claim = claim or await self.claim(request)
        digest, size, done = hashlib.sha256(), 0, False
        file = await asyncio.to_thread(path.open, "xb")
        try:
            async for chunk in read_body(request, limit=limit):
                digest.update(chunk)
                size += len(chunk)
                await asyncio.to_thread(file.write, chunk)
            hotkey = self._prove(claim, digest.hexdigest())
            done = True
        finally:
            await asyncio.to_thread(file.close)
            if not done:
                await asyncio.to_thread(path.unlink)
        return SignedBody(hotkey, b"", digest.hexdigest(), size)

    def _prove(self, claim: Claim, digest: str) -> Hotkey:
        return check_body(claim, digest, now_ms=self._now_ms(), guard=self._guard)

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)


async def read_body(request: Request, *, limit: int) -> AsyncIterator[bytes]:
    """The body's chunks, refused as soon as they are more than ``limit`` bytes together.

    Raises:
        RequestRefused: 413 ``body_too_large``, or 400 ``body_incomplete`` when the sender hangs up.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise RequestRefused("The body ended early.", status=400, code="body_incomplete") from None


async def parse_multipart(content_type: str, body: bytes | Path, *, max_fields: int = 20) -> FormData:
    """Read a multipart body that has been proven; its files are spooled to disk beyond 1 MiB.

    The caller closes the result.

    Raises:
        RequestRefused: 422 ``bad_multipart``.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        if isinstance(body, bytes):
            for start in range(0, len(body), _CHUNK):
                yield body[start : start + _CHUNK]
        else:
            file = await asyncio.to_thread(body.open, "rb")
            try:
                while chunk := await asyncio.to_thread(file.read, _CHUNK):
                    yield chunk
            finally:
                await asyncio.to_thread(file.close)
        yield b""

    refusal = RequestRefused("The body is no readable multipart form.", status=422, code="bad_multipart")
    if not content_type.lower().startswith("multipart/form-data"):
        raise refusal
    # Closed here: a parser that refuses half-way would leave the file open until somebody collects the garbage.
    async with aclosing(stream()) as chunks:
        parser = MultiPartParser(
            Headers({"content-type": content_type}), chunks, max_files=max_fields, max_fields=max_fields
        )
        try:
            return await parser.parse()
        except (MultiPartException, KeyError, UnicodeDecodeError):
            raise refusal from None


def error_response(error: GasError) -> JSONResponse:
    """An error as ``{"error": {"code", "message", "hint"}}`` with the status that fits whose fault it is."""
    detail: dict[str, object] = dict(error.as_dict())
    headers: dict[str, str] = {}
    if isinstance(error, RequestRefused):
        status = error.status
        if status in (429, 503):
            headers["Retry-After"] = "15"
    elif isinstance(error, RateLimited):
        status = 429
    elif isinstance(error, PackageRejected):
        status = 422
        detail["reasons"] = [reason.as_dict() for reason in error.reasons]
    elif isinstance(error, MediaRejected | SubmissionError):
        status = 422
    elif isinstance(error, InfrastructureError):
        status = 503
        headers["Retry-After"] = "15"
    elif isinstance(error, ConfigurationError):
        # The operator's business, not the caller's.
        status, detail = 500, {"code": error.error_code, "message": "The service is not set up right."}
    else:
        status = 500
    return JSONResponse({"error": detail}, status_code=status, headers=headers)


def install_error_handler(app: Starlette) -> None:
    """Make an application answer every :class:`~gas.errors.GasError` as :func:`error_response` does."""

    async def handle(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, GasError):
            raise error
        return error_response(error)

    app.add_exception_handler(GasError, handle)


def _sha256_hex(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _too_large(limit: int) -> RequestRefused:
    return RequestRefused(f"The body may have at most {limit} bytes.", status=413, code="body_too_large")
