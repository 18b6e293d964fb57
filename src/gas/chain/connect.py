"""The single way to a chain: from an endpoint's name to whoever speaks to it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from gas.chain.base import Chain
from gas.chain.keys import Signer
from gas.clock import Clock
from gas.errors import ConfigurationError

__all__ = ["LOCAL", "PUBLIC", "check_endpoint", "connect"]

LOCAL: Final = "local"
"""The endpoint of the ledger in the home."""

PUBLIC: Final = {
    "finney": "wss://entrypoint-finney.opentensor.ai:443",
    "test": "wss://test.finney.opentensor.ai:443",
}
"""Names of the public networks, and a node of each."""


def check_endpoint(endpoint: str) -> str:
    """An endpoint that makes sense, as it was given.

    Raises:
        ConfigurationError: It is none (``bad_endpoint``).
    """
    if endpoint in (LOCAL, *PUBLIC):
        return endpoint
    try:
        parts = urlsplit(endpoint)
        fine = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        # What was typed may hold a token, so it is not repeated.
        raise ConfigurationError(
            "The chain's endpoint is not one.",
            code="bad_endpoint",
            hint="Known are local, ws://HOST:PORT, wss://HOST, finney and test.",
        )
    return endpoint


async def connect(
    endpoint: str, signer: Signer | None, clock: Clock, *, coldkey: Signer | None = None, ledger_path: Path
) -> Chain:
    """The chain behind an endpoint.

    Its connection is opened by the first call, in the event loop of that call; close it at the end.

    Args:
        endpoint: ``local`` (the home's ledger), ``ws://host:port`` (a served ledger or a node of a live network: it is
            asked which), ``wss://...``, ``finney`` or ``test`` (a live network).
        signer: The hotkey that signs; None for one who only looks.
        clock: Where time comes from.
        coldkey: Pays for registration and stake; without one, the hotkey is its own coldkey.
        ledger_path: File of the home's ledger.

    Raises:
        ConfigurationError: The endpoint makes no sense (``bad_endpoint``), the home has no ledger
            (``ledger_missing``), or the packages for a live network are not installed (``extra_missing``).
        ChainUnreachable: Nobody answers.
    """
    check_endpoint(endpoint)
    if endpoint == LOCAL:
        from gas.chain.local.chain import LocalChain

        return LocalChain(ledger_path, signer, clock, coldkey=coldkey)
    if endpoint.startswith("ws://"):
        from gas.chain.served.client import ServedChain
        from gas.chain.served.link import probe

        if await probe(endpoint):
            return ServedChain(endpoint, signer, clock, coldkey=coldkey)
    try:
        # By its name, because the extra that it needs may be missing.
        live = import_module("gas.chain.bittensor.chain")
    except ImportError as error:
        raise ConfigurationError(
            "The packages for a live network are not installed.",
            code="extra_missing",
            hint="pip install 'gas[bittensor]'",
        ) from error
    build = cast(Callable[..., Any], live.BittensorChain)
    return cast(Chain, build(PUBLIC.get(endpoint, endpoint), signer, clock, coldkey=coldkey))
