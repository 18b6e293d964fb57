"""Which addresses a finished medium may be fetched from."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urljoin, urlsplit

from gas.errors import ServiceUnavailable

__all__ = ["check_address", "check_resolved", "is_private", "origin", "redirected"]


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address that has been checked."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def is_private(host: str) -> bool:
    """Whether a host is, by its name or number alone, this machine or one of a private network."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        return "." not in name


def check_address(url: str, base_url: str) -> str:
    """Refuse an address that a provider's answer must not lead to.

    Args:
        url: Where the provider says that the medium lies; hostile.
        base_url: The provider's own address as configured. Only one that is itself unencrypted, or private, may lead
            to unencrypted, or private, addresses: a gateway of the operator's own.

    Returns:
        The address.

    Raises:
        ServiceUnavailable: ``provider_failed``.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise _refusal("no address") from None
    base = urlsplit(base_url)
    if not url.isascii() or not url.isprintable() or " " in url:
        raise _refusal("no address that can be fetched")
    if len(url) > 8192 or parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
        raise _refusal("no address that can be fetched")
    if parts.scheme == "http" and base.scheme != "http":
        raise _refusal("an unencrypted address")
    if is_private(host) and not is_private(base.hostname or ""):
        raise _refusal("an address in a private network")
    return url


def check_resolved(addresses: Iterable[str]) -> None:
    """Refuse a name that stands for an address in a private network.

    Args:
        addresses: What the name was resolved to.

    Raises:
        ServiceUnavailable: ``provider_failed``.
    """
    if any(is_private(address.partition("%")[0]) for address in addresses):
        raise _refusal("a name that stands for an address in a private network")


def redirected(url: str, location: str, base_url: str) -> str:
    """The checked address that a redirect leads to.

    Raises:
        ServiceUnavailable: ``provider_failed``: it must not be followed.
    """
    try:
        after = urljoin(url, location)
    except ValueError:
        raise _refusal("no address") from None
    if urlsplit(url).scheme == "https" and urlsplit(after).scheme == "http":
        raise _refusal("an unencrypted address")
    return check_address(after, base_url)


def _refusal(what: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"The provider's answer leads to {what}; it is not fetched.", hint="Is the base URL the provider's own?"
    )
