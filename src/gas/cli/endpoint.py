"""Options of every command that speaks to a chain, and the opening of that chain."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gas.chain.base import Axon, Chain
    from gas.chain.keys import Signer
    from gas.clock import Clock
    from gas.config import HomeSettings

__all__ = ["ChainEndpoint", "home_settings", "open_chain", "parse_axon"]

ChainEndpoint = Annotated[
    str | None,
    typer.Option(
        "--chain-endpoint",
        help="The chain: local, ws://HOST:PORT, wss://HOST, finney or test; GAS_CHAIN_ENDPOINT or local by default.",
    ),
]
"""Option of a command; None leaves it to the settings."""


def home_settings(
    home: Path | None = None, *, netuid: int | None = None, chain_endpoint: str | None = None
) -> HomeSettings:
    """The settings in force after the options of a command.

    Raises:
        ConfigurationError: The netuid or the endpoint makes no sense.
    """
    from gas.chain.connect import check_endpoint
    from gas.config import HomeSettings
    from gas.errors import ConfigurationError

    given: dict[str, Any] = {"home": home, "netuid": netuid, "chain_endpoint": chain_endpoint}
    if netuid is not None and not 0 <= netuid <= 65535:
        raise ConfigurationError("A netuid is from 0 to 65535.")
    settings = HomeSettings().model_copy(update={name: value for name, value in given.items() if value is not None})
    check_endpoint(settings.chain_endpoint)
    return settings


async def open_chain(
    settings: HomeSettings, signer: Signer | None, clock: Clock, *, coldkey: Signer | None = None
) -> Chain:
    """The chain that the settings name; raises as :func:`gas.chain.connect.connect`."""
    from gas.chain.connect import connect

    return await connect(settings.chain_endpoint, signer, clock, coldkey=coldkey, ledger_path=settings.ledger_path)


def parse_axon(text: str) -> Axon:
    """``IP:PORT`` or ``[IPv6]:PORT`` as people write it.

    Raises:
        ConfigurationError: It is none.
    """
    from gas.chain.base import Axon
    from gas.errors import ConfigurationError

    host, _, port = text.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else 0
    except ValueError:
        ip, number = None, 0
    if ip is None or not 0 < number <= 65535:
        raise ConfigurationError(f"{text[:60]!r} is no IP:PORT.", hint="E.g. 203.0.113.7:8091 or [2001:db8::7]:8091.")
    return Axon(str(ip), number)
