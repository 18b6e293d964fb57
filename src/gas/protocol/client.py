"""The sending side of signed HTTP: the bytes that are signed are the bytes that are sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import httpx
from pydantic import ValidationError

from gas.chain.keys import Signer
from gas.clock import Clock, IdSource
from gas.errors import InfrastructureError, RequestRefused
from gas.protocol.epistula import sign_request
from gas.protocol.messages import ErrorBody

__all__ = ["Answer", "PeerUnreachable", "SignedClient", "encode_json", "encode_multipart"]

_MAX_ANSWER: Final = 1 << 20
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)

FilePart = tuple[str, bytes, str]
"""File name, bytes, content type."""


class PeerUnreachable(InfrastructureError):
    """A peer doesn't answer, or answers with a failure of its own (5xx) or with nonsense.

    Args:
        status: HTTP status of its answer; None where there was none. A full queue (503) is no failure of the peer's,
            and whoever pays for answers tells the two apart.
    """

    code = "peer_unreachable"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer.

    Attributes:
        status: Its status.
        headers: Its headers; names in lower case.
        body: Its bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        """The body as JSON.

        Raises:
            PeerUnreachable: It is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise PeerUnreachable("The peer's answer is no JSON.", code="bad_answer") from None


class SignedClient:
    """Sends signed requests for one hotkey.

    Args:
        signer: Who signs.
        http: Connection pool, with its time-outs; redirects are never followed, because a signature is for one
            receiver.
        clock: For time stamps.
        ids: For UUIDs; each attempt gets a fresh one, because receivers refuse one that they have seen.
        sleep: How pauses between attempts are waited for.
    """

    def __init__(
        self,
        signer: Signer,
        http: httpx.AsyncClient,
        clock: Clock,
        ids: IdSource,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._signer = signer
        self._http = http
        self._clock = clock
        self._ids = ids
        self._sleep = sleep

    async def send(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        content_type: str | None = None,
        signed_for: str | None = None,
        headers: Mapping[str, str] | None = None,
        attempts: int = 1,
        max_answer: int = _MAX_ANSWER,
    ) -> Answer:
        """Sign and send one request.

        Args:
            method: HTTP method.
            url: Where to.
            body: Exact bytes.
            content_type: Of the body.
            signed_for: The receiver's hotkey; None for nobody in particular.
            headers: Further headers.
            attempts: How often to try in all when the network or the peer fails; ask for more than one only where
                the receiver takes the same request twice without harm.
            max_answer: Most bytes of the answer.

        Returns:
            The answer.

        Raises:
            RequestRefused: The peer refuses (4xx), with its status, code and message.
            PeerUnreachable: The network or the peer fails, at every attempt.
        """
        for attempt in range(attempts):
            try:
                return await self._once(method, url, body, content_type, signed_for, headers, max_answer)
            except PeerUnreachable:
                if attempt + 1 == attempts:
                    raise
            await self._sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
        raise ValueError("At least one attempt must be made.")

    async def get(self, url: str, *, signed_for: str | None = None, attempts: int = 1) -> Answer:
        """``GET`` with an empty body; see :meth:`send`."""
        return await self.send("GET", url, signed_for=signed_for, attempts=attempts)

    async def post_json(
        self,
        url: str,
        message: object,
        *,
        signed_for: str | None = None,
        headers: Mapping[str, str] | None = None,
        attempts: int = 1,
    ) -> Answer:
        """``POST`` of a JSON body; see :meth:`send`."""
        return await self.send(
            "POST",
            url,
            body=encode_json(message),
            content_type="application/json",
            signed_for=signed_for,
            headers=headers,
            attempts=attempts,
        )

    async def post_multipart(
        self,
        url: str,
        fields: Mapping[str, str],
        files: Mapping[str, FilePart],
        *,
        signed_for: str | None = None,
        attempts: int = 1,
    ) -> Answer:
        """``POST`` of a form with files; the signature is over the encoded form. See :meth:`send`."""
        body, content_type = encode_multipart(fields, files)
        return await self.send(
            "POST", url, body=body, content_type=content_type, signed_for=signed_for, attempts=attempts
        )

    async def _once(
        self,
        method: str,
        url: str,
        body: bytes,
        content_type: str | None,
        signed_for: str | None,
        headers: Mapping[str, str] | None,
        max_answer: int,
    ) -> Answer:
        sent = dict(headers or {})
        if content_type is not None:
            sent["Content-Type"] = content_type
        sent |= sign_request(
            self._signer,
            body,
            signed_for=signed_for,
            now_ms=int(self._clock.time() * 1000),
            uuid=self._ids.new(),
        )
        try:
            request = self._http.build_request(method, url, content=body, headers=sent)
            response = await self._http.send(request, stream=True, follow_redirects=False)
            try:
                parts, size = [], 0
                async for chunk in response.aiter_bytes():
                    size += len(chunk)
                    if size > max_answer:
                        raise PeerUnreachable("The peer's answer is too large.", code="answer_too_large")
                    parts.append(chunk)
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            # httpx's message may hold the URL, and that a secret.
            raise PeerUnreachable(f"The peer can't be reached ({type(error).__name__}).") from None
        except httpx.InvalidURL:
            raise PeerUnreachable("The peer's address is no URL.", code="bad_address") from None
        answer = Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, b"".join(parts))
        if response.is_success:
            return answer
        if 400 <= response.status_code < 500:
            raise _refusal(answer)
        if response.is_redirect:
            raise PeerUnreachable("The peer redirects, and a signature is for one receiver.", code="redirected")
        raise PeerUnreachable(
            f"The peer answers with status {response.status_code}.", code="peer_failed", status=response.status_code
        )


def encode_json(message: object) -> bytes:
    """JSON bytes; a pydantic model gives its own form."""
    dump = getattr(message, "model_dump_json", None)
    return str(dump()).encode() if dump is not None else json.dumps(message, separators=(",", ":")).encode()


def encode_multipart(fields: Mapping[str, str], files: Mapping[str, FilePart]) -> tuple[bytes, str]:
    """The exact bytes of a ``multipart/form-data`` body, and its content type."""
    request = httpx.Request("POST", "http://localhost/", data=dict(fields), files=dict(files))
    return request.read(), request.headers["content-type"]


def _refusal(answer: Answer) -> RequestRefused:
    try:
        error = ErrorBody.model_validate_json(answer.body).error
    except ValidationError:
        return RequestRefused(f"The peer refuses with status {answer.status}.", status=answer.status)
    return RequestRefused(error.message, status=answer.status, code=error.code, hint=error.hint)
