"""A small HTTP client for sources: bounded answers, resumed downloads, and no secret where it doesn't belong.

It speaks to httpx's transports and not to ``httpx.Client``, because the latter logs the whole address of every
request, and addresses of data sets carry signatures. (At the level of DEBUG httpcore still logs the headers of
answers, where a redirect may hold one; nothing of GAS turns that on.)
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from gas.datasets.sources.transfer import Interrupted, PartFile, Patience
from gas.errors import ConfigurationError, IntegrityError

__all__ = ["Answer", "HttpClient", "is_web_address", "public_url"]

_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_STRONG_ETAG: Final = re.compile(r'"[^"\x00-\x1f]{1,512}"')


def public_url(url: str) -> str:
    """The address without user, password, query and fragment: what may be shown and logged."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(not an address)"
    return urlunsplit((parts.scheme, f"[{host}]{port}" if ":" in host else host + port, parts.path, "", ""))


def is_web_address(url: str) -> bool:
    """Whether this is an ``http`` or ``https`` address of a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Answer:
    """A small answer, read whole.

    Attributes:
        status: HTTP status.
        headers: Names in lower case.
        body: At most the limit's number of bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        """The body as JSON.

        Raises:
            IntegrityError: It is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise IntegrityError("The source answers with something that is not JSON.", code="bad_listing") from error


