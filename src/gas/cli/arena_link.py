"""What an author is told when an arena does not answer, or does not know the hotkey."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gas.errors import RequestRefused
from gas.protocol.client import PeerUnreachable

__all__ = ["arena_at"]


@contextmanager
def arena_at(url: str) -> Iterator[None]:
    """Say of the arena's silence where it was looked for, and of an unknown hotkey what to do.

    Args:
        url: The arena's address; only its host and port are shown.

    Raises:
        PeerUnreachable: Nobody answers there; the same code as before.
        RequestRefused: The arena refuses.
    """
    try:
        yield
    except PeerUnreachable as error:
        if error.error_code != PeerUnreachable.code:
            raise
        raise PeerUnreachable(
            f"No arena answers at {_shown(url)}.", hint="Is it served there? --api-url names another address."
        ) from error
    except RequestRefused as error:
        if error.error_code != "unknown_signer":
            raise
        raise RequestRefused(
            "The arena does not know this hotkey.",
            status=error.status,
            code=error.error_code,
            hint="Register it on the arena's subnet: gascli chain register.",
        ) from error


def _shown(url: str) -> str:
    """Scheme, host and port: an address may hold a password."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "that address"
    return f"{parts.scheme}://{parts.hostname}{port}"
