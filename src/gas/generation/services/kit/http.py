"""HTTP with a provider: paid calls that are made once, free ones, and downloads that are tried again.

Whether a call that broke off may have been paid for is decided by what was sent: until the last byte of the request has
left, the provider can't have begun; afterwards it may have. Connections aren't kept for a second call, because one that
the other side has closed meanwhile would look like the second case.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import structlog
from pydantic import SecretStr

from gas.clock import Clock
from gas.errors import MediaRejected, ServiceUnavailable
from gas.generation.services.kit.addresses import check_address, check_resolved, is_private, origin, redirected
from gas.generation.services.kit.media import MOST_BYTES, check_medium
from gas.generation.services.kit.replies import Account, Answer, Problem, Verdict, read_problem
from gas.generation.services.kit.settings import ProviderSettings
from gas.types import Modality

__all__ = ["JSON_BYTES", "MEDIUM_JSON_BYTES", "Body", "ProviderClient"]

JSON_BYTES: Final = 1 << 20
"""The longest answer that holds no medium."""

MEDIUM_JSON_BYTES: Final = MOST_BYTES * 4 // 3 + JSON_BYTES
"""The longest answer that holds a medium in base64."""

_ERROR_BYTES: Final = 1 << 16
_TRIES: Final = 3
_MOST_REDIRECTS: Final = 3
_AGAIN: Final = 30.0
_ACCOUNT_WAIT: Final = 60.0

Field = tuple[str | None, bytes | str] | tuple[str, bytes, str]
"""A part of a form: (None, value), or (file name, bytes, type)."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a call carries.

    Attributes:
        json: An object, or
        form: the parts of a form by name.
        accept: The answer's type.
    """

    json: Mapping[str, object] | None = None
    form: Sequence[tuple[str, Field]] | None = None
    accept: str = "application/json"


class _Bearer(httpx.Auth):
    """Adds the key at the last moment, so that it is in no variable that a traceback could show."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        yield request


@dataclass(slots=True)
class _Progress:
    """How far a call has come."""

    sent: bool = False
    head: tuple[int, dict[str, str]] | None = field(default=None)

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        if event.endswith("send_request_body.complete"):
            self.sent = True


class _Broken(Exception):
    """A download that may be tried again."""