class HttpClient:
    """Requests to one source, by several threads if need be.

    Args:
        patience: Limits, clock and tries.
        env: Environment; only the proxy variables are read.
        secrets: Headers that go to the host of the first address only, never to where it redirects.
    """

    def __init__(self, patience: Patience, env: Mapping[str, str], secrets: Mapping[str, str] | None = None) -> None:
        self.patience = patience
        self._env = env
        self._secrets = dict(secrets or {})
        self._transports: dict[str, httpx.HTTPTransport] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for transport in self._transports.values():
                transport.close()
            self._transports.clear()

    def ask(self, url: str, *, method: str = "GET", accept: tuple[int, ...] = (200,)) -> Answer:
        """Fetch a small answer, with tries.

        Args:
            url: Where.
            method: ``GET`` or ``HEAD``.
            accept: Statuses that are an answer; others become errors.

        Raises:
            SourceUnreachable: All tries failed.
            ConfigurationError: There is nothing at this address, or it is not for us.
            IntegrityError: The answer is larger than a listing may be.
        """

        def once() -> Answer:
            with self._open(method, url, {}) as response:
                if response.status_code not in accept:
                    raise _wrong_status(response, url)
                body = bytearray()
                for chunk in self._pieces(response):
                    body += chunk
                    if len(body) > self.patience.limits.max_listing_bytes:
                        raise IntegrityError("The source's listing is larger than allowed.", code="bad_listing")
                return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, bytes(body))

        return self.patience.repeat(_host(url), once)

    def download(self, url: str, part: PartFile) -> None:
        """Bring a file, going on after the bytes that the part holds, with tries.

        Args:
            url: Where.
            part: An entered part file.

        Raises:
            SourceUnreachable: All tries failed; what has arrived is kept.
            ConfigurationError: There is nothing at this address, or it is not for us.
            IntegrityError: The content is not what was promised; the part is removed.
            StorageError: The disk is full.
        """
        self.patience.repeat(_host(url), lambda: self._download_once(url, part))

    def _download_once(self, url: str, part: PartFile) -> None:
        if part.is_full:
            part.finish()
            return
        headers = self._range_headers(part)
        with self._open("GET", url, headers) as response:
            status = response.status_code
            if status == 416 and headers:
                # The file may have become shorter: begin anew, which a try is spent on.
                part.restart()
                raise Interrupted("the source has no bytes where the earlier transfer stopped")
            if status not in (200, 206):
                raise _wrong_status(response, url)
            _refuse_pages(response, part.promised.path)
            etag = response.headers.get("etag", "")
            etag = etag if _STRONG_ETAG.fullmatch(etag) else ""
            if status == 206 and headers:
                self._check_range(response, part)
            elif status == 206:
                raise Interrupted("the source sent a part where the whole was asked for")
            else:
                part.restart(etag)
            for chunk in self._pieces(response):
                part.write(chunk)
        part.finish()

    @staticmethod
    def _range_headers(part: PartFile) -> dict[str, str]:
        if part.size == 0:
            return {}
        if part.is_verifiable:
            return {"range": f"bytes={part.size}-"}
        if part.etag:
            return {"range": f"bytes={part.size}-", "if-range": part.etag}
        return {}

    @staticmethod
    def _check_range(response: httpx.Response, part: PartFile) -> None:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        whole = found.group(3) if found else ""
        promised = part.promised.size
        fits = found is not None and int(found.group(1)) == part.size
        if not fits or (promised is not None and whole not in ("*", str(promised))):
            part.restart()
            raise Interrupted("the source went on at another place than asked for")

    def _pieces(self, response: httpx.Response) -> Iterator[bytes]:
        """Pieces of the body, as long as they come fast enough."""
        clock, limits = self.patience.clock, self.patience.limits
        since, got = clock.monotonic(), 0
        try:
            for chunk in response.iter_raw():
                yield chunk
                got += len(chunk)
                now = clock.monotonic()
                if now - since >= limits.slow_seconds:
                    if got < limits.slow_rate * (now - since):
                        raise Interrupted("the transfer came to a near stop")
                    since, got = now, 0
        except httpx.TimeoutException as error:
            raise Interrupted("the transfer came to a stop") from error
        except httpx.HTTPError as error:
            raise Interrupted("the connection broke off half-way") from error

    @contextmanager
    def _open(self, method: str, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Follow redirects to the answer; its body is still to be read."""
        origin = _origin(url)
        for _ in range(self.patience.limits.redirects + 1):
            response = self._send(method, url, headers, secret=_origin(url) == origin)
            try:
                if response.status_code not in _MOVED or "location" not in response.headers:
                    yield response
                    return
                url = _next_address(url, response.headers["location"])
            finally:
                response.close()
        raise ConfigurationError(
            f"{_host(url)} redirects more than {self.patience.limits.redirects} times.", code="source_refused"
        )

    def _send(self, method: str, url: str, headers: Mapping[str, str], *, secret: bool) -> httpx.Response:
        limits = self.patience.limits
        timeout = httpx.Timeout(limits.read_seconds, connect=limits.connect_seconds)
        try:
            address = httpx.URL(url)
            own = {"accept-encoding": "identity", "user-agent": "gas", "host": address.netloc.decode("ascii")}
            own |= dict(headers) | (self._secrets if secret else {})
            if address.userinfo and secret:
                pair = f"{address.username}:{address.password}".encode()
                own["authorization"] = f"Basic {base64.b64encode(pair).decode()}"
            request = httpx.Request(
                method,
                address.copy_with(username=None, password=None, fragment=None),
                headers=own,
                extensions={"timeout": timeout.as_dict()},
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigurationError("The source's address is not valid.", code="bad_address") from error
        try:
            return self._transport(address).handle_request(request)
        except httpx.TimeoutException as error:
            raise Interrupted("it did not answer in time") from error
        except httpx.ConnectError as error:
            raise Interrupted("no connection could be made") from error
        except httpx.HTTPError as error:
            raise Interrupted("the connection broke off") from error

    def _transport(self, address: httpx.URL) -> httpx.HTTPTransport:
        proxy = _proxy_for(address, self._env)
        with self._lock:
            if proxy not in self._transports:
                try:
                    self._transports[proxy] = httpx.HTTPTransport(proxy=proxy or None)
                except (ValueError, ImportError, httpx.InvalidURL) as error:
                    raise ConfigurationError("The proxy of the environment can't be used.", code="proxy") from error
            return self._transports[proxy]


def _next_address(url: str, location: str) -> str:
    """Where a redirect leads, if it may.

    Raises:
        ConfigurationError: ``source_refused``: to an unencrypted or a foreign scheme, or into the own network.
    """
    try:
        after = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(after)
        host = there.hostname or ""
    except ValueError as error:
        raise ConfigurationError(
            f"{_host(url)} redirects to something that is no address.", code="source_refused"
        ) from error
    if there.scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"{_host(url)} redirects to something other than HTTP.", code="source_refused")
    if here.scheme == "https" and there.scheme == "http":
        raise ConfigurationError(
            f"{_host(url)} redirects from an encrypted to an unencrypted address; that is not followed.",
            code="source_refused",
        )
    if _is_internal(host) and not _is_internal(here.hostname or ""):
        raise ConfigurationError(
            f"{_host(url)} redirects into the own network; that is not followed.", code="source_refused"
        )
    return after


def _is_internal(host: str) -> bool:
    if host == "localhost" or host.endswith((".localhost", ".internal", ".local")):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigurationError("The source's address is not valid.", code="bad_address") from error


def _host(url: str) -> str:
    return urlsplit(public_url(url)).netloc or "The source"


def _proxy_for(address: httpx.URL, env: Mapping[str, str]) -> str:
    """Proxy of the environment for this address; empty for none."""
    lower = {name.lower(): value for name, value in env.items() if name.lower().endswith("_proxy")}
    for rule in (lower.get("no_proxy") or "").split(","):
        name = rule.strip().lstrip(".").lower()
        if name == "*" or (name and (address.host == name or address.host.endswith(f".{name}"))):
            return ""
    return lower.get(f"{address.scheme}_proxy") or lower.get("all_proxy") or ""


def _wrong_status(response: httpx.Response, url: str) -> ConfigurationError | Interrupted:
    """What a status that is no answer means: try again, or tell the operator."""
    status, host = response.status_code, _host(url)
    if status in _AGAIN or status > 500:
        return Interrupted(f"it answered with status {status}", _retry_after(response))
    if status in (401, 403):
        return ConfigurationError(
            f"{host} refuses access to {urlsplit(url).path or '/'} (status {status}).",
            code="source_forbidden",
            hint="It may need a token, or its licence may have to be accepted on the web site.",
        )
    if status in (404, 410):
        return ConfigurationError(
            f"{host} has nothing at {urlsplit(url).path or '/'}.", code="source_missing", hint="Is the name right?"
        )
    return ConfigurationError(f"{host} answers with status {status}.", code="source_refused")


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks for; a date is taken relative to the server's own clock."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        until = parsedate_to_datetime(value)
        return (until - parsedate_to_datetime(response.headers.get("date", ""))).total_seconds()
    except (ValueError, TypeError):
        return None


def _refuse_pages(response: httpx.Response, path: str) -> None:
    """A proxy's log-in page is no data; neither is a body that was changed on the way."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml") and not path.lower().endswith((".html", ".htm", ".xhtml")):
        raise Interrupted("it answered with a web page instead of the data (does a proxy want a log-in?)")
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Interrupted("it compressed the data although it was asked not to")
