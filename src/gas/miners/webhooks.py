"""Where media may be delivered to: what an address may look like, and what its name may resolve to.

A validator names the address. Without care it could make the miner talk to the operator's own network: by an address,
by a name that resolves to one, by a name that resolves to another one a moment later, or by a redirect. So names are
resolved here, every address that comes back is looked at, and the connection goes to the one that was looked at.
Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import httpx

from gas.errors import RequestRefused

__all__ = [
    "GuardedTransport",
    "Resolve",
    "check_webhook",
    "check_webhook_host",
    "is_public",
    "resolve_host",
]

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""From a host's name and a port to the addresses behind it, as text; raises :class:`OSError`."""

_MAX_URL: Final = 2048
_LOCAL_NAMES: Final = (".localhost", ".local", ".internal", ".home.arpa", ".lan")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_RESOLVE_SECONDS: Final = 5.0


def is_public(text: str) -> bool:
    """Whether an IP address belongs to the public network, whatever form it hides in.

    An IPv6 address that carries an IPv4 one (mapped, 6to4, Teredo, NAT64) counts as that one too.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    inner: list[ipaddress.IPv4Address | None] = []
    if isinstance(address, ipaddress.IPv6Address):
        inner += [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
    carried = all(a is None or (a.is_global and not a.is_multicast) for a in inner)
    return carried and address.is_global and not address.is_multicast and not address.is_reserved


async def resolve_host(host: str, port: int) -> list[str]:
    """The addresses behind a name, by the system's resolver."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def check_webhook(url: str, *, allow_local: bool) -> str:
    """The webhook's address, when it is one that we would send a medium to, as far as its text tells.

    Args:
        url: As the validator gave it.
        allow_local: Whether loop-back and private addresses will do.

    Raises:
        RequestRefused: 422 ``bad_webhook``.
    """
    if not 0 < len(url) <= _MAX_URL or not url.isascii() or not url.isprintable():
        raise _refusal("The webhook's address is missing, too long, or no plain text.")
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        raise _refusal("The webhook's address is no URL.") from None
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.password or parts.fragment:
        raise _refusal("The webhook must be a plain http or https address.")
    if allow_local:
        return url
    try:
        ipaddress.ip_address(host)
    except ValueError:
        name = host.rstrip(".")
        if name == "localhost" or name.endswith(_LOCAL_NAMES) or "." not in name:
            raise _refusal("The webhook's address is local.") from None
        return url
    if not is_public(host):
        raise _refusal("The webhook's address is local.")
    return url


async def check_webhook_host(url: str, resolve: Resolve = resolve_host) -> None:
    """Refuse a webhook whose name leads into a private network now.

    A name that can't be resolved is left to the delivery: the resolver may be back by then.

    Raises:
        RequestRefused: 422 ``bad_webhook``.
    """
    parts = httpx.URL(url)
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await resolve(parts.host, parts.port or 443)
    except (OSError, UnicodeError, TimeoutError):
        return
    if not found or not all(is_public(address) for address in found):
        raise _refusal("The webhook's name leads to a local address.")


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects to public addresses only, and to those that were looked at.

    Args:
        resolve: How names become addresses.
        inner: What carries the requests; the network when left out.
    """

    def __init__(self, resolve: Resolve = resolve_host, inner: httpx.AsyncBaseTransport | None = None) -> None:
        self._resolve = resolve
        self._inner = inner or httpx.AsyncHTTPTransport(retries=0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Resolve, look, and send to the address itself; the certificate is still checked against the name.

        Raises:
            httpx.ConnectError: The name can't be resolved, or leads to an address that isn't public.
        """
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await self._resolve(host, port)
        except (OSError, UnicodeError, TimeoutError):
            raise httpx.ConnectError("The name can't be resolved.", request=request) from None
        if not found or not all(is_public(address) for address in found):
            raise httpx.ConnectError("The name leads to a local address.", request=request)
        # The Host header was set from the name when the request was built, and stays.
        pinned = httpx.Request(
            request.method,
            request.url.copy_with(host=found[0].partition("%")[0]),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        return await self._inner.handle_async_request(pinned)

    async def aclose(self) -> None:
        """Let connections go."""
        await self._inner.aclose()


def _refusal(message: str) -> RequestRefused:
    return RequestRefused(message, status=422, code="bad_webhook", hint="Send it in the header X-Webhook-URL.")