class ProviderClient:
    """Calls to one provider, from one event loop.

    Args:
        account: Who is asked.
        base_url: Its address, checked by its settings.
        key: Its key.
        settings: Time limits.
        clock: For waiting times given as a date.
        verdict: The provider's own reading of problems.
        headers: Sent with every call to the provider.
        uncertain: Statuses after which a paid call may have been carried out.
    """

    def __init__(
        self,
        account: Account,
        base_url: str,
        key: SecretStr,
        settings: ProviderSettings,
        *,
        clock: Clock,
        verdict: Verdict,
        headers: Mapping[str, str] | None = None,
        uncertain: frozenset[int] = frozenset({504, 520, 524}),
    ) -> None:
        self.account = account
        self._base = base_url
        self._key = key
        self._settings = settings
        self._clock = clock
        self._verdict = verdict
        self._headers = dict(headers or {})
        self._uncertain = uncertain
        self._log = structlog.get_logger("gas.services").bind(provider=account.label)
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def close(self) -> None:
        """Let connections go."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def order(self, path: str, body: Body, *, limit: int) -> Answer:
        """Make a call that costs money: one request, never a second.

        Args:
            path: Beginning with ``/``, after the base URL.
            body: What to send.
            limit: Bytes of the longest answer that is taken.

        Raises:
            RequestRefused: The provider refuses the prompt or its parameters.
            ServiceUnavailable: ``provider_uncertain`` where it may have been carried out; else as the error says.
        """
        progress = _Progress()
        try:
            async with asyncio.timeout(self._settings.service_timeout):
                answer = await self._call("POST", path, body, limit, progress)
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._broken_off(error, progress, paid=True) from None
        self._log.info("service_called", path=path, status=answer.status, request=_request_id(answer.headers))
        return answer

    async def ask(self, path: str, *, accept: str = "application/json", limit: int = JSON_BYTES) -> Answer:
        """Make a call that costs nothing.

        Args:
            path: Beginning with ``/``, after the base URL.
            accept: The answer's type.
            limit: Bytes of the longest answer that is taken.

        Raises:
            RequestRefused: As in :meth:`order`.
            ServiceUnavailable: Never ``provider_uncertain``.
        """
        progress = _Progress()
        try:
            async with asyncio.timeout(self._settings.service_timeout):
                return await self._call("GET", path, Body(accept=accept), limit, progress)
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._broken_off(error, progress, paid=False) from None

    async def ask_fields(self, path: str) -> dict[str, object]:
        """A free call whose answer is a JSON object; another answer is asked for again later.

        Args:
            path: Beginning with ``/``, after the base URL.

        Raises:
            RequestRefused: As in :meth:`order`.
            ServiceUnavailable: As in :meth:`ask`.
        """
        answer = await self.ask(path)
        try:
            return answer.fields(self.account)
        except ServiceUnavailable as error:
            error.retry_after = _AGAIN
            raise

    async def bring(self, url: str, modality: Modality) -> tuple[bytes, str]:
        """Fetch a finished medium, trying again when it breaks off half-way.

        Args:
            url: Where it lies: an address from the provider's answer, or a path of its interface. The key is sent only
                to the provider's own address.
            modality: What it must turn out to be.

        Returns:
            Its bytes and their type.

        Raises:
            ServiceUnavailable: With ``retry_after`` where a later try may succeed.
        """
        if url.startswith("/"):
            url = f"{self._base}{url}"
        check_address(url, self._base)
        reason = ""
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(self._settings.service_retry_pause * 2 ** (attempt - 1))
            try:
                async with asyncio.timeout(self._settings.service_download_timeout):
                    data = await self._download(url)
                return data, await asyncio.to_thread(check_medium, data, modality)
            except MediaRejected as error:
                if error.error_code != "undecodable":
                    raise ServiceUnavailable(f"{self.account.label} made no {modality}: {error.message}") from None
                reason = f"it is no whole {modality}"
            except (httpx.InvalidURL, UnicodeError):
                raise ServiceUnavailable(f"{self.account.label} gave an address that is none.") from None
            except (_Broken, httpx.HTTPError, TimeoutError) as error:
                reason = str(error) if isinstance(error, _Broken) else "the connection broke off"
            self._log.info("download_broken", reason=reason, attempt=attempt + 1)
        raise ServiceUnavailable(
            f"What {self.account.label} has made can't be fetched: {reason}.",
            hint="It is fetched again later, at no cost.",
            retry_after=_AGAIN,
        )

    def _client_for(self, url: str) -> httpx.AsyncClient:
        """One client for encrypted addresses and one for others; certificates are loaded when they are first needed."""
        encrypted = url.startswith("https:")
        if encrypted not in self._clients:
            self._clients[encrypted] = httpx.AsyncClient(
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                headers={"Accept-Encoding": "identity", "User-Agent": "gas-generator"},
                follow_redirects=False,
                verify=httpx.create_ssl_context() if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            )
        return self._clients[encrypted]

    async def _call(self, method: str, path: str, body: Body, limit: int, progress: _Progress) -> Answer:
        async with self._client_for(self._base).stream(
            method,
            f"{self._base}{path}",
            json=body.json,
            files=body.form,
            headers={**self._headers, "Accept": body.accept},
            auth=_Bearer(self._key),
            timeout=self._timeouts(self._settings.service_timeout),
            extensions={"trace": progress.trace},
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            progress.head = (response.status_code, headers)
            if response.status_code >= 300:
                raise self._refusal(response.status_code, headers, await _beginning(response), paid=method == "POST")
            content = bytearray()
            async for chunk in _chunks(response, limit, self.account):
                content += chunk
            return Answer(response.status_code, headers, bytes(content))

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes, *, paid: bool) -> Exception:
        problem = read_problem(status, headers, body, now=self._clock.time(), key=self._key.get_secret_value())
        return self._judge(problem, headers, paid=paid)

    def inner_error(self, status: int, error: Mapping[str, object], answer: Answer) -> Exception:
        """What an error means that stands in the answer to a paid call, although its status says that all is well.

        Args:
            status: The status that it would have had.
            error: As the provider's other errors.
            answer: Where it stands.
        """
        return self._refusal(status, answer.headers, json.dumps({"error": error}).encode(), paid=True)

    def _judge(self, problem: Problem, headers: Mapping[str, str], *, paid: bool) -> Exception:
        """The error that follows from a problem, after a line in the log with what the provider says."""
        error = self._verdict(problem) or problem.error(self.account, paid=paid, uncertain=self._uncertain)
        if not paid and isinstance(error, ServiceUnavailable) and error.error_code == "provider_account":
            # What a job has made waits for a key or right that is mended meanwhile.
            error.retry_after = error.retry_after or _ACCOUNT_WAIT
        self._log.warning(
            "service_refused",
            status=problem.status,
            code=error.error_code,
            names=sorted(problem.names),
            says=problem.message,
            request=_request_id(headers),
            todo=error.hint,
        )
        return error

    def _broken_off(self, error: Exception, progress: _Progress, *, paid: bool) -> Exception:
        """What a call means that ended without a whole answer."""
        label = self.account.label
        if progress.head is not None and progress.head[0] >= 300:
            return self._refusal(*progress.head, b"", paid=paid)
        if paid and progress.sent:
            self._log.error("service_uncertain", cause=type(error).__name__)
            return ServiceUnavailable(
                f"{label} was given the task, but its answer didn't arrive; it may have been made and charged.",
                code="provider_uncertain",
                hint="The task isn't repeated. SERVICE_TIMEOUT says how long an answer is waited for.",
            )
        # Only a connection that failed says why: messages about requests could repeat their headers.
        why = str(error)[:200] if isinstance(error, httpx.ConnectError) else ""
        self._log.warning("service_unreachable", cause=type(error).__name__, why=why)
        return ServiceUnavailable(
            f"{label} can't be reached.",
            code="provider_unreachable",
            hint=f"Check the network and {self.account.url_variable}.",
            retry_after=15.0,
        )

    async def _download(self, url: str) -> bytes:
        for _ in range(_MOST_REDIRECTS + 1):
            await self._check_name(url)
            async with self._open_medium(url) as response:
                if not response.is_redirect:
                    return await self._medium(response)
                url = redirected(url, response.headers.get("location", ""), self._base)
        raise ServiceUnavailable(f"{self.account.label} sends us from address to address without an end.")

    @asynccontextmanager
    async def _open_medium(self, url: str) -> AsyncIterator[httpx.Response]:
        ours = origin(url) == origin(self._base)
        async with self._client_for(url).stream(
            "GET",
            url,
            headers=self._headers if ours else None,
            auth=_Bearer(self._key) if ours else None,
            timeout=self._timeouts(self._settings.service_download_timeout),
        ) as response:
            yield response

    async def _medium(self, response: httpx.Response) -> bytes:
        headers = {name.lower(): value for name, value in response.headers.items()}
        if response.status_code != 200:
            problem = read_problem(response.status_code, headers, b"", now=self._clock.time())
            raise ServiceUnavailable(
                f"What {self.account.label} has made can't be fetched just now (status {problem.status}).",
                code="provider_busy" if problem.status == 429 else "provider_failed",
                retry_after=problem.retry_after or _AGAIN,
            )
        content = bytearray()
        async for chunk in _chunks(response, MOST_BYTES, self.account):
            content += chunk
        answer = Answer(200, headers, bytes(content))
        if answer.is_page():
            error = answer.nonsense(self.account, "")
            error.retry_after = _AGAIN
            raise error
        if not content:
            raise _Broken("the answer is empty")
        return answer.body

    async def _check_name(self, url: str) -> None:
        """Look where a name leads before it is asked; a proxy may know names that this machine doesn't."""
        host = urlsplit(url).hostname or ""
        if is_private(host) or origin(url) == origin(self._base) or is_private(urlsplit(self._base).hostname or ""):
            return
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        check_resolved(str(entry[4][0]) for entry in found)

    def _timeouts(self, whole: float) -> httpx.Timeout:
        return httpx.Timeout(whole, connect=min(whole, self._settings.service_connect_timeout))


async def _chunks(response: httpx.Response, limit: int, account: Account) -> AsyncIterator[bytes]:
    """The body as it comes, refused as soon as it is longer than allowed."""
    too_large = ServiceUnavailable(f"{account.label} answered with more than {limit:,} bytes.")
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and len(declared) < 20 and int(declared) > limit:
        raise too_large
    # What an answer may unpack to is bounded by the kinds that are taken: at most a thousandfold, piece by piece.
    if response.headers.get("content-encoding", "").strip().lower() not in ("", "identity", "gzip", "deflate"):
        raise ServiceUnavailable(f"{account.label} compressed its answer although it was asked not to.")
    count = 0
    async for chunk in response.aiter_bytes():
        count += len(chunk)
        if count > limit:
            raise too_large
        yield chunk


async def _beginning(response: httpx.Response) -> bytes:
    """As much of an error's body as is worth reading."""
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) >= _ERROR_BYTES:
            break
    return bytes(content[:_ERROR_BYTES])


def _request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's name for a call, for its support."""
    found = headers.get("x-request-id") or headers.get("x-generation-id") or headers.get("cf-ray")
    return "".join(c for c in found if c.isalnum() or c in "-_.")[:80] if found else None
